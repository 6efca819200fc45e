// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** A call failed, and not for its arguments: see the subclasses, and {@link WkvFailure} for wrong use. */
public class WkvException extends RuntimeException implements WkvFailure {
  private static final long serialVersionUID = 1;
  /** Of the status. */
  private final int code;

  WkvException(int code, String message) {
    super(message);
    this.code = code;
  }

  @Override
  public int code() {
    return code;
  }
}
