// SPDX-License-Identifier: Apache-2.0
// Positions that a cache keeps and goes back to, to the bit: marks, the ring of its options, and verified tokens.
#include "support/models.h"

namespace libwkv::test {
namespace {

using Positions = std::vector<uint64_t>;

wkv_model_options reproducible() {
  wkv_model_options options = default_options();
  options.threads = 2;
  options.is_reproducible = 1;
  options.chunk_tokens = 16;
  return options;
}

Positions kept(const wkv_cache *cache) {
  size_t count = 0;
  Failure failure;
  EXPECT_EQ(wkv_cache_get_kept_positions(cache, nullptr, 0, &count, &failure), WKV_OK) << failure.message;
  Positions positions(count);
  EXPECT_EQ(wkv_cache_get_kept_positions(cache, positions.data(), count, &count, &failure), WKV_OK) << failure.message;
  EXPECT_EQ(info_of(cache).kept_count, count);
  return positions;
}

class Checkpoints : public testing::Test {
 protected:
  Cache create(uint32_t every = 0, uint32_t most = 0, uint64_t bytes = 0) {
    wkv_cache_options options{};
    options.struct_size = sizeof options;
    options.checkpoint_every_tokens = every;
    options.checkpoints_count_max = most;
    options.checkpoints_bytes_max = bytes;
    Cache cache;
    Failure failure;
    EXPECT_EQ(wkv_cache_create(random_.model, &options, cache.out(), &failure), WKV_OK) << failure.message;
    return cache;
  }
  void feed(wkv_cache *cache, size_t begin, size_t end) {
    Failure failure;
    ASSERT_EQ(wkv_cache_step(cache, tokens_.data() + begin, end - begin, nullptr, 0, &failure), WKV_OK)
        << failure.message;
  }
  // What a cache without checkpoints holds after the first tokens.
  Snapshot after(size_t count) {
    Cache cache = create();
    if (count > 0) feed(cache, 0, count);
    return snapshot_of(random_.info, cache);
  }
  uint64_t mark(wkv_cache *cache) {
    uint64_t position = 0;
    EXPECT_EQ(wkv_cache_mark(cache, &position, &failure_), WKV_OK) << failure_.message;
    return position;
  }
  void expect_at(wkv_cache *cache, size_t position) {
    EXPECT_TRUE(snapshot_of(random_.info, cache) == after(position)) << "not the state at " << position;
  }
  RandomModel random_{odd_shape, WKV_TYPE_F16, reproducible()};
  std::vector<int32_t> tokens_ = random_tokens(200, odd_shape.vocab_size, 9);
  Failure failure_;
};

TEST_F(Checkpoints, a_mark_is_gone_back_to_exactly_and_as_often_as_wanted) {
  Cache cache = create();
  feed(cache, 0, 7);
  EXPECT_EQ(mark(cache), 7u);
  for (int round = 0; round < 3; round++) {
    feed(cache, 7, 60);
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(cache, 7, &failure_), failure_);
    expect_at(cache, 7);
    EXPECT_EQ(kept(cache), Positions{7});
  }
  feed(cache, 7, 90);  // and on it goes
  expect_at(cache, 90);
}

TEST_F(Checkpoints, marks_cost_a_state_only_when_the_cache_has_gone_on) {
  const uint64_t state = random_.info.state_bytes;
  Cache cache = create();
  feed(cache, 0, 5);
  mark(cache);
  EXPECT_EQ(memory_of(random_.model).caches_bytes, state);
  EXPECT_EQ(memory_of(random_.model).checkpoints_bytes, 0u);
  feed(cache, 5, 9);
  EXPECT_EQ(memory_of(random_.model).caches_bytes, state);
  EXPECT_EQ(memory_of(random_.model).checkpoints_bytes, state);
  feed(cache, 9, 12);
  EXPECT_EQ(memory_of(random_.model).checkpoints_bytes, state);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(cache, 5, &failure_), failure_);
  EXPECT_EQ(memory_of(random_.model).caches_bytes, state);
  EXPECT_EQ(memory_of(random_.model).checkpoints_bytes, 0u);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_unmark(cache, 5, &failure_), failure_);
  feed(cache, 5, 9);
  EXPECT_EQ(memory_of(random_.model).total_bytes,
            random_.info.weight_bytes + state + memory_of(random_.model).workspace_bytes);
}

