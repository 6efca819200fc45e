// SPDX-License-Identifier: Apache-2.0
// What every language's binding promises: the list of tests/conformance.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using Wkv;

namespace WkvTests {

public static class Conformance {
  private static readonly int[] words = { 1539, 326, 712, 259, 519 };

  // 4 is a swan of four bytes, 5 to 7 are its parts, 8 is NUL, 9 a letter of two bytes
  internal const string Vocabulary = "1 'a' 1\n2 'b' 1\n3 'ab' 2\n4 '\U0001F9A2' 4\n5 b'\\xf0' 1\n6 b'\\x9f\\xa6' 2\n" +
      "7 b'\\xa2' 1\n8 b'\\x00' 1\n9 '\u0436' 2\n";

  internal static Tokenizer SmallTokenizer() => Tokenizer.FromBytes(Encoding.UTF8.GetBytes(Vocabulary));

  [Promise("conformance/load_error")]
  public static void LoadError() {
    FileNotFoundException missing =
        Check.Fails<FileNotFoundException>(Status.NotFound, () => new Model("/no/such/file.pth"));
    Check.Contains("/no/such/file.pth", missing.Message);
    Check.Fails<FileNotFoundException>(Status.NotFound,
        () => new Model(Support.StoryPath, new ModelOptions { Device = "cpu", Kernels = "none" }));
    Check.Throws<Exception>(() => new Model(Support.StoryPath, new ModelOptions { Device = "toaster" }));
    Check.Fails<OutOfMemoryException>(Status.OutOfMemory,
        () => new Model(Support.StoryPath, new ModelOptions { Device = "cpu", MemoryLimitBytes = 1000 }));
    using (TemporaryFolder folder = new TemporaryFolder()) {
      string path = folder.File("short.gguf");
      File.WriteAllBytes(path, File.ReadAllBytes(Support.StoryPath).Take(100000).ToArray());
      Check.Fails<FormatException>(Status.Format, () => new Model(path));
    }
  }

  [Promise("conformance/golden_logits")]
  public static void GoldenLogits() {
    using (Model model = Golden.LoadModel()) {
      List<Golden> cases = Golden.Sequences.ToList();
      Check.True(cases.Any(golden => golden.Name == "len7"), "len7 is there");
      float[][] batch = model.Step(cases.Select(_ => model.CreateCache()).ToList(),
                                   cases.Select(golden => golden.Integers("tokens")).ToList());
      for (int i = 0; i < cases.Count; i++) {
        Golden golden = cases[i];
        float[] expected = golden.Floats("logits_last");
        double allowed = golden.AllowedError(expected);
        Check.True(Support.Difference(expected, batch[i]) <= allowed, $"{golden.Name} in a batch");
        using (Cache cache = model.CreateCache())
          Check.True(Support.Difference(expected, cache.Step(golden.Integers("tokens"))) <= allowed, golden.Name);
      }
      Golden seven = cases.First(golden => golden.Name == "len7");
      float[] rows = new float[7 * model.VocabSize], all = seven.Floats("logits_all");
      using (Cache cache = model.CreateCache()) {
        cache.StepAll(seven.Integers("tokens"), rows);
        Check.True(Support.Difference(all, rows) <= 4 * seven.AllowedError(all), "the scores of every token");
        IEnumerable<float> states =
            Enumerable.Range(0, model.Info.Layers).SelectMany(layer => cache.ReadState(layer, StatePart.Wkv));
        Check.True(Support.Difference(seven.Floats("state_wkv"), states.ToArray()) < 1e-4, "states");
      }
    }
  }

  [Promise("conformance/options_defaults")]
  public static void OptionsDefaults() {
    using (Model model = new Model(Support.StoryPath, new ModelOptions { Device = "cpu" })) {
      // .NET counts the processors that this process may use
      Check.Equal(Math.Min(Environment.ProcessorCount, 256), model.Info.Threads, "threads");
      Check.Equal(512, model.Info.ChunkTokens, "chunk");
      Check.True(!model.Info.IsReproducible, "not reproducible");
      Check.Equal(0L, model.Memory.LimitBytes, "no limit");
      Check.Equal(NumberType.F32, model.Info.StateType, "states");
      Check.Equal(256, model.Generate("Once", new GenerationOptions { KeepsEndToken = true }).Count(), "tokens");
    }
    using (Model model = new Model(Support.StoryPath, new ModelOptions {
      Device = "cpu", Threads = 1, ChunkTokens = 16, IsReproducible = true, MemoryLimitBytes = 1000000000,
      WeightType = NumberType.F16
    })) {
      Check.Equal((1, 16, true), (model.Info.Threads, model.Info.ChunkTokens, model.Info.IsReproducible), "as set");
      Check.Equal(1000000000L, model.Memory.LimitBytes, "limit");
      Check.Equal("F16", model.Info.ComputeTypes, "weights");
    }
    float[] logits = { 0, 5, 1, 4 };
    using (Sampler plain = new Sampler())
    using (Sampler spelled = new Sampler(new SamplerOptions { Temperature = 1, TopP = 1, Seed = 0 }))
      Check.Same(Enumerable.Range(0, 50).Select(_ => plain.Sample(logits)),
                 Enumerable.Range(0, 50).Select(_ => spelled.Sample(logits)), "draws");
  }

