// SPDX-License-Identifier: Apache-2.0
// What blob.h and session.h have in common.
#pragma once

#include <cstddef>
#include <span>

#include <wkv/blob.h>

#include "api/edge.h"
#include "state/blob.h"

namespace libwkv::api {

inline wkv_type read_state_type(const wkv_save_options *options) {
  const wkv_type type = read_options(options, "options").state_type;
  if (type != WKV_TYPE_DEFAULT && type != WKV_TYPE_F32 && type != WKV_TYPE_F16)
    fail(WKV_INVALID, "options.state_type is %d, expected 0, %d (F32) or %d (F16)", type, WKV_TYPE_F32, WKV_TYPE_F16);
  return type == WKV_TYPE_DEFAULT ? WKV_TYPE_F32 : type;
}

inline std::span<const std::byte> read_bytes(const void *bytes, size_t bytes_count) {
  if (bytes_count > 0) needed(bytes, "bytes");
  return {static_cast<const std::byte *>(bytes), bytes_count};
}

// bytes: NULL asks for the size alone.
inline void write_blob(BlobWriter &blob, void *bytes, size_t capacity, size_t *bytes_count) {
  const size_t size = blob.bytes();
  if (bytes) {
    check_room(size, capacity, bytes_count);
    blob.write({static_cast<std::byte *>(bytes), size});
  }
  *bytes_count = size;
}

}  // namespace libwkv::api
