// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections;
using System.Collections.Generic;
using System.Linq;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using Wkv.Interop;

namespace Wkv {

/// <summary>Text, pulled piece by piece: by foreach, by <see cref="Next"/>, or asynchronously. Between two pieces the
/// cache is free. There is one text: two loops over one generation share its pieces, and a loop that was left goes on
/// with the next one.</summary>
public sealed class Generation : NativeObject, IEnumerable<Piece> {
  private static readonly TokenProbability[] noAlternatives = new TokenProbability[0];
  private static readonly int[] noTokens = new int[0];
  private static readonly byte[] noBytes = new byte[0];

  internal readonly Interop.Generation Raw;
  private readonly Interop.GenerationPiece piece = new Interop.GenerationPiece();
  private readonly Watcher watcher;
  private bool ownsCache, ownsSampler;
  private int isBusy;

  /// <summary>Makes a generation on a cache. Nothing is computed yet.</summary>
  /// <param name="cache">Where the text goes on.</param>
  /// <param name="prompt">Fed first; null or empty where the options give tokens.</param>
  /// <param name="options">null: all defaults. Their cache is not looked at.</param>
  public Generation(Cache cache, string prompt, GenerationOptions options = null)
      : this(Parts.Make(null, Argument.NotNull(cache, nameof(cache)), prompt, options ?? new GenerationOptions())) {
  }

  internal Generation(Model model, string prompt, GenerationOptions options)
      : this(Parts.Make(model, options.Cache ?? options.Previous?.Cache, prompt, options)) {
  }

  /// <summary>One that a session had.</summary>
  internal Generation(Interop.Generation raw, Cache cache, Sampler sampler)
      : this(new Parts { Raw = raw, Cache = cache, Sampler = sampler }) {
  }

  private Generation(Parts parts) : base(parts.Raw.swigCPtr) {
    Raw = parts.Raw;
    Cache = parts.Cache;
    Sampler = parts.Sampler;
    ownsCache = parts.OwnsCache;
    ownsSampler = parts.OwnsSampler;
    watcher = parts.Watcher ?? new Watcher(null, CancellationToken.None);
    Handle.Attach(watcher);
  }

  /// <summary>What a generation is made of.</summary>
  private sealed class Parts {
    internal Interop.Generation Raw;
    internal Cache Cache;
    internal Sampler Sampler;
    internal Watcher Watcher;
    internal bool OwnsCache, OwnsSampler;

    internal static Parts Make(Model model, Cache cache, string prompt, GenerationOptions options) {
      if (options.Sampler != null && options.Sampling != null)
        throw new ArgumentException("a sampler has its options already");
      byte[] text = Utf8.Encode(prompt ?? "");
      int[] tokens = options.PromptTokens ?? noTokens;
      options.Previous?.GoOn(ref text, ref tokens);
      Parts parts = new Parts {
        Cache = cache ?? new Cache(model),
        OwnsCache = cache == null,
        Watcher = new Watcher(options.Progress, options.CancellationToken)
      };
      try {
        parts.Sampler = options.Sampling == null ? options.Sampler : new Sampler(options.Sampling);
        parts.OwnsSampler = options.Sampling != null;
        parts.Cache.Check();
        parts.Sampler?.Check();
        // options do not keep what they point to
        using (Hold.On(options.Tokenizer))
        using (Hold.On(options.PrefixStore))
        using (Interop.GenerationOptions raw = options.ToNative(text, tokens)) {
          raw.set_progress(Watcher.Function, parts.Watcher.User);
          Interop.Generation.create(parts.Cache.Raw, parts.Sampler?.Raw, raw, out IntPtr made);
          parts.Raw = new Interop.Generation(made, true);
        }
      } catch {
        parts.Watcher.Dispose();
        if (parts.OwnsSampler) parts.Sampler.Dispose();
        if (parts.OwnsCache) parts.Cache.Dispose();
        throw;
      }
      // a cache that was made for the first of several turns goes with the last one
      if (options.Previous != null && options.Previous.Cache == parts.Cache) {
        parts.OwnsCache |= options.Previous.ownsCache;
        options.Previous.ownsCache = false;
      }
      return parts;
    }
  }

  /// <summary>The cache that reads the text.</summary>
  public Cache Cache { get; }

  /// <summary>What chooses the tokens; null: the likeliest ones.</summary>
  public Sampler Sampler { get; }

  /// <summary>Why it has ended; None: it has not.</summary>
  public StopReason Reason { get; private set; }

  /// <summary>At the end: the last token chosen, which the cache has not read; null after a stop string.</summary>
  public int? PendingToken { get; private set; }

  /// <summary>After a stop string: the end of the text that the cache has not read, as bytes; usually empty.</summary>
  public IReadOnlyList<byte> Unread { get; private set; } = noBytes;

  /// <summary>Tokens chosen so far.</summary>
  public long TokensGenerated { get; private set; }

  /// <summary>Tokens fed before the first choice.</summary>
  public long PromptTokens { get; private set; }

  /// <summary>Those of the prompt that came from a prefix store.</summary>
  public long ReusedTokens { get; private set; }

