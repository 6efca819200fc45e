// SPDX-License-Identifier: Apache-2.0
// Storage types to float and back. The loops have no branches, so that the compiler vectorises them.
#include "formats/blocks.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/float_types.h"
#include "formats/bytes.h"

namespace libwkv::formats {

namespace {

constexpr int64_t quant_block = 32;

float half_at(const std::byte *bytes) { return float_from_f16(load<uint16_t>(bytes)); }
uint32_t byte_at(const std::byte *bytes, int i) { return static_cast<uint32_t>(bytes[i]); }

// a where the condition holds, else b, by bits: with ?: the compiler branches around floating-point arithmetic, which
// costs a factor of 8.
inline uint32_t select(bool condition, uint32_t a, uint32_t b) {
  uint32_t mask = 0u - static_cast<uint32_t>(condition);
  return (a & mask) | (b & ~mask);
}

// As float_from_f16.
inline float widen_f16(uint32_t half) {
  uint32_t magnitude = half & 0x7fffu, sign = (half & 0x8000u) << 16;
  uint32_t normal = (magnitude << 13) + 0x38000000u;
  normal |= select(magnitude >= 0x7c00u, 0x7f800000u, 0);
  uint32_t subnormal = std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
  return std::bit_cast<float>(sign | select(magnitude < 0x400u, subnormal, normal));
}

// As f16_from_float.
inline uint16_t narrow_f16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  normal = select(magnitude >= 0x477ff000u, 0x7c00u, normal);
  normal = select(magnitude > 0x7f800000u, 0x7e00u, normal);
  // The adder rounds: 0.5 moves the last bit kept to the end of the mantissa.
  uint32_t small = select(magnitude < 0x38800000u, magnitude, 0);
  uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(small) + 0.5f) - 0x3f000000u;
  return static_cast<uint16_t>(sign | select(magnitude < 0x38800000u, subnormal, normal));
}

inline uint16_t narrow_bf16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded);
}