  [Promise("conformance/unicode")]
  public static void Unicode() {
    using (TemporaryFolder folder = new TemporaryFolder())
      foreach (string name in new[] { "модель モデル \U0001F9A2", "a b" }) {
        File.Copy(Support.StoryPath, folder.File(name + ".gguf"));
        using (Model model = Support.Load(folder.File(name + ".gguf")))
        using (Cache cache = model.CreateCache()) {
          Check.Equal(8, model.Info.Layers);
          cache.Save(folder.File(name + ".wkv"));
          Check.True(File.Exists(folder.File(name + ".wkv")), "the file has this name");
          model.LoadCache(folder.File(name + ".wkv")).Dispose();
        }
        FileNotFoundException missing =
            Check.Throws<FileNotFoundException>(() => new Model(folder.File(name + " 2.gguf")));
        Check.Contains(name, missing.Message);
      }
    using (Tokenizer tokenizer = SmallTokenizer()) {
      const string text = "ab\U0001F9A2\u0436\0b";
      Check.Same(new[] { 3, 4, 9, 8, 2 }, tokenizer.Encode(text), "ids");
      Check.Equal(text, tokenizer.Decode(new[] { 3, 4, 9, 8, 2 }), "text");
      Check.Same(new byte[] { 0xf0, (byte)'a' }, tokenizer.DecodeBytes(new[] { 5, 1 }), "bytes");
      Check.Equal("\ufffda", tokenizer.Decode(new[] { 5, 1 }), "half a character");
      Check.Throws<ArgumentException>(() => tokenizer.Encode("\ud83e"), "half a surrogate pair");
      using (TextDecoder decoder = tokenizer.CreateDecoder()) {
        Check.Same(new[] { "", "", "\U0001F9A2", "a", "\0", "" }, new[] { 5, 6, 7, 1, 8, 5 }.Select(decoder.Push));
        Check.Equal("\ufffd", decoder.Finish());
      }
    }
  }

  [Promise("conformance/batch")]
  public static void Batch() {
    Model model = Support.Story;
    int[][] tokens =
        new[] { "Once upon", "The", "There was a king who had three" }.Select(model.Tokenizer.Encode).ToArray();
    float[][] rows = model.Step(tokens.Select(_ => model.CreateCache()).ToList(), tokens);
    for (int i = 0; i < rows.Length; i++)
      Check.True(Support.Difference(model.CreateCache().Step(tokens[i]), rows[i]) < 1e-3, $"row {i}");

    StepItem[] two = { new StepItem(model.CreateCache(), new[] { 326 }),
                       new StepItem(model.CreateCache(), new[] { 326 }) { Logits = new float[model.VocabSize] } };
    two[0].Sampler = new Sampler(new SamplerOptions { IsGreedy = true });
    model.Step(two);
    Check.Equal(Support.Likeliest(two[1].Logits.ToArray(), model.Tokenizer.Info.IdsEnd), two[0].NextToken, "choice");
    model.Step(new StepItem[0]);

    using (Model another = Golden.LoadModel()) {
      Cache good = model.CreateCache(), twice = model.CreateCache(), other = another.CreateCache();
      StepItem[] items = { new StepItem(good, new[] { 1 }), new StepItem(other, new[] { 1 }),
                           new StepItem(model.CreateCache(), new[] { 9999 }), new StepItem(twice, new[] { 1 }),
                           new StepItem(twice, new[] { 2 }) };
      foreach (CancellationToken token in new[] { CancellationToken.None, new CancellationTokenSource().Token }) {
        Check.Fails<ArgumentException>(Status.Mismatch, () => model.Step(items, null, token));
        Check.Same(new[] { Status.Ok, Status.Mismatch, Status.Invalid, Status.Ok, Status.Invalid },
                   items.Select(item => item.Status), "each item's outcome");
        Check.Equal((0L, 0L), (good.Position, twice.Position), "positions");
      }
      model.Step(items.Where(item => item.Status == Status.Ok));
      Check.Equal((1L, 1L), (good.Position, twice.Position), "without those at fault");
      Check.Throws<ArgumentException>(() => model.Step(new[] { good }, new int[0][]));
    }
  }