TEST_F(Checkpoints, rolling_back_drops_what_lies_ahead) {
  Cache cache = create();
  for (size_t at = 0; at < 50; at += 10) {
    feed(cache, at, at + 10);
    mark(cache);
  }
  EXPECT_EQ(kept(cache), (Positions{10, 20, 30, 40, 50}));
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(cache, 30, &failure_), failure_);
  expect_at(cache, 30);
  EXPECT_EQ(kept(cache), (Positions{10, 20, 30}));
  WKV_EXPECT_STATUS(WKV_NOT_FOUND, wkv_cache_rollback(cache, 40, &failure_), failure_);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(cache, 10, &failure_), failure_);
  expect_at(cache, 10);
}

TEST_F(Checkpoints, other_positions_are_not_found_and_nothing_changes) {
  Cache cache = create();
  feed(cache, 0, 10);
  mark(cache);
  feed(cache, 10, 20);
  for (uint64_t position : {uint64_t{0}, uint64_t{9}, uint64_t{11}, uint64_t{21}, UINT64_MAX}) {
    WKV_EXPECT_STATUS(WKV_NOT_FOUND, wkv_cache_rollback(cache, position, &failure_), failure_);
    EXPECT_NE(std::string(failure_.message).find(std::to_string(position)), std::string::npos) << failure_.message;
  }
  WKV_EXPECT_STATUS(WKV_NOT_FOUND, wkv_cache_unmark(cache, 20, &failure_), failure_);
  expect_at(cache, 20);
  EXPECT_EQ(kept(cache), Positions{10});
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_rollback(cache, 20, &failure_), failure_);  // where it is
  expect_at(cache, 20);
}

TEST_F(Checkpoints, a_written_state_goes_back_to_the_mark_of_its_position) {
  Cache cache = create();
  feed(cache, 0, 10);
  mark(cache);
  std::vector<float> values(part_size(random_.info, WKV_STATE_ATT_SHIFT), 1.0f);
  ASSERT_EQ(wkv_cache_write_state(cache, 0, WKV_STATE_ATT_SHIFT, values.data(), values.size(), nullptr), WKV_OK);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(cache, 10, &failure_), failure_);
  expect_at(cache, 10);
}

TEST_F(Checkpoints, copies_keep_them_and_go_their_own_way) {
  Cache cache = create(), fork;
  feed(cache, 0, 10);
  mark(cache);
  feed(cache, 10, 15);
  ASSERT_EQ(wkv_cache_copy(cache, fork.out(), nullptr), WKV_OK);
  feed(fork, 15, 40);
  mark(fork);
  ASSERT_EQ(wkv_cache_unmark(cache, 10, nullptr), WKV_OK);
  EXPECT_EQ(kept(cache), Positions{});
  EXPECT_EQ(kept(fork), (Positions{10, 40}));
  cache.reset();
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(fork, 10, &failure_), failure_);
  expect_at(fork, 10);
  ASSERT_EQ(wkv_cache_reset(fork, nullptr), WKV_OK);
  EXPECT_EQ(kept(fork), Positions{});
  expect_at(fork, 0);
}

