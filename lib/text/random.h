// SPDX-License-Identifier: Apache-2.0
// The sampler's random numbers: xoshiro256**, seeded by splitmix64 (Blackman and Vigna, "Scrambled linear
// pseudorandom number generators"). Its outputs are part of the promise that equal seeds give equal tokens.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace libwkv {

struct Random {
  std::array<uint64_t, 4> state;
  bool operator==(const Random &) const = default;

  explicit Random(uint64_t seed) {
    for (uint64_t &word : state) {
      seed += 0x9e3779b97f4a7c15;
      uint64_t z = seed;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
      z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
      word = z ^ (z >> 31);
    }
  }

  uint64_t next() {
    const uint64_t result = std::rotl(state[1] * 5, 7) * 9;
    const uint64_t t = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= t;
    state[3] = std::rotl(state[3], 45);
    return result;
  }

  // Uniform on the multiples of 2^-53 in [0, 1).
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
};

}  // namespace libwkv