void decode_q8_0(const std::byte *block, float *out) {
  float d = half_at(block);
  for (int i = 0; i < 32; i++) out[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
}

void decode_q4_0(const std::byte *block, float *out) {
  float d = half_at(block);
  for (int i = 0; i < 16; i++) {
    uint32_t q = byte_at(block, 2 + i);
    out[i] = static_cast<float>(static_cast<int32_t>(q & 15) - 8) * d;
    out[i + 16] = static_cast<float>(static_cast<int32_t>(q >> 4) - 8) * d;
  }
}

void decode_q4_1(const std::byte *block, float *out) {
  float d = half_at(block), m = half_at(block + 2);
  for (int i = 0; i < 16; i++) {
    uint32_t q = byte_at(block, 4 + i);
    out[i] = static_cast<float>(static_cast<int32_t>(q & 15)) * d + m;
    out[i + 16] = static_cast<float>(static_cast<int32_t>(q >> 4)) * d + m;
  }
}

// The fifth bits of 32 values are one word.
void decode_q5(const std::byte *quants, uint32_t high, float d, float m, int32_t zero, float *out) {
  for (uint32_t i = 0; i < 16; i++) {
    uint32_t q = static_cast<uint32_t>(quants[i]);
    uint32_t low_value = (q & 15) | ((high >> i) & 1) << 4, high_value = q >> 4 | ((high >> (i + 16)) & 1) << 4;
    out[i] = static_cast<float>(static_cast<int32_t>(low_value) - zero) * d + m;
    out[i + 16] = static_cast<float>(static_cast<int32_t>(high_value) - zero) * d + m;
  }
}

void decode_q5_0(const std::byte *block, float *out) {
  float d = half_at(block);
  // -0 as offset: keeps the sign of a zero, as no offset would
  decode_q5(block + 6, load<uint32_t>(block + 2), d, -0.0f, 16, out);
}

void decode_q5_1(const std::byte *block, float *out) {
  decode_q5(block + 8, load<uint32_t>(block + 4), half_at(block), half_at(block + 2), 0, out);
}

// 6-bit scale and minimum of sub-block j of 8, packed in 12 bytes.
void scale_and_minimum(const std::byte *s, int j, uint32_t &scale, uint32_t &minimum) {
  if (j < 4) {
    scale = byte_at(s, j) & 63;
    minimum = byte_at(s, j + 4) & 63;
  } else {
    scale = (byte_at(s, j + 4) & 15) | byte_at(s, j - 4) >> 6 << 4;
    minimum = byte_at(s, j + 4) >> 4 | byte_at(s, j) >> 6 << 4;
  }
}

// has_fifth: Q5_K, whose 32 bytes of fifth bits (bit j of byte i: value i of sub-block j) come before the nibbles.
template <bool has_fifth>
void decode_q45_k(const std::byte *block, float *out) {
  float d = half_at(block), dmin = half_at(block + 2);
  const std::byte *scales = block + 4, *high = block + 16, *quants = has_fifth ? block + 48 : block + 16;
  for (int j = 0; j < 8; j++) {
    uint32_t scale, minimum;
    scale_and_minimum(scales, j, scale, minimum);
    float step = d * static_cast<float>(scale), offset = dmin * static_cast<float>(minimum);
    const std::byte *q = quants + 32 * (j / 2);
    int shift = 4 * (j % 2);
    for (int i = 0; i < 32; i++) {
      uint32_t value = (byte_at(q, i) >> shift) & 15;
      if (has_fifth) value |= ((byte_at(high, i) >> j) & 1) << 4;
      out[32 * j + i] = step * static_cast<float>(static_cast<int32_t>(value)) - offset;
    }
  }
}

void decode_q6_k(const std::byte *block, float *out) {
  float d = half_at(block + 208);
  for (int half = 0; half < 2; half++) {
    const std::byte *low = block + 64 * half, *high = block + 128 + 32 * half, *scales = block + 192 + 8 * half;
    for (int part = 0; part < 4; part++) {
      // parts 0 and 1 are the low nibbles of the two runs of 32 bytes, 2 and 3 the high ones
      const std::byte *nibbles = low + 32 * (part % 2);
      int shift = 4 * (part / 2);
      for (int side = 0; side < 2; side++) {
        float step = d * static_cast<float>(static_cast<int8_t>(scales[2 * part + side]));
        for (int i = 16 * side; i < 16 * side + 16; i++) {
          uint32_t value = ((byte_at(nibbles, i) >> shift) & 15) | ((byte_at(high, i) >> (2 * part)) & 3) << 4;
          out[128 * half + 32 * part + i] = step * static_cast<float>(static_cast<int32_t>(value) - 32);
        }
      }
    }
  }
}

template <class Function>
void for_blocks(const std::byte *bytes, int64_t values, StoredType type, float *out, Function &&function) {
  int64_t count = block_values(type);
  size_t size = block_bytes(type);
  for (int64_t i = 0; i < values; i += count, bytes += size) function(bytes, out + i);
}

// To the nearest integer, ties to even, for |value| < 2^22: adding 1.5 * 2^23 leaves no bits behind the point.
inline uint32_t nearest(float value) { return std::bit_cast<uint32_t>(value + 0x1.8p23f) - 0x4b400000u; }

// The largest magnitude of a block, as bits: these order like the numbers, and integers are compared in vectors.
uint32_t largest_magnitude(const float *in) {
  int32_t largest = 0;
  for (int i = 0; i < 32; i++) largest = std::max(largest, std::bit_cast<int32_t>(in[i]) & 0x7fffffff);
  return static_cast<uint32_t>(largest);
}

void encode_q8_0(const float *in, std::byte *block) {
  float d = std::bit_cast<float>(largest_magnitude(in)) / 127, divisor = d != 0 ? d : 1;
  uint16_t scale = f16_from_float(d);
  std::memcpy(block, &scale, 2);
  // a value that is not finite becomes some byte
  for (int i = 0; i < 32; i++) block[2 + i] = static_cast<std::byte>(nearest(in[i] / divisor) & 0xff);
}

void encode_q4_0(const float *in, std::byte *block) {
  uint32_t largest = largest_magnitude(in), extreme = 0;
  for (int i = 31; i >= 0; i--) {  // downwards: the first of several stays
    uint32_t bits = std::bit_cast<uint32_t>(in[i]);
    extreme = select((bits & 0x7fffffffu) == largest, bits, extreme);
  }
  float d = std::bit_cast<float>(extreme) / -8, divisor = d != 0 ? d : 1;
  uint16_t scale = f16_from_float(d);
  std::memcpy(block, &scale, 2);
  uint32_t quants[32];
  for (int i = 0; i < 32; i++) {
    float q = in[i] / divisor + 8.5f;  // and cut, as GGUF's writers do: ties go up
    q = q >= 0 ? q : 0;                // also what is not a number
    quants[i] = static_cast<uint32_t>(static_cast<int32_t>(std::min(q, 15.0f)));
  }
  for (int i = 0; i < 16; i++) block[2 + i] = static_cast<std::byte>(quants[i] | quants[i + 16] << 4);
}

}  // namespace

