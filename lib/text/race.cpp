// SPDX-License-Identifier: Apache-2.0
// The numbered operations of wkv/sampler.h. Scores and probabilities are doubles; loops over the whole vocabulary are
// written so that compilers make vector code of them without reordering any sum.
#include "text/race.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "base/error.h"
#include "text/portable_math.h"
#include "text/ranking.h"

namespace libwkv {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

using Doubles = std::unique_ptr<double[]>;
Doubles make_doubles(size_t count) { return std::make_unique_for_overwrite<double[]>(count); }

[[noreturn]] void fail_empty() { fail(WKV_INVALID, "no token is left to choose from: all are banned or not a number"); }

// The number of leading ids that may win.
size_t ids_in_race(const SamplerOptions &options, const SamplerLimits &limits, size_t logits_count) {
  const int32_t end = options.ids_end > 0 ? options.ids_end : limits.ids_end;
  return end > 0 ? std::min(logits_count, static_cast<size_t>(end)) : logits_count;
}

// The place of the largest score, the lowest id among equals; the count when all are NaN or -infinity.
template <class Score>
size_t best_of(std::span<const Score> scores) {
  constexpr size_t lanes = 16, block = 1024;
  Score best = -std::numeric_limits<Score>::infinity();
  size_t best_block = scores.size();
  for (size_t begin = 0; begin < scores.size(); begin += block) {
    const auto part = scores.subspan(begin, std::min(block, scores.size() - begin));
    Score highest[lanes];
    for (Score &score : highest) score = best;
    size_t i = 0;
    for (; i + lanes <= part.size(); i += lanes)
      for (size_t lane = 0; lane < lanes; lane++)
        highest[lane] = part[i + lane] > highest[lane] ? part[i + lane] : highest[lane];
    for (; i < part.size(); i++) highest[0] = part[i] > highest[0] ? part[i] : highest[0];
    const Score here = *std::max_element(highest, highest + lanes);
    if (here > best) {
      best = here;
      best_block = begin;
    }
  }
  for (size_t i = best_block; i < scores.size(); i++)
    if (scores[i] == best) return i;
  return scores.size();
}

// Operations 1 to 4. Those out of the race get -infinity.
void write_scores(const SamplerOptions &options, std::span<const SamplerState::Count> counts,
                  const SamplerLimits &limits, std::span<const float> logits, double *scores) {
  for (size_t i = 0; i < logits.size(); i++) {
    const double score = static_cast<double>(logits[i]);
    scores[i] = score > -infinity ? score : -infinity;
  }
  const size_t n = logits.size();
  const auto ban = [&](std::span<const int32_t> tokens) {
    for (const int32_t token : tokens)
      if (static_cast<size_t>(token) < n) scores[token] = -infinity;
  };
  ban(options.banned);
  ban(limits.banned);
  for (const wkv_token_bias &bias : options.biases)
    if (static_cast<size_t>(bias.token) < n && scores[bias.token] > -infinity) {
      const double score = scores[bias.token] + static_cast<double>(bias.bias);
      scores[bias.token] = score > -infinity ? score : -infinity;  // +infinity, banned by its bias, is NaN here
    }
  if (!options.has_penalties()) return;
  for (const auto &[token, count] : counts) {
    if (static_cast<size_t>(token) >= n || !(scores[token] > -infinity)) continue;
    double score = scores[token];
    if (options.repetition != 1) score = score > 0 ? score / options.repetition : score * options.repetition;
    scores[token] = score - (options.presence + options.frequency * count);
  }
}

// Those still in the race, in rising id.
struct Field {
  size_t size = 0;
  size_t likeliest = 0;            // index
  std::unique_ptr<int32_t[]> ids;  // NULL: the index is the id
  Doubles behind;                  // nats behind the likeliest, after temperature; +infinity: out
  Doubles weights;                 // probability in units of the likeliest's

