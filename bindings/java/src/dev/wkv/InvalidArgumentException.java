// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** An argument is wrong. */
public final class InvalidArgumentException extends IllegalArgumentException implements WkvFailure {
  private static final long serialVersionUID = 1;

  InvalidArgumentException(String message) {
    super(message);
  }

  @Override
  public int code() {
    return -1;
  }
}
