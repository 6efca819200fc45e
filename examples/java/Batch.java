// SPDX-License-Identifier: Apache-2.0
// Several texts at once: the weights are read once for all of them. java -cp build/java/wkv.jar
// examples/java/Batch.java [MODEL]
import dev.wkv.Cache;
import dev.wkv.Model;
import dev.wkv.Sampler;
import dev.wkv.SamplerOptions;
import dev.wkv.StepItem;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;

class Batch {
  public static void main(String[] arguments) {
    String path = arguments.length > 0 ? arguments[0] : "examples/models/tales-8m.gguf";
    List<String> prompts = List.of("There was a king", "A fox met a hare in the wood", "Once upon a time");
    try (Model model = Model.load(path)) {
      List<int[]> texts = new ArrayList<>();
      List<StepItem> items = new ArrayList<>();
      List<Cache> caches = new ArrayList<>();
      List<Sampler> samplers = new ArrayList<>();
      for (int i = 0; i < prompts.size(); i++) {
        texts.add(model.tokenizer().encode(prompts.get(i)));
        caches.add(model.cache());
        samplers.add(Sampler.create(SamplerOptions.builder().temperature(0.8f).topP(0.8f).seed(i).build()));
        items.add(StepItem.of(caches.get(i), texts.get(i)).sampler(samplers.get(i)));
      }
      for (int step = 0; step < 30; step++) {
        int[] chosen = model.step(items);
        for (int i = 0; i < chosen.length; i++) {
          texts.set(i, IntStream.concat(IntStream.of(texts.get(i)), IntStream.of(chosen[i])).toArray());
          items.set(i, StepItem.of(caches.get(i), chosen[i]).sampler(samplers.get(i)));
        }
      }
      for (int[] tokens : texts) { // 0 is the end of a text
        int[] text = IntStream.of(tokens).takeWhile(token -> token != 0).toArray();
        System.out.println(model.tokenizer().decode(text).strip().replaceAll("\\s+", " "));
      }
      caches.forEach(Cache::close);
      samplers.forEach(Sampler::close);
    }
  }
}
