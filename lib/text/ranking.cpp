// SPDX-License-Identifier: Apache-2.0
#include "text/ranking.h"

#include <algorithm>
#include <limits>

namespace libwkv {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// The largest finite key, or `cap` when that is smaller.
double widest(std::span<const double> keys, double cap) {
  double lanes[8] = {};
  size_t i = 0;
  for (; i + 8 <= keys.size(); i += 8)
    for (size_t lane = 0; lane < 8; lane++) {
      const double key = keys[i + lane] < cap ? keys[i + lane] : cap;
      lanes[lane] = key > lanes[lane] ? key : lanes[lane];
    }
  for (; i < keys.size(); i++) lanes[0] = std::max(lanes[0], std::min(keys[i], cap));
  return *std::max_element(lanes, lanes + 8);
}

}  // namespace

Ranking::Ranking(std::span<const double> keys, std::span<const double> weights)
    : keys_(keys), weights_(weights), buckets_(std::make_unique_for_overwrite<uint16_t[]>(keys.size())) {
  // Beyond 40 a probability is below 1e-17: such entries share the last bucket, which is hardly ever sorted.
  const double width = widest(keys, 40.0);
  scale_ = width > 0 ? (buckets - 1) / width : 0;
  for (size_t i = 0; i < keys.size(); i++) {
    if (keys[i] == infinity) {
      buckets_[i] = outside;
      continue;
    }
    const uint32_t bucket = bucket_of(keys[i]);
    buckets_[i] = static_cast<uint16_t>(bucket);
    counts_[bucket]++;
    if (!weights.empty()) sums_[bucket] += weights[i];
  }
}

std::span<const uint32_t> Ranking::sorted(uint32_t bucket) {
  if (bucket == sorted_bucket_) return sorted_;
  sorted_bucket_ = buckets;
  sorted_.clear();
  for (size_t i = 0; i < keys_.size(); i++)
    if (buckets_[i] == bucket) sorted_.push_back(static_cast<uint32_t>(i));
  const auto before = [&](uint32_t a, uint32_t b) { return keys_[a] != keys_[b] ? keys_[a] < keys_[b] : a < b; };
  // Equal scores are common (a model that knows nothing) and arrive in order.
  if (!std::is_sorted(sorted_.begin(), sorted_.end(), before)) std::sort(sorted_.begin(), sorted_.end(), before);
  sorted_bucket_ = bucket;
  return sorted_;
}

void Ranking::end_at(uint32_t bucket, size_t inside) {
  const auto kept = sorted(bucket).first(inside);
  counts_[bucket] = static_cast<uint32_t>(inside);
  sums_[bucket] = 0;
  if (!weights_.empty())
    for (const uint32_t index : kept) sums_[bucket] += weights_[index];
  for (uint32_t b = bucket + 1; b < buckets; b++) {
    counts_[b] = 0;
    sums_[b] = 0;
  }
  end_ = bucket;
  end_inside_ = inside;
}

void Ranking::cut_to_count(size_t count) {
  for (uint32_t b = 0; b < buckets; b++) {
    if (count <= counts_[b]) return end_at(b, count);
    count -= counts_[b];
  }
}

void Ranking::cut_to_sum(double target) {
  double before = 0;
  for (uint32_t b = 0; b < buckets; b++) {
    if (counts_[b] == 0) continue;
    if (before + sums_[b] >= target) {
      const auto order = sorted(b).first(counts_[b]);
      double sum = before;
      size_t inside = 0;
      while (inside < order.size()) {
        sum += weights_[order[inside++]];
        if (sum >= target) break;
      }
      end_at(b, inside);
      return;
    }
    before += sums_[b];
  }
}

void Ranking::cut_to_key(double largest) {
  const uint32_t b = bucket_of(largest);
  if (b > end_ || (b == buckets - 1 && counts_[b] == 0)) return;
  const auto order = sorted(b).first(counts_[b]);
  size_t inside = 0;
  while (inside < order.size() && keys_[order[inside]] <= largest) inside++;
  end_at(b, inside);
}

double Ranking::sum() const {
  double sum = 0;
  for (const double bucket : sums_) sum += bucket;
  return sum;
}

size_t Ranking::find(double target) {
  double before = 0;
  uint32_t last = 0;
  bool is_inside = false;
  for (uint32_t b = 0; b < buckets && !is_inside; b++) {
    if (sums_[b] <= 0) continue;
    last = b;
    is_inside = before + sums_[b] > target;
    if (!is_inside) before += sums_[b];
  }
  // The sum along the bucket may round to less than the bucket's own: then its last entry is the one.
  size_t found = 0;
  for (const uint32_t index : sorted(last).first(counts_[last])) {
    if (weights_[index] <= 0) break;
    found = index;
    before += weights_[index];
    if (is_inside && before > target) break;
  }
  return found;
}

}  // namespace libwkv
