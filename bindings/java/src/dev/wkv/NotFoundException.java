// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** No such file, device, kernel set or entry. */
public final class NotFoundException extends WkvException {
  private static final long serialVersionUID = 1;

  NotFoundException(String message) {
    super(-2, message);
  }
}
