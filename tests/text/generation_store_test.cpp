// SPDX-License-Identifier: Apache-2.0
// A generation with a prefix store: what was read before is not computed again, and nothing else differs.
#include <cstdio>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "text/generation_support.h"

namespace libwkv::test {
namespace {

using Store = Owned<wkv_prefix_store, wkv_prefix_store_release>;

wkv_model_options reproducible() {
  wkv_model_options o = default_options();
  o.is_reproducible = 1;  // a prompt in parts gives the same bits
  return o;
}

struct Answer {
  std::vector<int32_t> tokens;
  std::string text;
  Piece last;
};

class GenerationStore : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(model_.model.get(), nullptr);
    tokenizer_ = load_vocabulary(rough_vocabulary());
    store_ = create_store(model_.model);
  }

  Store create_store(wkv_model *model) {
    wkv_prefix_store_options o{};
    o.struct_size = sizeof o;
    o.min_tokens = 1;
    Store store;
    EXPECT_EQ(wkv_prefix_store_create(model, &o, store.out(), &failure_), WKV_OK) << failure_.message;
    return store;
  }
  wkv_prefix_store_info info_of_store() {
    wkv_prefix_store_info info{};
    info.struct_size = sizeof info;
    EXPECT_EQ(wkv_prefix_store_get_info(store_, &info, nullptr), WKV_OK);
    return info;
  }
  wkv_generation_options options(const std::vector<int32_t> &prompt, wkv_prefix_store *store) {
    wkv_generation_options o = generation_options(tokenizer_, nullptr, 12);
    o.prompt_tokens = prompt.data();
    o.prompt_tokens_count = prompt.size();
    o.prefix_store = store;
    return o;
  }
  Answer answer(const wkv_generation_options &o, wkv_cache *cache, uint64_t seed) {
    Answer a;
    Generation generation;
    const Sampler sampler = rough_sampler(seed);
    EXPECT_EQ(wkv_generation_create(cache, sampler, &o, generation.out(), &failure_), WKV_OK) << failure_.message;
    wkv_status status;
    Piece piece;
    while ((status = wkv_generation_next(generation, &piece, &failure_)) == WKV_OK) {
      a.tokens.push_back(piece.token);
      a.text.append(piece.text, piece.text_bytes);
      a.last = piece;
    }
    EXPECT_EQ(status, WKV_END) << failure_.message;
    EXPECT_EQ(piece.reused_tokens, a.last.reused_tokens);
    return a;
  }

  RandomModel model_{odd_shape, WKV_TYPE_F32, reproducible()};
  Tokenizer tokenizer_;
  Store store_;
  Failure failure_;
};

TEST_F(GenerationStore, gives_what_would_have_come_without_it) {
  const std::vector<int32_t> prompt = random_tokens(40, 256, 1);
  const Cache plain = create_cache(model_.model), first = create_cache(model_.model),
              second = create_cache(model_.model);
  const Answer without = answer(options(prompt, nullptr), plain, 3);
  EXPECT_EQ(without.last.reused_tokens, 0);
  const Answer cold = answer(options(prompt, store_), first, 3);
  EXPECT_EQ(cold.tokens, without.tokens);
  EXPECT_EQ(cold.last.reused_tokens, 0);
  EXPECT_EQ(cold.last.prompt_tokens, 40);
  const Answer warm = answer(options(prompt, store_), second, 3);
  EXPECT_EQ(warm.tokens, without.tokens);
  EXPECT_EQ(warm.last.reused_tokens, 39);
  EXPECT_EQ(warm.last.prompt_tokens, 40);
  EXPECT_TRUE(snapshot_of(model_.info, first) == snapshot_of(model_.info, plain));
  EXPECT_TRUE(snapshot_of(model_.info, second) == snapshot_of(model_.info, plain));
}

