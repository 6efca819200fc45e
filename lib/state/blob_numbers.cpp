// SPDX-License-Identifier: Apache-2.0
// Loops without branches on integers, which compilers turn into vector instructions of the oldest processors too.
#include "state/blob_numbers.h"

#include <bit>
#include <cstdint>
#include <cstring>

namespace libwkv {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie in memory");

template <class Number>
Number load(const std::byte *from, size_t index) {
  Number number;
  std::memcpy(&number, from + index * sizeof number, sizeof number);
  return number;
}
template <class Number>
void store(std::byte *to, size_t index, Number number) {
  std::memcpy(to + index * sizeof number, &number, sizeof number);
}

// The top bit is set for infinities and what is not a number: only there all bits of the exponent are ones.
uint32_t f32_overflow(uint32_t bits) { return (bits & 0x7fffffffu) + 0x00800000u; }
uint32_t f16_overflow(uint32_t bits) { return (bits & 0x7fffu) + 0x0400u; }

}  // namespace

bool copy_f32(std::byte *__restrict to, const std::byte *__restrict from, size_t count) noexcept {
  uint32_t seen = 0;
  for (size_t i = 0; i < count; i++) {
    const uint32_t bits = load<uint32_t>(from, i);
    store(to, i, bits);
    seen |= f32_overflow(bits);
  }
  return seen >> 31 == 0;
}

bool is_finite_f32(const std::byte *numbers, size_t count) noexcept {
  uint32_t seen = 0;
  for (size_t i = 0; i < count; i++) seen |= f32_overflow(load<uint32_t>(numbers, i));
  return seen >> 31 == 0;
}

// Rounds to nearest, ties to even, as f16_from_float does.
bool f32_to_f16(std::byte *__restrict to, const std::byte *__restrict from, size_t count) noexcept {
  uint32_t seen = 0;
  for (size_t i = 0; i < count; i++) {
    const uint32_t bits = load<uint32_t>(from, i), magnitude = bits & 0x7fffffffu;
    seen |= magnitude + (0x80000000u - 0x477ff000u);  // from 65520 on it would become infinite
    // A subnormal result: adding 0.5 aligns the mantissa so that the adder rounds. Larger magnitudes are kept out of
    // it, so that the sum stays in range.
    const bool is_small = magnitude < 0x38800000u;
    const float aligned = std::bit_cast<float>(is_small ? magnitude : 0u) + 0.5f;
    const uint32_t small = std::bit_cast<uint32_t>(aligned) - 0x3f000000u;
    const uint32_t large = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
    store(to, i, static_cast<uint16_t>((bits >> 16 & 0x8000u) | (is_small ? small : large)));
  }
  return seen >> 31 == 0;
}

bool f16_to_f32(std::byte *__restrict to, const std::byte *__restrict from, size_t count) noexcept {
  uint32_t seen = 0;
  for (size_t i = 0; i < count; i++) {
    const uint32_t bits = load<uint16_t>(from, i), magnitude = bits & 0x7fffu;
    seen |= f16_overflow(bits);
    // zero and subnormals: mantissa * 2^-24 is exact
    const uint32_t small = std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(bits & 0x3ffu)) * 0x1p-24f);
    const uint32_t large = (magnitude << 13) + 0x38000000u;
    store(to, i, (bits & 0x8000u) << 16 | (magnitude < 0x0400u ? small : large));
  }
  return (seen & 0x8000u) == 0;
}

}  // namespace libwkv
