// SPDX-License-Identifier: Apache-2.0
// exp and log from plain double arithmetic: the same bits on every platform, where those of the C library differ in the
// last place. Straight-line code, so that loops over them become vector code.
#pragma once

#include <bit>
#include <cstdint>

namespace libwkv {

// At this point and below portable_exp is 0: its result would leave the normal numbers.
inline constexpr double portable_exp_least = -709.1;

// e^x for x in [portable_exp_least, 0], within two units in the last place. To be used in a loop of its own after one
// that clamps: compilers make a branch of both together, and then no vector code.
inline double portable_exp_clamped(double x) {
  constexpr double log2_e = 0x1.71547652b82fep+0;
  constexpr double ln2_high = 0x1.62e42fefa0000p-1;  // 33 bits: its product with a whole number of 11 bits is exact
  constexpr double ln2_low = 0x1.cf79abc9e3b3ap-40;
  constexpr double round = 0x1.8p52;  // adding it leaves the nearest whole number in the low bits
  const double shifted = x * log2_e + round;
  const double power = shifted - round;
  const double r = (x - power * ln2_high) - power * ln2_low;  // |r| <= ln(2) / 2
  // Taylor series; the first term left out is below 5e-18.
  double sum = 1.0 / 6227020800.0;
  sum = sum * r + 1.0 / 479001600.0;
  sum = sum * r + 1.0 / 39916800.0;
  sum = sum * r + 1.0 / 3628800.0;
  sum = sum * r + 1.0 / 362880.0;
  sum = sum * r + 1.0 / 40320.0;
  sum = sum * r + 1.0 / 5040.0;
  sum = sum * r + 1.0 / 720.0;
  sum = sum * r + 1.0 / 120.0;
  sum = sum * r + 1.0 / 24.0;
  sum = sum * r + 1.0 / 6.0;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  // 2^power; at the least x the exponent's field, and so the result, is 0
  const uint64_t scale = (std::bit_cast<uint64_t>(shifted) + 1023) << 52;
  return sum * std::bit_cast<double>(scale);
}

// The same for any x <= 0; NaN gives 0.
inline double portable_exp(double x) { return portable_exp_clamped(x > portable_exp_least ? x : portable_exp_least); }

// The natural logarithm of a positive, finite, normal number, within two units in the last place.
inline double portable_log(double x) {
  uint64_t bits = std::bit_cast<uint64_t>(x);
  int64_t power = static_cast<int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffULL) | 0x3ff0000000000000ULL);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    power++;
  }
  // log(m) = 2 artanh(s) with s = (m - 1) / (m + 1), |s| <= 0.1716
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
  double sum = 1.0 / 23.0;
  for (int n = 21; n >= 3; n -= 2) sum = sum * s2 + 1.0 / n;
  const double log_m = 2.0 * s + 2.0 * s * s2 * sum;
  const double p = static_cast<double>(power);
  return p * 0x1.62e42fefa0000p-1 + (p * 0x1.cf79abc9e3b3ap-40 + log_m);
}

}  // namespace libwkv
