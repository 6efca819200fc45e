// SPDX-License-Identifier: Apache-2.0
// The elementwise functions of the table for one SIMD struct: one token a call.
#pragma once

#include <cstdint>

#include "../table.h"
#include "vector_math.h"

namespace libwkv::kernels {

template <class Isa>
class Elementwise {
  using Float = typename Isa::Float;
  using Math = VectorMath<Isa>;
  static constexpr int lanes = Isa::lanes;

  // Access to whole vectors and to the last, shorter one, so that every loop body is written once.
  struct Whole {
    static Float load(const float *p) { return Isa::load(p); }
    static void store(float *p, Float a) { Isa::store(p, a); }
    static Float keep(Float a) { return a; }
  };
  struct Part {
    int64_t count;
    Float load(const float *p) const { return Isa::load_partial(p, count); }
    void store(float *p, Float a) const { Isa::store_partial(p, a, count); }
    // Zero in the lanes that do not exist.
    Float keep(Float a) const {
      float values[lanes];
      Isa::store(values, a);
      return Isa::load_partial(values, count);
    }
  };

  // body(access, i) for each vector of [begin, end)
  template <class Body>
  __attribute__((always_inline)) static void each(int64_t begin, int64_t end, const Body &body) {
    int64_t i = begin;
    for (; i + lanes <= end; i += lanes) body(Whole{}, i);
    if (i < end) body(Part{end - i}, i);
  }

  // Sum over [begin, end) of body(access, i), in four chains.
  template <class Body>
  __attribute__((always_inline)) static float sum(int64_t begin, int64_t end, const Body &body) {
    Float sums[4] = {Isa::zero(), Isa::zero(), Isa::zero(), Isa::zero()};
    int64_t i = begin;
    for (; i + 4 * lanes <= end; i += 4 * lanes) {
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) sums[c] = Isa::add(sums[c], body(Whole{}, i + c * lanes));
    }
    each(i, end, [&](auto access, int64_t at) { sums[0] = Isa::add(sums[0], access.keep(body(access, at))); });
    return Isa::reduce_add(Isa::add(Isa::add(sums[0], sums[1]), Isa::add(sums[2], sums[3])));
  }

  // Mean, then the mean of squared differences from it: what is left is not the difference of two large numbers.
  struct Moments {
    Float mean, scale;  // scale = 1 / sqrt(variance + epsilon)
  };
  static Moments moments(const float *x, int64_t begin, int64_t end, float epsilon) {
    const float count = static_cast<float>(end - begin);
    const Float mean = Isa::broadcast(sum(begin, end, [=](auto a, int64_t i) { return a.load(x + i); }) / count);
    const float squares = sum(begin, end, [=](auto a, int64_t i) {
      const Float difference = Isa::sub(a.load(x + i), mean);
      return Isa::mul(difference, difference);
    });
    const Float deviation = Isa::sqrt(Isa::broadcast(squares / count + epsilon));
    return {mean, Isa::div(Isa::broadcast(1.0f), deviation)};
  }

 public:
  static void layer_norm(int64_t count, const float *x, const float *weight, const float *bias, float epsilon,
                         float *y) {
    const Moments m = moments(x, 0, count, epsilon);
    each(0, count, [=](auto a, int64_t i) {
      const Float normal = Isa::mul(Isa::sub(a.load(x + i), m.mean), m.scale);
      a.store(y + i, Isa::fma(normal, a.load(weight + i), a.load(bias + i)));
    });
  }

  static void token_shift(int64_t count, const float *current, const float *previous, const float *mix, float *y) {
    each(0, count, [=](auto a, int64_t i) {
      const Float now = a.load(current + i);
      a.store(y + i, Isa::fma(Isa::sub(a.load(previous + i), now), a.load(mix + i), now));
    });
  }

  static void activate(Activation activation, int64_t count, float *x) {
    switch (activation) {
      case Activation::tanh:
        each(0, count, [=](auto a, int64_t i) { a.store(x + i, Math::tanh(a.load(x + i))); });
        break;
      case Activation::sigmoid:
        each(0, count, [=](auto a, int64_t i) { a.store(x + i, Math::sigmoid(a.load(x + i))); });
        break;
      case Activation::relu_squared:
        each(0, count, [=](auto a, int64_t i) {
          const Float positive = Isa::max(Isa::zero(), a.load(x + i));  // in this order NaN stays NaN
          a.store(x + i, Isa::mul(positive, positive));
        });
        break;
    }
  }

  static void add(int64_t count, float *x, const float *y) {
    each(0, count, [=](auto a, int64_t i) { a.store(x + i, Isa::add(a.load(x + i), a.load(y + i))); });
  }

  static void time_mix_inputs(const TimeMixInputs *inputs, int64_t head_begin, int64_t head_end) {
    const TimeMixInputs io = *inputs;  // a copy: stores through its pointers cannot change it
    const Float one = Isa::broadcast(1.0f);
    for (int64_t head = head_begin; head < head_end; ++head) {
      const int64_t begin = head * io.head_size, end = begin + io.head_size;
      const float squares = sum(begin, end, [=](auto a, int64_t i) {
        const Float kk = Isa::mul(a.load(io.key + i), a.load(io.k_k + i));
        return Isa::mul(kk, kk);
      });
      // NaN passes: in this order max gives its second argument
      const Float norm = Isa::max(Isa::broadcast(1e-12f), Isa::sqrt(Isa::broadcast(squares)));
      const Float scale = Isa::div(one, norm);
      each(begin, end, [=](auto a, int64_t i) {
        const Float k = a.load(io.key + i);
        const Float kk = Isa::mul(Isa::mul(k, a.load(io.k_k + i)), scale);
        const Float rate = Math::sigmoid(Isa::add(a.load(io.a0 + i), a.load(io.rate + i)));
        a.store(io.removal + i, Isa::neg(kk));
        a.store(io.rate + i, Isa::mul(kk, rate));
        a.store(io.key + i, Isa::fma(Isa::mul(k, Isa::sub(rate, one)), a.load(io.k_a + i), k));
        a.store(io.decay + i, Math::decay(Isa::add(a.load(io.w0 + i), a.load(io.decay + i))));
      });
      if (io.value_mix == nullptr) continue;
      each(begin, end, [=](auto a, int64_t i) {
        const Float v = a.load(io.value + i);
        const Float mix = Math::sigmoid(Isa::add(a.load(io.v0 + i), a.load(io.value_mix + i)));
        a.store(io.value + i, Isa::fma(Isa::sub(a.load(io.first_value + i), v), mix, v));
      });
    }
  }

  static void time_mix_outputs(const TimeMixOutputs *outputs, int64_t head_begin, int64_t head_end) {
    const TimeMixOutputs io = *outputs;
    for (int64_t head = head_begin; head < head_end; ++head) {
      const int64_t begin = head * io.head_size, end = begin + io.head_size;
      const Moments m = moments(io.wkv, begin, end, 64e-5f);
      const Float bonus = Isa::broadcast(sum(begin, end, [=](auto a, int64_t i) {
        return Isa::mul(Isa::mul(a.load(io.receptance + i), a.load(io.key + i)), a.load(io.r_k + i));
      }));
      each(begin, end, [=](auto a, int64_t i) {
        const Float normal = Isa::mul(Isa::sub(a.load(io.wkv + i), m.mean), m.scale);
        const Float y = Isa::fma(normal, a.load(io.norm_weight + i), a.load(io.norm_bias + i));
        a.store(io.out + i, Isa::mul(Isa::fma(bonus, a.load(io.value + i), y), a.load(io.gate + i)));
      });
    }
  }
};

}  // namespace libwkv::kernels
