// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** The bytes are damaged or not what they claim to be. */
public final class FormatException extends WkvException {
  private static final long serialVersionUID = 1;

  FormatException(String message) {
    super(-4, message);
  }
}
