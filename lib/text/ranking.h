// SPDX-License-Identifier: Apache-2.0
// Candidates in rising order of a key, without sorting them all: they are dealt into buckets by key, and only the
// buckets where something is decided get sorted.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace libwkv {

// Order: rising key, then rising index. Entries with the key +infinity take no part. The entries kept are always a
// beginning of the order; it holds all of them at first, and each cut shortens it.
class Ranking {
 public:
  // keys: >= 0 or +infinity, at most one per index, fewer than 2^32. weights: what sums are made of; empty when only
  // counts matter. Both must outlive the ranking.
  Ranking(std::span<const double> keys, std::span<const double> weights);

  // Keeps at most the first `count` entries.
  void cut_to_count(size_t count);
  // Keeps the fewest first entries whose weights sum to at least target.
  void cut_to_sum(double target);
  // Keeps the entries whose key is at most `largest`.
  void cut_to_key(double largest);

  // Sum of the weights kept.
  double sum() const;
  // The first entry kept at which the running sum of weights passes target, else the last one with a weight.
  size_t find(double target);
  // Calls visit(index) for every entry kept, in rising index.
  template <class Visit>
  void each(Visit &&visit) {
    std::vector<bool> kept;
    if (end_inside_ != no_limit) {
      kept.resize(keys_.size());
      for (const uint32_t index : sorted(end_).first(end_inside_)) kept[index] = true;
    }
    for (size_t i = 0; i < keys_.size(); i++)
      if (buckets_[i] < end_ || (buckets_[i] == end_ && end_inside_ != no_limit && kept[i])) visit(i);
  }

 private:
  static constexpr uint32_t buckets = 1024;
  static constexpr uint16_t outside = 0xffff;
  static constexpr size_t no_limit = SIZE_MAX;

  // Rises with the key, so that buckets are in order.
  uint32_t bucket_of(double key) const {
    const double place = key * scale_;
    return place < buckets - 1 ? static_cast<uint32_t>(place) : buckets - 1;
  }
  // The entries of one bucket in order; valid until the next call.
  std::span<const uint32_t> sorted(uint32_t bucket);
  // Ends the order after the first `inside` entries of a bucket.
  void end_at(uint32_t bucket, size_t inside);

  std::span<const double> keys_, weights_;
  double scale_ = 0;                     // buckets in a unit of the key
  std::unique_ptr<uint16_t[]> buckets_;  // of each entry
  std::array<uint32_t, buckets> counts_{};
  std::array<double, buckets> sums_{};
  // Buckets before end_ are kept whole, and end_inside_ entries of it, unless there is no_limit: then none of it.
  uint32_t end_ = buckets;
  size_t end_inside_ = no_limit;
  uint32_t sorted_bucket_ = buckets;
  std::vector<uint32_t> sorted_;
};

}  // namespace libwkv
