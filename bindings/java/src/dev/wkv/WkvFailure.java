// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import dev.wkv.internal.WkvNative;

/**
 * What all failures have in common: the library's number and its line of text. Wrong use is one of Java's own
 * exceptions:
 * {@link InvalidArgumentException} is an IllegalArgumentException, {@link ClosedException} and {@link BusyException}
 * are IllegalStateExceptions. Everything else that goes wrong is a {@link WkvException}. After a failure objects are as
 * before the call, unless the method says otherwise.
 */
public interface WkvFailure {
  /**
   * The number of the status, as in wkv/status.h.
   *
   * @return a negative number
   */
  int code();

  /**
   * The text.
   *
   * @return one line
   */
  String getMessage();

  /**
   * The name of the status.
   *
   * @return such as "WKV_INVALID"
   */
  default String codeName() {
    return WkvNative.status_name(code());
  }
}