  int32_t id(size_t index) const { return ids ? ids[index] : static_cast<int32_t>(index); }
  std::span<const double> keys() const { return {behind.get(), size}; }
  std::span<const double> shares() const { return {weights.get(), size}; }
};

// The entries that a ranking keeps, and the likeliest in any case.
Field keep(const Field &field, Ranking &ranking) {
  Field kept;
  kept.ids = std::make_unique_for_overwrite<int32_t[]>(field.size);
  kept.behind = make_doubles(field.size);
  if (field.weights) kept.weights = make_doubles(field.size);
  bool has_likeliest = false;
  const auto add = [&](size_t index) {
    if (index == field.likeliest) {
      kept.likeliest = kept.size;
      has_likeliest = true;
    }
    kept.ids[kept.size] = field.id(index);
    kept.behind[kept.size] = field.behind[index];
    if (field.weights) kept.weights[kept.size] = field.weights[index];
    kept.size++;
  };
  ranking.each([&](size_t index) {
    if (!has_likeliest && index > field.likeliest) add(field.likeliest);
    add(index);
  });
  if (!has_likeliest) add(field.likeliest);
  return kept;
}

void write_weights(const double *behind, double *weights, size_t size) {
  constexpr size_t block = 256;
  double x[block];
  for (size_t begin = 0; begin < size; begin += block) {
    const size_t count = std::min(block, size - begin);
    for (size_t i = 0; i < count; i++)
      x[i] = -behind[begin + i] > portable_exp_least ? -behind[begin + i] : portable_exp_least;
    for (size_t i = 0; i < count; i++) weights[begin + i] = portable_exp_clamped(x[i]);
  }
}

// Operation 6, but for the division by the sum, and 7, which needs no probabilities and leaves fewer of them to
// compute.
Field enter(const SamplerOptions &options, Doubles scores, size_t size) {
  Field field;
  field.size = size;
  field.likeliest = best_of(std::span<const double>(scores.get(), size));
  if (field.likeliest == size) fail_empty();
  const double highest = scores[field.likeliest], scale = 1.0 / options.temperature;
  if (highest == infinity)  // such tokens share everything
    for (size_t i = 0; i < size; i++) scores[i] = scores[i] == infinity ? 0 : infinity;
  else
    for (size_t i = 0; i < size; i++) scores[i] = (highest - scores[i]) * scale;
  field.behind = std::move(scores);
  if (options.top_k > 0 && static_cast<size_t>(options.top_k) < size) {
    Ranking ranking(field.keys(), {});
    ranking.cut_to_count(static_cast<size_t>(options.top_k));
    field = keep(field, ranking);
  }
  field.weights = make_doubles(field.size);
  write_weights(field.behind.get(), field.weights.get(), field.size);
  return field;
}

// Operation 8: information of a token is `behind` plus a constant, so its distance from the expected one is the
// distance of `behind` from its own mean.
void cut_typical(const SamplerOptions &options, Field &field) {
  if (options.typical_p >= 1) return;
  double total = 0, moment = 0;
  for (size_t i = 0; i < field.size; i++)
    if (field.weights[i] > 0) {
      total += field.weights[i];
      moment += field.weights[i] * field.behind[i];
    }
  const double mean = moment / total;
  const Doubles distances = make_doubles(field.size);
  for (size_t i = 0; i < field.size; i++) distances[i] = std::fabs(field.behind[i] - mean);
  Ranking ranking({distances.get(), field.size}, field.shares());
  ranking.cut_to_sum(options.typical_p * total);
  field = keep(field, ranking);
}

// Operations 9 and 10.
void cut_tail(const SamplerOptions &options, Ranking &ranking) {
  if (options.top_p < 1) ranking.cut_to_sum(options.top_p * ranking.sum());
  if (options.min_p > 0) ranking.cut_to_key(-portable_log(options.min_p));
}

}  // namespace

int32_t run_race(const SamplerOptions &options, std::span<const SamplerState::Count> counts,
                 const SamplerLimits &limits, std::span<const float> logits, Random &random) {
  const size_t size = ids_in_race(options, limits, logits.size());
  logits = logits.first(size);
  if (options.is_greedy && counts.empty() && options.biases.empty() && options.banned.empty() &&
      limits.banned.empty()) {
    const size_t best = best_of(logits);
    if (best == size) fail_empty();
    return static_cast<int32_t>(best);
  }
  Doubles scores = make_doubles(size);
  write_scores(options, counts, limits, logits, scores.get());
  if (options.is_greedy) {
    const size_t best = best_of(std::span<const double>(scores.get(), size));
    if (best == size) fail_empty();
    return static_cast<int32_t>(best);
  }
  Field field = enter(options, std::move(scores), size);
  cut_typical(options, field);
  Ranking ranking(field.keys(), field.shares());
  cut_tail(options, ranking);
  return field.id(ranking.find(random.uniform() * ranking.sum()));
}

void race_probabilities(const SamplerOptions &options, std::span<const SamplerState::Count> counts,
                        std::span<const float> logits, std::span<float> probabilities) {
  if (options.is_greedy) {
    Random unused(0);
    const int32_t best = run_race(options, counts, {}, logits, unused);
    std::fill(probabilities.begin(), probabilities.end(), 0.0f);
    probabilities[best] = 1;
    return;
  }
  const size_t size = ids_in_race(options, {}, logits.size());
  Doubles scores = make_doubles(size);
  write_scores(options, counts, {}, logits.first(size), scores.get());
  Field field = enter(options, std::move(scores), size);
  cut_typical(options, field);
  Ranking ranking(field.keys(), field.shares());
  cut_tail(options, ranking);
  const double sum = ranking.sum();
  std::fill(probabilities.begin(), probabilities.end(), 0.0f);
  ranking.each([&](size_t index) { probabilities[field.id(index)] = static_cast<float>(field.weights[index] / sum); });
}

}  // namespace libwkv
