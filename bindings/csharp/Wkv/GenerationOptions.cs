// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using Wkv.Interop;

namespace Wkv {

/// <summary>How text goes on. What is left alone has the library's default.</summary>
public sealed class GenerationOptions {
  /// <summary>Where the text goes on; null: that of <see cref="Previous"/>, else a new one, which goes with the
  /// generation.</summary>
  public Cache Cache { get; set; }

  /// <summary>A generation that has ended on the same cache: what it said and the cache has not read yet is fed first.
  /// </summary>
  public Generation Previous { get; set; }

  /// <summary>Chooses the tokens; null: as <see cref="Sampling"/> says.</summary>
  public Sampler Sampler { get; set; }

  /// <summary>A sampler of the generation's own is made from it; null: the likeliest tokens.</summary>
  public SamplerOptions Sampling { get; set; }

  /// <summary>Tokens to choose at most; 0: 256.</summary>
  public int MaxTokens { get; set; }

  /// <summary>Ids fed before the prompt. Something must be fed, here or there.</summary>
  public int[] PromptTokens { get; set; }

  /// <summary>Strings that end the text, and are taken back out of the cache.</summary>
  public IList<string> StopStrings { get; set; } = new List<string>();

  /// <summary>Ids that end the text, besides 0.</summary>
  public int[] StopTokens { get; set; }

  /// <summary>A stop string stays in the cache.</summary>
  public bool KeepsStopString { get; set; }

  /// <summary>Id 0, the end of text, does not end the generation.</summary>
  public bool KeepsEndToken { get; set; }

  /// <summary>Pieces carry the probability of their token.</summary>
  public bool WantsLogProbability { get; set; }

  /// <summary>The likeliest tokens to report with each piece, at most 20.</summary>
  public int AlternativesCount { get; set; }

  /// <summary>The sampler's penalties remember the prompt's tokens too.</summary>
  public bool AcceptsPrompt { get; set; }

  /// <summary>null: the model's own.</summary>
  public Tokenizer Tokenizer { get; set; }

  /// <summary>Prompts that were read before are not read again. Needs a cache that has read nothing and a prompt that
  /// is the whole history.</summary>
  public PrefixStore PrefixStore { get; set; }

  /// <summary>Told of tokens while the prompt is fed.</summary>
  public IProgress<ProgressReport> Progress { get; set; }

  /// <summary>Ends the iteration, inside a long prompt too, with <see cref="WkvCanceledException"/> and the cache in
  /// order.</summary>
  public CancellationToken CancellationToken { get; set; }

  internal unsafe Interop.GenerationOptions ToNative(byte[] prompt, int[] promptTokens) {
    Interop.GenerationOptions raw = new Interop.GenerationOptions {
      max_tokens = MaxTokens,
      keeps_stop_string = KeepsStopString ? 1 : 0,
      keeps_end_token = KeepsEndToken ? 1 : 0,
      wants_log_probability = WantsLogProbability ? 1 : 0,
      alternatives_count = AlternativesCount,
      accepts_prompt = AcceptsPrompt ? 1 : 0
    };
    raw.set_tokenizer(Tokenizer?.Raw);
    raw.set_prefix_store(PrefixStore?.Raw);
    foreach (string stop in StopStrings ?? Enumerable.Empty<string>())
      raw.add_stop_string(Argument.NotNull(stop, nameof(StopStrings)));
    fixed (byte* text = prompt)
    fixed (int* first = promptTokens)
    fixed (int* stops = StopTokens) {
      raw.set_prompt(new NativeBuffer(text, prompt.Length));
      raw.set_prompt_tokens(new NativeBuffer(first, promptTokens.Length));
      raw.set_stop_tokens(new NativeBuffer(stops, StopTokens?.Length ?? 0));
    }
    return raw;
  }
}

}
