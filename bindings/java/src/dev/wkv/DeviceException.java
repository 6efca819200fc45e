// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** The device failed; what it held may be lost. */
public final class DeviceException extends WkvException {
  private static final long serialVersionUID = 1;

  DeviceException(String message) {
    super(-10, message);
  }
}
