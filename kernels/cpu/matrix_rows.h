// SPDX-License-Identifier: Apache-2.0
// y = W x for few vectors with W stored output by output: streams the weights once, whatever the number of vectors.
//
// f32, f16, bf16 and bytes become floats exactly and meet float32 activations in fused multiply-adds; a quantised block
// is summed before its scale is applied.
//
// Nibbles would spend three instructions a vector of floats on that, more time than memory takes to bring them. There,
// `prepare` writes the 32 activations of a block as integers X of 24 bits times a power of two, so that x is rounded
// once, to half a unit in the last place of the block's largest; X is cut in three bytes; and the sums of q * X are
// exact in 32-bit integers, byte by byte. Their error is below that of a chain of float32 additions.
#pragma once

#include "../table.h"

namespace libwkv::kernels {

// The bytes of a quantised block in Order::rows, and where its numbers begin.
template <Format format>
struct BlockLayout;
template <>
struct BlockLayout<Format::q8> {
  static constexpr int bytes = 34, numbers = 2;
};
template <>
struct BlockLayout<Format::q4> {
  static constexpr int bytes = 18, numbers = 2;
};
template <>
struct BlockLayout<Format::q4_affine> {
  static constexpr int bytes = 24, numbers = 8;
};
template <>
struct BlockLayout<Format::q8_affine> {
  static constexpr int bytes = 44, numbers = 12;
};

template <class S>
struct MatrixRows {
  using Float = typename S::Float;
  using Int = typename S::Int;
  static constexpr int lanes = S::lanes;

  // How far ahead of the loads memory is asked for: the processor's own prefetching stops at page borders and does not
  // know several rows as one run. Measured on one Zen 4: from 1.5 to 4 KiB is alike for wide rows, none costs 10 %;
  // quantised rows want more.
  static constexpr int wide_ahead = 2048, quantised_ahead = 8192;

  // Nibbles of a group of blocks are taken together, 16 bytes of each. What `prepare` writes for a group, in vectors of
  // `lanes` words: the bytes of X from the highest, each for the low and the high nibbles; then, for every block in its
  // four lanes, the integer that the offset -8 adds, the factor of X, and the sums of x.
  static constexpr int group = lanes / 4;  // blocks
  static constexpr int group_floats = 9 * lanes;
  static constexpr int offset_at = 6 * lanes, factor_at = 7 * lanes, sums_at = 8 * lanes;
  static constexpr int q8_affine_floats = 32 + lanes;  // x, then its sums over the vectors

  static int64_t groups(int64_t inputs) { return (inputs / block + group - 1) / group; }

  static size_t prepared_floats(Format format, int64_t inputs) {
    int64_t count = inputs;
    if (format == Format::q4 || format == Format::q4_affine) count = groups(inputs) * group_floats;
    if (format == Format::q8_affine) count = inputs / block * q8_affine_floats;
    return static_cast<size_t>(count);
  }

  static void prepare(Format format, int64_t inputs, const float *x, float *prepared) {
    if (format == Format::q4 || format == Format::q4_affine) {
      prepare_nibbles(inputs, x, prepared);
    } else if (format == Format::q8_affine) {
      for (int64_t i = 0; i < inputs; i += block, x += block, prepared += q8_affine_floats) {
        Float sum = S::zero();
        for (int j = 0; j < block; j += lanes) {
          S::store(prepared + j, S::load(x + j));
          sum = S::add(sum, S::load(x + j));
        }
        S::store(prepared + block, sum);
      }
    } else {
      __builtin_memcpy(prepared, x, static_cast<size_t>(inputs) * sizeof(float));
    }
  }

  static void multiply_rows(const Matrix *w, int64_t begin, int64_t end, const float *prepared, int32_t vectors,
                            float *y, int64_t y_stride) {
    Job job{static_cast<const char *>(w->data),
            w->stride,
            w->inputs,
            begin,
            end,
            prepared,
            static_cast<int64_t>(prepared_floats(w->format, w->inputs)),
            y,
            y_stride};
    switch (w->format) {
      case Format::f32:
        return for_vectors<Wide<Format::f32>>(job, vectors);
      case Format::f16:
        return for_vectors<Wide<Format::f16>>(job, vectors);
      case Format::bf16:
        return for_vectors<Wide<Format::bf16>>(job, vectors);
      case Format::q8:
        return for_vectors<Bytes<Format::q8>>(job, vectors);
      case Format::q8_affine:
        return for_vectors<Bytes<Format::q8_affine>>(job, vectors);
      case Format::q4:
        return for_vectors<Nibbles<Format::q4>>(job, vectors);
      case Format::q4_affine:
        return for_vectors<Nibbles<Format::q4_affine>>(job, vectors);
    }
  }

