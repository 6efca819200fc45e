// SPDX-License-Identifier: Apache-2.0
// Little-endian numbers and texts to bytes, and back with every length checked.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"

namespace libwkv {

namespace byte_stream {

// The value that memory holds in little-endian order, whatever this machine's order is; its own inverse.
template <std::integral Number>
constexpr Number little_endian(Number value) {
  if constexpr (std::endian::native == std::endian::little || sizeof(Number) == 1) {
    return value;
  } else {
    Number turned = 0;
    for (size_t i = 0; i < sizeof(Number); i++)
      turned = static_cast<Number>((turned << 8) | ((value >> (8 * i)) & 0xff));
    return turned;
  }
}

}  // namespace byte_stream

// Appends to its bytes. Throws std::bad_alloc alone.
class ByteWriter {
 public:
  template <std::integral Number>
  void write(Number value) {
    value = byte_stream::little_endian(value);
    append(&value, sizeof value);
  }
  void write(bool) = delete;  // say which integer
  void write(float value) { write(std::bit_cast<uint32_t>(value)); }
  void write(double value) { write(std::bit_cast<uint64_t>(value)); }
  void write_bytes(std::span<const std::byte> bytes) { append(bytes.data(), bytes.size()); }
  void write_zeros(size_t count) { bytes_.resize(bytes_.size() + count); }
  // Length (uint64), then the content.
  void write_text(std::string_view text) {
    write(static_cast<uint64_t>(text.size()));
    append(text.data(), text.size());
  }
  // Count (uint64), then the numbers.
  template <class Number>
  void write_list(std::span<const Number> numbers) {
    write(static_cast<uint64_t>(numbers.size()));
    for (Number number : numbers) write(number);
  }
  template <class Number>
  void write_list(const std::vector<Number> &numbers) {
    write_list(std::span<const Number>(numbers));
  }

  const std::vector<std::byte> &bytes() const { return bytes_; }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  void append(const void *from, size_t count) {
    const std::byte *begin = static_cast<const std::byte *>(from);
    bytes_.insert(bytes_.end(), begin, begin + count);
  }

  std::vector<std::byte> bytes_;
};

// Reads from front to back. Whatever does not fit into what is left is WKV_FORMAT, before any memory is taken for it;
// `what` names the thing that is read in messages and outlives the reader.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, const char *what) : left_(bytes), what_(what) {}

  template <class Number>
  Number read() {
    if constexpr (std::is_same_v<Number, float>) {
      return std::bit_cast<float>(read<uint32_t>());
    } else if constexpr (std::is_same_v<Number, double>) {
      return std::bit_cast<double>(read<uint64_t>());
    } else {
      static_assert(std::integral<Number> && !std::is_same_v<Number, bool>, "say which integer");
      Number value;
      std::memcpy(&value, read_bytes(sizeof value).data(), sizeof value);
      return byte_stream::little_endian(value);
    }
  }
  // A view of the reader's bytes.
  std::span<const std::byte> read_bytes(uint64_t count) {
    if (count > left_.size())
      fail(WKV_FORMAT, "%s ends early: %llu bytes are needed and %zu are left", what_,
           static_cast<unsigned long long>(count), left_.size());
    auto bytes = left_.first(static_cast<size_t>(count));
    left_ = left_.subspan(static_cast<size_t>(count));
    return bytes;
  }
  // A view of the reader's bytes.
  std::string_view read_text() {
    auto bytes = read_bytes(read<uint64_t>());
    return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
  }
  template <class Number>
  std::vector<Number> read_list() {
    uint64_t count = read<uint64_t>();
    if (count > left_.size() / sizeof(Number))
      fail(WKV_FORMAT, "%s holds a list of %llu numbers, and %zu bytes are left", what_,
           static_cast<unsigned long long>(count), left_.size());
    std::vector<Number> numbers(static_cast<size_t>(count));
    for (Number &number : numbers) number = read<Number>();
    return numbers;
  }

  size_t left() const { return left_.size(); }
  const char *what() const { return what_; }
  // Throws when something is left.
  void expect_end() const {
    if (!left_.empty()) fail(WKV_FORMAT, "%s has %zu bytes too many", what_, left_.size());
  }

 private:
  std::span<const std::byte> left_;
  const char *what_;
};

}  // namespace libwkv
