// SPDX-License-Identifier: Apache-2.0
// Reading little-endian fields and text of files that may be damaged.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace libwkv::formats {

static_assert(std::endian::native == std::endian::little, "files are mapped as they are: little endian");

template <class T>
T load(const std::byte *bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// A cursor that never passes the end: WKV_FORMAT naming the file instead.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, const std::string &name, size_t position = 0)
      : bytes_(bytes), name_(name), position_(position) {}

  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }

  std::span<const std::byte> take(uint64_t count, const char *what) {
    if (count > left())
      fail(WKV_FORMAT, "%s: %s of %llu bytes at byte %zu passes the end of the file", name_.c_str(), what,
           static_cast<unsigned long long>(count), position_);
    std::span<const std::byte> part = bytes_.subspan(position_, static_cast<size_t>(count));
    position_ += static_cast<size_t>(count);
    return part;
  }
  template <class T>
  T read(const char *what) {
    return load<T>(take(sizeof(T), what).data());
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string &name_;
  size_t position_;
};

inline std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

// Text from a file as it may stand in a message: ASCII, not long.
std::string printable(std::string_view text);

// Strict: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);
// Appends a code point, which is not a surrogate and at most 0x10ffff.
void append_utf8(std::string &out, uint32_t code_point);

}  // namespace libwkv::formats