 private:
  struct Job {
    const char *data;
    size_t stride;
    int64_t inputs, begin, end;
    const float *x;  // prepared
    int64_t x_stride;
    float *y;
    int64_t y_stride;
  };

  static void prepare_nibbles(int64_t inputs, const float *x, float *prepared) {
    for (int64_t blocks = inputs / block; blocks > 0; blocks -= group, prepared += group_floats) {
      if (blocks < group) __builtin_memset(prepared, 0, group_floats * sizeof(float));
      for (int b = 0; b < (blocks < group ? blocks : group); b++, x += block) prepare_block(x, b, prepared);
    }
  }

  static void prepare_block(const float *x, int b, float *prepared) {
    // the largest integer of three signed bytes is 0x7f7f7f; exponents are bounded so that both factors are normal
    constexpr float largest = 0x7f7f7f;
    Float most = S::abs(S::load(x)), sum = S::load(x);
    for (int i = lanes; i < block; i += lanes) {
      most = S::max(most, S::abs(S::load(x + i)));
      sum = S::add(sum, S::load(x + i));
    }
    const float peak = S::reduce_max(most), total = S::reduce_add(sum);
    uint32_t bits;
    __builtin_memcpy(&bits, &peak, sizeof bits);
    int exponent = static_cast<int>(bits >> 23) - 127;
    if (exponent < -104) exponent = -104;
    float up = power_of_two(22 - exponent), down = power_of_two(exponent - 22);
    if (peak * up > largest) {
      up *= 0.5f;
      down *= 2;
    }
    const bool is_finite = total - total == 0;  // else every sum with this block becomes NaN
    if (!is_finite) up = 0, down = total - total;
    int32_t values[block], digits[block];
    for (int i = 0; i < block; i += lanes) {
      const Int value = S::round_to_int(S::mul(is_finite ? S::load(x + i) : S::zero(), S::broadcast(up)));
      // with this offset every byte is 0 to 255; flipping its highest bit makes it a digit of -128 to 127
      const Int offset = S::broadcast_int(0x808080);
      store_ints(values + i, value);
      store_ints(digits + i, S::xor_int(S::add_int(value, offset), offset));
    }
    auto *bytes = reinterpret_cast<int8_t *>(prepared) + 16 * b;
    constexpr int vector_bytes = 4 * lanes;
    for (int i = 0; i < 16; i++) {
      bytes[i] = static_cast<int8_t>(digits[i] >> 16);
      bytes[vector_bytes + i] = static_cast<int8_t>(digits[16 + i] >> 16);
      bytes[2 * vector_bytes + i] = static_cast<int8_t>(digits[i] >> 8);
      bytes[3 * vector_bytes + i] = static_cast<int8_t>(digits[16 + i] >> 8);
      bytes[4 * vector_bytes + i] = static_cast<int8_t>(digits[i]);
      bytes[5 * vector_bytes + i] = static_cast<int8_t>(digits[16 + i]);
    }
    for (int d = 0; d < 4; d++) {
      const int lane = 4 * b + d;
      int32_t sum_here = 0;  // of the inputs whose products this lane gets: together they stay below 2^31
      for (int i = 4 * d; i < 4 * d + 4; i++) sum_here += values[i] + values[16 + i];
      const int32_t offset = -8 * sum_here;
      __builtin_memcpy(prepared + offset_at + lane, &offset, sizeof offset);
      prepared[factor_at + lane] = down;
      prepared[sums_at + lane] = d == 0 ? total : 0.0f;  // lanes of a block are added up in the end
    }
  }

  static float power_of_two(int exponent) {
    const int32_t bits = (exponent + 127) << 23;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
  }
  static void store_ints(int32_t *p, Int a) { __builtin_memcpy(p, &a, sizeof a); }

  // As many vectors at once as have room for their sums. More go over the same rows again, a few rows at a time: their
  // weights wait in the second-level cache, while the vectors at work stay in the first.
  template <class Kernel>
  static void for_vectors(const Job &job, int32_t vectors) {
    constexpr int64_t rows_again = 16;
    constexpr int32_t most = Kernel::most_vectors;
    Job part = job;
    while (part.begin < job.end) {
      part.end = vectors > most && part.begin + rows_again < job.end ? part.begin + rows_again : job.end;
      for (int32_t first = 0; first < vectors; first += most) {
        part.x = job.x + first * job.x_stride;
        part.y = job.y + first * job.y_stride;
        const int32_t count = vectors - first < most ? vectors - first : most;
        if (count == 1) for_rows<Kernel, Kernel::rows, 1>(part);
        if (count == 2) for_rows<Kernel, Kernel::rows_of_many, 2>(part);
        if constexpr (most > 2) {
          if (count == 3) for_rows<Kernel, Kernel::rows_of_many, 3>(part);
          if (count == 4) for_rows<Kernel, Kernel::rows_of_many, 4>(part);
        }
      }
      part.begin = part.end;
    }
  }

