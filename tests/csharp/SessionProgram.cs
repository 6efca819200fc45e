// SPDX-License-Identifier: Apache-2.0
// A text that is begun in one process and goes on in another; the same program exists in every language.
//   begin MODEL SESSION     the first pieces; SESSION keeps the rest
//   go_on MODEL SESSION     the rest
using System;
using System.IO;
using System.Linq;
using System.Text;
using Wkv;

namespace WkvTests {

public static class SessionProgram {
  /// <summary>The text of tests/conformance, not yet started.</summary>
  public static Generation Begin(Model model) => model.Generate("Once upon a time", new GenerationOptions {
    MaxTokens = 40, Sampling = new SamplerOptions { Temperature = 0.8f, Seed = 7 }
  });

  public static int Run(string command, string path, string file) {
    try {
      using (Model model = new Model(path, new ModelOptions { Device = "cpu" })) {
        string text;
        if (command == "begin") {
          using (Generation generation = Begin(model)) {
            text = string.Concat(generation.Take(20).Select(piece => piece.Text));
            new Session(generation).Save(file);
          }
        } else {
          using (Session session = model.LoadSession(file)) text = session.Generation.ReadToEnd();
        }
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        using (Stream output = Console.OpenStandardOutput()) output.Write(bytes, 0, bytes.Length);
      }
      return 0;
    } catch (Exception failure) when (failure is IWkvFailure) {
      Console.Error.WriteLine($"session: {failure.Message}");
      return 1;
    }
  }
}

}
