// SPDX-License-Identifier: Apache-2.0
// `multiply` of the table for one SIMD struct: products with many tokens, bound by arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../table.h"

namespace libwkv::kernels {

// Shape of the register tile, `rows` tokens x `vectors` * lanes outputs whose sums stay in registers, and of the panel
// below it. x86 has 16 registers of 8 lanes or 32 of 16; Arm 32 of 4.
template <int lanes>
struct MultiplyTile {
  static constexpr int rows = lanes == 16 ? 12 : lanes == 8 ? 6 : 8;
  static constexpr int vectors = 2;
  static constexpr int64_t depth = sum_block;  // inputs
  // Steps that the compiler may mix: with 16 registers a sum would spill, which costs a tenth of the speed.
  static constexpr int unroll = lanes == 8 ? 1 : 4;
};

// The order of loops, outside in: a group of outputs; a block of `depth` inputs, whose weights are unpacked to float32
// and transposed into panels [input][panel outputs] that all tokens share; a block of tokens, whose activations fit the
// second-level cache beside the panels; one panel, which stays in the first-level cache; register tiles of tokens.
// Each block of inputs adds its sums to y.
template <class Isa>
class Multiply {
  using Float = typename Isa::Float;
  static constexpr int lanes = Isa::lanes;
  static constexpr int vectors = MultiplyTile<Isa::lanes>::vectors;
  static constexpr int tile_rows = MultiplyTile<Isa::lanes>::rows;
  static constexpr int unroll = MultiplyTile<Isa::lanes>::unroll;
  static constexpr int64_t panel = vectors * lanes;  // outputs
  static constexpr int64_t depth = MultiplyTile<Isa::lanes>::depth;
  static constexpr int64_t group = 128;        // outputs whose panels are kept at once
  static constexpr int64_t token_block = 512;  // times depth floats: activations in the second-level cache
  static_assert(64 % panel == 0 && group % panel == 0 && depth % block == 0);

 public:
  static size_t scratch_floats() { return static_cast<size_t>(group * depth + tile_rows * panel); }

  static void run(const Matrix *w, int64_t begin, int64_t end, const float *x, int64_t x_stride, int64_t tokens,
                  float *y, int64_t y_stride, float *scratch) {
    for (int64_t first = begin; first < end; first += group) {
      const int64_t last = smaller(first + group, end);
      for (int64_t i = 0; i < w->inputs; i += depth) {
        const int64_t count = smaller(depth, w->inputs - i);
        for (int64_t o = first; o < last; o += panel) pack(*w, o, i, count, scratch + (o - first) * depth);
        for (int64_t t = 0; t < tokens; t += token_block) {
          const int64_t block_tokens = smaller(token_block, tokens - t);
          for (int64_t o = first; o < last; o += panel) {
            multiply_panel(scratch + (o - first) * depth, count, i == 0, x + t * x_stride + i, x_stride, block_tokens,
                           y + t * y_stride + o, y_stride, smaller(panel, last - o), scratch + group * depth);
          }
        }
      }
    }
  }

 private:
  static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

  // ---- arithmetic

  template <int rows>
  static void multiply_tile(const float *weights, int64_t count, bool is_first, const float *x, int64_t x_stride,
                            float *y, int64_t y_stride, const float *next_x) {
    Float sums[rows][vectors];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] = Isa::zero();
    }
    const auto step = [&](const float *line, const float *column) __attribute__((always_inline)) {
      Float w[vectors];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) w[v] = Isa::load(line + v * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        const Float a = Isa::broadcast(column[r * x_stride]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sums[r][v] = Isa::fma(w[v], a, sums[r][v]);
      }
    };
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
      // The next tile's rows are other cache lines that no hardware prefetcher foresees.
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) Isa::prefetch(next_x + r * x_stride + i);
#pragma GCC unroll 1
      for (int64_t j = i; j < i + 16; j += unroll) {
#pragma GCC unroll 4
        for (int k = 0; k < unroll; ++k) step(weights + (j + k) * panel, x + j + k);
      }
    }
