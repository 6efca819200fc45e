// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** The object was closed before. */
public final class ClosedException extends IllegalStateException implements WkvFailure {
  private static final long serialVersionUID = 1;

  ClosedException(String name) {
    super("this " + name + " is closed");
  }

  @Override
  public int code() {
    return -1;
  }
}
