// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;

namespace Wkv {

/// <summary>A token that might have been chosen.</summary>
public readonly struct TokenProbability {
  internal TokenProbability(int token, float logProbability) {
    Token = token;
    LogProbability = logProbability;
  }

  /// <summary>Its id.</summary>
  public int Token { get; }

  /// <summary>Natural logarithm, under the raw scores: temperature 1, before any option.</summary>
  public float LogProbability { get; }
}

/// <summary>A piece of text, which knows its token. Where a string is wanted, it is one.</summary>
public sealed class Piece {
  internal Piece(string text, int token, StopReason reason, float logProbability, TokenProbability[] alternatives) {
    Text = text;
    Token = token;
    Reason = reason;
    LogProbability = logProbability;
    Alternatives = alternatives;
  }

  /// <summary>Whole characters; may be empty.</summary>
  public string Text { get; }

  /// <summary>The token that was chosen.</summary>
  public int Token { get; }

  /// <summary>None, or why this is the last piece.</summary>
  public StopReason Reason { get; }

  /// <summary>Of the token, when it was asked for; else 0.</summary>
  public float LogProbability { get; }

  /// <summary>The likeliest tokens, when they were asked for.</summary>
  public IReadOnlyList<TokenProbability> Alternatives { get; }

  /// <summary>The text.</summary>
  public override string ToString() => Text;

  /// <summary>The text.</summary>
  /// <param name="piece">null stays null.</param>
  public static implicit operator string(Piece piece) => piece?.Text;
}

}
