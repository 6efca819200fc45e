// SPDX-License-Identifier: Apache-2.0
#include "api/edge.h"

namespace libwkv::api {

void report(wkv_error *error, wkv_status status, const char *message) noexcept {
  if (!error) return;
  error->status = status;
  write_text(error->message, message);
}

void check_struct(const void *structure, uint32_t struct_size, std::span<const size_t> earlier, size_t known,
                  const char *what) {
  if (struct_size < known && std::find(earlier.begin(), earlier.end(), struct_size) == earlier.end())
    fail(WKV_INVALID, "%s.struct_size is %u, expected at least %zu", what, struct_size, known);
  const unsigned char *bytes = static_cast<const unsigned char *>(structure);
  for (size_t i = known; i < struct_size; i++)
    if (bytes[i]) fail(WKV_UNSUPPORTED, "%s has a field at byte %zu that this version does not know", what, i);
}

bool is_query(const void *buffer, size_t capacity, const size_t *count, const char *buffer_name,
              const char *count_name) {
  needed(count, count_name);
  if (!buffer && capacity > 0) fail(WKV_INVALID, "%s is NULL, capacity is %zu", buffer_name, capacity);
  return !buffer;
}

void check_room(size_t needed, size_t capacity, size_t *count) {
  if (needed <= capacity) return;
  *count = needed;
  fail(WKV_INVALID, "capacity is %zu, needed are %zu", capacity, needed);
}

}  // namespace libwkv::api
