// SPDX-License-Identifier: Apache-2.0
// One race of tokens: from raw scores to the winner or to everyone's probability. No state of its own.
#pragma once

#include <span>

#include "text/sampler.h"

namespace libwkv {

// Gives the token. Draws one number from `random` unless the options are greedy; changes nothing when it throws
// WKV_INVALID because no token is left.
int32_t run_race(const SamplerOptions &options, std::span<const SamplerState::Count> counts,
                 const SamplerLimits &limits, std::span<const float> logits, Random &random);

// Writes the probability of each token; the memory may be that of the logits.
void race_probabilities(const SamplerOptions &options, std::span<const SamplerState::Count> counts,
                        std::span<const float> logits, std::span<float> probabilities);

}  // namespace libwkv