  [Promise("conformance/busy")]
  public static void Busy() {
    Model model = Support.Story;
    Cache cache = model.CreateCache();
    Support.WhileStepping(cache, () => {
      foreach (Action call in new Action[] {
        () => cache.Step(1), () => cache.Copy(), () => cache.Mark(), () => { long _ = cache.Position; },
        () => cache.ToBytes(), () => model.Generate("x", new GenerationOptions { Cache = cache }).Next(),
        () => model.Step(new[] { new StepItem(cache, new[] { 1 }) })
      }) {
        WkvBusyException busy = Check.Fails<WkvBusyException>(Status.Busy, call);
        Check.True(busy is InvalidOperationException, "its .NET kind");
      }
      cache.ToString();  // never fails
    });
    Check.Equal(0L, cache.Position % 6000, "position");
  }

  private static Cache Begun(Model model) {
    Cache cache = model.CreateCache();
    cache.Step(model.Tokenizer.Encode("There was a king who had three"));
    return cache;
  }

  [Promise("conformance/copy")]
  public static void Copy() {
    Model model = Support.Story;
    Cache cache = Begun(model);
    float[] next = cache.Copy().Step(500);
    for (int i = 0; i < 2; i++) {
      cache.Copy().Step(new[] { 1, 2, 3 });
      Check.Same(next, cache.Copy().Step(500), "a copy after another one has gone on");
    }
    Cache target = model.CreateCache();
    target.Assign(cache);
    Check.Same(next, target.Step(500), "an assigned one");
    Check.Same(next, cache.Step(500), "the source");
  }

  [Promise("conformance/save_restore")]
  public static void SaveRestore() {
    Model model = Support.Story;
    Cache cache = Begun(model);
    float[] next = cache.Copy().Step(500);
    using (TemporaryFolder folder = new TemporaryFolder()) {
      string path = folder.File("talk.wkv");
      cache.Save(path);
      Check.Same(next, model.LoadCache(path).Step(500), "from a file");
      BlobInfo header = Cache.ReadHeader(path);
      Check.Equal((cache.Position, model.Info.Fingerprint), (header.Position, header.Fingerprint), "header");
      cache.Save(path, NumberType.F16);
      Check.True(new FileInfo(path).Length < 0.6 * header.Bytes, "half the size");
      File.WriteAllBytes(path, File.ReadAllBytes(path).Take(5000).ToArray());
      Check.Fails<FormatException>(Status.Format, () => model.LoadCache(path));
      Check.Fails<FileNotFoundException>(Status.NotFound, () => cache.Save(folder.File("no folder/x.wkv")));
      Check.Fails<FileNotFoundException>(Status.NotFound, () => model.LoadCache(folder.File("none.wkv")));
    }
    byte[] bytes = cache.ToBytes();
    Check.Equal((long)bytes.Length, Cache.ReadHeader(bytes).Bytes, "size");
    Check.Same(next, model.CacheFromBytes(bytes).Step(500), "from memory");
    bytes[bytes.Length / 2] ^= 1;
    Check.Fails<FormatException>(Status.Format, () => model.CacheFromBytes(bytes));
    Check.Fails<FormatException>(Status.Format, () => model.CacheFromBytes(new byte[0]));
  }

  [Promise("conformance/session_travels")]
  public static void SessionTravels() {
    string whole, first, rest;
    using (Model model = new Model(Support.StoryPath, new ModelOptions { Device = "cpu" }))
      whole = SessionProgram.Begin(model).ReadToEnd();
    string[] command = Support.Command("WkvTests");
    using (TemporaryFolder folder = new TemporaryFolder()) {
      string file = folder.File("session.wkv");
      first = Support.Run(folder.Path, "", command[0], command[1], "begin", Support.StoryPath, file);
      rest = Support.Run(folder.Path, "", command[0], command[1], "go_on", Support.StoryPath, file);
    }
    Check.True(first.Length > 20 && rest.Length > 20, "two parts");
    Check.Equal(whole, first + rest, "text");
  }

  private sealed class Watching : IProgress<ProgressReport> {
    private readonly Action<ProgressReport> report;

    internal Watching(Action<ProgressReport> report) {
      this.report = report;
    }

    public void Report(ProgressReport value) => report(value);
  }