  /// <summary>Lets go of the generation, and of a cache and a sampler that were made for it.</summary>
  public override void Dispose() {
    base.Dispose();
    piece.Dispose();
    if (ownsSampler) Sampler.Dispose();
    if (ownsCache) Cache.Dispose();
  }

  /// <summary>Chooses the next token and gives the text that is certain now. The first call feeds the prompt.</summary>
  /// <param name="cancellationToken">Ends this call, besides the token of the options. Calling again goes on.</param>
  /// <returns>null: there is nothing more.</returns>
  /// <exception cref="OperationCanceledException">A token was cancelled; everything is as before the call.</exception>
  /// <exception cref="ArgumentException">The sampler has no token left.</exception>
  /// <exception cref="InvalidOperationException">Cache, sampler or generation are in use by another call.</exception>
  public Piece Next(CancellationToken cancellationToken = default(CancellationToken)) {
    Check();
    // text lies in the generation until its next call, so the two of another thread must not come between
    if (Interlocked.Exchange(ref isBusy, 1) != 0)
      throw new WkvBusyException("the generation is in use by another call");
    try {
      using (new Hold(Handle))
      using (new Hold(piece.swigCPtr)) {
        watcher.Begin(cancellationToken);
        bool isPiece;
        try {
          isPiece = Raw.next(piece);
        } catch (WkvCanceledException cancelled) {
          throw watcher.Ended(cancelled.Message);
        }
        return Take(isPiece);
      }
    } finally {
      Volatile.Write(ref isBusy, 0);
    }
  }

  private Piece Take(bool isPiece) {
    piece.read(out NativePiece raw);
    StopReason reason = (StopReason)raw.Reason;
    TokensGenerated = raw.TokensGenerated;
    PromptTokens = raw.PromptTokens;
    ReusedTokens = raw.ReusedTokens;
    if (reason != StopReason.None) {
      Reason = reason;
      PendingToken = raw.PendingToken >= 0 ? raw.PendingToken : (int?)null;
      Unread = raw.Unread.ToArray();
    }
    if (!isPiece) return null;
    TokenProbability[] alternatives = noAlternatives;
    if (raw.AlternativesCount > 0) {
      alternatives = new TokenProbability[raw.AlternativesCount];
      for (int i = 0; i < alternatives.Length; i++) {
        NativeProbability one = piece.get_alternative(i);
        alternatives[i] = new TokenProbability(one.Token, one.LogProbability);
      }
    }
    return new Piece(raw.Text.ToString(), raw.Token, reason, raw.LogProbability, alternatives);
  }

  /// <summary>All of the text that is still to come.</summary>
  public string ReadToEnd() {
    StringBuilder text = new StringBuilder();
    for (Piece next = Next(); next != null; next = Next()) text.Append(next.Text);
    return text.ToString();
  }

  /// <summary>The pieces that are still to come. Leaving the loop leaves the generation where it is.</summary>
  public IEnumerator<Piece> GetEnumerator() {
    for (Piece next = Next(); next != null; next = Next()) yield return next;
  }

  IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

  /// <summary>The pieces that are still to come, as strings.</summary>
  public IEnumerable<string> Texts => this.Select(next => next.Text);

  /// <summary>The pieces that are still to come, for await foreach: each is computed on the thread pool. (A method,
  /// since a class that is both kinds of sequence makes the operators of Linq ambiguous.)</summary>
  /// <param name="cancellationToken">Ends the loop with <see cref="WkvCanceledException"/>; another loop goes
  /// on.</param>
  public IAsyncEnumerable<Piece> AsAsyncEnumerable(
      CancellationToken cancellationToken = default(CancellationToken)) =>
      new AsyncPieces(this, cancellationToken);

  private sealed class AsyncPieces : IAsyncEnumerable<Piece>, IAsyncEnumerator<Piece> {
    private readonly Generation generation;
    private readonly CancellationToken token;

    internal AsyncPieces(Generation generation, CancellationToken token) {
      this.generation = generation;
      this.token = token;
    }

    public Piece Current { get; private set; }

    // the token of WithCancellation
    public IAsyncEnumerator<Piece> GetAsyncEnumerator(CancellationToken cancellationToken) =>
        new AsyncPieces(generation, cancellationToken.CanBeCanceled ? cancellationToken : token);

    public ValueTask<bool> MoveNextAsync() => new ValueTask<bool>(Task.Run(() => {
      Current = generation.Next(token);
      return Current != null;
    }));

    public ValueTask DisposeAsync() => default(ValueTask);
  }

  /// <summary>Begins the prompt of the next turn with what this one left unread.</summary>
  private void GoOn(ref byte[] text, ref int[] tokens) {
    if (Reason == StopReason.None) throw new ArgumentException("the previous generation has not ended");
    text = Unread.Concat(text).ToArray();
    if (Reason == StopReason.MaxTokens && PendingToken is int pending)
      tokens = new[] { pending }.Concat(tokens).ToArray();
  }

  /// <inheritdoc/>
  public override string ToString() => IsClosed ? "Wkv.Generation (closed)"
      : $"Wkv.Generation: {TokensGenerated} tokens, {(Reason == StopReason.None ? "going on" : $"ended: {Reason}")}";
}

}
