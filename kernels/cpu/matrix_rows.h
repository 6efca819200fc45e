// SPDX-License-Identifier: Apache-2.0
// y = W x for few vectors with W stored output by output: streams the weights once, whatever the number of vectors.
//
// Weights become floats exactly and meet float32 activations in fused multiply-adds; a quantised block is summed
// before its scale is applied.
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

  // How far ahead of the loads memory is asked for: the processor's own prefetching stops at page borders.
  static constexpr int prefetch_bytes = 2048;

  // Nibbles are taken from 32-bit lanes that hold 8 of them each: lane 4 b + d has bytes 4 d to 4 d + 3 of block b of
  // a group. Masking nibble k in place gives n * 16^(k % 4) without a shift, and `prepare` divides x by that power.
  static constexpr int group = lanes / 4;            // blocks
  static constexpr int group_floats = 9 * lanes;     // 8 vectors of x, then what the offset of the numbers needs
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
      prepare_nibbles(format == Format::q4 ? -8.0f : 1.0f, inputs, x, prepared);
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
    Job job{static_cast<const char *>(w->data), w->stride, w->inputs, begin, end,
            prepared, static_cast<int64_t>(prepared_floats(w->format, w->inputs)), y, y_stride};
    switch (w->format) {
      case Format::f32: return for_vectors<Wide<Format::f32>>(job, vectors);
      case Format::f16: return for_vectors<Wide<Format::f16>>(job, vectors);
      case Format::bf16: return for_vectors<Wide<Format::bf16>>(job, vectors);
      case Format::q8: return for_vectors<Bytes<Format::q8>>(job, vectors);
      case Format::q8_affine: return for_vectors<Bytes<Format::q8_affine>>(job, vectors);
      case Format::q4: return for_vectors<Nibbles<Format::q4>>(job, vectors);
      case Format::q4_affine: return for_vectors<Nibbles<Format::q4_affine>>(job, vectors);
    }
  }

 private:
  struct Job {
    const char *data;
    size_t stride;
    int64_t inputs, begin, end;
    const float *x;     // prepared
    int64_t x_stride;
    float *y;
    int64_t y_stride;
  };

  // scale: 1 / 16^(k % 4) of nibble k
  static void prepare_nibbles(float sum_factor, int64_t inputs, const float *x, float *prepared) {
    constexpr float scales[4] = {1.0f, 1.0f / 16, 1.0f / 256, 1.0f / 4096};
    const int64_t blocks = inputs / block;
    for (int64_t first = 0; first < blocks; first += group, prepared += group_floats) {
      for (int lane = 0; lane < lanes; lane++) {
        const int64_t b = first + lane / 4;
        float sum = 0;
        for (int k = 0; k < 8; k++) {
          const float value = b < blocks ? x[b * block + lane % 4 * 4 + k / 2 + k % 2 * 16] : 0.0f;
          prepared[k * lanes + lane] = value * scales[k % 4];
          sum += value;
        }
        prepared[8 * lanes + lane] = sum * sum_factor;
      }
    }
  }

  template <class Kernel>
  static void for_vectors(const Job &job, int32_t vectors) {
    switch (vectors) {
      case 1: return for_rows<Kernel, 1>(job);
      case 2: return for_rows<Kernel, 2>(job);
      case 3: return for_rows<Kernel, 3>(job);
      case 4: return for_rows<Kernel, 4>(job);
      case 5: return for_rows<Kernel, 5>(job);
      case 6: return for_rows<Kernel, 6>(job);
      case 7: return for_rows<Kernel, 7>(job);
      case 8: return for_rows<Kernel, 8>(job);
      default: return;
    }
  }

  // Rows that share the loads of x: as many as the registers carry.
  template <class Kernel, int vectors>
  static void for_rows(const Job &job) {
    constexpr int rows = vectors == 1 ? Kernel::rows : vectors <= 4 ? 2 : 1;
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
    static constexpr int rows = 2;
    static constexpr int size = format == Format::f32 ? 4 : 2;

    static Float load(const char *p) {
      if constexpr (format == Format::f32) return S::load_f32(p);
      else if constexpr (format == Format::f16) return S::load_f16(p);
      else return S::load_bf16(p);
    }
    static Float load_partial(const char *p, int64_t count) {
      if constexpr (format == Format::f32) return S::load_f32_partial(p, count);
      else if constexpr (format == Format::f16) return S::load_f16_partial(p, count);
      else return S::load_bf16_partial(p, count);
    }

    template <int rows, int vectors>
    static void sum(const Job &job, const char *w, Float (&sums)[rows][vectors]) {
      // two chains of additions a sum, to hide their latency: the same number for every shape of the loop, so that a
      // sum has the same bits alone and among others
      constexpr int chains = 2;
      constexpr int step = chains * lanes;
      Float parts[chains][rows][vectors];
      for (auto &part : parts)
        for (auto &row : part)
          for (Float &sum : row) sum = S::zero();
      int64_t i = 0;
      for (; i + step <= job.inputs; i += step) {
        for (int r = 0; r < rows; r++)
          for (int b = 0; b < step * size; b += 64) S::prefetch(w + r * job.stride + i * size + b + prefetch_bytes);
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
    static constexpr int rows = 2;
    using Layout = BlockLayout<format>;
    static constexpr bool is_affine = format == Format::q8_affine;
    static constexpr int block_floats = is_affine ? q8_affine_floats : 32;

    template <int rows, int vectors>
    static void sum(const Job &job, const char *w, Float (&sums)[rows][vectors]) {
      const float *x = job.x;
      for (int64_t i = 0; i < job.inputs; i += block, w += Layout::bytes, x += block_floats) {
        for (int r = 0; r < rows; r++) {
          const char *p = w + r * job.stride;
          S::prefetch(p + prefetch_bytes);
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
    static constexpr int rows = 2;
    using Layout = BlockLayout<format>;

    template <int rows, int vectors>
    static void sum(const Job &job, const char *w, Float (&sums)[rows][vectors]) {
      const int64_t blocks = job.inputs / block;
      const float *x = job.x;
      int64_t b = 0;
      for (; b + group <= blocks; b += group, x += group_floats, w += group * Layout::bytes) {
        for (int r = 0; r < rows; r++) {
          const char *p = w + r * job.stride;
          for (int ahead = 0; ahead < group * Layout::bytes; ahead += 64) S::prefetch(p + prefetch_bytes + ahead);
          sum_group(job, p, x, sums[r]);
        }
      }
      if (b == blocks) return;
      // the last blocks of a row, with zeros behind them: the memory behind the matrix is not ours
      for (int r = 0; r < rows; r++) {
        char last[group * Layout::bytes] = {};
        __builtin_memcpy(last, w + r * job.stride, static_cast<size_t>(blocks - b) * Layout::bytes);
        sum_group(job, last, x, sums[r]);
      }
    }

    template <int vectors>
    static void sum_group(const Job &job, const char *p, const float *x, Float (&sums)[vectors]) {
      const Int low = S::template load_quads<Layout::bytes>(p + Layout::numbers);
      const Int high = S::template shift_right<16>(low);
      Float weights[8];
      for (int k = 0; k < 4; k++) {
        const Int mask = S::broadcast_int(15 << 4 * k);
        weights[k] = S::float_from_int(S::and_int(low, mask));
        weights[k + 4] = S::float_from_int(S::and_int(high, mask));
      }
      Float scale, offset;
      if constexpr (format == Format::q4) {
        scale = S::template load_f16_scales<Layout::bytes>(p);
      } else {
        scale = S::template load_f32_scales<Layout::bytes>(p);
        offset = S::template load_f32_scales<Layout::bytes>(p + 4);
      }
      for (int v = 0; v < vectors; v++) {
        const float *xv = x + v * job.x_stride;
        Float even, odd = S::mul(weights[4], S::load(xv + 4 * lanes));
        if constexpr (format == Format::q4) {
          even = S::fma(weights[0], S::load(xv), S::load(xv + 8 * lanes));
        } else {
          even = S::mul(weights[0], S::load(xv));
          sums[v] = S::fma(offset, S::load(xv + 8 * lanes), sums[v]);
        }
        for (int k = 1; k < 4; k++) {
          even = S::fma(weights[k], S::load(xv + k * lanes), even);
          odd = S::fma(weights[k + 4], S::load(xv + (k + 4) * lanes), odd);
        }
        sums[v] = S::fma(S::add(even, odd), scale, sums[v]);
      }
    }
  };
};

}  // namespace libwkv::kernels