  [Promise("conformance/cancellation")]
  public static void Cancellation() {
    // a load
    CancellationTokenSource source = new CancellationTokenSource();
    ModelOptions options = new ModelOptions {
      Device = "cpu", CancellationToken = source.Token, Progress = new Watching(_ => source.Cancel())
    };
    OperationCanceledException cancelled =
        Check.Fails<OperationCanceledException>(Status.Cancelled, () => new Model(Support.StoryPath, options));
    Check.Equal(source.Token, cancelled.CancellationToken, "whose token");
    Check.Throws<OperationCanceledException>(() => new Model(Support.StoryPath, options), "before it began");

    // a step
    Model model = Support.Story;
    Cache cache = model.CreateCache();
    int[] tokens = Support.Repeated(5, 1200);
    List<ProgressReport> seen = new List<ProgressReport>();
    cache.Feed(tokens, new Watching(seen.Add));
    Check.Equal((1200L, 1200L, 1.0), (seen.Last().Done, seen.Last().Total, seen.Last().Share), "the end");
    Cache fork = cache.Copy();
    source = new CancellationTokenSource();
    Check.Throws<OperationCanceledException>(
        () => cache.Feed(tokens, new Watching(_ => source.Cancel()), source.Token));
    Check.Equal(1200L, cache.Position, "position");
    Check.Same(fork.Step(3), cache.Step(3), "as before");
    IOException mine = new IOException("mine");
    Check.True(ReferenceEquals(mine, Check.Throws<IOException>(() =>
        cache.Feed(tokens, new Watching(_ => throw mine)))), "an exception in a report comes out");
    StepItem item = new StepItem(cache, tokens);
    source = new CancellationTokenSource();
    Check.Throws<OperationCanceledException>(() => model.Step(new[] { item }, new Watching(_ => source.Cancel()),
                                                              source.Token));
    Check.Equal(1201L, cache.Position, "position");

    // a generation, inside its prompt, which then goes on
    source = new CancellationTokenSource();
    int reports = 0;
    Generation generation = model.Generate(null, new GenerationOptions {
      PromptTokens = tokens, MaxTokens = 2, KeepsEndToken = true,
      Progress = new Watching(_ => { if (++reports == 3) source.Cancel(); })
    });
    Check.Equal(source.Token, Check.Throws<OperationCanceledException>(() => generation.Next(source.Token))
                                  .CancellationToken, "whose token");
    Check.Equal(0L, generation.Cache.Position, "position");
    Check.Equal(2, generation.Count(), "pieces");

    // between pieces
    source = new CancellationTokenSource();
    generation = model.Generate("Once", new GenerationOptions {
      MaxTokens = 100000, KeepsEndToken = true, CancellationToken = source.Token
    });
    int pieces = 0;
    Check.Throws<OperationCanceledException>(() => {
      foreach (Piece piece in generation)
        if (++pieces == 5) source.Cancel();
    });
    Check.Equal(5, pieces, "pieces");
    generation.Cache.Copy().Step(1);

    // from another thread, inside a long prompt
    source = new CancellationTokenSource();
    generation = model.Generate(null, new GenerationOptions { PromptTokens = Support.Repeated(5, 200000) });
    Task<Piece> next = Task.Run(() => generation.Next(source.Token));
    Support.WaitUntil(() => next.IsCompleted || Support.IsBusy(generation.Cache));
    source.Cancel();
    Check.Throws<OperationCanceledException>(() => next.GetAwaiter().GetResult());
    Check.Equal(0L, generation.Cache.Position, "position");
  }

  /// <summary>One object of each class, with a model of its own.</summary>
  private sealed class Everything {
    internal readonly Model Model = Support.Load(Support.StoryPath, 1);
    internal readonly Cache Cache;
    internal readonly Generation Generation;
    internal readonly Sampler Sampler = new Sampler();
    internal readonly Tokenizer Tokenizer;
    internal readonly TextDecoder Decoder;
    internal readonly PrefixStore Store;

    internal Everything() {
      Cache = Model.CreateCache();
      Generation = Model.Generate("Once", new GenerationOptions {
        Cache = Cache, MaxTokens = 5, KeepsEndToken = true, Sampler = Sampler
      });
      Tokenizer = Model.Tokenizer;
      Decoder = Tokenizer.CreateDecoder();
      Store = new PrefixStore(Model);
    }

    internal NativeObject[] All => new NativeObject[] { Model, Cache, Generation, Sampler, Tokenizer, Decoder, Store };
  }

  [Promise("conformance/close_twice")]
  public static void CloseTwice() {
    foreach (NativeObject thing in new Everything().All) {
      thing.Dispose();
      thing.Dispose();
      Check.True(thing.IsClosed, thing.GetType().Name);
      thing.ToString();  // never fails
    }
    Session session;
    using (Cache cache = Support.Story.CreateCache())
      session = Session.FromBytes(Support.Story, new Session(cache).ToBytes());
    session.Dispose();
    session.Dispose();
    Check.True(session.Cache.IsClosed, "a session's own cache");
  }

