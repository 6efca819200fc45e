// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** Parts of the state of one layer. */
public enum StatePart {
  /** [width]: normalised input of the time mix at the last token. */
  ATT_SHIFT(0),
  /** [width]: normalised input of the channel mix at the last token. */
  FFN_SHIFT(1),
  /** [heads][head size value][head size key]. */
  WKV(2);

  final int number;

  StatePart(int number) {
    this.number = number;
  }
}