void decode(StoredType type, const std::byte *bytes, int64_t values, float *out) {
  switch (type) {
    case StoredType::f32:
      std::memcpy(out, bytes, static_cast<size_t>(values) * 4);
      return;
    case StoredType::f16:
      for (int64_t i = 0; i < values; i++) out[i] = widen_f16(load<uint16_t>(bytes + 2 * i));
      return;
    case StoredType::bf16:
      for (int64_t i = 0; i < values; i++) out[i] = float_from_bf16(load<uint16_t>(bytes + 2 * i));
      return;
    case StoredType::q8_0:
      return for_blocks(bytes, values, type, out, decode_q8_0);
    case StoredType::q4_0:
      return for_blocks(bytes, values, type, out, decode_q4_0);
    case StoredType::q4_1:
      return for_blocks(bytes, values, type, out, decode_q4_1);
    case StoredType::q5_0:
      return for_blocks(bytes, values, type, out, decode_q5_0);
    case StoredType::q5_1:
      return for_blocks(bytes, values, type, out, decode_q5_1);
    case StoredType::q4_k:
      return for_blocks(bytes, values, type, out, decode_q45_k<false>);
    case StoredType::q5_k:
      return for_blocks(bytes, values, type, out, decode_q45_k<true>);
    case StoredType::q6_k:
      return for_blocks(bytes, values, type, out, decode_q6_k);
  }
}

void decode_row(const Tensor &tensor, int64_t row, float *out) {
  int64_t values = tensor.rank == 2 ? tensor.shape[1] : tensor.shape[0];
  int64_t stride = tensor.rank == 2 ? tensor.strides[1] : tensor.strides[0];
  int64_t first = tensor.rank == 2 ? row * tensor.strides[0] : 0;
  size_t size = block_bytes(tensor.type);
  const std::byte *bytes = tensor.bytes.data() + static_cast<size_t>(first / block_values(tensor.type)) * size;
  if (stride == 1) return decode(tensor.type, bytes, values, out);
  size_t step = static_cast<size_t>(stride) * size;
  switch (tensor.type) {
    case StoredType::f16:
      for (int64_t i = 0; i < values; i++, bytes += step) out[i] = float_from_f16(load<uint16_t>(bytes));
      return;
    case StoredType::bf16:
      for (int64_t i = 0; i < values; i++, bytes += step) out[i] = float_from_bf16(load<uint16_t>(bytes));
      return;
    default:  // quantised tensors are contiguous
      for (int64_t i = 0; i < values; i++, bytes += step) std::memcpy(out + i, bytes, 4);
  }
}

void encode(StoredType type, const float *in, int64_t values, std::byte *out) {
  switch (type) {
    case StoredType::f32:
      std::memcpy(out, in, static_cast<size_t>(values) * 4);
      return;
    case StoredType::f16:
      for (int64_t i = 0; i < values; i++) {
        uint16_t half = narrow_f16(in[i]);
        std::memcpy(out + 2 * i, &half, 2);
      }
      return;
    case StoredType::bf16:
      for (int64_t i = 0; i < values; i++) {
        uint16_t half = narrow_bf16(in[i]);
        std::memcpy(out + 2 * i, &half, 2);
      }
      return;
    case StoredType::q8_0:
      for (int64_t i = 0; i < values; i += quant_block) encode_q8_0(in + i, out + i / quant_block * 34);
      return;
    case StoredType::q4_0:
      for (int64_t i = 0; i < values; i += quant_block) encode_q4_0(in + i, out + i / quant_block * 18);
      return;
    default:
      fail(WKV_UNSUPPORTED, "numbers are not written as %s", name_of(type));
  }
}

}  // namespace libwkv::formats
