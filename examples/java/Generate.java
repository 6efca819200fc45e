// SPDX-License-Identifier: Apache-2.0
// Continue a text: java -cp build/java/wkv.jar examples/java/Generate.java [PROMPT [MODEL]]
import dev.wkv.Generation;
import dev.wkv.GenerationOptions;
import dev.wkv.Model;
import dev.wkv.Piece;
import dev.wkv.SamplerOptions;

class Generate {
  public static void main(String[] arguments) {
    String prompt = arguments.length > 0 ? arguments[0] : "Once upon a time";
    String path = arguments.length > 1 ? arguments[1] : "examples/models/tales-8m.gguf";
    SamplerOptions sampling = SamplerOptions.builder().temperature(0.8f).topP(0.8f).seed(7).build();
    GenerationOptions options = GenerationOptions.builder().maxTokens(100).sampling(sampling).build();
    try (Model model = Model.load(path); Generation generation = model.generate(prompt, options)) {
      System.out.print(prompt);
      for (Piece piece : generation) System.out.print(piece);
      System.out.println();
    }
  }
}
