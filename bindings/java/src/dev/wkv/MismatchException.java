// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** Valid, but of another model. */
public final class MismatchException extends WkvException {
  private static final long serialVersionUID = 1;

  MismatchException(String message) {
    super(-9, message);
  }
}