  [Promise("conformance/use_after_close")]
  public static void UseAfterClose() {
    Everything things = new Everything();
    foreach (NativeObject thing in things.All) thing.Dispose();
    Model model = things.Model, open = Support.Story;
    Cache cache = things.Cache;
    float[] room = new float[model.VocabSize];
    Action[] calls = {
      () => model.CreateCache(), () => { var _ = model.Tokenizer; }, () => { var _ = model.Memory; },
      () => model.Step(new StepItem[0]), () => model.Generate("x"), () => new PrefixStore(model),
      () => model.LoadCache("x"), () => model.CacheFromBytes(new byte[1]), () => model.LoadSession("x"),
      () => new Cache(model), () => new InitialState(model, "x"),
      () => cache.Step(1), () => cache.Step(new[] { 1 }, room), () => cache.Feed(new[] { 1 }), () => cache.Copy(),
      () => cache.Mark(), () => cache.ToBytes(), () => cache.Save("x"), () => { var _ = cache.Position; },
      () => { var _ = cache.Info; }, () => cache.GetKeptPositions(), () => cache.Park(), () => cache.Reset(),
      () => cache.Rollback(0), () => cache.StepAll(new[] { 1 }, room), () => cache.ReadState(0, StatePart.Wkv),
      () => cache.ExportState(StateLayout.Fla), () => cache.Assign(open.CreateCache()),
      () => open.CreateCache().Assign(cache), () => open.Step(new[] { new StepItem(cache, new[] { 1 }) }),
      () => open.Generate("x", new GenerationOptions { Cache = cache }), () => things.Generation.Next(),
      () => things.Generation.ReadToEnd(), () => things.Sampler.Sample(room), () => things.Sampler.Reset(),
      () => open.Generate("x", new GenerationOptions { Sampler = things.Sampler }),
      () => open.Generate("x", new GenerationOptions { Tokenizer = things.Tokenizer }),
      () => open.Generate("x", new GenerationOptions { PrefixStore = things.Store }),
      () => things.Tokenizer.Encode("x"), () => things.Tokenizer.CreateDecoder(), () => things.Decoder.Push(1),
      () => things.Decoder.Finish(), () => { var _ = things.Store.Info; }, () => things.Store.Clear(),
      () => Cache.Select(new[] { cache }, new[] { 0 }), () => Cache.Reorder(new[] { cache }, new[] { 0 }),
      () => new Session(cache).ToBytes(), () => new Session(things.Generation).Save("x")
    };
    for (int i = 0; i < calls.Length; i++)
      Check.Contains("Wkv.", Check.Throws<ObjectDisposedException>(calls[i], $"call {i}").ObjectName);
    Check.Equal(8, model.Info.Layers, "what is known stays known");
    Check.True(!File.Exists("x"), "no file was made");
  }

  [Promise("conformance/close_during_step")]
  public static void CloseDuringStep() {
    Model model = Support.Load(Support.StoryPath);
    Cache cache = model.CreateCache();
    float[] logits = Support.WhileStepping(cache, () => {
      cache.Dispose();
      model.Dispose();
      Support.Collect();
      Check.Throws<ObjectDisposedException>(() => cache.Step(1));
    });
    Check.True(logits.Any(x => x != 0), "the step came to its end");

    // a step that is watched, and a generation
    model = Support.Load(Support.StoryPath);
    cache = model.CreateCache();
    Cache watched = cache;
    Task feed = Task.Run(() => watched.Feed(Support.Repeated(5, 6000), null, new CancellationTokenSource().Token));
    Support.WaitUntil(() => feed.IsCompleted || Support.IsBusy(watched));
    cache.Dispose();
    model.Dispose();
    Support.Collect();
    feed.GetAwaiter().GetResult();

    model = Support.Load(Support.StoryPath);
    Generation generation = model.Generate(null, new GenerationOptions { PromptTokens = Support.Repeated(5, 6000) });
    Task<Piece> next = Task.Run(() => generation.Next());
    Support.WaitUntil(() => next.IsCompleted || Support.IsBusy(generation.Cache));
    generation.Dispose();
    model.Dispose();
    Support.Collect();
    Check.True(next.GetAwaiter().GetResult() != null, "the piece came");

    // races: whatever comes first, nothing but these exceptions
    for (int i = 0; i < 60; i++) {
      Cache raced = Support.Story.CreateCache();
      Task[] users = Enumerable.Range(0, 2).Select(_ => Task.Run(() => {
        try {
          for (int j = 0; j < 20; j++) raced.Feed(new[] { 1 });
        } catch (ObjectDisposedException) {
        } catch (WkvBusyException) {
        }
      })).ToArray();
      raced.Dispose();
      Task.WaitAll(users);
    }
  }

  [Promise("conformance/close_parent_first")]
  public static void CloseParentFirst() {
    string word = Support.Story.Tokenizer.Decode(new[] { 1539 });
    for (int first = 1; first < 5; first++) {
      Everything things = new Everything();
      things.Model.Dispose();
      things.All[first].Dispose();
      Support.Collect();
      if (!things.Cache.IsClosed) {
        things.Cache.Step(new[] { 1, 2 });
        things.Cache.StepAll(new[] { 1, 2 }, new float[2 * things.Model.VocabSize]);
        Cache copy = things.Cache.Copy();
        copy.Feed(new[] { 3 }, null, new CancellationTokenSource().Token);
        Check.Equal(5L, copy.Position, "position");
      }
      Check.Equal(word, things.Decoder.Push(1539), "a decoder");
      if (!things.Generation.IsClosed) Check.Equal(5, things.Generation.Count(), "a generation");
      things.Store.Clear();
    }
  }

