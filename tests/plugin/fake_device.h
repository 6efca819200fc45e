// SPDX-License-Identifier: Apache-2.0
// What a test may ask of the backend without a device, and tell it to do.
#pragma once

#include <atomic>
#include <cstdint>

namespace libwkv::test {

// Atomic, since states come and go on any thread.
struct FakeDevice {
  using Count = std::atomic<int64_t>;
  // Living ones.
  Count models, states, parked, workspaces;
  Count parts;                 // loaded into the newest model
  Count runs, samples, ahead;  // since the beginning; ahead: runs that were begun before their token was known
  // 0: never; n: the n-th call from now on fails, and only that one.
  Count fail_state, fail_run, fail_reserve, fail_load, fail_park, fail_finish;
  // The next samplers find no token.
  std::atomic<bool> is_out_of_tokens;
};

using FakeDeviceFunction = FakeDevice *(*)();
inline constexpr char fake_device_symbol[] = "fake_device";

// A token leaves each number of a state as number / 2 + (token + 1) * weight_of(place), exact in float for a few
// tokens.
inline float weight_of(int64_t place) { return static_cast<float>(place % 5 + 1); }
// The score of an id is highest for the one that the state points to.
inline int32_t best_of(float first, int32_t vocab) { return static_cast<int32_t>(first) % vocab; }

}  // namespace libwkv::test
