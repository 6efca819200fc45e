// SPDX-License-Identifier: Apache-2.0
#include "engine/device_draw.h"

#include <algorithm>
#include <limits>

namespace libwkv {

bool DeviceDraw::can(const Sampler &sampler) {
  const SamplerOptions &options = sampler.options();
  if (options.typical_p < 1) return false;
  // Several biases of one token are added one after another, which entries of a list that is worked on at once are not.
  std::vector<int32_t> tokens;
  tokens.reserve(options.biases.size());
  for (const wkv_token_bias &bias : options.biases) tokens.push_back(bias.token);
  std::sort(tokens.begin(), tokens.end());
  return std::adjacent_find(tokens.begin(), tokens.end()) == tokens.end();
}

DeviceDraw::DeviceDraw(Sampler &sampler, const SamplerLimits &limits) : random_(sampler.state().random) {
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
  const auto ban = [&](std::span<const int32_t> tokens) {
    for (const int32_t token : tokens) {
      biased_.push_back(token);
      biases_.push_back(-std::numeric_limits<float>::infinity());
    }
  };
  ban(options.banned);
  ban(limits.banned);
  const size_t banned = biased_.size();
  for (const wkv_token_bias &bias : options.biases)
    if (std::find(biased_.begin(), biased_.begin() + static_cast<ptrdiff_t>(banned), bias.token) ==
        biased_.begin() + static_cast<ptrdiff_t>(banned)) {
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
