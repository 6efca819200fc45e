// SPDX-License-Identifier: Apache-2.0
// A step that is watched: it reports, and wherever it is cancelled nothing has changed.
#include "support/models.h"

namespace libwkv::test {
namespace {

struct Watch {
  int64_t calls = 0, cancel_at = -1;
  uint64_t done = 0, total = 0;
  bool falls = false;

  static int32_t call(void *user, uint64_t done, uint64_t total) {
    Watch &self = *static_cast<Watch *>(user);
    self.falls |= done < self.done || done > total;
    self.done = done;
    self.total = total;
    return self.calls++ == self.cancel_at;
  }
  wkv_step_options options() {
    wkv_step_options options{};
    options.struct_size = sizeof options;
    options.progress = call;
    options.progress_user = this;
    return options;
  }
};

wkv_model_options chunks_of(int32_t tokens) {
  wkv_model_options options = default_options();
  options.threads = 2;
  options.chunk_tokens = tokens;
  return options;
}

TEST(Watched, a_step_reports_to_its_end) {
  RandomModel random(odd_shape, WKV_TYPE_F32, chunks_of(16));
  Cache watched = create_cache(random.model), plain = create_cache(random.model);
  std::vector<int32_t> tokens = random_tokens(100, random.info.vocab_size, 1);
  std::vector<float> expected = step(random.info, random.model, plain, tokens), logits(expected.size());
  Watch watch;
  wkv_step_options options = watch.options();
  wkv_step_item item = make_item(watched, tokens, logits.data(), logits.size());
  Failure failure;
  WKV_ASSERT_STATUS(WKV_OK, wkv_model_step_watched(random.model, &item, 1, &options, &failure), failure);
  EXPECT_EQ(watch.calls, 7 * random.info.layers);
  EXPECT_EQ(watch.done, 100u);
  EXPECT_EQ(watch.total, 100u);
  EXPECT_FALSE(watch.falls);
  EXPECT_EQ(logits, expected);
  EXPECT_TRUE(snapshot_of(random.info, watched) == snapshot_of(random.info, plain));
}

// A failure at every layer of every chunk: caches, checkpoints, sampler and memory are as before, and what is done
// afterwards is what would have been done.
TEST(Watched, a_step_cancelled_anywhere_changes_nothing) {
  RandomModel random(odd_shape, WKV_TYPE_F32, chunks_of(8));
  const size_t vocab = static_cast<size_t>(random.info.vocab_size);
  std::vector<int32_t> history = random_tokens(5, random.info.vocab_size, 1);
  std::vector<int32_t> tokens = random_tokens(21, random.info.vocab_size, 2);
  wkv_sampler_options sampling{};
  sampling.struct_size = sizeof sampling;
  sampling.presence = 0.5f;
  wkv_cache_options keeping{};
  keeping.struct_size = sizeof keeping;
  keeping.checkpoint_every_tokens = 4;

  std::vector<Snapshot> finished;
  int32_t finished_token = -1;
  int64_t calls = 1;
  for (int64_t cancel_at = -1; cancel_at < calls; cancel_at++) {
    Cache fresh, used, shared, fork;
    Sampler sampler;
    ASSERT_EQ(wkv_sampler_create(&sampling, sampler.out(), nullptr), WKV_OK);
    ASSERT_EQ(wkv_cache_create(random.model, nullptr, fresh.out(), nullptr), WKV_OK);
    ASSERT_EQ(wkv_cache_create(random.model, &keeping, used.out(), nullptr), WKV_OK);
    ASSERT_EQ(wkv_cache_create(random.model, nullptr, shared.out(), nullptr), WKV_OK);
    step(random.info, random.model, used, history);
    step(random.info, random.model, shared, history);
    ASSERT_EQ(wkv_cache_copy(shared, fork.out(), nullptr), WKV_OK);
    std::vector<Snapshot> before;
    for (wkv_cache *cache : {fresh.get(), used.get(), shared.get(), fork.get()})
      before.push_back(snapshot_of(random.info, cache));
    const wkv_memory_info memory = memory_of(random.model);
    const uint64_t kept = info_of(used).kept_count;

    auto run = [&](Watch &watch) {
      int32_t next_token = -1;
      std::vector<float> logits(vocab);
      std::vector<wkv_step_item> items = {
          make_item(fresh, tokens, logits.data(), vocab), make_item(used, tokens),
          make_item(shared, std::span(tokens).first(3), nullptr, 0, WKV_STEP_ALL_STATES)};
      items[1].sampler = sampler;
      items[1].next_token = &next_token;
      wkv_step_options options = watch.options();
      Failure failure;
      const wkv_status status = wkv_model_step_watched(random.model, items.data(), 3, &options, &failure);
      EXPECT_EQ(status, watch.cancel_at >= 0 && watch.cancel_at < watch.calls ? WKV_CANCELLED : WKV_OK)
          << failure.message;
      if (status != WKV_OK) {
        EXPECT_EQ(next_token, -1);
      }
      return next_token;
    };
    if (cancel_at >= 0) {
      Watch watch;
      watch.cancel_at = cancel_at;
      run(watch);
      size_t i = 0;
      for (wkv_cache *cache : {fresh.get(), used.get(), shared.get(), fork.get()})
        EXPECT_TRUE(snapshot_of(random.info, cache) == before[i++]) << "cache " << i << ", cancelled at " << cancel_at;
      EXPECT_EQ(info_of(used).kept_count, kept);
      EXPECT_EQ(info_of(shared).kept_count, 0u);
      EXPECT_EQ(memory_of(random.model).caches_bytes, memory.caches_bytes);
      EXPECT_EQ(memory_of(random.model).checkpoints_bytes, memory.checkpoints_bytes);
    }
    Watch whole;
    const int32_t token = run(whole);
    if (cancel_at < 0) {
      finished_token = token;
      calls = whole.calls;
      EXPECT_GT(calls, 3 * random.info.layers);
    }
    EXPECT_EQ(token, finished_token) << "after a cancellation at " << cancel_at;
    std::vector<Snapshot> now;
    for (wkv_cache *cache : {fresh.get(), used.get(), shared.get(), fork.get()})
      now.push_back(snapshot_of(random.info, cache));
    if (cancel_at < 0)
      finished = now;
    else
      for (size_t i = 0; i < now.size(); i++)
        EXPECT_TRUE(now[i] == finished[i]) << "cache " << i << " after a cancellation at " << cancel_at;
  }
}

TEST(Watched, options_are_checked) {
  RandomModel random(odd_shape, WKV_TYPE_F32, chunks_of(8));
  Cache cache = create_cache(random.model);
  std::vector<int32_t> tokens = {1, 2};
  wkv_step_item item = make_item(cache, tokens);
  Failure failure;
  wkv_step_options options{};
  EXPECT_EQ(wkv_model_step_watched(random.model, &item, 1, &options, &failure), WKV_INVALID);
  options.struct_size = sizeof options;
  options.reserved = 1;
  EXPECT_EQ(wkv_model_step_watched(random.model, &item, 1, &options, &failure), WKV_UNSUPPORTED);
  EXPECT_EQ(info_of(cache).position, 0u);
  EXPECT_EQ(wkv_model_step_watched(random.model, &item, 1, nullptr, &failure), WKV_OK);
  EXPECT_EQ(info_of(cache).position, 2u);
}

}  // namespace
}  // namespace libwkv::test
