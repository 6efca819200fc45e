// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.InteropServices;
using System.Threading;
using Wkv.Interop;

namespace Wkv {

/// <summary>How a model is loaded. What is left alone has the library's default.</summary>
public sealed class ModelOptions {
  /// <summary>"auto": the first usable GPU, else the CPU; "cpu", "cuda" (the first), "cuda:1".</summary>
  public string Device { get; set; } = "auto";

  /// <summary>Worker threads, the calling one included; 0: one a core this process may use.</summary>
  public int Threads { get; set; }

  /// <summary>Default: as stored; else the large matrices are converted while loading.</summary>
  public NumberType WeightType { get; set; }

  /// <summary>Default or F32; on a GPU also F16.</summary>
  public NumberType StateType { get; set; }

  /// <summary>Weights, caches, checkpoints, workspace and prefix stores never exceed it; 0: no limit.</summary>
  public long MemoryLimitBytes { get; set; }

  /// <summary>null: the best for this machine; else a name such as "scalar", "avx2", "avx512", "neon".</summary>
  public string Kernels { get; set; }

  /// <summary>The same bits for any batch, chunk and thread count; decoding gets slower.</summary>
  public bool IsReproducible { get; set; }

  /// <summary>Tokens that go through the layers together, 1 to 4096; 0: 512, on a GPU 2048.</summary>
  public int ChunkTokens { get; set; }

  /// <summary>On a GPU: when memory runs out, idle states of up to so many bytes wait in the host's memory; 0: none.
  /// </summary>
  public long ParkingLimitBytes { get; set; }

  /// <summary>Told of bytes while the model is loaded.</summary>
  public IProgress<ProgressReport> Progress { get; set; }

  /// <summary>Ends the load with <see cref="WkvCanceledException"/>.</summary>
  public CancellationToken CancellationToken { get; set; }

  internal Interop.ModelOptions ToNative() {
    Interop.ModelOptions raw = new Interop.ModelOptions {
      threads = Threads,
      weight_type = (int)WeightType,
      state_type = (int)StateType,
      memory_limit_bytes = Argument.Count(MemoryLimitBytes, nameof(MemoryLimitBytes)),
      is_reproducible = IsReproducible ? 1 : 0,
      chunk_tokens = ChunkTokens,
      parking_limit_bytes = Argument.Count(ParkingLimitBytes, nameof(ParkingLimitBytes))
    };
    raw.set_device(Device);
    raw.set_kernels(Kernels);
    return raw;
  }
}

/// <summary>The weights of one checkpoint: read-only, shared by any number of threads and caches.</summary>
/// <example><code>
/// using (var model = new Model("model.gguf", new ModelOptions { Threads = 2 }))
/// using (var generation = model.Generate("Once upon a time", new GenerationOptions { MaxTokens = 100 }))
///   foreach (string piece in generation)
///     Console.Write(piece);
/// </code></example>
public sealed class Model : NativeObject {
  internal readonly Interop.Model Raw;
  private readonly object tokenizerLock = new object();
  private Tokenizer tokenizer;

  /// <summary>Loads a checkpoint: .pth, .safetensors or a directory of them, GGUF, rwkv.cpp .bin. The file is mapped
  /// and must not change while a model uses it.</summary>
  /// <param name="path">A file, or a directory with config.json and .safetensors files.</param>
  /// <param name="options">null: all defaults.</param>
  /// <exception cref="System.IO.FileNotFoundException">No such file, device or kernel set.</exception>
  /// <exception cref="FormatException">The file is damaged.</exception>
  /// <exception cref="NotSupportedException">Another architecture or number type; the message names it.</exception>
  /// <exception cref="OutOfMemoryException">Also when MemoryLimitBytes does not suffice.</exception>
  /// <exception cref="OperationCanceledException">The token of the options was cancelled.</exception>
  public Model(string path, ModelOptions options = null) : this(path, Load(path, options ?? new ModelOptions())) {
  }

  private Model(string path, Interop.Model raw) : base(raw.swigCPtr) {
    Raw = raw;
    Path = path;
    using (Interop.ModelInfo info = new Interop.ModelInfo()) {
      raw.get_info(info);
      Info = new ModelInfo(info);
    }
    Handle.AddPressure(Info.WeightBytes - Info.MappedBytes);
  }

  private static Interop.Model Load(string path, ModelOptions options) {
    Argument.NotNull(path, nameof(path));
    using (Interop.ModelOptions raw = options.ToNative())
    using (Watcher watcher = new Watcher(options.Progress, options.CancellationToken)) {
      watcher.Begin();
      raw.set_progress(Watcher.Function, watcher.User);
      try {
        Interop.Model.load(path, raw, out IntPtr model);
        return new Interop.Model(model, true);
      } catch (WkvCanceledException cancelled) {
        throw watcher.Ended(cancelled.Message);
      }
    }
  }

  /// <summary>The path it was loaded from.</summary>
  public string Path { get; }

  /// <summary>Shapes, types, device, kernels: known also after closing.</summary>
  public ModelInfo Info { get; }

  /// <summary>Logits of a step: one a token id.</summary>
  public int VocabSize => Info.VocabSize;

