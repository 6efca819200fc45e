// SPDX-License-Identifier: Apache-2.0
// The storage types once more, in plain double arithmetic straight from their definitions: what the library's decoder
// is compared with. One value at a time, nothing shared with it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "formats/checkpoint.h"

namespace libwkv::tests {

// Rounds to `digits` significant bits, ties to even, steps no finer than 2^finest.
inline double rounded_to(double value, int digits, int finest) {
  if (value == 0 || !std::isfinite(value)) return value;
  int exponent;
  std::frexp(value, &exponent);
  int step = std::max(exponent - digits, finest);
  return std::ldexp(std::nearbyint(std::ldexp(value, -step)), step);
}

class PlainBlocks {
 public:
  PlainBlocks(formats::StoredType type, const std::byte *bytes) : type_(type), bytes_(bytes) {}

  double value(size_t index) const {
    size_t count = static_cast<size_t>(formats::block_values(type_)), i = index % count;
    const std::byte *b = bytes_ + index / count * formats::block_bytes(type_);
    using enum formats::StoredType;
    switch (type_) {
      case q8_0:
        return half(b) * signed_byte(b, 2 + i);
      case q4_0:
        return half(b) * (nibble(b + 2, i) - 8);
      case q4_1:
        return half(b) * nibble(b + 4, i) + half(b + 2);
      case q5_0:
        return half(b) * (nibble(b + 6, i) + 16 * bit(b + 2, i) - 16);
      case q5_1:
        return half(b) * (nibble(b + 8, i) + 16 * bit(b + 4, i)) + half(b + 2);
      case q4_k:
        return k_value(b, i, k_nibble(b + 16, i));
      case q5_k:
        return k_value(b, i, k_nibble(b + 48, i) + 16 * (byte(b, 16 + i % 32) >> (i / 32) & 1));
      case q6_k:
        return q6_value(b, i);
      default:
        throw std::logic_error("not a quantised type");
    }
  }

 private:
  static int byte(const std::byte *b, size_t i) { return static_cast<int>(b[i]); }
  static int signed_byte(const std::byte *b, size_t i) { return byte(b, i) < 128 ? byte(b, i) : byte(b, i) - 256; }
  static int nibble(const std::byte *qs, size_t i) { return i < 16 ? byte(qs, i) % 16 : byte(qs, i - 16) / 16; }
  static int bit(const std::byte *word, size_t i) { return byte(word, i / 8) >> (i % 8) & 1; }
  static double half(const std::byte *b) {
    int bits = byte(b, 0) + 256 * byte(b, 1), exponent = bits / 1024 % 32, mantissa = bits % 1024;
    double value = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
    return bits & 0x8000 ? -value : value;
  }
  static int k_nibble(const std::byte *qs, size_t i) {
    size_t part = i / 32;
    int q = byte(qs, 32 * (part / 2) + i % 32);
    return part % 2 ? q / 16 : q % 16;
  }
  static double k_value(const std::byte *b, size_t i, int q) {
    size_t j = i / 32;
    const std::byte *s = b + 4;
    int scale = j < 4 ? byte(s, j) % 64 : byte(s, j + 4) % 16 + byte(s, j - 4) / 64 * 16;
    int minimum = j < 4 ? byte(s, j + 4) % 64 : byte(s, j + 4) / 16 + byte(s, j) / 64 * 16;
    return half(b) * scale * q - half(b + 2) * minimum;
  }
  static double q6_value(const std::byte *b, size_t i) {
    size_t half_index = i / 128, within = i % 128, part = within / 32, l = within % 32;
    int ql = byte(b, 64 * half_index + l + (part % 2 ? 32 : 0)), qh = byte(b, 128 + 32 * half_index + l);
    int low = part < 2 ? ql % 16 : ql / 16, high = qh >> (2 * part) & 3;
    return half(b + 208) * signed_byte(b, 192 + 8 * half_index + 2 * part + l / 16) * (low + 16 * high - 32);
  }

  formats::StoredType type_;
  const std::byte *bytes_;
};

inline std::vector<double> plain_decode(formats::StoredType type, const std::byte *bytes, int64_t values) {
  PlainBlocks blocks(type, bytes);
  std::vector<double> out(static_cast<size_t>(values));
  for (size_t i = 0; i < out.size(); i++) out[i] = blocks.value(i);
  return out;
}

}  // namespace libwkv::tests