TEST_F(GenerationStore, a_turn_costs_its_new_tokens) {
  std::vector<int32_t> history = random_tokens(20, 256, 2);
  size_t known = 0;
  for (uint64_t turn = 0; turn < 6; turn++) {
    const Cache cache = create_cache(model_.model), plain = create_cache(model_.model);
    const Answer a = answer(options(history, store_), cache, turn);
    EXPECT_EQ(a.last.reused_tokens, static_cast<int64_t>(known)) << turn;
    EXPECT_EQ(a.tokens, answer(options(history, nullptr), plain, turn).tokens);
    EXPECT_TRUE(snapshot_of(model_.info, cache) == snapshot_of(model_.info, plain));
    history.insert(history.end(), a.tokens.begin(), a.tokens.end());
    known = history.size() - 1;  // all but the pending token
    const std::vector<int32_t> question = random_tokens(7, 256, 100 + turn);
    history.insert(history.end(), question.begin(), question.end());
  }
}

TEST_F(GenerationStore, keeps_what_is_left_when_a_stop_was_taken_back) {
  const std::vector<int32_t> prompt = random_tokens(20, 256, 4);
  wkv_generation_options o = options(prompt, nullptr);
  o.max_tokens = 60;
  const Answer free = answer(o, create_cache(model_.model), 5);
  const size_t place = free.text.find("\n\n", 8);
  ASSERT_NE(place, std::string::npos);
  const std::string stop = free.text.substr(place, 2);
  const char *stops[] = {stop.c_str()};
  o.stop_strings = stops;
  o.stop_strings_count = 1;
  o.prefix_store = store_;
  const Cache cache = create_cache(model_.model);
  const Answer stopped = answer(o, cache, 5);
  ASSERT_EQ(stopped.last.reason, WKV_REASON_STOP_STRING);
  const uint64_t position = info_of(cache.get()).position;
  ASSERT_LT(position, 20 + stopped.tokens.size());
  std::vector<int32_t> next(prompt);
  next.insert(next.end(), stopped.tokens.begin(), stopped.tokens.begin() + static_cast<long>(position - 20));
  next.push_back(77);
  const Cache again = create_cache(model_.model);
  size_t known = 0;
  ASSERT_EQ(wkv_prefix_store_find(store_, next.data(), next.size(), again, &known, &failure_), WKV_OK);
  EXPECT_EQ(known, position);
  EXPECT_TRUE(snapshot_of(model_.info, again) == snapshot_of(model_.info, cache));
}

TEST_F(GenerationStore, needs_a_cache_that_has_read_nothing) {
  const std::vector<int32_t> prompt = random_tokens(20, 256, 6);
  const wkv_generation_options o = options(prompt, store_);
  const auto refused = [&](wkv_status status, const char *what, wkv_cache *cache) {
    Generation generation;
    ASSERT_EQ(wkv_generation_create(cache, nullptr, &o, generation.out(), &failure_), WKV_OK) << failure_.message;
    const Snapshot before = snapshot_of(info_of(model_.model.get()), cache);
    Piece piece;
    piece.token = -77;
    EXPECT_EQ(wkv_generation_next(generation, &piece, &failure_), status);
    EXPECT_NE(std::string(failure_.message).find(what), std::string::npos) << failure_.message;
    EXPECT_EQ(piece.token, -77);
    EXPECT_TRUE(snapshot_of(info_of(model_.model.get()), cache) == before);
  };
  Cache cache = create_cache(model_.model);
  step(model_.info, model_.model, cache, prompt);
  refused(WKV_INVALID, "position 0, it is at 20", cache);
  ASSERT_EQ(wkv_cache_reset(cache, nullptr), WKV_OK);
  ASSERT_EQ(wkv_cache_mark(cache, nullptr, nullptr), WKV_OK);
  refused(WKV_INVALID, "checkpoints", cache);
  cache = create_cache(model_.model);
  std::vector<float> shift(part_size(model_.info, WKV_STATE_ATT_SHIFT), 0.5f);
  ASSERT_EQ(wkv_cache_write_state(cache, 0, WKV_STATE_ATT_SHIFT, shift.data(), shift.size(), nullptr), WKV_OK);
  refused(WKV_INVALID, "all zero", cache);
  const RandomModel other(odd_shape, WKV_TYPE_F32, reproducible());
  Generation generation;
  EXPECT_EQ(wkv_generation_create(create_cache(other.model), nullptr, &o, generation.out(), &failure_), WKV_MISMATCH);
  EXPECT_EQ(info_of_store().entries, 0u);
}

