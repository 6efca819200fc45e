// SPDX-License-Identifier: Apache-2.0
// A conversation that goes on another day: chat [MODEL]. Its session is kept in chat.wkv.
using System;
using System.IO;
using Wkv;

static class Chat {
  static void Main(string[] arguments) {
    using (var model = new Model(arguments.Length > 0 ? arguments[0] : "examples/models/tales-8m.gguf"))
    using (var session = File.Exists("chat.wkv")
               ? model.LoadSession("chat.wkv")
               : new Session(model.CreateCache(), new Sampler(new SamplerOptions { Temperature = 1, TopP = 0.6f }))) {
      for (string message = Console.ReadLine(); message != null; message = Console.ReadLine()) {
        // the stop string is taken back out of the cache, and the next message begins with it
        string begin = session.Cache.Position > 0 ? "\n\n" : "";
        var options = new GenerationOptions {
          Cache = session.Cache, Sampler = session.Sampler, MaxTokens = 60, StopStrings = { "\n\n" }
        };
        using (var answer = model.Generate($"{begin}User: {message.Trim()}\n\nAssistant:", options))
          foreach (string piece in answer)
            Console.Write(piece);
        Console.WriteLine();
        session.Save("chat.wkv");
      }
    }
  }
}