  /// <summary>Compiles a program around a statement; false when the compiler refuses it.</summary>
  private static bool Compiles(string statement, out string said) {
    string compiler = Environment.GetEnvironmentVariable("WKV_MCS");
    if (compiler == null)
      throw new SkippedException("the compiler refuses it, and WKV_MCS does not name one to show that");
    using (TemporaryFolder folder = new TemporaryFolder()) {
      File.WriteAllText(folder.File("program.cs"),
          "using System;\nusing Wkv;\nstatic class Program {\n  static void Main() {\n" +
          "    var cache = new Model(\"m\").CreateCache();\n    var sampler = new Sampler();\n" +
          $"    var logits = new float[10];\n    {statement}\n  }}\n}}\n");
      string library = typeof(Model).Assembly.Location;
      string script =
          $"'{compiler}' -langversion:7.2 -out:program.exe '-r:{library}' program.cs 2>&1; echo exit code $?";
      said = Support.Run(folder.Path, "", "/bin/sh", "-c", script);
      return said.TrimEnd().EndsWith("exit code 0");
    }
  }

  private static void IsRefused(string good, string wrong, string why) {
    Check.True(Compiles(good, out string said), said);
    Check.True(!Compiles(wrong, out said), $"{wrong} compiles");
    Check.Contains(why, said);
  }

  [Promise("conformance/buffer_type")]
  public static void BufferType() {
    IsRefused("cache.Step(new[] { 1 }, logits);", "cache.Step(new[] { 1.5f }, logits);", "ReadOnlySpan<int>");
    IsRefused("cache.Step(1, logits);", "cache.Step(1, new double[10]);", "Span<float>");
    IsRefused("sampler.Sample(logits);", "sampler.Sample(new[] { 1, 2 });", "ReadOnlySpan<float>");
  }

  [Promise("conformance/buffer_order")]
  public static void BufferOrder() {
    throw new SkippedException("numbers of .NET are in the order of the machine, and a span has no gaps");
  }

  [Promise("conformance/read_only_buffer")]
  public static void ReadOnlyBuffer() {
    IsRefused("Span<float> room = logits; cache.Step(1, room);",
              "ReadOnlySpan<float> room = logits; cache.Step(1, room);", "Span<float>");
  }

  [Promise("conformance/buffer_size")]
  public static void BufferSize() {
    Model model = Support.Story;
    int width = model.VocabSize;
    Cache cache = model.CreateCache();
    int[] ids = words;
    float[] expected = model.CreateCache().Step(ids);

    float[] larger = new float[width + 9];
    larger[width] = 7;
    model.CreateCache().Step(ids, larger);
    Check.Same(expected, larger.Take(width), "larger room");
    Check.Equal(7f, larger[width], "what lies behind");
    float[] many = new float[3 * width];
    model.CreateCache().Step(new[] { 1, 1 }.Concat(ids).ToArray().AsSpan(2), many.AsSpan(width, width));
    Check.Same(expected, many.Skip(width).Take(width), "in the middle of an array");
    Check.True(many.Take(width).Concat(many.Skip(2 * width)).All(x => x == 0), "around it");

    Action[] calls = {
      () => cache.Step(ids, new float[width - 1]), () => cache.Step(ids, new float[0]),
      () => cache.Step(ids, default(Span<float>)), () => cache.Step(new int[0]),
      () => cache.Step(default(ReadOnlySpan<int>)), () => cache.Feed(new int[0]),
      () => cache.Feed(new int[0], null, new CancellationTokenSource().Token), () => cache.Step(new[] { width }),
      () => cache.Step(-1), () => cache.StepAll(ids, new float[width]), () => cache.StepAll(new int[0], new float[width]),
      () => cache.ReadState(0, StatePart.Wkv, new float[5]), () => cache.WriteState(0, StatePart.Wkv, new float[5]),
      () => cache.WriteState(0, StatePart.AttShift, Enumerable.Repeat(float.NaN, 256).ToArray()),
      () => cache.ReadState(8, StatePart.Wkv), () => cache.ReadState(0, (StatePart)7),
      () => cache.ImportState(StateLayout.Official, new float[5], 1),
      () => new Sampler().GetProbabilities(new float[4], new float[3]), () => new Sampler().Sample(new float[0]),
      () => model.Step(new[] { new StepItem(cache, ids) { Logits = new float[width - 1] } })
    };
    for (int i = 0; i < calls.Length; i++) {
      Check.Fails<ArgumentException>(Status.Invalid, calls[i], $"call {i}");
      Check.Equal(0L, cache.Position, $"position after call {i}");
    }
    Check.Contains((width - 1).ToString(),
                   Check.Throws<ArgumentException>(() => cache.Step(ids, new float[width - 1])).Message);
  }

