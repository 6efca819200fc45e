// SPDX-License-Identifier: Apache-2.0
// The parts that generate is made of, for a loop of your own: java -cp build/java/wkv.jar examples/java/Embed.java
// [PROMPT [MODEL]]
import dev.wkv.Cache;
import dev.wkv.Decoder;
import dev.wkv.Model;
import dev.wkv.Sampler;
import dev.wkv.SamplerOptions;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;

class Embed {
  public static void main(String[] arguments) {
    String prompt = arguments.length > 0 ? arguments[0] : "Once upon a time";
    String path = arguments.length > 1 ? arguments[1] : "examples/models/tales-8m.gguf";
    try (Model model = Model.load(path); Cache cache = model.cache(); Decoder decoder = model.tokenizer().decoder();
         Sampler sampler = Sampler.create(SamplerOptions.builder().temperature(0.8f).topP(0.8f).seed(7).build())) {
      FloatBuffer logits = model.newLogits();
      cache.step(IntBuffer.wrap(model.tokenizer().encode(prompt)), logits);
      System.out.print(prompt);
      for (int i = 0; i < 100; i++) {
        int token = sampler.sample(logits);
        if (token == 0) break; // the end of the text
        System.out.print(decoder.push(token));
        cache.step(token, logits);
      }
      System.out.println(decoder.finish());
    }
  }
}
