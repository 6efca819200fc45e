// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.nio.charset.StandardCharsets;

/** What native code calls: nothing but failures and the progress of long calls. */
final class Callbacks {
  private Callbacks() {}

  /** The exception for a status. */
  static RuntimeException failure(int code, byte[] text) {
    String message = new String(text, StandardCharsets.UTF_8);
    return switch (code) {
      case -1 -> new InvalidArgumentException(message);
      case -2 -> new NotFoundException(message);
      case -3 -> new StorageException(message);
      case -4 -> new FormatException(message);
      case -5 -> new UnsupportedException(message);
      case -6 -> new OutOfMemoryException(message);
      case -7 -> new BusyException(message);
      case -8 -> new CancelledException(message);
      case -9 -> new MismatchException(message);
      case -10 -> new DeviceException(message);
      case -11 -> new InternalException(message);
      default -> new WkvException(code, message); // of a later library
    };
  }

  /** True cancels. */
  static boolean report(Object progress, long done, long total) {
    return Thread.currentThread().isInterrupted() || progress != null && ((Progress) progress).report(done, total);
  }
}
