// SPDX-License-Identifier: Apache-2.0
// Copies that share memory until they differ, and the arrays of caches that a beam search moves about.
#include <random>

#include "support/models.h"

namespace libwkv::test {
namespace {

wkv_model_options reproducible() {
  wkv_model_options options = default_options();
  options.threads = 2;
  options.is_reproducible = 1;
  return options;
}

Cache copy_of(wkv_cache *source) {
  Cache copy;
  Failure failure;
  EXPECT_EQ(wkv_cache_copy(source, copy.out(), &failure), WKV_OK) << failure.message;
  return copy;
}

class Fork : public testing::Test {
 protected:
  // What a new cache holds after these tokens.
  Snapshot after(const std::vector<int32_t> &tokens) {
    Cache cache = create_cache(random_.model);
    if (!tokens.empty()) step(random_.info, random_.model, cache, tokens);
    return snapshot_of(random_.info, cache);
  }
  std::vector<int32_t> tokens(size_t count, uint64_t seed) {
    return random_tokens(count, random_.info.vocab_size, seed);
  }
  RandomModel random_{odd_shape, WKV_TYPE_F32, reproducible()};
};

TEST_F(Fork, costs_no_memory_until_a_side_steps) {
  const uint64_t state = random_.info.state_bytes;
  Cache source = create_cache(random_.model);
  step(random_.info, random_.model, source, tokens(5, 1));
  EXPECT_EQ(info_of(source).is_shared, 0);
  Cache fork = copy_of(source);
  EXPECT_EQ(memory_of(random_.model).caches_bytes, state);
  EXPECT_EQ(info_of(source).is_shared, 1);
  EXPECT_EQ(info_of(fork).is_shared, 1);
  const Snapshot before = snapshot_of(random_.info, source);
  step(random_.info, random_.model, fork, tokens(3, 2));
  EXPECT_EQ(memory_of(random_.model).caches_bytes, 2 * state);
  EXPECT_EQ(info_of(source).is_shared, 0);
  EXPECT_TRUE(snapshot_of(random_.info, source) == before);
  step(random_.info, random_.model, source, tokens(3, 2));  // alone again: in place
  EXPECT_EQ(memory_of(random_.model).caches_bytes, 2 * state);
  EXPECT_TRUE(snapshot_of(random_.info, source) == snapshot_of(random_.info, fork));
}

TEST_F(Fork, ten_thousand_of_one_prompt_cost_the_prompt_once) {
  Cache source = create_cache(random_.model);
  step(random_.info, random_.model, source, tokens(5, 1));
  const Snapshot before = snapshot_of(random_.info, source);
  std::vector<Cache> forks;  // a tree: each is a fork of an earlier one
  for (size_t i = 0; i < 10000; i++) forks.push_back(copy_of(i == 0 ? source : forks[(i - 1) / 3]));
  EXPECT_EQ(memory_of(random_.model).total_bytes,
            random_.info.weight_bytes + random_.info.state_bytes + memory_of(random_.model).workspace_bytes);
  source.reset();
  step(random_.info, random_.model, forks[77], tokens(1, 2));
  EXPECT_EQ(memory_of(random_.model).caches_bytes, 2 * random_.info.state_bytes);
  EXPECT_TRUE(snapshot_of(random_.info, forks[9999]) == before);
  EXPECT_TRUE(snapshot_of(random_.info, forks[0]) == before);
  forks.clear();
  EXPECT_EQ(memory_of(random_.model).caches_bytes, 0u);
}

// Any order of forks, steps, assignments, resets, writes and releases: each cache holds what its own tokens make of it.
TEST_F(Fork, trees_hold_what_their_tokens_make) {
  struct Branch {
    Cache cache;
    std::vector<int32_t> history;
  };
  std::mt19937 random(5);
  std::vector<Branch> branches;
  branches.push_back({create_cache(random_.model), {}});
  auto any = [&](size_t count) { return static_cast<size_t>(random() % count); };
  for (int round = 0; round < 400; round++) {
    Branch &one = branches[any(branches.size())];
    switch (any(8)) {
      case 0:
      case 1:
        if (branches.size() < 12) {
          Branch fork{copy_of(one.cache), one.history};
          branches.push_back(std::move(fork));
        }
        break;
      case 2: {
        Branch &source = branches[any(branches.size())];
        ASSERT_EQ(wkv_cache_assign(one.cache, source.cache, nullptr), WKV_OK);
        one.history = source.history;
        break;
      }
      case 3:
        if (any(6) == 0) {
          ASSERT_EQ(wkv_cache_reset(one.cache, nullptr), WKV_OK);
          one.history.clear();
        } else if (branches.size() > 4) {
          branches.erase(branches.begin() + static_cast<ptrdiff_t>(any(branches.size())));
        }
        break;
      default: {
        std::vector<int32_t> more = tokens(1 + any(4), random());
        step(random_.info, random_.model, one.cache, more);
        one.history.insert(one.history.end(), more.begin(), more.end());
      }
    }
  }
  for (const Branch &branch : branches)
    EXPECT_TRUE(snapshot_of(random_.info, branch.cache) == after(branch.history)) << branch.history.size() << " tokens";
  EXPECT_LE(memory_of(random_.model).caches_bytes, branches.size() * random_.info.state_bytes);
}

TEST_F(Fork, written_parts_stay_on_their_side) {
  Cache source = create_cache(random_.model);
  step(random_.info, random_.model, source, tokens(5, 1));
  const Snapshot before = snapshot_of(random_.info, source);
  Cache fork = copy_of(source);
  std::vector<float> values(part_size(random_.info, WKV_STATE_WKV), 0.25f);
  ASSERT_EQ(wkv_cache_write_state(fork, 1, WKV_STATE_WKV, values.data(), values.size(), nullptr), WKV_OK);
  EXPECT_TRUE(snapshot_of(random_.info, source) == before);
  EXPECT_FALSE(snapshot_of(random_.info, fork) == before);
  ASSERT_EQ(wkv_cache_reset(source, nullptr), WKV_OK);
  EXPECT_TRUE(snapshot_of(random_.info, source) == after({}));
}

TEST_F(Fork, last_tokens_are_those_read_last) {
  std::vector<int32_t> history;
  Cache cache = create_cache(random_.model);
  for (size_t count : {1, 3, 11, 1, 1, 40, 2}) {
    std::vector<int32_t> more = tokens(count, count);
    step(random_.info, random_.model, cache, more);
    history.insert(history.end(), more.begin(), more.end());
    const wkv_cache_info info = info_of(cache);
    const size_t known = std::min<size_t>(history.size(), WKV_LAST_TOKENS);
    ASSERT_EQ(info.last_tokens_count, static_cast<int32_t>(known));
    EXPECT_TRUE(std::equal(info.last_tokens, info.last_tokens + known, history.end() - static_cast<ptrdiff_t>(known)));
    EXPECT_EQ(info.last_token, history.back());
  }
}

class Arrays : public Fork {
 protected:
  void SetUp() override {
    for (uint64_t i = 0; i < 4; i++) {
      caches_.push_back(create_cache(random_.model));
      step(random_.info, random_.model, caches_.back(), tokens(2 + i, i));
      before_.push_back(snapshot_of(random_.info, caches_.back()));
      handles_.push_back(caches_.back());
    }
  }
  void expect(wkv_cache *cache, size_t source) {
    EXPECT_TRUE(snapshot_of(random_.info, cache) == before_[source]) << "is not what " << source << " was";
  }
  std::vector<Cache> caches_;
  std::vector<wkv_cache *> handles_;
  std::vector<Snapshot> before_;
  Failure failure_;
};

TEST_F(Arrays, select_copies_by_index) {
  const size_t indices[] = {3, 0, 0, 2, 3, 3};
  wkv_cache *copies[6] = {};
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_select(handles_.data(), 4, indices, copies, 6, &failure_), failure_);
  EXPECT_EQ(memory_of(random_.model).caches_bytes, 4 * random_.info.state_bytes);
  caches_.clear();
  for (size_t i = 0; i < 6; i++) {
    Cache owned(copies[i]);
    expect(owned, indices[i]);
  }
}

TEST_F(Arrays, repeat_copies_each_several_times) {
  wkv_cache *copies[12] = {};
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_repeat(handles_.data(), 4, 3, copies, 12, &failure_), failure_);
  for (size_t i = 0; i < 12; i++) {
    Cache owned(copies[i]);
    expect(owned, i / 3);
  }
}

