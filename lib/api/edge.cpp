// SPDX-License-Identifier: Apache-2.0
#include "api/edge.h"

namespace libwkv::api {

void report(wkv_error *error, wkv_status status, const char *message) noexcept {
  if (!error) return;
  error->status = status;
  write_text(error->message, message);
}

void check_struct(const void *structure, uint32_t struct_size, size_t known, const char *what) {
  if (struct_size < known) fail(WKV_INVALID, "%s.struct_size is %u, expected at least %zu", what, struct_size, known);
  const unsigned char *bytes = static_cast<const unsigned char *>(structure);
  for (size_t i = known; i < struct_size; i++)
    if (bytes[i]) fail(WKV_UNSUPPORTED, "%s has a field at byte %zu that this version does not know", what, i);
}

}  // namespace libwkv::api