  // Rows share the loads of x.
  template <class Kernel, int rows, int vectors>
  static void for_rows(const Job &job) {
    int64_t o = job.begin;
    for (; o + rows <= job.end; o += rows) multiply<Kernel, rows, vectors>(job, o);
    for (; o < job.end; o++) multiply<Kernel, 1, vectors>(job, o);
  }

  template <class Kernel, int rows, int vectors>
  static void multiply(const Job &job, int64_t o) {
    Float sums[rows][vectors];
    for (auto &row : sums)
      for (Float &sum : row) sum = S::zero();
    Kernel::sum(job, job.data + static_cast<size_t>(o) * job.stride, sums);
    for (int r = 0; r < rows; r++)
      for (int v = 0; v < vectors; v++) job.y[v * job.y_stride + o + r] = S::reduce_add(sums[r][v]);
  }

  // ---- f32, f16, bf16
  template <Format format>
  struct Wide {
    static constexpr int rows = 1;    // one long run of memory is read faster than two
    static constexpr int chains = 4;  // of additions a sum, to hide their latency
    static constexpr int most_vectors = 4, rows_of_many = 1;
    static constexpr int size = format == Format::f32 ? 4 : 2;

    static Float load(const char *p) {
      if constexpr (format == Format::f32)
        return S::load_f32(p);
      else if constexpr (format == Format::f16)
        return S::load_f16(p);
      else
        return S::load_bf16(p);
    }
    static Float load_partial(const char *p, int64_t count) {
      if constexpr (format == Format::f32)
        return S::load_f32_partial(p, count);
      else if constexpr (format == Format::f16)
        return S::load_f16_partial(p, count);
      else
        return S::load_bf16_partial(p, count);
    }

    template <int rows, int vectors>
    static void sum(const Job &job, const char *w, Float (&sums)[rows][vectors]) {
      constexpr int step = chains * lanes;
      Float parts[chains][rows][vectors];
      for (auto &part : parts)
        for (auto &row : part)
          for (Float &sum : row) sum = S::zero();
      int64_t i = 0;
      for (; i + step <= job.inputs; i += step) {
        for (int r = 0; r < rows; r++)
          for (int b = 0; b < step * size; b += 64) S::prefetch(w + r * job.stride + i * size + b + wide_ahead);
        for (int c = 0; c < chains; c++) {
          for (int r = 0; r < rows; r++) {
            const Float weights = load(w + r * job.stride + (i + c * lanes) * size);
            for (int v = 0; v < vectors; v++)
              parts[c][r][v] = S::fma(weights, S::load(job.x + v * job.x_stride + i + c * lanes), parts[c][r][v]);
          }
        }
      }
      for (; i < job.inputs; i += lanes) {
        const int64_t count = job.inputs - i < lanes ? job.inputs - i : lanes;
        for (int r = 0; r < rows; r++) {
          const Float weights = load_partial(w + r * job.stride + i * size, count);
          for (int v = 0; v < vectors; v++)
            parts[0][r][v] = S::fma(weights, S::load_partial(job.x + v * job.x_stride + i, count), parts[0][r][v]);
        }
      }
      for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
          for (int c = 0; c < chains; c++) sums[r][v] = S::add(sums[r][v], parts[c][r][v]);
    }
  };

  // ---- q8, q8_affine
  template <Format format>
  struct Bytes {
    static constexpr int rows = lanes == 8 ? 4 : 2;
    static constexpr int most_vectors = lanes == 8 ? 4 : 2, rows_of_many = lanes == 8 ? 2 : 4;
    using Layout = BlockLayout<format>;
    static constexpr bool is_affine = format == Format::q8_affine;
    static constexpr int block_floats = is_affine ? q8_affine_floats : 32;

    template <int rows, int vectors>
    static void sum(const Job &job, const char *w, Float (&sums)[rows][vectors]) {
      const float *x = job.x;
      for (int64_t i = 0; i < job.inputs; i += block, w += Layout::bytes, x += block_floats) {
        for (int r = 0; r < rows; r++) {
          const char *p = w + r * job.stride;
          S::prefetch(p + quantised_ahead);
          Float weights[32 / lanes];
          for (int j = 0; j < 32 / lanes; j++) weights[j] = S::load_i8(p + Layout::numbers + j * lanes);
          if constexpr (is_affine) {
            const Float scale0 = broadcast_f32(p), scale1 = broadcast_f32(p + 4), offset = broadcast_f32(p + 8);
            for (int v = 0; v < vectors; v++) {
              const float *xv = x + v * job.x_stride;
              sums[r][v] = S::fma(dot<0, 16 / lanes>(weights, xv), scale0, sums[r][v]);
              sums[r][v] = S::fma(dot<16 / lanes, 32 / lanes>(weights, xv), scale1, sums[r][v]);
              sums[r][v] = S::fma(S::load(xv + block), offset, sums[r][v]);
            }
          } else {
            const Float scale = S::broadcast_f16(p);
            for (int v = 0; v < vectors; v++)
              sums[r][v] = S::fma(dot<0, 32 / lanes>(weights, x + v * job.x_stride), scale, sums[r][v]);
          }
        }
      }
    }

