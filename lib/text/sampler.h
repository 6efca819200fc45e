// SPDX-License-Identifier: Apache-2.0
// Scores to a token: the operations of wkv/sampler.h in their order, in arithmetic that is the same everywhere.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <wkv/sampler.h>

#include "base/busy.h"
#include "text/random.h"

namespace libwkv {

// The options, with defaults filled in and arrays owned.
struct SamplerOptions {
  bool is_greedy = false;
  double temperature = 1, top_p = 1, min_p = 0, typical_p = 1;
  double repetition = 1, presence = 0, frequency = 0, penalty_decay = 1;
  int32_t top_k = 0, ids_end = 0;
  std::vector<wkv_token_bias> biases;
  std::vector<int32_t> banned;
  std::vector<int32_t> exempt;  // rising

  bool has_penalties() const { return repetition != 1 || presence != 0 || frequency != 0; }
};

// Most entries of each of the lists.
inline constexpr size_t longest_sampler_list = size_t{1} << 20;

// Checks every field. Throws WKV_INVALID naming field and value.
SamplerOptions read_sampler_options(const wkv_sampler_options &options);

// All that sampling changes: with the options, what a saved sampler is made of.
struct SamplerState {
  struct Count {
    int32_t token;
    double count;
  };
  Random random;
  std::vector<Count> counts;  // rising tokens; what penalties remember
};

// What else keeps tokens out of the race in one call: knowledge of the caller, not of the sampler.
struct SamplerLimits {
  int32_t ids_end = 0;  // holds when the sampler's own is 0; 0: none
  std::span<const int32_t> banned = {};
};

// A choice that has not happened yet.
struct SamplerChoice {
  int32_t token;
  Random random;  // after the draw
};

// Every function expects its caller to hold busy(), throws before it changes anything, and takes logits of at least
// one and fewer than 2^31 tokens.
class Sampler {
 public:
  explicit Sampler(SamplerOptions options, uint64_t seed);
  // One that goes on from where another was.
  Sampler(SamplerOptions options, SamplerState state);

  using Choice = SamplerChoice;
  // Throws WKV_INVALID when no token is left. Reserves what commit needs, so that a caller with several samplers can
  // choose with all of them before any of them moves.
  Choice choose(std::span<const float> logits, const SamplerLimits &limits = {});
  // Only the reserving, for a choice that is made elsewhere.
  void reserve() { reserve_count(); }
  void commit(const Choice &choice) noexcept;

  int32_t sample(std::span<const float> logits) {
    const Choice choice = choose(logits);
    commit(choice);
    return choice.token;
  }
  void accept(int32_t token);
  // probabilities: as many as logits; may be the same memory.
  void get_probabilities(std::span<const float> logits, std::span<float> probabilities);
  void reset(uint64_t seed);

  BusyFlag &busy() { return busy_; }
  const SamplerOptions &options() const { return options_; }
  const SamplerState &state() const { return state_; }

 private:
  void reserve_count();
  void remember(int32_t token) noexcept;

  SamplerOptions options_;
  SamplerState state_;
  BusyFlag busy_;
};

}  // namespace libwkv
