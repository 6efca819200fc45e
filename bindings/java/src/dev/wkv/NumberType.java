// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** Number formats. */
public enum NumberType {
  /** As stored, or the library's own choice. */
  DEFAULT(0),
  /** 32-bit floats. */
  F32(1),
  /** 16-bit floats. */
  F16(2),
  /** 16-bit floats with the range of 32-bit ones. */
  BF16(3),
  /** 8 bits in groups of 32 with one half-precision scale. */
  Q8(4),
  /** 4 bits in groups of 32 with one half-precision scale. */
  Q4(5),
  /** One that a later library knows; no argument. */
  UNKNOWN(-1);

  final int number;

  NumberType(int number) {
    this.number = number;
  }

  static NumberType of(int number) {
    for (NumberType one : values())
      if (one.number == number) return one;
    return UNKNOWN;
  }
}
