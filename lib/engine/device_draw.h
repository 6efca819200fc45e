// SPDX-License-Identifier: Apache-2.0
// What a sampler would do with scores that the host has not seen, for a device to do.
#pragma once

#include <vector>

#include "kernels/device.h"
#include "text/sampler.h"

namespace libwkv {

// Keeps what it points to; moving it keeps the pointers right.
class DeviceDraw {
 public:
  // Whether a device can choose as this sampler does.
  static bool can(const Sampler &sampler);
  // Reserves in the sampler what its commit needs. The sampler must not change while the draw is used.
  DeviceDraw(Sampler &sampler, const SamplerLimits &limits) : DeviceDraw(sampler, limits, sampler.state().random) {}
  // The same with random numbers that the sampler will come to.
  DeviceDraw(Sampler &sampler, const SamplerLimits &limits, const Random &random);

  const kernels::DeviceSampler &options() const { return options_; }
  const Random &random() const { return random_; }  // after the draw

 private:
  Random random_;
  std::vector<int32_t> counted_, biased_;
  std::vector<double> counts_;
  std::vector<float> biases_;
  kernels::DeviceSampler options_{};
};

}  // namespace libwkv
