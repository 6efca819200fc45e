// SPDX-License-Identifier: Apache-2.0
// A conversation that goes on another day: java -cp build/java/wkv.jar examples/java/Chat.java [MODEL]
// Its session is kept in chat.wkv.
import dev.wkv.Generation;
import dev.wkv.GenerationOptions;
import dev.wkv.Model;
import dev.wkv.Piece;
import dev.wkv.Sampler;
import dev.wkv.SamplerOptions;
import dev.wkv.Session;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Scanner;

class Chat {
  public static void main(String[] arguments) {
    String path = arguments.length > 0 ? arguments[0] : "examples/models/tales-8m.gguf";
    Path file = Path.of("chat.wkv");
    try (Model model = Model.load(path); Session session = Files.exists(file)
             ? model.loadSession(file)
             : Session.of(model.cache(), Sampler.create(SamplerOptions.builder().temperature(1).topP(0.6f).build()));
         Scanner input = new Scanner(System.in)) {
      GenerationOptions options = GenerationOptions.builder()
                                      .cache(session.cache())
                                      .sampler(session.sampler())
                                      .maxTokens(60)
                                      .stop("\n\n")
                                      .build();
      while (input.hasNextLine()) {
        // the stop string is taken back out of the cache, and the next message begins with it
        String begin = session.cache().position() > 0 ? "\n\n" : "";
        String prompt = begin + "User: " + input.nextLine().strip() + "\n\nAssistant:";
        try (Generation answer = model.generate(prompt, options)) {
          for (Piece piece : answer) System.out.print(piece);
          System.out.println();
        }
        session.save(file);
      }
    }
  }
}
