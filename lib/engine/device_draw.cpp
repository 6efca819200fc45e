// SPDX-License-Identifier: Apache-2.0
#include "engine/device_draw.h"

#include <algorithm>
#include <limits>

namespace libwkv {

bool DeviceDraw::can(const Sampler &sampler) { return sampler.options().typical_p >= 1; }

DeviceDraw::DeviceDraw(Sampler &sampler, const SamplerLimits &limits, const Random &random) : random_(random) {
  sampler.reserve();
  const SamplerOptions &options = sampler.options();
  options_.temperature = options.is_greedy ? 0 : options.temperature;
  options_.top_p = options.top_p;
  options_.min_p = options.min_p;
  options_.top_k = options.top_k;
  options_.uniform = options.is_greedy ? 0 : random_.uniform();
  options_.ids_end = options.ids_end > 0 ? options.ids_end : limits.ids_end;
  options_.repetition = options.repetition;
  options_.presence = options.presence;
  options_.frequency = options.frequency;
  if (options.has_penalties())
    for (const auto &[token, count] : sampler.state().counts) {
      counted_.push_back(token);
      counts_.push_back(count);
    }
  // In rising order of tokens; those of one token in their order, bans first: nothing is added to -infinity.
  std::vector<wkv_token_bias> all;
  all.reserve(options.banned.size() + limits.banned.size() + options.biases.size());
  for (const std::span<const int32_t> banned : {std::span<const int32_t>(options.banned), limits.banned})
    for (const int32_t token : banned) all.push_back({token, -std::numeric_limits<float>::infinity()});
  all.insert(all.end(), options.biases.begin(), options.biases.end());
  std::stable_sort(all.begin(), all.end(),
                   [](const wkv_token_bias &a, const wkv_token_bias &b) { return a.token < b.token; });
  for (const wkv_token_bias &bias : all) {
    biased_.push_back(bias.token);
    biases_.push_back(bias.bias);
  }
  options_.counted_tokens = counted_.data();
  options_.counts = counts_.data();
  options_.counts_count = counts_.size();
  options_.bias_tokens = biased_.data();
  options_.biases = biases_.data();
  options_.biases_count = biases_.size();
}

}  // namespace libwkv