    template <int begin, int end>
    static Float dot(const Float (&weights)[32 / lanes], const float *x) {
      Float sum = S::mul(weights[begin], S::load(x + begin * lanes));
      for (int j = begin + 1; j < end; j++) sum = S::fma(weights[j], S::load(x + j * lanes), sum);
      return sum;
    }
    static Float broadcast_f32(const char *p) {
      float value;
      __builtin_memcpy(&value, p, sizeof value);
      return S::broadcast(value);
    }
  };

  // ---- q4, q4_affine
  template <Format format>
  struct Nibbles {
    static constexpr int rows = lanes == 8 ? 2 : 4;  // x86 with 8 lanes has 16 registers, the others 32
    static constexpr int most_vectors = lanes == 8 ? 4 : 2, rows_of_many = rows;
    using Layout = BlockLayout<format>;

    template <int rows, int vectors>
    static void sum(const Job &job, const char *w, Float (&sums)[rows][vectors]) {
      const int64_t blocks = job.inputs / block;
      const float *x = job.x;
      const char *row[rows];
      int64_t b = 0;
      for (; b + group <= blocks; b += group, x += group_floats, w += group * Layout::bytes) {
        for (int r = 0; r < rows; r++) {
          row[r] = w + r * job.stride;
          for (int ahead = 0; ahead < group * Layout::bytes; ahead += 64) S::prefetch(row[r] + quantised_ahead + ahead);
        }
        sum_group(job, row, x, sums);
      }
      if (b == blocks) return;
      // the last blocks of a row, with zeros behind them: the memory behind the matrix is not ours
      char last[rows][group * Layout::bytes] = {};
      for (int r = 0; r < rows; r++) {
        __builtin_memcpy(last[r], w + r * job.stride, static_cast<size_t>(blocks - b) * Layout::bytes);
        row[r] = last[r];
      }
      sum_group(job, row, x, sums);
    }

    template <int rows, int vectors>
    static void sum_group(const Job &job, const char *const (&row)[rows], const float *x,
                          Float (&sums)[rows][vectors]) {
      const Int mask = S::broadcast_int(0x0f0f0f0f);
      Int low[rows], high[rows];
      Float scale[rows];
      for (int r = 0; r < rows; r++) {
        const Int both = S::template load_quads<Layout::bytes>(row[r] + Layout::numbers);
        low[r] = S::and_int(both, mask);
        high[r] = S::and_int(S::template shift_right<4>(both), mask);
        if constexpr (format == Format::q4)
          scale[r] = S::template load_f16_scales<Layout::bytes>(row[r]);
        else
          scale[r] = S::template load_f32_scales<Layout::bytes>(row[r]);
      }
      for (int v = 0; v < vectors; v++) {
        const float *xv = x + v * job.x_stride;
        Int dots[rows];
        for (int digit = 0; digit < 3; digit++) {
          const Int x_low = S::load_bytes(xv + 2 * digit * lanes), x_high = S::load_bytes(xv + (2 * digit + 1) * lanes);
          for (int r = 0; r < rows; r++) {
            const Int higher = digit == 0 ? S::broadcast_int(0) : S::template shift_left<8>(dots[r]);
            dots[r] = S::add_dots(higher, low[r], x_low, high[r], x_high);
          }
        }
        if constexpr (format == Format::q4) {
          const Int offset = S::load_bytes(xv + offset_at);
          for (int r = 0; r < rows; r++) dots[r] = S::add_int(dots[r], offset);
        } else {
          const Float x_sums = S::load(xv + sums_at);
          for (int r = 0; r < rows; r++)
            sums[r][v] = S::fma(S::template load_f32_scales<Layout::bytes>(row[r] + 4), x_sums, sums[r][v]);
        }
        const Float factor = S::load(xv + factor_at);
        for (int r = 0; r < rows; r++)
          sums[r][v] = S::fma(S::float_from_int(dots[r]), S::mul(scale[r], factor), sums[r][v]);
      }
    }
  };
};

}  // namespace libwkv::kernels
