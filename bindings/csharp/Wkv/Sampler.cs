// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using Wkv.Interop;

namespace Wkv {

/// <summary>How a sampler chooses. What is left alone is off.</summary>
public sealed class SamplerOptions {
  /// <summary>Always the highest score; no randomness.</summary>
  public bool IsGreedy { get; set; }

  /// <summary>Equal seeds give equal draws.</summary>
  public ulong Seed { get; set; }

  /// <summary>Divides the scores; null: 1; 0: greedy.</summary>
  public float? Temperature { get; set; }

  /// <summary>Keeps the k likeliest; 0: all.</summary>
  public int TopK { get; set; }

  /// <summary>Keeps the fewest likeliest tokens whose sum reaches it; 0: all.</summary>
  public float TopP { get; set; }

  /// <summary>Drops tokens below it times the likeliest; 0: none.</summary>
  public float MinP { get; set; }

  /// <summary>Keeps the tokens closest to the expected information, up to this sum; 0: all.</summary>
  public float TypicalP { get; set; }

  /// <summary>Above 1: makes tokens that were seen less likely; 0 and 1: does not.</summary>
  public float Repetition { get; set; }

  /// <summary>Taken from the score of every token that was seen.</summary>
  public float Presence { get; set; }

  /// <summary>Taken from the score of a token for each time it was seen.</summary>
  public float Frequency { get; set; }

  /// <summary>What is left of a count after each further token; 0: 1, counts never fade.</summary>
  public float PenaltyDecay { get; set; }

  /// <summary>Ids at or beyond it are never chosen; 0: no such bound.</summary>
  public int IdsEnd { get; set; }

  /// <summary>Added to the scores of tokens; negative infinity bans one.</summary>
  public IDictionary<int, float> Biases { get; set; } = new Dictionary<int, float>();

  /// <summary>Never chosen.</summary>
  public int[] BannedTokens { get; set; }

  /// <summary>Not touched by penalties.</summary>
  public int[] ExemptTokens { get; set; }

  internal unsafe Interop.SamplerOptions ToNative() {
    Interop.SamplerOptions raw = new Interop.SamplerOptions {
      is_greedy = IsGreedy || Temperature == 0 ? 1 : 0,
      seed = Seed,
      temperature = Temperature ?? 0,
      top_k = TopK,
      top_p = TopP,
      min_p = MinP,
      typical_p = TypicalP,
      repetition = Repetition,
      presence = Presence,
      frequency = Frequency,
      penalty_decay = PenaltyDecay,
      ids_end = IdsEnd
    };
    if (Biases != null)
      foreach (KeyValuePair<int, float> bias in Biases) raw.add_bias(bias.Key, bias.Value);
    fixed (int* banned = BannedTokens)
    fixed (int* exempt = ExemptTokens) {
      raw.set_banned_tokens(new NativeBuffer(banned, BannedTokens?.Length ?? 0));
      raw.set_exempt_tokens(new NativeBuffer(exempt, ExemptTokens?.Length ?? 0));
    }
    return raw;
  }
}

/// <summary>Chooses the next token from scores. It owns a seeded random generator and the memory of penalties: the same
/// seed, options and scores give the same tokens everywhere. Used by one call at a time.</summary>
public sealed class Sampler : NativeObject {
  internal readonly Interop.Sampler Raw;

  /// <summary>Makes a sampler.</summary>
  /// <param name="options">null: all defaults: temperature 1, nothing cut, seed 0.</param>
  /// <exception cref="ArgumentException">A field is out of range; the message names field and value.</exception>
  public Sampler(SamplerOptions options = null) : this(Create(options ?? new SamplerOptions())) {
  }

  internal Sampler(Interop.Sampler raw) : base(raw.swigCPtr) {
    Raw = raw;
  }

  private static Interop.Sampler Create(SamplerOptions options) {
    using (Interop.SamplerOptions raw = options.ToNative()) {
      Interop.Sampler.create(raw, out IntPtr sampler);
      return new Interop.Sampler(sampler, true);
    }
  }

  /// <summary>Chooses a token; penalties remember it.</summary>
  /// <param name="logits">Raw scores, one a token id; not changed.</param>
  /// <exception cref="ArgumentException">No token is left to choose from.</exception>
  public unsafe int Sample(ReadOnlySpan<float> logits) {
    Check();
    fixed (float* from = &MemoryMarshal.GetReference(logits)) {
      Raw.sample(new NativeBuffer(from, logits.Length), out int token);
      return token;
    }
  }

  /// <summary>Lets penalties remember a token that was not chosen here, such as one of the prompt.</summary>
  /// <param name="token">An id.</param>
  public void Accept(int token) {
    Check();
    Raw.accept(token);
  }

  /// <summary>The probabilities from which <see cref="Sample"/> would draw now, zero for tokens that were
  /// cut.</summary>
  /// <param name="logits">Raw scores, one a token id.</param>
  /// <param name="probabilities">As many; may be the same memory.</param>
  public unsafe void GetProbabilities(ReadOnlySpan<float> logits, Span<float> probabilities) {
    Check();
    fixed (float* from = &MemoryMarshal.GetReference(logits))
    fixed (float* to = &MemoryMarshal.GetReference(probabilities))
      Raw.read_probabilities(new NativeBuffer(from, logits.Length), new NativeBuffer(to, probabilities.Length));
  }

  /// <summary>The probabilities from which <see cref="Sample"/> would draw now, zero for tokens that were
  /// cut.</summary>
  /// <param name="logits">Raw scores, one a token id.</param>
  public float[] GetProbabilities(ReadOnlySpan<float> logits) {
    float[] probabilities = new float[logits.Length];
    GetProbabilities(logits, probabilities);
    return probabilities;
  }

  /// <summary>Forgets all tokens and starts the random generator again.</summary>
  /// <param name="seed">As in the options.</param>
  public void Reset(ulong seed = 0) {
    Check();
    Raw.reset(seed);
  }
}

}