TEST_F(Checkpoints, the_ring_keeps_every_nth_position_and_the_newest) {
  for (size_t stride : {1, 3, 16, 50, 170}) {  // however the tokens arrive
    Cache cache = create(10, 4);
    for (size_t at = 0; at < 170; at += stride) feed(cache, at, std::min<size_t>(170, at + stride));
    EXPECT_EQ(kept(cache), (Positions{140, 150, 160, 170})) << stride;
    EXPECT_EQ(memory_of(random_.model).caches_bytes + memory_of(random_.model).checkpoints_bytes,
              4 * random_.info.state_bytes)
        << stride;
    for (uint64_t position : {170, 160, 150, 140}) {
      WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(cache, position, &failure_), failure_);
      expect_at(cache, position);
    }
    feed(cache, 140, 165);  // what was given up is not kept again by going on
    EXPECT_EQ(kept(cache), (Positions{140, 150, 160}));
  }
}

TEST_F(Checkpoints, the_ring_obeys_its_byte_budget_and_leaves_marks_alone) {
  Cache cache = create(10, 100, 2 * random_.info.state_bytes + 1);
  feed(cache, 0, 5);
  mark(cache);
  feed(cache, 5, 20);
  mark(cache);  // a ring position becomes a mark
  feed(cache, 20, 100);
  EXPECT_EQ(kept(cache), (Positions{5, 20, 90, 100}));
  Cache none = create(10, 100, random_.info.state_bytes - 1);
  feed(none, 0, 100);
  EXPECT_EQ(kept(none), Positions{});
}

TEST_F(Checkpoints, are_kept_by_every_item_of_a_batch) {
  std::vector<Cache> caches;
  std::vector<wkv_step_item> items;
  std::vector<Snapshot> expected;
  for (uint32_t i = 0; i < 5; i++) {
    caches.push_back(create(7 + i, 3));
    items.push_back(make_item(caches.back(), std::span(tokens_).first(10 + 17 * i)));
  }
  WKV_ASSERT_STATUS(WKV_OK, wkv_model_step(random_.model, items.data(), items.size(), &failure_), failure_);
  for (uint32_t i = 0; i < 5; i++) {
    const Positions positions = kept(caches[i]);
    EXPECT_EQ(positions.size(), std::min<size_t>(3, (10 + 17 * i) / (7 + i)));
    for (size_t p = positions.size(); p-- > 0;) {
      EXPECT_EQ(positions[p] % (7 + i), 0u);
      WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(caches[i], positions[p], &failure_), failure_);
      expect_at(caches[i], positions[p]);
    }
  }
}

TEST_F(Checkpoints, list_tells_the_size_it_needs) {
  Cache cache = create(5, 3);
  feed(cache, 0, 50);
  size_t count = 77;
  uint64_t positions[3] = {1, 1, 1};
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_get_kept_positions(cache, positions, 2, &count, &failure_), failure_);
  EXPECT_EQ(count, 3u);
  EXPECT_EQ(positions[0], 1u);
  EXPECT_EQ(wkv_cache_get_kept_positions(cache, nullptr, 2, &count, &failure_), WKV_INVALID);
  EXPECT_EQ(wkv_cache_get_kept_positions(cache, positions, 3, nullptr, &failure_), WKV_INVALID);
  EXPECT_EQ(wkv_cache_get_kept_positions(nullptr, positions, 3, &count, &failure_), WKV_INVALID);
  wkv_cache_options options{};
  options.struct_size = sizeof options;
  options.checkpoints_count_max = 65537;
  Cache refused;
  EXPECT_EQ(wkv_cache_create(random_.model, &options, refused.out(), &failure_), WKV_INVALID);
}

class Verify : public Checkpoints {
 protected:
  std::vector<float> verify(wkv_cache *cache, size_t begin, size_t count) {
    std::vector<float> logits(count * static_cast<size_t>(random_.info.vocab_size));
    wkv_step_item item = make_item(cache, std::span(tokens_).subspan(begin, count), logits.data(), logits.size(),
                                   WKV_STEP_ALL_STATES | WKV_STEP_ALL_LOGITS);
    EXPECT_EQ(wkv_model_step(random_.model, &item, 1, &failure_), WKV_OK) << failure_.message;
    return logits;
  }
};