struct Watched {
  uint64_t last = 0, total = 0, calls = 0, cancel_at = 0;
  static int32_t progress(void *user, uint64_t done_tokens, uint64_t total_tokens) {
    Watched &w = *static_cast<Watched *>(user);
    EXPECT_GE(done_tokens, w.last);
    w.last = done_tokens;
    w.total = total_tokens;
    return ++w.calls == w.cancel_at;
  }
};

TEST_F(GenerationStore, progress_counts_the_whole_prompt_and_cancelling_leaves_the_cache) {
  const std::vector<int32_t> prompt = random_tokens(30, 256, 7);
  const Answer plain = answer(options(prompt, nullptr), create_cache(model_.model), 8);
  Watched watched;
  wkv_generation_options o = options(prompt, store_);
  o.progress = Watched::progress;
  o.progress_user = &watched;
  answer(o, create_cache(model_.model), 8);
  EXPECT_EQ(watched.last, 30u);
  EXPECT_EQ(watched.total, 30u);
  const uint64_t calls = watched.calls;
  for (uint64_t at = 1; at <= calls; at++) {
    ASSERT_EQ(wkv_prefix_store_clear(store_, nullptr), WKV_OK);
    watched = {};
    watched.cancel_at = at;
    const Cache cache = create_cache(model_.model);
    const Sampler sampler = rough_sampler(8);
    Generation generation;
    ASSERT_EQ(wkv_generation_create(cache, sampler, &o, generation.out(), &failure_), WKV_OK);
    Piece piece;
    WKV_EXPECT_STATUS(WKV_CANCELLED, wkv_generation_next(generation, &piece, &failure_), failure_);
    EXPECT_EQ(info_of(cache.get()).position, 0u);
    watched = {};
    std::vector<int32_t> tokens;
    while (wkv_generation_next(generation, &piece, &failure_) == WKV_OK) tokens.push_back(piece.token);
    EXPECT_EQ(tokens, plain.tokens);
    EXPECT_EQ(watched.last, 30u);
  }
}

// A storage that takes nothing and gives nothing is no reason to fail.
TEST_F(GenerationStore, goes_on_when_the_storage_fails) {
  wkv_prefix_storage storage{};
  storage.struct_size = sizeof storage;
  storage.put = [](void *, const char *, const void *, size_t) -> int32_t { return 1; };
  storage.get = [](void *, const char *, void *, size_t, size_t *) -> int32_t { return 1; };
  storage.evict = [](void *, const char *) {};
  wkv_prefix_store_options o{};
  o.struct_size = sizeof o;
  o.min_tokens = 1;
  o.memory_bytes_max = 1;
  o.storage = &storage;
  Store store;
  ASSERT_EQ(wkv_prefix_store_create(model_.model, &o, store.out(), &failure_), WKV_OK) << failure_.message;
  const std::vector<int32_t> prompt = random_tokens(20, 256, 9);
  const Answer plain = answer(options(prompt, nullptr), create_cache(model_.model), 2);
  for (int i = 0; i < 2; i++) {
    const Answer a = answer(options(prompt, store), create_cache(model_.model), 2);
    EXPECT_EQ(a.tokens, plain.tokens);
    EXPECT_EQ(a.last.reused_tokens, 0);
  }
}

TEST_F(GenerationStore, one_token_is_a_prompt_too) {
  const std::vector<int32_t> prompt = {66};
  const Answer plain = answer(options(prompt, nullptr), create_cache(model_.model), 2);
  for (int i = 0; i < 2; i++) {
    const Answer a = answer(options(prompt, store_), create_cache(model_.model), 2);
    EXPECT_EQ(a.tokens, plain.tokens);
    EXPECT_EQ(a.last.reused_tokens, 0);
  }
}

}  // namespace
}  // namespace libwkv::test
