// SPDX-License-Identifier: Apache-2.0
// The operations of wkv/sampler.h once more, in the plainest way: sort everything, cut, divide. And a test of draws
// against probabilities.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <set>
#include <span>
#include <vector>

#include <wkv/sampler.h>

namespace libwkv::test {

using Logits = std::vector<float>;

struct PlainOptions {
  double temperature = 1, top_p = 1, min_p = 0, typical_p = 1, repetition = 1, presence = 0, frequency = 0;
  size_t top_k = 0, ids_end = 0;
  std::map<int32_t, double> biases;
  std::set<int32_t> banned, exempt;
  std::map<int32_t, double> counts;
};

inline std::vector<double> plain_probabilities(const PlainOptions &options, const Logits &logits) {
  struct Runner {
    size_t id;
    double score, p;
  };
  std::vector<Runner> field;
  for (size_t i = 0; i < logits.size(); i++) {
    const int32_t id = static_cast<int32_t>(i);
    double score = static_cast<double>(logits[i]);
    if (std::isnan(score) || options.banned.count(id) || (options.ids_end && i >= options.ids_end)) continue;
    if (options.biases.count(id)) score += options.biases.at(id);
    if (options.counts.count(id) && !options.exempt.count(id)) {
      score = score > 0 ? score / options.repetition : score * options.repetition;
      score -= options.presence + options.frequency * options.counts.at(id);
    }
    if (score > -INFINITY) field.push_back({i, score / options.temperature, 0});
  }
  std::stable_sort(field.begin(), field.end(), [](auto &a, auto &b) { return a.score > b.score; });
  const double best = field.front().score;
  for (Runner &r : field) r.p = std::exp(r.score - best);
  const auto normalise = [&] {
    double sum = 0;
    for (const Runner &r : field) sum += r.p;
    for (Runner &r : field) r.p /= sum;
  };
  // The shortest beginning of `order` whose sum reaches the bound.
  const auto reaching = [](const std::vector<Runner> &order, double bound) {
    double sum = 0;
    size_t n = 0;
    while (n < order.size() && sum < bound) sum += order[n++].p;
    return n;
  };
  normalise();
  if (options.top_k > 0 && options.top_k < field.size()) field.resize(options.top_k);
  normalise();
  if (options.typical_p < 1) {
    double entropy = 0;
    for (const Runner &r : field)
      if (r.p > 0) entropy -= r.p * std::log(r.p);
    std::vector<Runner> order = field;
    std::stable_sort(order.begin(), order.end(), [](auto &a, auto &b) { return a.id < b.id; });
    std::stable_sort(order.begin(), order.end(), [&](auto &a, auto &b) {
      return std::fabs(-std::log(a.p) - entropy) < std::fabs(-std::log(b.p) - entropy);
    });
    order.resize(reaching(order, options.typical_p));
    const size_t likeliest = field.front().id;
    std::erase_if(field, [&](const Runner &r) {
      return r.id != likeliest &&
             std::none_of(order.begin(), order.end(), [&](const Runner &kept) { return kept.id == r.id; });
    });
    normalise();
  }
  if (options.top_p < 1) field.resize(reaching(field, options.top_p));
  normalise();
  std::erase_if(field, [&](const Runner &r) { return r.p < options.min_p * field.front().p; });
  normalise();
  std::vector<double> result(logits.size());
  for (const Runner &r : field) result[r.id] = r.p;
  return result;
}

// Pearson's chi-square of draws against probabilities, as a standard normal value (Wilson and Hilferty's cube root).
// Draws of a token without probability give infinity. Every expectation must be above 5.
inline double chi_square_z(const std::vector<uint64_t> &draws, const std::vector<double> &probabilities) {
  const double total = static_cast<double>(std::accumulate(draws.begin(), draws.end(), uint64_t{0}));
  double statistic = 0, freedom = -1;
  for (size_t i = 0; i < draws.size(); i++) {
    const double expected = probabilities[i] * total;
    if (expected == 0) {
      if (draws[i] > 0) return INFINITY;
      continue;
    }
    if (expected < 5) return NAN;
    const double difference = static_cast<double>(draws[i]) - expected;
    statistic += difference * difference / expected;
    freedom++;
  }
  const double spread = 2 / (9 * freedom);
  return (std::cbrt(statistic / freedom) - (1 - spread)) / std::sqrt(spread);
}

}  // namespace libwkv::test
