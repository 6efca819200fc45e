// SPDX-License-Identifier: Apache-2.0
// The sampler's state: options, penalties' memory, and what choosing does to them. The race itself is in race.cpp.
#include "text/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/race.h"

namespace libwkv {
namespace {

constexpr double forgotten = 0.001;  // counts below it leave the table

void check_range(const char *field, float value, bool is_valid, const char *range) {
  if (!is_valid) fail(WKV_INVALID, "%s is %g, expected %s", field, static_cast<double>(value), range);
}

template <class Item>
std::vector<Item> read_list(const char *field, const Item *items, size_t count) {
  if (count > longest_sampler_list)
    fail(WKV_INVALID, "%s_count is %zu, at most %zu", field, count, longest_sampler_list);
  if (count > 0 && !items) fail(WKV_INVALID, "%s is NULL, %s_count is %zu", field, field, count);
  return std::vector<Item>(items, items + count);
}

std::vector<int32_t> read_tokens(const char *field, const int32_t *tokens, size_t count) {
  std::vector<int32_t> list = read_list(field, tokens, count);
  for (const int32_t token : list)
    if (token < 0) fail(WKV_INVALID, "%s has the negative token %d", field, token);
  return list;
}

}  // namespace

SamplerOptions read_sampler_options(const wkv_sampler_options &options) {
  const auto in = [](float value, float low, float high) { return value >= low && value <= high; };  // false for NaN
  if (options.is_greedy != 0 && options.is_greedy != 1)
    fail(WKV_INVALID, "is_greedy is %d, expected 0 or 1", options.is_greedy);
  check_range("temperature", options.temperature, options.temperature >= 0 && std::isfinite(options.temperature),
              "a finite number above 0");
  if (options.top_k < 0) fail(WKV_INVALID, "top_k is %d, expected at least 0", options.top_k);
  check_range("top_p", options.top_p, in(options.top_p, 0, 1), "[0, 1]");
  check_range("min_p", options.min_p, in(options.min_p, 0, 1) && options.min_p < 1, "[0, 1)");
  check_range("typical_p", options.typical_p, in(options.typical_p, 0, 1), "[0, 1]");
  check_range("repetition", options.repetition, options.repetition >= 0 && std::isfinite(options.repetition),
              "a finite number above 0");
  check_range("presence", options.presence, std::isfinite(options.presence), "a finite number");
  check_range("frequency", options.frequency, std::isfinite(options.frequency), "a finite number");
  check_range("penalty_decay", options.penalty_decay, in(options.penalty_decay, 0, 1), "[0, 1]");
  if (options.ids_end < 0) fail(WKV_INVALID, "ids_end is %d, expected at least 0", options.ids_end);

  SamplerOptions read;
  read.is_greedy = options.is_greedy == 1;
  const auto set = [](double &field, float value) {
    if (value != 0) field = static_cast<double>(value);
  };
  set(read.temperature, options.temperature);
  set(read.top_p, options.top_p);
  set(read.min_p, options.min_p);
  set(read.typical_p, options.typical_p);
  set(read.repetition, options.repetition);
  set(read.presence, options.presence);
  set(read.frequency, options.frequency);
  set(read.penalty_decay, options.penalty_decay);
  read.top_k = options.top_k;
  read.ids_end = options.ids_end;
  read.biases = read_list("biases", options.biases, options.biases_count);
  for (const wkv_token_bias &bias : read.biases) {
    if (bias.token < 0) fail(WKV_INVALID, "biases has the negative token %d", bias.token);
    if (std::isnan(bias.bias)) fail(WKV_INVALID, "the bias of token %d is not a number", bias.token);
  }
  read.banned = read_tokens("banned_tokens", options.banned_tokens, options.banned_tokens_count);
  read.exempt = read_tokens("exempt_tokens", options.exempt_tokens, options.exempt_tokens_count);
  std::sort(read.exempt.begin(), read.exempt.end());
  return read;
}

Sampler::Sampler(SamplerOptions options, uint64_t seed) : options_(std::move(options)), state_{Random(seed), {}} {}

Sampler::Sampler(SamplerOptions options, SamplerState state) : options_(std::move(options)), state_(std::move(state)) {}

Sampler::Choice Sampler::choose(std::span<const float> logits, const SamplerLimits &limits) {
  reserve_count();
  Choice choice{0, state_.random};
  choice.token = run_race(options_, state_.counts, limits, logits, choice.random);
  return choice;
}

void Sampler::commit(const Choice &choice) noexcept {
  state_.random = choice.random;
  remember(choice.token);
}

void Sampler::accept(int32_t token) {
  if (token < 0) fail(WKV_INVALID, "token %d is negative", token);
  reserve_count();
  remember(token);
}

void Sampler::get_probabilities(std::span<const float> logits, std::span<float> probabilities) {
  race_probabilities(options_, state_.counts, logits, probabilities);
}

void Sampler::reset(uint64_t seed) {
  state_.random = Random(seed);
  state_.counts.clear();
}

void Sampler::reserve_count() {
  auto &counts = state_.counts;
  if (options_.has_penalties() && counts.size() == counts.capacity())
    counts.reserve(std::max<size_t>(64, 2 * counts.size()));
}

void Sampler::remember(int32_t token) noexcept {
  if (!options_.has_penalties()) return;
  auto &counts = state_.counts;
  if (options_.penalty_decay < 1) {
    for (auto &entry : counts) entry.count *= options_.penalty_decay;
    std::erase_if(counts, [](const auto &entry) { return entry.count < forgotten; });
  }
  if (std::binary_search(options_.exempt.begin(), options_.exempt.end(), token)) return;
  const auto place = std::lower_bound(counts.begin(), counts.end(), token,
                                      [](const auto &entry, int32_t wanted) { return entry.token < wanted; });
  if (place != counts.end() && place->token == token)
    place->count += 1;
  else
    counts.insert(place, {token, 1.0});  // within the capacity reserved before
}

}  // namespace libwkv
