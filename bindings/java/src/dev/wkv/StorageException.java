// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** The operating system refused to read or write. */
public final class StorageException extends WkvException {
  private static final long serialVersionUID = 1;

  StorageException(String message) {
    super(-3, message);
  }
}
