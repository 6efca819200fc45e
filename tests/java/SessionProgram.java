// SPDX-License-Identifier: Apache-2.0
import dev.wkv.Generation;
import dev.wkv.GenerationOptions;
import dev.wkv.Model;
import dev.wkv.ModelOptions;
import dev.wkv.SamplerOptions;
import dev.wkv.Session;
import java.nio.charset.StandardCharsets;

/**
 * A text that is begun in one process and goes on in another; the same program exists in every language.
 *
 * <pre>
 * SessionProgram begin MODEL SESSION     the first pieces; SESSION keeps the rest
 * SessionProgram go_on MODEL SESSION     the rest
 * </pre>
 */
class SessionProgram {
  /** The text of tests/conformance, not yet started. */
  static Generation begun(Model model) {
    SamplerOptions sampling = SamplerOptions.builder().temperature(0.8f).seed(7).build();
    return model.generate("Once upon a time", GenerationOptions.builder().sampling(sampling).maxTokens(40).build());
  }

  public static void main(String[] arguments) {
    if (arguments.length != 3 || !arguments[0].equals("begin") && !arguments[0].equals("go_on")) {
      System.err.println("SessionProgram begin|go_on MODEL SESSION");
      System.exit(2);
    }
    StringBuilder text = new StringBuilder();
    try (Model model = Model.load(arguments[1], ModelOptions.builder().device("cpu").build())) {
      if (arguments[0].equals("begin")) {
        try (Generation generation = begun(model)) {
          for (int i = 0; i < 20; i++) text.append(generation.next());
          Session.of(generation).save(arguments[2]);
        }
      } else {
        try (Session session = model.loadSession(arguments[2])) {
          text.append(session.generation().text());
        }
      }
    }
    System.out.writeBytes(text.toString().getBytes(StandardCharsets.UTF_8));
    System.out.flush();
  }
}
