// SPDX-License-Identifier: Apache-2.0
using System;
using System.Buffers;
using System.Threading;
using Wkv.Interop;

namespace Wkv {

/// <summary>One sequence of a step: see <see cref="Model.Step(System.Collections.Generic.IEnumerable{StepItem},
/// IProgress{ProgressReport}, CancellationToken)"/>.</summary>
public sealed class StepItem {
  /// <summary>A cache and the tokens that it reads.</summary>
  /// <param name="cache">Advanced by the number of tokens.</param>
  /// <param name="tokens">Ids; none: the cache is left alone.</param>
  public StepItem(Cache cache, ReadOnlyMemory<int> tokens) {
    Cache = Argument.NotNull(cache, nameof(cache));
    Tokens = tokens;
  }

  /// <summary>Advanced by the number of tokens.</summary>
  public Cache Cache { get; }

  /// <summary>Ids, used where they lie.</summary>
  public ReadOnlyMemory<int> Tokens { get; set; }

  /// <summary>Where the scores go: one a token id, of the last token. Empty: they are not wanted.</summary>
  public Memory<float> Logits { get; set; }

  /// <summary>Chooses <see cref="NextToken"/> from the last token's scores; null: none.</summary>
  public Sampler Sampler { get; set; }

  /// <summary><see cref="Logits"/> is for the scores after every token.</summary>
  public bool AllLogits { get; set; }

  /// <summary>Keeps the state after each of at most 32 tokens: <see cref="Cache.Rollback"/> can go to any of them, and
  /// to where the step began, until the next step.</summary>
  public bool KeepStates { get; set; }

  /// <summary>After a step with a sampler: its choice.</summary>
  public int NextToken { get; private set; }

  /// <summary>This item's own outcome: which ones were at fault when a step has failed.</summary>
  public Status Status { get; private set; }

  internal static unsafe void Run(Interop.Model model, StepItem[] items, IProgress<ProgressReport> progress,
                                  CancellationToken cancellationToken) {
    NativeItem[] raw = new NativeItem[items.Length];
    Hold[] held = new Hold[2 * items.Length];
    MemoryHandle[] pinned = new MemoryHandle[2 * items.Length];
    try {
      for (int i = 0; i < items.Length; i++) {
        StepItem item = Argument.NotNull(items[i], nameof(items));
        held[2 * i] = Hold.On(item.Cache);
        held[2 * i + 1] = Hold.On(item.Sampler);
        pinned[2 * i] = item.Tokens.Pin();
        pinned[2 * i + 1] = item.Logits.Pin();
        raw[i].Cache = held[2 * i].Pointer;
        raw[i].Sampler = held[2 * i + 1].Pointer;
        raw[i].Tokens = new NativeBuffer(pinned[2 * i].Pointer, item.Tokens.Length);
        if (!item.Logits.IsEmpty)
          raw[i].Logits = new NativeBuffer(pinned[2 * i + 1].Pointer, item.Logits.Length);
        raw[i].Flags = (item.AllLogits ? (uint)Native.STEP_ALL_LOGITS : 0) |
            (item.KeepStates ? (uint)Native.STEP_ALL_STATES : 0);
      }
      fixed (NativeItem* first = raw)
        Run(model, new NativeBuffer(first, raw.Length), progress, cancellationToken);
      for (int i = 0; i < items.Length; i++)
        if (items[i].Sampler != null) items[i].NextToken = raw[i].NextToken;
    } finally {
      for (int i = 0; i < items.Length; i++)
        if (items[i] != null) items[i].Status = (Status)raw[i].Status;
      foreach (MemoryHandle memory in pinned) memory.Dispose();
      foreach (Hold hold in held) hold.Dispose();
    }
  }

  internal static void Run(Interop.Model model, NativeBuffer items, IProgress<ProgressReport> progress,
                           CancellationToken cancellationToken) {
    if (!Watcher.IsNeeded(progress, cancellationToken)) {
      model.step(items);
      return;
    }
    using (Interop.StepOptions options = new Interop.StepOptions())
    using (Watcher watcher = new Watcher(progress, cancellationToken)) {
      watcher.Begin();
      options.set_progress(Watcher.Function, watcher.User);
      try {
        model.step_watched(items, options);
      } catch (WkvCanceledException cancelled) {
        throw watcher.Ended(cancelled.Message);
      }
    }
  }
}

}
