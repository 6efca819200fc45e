// SPDX-License-Identifier: Apache-2.0
// `wkv` of the table for one SIMD struct: the recurrence of one head.
#pragma once

#include <cstdint>

#include "../table.h"

namespace libwkv::kernels {

// Columns of the state (values) do not depend on each other: a tile of them keeps its sums in registers while the keys
// pass by as broadcasts. One sweep over a tile applies token t, reads y of token t, and already forms S^T a of token
// t + 1 from the state in registers, so that each number of the state is loaded and stored once a token.
template <class Isa>
class Recurrence {
  using Float = typename Isa::Float;
  static constexpr int lanes = Isa::lanes;
  static constexpr int tile_vectors = lanes == 8 ? 2 : 4;  // x86 with 8 lanes has 16 registers, the others 32
  // Tokens that a tile takes before the next tile: their vectors stay in the first-level cache beside the state. The
  // first S^T a of a block needs a sweep of its own; its sums have the order of the others, hence the same bits.
  static constexpr int64_t token_block = 16;

  struct Head {
    const float *receptance, *decay, *key, *value, *removal, *rate;
    float *state, *y;
    int64_t stride, size;
  };

 public:
  static void run(int64_t tokens, int64_t stride, const float *receptance, const float *decay, const float *key,
                  const float *value, const float *removal, const float *rate, float *state, float *y,
                  int64_t head_size) {
    for (int64_t t = 0; t < tokens; t += token_block) {
      const int64_t count = tokens - t < token_block ? tokens - t : token_block, at = t * stride;
      const Head head = {receptance + at, decay + at, key + at, value + at, removal + at,
                         rate + at,       state,      y + at,   stride,     head_size};
      int64_t j = 0;
      for (; j + tile_vectors * lanes <= head_size; j += tile_vectors * lanes) {
        sweep<tile_vectors, false>(head, count, j, lanes);
      }
      for (; j + lanes <= head_size; j += lanes) sweep<1, false>(head, count, j, lanes);
      if (j < head_size) sweep<1, true>(head, count, j, head_size - j);
    }
  }

 private:
  template <bool is_partial>
  static Float load(const float *p, int64_t count) {
    if constexpr (is_partial)
      return Isa::load_partial(p, count);
    else
      return Isa::load(p);
  }
  template <bool is_partial>
  static void store(float *p, Float a, int64_t count) {
    if constexpr (is_partial)
      Isa::store_partial(p, a, count);
    else
      Isa::store(p, a);
  }

  // Values [j, j + vectors * lanes) of all tokens; is_partial: the last `width` values.
  template <int vectors, bool is_partial>
  static void sweep(const Head &head, int64_t tokens, int64_t j, int64_t width) {
    const int64_t n = head.size;
    Float sa[vectors], next_sa[vectors], v[vectors], y[vectors];
    for (int c = 0; c < vectors; ++c) sa[c] = Isa::zero();
    for (int64_t i = 0; i < n; ++i) {
      const Float a = Isa::broadcast(head.removal[i]);
#pragma GCC unroll 4
      for (int c = 0; c < vectors; ++c) {
        sa[c] = Isa::fma(load<is_partial>(head.state + i * n + j + c * lanes, width), a, sa[c]);
      }
    }
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t at = t * head.stride;
      const float *receptance = head.receptance + at, *decay = head.decay + at, *key = head.key + at;
      const float *rate = head.rate + at;
      const float *next_removal = head.removal + (t + 1 < tokens ? at + head.stride : at);  // the last is not used
#pragma GCC unroll 4
      for (int c = 0; c < vectors; ++c) {
        v[c] = load<is_partial>(head.value + at + j + c * lanes, width);
        y[c] = next_sa[c] = Isa::zero();
      }
      float *state = head.state + j;
#pragma GCC unroll 2
      for (int64_t i = 0; i < n; ++i, state += n) {
        const Float w = Isa::broadcast(decay[i]), b = Isa::broadcast(rate[i]), k = Isa::broadcast(key[i]);
        const Float r = Isa::broadcast(receptance[i]), a = Isa::broadcast(next_removal[i]);
#pragma GCC unroll 4
        for (int c = 0; c < vectors; ++c) {
          Float s = Isa::mul(load<is_partial>(state + c * lanes, width), w);
          s = Isa::fma(k, v[c], Isa::fma(b, sa[c], s));
          store<is_partial>(state + c * lanes, s, width);
          y[c] = Isa::fma(s, r, y[c]);
          next_sa[c] = Isa::fma(s, a, next_sa[c]);
        }
      }
#pragma GCC unroll 4
      for (int c = 0; c < vectors; ++c) {
        store<is_partial>(head.y + at + j + c * lanes, y[c], width);
        sa[c] = next_sa[c];
      }
    }
  }
};

}  // namespace libwkv::kernels
