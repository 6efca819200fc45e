// SPDX-License-Identifier: Apache-2.0
// No memory for forks, checkpoints, arrays and steps that keep states: nothing has changed, and all goes on.
#include "faults/fail_each.h"

namespace libwkv::test {
namespace {

wkv_model_options one_thread() {
  wkv_model_options options = default_options();
  options.threads = 1;
  options.chunk_tokens = 8;
  return options;
}

class CacheAllocations : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!malloc_can_fail()) GTEST_SKIP() << "malloc cannot be replaced in this build";
    wkv_cache_options options{};
    options.struct_size = sizeof options;
    options.checkpoint_every_tokens = 5;
    options.checkpoints_count_max = 2;
    ASSERT_EQ(wkv_cache_create(random_.model, &options, kept_.out(), nullptr), WKV_OK);
    step(random_.info, random_.model, kept_, random_tokens(12, random_.info.vocab_size, 1));
    ASSERT_EQ(wkv_cache_mark(kept_, nullptr, nullptr), WKV_OK);
    step(random_.info, random_.model, kept_, random_tokens(2, random_.info.vocab_size, 2));
    before_ = snapshot_of(random_.info, kept_);
  }
  // Runs `work` on a fork of a cache with history, and looks at the fork when it has failed.
  void on_a_fork(const std::string &what, const std::function<wkv_status(wkv_cache *)> &work) {
    fail_each(
        what, GetParam(),
        [&]() -> wkv_status {
          Cache fork;
          if (wkv_cache_copy(kept_, fork.out(), nullptr) != WKV_OK) return WKV_OUT_OF_MEMORY;
          const wkv_status status = work(fork);
          if (status != WKV_OK) {
            EXPECT_EQ(info_of(fork).position, 14u) << what;
            EXPECT_EQ(info_of(fork).kept_count, 3u) << what;
            EXPECT_EQ(info_of(fork).is_shared, 1) << what;
          }
          return status;
        },
        [&](int64_t n, wkv_status) {
          ASSERT_TRUE(snapshot_of(random_.info, kept_) == before_) << what << ", allocation " << n;
          ASSERT_EQ(info_of(kept_).kept_count, 3u) << what << ", allocation " << n;
        });
  }
  RandomModel random_{odd_shape, WKV_TYPE_F32, one_thread()};
  Cache kept_;
  Snapshot before_;
  const std::vector<float> values_ = std::vector<float>(static_cast<size_t>(odd_shape.width), 1.0f);
  const std::vector<int32_t> tokens_ = random_tokens(30, odd_shape.vocab_size, 3);
};

TEST_P(CacheAllocations, of_checkpoints) {
  on_a_fork("mark", [](wkv_cache *fork) { return wkv_cache_mark(fork, nullptr, nullptr); });
  on_a_fork("rollback", [](wkv_cache *fork) { return wkv_cache_rollback(fork, 10, nullptr); });
  on_a_fork("unmark", [](wkv_cache *fork) { return wkv_cache_unmark(fork, 12, nullptr); });
}

TEST_P(CacheAllocations, of_steps_that_keep_states) {
  on_a_fork("a step with a ring",
            [&](wkv_cache *fork) { return wkv_cache_step(fork, tokens_.data(), 30, nullptr, 0, nullptr); });
  on_a_fork("a step that verifies", [&](wkv_cache *fork) {
    wkv_step_item item = make_item(fork, std::span(tokens_).first(6), nullptr, 0, WKV_STEP_ALL_STATES);
    return wkv_model_step(random_.model, &item, 1, nullptr);
  });
  on_a_fork("a watched step", [&](wkv_cache *fork) {
    wkv_step_options options{};
    options.struct_size = sizeof options;
    options.progress = [](void *, uint64_t, uint64_t) { return 0; };
    wkv_step_item item = make_item(fork, std::span(tokens_).first(6));
    return wkv_model_step_watched(random_.model, &item, 1, &options, nullptr);
  });
  on_a_fork("a written part", [&](wkv_cache *fork) {
    return wkv_cache_write_state(fork, 0, WKV_STATE_ATT_SHIFT, values_.data(), values_.size(), nullptr);
  });
}

TEST_P(CacheAllocations, of_arrays) {
  Cache other = create_cache(random_.model);
  wkv_cache *caches[] = {kept_, other};
  const Snapshot empty = snapshot_of(random_.info, other);
  auto check = [&](int64_t n, wkv_status) {
    ASSERT_TRUE(snapshot_of(random_.info, kept_) == before_) << "allocation " << n;
    ASSERT_TRUE(snapshot_of(random_.info, other) == empty) << "allocation " << n;
  };
  auto copies = [&](auto &&call) {
    return [&, call]() -> wkv_status {
      wkv_cache *made[4] = {};
      const wkv_status status = call(made);
      for (wkv_cache *one : made) {
        if (status != WKV_OK && one) return WKV_INTERNAL;  // an output that a failed call has written
        wkv_cache_release(one);
      }
      return status;
    };
  };
  const size_t indices[] = {1, 0, 0, 1}, swapped[] = {1, 0};
  fail_each("select", GetParam(),
            copies([&](wkv_cache **made) { return wkv_cache_select(caches, 2, indices, made, 4, nullptr); }), check);
  fail_each("repeat", GetParam(),
            copies([&](wkv_cache **made) { return wkv_cache_repeat(caches, 2, 2, made, 4, nullptr); }), check);
  fail_each(
      "reorder", GetParam(),
      [&] {
        const wkv_status status = wkv_cache_reorder(caches, swapped, 2, nullptr);
        if (status != WKV_OK) return status;
        wkv_status back = WKV_OUT_OF_MEMORY;
        stop_failing();
        back = wkv_cache_reorder(caches, swapped, 2, nullptr);
        return back;
      },
      check);
}

INSTANTIATE_TEST_SUITE_P(faults, CacheAllocations, testing::Bool(),
                         [](const auto &test) { return test.param ? "and_all_after" : "one_alone"; });

}  // namespace
}  // namespace libwkv::test
