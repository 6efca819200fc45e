// SPDX-License-Identifier: Apache-2.0
// One prompt, read once, and several ways to go on: branch [MODEL]
using System;
using System.Linq;
using Wkv;

static class Branch {
  static void Main(string[] arguments) {
    using (var model = new Model(arguments.Length > 0 ? arguments[0] : "examples/models/tales-8m.gguf"))
    using (var cache = model.CreateCache()) {
      int[] tokens = model.Tokenizer.Encode("There was once a king who had three sons, and the youngest");
      cache.Feed(tokens.AsSpan(0, tokens.Length - 1));

      for (ulong seed = 0; seed < 4; seed++)
        using (var fork = cache.Copy())  // shares the memory of the prompt's state until it goes on
        using (var generation = model.Generate(null, new GenerationOptions {
          Cache = fork, PromptTokens = new[] { tokens.Last() }, MaxTokens = 20,
          Sampling = new SamplerOptions { Seed = seed }
        }))
          Console.WriteLine("... " + generation.ReadToEnd().Replace('\n', ' ').Trim());
    }
  }
}
