// SPDX-License-Identifier: Apache-2.0
// Continue a text: generate [PROMPT [MODEL]]
using System;
using Wkv;

static class Generate {
  static void Main(string[] arguments) {
    string prompt = arguments.Length > 0 ? arguments[0] : "Once upon a time";
    string path = arguments.Length > 1 ? arguments[1] : "examples/models/tales-8m.gguf";

    var options = new GenerationOptions {
      MaxTokens = 100,
      Sampling = new SamplerOptions { Temperature = 0.8f, TopP = 0.8f, Seed = 7 }
    };
    using (var model = new Model(path))
    using (var generation = model.Generate(prompt, options)) {
      Console.Write(prompt);
      foreach (string piece in generation)
        Console.Write(piece);
      Console.WriteLine();
    }
  }
}
