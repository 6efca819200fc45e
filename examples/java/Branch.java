// SPDX-License-Identifier: Apache-2.0
// One prompt, read once, and several ways to go on: java -cp build/java/wkv.jar examples/java/Branch.java [MODEL]
import dev.wkv.Cache;
import dev.wkv.Generation;
import dev.wkv.GenerationOptions;
import dev.wkv.Model;
import dev.wkv.SamplerOptions;
import java.util.Arrays;

class Branch {
  public static void main(String[] arguments) {
    String path = arguments.length > 0 ? arguments[0] : "examples/models/tales-8m.gguf";
    try (Model model = Model.load(path); Cache cache = model.cache()) {
      int[] tokens = model.tokenizer().encode("There was once a king who had three sons, and the youngest");
      int last = tokens.length - 1;
      cache.feed(Arrays.copyOf(tokens, last));
      for (int seed = 0; seed < 4; seed++) {
        SamplerOptions sampling = SamplerOptions.builder().temperature(1).seed(seed).build();
        try (Cache fork = cache.copy(); // shares the memory of the prompt's state until it goes on
             Generation generation = model.generate("",
                 GenerationOptions.builder()
                     .cache(fork)
                     .promptTokens(tokens[last])
                     .maxTokens(20)
                     .sampling(sampling)
                     .build())) {
          System.out.println("... " + generation.text().strip().replaceAll("\\s+", " "));
        }
      }
    }
  }
}
