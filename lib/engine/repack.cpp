// SPDX-License-Identifier: Apache-2.0
#include "engine/repack.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/float_types.h"
#include "formats/blocks.h"

namespace libwkv {

using formats::StoredType;
using kernels::Format;

namespace {

constexpr int64_t block = kernels::block;

// The affine block of 4 bits that holds a Q4_1 block, or one of the eight sub-blocks of Q4_K: see kernels/table.h.
struct AffineBlock4 {
  float scale, offset;
  uint8_t nibbles[16];
};
struct AffineBlock8 {
  float scale[2], offset;
  int8_t values[32];
};
static_assert(sizeof(AffineBlock4) == 24 && sizeof(AffineBlock8) == 44);

float load_half(const std::byte *bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return float_from_f16(bits);
}

uint32_t load_u32(const std::byte *bytes) {
  uint32_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

unsigned byte_at(const std::byte *bytes, int64_t i) { return std::to_integer<unsigned>(bytes[i]); }

// The 6-bit scale and minimum of sub-block j of a K-quantised block of 256.
void k_scales(const std::byte *packed, int64_t j, float &scale, float &minimum) {
  unsigned s, m;
  if (j < 4) {
    s = byte_at(packed, j) & 63u;
    m = byte_at(packed, j + 4) & 63u;
  } else {
    s = (byte_at(packed, j + 4) & 15u) | (byte_at(packed, j - 4) >> 6) << 4;
    m = byte_at(packed, j + 4) >> 4 | (byte_at(packed, j) >> 6) << 4;
  }
  scale = static_cast<float>(s);
  minimum = static_cast<float>(m);
}

void pack_q4_1(const std::byte *in, int64_t inputs, std::byte *out) {
  for (int64_t b = 0; b < inputs / block; b++, in += 20, out += sizeof(AffineBlock4)) {
    AffineBlock4 affine{load_half(in), load_half(in + 2), {}};
    std::memcpy(affine.nibbles, in + 4, 16);
    std::memcpy(out, &affine, sizeof affine);
  }
}

void pack_q4_k(const std::byte *in, int64_t inputs, std::byte *out) {
  for (int64_t super = 0; super < inputs / 256; super++, in += 144) {
    float d = load_half(in), d_min = load_half(in + 2);
    for (int64_t j = 0; j < 8; j++, out += sizeof(AffineBlock4)) {
      float scale, minimum;
      k_scales(in + 4, j, scale, minimum);
      AffineBlock4 affine{d * scale, -(d_min * minimum), {}};
      const std::byte *q = in + 16 + 32 * (j / 2);
      for (int64_t i = 0; i < 16; i++) {
        unsigned low = byte_at(q, i), high = byte_at(q, i + 16);
        affine.nibbles[i] = static_cast<uint8_t>(j % 2 ? low >> 4 | (high & 0xf0u) : (low & 15u) | (high & 15u) << 4);
      }
      std::memcpy(out, &affine, sizeof affine);
    }
  }
}

void pack_q5(const std::byte *in, int64_t inputs, bool has_minimum, std::byte *out) {
  int64_t head = has_minimum ? 4 : 2;
  for (int64_t b = 0; b < inputs / block; b++, in += head + 20, out += sizeof(AffineBlock8)) {
    float d = load_half(in);
    AffineBlock8 affine{{d, d}, has_minimum ? load_half(in + 2) : 0.0f, {}};
    uint32_t high = load_u32(in + head);
    const std::byte *q = in + head + 4;
    for (int64_t i = 0; i < 32; i++) {
      unsigned low = i < 16 ? byte_at(q, i) & 15u : byte_at(q, i - 16) >> 4;
      affine.values[i] = static_cast<int8_t>(static_cast<int>(low | (high >> i & 1u) << 4) - (has_minimum ? 0 : 16));
    }
    std::memcpy(out, &affine, sizeof affine);
  }
}

void pack_q5_k(const std::byte *in, int64_t inputs, std::byte *out) {
  for (int64_t super = 0; super < inputs / 256; super++, in += 176) {
    float d = load_half(in), d_min = load_half(in + 2);
    const std::byte *high = in + 16;
    for (int64_t j = 0; j < 8; j++, out += sizeof(AffineBlock8)) {
      float scale, minimum;
      k_scales(in + 4, j, scale, minimum);
      AffineBlock8 affine{{d * scale, d * scale}, -(d_min * minimum), {}};
      const std::byte *q = in + 48 + 32 * (j / 2);
      for (int64_t i = 0; i < 32; i++) {
        unsigned low = j % 2 ? byte_at(q, i) >> 4 : byte_at(q, i) & 15u;
        affine.values[i] = static_cast<int8_t>(low | (byte_at(high, i) >> j & 1u) << 4);
      }
      std::memcpy(out, &affine, sizeof affine);
    }
  }
}

void pack_q6_k(const std::byte *in, int64_t inputs, std::byte *out) {
  for (int64_t super = 0; super < inputs / 256; super++, in += 210) {
    const std::byte *low = in, *high = in + 128, *scales = in + 192;
    float d = load_half(in + 208);
    for (int64_t j = 0; j < 8; j++, out += sizeof(AffineBlock8)) {
      // Sub-block j: part j % 4 of half j / 4, values 32 j .. 32 j + 31.
      int64_t half = j / 4, part = j % 4;
      AffineBlock8 affine{};
      for (int64_t s = 0; s < 2; s++)
        affine.scale[s] = d * static_cast<float>(static_cast<int8_t>(byte_at(scales, 8 * half + 2 * part + s)));
      for (int64_t i = 0; i < 32; i++) {
        unsigned nibbles = byte_at(low, 64 * half + 32 * (part % 2) + i);
        unsigned value = (part < 2 ? nibbles & 15u : nibbles >> 4) | (byte_at(high, 32 * half + i) >> (2 * part) & 3u)
                                                                         << 4;
        affine.values[i] = static_cast<int8_t>(static_cast<int>(value) - 32);
      }
      std::memcpy(out, &affine, sizeof affine);
    }
  }
}

StoredType stored_type(Format format) {
  switch (format) {
    case Format::f32:
      return StoredType::f32;
    case Format::f16:
      return StoredType::f16;
    case Format::bf16:
      return StoredType::bf16;
    case Format::q8:
      return StoredType::q8_0;
    case Format::q4:
      return StoredType::q4_0;
    default:
      fail(WKV_INTERNAL, "no stored type for kernel format %d", static_cast<int>(format));
  }
}

// [rows][count] values to their columns: tiles keep both sides in the first cache.
template <class Value>
void transpose(const std::byte *rows, size_t stride, int64_t begin, int64_t end, int64_t inputs, size_t column_stride,
               std::byte *columns) {
  constexpr int64_t tile = 16;
  for (int64_t i0 = 0; i0 < inputs; i0 += tile) {
    int64_t i1 = std::min(inputs, i0 + tile);
    for (int64_t o = begin; o < end; o++) {
      const std::byte *from = rows + static_cast<size_t>(o - begin) * stride;
      std::byte *to = columns + static_cast<size_t>(o) * sizeof(Value);
      for (int64_t i = i0; i < i1; i++)
        std::memcpy(to + static_cast<size_t>(i) * column_stride, from + static_cast<size_t>(i) * sizeof(Value),
                    sizeof(Value));
    }
  }
}

}  // namespace

Format exact_format(StoredType type) {
  switch (type) {
    case StoredType::f32:
      return Format::f32;
    case StoredType::f16:
      return Format::f16;
    case StoredType::bf16:
      return Format::bf16;
    case StoredType::q8_0:
      return Format::q8;
    case StoredType::q4_0:
      return Format::q4;
    case StoredType::q4_1:
    case StoredType::q4_k:
      return Format::q4_affine;
    case StoredType::q5_0:
    case StoredType::q5_1:
    case StoredType::q5_k:
    case StoredType::q6_k:
      return Format::q8_affine;
  }
  fail(WKV_INTERNAL, "unknown stored type %d", static_cast<int>(type));
}

bool is_same_layout(StoredType type, Format format) {
  return exact_format(type) == format && format != Format::q4_affine && format != Format::q8_affine;
}

size_t row_bytes(Format format, int64_t inputs) {
  size_t n = static_cast<size_t>(inputs);
  switch (format) {
    case Format::f32:
      return n * 4;
    case Format::f16:
    case Format::bf16:
      return n * 2;
    case Format::q8:
      return n / 32 * 34;
    case Format::q4:
      return n / 32 * 18;
    case Format::q4_affine:
      return n / 32 * sizeof(AffineBlock4);
    case Format::q8_affine:
      return n / 32 * sizeof(AffineBlock8);
  }
  return 0;
}

size_t column_bytes(Format format, int64_t outputs) {
  size_t n = static_cast<size_t>(outputs);
  switch (format) {
    case Format::f32:
      return n * 4;
    case Format::f16:
    case Format::bf16:
      return n * 2;
    default:
      return n * row_bytes(format, block);
  }
}

void pack_row(const formats::Tensor &tensor, int64_t row, Format format, float *scratch, std::byte *out) {
  int64_t inputs = tensor.shape[1];
  if (exact_format(tensor.type) == format && tensor.strides[1] == 1) {
    size_t stride =
        formats::block_bytes(tensor.type) * static_cast<size_t>(tensor.strides[0] / formats::block_values(tensor.type));
    const std::byte *in = tensor.bytes.data() + static_cast<size_t>(row) * stride;
    switch (tensor.type) {
      case StoredType::q4_1:
        return pack_q4_1(in, inputs, out);
      case StoredType::q4_k:
        return pack_q4_k(in, inputs, out);
      case StoredType::q5_0:
        return pack_q5(in, inputs, false, out);
      case StoredType::q5_1:
        return pack_q5(in, inputs, true, out);
      case StoredType::q5_k:
        return pack_q5_k(in, inputs, out);
      case StoredType::q6_k:
        return pack_q6_k(in, inputs, out);
      default:
        std::memcpy(out, in, row_bytes(format, inputs));
        return;
    }
  }
  formats::decode_row(tensor, row, scratch);
  formats::encode(stored_type(format), scratch, inputs, out);
}

void rows_to_columns(Format format, const std::byte *rows, int64_t begin, int64_t end, int64_t outputs, int64_t inputs,
                     std::byte *columns) {
  size_t stride = row_bytes(format, inputs);
  if (format == Format::f32)
    return transpose<uint32_t>(rows, stride, begin, end, inputs, column_bytes(format, outputs), columns);
  if (format == Format::f16 || format == Format::bf16)
    return transpose<uint16_t>(rows, stride, begin, end, inputs, column_bytes(format, outputs), columns);

  bool has_nibbles = format == Format::q4 || format == Format::q4_affine;
  size_t block_size = row_bytes(format, block), group_size = column_bytes(format, outputs);
  // Scales come first in a block and in a group: 2-byte or 4-byte items, `items` of them an output.
  size_t item = format == Format::q8 || format == Format::q4 ? 2 : 4;
  size_t items = format == Format::q4_affine ? 2 : format == Format::q8_affine ? 3 : 1;
  size_t values_at = item * items * static_cast<size_t>(outputs);
  for (int64_t g = 0; g < inputs / block; g++) {
    std::byte *group = columns + static_cast<size_t>(g) * group_size;
    for (int64_t o = begin; o < end; o++) {
      const std::byte *in = rows + static_cast<size_t>(o - begin) * stride + static_cast<size_t>(g) * block_size;
      for (size_t s = 0; s < items; s++)
        std::memcpy(group + (s * static_cast<size_t>(outputs) + static_cast<size_t>(o)) * item, in + s * item, item);
      const std::byte *values = in + item * items;
      if (!has_nibbles) {
        for (int64_t i = 0; i < block; i++) group[values_at + static_cast<size_t>(i * outputs + o)] = values[i];
        continue;
      }
      std::byte *place = group + values_at + static_cast<size_t>(o / 64 * 32 + o % 32);
      bool is_high = o % 64 >= 32;  // low halves of a tile come first and set the byte, high halves add to it
      for (int64_t i = 0; i < block; i++) {
        unsigned nibble = i < 16 ? byte_at(values, i) & 15u : byte_at(values, i - 16) >> 4;
        std::byte &target = place[i * outputs / 2];
        target = is_high ? target | std::byte(nibble << 4) : std::byte(nibble);
      }
    }
  }
}

}  // namespace libwkv