  /// <summary>The memory held for the model now; other threads may change it meanwhile.</summary>
  public MemoryInfo Memory {
    get {
      Check();
      using (Interop.MemoryInfo raw = new Interop.MemoryInfo()) {
        Raw.get_memory(raw);
        return new MemoryInfo(raw);
      }
    }
  }

  /// <summary>The vocabulary that came with the model. It belongs to the model and closes with it.</summary>
  /// <exception cref="System.IO.FileNotFoundException">The model has none.</exception>
  public Tokenizer Tokenizer {
    get {
      Check();
      lock (tokenizerLock) {
        if (tokenizer == null || tokenizer.IsClosed) {
          Raw.get_tokenizer(out IntPtr made);
          tokenizer = new Tokenizer(new Interop.Tokenizer(made, true));
        }
        return tokenizer;
      }
    }
  }

  /// <summary>Lets go of the weights. Caches, generations and stores of the model go on, and keep them in memory.
  /// </summary>
  public override void Dispose() {
    base.Dispose();
    lock (tokenizerLock) {
      tokenizer?.Dispose();
    }
  }

  /// <summary>A cache that has read nothing: the same as new Cache(model, options).</summary>
  /// <param name="options">null: all defaults.</param>
  public Cache CreateCache(CacheOptions options = null) => new Cache(this, options);

  /// <summary>Text, piece by piece.</summary>
  /// <param name="prompt">Fed first; null or empty where the options give tokens.</param>
  /// <param name="options">null: all defaults: a new cache, the likeliest tokens, at most 256 of them.</param>
  public Generation Generate(string prompt, GenerationOptions options = null) {
    Check();
    return new Generation(this, prompt, options ?? new GenerationOptions());
  }

  /// <summary>A cache from a file that <see cref="Cache.Save"/> or <see cref="Session.Save"/> wrote.</summary>
  /// <param name="path">The file.</param>
  /// <exception cref="FormatException">Damaged, or no saved cache.</exception>
  /// <exception cref="ArgumentException">Of another model (<see cref="Status.Mismatch"/>).</exception>
  public Cache LoadCache(string path) {
    Argument.NotNull(path, nameof(path));
    Check();
    Interop.Cache.load(Raw, path, out IntPtr cache);
    return new Cache(new Interop.Cache(cache, true), this);
  }

  /// <summary>A cache from what <see cref="Cache.ToBytes"/> gave.</summary>
  /// <param name="bytes">All of it.</param>
  public unsafe Cache CacheFromBytes(ReadOnlySpan<byte> bytes) {
    Check();
    fixed (byte* data = &MemoryMarshal.GetReference(bytes)) {
      Interop.Cache.deserialize(Raw, new NativeBuffer(data, bytes.Length), out IntPtr cache);
      return new Cache(new Interop.Cache(cache, true), this);
    }
  }

  /// <summary>A session from a file that <see cref="Session.Save"/> or <see cref="Cache.Save"/> wrote.</summary>
  /// <param name="path">The file.</param>
  /// <param name="tokenizer">Of the generation; null: the model's own.</param>
  public Session LoadSession(string path, Tokenizer tokenizer = null) => Session.Load(this, path, tokenizer);

  /// <summary>Feeds several sequences at once, each with its own number of tokens; weights are read once for all of
  /// them. After a failure no cache and no sampler has changed.</summary>
  /// <param name="items">What to do; each cache and each sampler at most once.</param>
  /// <param name="progress">Told of tokens. With it, a token or samplers the step needs memory for spare
  /// states.</param>
  /// <param name="cancellationToken">Ends the step, with every cache as before it.</param>
  /// <exception cref="ArgumentException">An item is wrong, or a cache is another model's.</exception>
  /// <exception cref="InvalidOperationException">A cache or a sampler is in use by another call.</exception>
  public void Step(IEnumerable<StepItem> items, IProgress<ProgressReport> progress = null,
                   CancellationToken cancellationToken = default(CancellationToken)) {
    StepItem[] all = Argument.NotNull(items, nameof(items)).ToArray();
    Check();
    StepItem.Run(Raw, all, progress, cancellationToken);
  }

  /// <summary>Feeds several caches at once and gives the scores of what comes next in each.</summary>
  /// <param name="caches">Different caches of this model.</param>
  /// <param name="tokens">What each of them reads.</param>
  /// <returns>A row of <see cref="VocabSize"/> logits for each cache.</returns>
  public float[][] Step(IReadOnlyList<Cache> caches, IReadOnlyList<int[]> tokens) {
    Argument.NotNull(caches, nameof(caches));
    Argument.NotNull(tokens, nameof(tokens));
    if (caches.Count != tokens.Count)
      throw new ArgumentException($"{caches.Count} caches and {tokens.Count} lists of tokens");
    float[][] rows = caches.Select(_ => new float[VocabSize]).ToArray();
    Step(caches.Select((cache, i) =>
        new StepItem(cache, Argument.NotNull(tokens[i], nameof(tokens))) { Logits = rows[i] }));
    return rows;
  }

  /// <inheritdoc/>
  public override string ToString() =>
      $"Wkv.Model{(IsClosed ? " (closed)" : "")} {Path}: {Info.Layers} layers of {Info.Width}, " +
      $"{Info.ComputeTypes} on {Info.Device} ({Info.Kernels})";
}

}
