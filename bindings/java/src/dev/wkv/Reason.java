// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** Why a generation goes on or has ended. */
public enum Reason {
  /** It goes on. */
  NONE(0),
  /** As many tokens as allowed were chosen. */
  MAX_TOKENS(1),
  /** A stop token, or the end of text, was chosen; its own bytes are not in the text. */
  STOP_TOKEN(2),
  /** The text contained a stop string; the text given out ends before it. */
  STOP_STRING(3),
  /** One that a later library knows. */
  UNKNOWN(-1);

  final int number;

  Reason(int number) {
    this.number = number;
  }

  static Reason of(int number) {
    for (Reason one : values())
      if (one.number == number) return one;
    return UNKNOWN;
  }
}
