// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** A progress function asked to stop, or the calling thread was interrupted; it still is. */
public final class CancelledException extends WkvException {
  private static final long serialVersionUID = 1;

  CancelledException(String message) {
    super(-8, message);
  }
}
