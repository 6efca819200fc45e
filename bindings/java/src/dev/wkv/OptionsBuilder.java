// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** What builders of options share: build() keeps a copy, so that a builder can be used again. */
abstract class OptionsBuilder implements Cloneable {
  OptionsBuilder copy() {
    try {
      return (OptionsBuilder) clone();
    } catch (CloneNotSupportedException impossible) {
      throw new AssertionError(impossible);
    }
  }
}
