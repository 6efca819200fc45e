// SPDX-License-Identifier: Apache-2.0
// The parts that generate is made of, for a loop of your own: embed [PROMPT [MODEL]]
using System;
using Wkv;

static class Embed {
  static void Main(string[] arguments) {
    string prompt = arguments.Length > 0 ? arguments[0] : "Once upon a time";
    string path = arguments.Length > 1 ? arguments[1] : "examples/models/tales-8m.gguf";

    using (var model = new Model(path))
    using (var cache = model.CreateCache())
    using (var decoder = model.Tokenizer.CreateDecoder())
    using (var sampler = new Sampler(new SamplerOptions { Temperature = 0.8f, TopP = 0.8f, Seed = 7 })) {
      float[] logits = cache.Step(model.Tokenizer.Encode(prompt));
      Console.Write(prompt);
      for (int i = 0; i < 100; i++) {
        int token = sampler.Sample(logits);
        if (token == 0) break;  // the end of the text
        Console.Write(decoder.Push(token));
        cache.Step(token, logits);
      }
      Console.WriteLine(decoder.Finish());
    }
  }
}
