// SPDX-License-Identifier: Apache-2.0
// Text: tokenizers, samplers, generations, sessions.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text;
using System.Text.RegularExpressions;
using System.Threading;
using System.Threading.Tasks;
using Wkv;

namespace WkvTests {

public static class TextTests {
  [Promise("text/tokenizer")]
  public static void Tokens() {
    Tokenizer tokenizer = Support.Story.Tokenizer;
    foreach (string text in new[] { "Once upon a time", "", "The king said: \"Go!\"" }) {
      Check.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
      Check.Same(tokenizer.Encode(text), tokenizer.Encode(Encoding.UTF8.GetBytes(text)), "bytes");
    }
    using (Tokenizer small = Conformance.SmallTokenizer()) {
      Check.Fails<NotSupportedException>(Status.Unsupported, () => small.Encode("z"));
      Check.Equal((9, 10), (small.Info.Tokens, small.Info.IdsEnd));
    }
    Check.Fails<FormatException>(Status.Format, () => Tokenizer.FromBytes(Encoding.ASCII.GetBytes("1 broken")));
    Check.Fails<FileNotFoundException>(Status.NotFound, () => new Tokenizer("/no/such/vocabulary.txt"));
    Check.True(ReferenceEquals(tokenizer, Support.Story.Tokenizer), "the model has one");
  }

  [Promise("text/golden_tokens")]
  public static void GoldenTokens() {
    using (Tokenizer tokenizer = new Tokenizer(Golden.Weights("rwkv_vocab.txt"))) {
      MatchCollection cases =
          Regex.Matches(Golden.Text("tokenizer_cases.json"), "\"bytes_hex\": \"(\\w*)\", \"ids\": \\[([^\\]]*)\\]");
      Check.True(cases.Count > 4, $"{cases.Count} cases");
      foreach (Match one in cases) {
        string hex = one.Groups[1].Value;
        byte[] bytes =
            Enumerable.Range(0, hex.Length / 2).Select(i => Convert.ToByte(hex.Substring(2 * i, 2), 16)).ToArray();
        int[] ids = one.Groups[2].Value.Split(new[] { ',' }, StringSplitOptions.RemoveEmptyEntries).Select(int.Parse)
            .ToArray();
        Check.Same(ids, tokenizer.Encode(bytes), hex);
        Check.Same(bytes, tokenizer.DecodeBytes(ids), hex);
      }
    }
  }

  [Promise("text/sampler")]
  public static void Sampling() {
    float[] logits = { 0, 5, 1, 4 };
    Func<SamplerOptions, int> choice = options => {
      using (Sampler sampler = new Sampler(options)) return sampler.Sample(logits);
    };
    Check.Equal(1, choice(new SamplerOptions { Temperature = 0 }));
    Check.Equal(1, choice(new SamplerOptions { IsGreedy = true }));
    Check.Equal(1, choice(new SamplerOptions { TopK = 1 }));
    Check.Equal(3, choice(new SamplerOptions { IsGreedy = true, BannedTokens = new[] { 1 } }));
    Check.Equal(2, choice(new SamplerOptions { IsGreedy = true, Biases = { [2] = 100 } }));
    using (Sampler sampler = new Sampler(new SamplerOptions { IsGreedy = true, Presence = 10 })) {
      sampler.Accept(1);
      Check.Equal(3, sampler.Sample(logits), "penalised");
    }
    using (Sampler sampler = new Sampler(new SamplerOptions { Seed = 3 })) {
      int[] first = Enumerable.Range(0, 20).Select(_ => sampler.Sample(logits)).ToArray();
      sampler.Reset(3);
      Check.Same(first, Enumerable.Range(0, 20).Select(_ => sampler.Sample(logits)), "after a reset");
    }
    using (Sampler sampler = new Sampler(new SamplerOptions { TopK = 2 })) {
      float[] shares = sampler.GetProbabilities(logits);
      Check.Equal((0f, 0f), (shares[0], shares[2]), "cut");
      Check.True(Math.Abs(shares.Sum() - 1) < 1e-5, "sum");
      float[] place = (float[])logits.Clone();
      sampler.GetProbabilities(place, place);
      Check.Same(shares, place, "in place");
    }
    foreach (SamplerOptions wrong in new[] { new SamplerOptions { TopP = 2 }, new SamplerOptions { MinP = 1 },
                                             new SamplerOptions { Temperature = float.NaN },
                                             new SamplerOptions { Biases = { [-1] = 1 } } })
      Check.Fails<ArgumentException>(Status.Invalid, () => new Sampler(wrong));
    Check.Fails<ArgumentException>(
        Status.Invalid, () => new Sampler(new SamplerOptions { BannedTokens = new[] { 0 } }).Sample(new float[] { 1 }));
  }

