// SPDX-License-Identifier: Apache-2.0
// Many threads on one model: results as in one thread, and a cache that two calls meet is busy, never damaged.
#include <atomic>
#include <thread>

#include "support/models.h"

namespace libwkv::test {
namespace {

wkv_model_options reproducible(int32_t threads) {
  wkv_model_options options = default_options();
  options.threads = threads;
  options.is_reproducible = 1;
  return options;
}

TEST(Concurrent, caches_of_one_model_do_not_meet) {
  constexpr int threads = 8, rounds = 12;
  RandomModel random(odd_shape, WKV_TYPE_F16, reproducible(3));
  size_t vocab_size = static_cast<size_t>(random.info.vocab_size);
  // the life of one cache: prompt, fork, decode, batch with its fork
  auto live = [&](int thread, std::vector<float> &log) {
    Cache cache, fork;
    if (wkv_cache_create(random.model, nullptr, cache.out(), nullptr) != WKV_OK) return;
    for (int round = 0; round < rounds; round++) {
      std::vector<int32_t> tokens = random_tokens(static_cast<size_t>(1 + (round * 5 + thread) % 9),
                                                  random.info.vocab_size, static_cast<uint64_t>(thread * 100 + round));
      std::vector<float> logits(vocab_size * 2);
      if (wkv_cache_step(cache, tokens.data(), tokens.size(), logits.data(), vocab_size, nullptr) != WKV_OK) return;
      if (wkv_cache_copy(cache, fork.out(), nullptr) != WKV_OK) return;
      std::vector<wkv_step_item> items = {make_item(cache, std::span(tokens).first(1), logits.data(), vocab_size),
                                          make_item(fork, tokens, logits.data() + vocab_size, vocab_size)};
      if (wkv_model_step(random.model, items.data(), 2, nullptr) != WKV_OK) return;
      log.insert(log.end(), logits.begin(), logits.end());
      if (round % 4 == 3 && wkv_cache_assign(cache, fork, nullptr) != WKV_OK) return;
    }
  };
  std::vector<std::vector<float>> serial(threads), parallel(threads);
  for (int t = 0; t < threads; t++) {
    live(t, serial[static_cast<size_t>(t)]);
    ASSERT_EQ(serial[static_cast<size_t>(t)].size(), vocab_size * 2 * rounds);
  }
  {
    std::vector<std::jthread> running;
    for (int t = 0; t < threads; t++) running.emplace_back([&, t] { live(t, parallel[static_cast<size_t>(t)]); });
  }
  for (size_t t = 0; t < threads; t++) EXPECT_EQ(parallel[t], serial[t]) << "thread " << t;
  EXPECT_EQ(memory_of(random.model).caches_bytes, 0u);
}

// Every call on the shared cache either happens whole or is refused with WKV_BUSY.
TEST(Concurrent, calls_on_one_cache_take_turns_or_are_refused) {
  RandomModel random(odd_shape, WKV_TYPE_F32, reproducible(2));
  Cache shared = create_cache(random.model);
  std::vector<int32_t> token = {42};
  constexpr int threads = 4, calls = 150;
  std::atomic<int> done{0}, refused{0}, wrong{0};
  {
    std::vector<std::jthread> running;
    for (int t = 0; t < threads; t++)
      running.emplace_back([&, t] {
        std::vector<float> values(part_size(random.info, WKV_STATE_WKV));
        for (int i = 0; i < calls; i++) {
          wkv_status status = wkv_cache_step(shared, token.data(), 1, nullptr, 0, nullptr);
          (status == WKV_OK ? done : status == WKV_BUSY ? refused : wrong)++;
          Cache copy;
          status = i % 3 ? wkv_cache_read_state(shared, t % 3, WKV_STATE_WKV, values.data(), values.size(), nullptr)
                         : wkv_cache_copy(shared, copy.out(), nullptr);
          if (status != WKV_OK && status != WKV_BUSY) wrong++;
        }
      });
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(done + refused, threads * calls);
  EXPECT_GE(done, 1);
  EXPECT_EQ(info_of(shared).position, static_cast<uint64_t>(done));
  Cache alone = create_cache(random.model);
  for (int i = 0; i < done; i++) step(random.info, random.model, alone, token);
  EXPECT_TRUE(snapshot_of(random.info, shared) == snapshot_of(random.info, alone)) << "the shared cache was damaged";
}

// While one long step runs, every other call on that cache is refused and none on another cache is.
TEST(Concurrent, a_cache_in_use_is_busy) {
  RandomModel random(odd_shape, WKV_TYPE_F32, reproducible(1));
  Cache busy = create_cache(random.model), other = create_cache(random.model), target = create_cache(random.model);
  std::vector<int32_t> prompt = random_tokens(30000, random.info.vocab_size, 1);
  std::atomic<bool> running{true};
  std::atomic<int> status{77};
  std::jthread worker([&] {
    do {  // the look at the cache below may come first
      status = wkv_cache_step(busy, prompt.data(), prompt.size(), nullptr, 0, nullptr);
    } while (status == WKV_BUSY);
    running = false;
  });
  bool met = false;
  std::vector<float> values(part_size(random.info, WKV_STATE_WKV));
  while (running && !met) {
    Failure failure;
    met = wkv_cache_reset(target, nullptr) == WKV_OK &&
          wkv_cache_read_state(busy, 0, WKV_STATE_WKV, values.data(), values.size(), &failure) == WKV_BUSY;
  }
  if (met && running) {
    Failure failure;
    Cache copy;
    auto refused = [&](wkv_status found) {
      EXPECT_TRUE(found == WKV_BUSY || !running) << found << " " << failure.message;
    };
    refused(wkv_cache_copy(busy, copy.out(), &failure));
    refused(wkv_cache_write_state(busy, 0, WKV_STATE_WKV, values.data(), values.size(), &failure));
    refused(wkv_cache_assign(target, busy, &failure));
    wkv_cache_info info{};
    info.struct_size = sizeof info;
    refused(wkv_cache_get_info(busy, &info, &failure));
    EXPECT_EQ(info_of(other).position, 0u);
  }
  worker.join();
  EXPECT_TRUE(met) << "the step was over before it was met";
  EXPECT_EQ(status, WKV_OK);
  // what was refused has changed nothing (a call that came after the end may have)
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_reset(busy, nullptr), Failure());
}

// Handles may be released while calls run on them in other threads' copies of the references.
TEST(Concurrent, models_and_caches_are_released_anywhere) {
  for (int round = 0; round < 10; round++) {
    RandomModel random(odd_shape, WKV_TYPE_F32, reproducible(2));
    std::vector<wkv_cache *> caches(8);
    for (wkv_cache *&cache : caches) ASSERT_EQ(wkv_cache_create(random.model, nullptr, &cache, nullptr), WKV_OK);
    std::vector<std::jthread> running;
    std::atomic<int> failures{0};
    for (wkv_cache *cache : caches)
      running.emplace_back([cache, &failures] {
        int32_t tokens[] = {1, 2, 3};
        if (wkv_cache_step(cache, tokens, 3, nullptr, 0, nullptr) != WKV_OK) failures++;
        wkv_cache_release(cache);
      });
    random.model.reset();
    running.clear();
    EXPECT_EQ(failures, 0);
  }
}

TEST(Concurrent, models_load_side_by_side) {
  Image image = random_gguf(odd_shape, WKV_TYPE_Q8, 0.5, 1, 1);
  std::vector<int32_t> tokens = random_tokens(10, odd_shape.vocab_size, 1);
  constexpr size_t threads = 6;
  std::vector<std::vector<float>> logits(threads, std::vector<float>(static_cast<size_t>(odd_shape.vocab_size)));
  {
    std::vector<std::jthread> running;
    for (size_t t = 0; t < threads; t++)
      running.emplace_back([&, t] {
        wkv_model_options options = reproducible(static_cast<int32_t>(1 + t % 3));
        Model model;
        Cache cache;
        if (wkv_model_load_memory(image.data(), image.size(), &options, model.out(), nullptr) != WKV_OK) return;
        if (wkv_cache_create(model, nullptr, cache.out(), nullptr) != WKV_OK) return;
        wkv_cache_step(cache, tokens.data(), tokens.size(), logits[t].data(), logits[t].size(), nullptr);
      });
  }
  EXPECT_GT(largest_magnitude(logits[0]), 0);
  for (size_t t = 1; t < threads; t++) EXPECT_EQ(logits[t], logits[0]);
}

// Thousands of forks of a few prompts, stepped, marked, rolled back and released by eight threads: each holds what its
// own tokens make of it, and all memory comes back.
TEST(Concurrent, forks_of_shared_states_do_not_meet) {
  constexpr int threads = 8, forks = 250;
  RandomModel random(odd_shape, WKV_TYPE_F16, reproducible(2));
  std::vector<Cache> prompts;
  for (uint64_t i = 0; i < 3; i++) {
    prompts.push_back(create_cache(random.model));
    step(random.info, random.model, prompts.back(), random_tokens(4, random.info.vocab_size, i));
  }
  const uint64_t before = memory_of(random.model).caches_bytes;
  auto expected_after = [&](size_t prompt, int32_t token) {
    Cache fork;
    EXPECT_EQ(wkv_cache_copy(prompts[prompt], fork.out(), nullptr), WKV_OK);
    step(random.info, random.model, fork, std::span(&token, 1));
    return snapshot_of(random.info, fork);
  };
  std::vector<std::vector<Snapshot>> expected(prompts.size());
  for (size_t p = 0; p < prompts.size(); p++)
    for (int32_t token = 0; token < 4; token++) expected[p].push_back(expected_after(p, token));
  // a fork is busy only for the moment of its copy: those who meet there try again
  auto copy_of = [](wkv_cache *source) {
    Cache copy;
    while (wkv_cache_copy(source, copy.out(), nullptr) == WKV_BUSY) std::this_thread::yield();
    return copy;
  };
  std::atomic<int> wrong{0};
  {
    std::vector<std::jthread> running;
    for (int t = 0; t < threads; t++)
      running.emplace_back([&, t] {
        std::vector<Cache> live;
        for (int i = 0; i < forks; i++) {
          const size_t prompt = static_cast<size_t>(i + t) % prompts.size();
          const int32_t token = (i / 3) % 4;
          live.push_back(copy_of(prompts[prompt]));
          uint64_t position = 0;
          if (wkv_cache_mark(live.back(), &position, nullptr) != WKV_OK || position != 4) wrong++;
          if (i % 10 == 0) {
            if (wkv_cache_step(live.back(), &token, 1, nullptr, 0, nullptr) != WKV_OK) wrong++;
            if (!(snapshot_of(random.info, live.back()) == expected[prompt][static_cast<size_t>(token)])) wrong++;
          }
          if (i % 3 == 0 && wkv_cache_rollback(live.back(), 4, nullptr) != WKV_OK) wrong++;
          if (i % 7 == 0) live.erase(live.begin() + i % static_cast<int>(live.size()));
        }
      });
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(memory_of(random.model).caches_bytes, before);
  EXPECT_EQ(memory_of(random.model).checkpoints_bytes, 0u);
}

}  // namespace
}  // namespace libwkv::test