  [Promise("conformance/negative_count")]
  public static void NegativeCount() {
    Model model = Support.Story;
    Cache cache = model.CreateCache();
    Action[] calls = {
      () => cache.Rollback(-1), () => cache.Unmark(-1), () => cache.ImportState(StateLayout.Fla, new float[1], -1),
      () => new Cache(model, new CacheOptions { CheckpointEveryTokens = -1 }),
      () => new Cache(model, new CacheOptions { CheckpointsBytesMax = -1 }),
      () => new Model(Support.StoryPath, new ModelOptions { MemoryLimitBytes = -1 }),
      () => new Model(Support.StoryPath, new ModelOptions { ParkingLimitBytes = -1 }),
      () => new PrefixStore(model, new PrefixStoreOptions { MemoryBytesMax = -1 }),
      () => new PrefixStore(model, new PrefixStoreOptions { MinTokens = -1 }),
      () => Library.PlanMemory(Support.StoryPath, new MemoryNeeds { CachesCount = -1 }),
      () => Cache.Select(new[] { cache }, new[] { -1 }), () => Cache.Reorder(new[] { cache }, new[] { -1 })
    };
    for (int i = 0; i < calls.Length; i++) Check.Throws<ArgumentOutOfRangeException>(calls[i], $"call {i}");
    Action[] theirs = {
      () => new Model(Support.StoryPath, new ModelOptions { Threads = -1 }),
      () => new Model(Support.StoryPath, new ModelOptions { ChunkTokens = -1 }),
      () => model.Generate("x", new GenerationOptions { MaxTokens = -1 }),
      () => model.Generate("x", new GenerationOptions { AlternativesCount = -1 }),
      () => new Sampler(new SamplerOptions { TopK = -1 }), () => new Sampler(new SamplerOptions { Temperature = -1 }),
      () => new Sampler().Accept(-1), () => model.Tokenizer.Decode(new[] { -1 }),
      () => model.Tokenizer.CreateDecoder().Push(-1)
    };
    for (int i = 0; i < theirs.Length; i++)
      Check.Fails<ArgumentException>(Status.Invalid, theirs[i], $"call {i} of the library");
  }

  [Promise("conformance/null_arguments")]
  public static void NullArguments() {
    Model model = Support.Story;
    Cache cache = model.CreateCache();
    Action[] calls = {
      () => new Model(null), () => new Cache(null), () => new Tokenizer(null), () => new TextDecoder(null),
      () => new PrefixStore(null), () => new InitialState(null, "x"), () => new InitialState(model, null),
      () => new Session((Cache)null), () => new Session((Generation)null), () => new Generation(null, "x"),
      () => new StepItem(null, new int[1]), () => model.Step(null), () => model.Step(new StepItem[] { null }),
      () => model.Step(null, new int[0][]), () => model.Step(new[] { cache }, null),
      () => model.Step(new[] { cache }, new int[][] { null }),
      () => model.LoadCache(null), () => model.LoadSession(null), () => Session.Load(null, "x"),
      () => Session.FromBytes(null, new byte[1]), () => cache.Assign(null), () => cache.Save(null),
      () => Cache.ReadHeader((string)null), () => Cache.Select(null, new[] { 0 }),
      () => Cache.Select(new[] { cache }, null), () => Cache.Select(new Cache[] { null }, new[] { 0 }),
      () => Cache.Reorder(null, new[] { 0 }), () => Cache.Reorder(new[] { cache }, null),
      () => model.Tokenizer.Encode(null as string), () => new PrefixStore(model).Find(new[] { 1 }, null),
      () => new PrefixStore(model).Put(new[] { 1 }, null), () => Library.PlanMemory(null),
      () => Library.Convert(null, "x"), () => Library.Convert("x", null),
      () => model.Generate("x", new GenerationOptions { StopStrings = new string[] { null } }),
      () => new Session(cache).Save(null)
    };
    for (int i = 0; i < calls.Length; i++) Check.Throws<ArgumentNullException>(calls[i], $"call {i}");
    // an array that is null is one without numbers
    Check.Fails<ArgumentException>(Status.Invalid, () => cache.Step((int[])null));
    Check.Fails<ArgumentException>(Status.Invalid, () => cache.Step(new[] { 1 }, (float[])null));
    Check.Fails<ArgumentException>(Status.Invalid, () => new Sampler().Sample(null));
    Check.Fails<ArgumentException>(Status.Invalid, () => model.Generate(null));
    Check.Throws<ArgumentException>(() => new Model("a\0b"), "NUL in a path");
    Check.Equal(0L, cache.Position, "position");
    Check.Equal("", model.Tokenizer.Decode(null), "no tokens");
    using (new Cache(model, null))
    using (new Sampler(null))
    using (new PrefixStore(model, null))
      Check.True(model.Generate("Once", null).Next() != null, "options that are null are defaults");
  }