TEST_F(Arrays, reorder_gives_each_what_another_held) {
  for (const std::vector<size_t> &sources :
       std::vector<std::vector<size_t>>{{1, 2, 3, 0}, {0, 1, 2, 3}, {2, 2, 2, 2}, {3, 2, 1, 0}, {1, 0, 0, 3}}) {
    for (size_t i = 0; i < 4; i++) before_[i] = snapshot_of(random_.info, caches_[i]);
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_reorder(handles_.data(), sources.data(), 4, &failure_), failure_);
    for (size_t i = 0; i < 4; i++) expect(caches_[i], sources[i]);
    for (uint64_t i = 0; i < 4; i++) step(random_.info, random_.model, caches_[i], tokens(2, i));
  }
}

TEST_F(Arrays, refuse_what_is_wrong_and_change_nothing) {
  RandomModel other(odd_shape, WKV_TYPE_F32, reproducible());
  Cache foreign = create_cache(other.model);
  wkv_cache *copies[4] = {};
  const size_t outside[] = {0, 1, 4, 0}, rising[] = {0, 1, 2, 3}, turned[] = {1, 2, 3, 0};
  wkv_cache *with_null[] = {handles_[0], nullptr, handles_[2], handles_[3]};
  wkv_cache *twice[] = {handles_[0], handles_[0], handles_[2], handles_[3]};
  wkv_cache *mixed[] = {handles_[0], handles_[1], foreign, handles_[3]};
  auto refused = [&](wkv_status expected, wkv_status status) { WKV_EXPECT_STATUS(expected, status, failure_); };
  refused(WKV_INVALID, wkv_cache_select(handles_.data(), 4, outside, copies, 4, &failure_));
  refused(WKV_INVALID, wkv_cache_select(with_null, 4, rising, copies, 4, &failure_));
  refused(WKV_INVALID, wkv_cache_select(nullptr, 4, rising, copies, 4, &failure_));
  refused(WKV_INVALID, wkv_cache_select(handles_.data(), 4, nullptr, copies, 4, &failure_));
  refused(WKV_INVALID, wkv_cache_select(handles_.data(), 4, rising, nullptr, 4, &failure_));
  refused(WKV_INVALID, wkv_cache_select(handles_.data(), SIZE_MAX, rising, copies, 4, &failure_));
  refused(WKV_INVALID, wkv_cache_select(handles_.data(), 4, rising, copies, SIZE_MAX, &failure_));
  refused(WKV_INVALID, wkv_cache_repeat(handles_.data(), 4, 2, copies, 4, &failure_));
  refused(WKV_INVALID, wkv_cache_repeat(handles_.data(), 4, 0, copies, 4, &failure_));
  refused(WKV_INVALID, wkv_cache_repeat(handles_.data(), SIZE_MAX / 2 + 1, 2, copies, 0, &failure_));
  refused(WKV_INVALID, wkv_cache_reorder(handles_.data(), outside, 4, &failure_));
  refused(WKV_INVALID, wkv_cache_reorder(twice, turned, 4, &failure_));
  refused(WKV_INVALID, wkv_cache_reorder(with_null, turned, 4, &failure_));
  refused(WKV_MISMATCH, wkv_cache_reorder(mixed, turned, 4, &failure_));
  for (wkv_cache *copy : copies) EXPECT_EQ(copy, nullptr);
  for (size_t i = 0; i < 4; i++) expect(caches_[i], i);
  // all are free again
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_reorder(handles_.data(), turned, 4, &failure_), failure_);
}

}  // namespace
}  // namespace libwkv::test
