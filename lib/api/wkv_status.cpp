// SPDX-License-Identifier: Apache-2.0
// The C entries of status.h and version.h.
#include <wkv/status.h>
#include <wkv/version.h>

extern "C" {

const char *wkv_status_name(wkv_status status) {
  switch (status) {
    case WKV_OK:
      return "WKV_OK";
    case WKV_END:
      return "WKV_END";
    case WKV_INVALID:
      return "WKV_INVALID";
    case WKV_NOT_FOUND:
      return "WKV_NOT_FOUND";
    case WKV_IO:
      return "WKV_IO";
    case WKV_FORMAT:
      return "WKV_FORMAT";
    case WKV_UNSUPPORTED:
      return "WKV_UNSUPPORTED";
    case WKV_OUT_OF_MEMORY:
      return "WKV_OUT_OF_MEMORY";
    case WKV_BUSY:
      return "WKV_BUSY";
    case WKV_CANCELLED:
      return "WKV_CANCELLED";
    case WKV_MISMATCH:
      return "WKV_MISMATCH";
    case WKV_DEVICE:
      return "WKV_DEVICE";
    case WKV_INTERNAL:
      return "WKV_INTERNAL";
    default:
      return "WKV_STATUS_UNKNOWN";
  }
}

const char *wkv_version(void) { return WKV_VERSION_STRING; }

uint32_t wkv_abi_version(void) { return WKV_ABI_VERSION; }

}  // extern "C"