  [Promise("conformance/foreign_cache")]
  public static void ForeignCache() {
    using (Model other = Golden.LoadModel()) {
      Cache cache = Begun(Support.Story), foreign = other.CreateCache();
      long position = cache.Position;
      Action[] calls = {
        () => cache.Assign(foreign), () => other.CacheFromBytes(cache.ToBytes()),
        () => other.Step(new[] { new StepItem(cache, new[] { 1 }) }),
        () => new PrefixStore(other).Find(new[] { 1, 2 }, cache),
        () => Cache.Reorder(new[] { cache, foreign }, new[] { 1, 0 }),
        () => Session.FromBytes(other, new Session(cache).ToBytes()),
        () => other.Generate("", new GenerationOptions {
          PromptTokens = new[] { 1 }, PrefixStore = new PrefixStore(Support.Story)
        })
      };
      for (int i = 0; i < calls.Length; i++) {
        Check.Fails<ArgumentException>(Status.Mismatch, calls[i], $"call {i}");
        Check.Equal((position, 0L), (cache.Position, foreign.Position), $"positions after call {i}");
      }
    }
  }

  [Promise("conformance/flat_memory")]
  public static void FlatMemory() {
    Model model = Support.Story;
    Support.IsFlat(() => model.CreateCache().Dispose(), 10000, 1 << 20);
    Cache start = model.CreateCache();
    start.Step(new[] { 1, 2, 3 });
    Support.IsFlat(() => {
      using (Cache cache = start.Copy())
      using (Generation generation = model.Generate("Once", new GenerationOptions {
        Cache = cache, MaxTokens = 1, AlternativesCount = 2, StopStrings = { "x", "y" }, StopTokens = new[] { 7 },
        Sampling = new SamplerOptions { Temperature = 1 }
      })) {
        generation.Next();
        using (Session session = Session.FromBytes(model, new Session(generation).ToBytes())) session.Generation.Next();
        foreach (Cache copy in Cache.Select(new[] { start, cache }, new[] { 0, 1 })) copy.Dispose();
        using (TextDecoder decoder = model.Tokenizer.CreateDecoder()) decoder.Push(5);
        Check.True(cache.Info.Position > 0 && model.Memory.TotalBytes > 0, "infos");
      }
    }, 1000, 1 << 20);
    Support.IsFlat(() => {
      foreach (Action call in new Action[] {
        () => start.Step(99999), () => start.Rollback(7), () => new Model("/no/such/file"),
        () => model.CacheFromBytes(new byte[3]),
        () => model.Generate("x", new GenerationOptions { StopStrings = { "" } })
      })
        Check.Throws<Exception>(call);
    }, 2000, 1 << 20);
  }

  [Promise("conformance/gc_stress")]
  public static void GcStress() {
    Model model = Support.Story;
    long before = model.Memory.CachesBytes;
    bool[] isOver = { false };
    Task collector = Task.Run(() => {
      while (!Volatile.Read(ref isOver[0])) {
        GC.Collect();
        Thread.Sleep(1);
      }
    });
    try {
      Task.WaitAll(Enumerable.Range(0, 4).Select(seed => Task.Run(() => Forget(model, new Random(seed)))).ToArray());
    } finally {
      Volatile.Write(ref isOver[0], true);
      collector.Wait();
    }
    // forgotten objects go: those that a stack may still show are few
    Support.WaitUntil(() => {
      Support.Collect();
      return model.Memory.CachesBytes <= before + 8 * model.Info.StateBytes;
    });
  }

  /// <summary>Makes, uses and forgets objects, and closes none.</summary>
  private static void Forget(Model model, Random chance) {
    List<Cache> caches = new List<Cache> { model.CreateCache() };
    for (int i = 0; i < 150; i++) {
      Cache cache = caches[chance.Next(caches.Count)];
      switch (chance.Next(7)) {
        case 0: caches.Add(cache.Copy()); break;
        case 1:
          cache.Step(Enumerable.Range(0, chance.Next(1, 4)).Select(_ => chance.Next(1, 2000)).ToArray());
          break;
        case 2: caches.Add(model.CacheFromBytes(cache.ToBytes())); break;
        case 3: caches.Add(model.Generate("a", new GenerationOptions { MaxTokens = 2 }).Cache); break;
        case 4:
          model.Generate("a", new GenerationOptions { Cache = cache, MaxTokens = 2 }).Next();
          break;
        case 5: caches = caches.Skip(Math.Max(0, caches.Count - 6)).ToList(); break;
        default:
          List<Cache> some = caches.Distinct().Take(3).ToList();
          model.Step(some, some.Select(_ => new[] { 3 }).ToList());
          break;
      }
    }
  }
}

}