  [Promise("text/generation_is_step_by_step")]
  public static void GenerationSteps() {
    Model model = Support.Story;
    Cache cache = model.CreateCache();
    int[] prompt = model.Tokenizer.Encode("Once upon a time");
    float[] logits = cache.Step(prompt);
    List<int> tokens = new List<int>();
    for (int i = 0; i < 12; i++) {
      tokens.Add(Support.Likeliest(logits, model.Tokenizer.Info.IdsEnd));
      cache.Step(tokens.Last(), logits);
    }
    using (Generation generation =
               model.Generate("Once upon a time", new GenerationOptions { MaxTokens = 12, AlternativesCount = 4 })) {
      Piece[] pieces = generation.ToArray();
      Check.Same(tokens, pieces.Select(piece => piece.Token), "tokens");
      Check.Equal(model.Tokenizer.Decode(tokens.ToArray()), string.Concat(pieces.Select(piece => piece.Text)), "text");
      Check.Equal((StopReason.MaxTokens, (int?)tokens.Last(), 12L, (long)prompt.Length),
                  (generation.Reason, generation.PendingToken, generation.TokensGenerated, generation.PromptTokens));
      Check.Equal(StopReason.MaxTokens, pieces.Last().Reason, "the last piece");
      Check.Equal(0, generation.Count(), "and no more");
      foreach (Piece piece in pieces) {
        Check.Equal(4, piece.Alternatives.Count, "alternatives");
        Check.Equal(piece.Token, piece.Alternatives[0].Token, "the likeliest");
        Check.True(piece.LogProbability < 0, "how likely");
        Check.Equal(piece.LogProbability, piece.Alternatives[0].LogProbability, "the same");
      }
    }
  }

  [Promise("text/pieces_are_strings")]
  public static void PiecesAreStrings() {
    Model model = Support.Story;
    Func<ulong, Generation> generate = seed => model.Generate("Once", new GenerationOptions {
      MaxTokens = 20, Sampling = new SamplerOptions { Temperature = 1, Seed = seed }
    });
    string expected = generate(3).ReadToEnd(), text = "";
    foreach (string piece in generate(3)) text += piece;
    Check.Equal(expected, text, "foreach");
    Check.Equal(expected, string.Concat(generate(3).Texts), "Texts");
    // a loop that is left goes on with the next one
    Generation generation = generate(3);
    Check.Equal(expected, string.Concat(generation.Texts.Take(3)) + generation.ReadToEnd(), "two loops");
    Check.True(generate(4).ReadToEnd() != expected, "another seed");
  }

  /// <summary>What await foreach does.</summary>
  private static async Task<string> Read(Generation generation, CancellationToken token, Action<int> seen) {
    IAsyncEnumerator<Piece> pieces = generation.AsAsyncEnumerable().GetAsyncEnumerator(token);
    string text = "";
    try {
      for (int count = 1; await pieces.MoveNextAsync(); count++) {
        text += pieces.Current;
        seen(count);
      }
    } finally {
      await pieces.DisposeAsync();
    }
    return text;
  }

