// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.InteropServices;
using System.Threading;
using Wkv.Interop;

namespace Wkv {

/// <summary>How a cache is made. What is left alone has the library's default.</summary>
public sealed class CacheOptions {
  /// <summary>Where the cache starts, and what <see cref="Cache.Reset"/> goes back to; null: zeros.</summary>
  public InitialState InitialState { get; set; }

  /// <summary>Keeps the state at every such position for <see cref="Cache.Rollback"/>; 0: none by itself.</summary>
  public int CheckpointEveryTokens { get; set; }

  /// <summary>The oldest checkpoint goes when there would be more; 0: 8.</summary>
  public int CheckpointsCountMax { get; set; }

  /// <summary>The same for their bytes; 0: no such bound.</summary>
  public long CheckpointsBytesMax { get; set; }
}

/// <summary>The recurrent state of one sequence: everything a model remembers of it, in the same few megabytes whatever
/// its length. Used by one call at a time: a second one meanwhile throws <see cref="WkvBusyException"/> and changes
/// nothing. A call that fails leaves the cache as it was.</summary>
public sealed class Cache : NativeObject {
  internal readonly Interop.Cache Raw;
  // steps that are watched go through the model, also when it has been closed
  private readonly Interop.Model model;

  /// <summary>A cache that has read nothing.</summary>
  /// <param name="model">Kept in memory by the cache.</param>
  /// <param name="options">null: all defaults.</param>
  /// <exception cref="OutOfMemoryException">Also when the model's memory limit would be passed.</exception>
  public Cache(Model model, CacheOptions options = null) : this(Create(model, options ?? new CacheOptions()), model) {
  }

  internal Cache(Interop.Cache raw, Model model) : this(raw, model, model.Handle) {
  }

  private Cache(Interop.Cache raw, Cache source) : this(raw, source.Model, source.model.swigCPtr) {
  }

  private Cache(Interop.Cache raw, Model model, NativeHandle modelHandle) : base(raw.swigCPtr) {
    Raw = raw;
    Model = model;
    Handle.AddPressure(model.Info.StateBytes);
    this.model = new Interop.Model(modelHandle.Share());
  }

  private static Interop.Cache Create(Model model, CacheOptions options) {
    Argument.NotNull(model, nameof(model)).Check();
    using (Interop.CacheOptions raw = new Interop.CacheOptions())
    using (Hold state = Hold.On(options.InitialState)) {
      raw.checkpoint_every_tokens =
          Argument.Count(options.CheckpointEveryTokens, nameof(options.CheckpointEveryTokens));
      raw.checkpoints_count_max = Argument.Count(options.CheckpointsCountMax, nameof(options.CheckpointsCountMax));
      raw.checkpoints_bytes_max = Argument.Count(options.CheckpointsBytesMax, nameof(options.CheckpointsBytesMax));
      raw.set_initial_state(options.InitialState?.Raw);
      Interop.Cache.create(model.Raw, raw, out IntPtr cache);
      return new Interop.Cache(cache, true);
    }
  }

  /// <summary>The model that the cache belongs to.</summary>
  public Model Model { get; }

  /// <inheritdoc/>
  public override void Dispose() {
    base.Dispose();
    model.Dispose();
  }

  /// <summary>Feeds tokens and writes the scores of what comes next.</summary>
  /// <param name="tokens">At least one id, used where they lie.</param>
  /// <param name="logits">Room for <see cref="Wkv.Model.VocabSize"/> raw scores.</param>
  /// <exception cref="ArgumentException">No token, one outside the vocabulary, or too little room.</exception>
  public unsafe void Step(ReadOnlySpan<int> tokens, Span<float> logits) {
    Check();
    float none;
    fixed (int* from = &MemoryMarshal.GetReference(tokens))
    fixed (float* to = &MemoryMarshal.GetReference(logits))
      Raw.step(new NativeBuffer(from, tokens.Length), new NativeBuffer(to == null ? &none : to, logits.Length));
  }

  /// <summary>Feeds tokens and gives the scores of what comes next.</summary>
  /// <param name="tokens">At least one id, used where they lie.</param>
  /// <returns><see cref="Wkv.Model.VocabSize"/> raw scores.</returns>
  public float[] Step(ReadOnlySpan<int> tokens) {
    float[] logits = new float[Model.VocabSize];
    Step(tokens, logits);
    return logits;
  }

  /// <summary>Feeds one token and writes the scores of what comes next.</summary>
  /// <param name="token">An id.</param>
  /// <param name="logits">Room for <see cref="Wkv.Model.VocabSize"/> raw scores.</param>
  public unsafe void Step(int token, Span<float> logits) => Step(new ReadOnlySpan<int>(&token, 1), logits);

