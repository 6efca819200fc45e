// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** The object is in use by another call. */
public final class BusyException extends IllegalStateException implements WkvFailure {
  private static final long serialVersionUID = 1;

  BusyException(String message) {
    super(message);
  }

  @Override
  public int code() {
    return -7;
  }
}
