// SPDX-License-Identifier: Apache-2.0
// Exponentials and what is made of them, on vectors of one SIMD struct. NaN gives NaN everywhere.
#pragma once

#include <cstdint>

namespace libwkv::kernels {

template <class Isa>
class VectorMath {
  using Float = typename Isa::Float;
  using Int = typename Isa::Int;

  static Float constant(float value) { return Isa::broadcast(value); }

  // e^x = scale * (1 + fraction): x = n ln 2 + r, scale = 2^n, fraction = e^r - 1. For x in [-87.3, 0.3].
  struct Exponential {
    Float scale, fraction;
  };
  static Exponential exponential(Float x) {
    const Int n = Isa::round_to_int(Isa::mul(x, constant(0x1.715476p+0f)));
    const Float whole = Isa::float_from_int(n);
    // ln 2 in two parts; the upper has 15 bits, so that its product with n is exact
    Float r = Isa::fnma(whole, constant(0x1.62e4p-1f), x);
    r = Isa::fnma(whole, constant(0x1.7f7d1cp-20f), r);
    // e^r - 1 = r + r^2 (1/2! + r/3! + ...), |r| <= ln 2 / 2: the first term left out is 1.5e-8 of the result
    Float series = constant(1.0f / 5040);
    series = Isa::fma(series, r, constant(1.0f / 720));
    series = Isa::fma(series, r, constant(1.0f / 120));
    series = Isa::fma(series, r, constant(1.0f / 24));
    series = Isa::fma(series, r, constant(1.0f / 6));
    series = Isa::fma(series, r, constant(1.0f / 2));
    const Int exponent = Isa::template shift_left<23>(Isa::add_int(n, Isa::broadcast_int(127)));
    return {Isa::from_bits(exponent), Isa::fma(Isa::mul(r, r), series, r)};
  }

  // The larger of x and the lowest argument that gives a normal number; NaN becomes that number.
  static Float clamped(Float x) { return Isa::max(x, constant(-87.3f)); }

  static Float keep_nan(Float x, Float result) { return Isa::select(Isa::is_nan(x), x, result); }

 public:
  // e^x for x <= 0, within 1 unit in the last place; below -87.3 e^-87.3 = 1.2e-38.
  static Float exp_negative(Float x) {
    const Exponential e = exponential(clamped(x));
    return keep_nan(x, Isa::fma(e.scale, e.fraction, e.scale));
  }

  // 1 / (1 + e^-x), within 2.5 units in the last place; at least 1.2e-38.
  static Float sigmoid(Float x) {
    const Exponential exponential_of = exponential(clamped(Isa::neg(Isa::abs(x))));
    const Float e = Isa::fma(exponential_of.scale, exponential_of.fraction, exponential_of.scale);
    const Float one = constant(1.0f);
    return keep_nan(x, Isa::div(Isa::select(Isa::greater(x, Isa::zero()), one, e), Isa::add(one, e)));
  }

  // Within 3 units in the last place for every x: by e^-2|x| - 1, which loses nothing where x is small.
  static Float tanh(Float x) {
    const Exponential e = exponential(clamped(Isa::mul(Isa::abs(x), constant(-2.0f))));
    const Float minus_one = Isa::fma(e.scale, e.fraction, Isa::sub(e.scale, constant(1.0f)));
    const Float magnitude = Isa::div(Isa::neg(minus_one), Isa::add(constant(2.0f), minus_one));
    return keep_nan(x, Isa::select(Isa::greater(Isa::zero(), x), Isa::neg(magnitude), magnitude));
  }

  // The decay of the time mix: e^(-e^-0.5 * sig(x)).
  static Float decay(Float x) { return exp_negative(Isa::mul(sigmoid(x), constant(-0.60653066f))); }
};

}  // namespace libwkv::kernels