  /// <summary>Feeds one token and gives the scores of what comes next.</summary>
  /// <param name="token">An id.</param>
  public unsafe float[] Step(int token) => Step(new ReadOnlySpan<int>(&token, 1));

  /// <summary>Feeds tokens without asking for scores, which saves their time.</summary>
  /// <param name="tokens">At least one id, used where they lie.</param>
  /// <param name="progress">Told of tokens. With it or a token the step needs memory for a spare state.</param>
  /// <param name="cancellationToken">Ends the step, with the cache as before it.</param>
  public unsafe void Feed(ReadOnlySpan<int> tokens, IProgress<ProgressReport> progress = null,
                          CancellationToken cancellationToken = default(CancellationToken)) {
    Check();
    fixed (int* from = &MemoryMarshal.GetReference(tokens)) {
      NativeBuffer buffer = new NativeBuffer(from, tokens.Length);
      if (Watcher.IsNeeded(progress, cancellationToken))
        RunItem(new NativeItem { Tokens = buffer }, progress, cancellationToken);
      else
        Raw.step(buffer, default(NativeBuffer));
    }
  }

  /// <summary>Feeds tokens and writes the scores after each of them.</summary>
  /// <param name="tokens">Ids, used where they lie.</param>
  /// <param name="logits">Room for a row of <see cref="Wkv.Model.VocabSize"/> scores for each token; empty: they are
  /// not wanted.</param>
  /// <param name="keepStates">Keeps the state after each of at most 32 tokens: <see cref="Rollback"/> can go to any of
  /// them, and to where the step began, until the next step.</param>
  /// <param name="progress">Told of tokens.</param>
  /// <param name="cancellationToken">Ends the step, with the cache as before it.</param>
  public unsafe void StepAll(ReadOnlySpan<int> tokens, Span<float> logits, bool keepStates = false,
                             IProgress<ProgressReport> progress = null,
                             CancellationToken cancellationToken = default(CancellationToken)) {
    Check();
    fixed (int* from = &MemoryMarshal.GetReference(tokens))
    fixed (float* to = &MemoryMarshal.GetReference(logits))
      RunItem(new NativeItem {
        Tokens = new NativeBuffer(from, tokens.Length),
        Logits = logits.IsEmpty ? default(NativeBuffer) : new NativeBuffer(to, logits.Length),
        Flags = (uint)(Native.STEP_ALL_LOGITS | (keepStates ? Native.STEP_ALL_STATES : 0))
      }, progress, cancellationToken);
  }

  private unsafe void RunItem(NativeItem item, IProgress<ProgressReport> progress,
                              CancellationToken cancellationToken) {
    // a batch leaves a cache without tokens alone, a step refuses it
    if (item.Tokens.Count == 0) Raw.step(item.Tokens, default(NativeBuffer));
    using (Hold hold = new Hold(Handle)) {
      item.Cache = hold.Pointer;
      StepItem.Run(model, new NativeBuffer(&item, 1), progress, cancellationToken);
    }
  }

  /// <summary>An independent cache with the same state, position and checkpoints: a fork. Takes constant time; memory
  /// is shared until one of the two steps.</summary>
  public Cache Copy() {
    Check();
    Raw.copy(out IntPtr copy);
    return new Cache(new Interop.Cache(copy, true), this);
  }

  /// <summary>Makes this cache what <see cref="Copy"/> of another one of the same model would give.</summary>
  /// <param name="source">Not changed.</param>
  public void Assign(Cache source) {
    Argument.NotNull(source, nameof(source)).Check();
    Check();
    Raw.assign(source.Raw);
  }

  /// <summary>Forgets everything: the state of a new cache with the same options.</summary>
  public void Reset() {
    Check();
    Raw.reset();
  }

  /// <summary>Moves the state of a cache on a GPU to the host's memory until its next use; on the CPU nothing happens.
  /// </summary>
  public void Park() {
    Check();
    Raw.park();
  }

