// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** How other engines lay a whole state out in 32-bit floats. */
public enum StateLayout {
  /** The list of the rwkv package, item after item. */
  OFFICIAL(0),
  /** flash-linear-attention. */
  FLA(1),
  /** The buffer of rwkv.cpp. */
  RWKV_CPP(2),
  /** The two tensors of llama.cpp, all layers each. */
  LLAMA_CPP(3);

  final int number;

  StateLayout(int number) {
    this.number = number;
  }
}