#pragma GCC unroll 1
    for (; i < count; ++i) step(weights + i * panel, x + i);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        float *place = y + r * y_stride + v * lanes;
        Isa::store(place, is_first ? sums[r][v] : Isa::add(Isa::load(place), sums[r][v]));
      }
    }
  }

  // The tile of `rows` tokens, found among the compiled sizes.
  template <int rows = tile_rows>
  static void multiply_rows(int64_t count_rows, const float *weights, int64_t count, bool is_first, const float *x,
                            int64_t x_stride, float *y, int64_t y_stride, const float *next_x) {
    if constexpr (rows > 1) {
      if (count_rows < rows) {
        return multiply_rows<rows - 1>(count_rows, weights, count, is_first, x, x_stride, y, y_stride, next_x);
      }
    }
    multiply_tile<rows>(weights, count, is_first, x, x_stride, y, y_stride, next_x);
  }

  // Tiles differ by one row at most: a short last tile would not fill the multipliers.
  static void multiply_panel(const float *weights, int64_t count, bool is_first, const float *x, int64_t x_stride,
                             int64_t tokens, float *y, int64_t y_stride, int64_t outputs, float *edge) {
    const int64_t tiles = (tokens + tile_rows - 1) / tile_rows;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = tile * tokens / tiles, rows = (tile + 1) * tokens / tiles - first;
      const float *tile_x = x + first * x_stride;
      const float *next_x = tile + 1 < tiles ? tile_x + rows * x_stride : tile_x;
      float *tile_y = y + first * y_stride;
      if (outputs == panel) {
        multiply_rows(rows, weights, count, is_first, tile_x, x_stride, tile_y, y_stride, next_x);
        continue;
      }
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t o = 0; o < panel; ++o)
          edge[r * panel + o] = o < outputs && !is_first ? tile_y[r * y_stride + o] : 0;
      }
      multiply_rows(rows, weights, count, is_first, tile_x, x_stride, edge, panel, next_x);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t o = 0; o < outputs; ++o) tile_y[r * y_stride + o] = edge[r * panel + o];
      }
    }
  }

  // ---- weights: inputs [i, i + count) of the panel that begins at output o, to packed[input][panel]. Outputs behind
  // the matrix are packed as something finite or as a copy of the last one; nobody reads their sums.

  static void pack(const Matrix &w, int64_t o, int64_t i, int64_t count, float *packed) {
    const auto *data = static_cast<const std::byte *>(w.data);
    if (w.order == Order::columns) {
      for (int v = 0; v < vectors; ++v) {
        const int64_t first = o + v * lanes;
        const int64_t outputs = first >= w.outputs ? 0 : smaller(lanes, w.outputs - first);
        if (outputs == lanes)
          pack_columns<false>(w, first, outputs, i, count, packed + v * lanes);
        else
          pack_columns<true>(w, outputs > 0 ? first : 0, outputs, i, count, packed + v * lanes);
      }
      return;
    }
    for (int v = 0; v < vectors; ++v) {
      const std::byte *rows[lanes];
      for (int r = 0; r < lanes; ++r) {
        rows[r] = data + static_cast<size_t>(smaller(o + v * lanes + r, w.outputs - 1)) * w.stride;
      }
      float *target = packed + v * lanes;
      switch (w.format) {
        case Format::f32:
          pack_floats<4>(rows, i, count, target, Isa::load_f32, Isa::load_f32_partial);
          break;
        case Format::f16:
          pack_floats<2>(rows, i, count, target, Isa::load_f16, Isa::load_f16_partial);
          break;
        case Format::bf16:
          pack_floats<2>(rows, i, count, target, Isa::load_bf16, Isa::load_bf16_partial);
          break;
        case Format::q8:
          pack_blocks<Format::q8>(rows, i, count, target);
          break;
        case Format::q4:
          pack_blocks<Format::q4>(rows, i, count, target);
          break;
        case Format::q4_affine:
          pack_blocks<Format::q4_affine>(rows, i, count, target);
          break;
        case Format::q8_affine:
          pack_blocks<Format::q8_affine>(rows, i, count, target);
          break;
      }
    }
  }

  template <int size, class Load, class LoadPartial>
  __attribute__((always_inline)) static void pack_floats(const std::byte *const (&rows)[lanes], int64_t i,
                                                         int64_t count, float *target, Load load,
                                                         LoadPartial load_partial) {
    for (int64_t j = 0; j < count; j += lanes) {
      Float square[lanes];
      if (j + lanes <= count) {
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r) square[r] = load(rows[r] + (i + j) * size);
      } else {
        for (int r = 0; r < lanes; ++r) square[r] = load_partial(rows[r] + (i + j) * size, count - j);
      }
      Isa::transpose(square);
#pragma GCC unroll 16
      for (int k = 0; k < lanes; ++k) Isa::store(target + (j + k) * panel, square[k]);
    }
  }

  static constexpr int64_t block_bytes(Format format) {
    return format == Format::q8 ? 34 : format == Format::q4 ? 18 : format == Format::q4_affine ? 24 : 44;
  }

  // One number of each row, widened, in the order of rows.
  template <class At>
  __attribute__((always_inline)) static Float gather(const std::byte *const (&rows)[lanes], int64_t offset, At at) {
    alignas(64) float values[lanes];
    for (int r = 0; r < lanes; ++r) values[r] = at(rows[r] + offset);
    return Isa::load(values);
  }
  static float f32_at(const void *address) {
    float value;
    __builtin_memcpy(&value, address, sizeof value);
    return value;
  }

  // The value of q under scale and offset; one rounding, as the reference does it.
  template <Format format>
  static Float scaled(Float q, Float scale, Float offset) {
    if constexpr (format == Format::q8)
      return Isa::mul(scale, q);
    else if constexpr (format == Format::q4)
      return Isa::mul(scale, Isa::sub(q, Isa::broadcast(8)));
    else
      return Isa::fma(scale, q, offset);
  }

  template <Format format>
  static void pack_blocks(const std::byte *const (&rows)[lanes], int64_t i, int64_t count, float *target) {
    constexpr bool is_nibbles = format == Format::q4 || format == Format::q4_affine;
    constexpr bool is_affine = format == Format::q4_affine || format == Format::q8_affine;
    constexpr int64_t header = format == Format::q8_affine ? 12 : is_affine ? 8 : 2;
    for (int64_t j = 0; j < count; j += block) {
      const int64_t at = (i + j) / block * block_bytes(format);
      Float scale[2], offset = Isa::zero();
      scale[0] = is_affine ? gather(rows, at, f32_at) : gather(rows, at, Isa::f16_at);
      scale[1] = format == Format::q8_affine ? gather(rows, at + 4, f32_at) : scale[0];
      if constexpr (is_affine) offset = gather(rows, at + header - 4, f32_at);
      for (int64_t part = 0; part < block; part += lanes) {
        Float square[lanes];
        if constexpr (!is_nibbles) {
#pragma GCC unroll 16
          for (int r = 0; r < lanes; ++r) square[r] = Isa::load_i8(rows[r] + at + header + part);
        } else if (part < 16) {
#pragma GCC unroll 16
          for (int r = 0; r < lanes; ++r) square[r] = Isa::load_low_nibbles(rows[r] + at + header + part);
        } else {
#pragma GCC unroll 16
          for (int r = 0; r < lanes; ++r) square[r] = Isa::load_high_nibbles(rows[r] + at + header + part - 16);
        }
        Isa::transpose(square);
#pragma GCC unroll 16
        for (int k = 0; k < lanes; ++k) {
          Isa::store(target + (j + part + k) * panel, scaled<format>(square[k], scale[part / 16], offset));
        }
      }
    }
  }

  // One vector of outputs, `outputs` of them real (all of them unless is_partial), of a matrix in order columns.
  template <bool is_partial>
  static void pack_columns(const Matrix &w, int64_t o, int64_t outputs, int64_t i, int64_t count, float *target) {
    const auto *data = static_cast<const std::byte *>(w.data);
    const int64_t n = w.outputs;
    const auto f32 = [=](const void *p) { return is_partial ? Isa::load_f32_partial(p, outputs) : Isa::load_f32(p); };
    const auto f16 = [=](const void *p) { return is_partial ? Isa::load_f16_partial(p, outputs) : Isa::load_f16(p); };
    const auto bf16 = [=](const void *p) {
      return is_partial ? Isa::load_bf16_partial(p, outputs) : Isa::load_bf16(p);
    };
    const auto i8 = [=](const void *p) { return is_partial ? Isa::load_i8_partial(p, outputs) : Isa::load_i8(p); };
    const auto nibbles = [=](const std::byte *line) {  // a tile of 64 outputs is never partial
      if (outputs == 0) return Isa::zero();
      const std::byte *p = line + o / 64 * 32 + o % 32;
      return o % 64 < 32 ? Isa::load_low_nibbles(p) : Isa::load_high_nibbles(p);
    };
    const auto line = [=](int64_t j) { return data + static_cast<size_t>(i + j) * w.stride; };
    const auto each_block = [&](const auto &unpack) __attribute__((always_inline)) {
      for (int64_t j = 0; j < count; j += block) {
        unpack(data + static_cast<size_t>((i + j) / block) * w.stride, target + j * panel);
      }
    };
    switch (w.format) {
      case Format::f32:
        for (int64_t j = 0; j < count; ++j) Isa::store(target + j * panel, f32(line(j) + 4 * o));
        break;
      case Format::f16:
        for (int64_t j = 0; j < count; ++j) Isa::store(target + j * panel, f16(line(j) + 2 * o));
        break;
      case Format::bf16:
        for (int64_t j = 0; j < count; ++j) Isa::store(target + j * panel, bf16(line(j) + 2 * o));
        break;
      case Format::q8:
        each_block([&](const std::byte *p, float *to) {
          const Float scale = f16(p + 2 * o);
          p += 2 * n + o;
          for (int64_t k = 0; k < block; ++k) {
            Isa::store(to + k * panel, scaled<Format::q8>(i8(p + k * n), scale, Isa::zero()));
          }
        });
        break;
      case Format::q4:
        each_block([&](const std::byte *p, float *to) {
          const Float scale = f16(p + 2 * o);
          p += 2 * n;
          for (int64_t k = 0; k < block; ++k) {
            Isa::store(to + k * panel, scaled<Format::q4>(nibbles(p + k * (n / 2)), scale, Isa::zero()));
          }
        });
        break;
      case Format::q4_affine:
        each_block([&](const std::byte *p, float *to) {
          const Float scale = f32(p + 4 * o), offset = f32(p + 4 * (n + o));
          p += 8 * n;
          for (int64_t k = 0; k < block; ++k) {
            Isa::store(to + k * panel, scaled<Format::q4_affine>(nibbles(p + k * (n / 2)), scale, offset));
          }
        });
        break;
      case Format::q8_affine:
        each_block([&](const std::byte *p, float *to) {
          const Float scale[2] = {f32(p + 4 * o), f32(p + 4 * (n + o))}, offset = f32(p + 4 * (2 * n + o));
          p += 12 * n + o;
          for (int64_t k = 0; k < block; ++k) {
            Isa::store(to + k * panel, scaled<Format::q8_affine>(i8(p + k * n), scale[k / 16], offset));
          }
        });
        break;
    }
  }
};

}  // namespace libwkv::kernels