  /// <summary>Copies of caches that are chosen by index; an index may come several times, or not at all.</summary>
  /// <param name="caches">At least one, of one model; not changed.</param>
  /// <param name="indices">Which of them to copy.</param>
  public static Cache[] Select(IReadOnlyList<Cache> caches, IReadOnlyList<int> indices) {
    Argument.NotNull(indices, nameof(indices));
    using (HeldCaches held = new HeldCaches(caches)) {
      NativeChoice[] choices = new NativeChoice[indices.Count];
      for (int i = 0; i < choices.Length; i++) choices[i].Index = Argument.Count((long)indices[i], nameof(indices));
      unsafe {
        fixed (IntPtr* from = held.Pointers)
        fixed (NativeChoice* to = choices)
          Interop.Cache.select(new NativeBuffer(from, held.Pointers.Length), new NativeBuffer(to, choices.Length));
      }
      // every copy has an owner before anything can go wrong
      Interop.Cache[] made = choices.Select(choice => new Interop.Cache(choice.Cache, true)).ToArray();
      return made.Select((copy, i) => new Cache(copy, caches[indices[i]])).ToArray();
    }
  }

  /// <summary>Gives each cache what another of them held before the call: the step of a beam search.</summary>
  /// <param name="caches">Different caches of one model.</param>
  /// <param name="sources">For each of them the index of the one whose state it gets.</param>
  public static unsafe void Reorder(IReadOnlyList<Cache> caches, IReadOnlyList<int> sources) {
    Argument.NotNull(sources, nameof(sources));
    using (HeldCaches held = new HeldCaches(caches)) {
      if (held.Pointers.Length != sources.Count)
        throw new ArgumentException($"{held.Pointers.Length} caches and {sources.Count} sources");
      NativeChoice[] choices = new NativeChoice[sources.Count];
      for (int i = 0; i < choices.Length; i++)
        choices[i] =
            new NativeChoice { Index = Argument.Count((long)sources[i], nameof(sources)), Cache = held.Pointers[i] };
      fixed (NativeChoice* pairs = choices)
        Interop.Cache.reorder(new NativeBuffer(pairs, choices.Length));
    }
  }

  /// <summary>Keeps a checkpoint of the state as it is now, until <see cref="Unmark"/>, a rollback to an earlier
  /// position, reset or assign. Takes constant time.</summary>
  /// <returns>The position, for <see cref="Rollback"/>.</returns>
  public long Mark() {
    Check();
    Raw.mark(out ulong position);
    return (long)position;
  }

  /// <summary>Gives up the checkpoint of one position.</summary>
  /// <param name="position">A kept one.</param>
  /// <exception cref="System.IO.FileNotFoundException">Nothing is kept there.</exception>
  public void Unmark(long position) {
    ulong place = Argument.Count(position, nameof(position));
    Check();
    Raw.unmark(place);
  }

  /// <summary>Goes back to a kept position: the state is to the bit what it was there.</summary>
  /// <param name="position">A mark, a checkpoint of the options, or one of a step that kept its states.</param>
  /// <exception cref="System.IO.FileNotFoundException">That position is not kept, or lies ahead; nothing changed.
  /// </exception>
  public void Rollback(long position) {
    ulong place = Argument.Count(position, nameof(position));
    Check();
    Raw.rollback(place);
  }

  /// <summary>The positions that <see cref="Rollback"/> can go to, rising.</summary>
  public unsafe long[] GetKeptPositions() {
    Check();
    return Filled.Array<long>((memory, capacity) => {
      fixed (long* to = memory) {
        Raw.get_kept_positions(new NativeBuffer(to, capacity), out ulong count);
        return count;
      }
    });
  }

  /// <summary>Position, last tokens, memory.</summary>
  public CacheInfo Info {
    get {
      Check();
      using (Interop.CacheInfo raw = new Interop.CacheInfo()) {
        Raw.get_info(raw);
        return new CacheInfo(raw);
      }
    }
  }

  /// <summary>Tokens read since creation or reset.</summary>
  public long Position {
    get {
      Check();
      using (Interop.CacheInfo raw = new Interop.CacheInfo()) {
        Raw.get_info(raw);
        return (long)raw.position;
      }
    }
  }

  /// <summary>Reads one part of one layer's state, in the layout of the official implementation.</summary>
  /// <param name="layer">From 0.</param>
  /// <param name="part">Which part.</param>
  /// <param name="values">Room for the part: width, or width times head size numbers.</param>
  public unsafe void ReadState(int layer, StatePart part, Span<float> values) {
    Check();
    fixed (float* to = &MemoryMarshal.GetReference(values))
      Raw.read_state(layer, (int)part, new NativeBuffer(to, values.Length));
  }

  /// <summary>One part of one layer's state, in the layout of the official implementation.</summary>
  /// <param name="layer">From 0.</param>
  /// <param name="part">Which part.</param>
  public float[] ReadState(int layer, StatePart part) {
    ModelInfo info = Model.Info;
    float[] values = new float[part == StatePart.Wkv ? info.Width * info.HeadSize : info.Width];
    ReadState(layer, part, values);
    return values;
  }

