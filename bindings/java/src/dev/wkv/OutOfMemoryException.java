// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** Memory is gone, or a memory limit was reached. */
public final class OutOfMemoryException extends WkvException {
  private static final long serialVersionUID = 1;

  OutOfMemoryException(String message) {
    super(-6, message);
  }
}