  [Promise("text/asynchronous_pieces")]
  public static void Asynchronous() {
    Model model = Support.Story;
    string expected = model.Generate("Once", new GenerationOptions { MaxTokens = 20 }).ReadToEnd();
    Check.Equal(expected, Read(model.Generate("Once", new GenerationOptions { MaxTokens = 20 }),
                               CancellationToken.None, _ => { }).Result);
    CancellationTokenSource source = new CancellationTokenSource();
    Generation cancelled = model.Generate("Once", new GenerationOptions { MaxTokens = 20 });
    Check.Throws<OperationCanceledException>(() => Read(cancelled, source.Token, count => {
      if (count == 5) source.Cancel();
    }).GetAwaiter().GetResult());
    Check.Equal(15, cancelled.Count(), "another loop goes on");
  }

  [Promise("text/turns_on_one_cache")]
  public static void Turns() {
    Model model = Support.Story;
    Cache cache = model.CreateCache();
    Generation first = model.Generate("There was", new GenerationOptions { Cache = cache, MaxTokens = 5 });
    Check.True(ReferenceEquals(cache, first.Cache), "its cache");
    Check.Throws<ArgumentException>(() => model.Generate(" and", new GenerationOptions { Previous = first }));
    string text = "There was" + first.ReadToEnd() + " and";
    Generation second = model.Generate(" and", new GenerationOptions { Previous = first, MaxTokens = 5 });
    text += second.ReadToEnd();
    Check.True(ReferenceEquals(cache, second.Cache), "goes on there");
    Check.Equal(first.PromptTokens + 5 + model.Tokenizer.Encode(" and").Length + 4, cache.Position, "all was read");

    // a stop string leaves no trace, and what was said before it is not lost
    Generation stopped =
        model.Generate("Once upon a time", new GenerationOptions { MaxTokens = 200, StopStrings = { "." } });
    text = stopped.ReadToEnd();
    Check.True(!text.Contains("."), text);
    Check.Equal((StopReason.StopString, (int?)null), (stopped.Reason, stopped.PendingToken));
    Generation kept = model.Generate("Once upon a time", new GenerationOptions {
      MaxTokens = 200, StopStrings = new[] { ".", "xyz" }, KeepsStopString = true
    });
    Check.Equal(text, kept.ReadToEnd());
    Check.True(kept.Cache.Position >= stopped.Cache.Position, "the stop is in the cache");
    Generation again = model.Generate(" More", new GenerationOptions { Previous = stopped, MaxTokens = 2 });
    int[] fed = model.Tokenizer.Encode(stopped.Unread.Concat(Encoding.UTF8.GetBytes(" More")).ToArray());
    again.ReadToEnd();
    Check.Equal((long)fed.Length, again.PromptTokens, "unread text is fed first");
    // a cache that was made for the first turn goes with the last one
    stopped.Dispose();
    Check.True(!again.Cache.IsClosed, "still open");
    again.Dispose();
    Check.True(again.Cache.IsClosed, "closed with its generation");
  }

  [Promise("text/generation_wrong_use")]
  public static void WrongUse() {
    Model model = Support.Story;
    foreach (GenerationOptions wrong in new[] {
      new GenerationOptions { StopStrings = { "" } }, new GenerationOptions { PromptTokens = new[] { 99999 } },
      new GenerationOptions { AlternativesCount = 21 },
      new GenerationOptions { Sampling = new SamplerOptions { TopP = 3 } }
    })
      Check.Fails<ArgumentException>(Status.Invalid, () => model.Generate("Once", wrong));
    Check.Throws<ArgumentException>(
        () => model.Generate("Once", new GenerationOptions { StopStrings = { "a\0b" } }), "NUL in a stop string");
    Check.Throws<ArgumentException>(() => model.Generate(
        "Once", new GenerationOptions { Sampler = new Sampler(), Sampling = new SamplerOptions() }), "two samplers");
    using (Model silent = Support.Load(Golden.Weights("rnd_a.bf16.pth"))) {
      Check.Fails<FileNotFoundException>(Status.NotFound, () => silent.Generate("text"));
      Check.Fails<FileNotFoundException>(Status.NotFound, () => { var _ = silent.Tokenizer; });
    }
  }

