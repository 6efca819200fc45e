// SPDX-License-Identifier: Apache-2.0
// Several texts at once: the weights are read once for all of them. batch [MODEL]
using System;
using System.Collections.Generic;
using System.Linq;
using Wkv;

static class Batch {
  static void Main(string[] arguments) {
    using (var model = new Model(arguments.Length > 0 ? arguments[0] : "examples/models/tales-8m.gguf")) {
      string[] prompts = { "There was a king", "A fox met a hare in the wood", "Once upon a time" };
      List<int>[] texts = prompts.Select(prompt => model.Tokenizer.Encode(prompt).ToList()).ToArray();
      StepItem[] items = texts.Select((text, i) => new StepItem(model.CreateCache(), text.ToArray()) {
        Sampler = new Sampler(new SamplerOptions { Temperature = 0.8f, TopP = 0.8f, Seed = (ulong)i })
      }).ToArray();

      for (int i = 0; i < 30; i++) {
        model.Step(items);
        for (int j = 0; j < items.Length; j++) {
          texts[j].Add(items[j].NextToken);
          items[j].Tokens = new[] { items[j].NextToken };
        }
      }

      foreach (List<int> text in texts) {
        int[] tokens = text.TakeWhile(token => token != 0).ToArray();  // 0 is the end of a text
        Console.WriteLine(model.Tokenizer.Decode(tokens).Replace('\n', ' '));
      }
      foreach (StepItem item in items) {
        item.Sampler.Dispose();
        item.Cache.Dispose();
      }
    }
  }
}
