// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** A fault of the library: please report it. */
public final class InternalException extends WkvException {
  private static final long serialVersionUID = 1;

  InternalException(String message) {
    super(-11, message);
  }
}