  /// <summary>Replaces one part of one layer's state; the position is not touched.</summary>
  /// <param name="layer">From 0.</param>
  /// <param name="part">Which part.</param>
  /// <param name="values">As <see cref="ReadState(int, StatePart)"/> gives them; every number must be finite.</param>
  public unsafe void WriteState(int layer, StatePart part, ReadOnlySpan<float> values) {
    Check();
    fixed (float* from = &MemoryMarshal.GetReference(values))
      Raw.write_state(layer, (int)part, new NativeBuffer(from, values.Length));
  }

  /// <summary>Looks for numbers in the state that are not finite: after them every score is worthless.</summary>
  /// <param name="layer">The first bad layer; -1: none.</param>
  /// <param name="part">The first bad part of that layer.</param>
  /// <returns>Whether every number is finite.</returns>
  public bool IsFinite(out int layer, out StatePart part) {
    Check();
    Raw.check(out layer, out int number);
    part = (StatePart)number;
    return layer < 0;
  }

  /// <summary>The whole state in the layout of an engine.</summary>
  /// <param name="layout">Of which engine.</param>
  public unsafe float[] ExportState(StateLayout layout) {
    Check();
    ModelInfo info = Model.Info;
    float[] values = new float[checked(info.Layers * info.Width * (2 + info.HeadSize))];
    fixed (float* to = values)
      Raw.export_state((int)layout, new NativeBuffer(to, values.Length));
    return values;
  }

  /// <summary>Replaces the whole state by one of an engine. Checkpoints are given up, and no last tokens are known.
  /// </summary>
  /// <param name="layout">Of which engine.</param>
  /// <param name="values">As <see cref="ExportState"/> gives them; every number must be finite.</param>
  /// <param name="position">Tokens that the state has read.</param>
  public unsafe void ImportState(StateLayout layout, ReadOnlySpan<float> values, long position) {
    ulong place = Argument.Count(position, nameof(position));
    Check();
    fixed (float* from = &MemoryMarshal.GetReference(values))
      Raw.import_state((int)layout, new NativeBuffer(from, values.Length), place);
  }

  /// <summary>Saves the cache to a file, which appears whole or not at all.</summary>
  /// <param name="path">A file there is replaced.</param>
  /// <param name="stateType">F32, the default, or F16: half the size, 11 bits of precision.</param>
  /// <exception cref="System.IO.FileNotFoundException">No such folder.</exception>
  public void Save(string path, NumberType stateType = NumberType.Default) {
    Argument.NotNull(path, nameof(path));
    Check();
    using (Interop.SaveOptions options = new Interop.SaveOptions { state_type = (int)stateType })
      Raw.save_as(path, options);
  }

  /// <summary>What <see cref="Save"/> writes; <see cref="Wkv.Model.CacheFromBytes"/> reads it.</summary>
  /// <param name="stateType">F32, the default, or F16.</param>
  public unsafe byte[] ToBytes(NumberType stateType = NumberType.Default) {
    Check();
    using (Interop.SaveOptions options = new Interop.SaveOptions { state_type = (int)stateType })
      return Filled.Array<byte>((memory, capacity) => {
        fixed (byte* to = memory) {
          Raw.serialize_as(options, new NativeBuffer(to, capacity), out ulong count);
          return count;
        }
      });
  }

  /// <summary>What a file that holds a saved cache or session says of itself, without a model.</summary>
  /// <param name="path">The file.</param>
  public static BlobInfo ReadHeader(string path) {
    Argument.NotNull(path, nameof(path));
    using (Interop.BlobInfo raw = new Interop.BlobInfo()) {
      Interop.Cache.read_header(path, raw);
      return new BlobInfo(raw);
    }
  }

  /// <summary>What a saved cache or session in memory says of itself, without a model.</summary>
  /// <param name="bytes">All of it, or at least its first 4096 bytes.</param>
  public static unsafe BlobInfo ReadHeader(ReadOnlySpan<byte> bytes) {
    using (Interop.BlobInfo raw = new Interop.BlobInfo())
      fixed (byte* from = &MemoryMarshal.GetReference(bytes)) {
        Interop.Cache.read_header_memory(new NativeBuffer(from, bytes.Length), raw);
        return new BlobInfo(raw);
      }
  }

  /// <inheritdoc/>
  public override string ToString() {
    try {
      CacheInfo info = Info;
      return $"Wkv.Cache at {info.Position} on {info.Device}";
    } catch (ObjectDisposedException) {
      return "Wkv.Cache (closed)";
    } catch (WkvBusyException busy) {
      return $"Wkv.Cache: {busy.Message}";
    }
  }
}

}
