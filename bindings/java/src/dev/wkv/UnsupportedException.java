// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** Understood, but this library cannot do it. */
public final class UnsupportedException extends WkvException {
  private static final long serialVersionUID = 1;

  UnsupportedException(String message) {
    super(-5, message);
  }
}