TEST_F(Verify, any_beginning_of_the_tokens_can_be_accepted) {
  for (size_t count : {1, 2, 5, 8, 9, 31, 32})
    for (size_t accepted = 0; accepted <= count; accepted += count < 6 ? 1 : 3) {
      Cache cache = create();
      feed(cache, 0, 11);
      verify(cache, 11, count);
      WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(cache, 11 + accepted, &failure_), failure_);
      expect_at(cache, 11 + accepted);
      feed(cache, 11 + accepted, 60);
      expect_at(cache, 60);
      EXPECT_EQ(kept(cache), Positions{});  // the next step gives the rest up
    }
}

TEST_F(Verify, gives_the_scores_of_single_steps) {
  Cache cache = create(), single = create();
  const std::vector<float> logits = verify(cache, 0, 20);
  const size_t vocab = static_cast<size_t>(random_.info.vocab_size);
  for (size_t i = 0; i < 20; i++) {
    std::vector<float> one = step(random_.info, random_.model, single, std::span(tokens_).subspan(i, 1));
    EXPECT_TRUE(std::equal(one.begin(), one.end(), logits.begin() + static_cast<ptrdiff_t>(i * vocab))) << i;
  }
}

TEST_F(Verify, keeps_marks_and_the_ring) {
  Cache cache = create(4, 2);
  feed(cache, 0, 5);
  mark(cache);
  verify(cache, 5, 6);
  EXPECT_EQ(kept(cache), (Positions{4, 5, 6, 7, 8, 9, 10, 11}));
  feed(cache, 11, 13);
  EXPECT_EQ(kept(cache), (Positions{5, 8, 12}));
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(cache, 8, &failure_), failure_);
  expect_at(cache, 8);
}

TEST_F(Verify, gives_its_memory_back_with_the_next_step) {
  Cache cache = create();
  verify(cache, 0, 10);
  EXPECT_EQ(memory_of(random_.model).checkpoints_bytes, 10 * random_.info.state_bytes);
  feed(cache, 10, 11);
  EXPECT_EQ(memory_of(random_.model).checkpoints_bytes, 0u);
}

TEST_F(Verify, of_too_many_tokens_is_refused) {
  Cache cache = create();
  wkv_step_item item = make_item(cache, std::span(tokens_).first(33), nullptr, 0, WKV_STEP_ALL_STATES);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_step(random_.model, &item, 1, &failure_), failure_);
  EXPECT_EQ(item.status, WKV_INVALID);
  expect_at(cache, 0);
}

// The few-rows way of the default mode keeps the same states, within rounding.
TEST(VerifyFast, agrees_with_single_steps) {
  wkv_model_options options = default_options();
  options.threads = 2;
  for (wkv_type type : {WKV_TYPE_F32, WKV_TYPE_Q8}) {
    RandomModel random(odd_shape, type, options);
    std::vector<int32_t> tokens = random_tokens(24, random.info.vocab_size, 4);
    for (size_t count : {3, 8, 24}) {
      Cache verified = create_cache(random.model), single = create_cache(random.model);
      wkv_step_item item = make_item(verified, std::span(tokens).first(count), nullptr, 0, WKV_STEP_ALL_STATES);
      Failure failure;
      WKV_ASSERT_STATUS(WKV_OK, wkv_model_step(random.model, &item, 1, &failure), failure);
      std::vector<Snapshot> expected;
      for (size_t i = 0; i < count; i++) {
        step(random.info, random.model, single, std::span(tokens).subspan(i, 1));
        expected.push_back(snapshot_of(random.info, single));
      }
      for (size_t i = count; i-- > 0;) {
        WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(verified, i + 1, &failure), failure);
        expect_near(snapshot_of(random.info, verified), expected[i], "after token " + std::to_string(i));
      }
    }
  }
}

}  // namespace
}  // namespace libwkv::test