  [Promise("text/generation_in_two_threads")]
  public static void TwoThreads() {
    Generation generation =
        Support.Story.Generate("Once", new GenerationOptions { MaxTokens = 300, KeepsEndToken = true });
    string expected = Support.Story.Generate("Once", new GenerationOptions { MaxTokens = 300, KeepsEndToken = true })
        .ReadToEnd();
    List<Piece> pieces = new List<Piece>();
    Task.WaitAll(Enumerable.Range(0, 3).Select(_ => Task.Run(() => {
      for (bool isOver = false; !isOver;) {
        try {
          Piece piece = generation.Next();
          isOver = piece == null;
          if (!isOver)
            lock (pieces) pieces.Add(piece);
        } catch (WkvBusyException) {
          Thread.Yield();
        }
      }
    })).ToArray());
    Check.Equal(300, pieces.Count, "no piece is lost");
    string text = string.Concat(pieces.Select(piece => piece.Text));
    Check.Same(expected.OrderBy(c => c), text.OrderBy(c => c), "or broken");
  }

  private static Generation Begun() {
    Generation generation = Support.Story.Generate("There was", new GenerationOptions {
      MaxTokens = 30, Sampling = new SamplerOptions { Temperature = 0.9f, Seed = 5 }, StopStrings = { "zzz" }
    });
    for (int i = 0; i < 7; i++) generation.Next();
    return generation;
  }

  [Promise("text/sessions")]
  public static void Sessions() {
    Model model = Support.Story;
    string rest = Begun().ReadToEnd();
    using (TemporaryFolder folder = new TemporaryFolder()) {
      string path = folder.File("сессия.wkv");
      new Session(Begun()).Save(path);
      using (Session session = model.LoadSession(path)) {
        Check.Equal(rest, session.Generation.ReadToEnd(), "from a file");
        Check.True(ReferenceEquals(session.Cache, session.Generation.Cache), "one cache");
      }
      using (Session session = Session.Load(model, path, model.Tokenizer))
        Check.Equal(rest, session.Generation.ReadToEnd(), "with a tokenizer");
      BlobInfo header = Cache.ReadHeader(path);
      Check.Equal((true, true, false), (header.HasGeneration, header.HasSampler, header.HasLogits), "header");
    }
    Check.Equal(rest, Session.FromBytes(model, new Session(Begun()).ToBytes()).Generation.ReadToEnd(), "from memory");

    Cache cache = model.CreateCache();
    float[] logits = cache.Step(5);
    Sampler sampler = new Sampler(new SamplerOptions { Seed = 4 }), same = new Sampler(new SamplerOptions { Seed = 4 });
    Session parts = Session.FromBytes(model, new Session(cache, sampler) { Logits = logits }.ToBytes(NumberType.F32));
    Check.True(parts.Generation == null, "no generation");
    Check.Same(logits, parts.Logits, "scores");
    Check.Same(Enumerable.Range(0, 9).Select(_ => same.Sample(logits)),
               Enumerable.Range(0, 9).Select(_ => parts.Sampler.Sample(logits)), "draws");
    Session plain = Session.FromBytes(model, cache.ToBytes());
    Check.True(plain.Sampler == null && plain.Logits == null, "a cache alone");
    Check.Equal(1L, model.CacheFromBytes(new Session(cache, sampler).ToBytes()).Position, "the cache of a session");
    Check.Fails<ArgumentException>(Status.Invalid, () => new Session(cache) { Logits = new float[1] }.ToBytes());
    Check.True(!cache.IsClosed, "parts that were lent stay open");
  }
}

}
