// SPDX-License-Identifier: Apache-2.0
// Where things lie in a blob: README.md in numbers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/checked.h"
#include "state/blob.h"

namespace libwkv::blob_layout {

// The third byte pair is a line end: whatever "repairs" line ends in text damages it.
inline constexpr std::array<uint8_t, 8> magic{0x89, 'W', 'K', 'V', '\r', '\n', 0x1a, '\n'};
inline constexpr uint32_t byte_order = 0x01020304, other_byte_order = 0x04030201;
inline constexpr size_t version_end = 16;  // magic, byte order and version lie before it, in every version
inline constexpr size_t fields_bytes = 160, entry_bytes = 32, checksum_bytes = 8;
inline constexpr size_t sections_max = (blob_header_bytes_max - fields_bytes - checksum_bytes) / entry_bytes;
inline constexpr uint64_t alignment = 64;  // of sections
inline constexpr uint32_t may_be_skipped = 1;
// Of what is neither state nor scores: far above what is ever written, and no danger to a reader.
inline constexpr uint64_t raw_bytes_max = uint64_t{256} << 20;

// Copied, checked and hashed at once: it stays in the first cache.
inline constexpr size_t block_bytes = 8192;

inline size_t header_bytes(size_t sections) { return fields_bytes + sections * entry_bytes + checksum_bytes; }
inline uint64_t aligned(uint64_t offset) {
  return checked_add(offset, alignment - 1, "offset of a section") / alignment * alignment;
}
inline size_t number_bytes(wkv_type type) { return type == WKV_TYPE_F16 ? 2 : 4; }

inline uint64_t state_numbers(const ModelIdentity &model) {
  const char *what = "numbers of the state";
  const uint64_t width = static_cast<uint64_t>(model.width), head_size = static_cast<uint64_t>(model.head_size);
  const uint64_t layer = checked_add(2 * width, checked_multiply(width, head_size, what), what);
  return checked_multiply(static_cast<uint64_t>(model.layers), layer, what);
}

}  // namespace libwkv::blob_layout
