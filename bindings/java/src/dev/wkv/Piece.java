// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.util.List;

/**
 * What a generation gives out at a time: a token, and the text that is certain now.
 *
 * @param text whole characters; may be empty
 * @param token the one chosen
 * @param reason other than NONE: this is the last piece
 * @param logProbability of the token, natural logarithm under the raw scores; 0 when not asked for
 * @param alternatives likeliest tokens, falling; empty when not asked for
 */
public record Piece(String text, int token, Reason reason, float logProbability, List<TokenProbability> alternatives) {
  /**
   * The text, so that a piece can be printed.
   *
   * @return {@link #text}
   */
  @Override
  public String toString() {
    return text;
  }
}
