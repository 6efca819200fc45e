// SPDX-License-Identifier: Apache-2.0
// Lifetimes in any order, bytes that are counted and come back, and a limit that holds.
#include "support/models.h"

namespace libwkv::test {
namespace {

wkv_model_options two_threads(uint64_t limit = 0) {
  wkv_model_options options = default_options();
  options.threads = 2;
  options.memory_limit_bytes = limit;
  return options;
}

TEST(Lifetime, a_cache_keeps_its_model) {
  RandomModel random(odd_shape, WKV_TYPE_F16, two_threads());
  Cache cache = create_cache(random.model), copy, other = create_cache(random.model);
  std::vector<int32_t> tokens = random_tokens(6, random.info.vocab_size, 3);
  std::vector<float> expected = step(random.info, random.model, other, tokens);
  random.model.reset();
  std::vector<float> logits(static_cast<size_t>(random.info.vocab_size));
  Failure failure;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_step(cache, tokens.data(), 6, logits.data(), logits.size(), &failure), failure);
  EXPECT_EQ(logits, expected);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_copy(cache, copy.out(), &failure), failure);
  cache.reset();
  other.reset();
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_step(copy, tokens.data(), 6, logits.data(), logits.size(), &failure), failure);
}

TEST(Lifetime, of_samplers_generations_and_tokenizers_is_their_own) {
  std::filesystem::path path = exact_weights("rnd_a");
  Model model = load_model(path, two_threads());
  Cache cache = create_cache(model);
  Sampler sampler;
  Generation generation;
  Tokenizer tokenizer;
  ASSERT_EQ(wkv_sampler_create(nullptr, sampler.out(), nullptr), WKV_OK);
  int32_t prompt[] = {5, 6};
  wkv_generation_options options{};
  options.struct_size = sizeof options;
  options.prompt_tokens = prompt;
  options.prompt_tokens_count = 2;
  options.max_tokens = 8;
  options.keeps_end_token = 1;
  Failure failure;
  WKV_ASSERT_STATUS(WKV_OK, wkv_generation_create(cache, sampler, &options, generation.out(), &failure), failure);
  if (info_of(model).has_tokenizer) {
    WKV_EXPECT_STATUS(WKV_OK, wkv_model_get_tokenizer(model, tokenizer.out(), &failure), failure);
  }
  model.reset();
  sampler.reset();
  cache.reset();
  int pieces = 0;
  wkv_generation_piece piece{};
  piece.struct_size = sizeof piece;
  while (wkv_generation_next(generation, &piece, &failure) == WKV_OK) pieces += piece.token >= 0;
  EXPECT_EQ(pieces, 8);
  generation.reset();
  if (!tokenizer) return;
  size_t count = 0;
  WKV_EXPECT_STATUS(WKV_OK, wkv_tokenizer_encode(tokenizer, "the", 3, nullptr, 0, &count, &failure), failure);
  EXPECT_GT(count, 0u);
}

TEST(MemoryCount, comes_back_to_the_weights) {
  RandomModel random(odd_shape, WKV_TYPE_Q8, two_threads());
  wkv_memory_info start = memory_of(random.model);
  EXPECT_EQ(start.caches_bytes, 0u);
  EXPECT_EQ(start.weights_bytes, random.info.weight_bytes);
  EXPECT_EQ(start.limit_bytes, 0u);
  {
    std::vector<Cache> caches;
    for (int i = 0; i < 10; i++) {
      caches.push_back(create_cache(random.model));
      EXPECT_EQ(memory_of(random.model).caches_bytes, static_cast<uint64_t>(i + 1) * random.info.state_bytes);
    }
    for (Cache &cache : caches)
      step(random.info, random.model, cache, random_tokens(40, random.info.vocab_size, 1), true);
    wkv_memory_info busy = memory_of(random.model);
    EXPECT_EQ(busy.total_bytes, busy.weights_bytes + busy.caches_bytes + busy.workspace_bytes);
    EXPECT_GE(busy.total_peak_bytes, busy.total_bytes);
  }
  wkv_memory_info end = memory_of(random.model);
  EXPECT_EQ(end.caches_bytes, 0u);
  EXPECT_EQ(end.weights_bytes, start.weights_bytes);
  EXPECT_EQ(end.caches_peak_bytes, 10 * random.info.state_bytes);
  EXPECT_GE(end.weights_peak_bytes, end.weights_bytes);
  EXPECT_GE(end.total_peak_bytes, end.weights_bytes + 10 * random.info.state_bytes);
}

// The same work again needs no more memory: nothing grows with use.
TEST(MemoryCount, does_not_grow_with_use) {
  RandomModel random(odd_shape, WKV_TYPE_F32, two_threads());
  auto work = [&] {
    std::vector<Cache> caches;
    std::vector<std::vector<float>> logits(6, std::vector<float>(static_cast<size_t>(random.info.vocab_size) * 30));
    std::vector<int32_t> tokens = random_tokens(30, random.info.vocab_size, 1);
    std::vector<wkv_step_item> items;
    for (size_t i = 0; i < 6; i++) {
      caches.push_back(create_cache(random.model));
      items.push_back(make_item(caches[i], tokens, logits[i].data(), logits[i].size(), WKV_STEP_ALL_LOGITS));
    }
    Failure failure;
    WKV_EXPECT_STATUS(WKV_OK, wkv_model_step(random.model, items.data(), 6, &failure), failure);
  };
  work();
  wkv_memory_info first = memory_of(random.model);
  for (int i = 0; i < 20; i++) work();
  wkv_memory_info last = memory_of(random.model);
  EXPECT_EQ(last.total_bytes, first.total_bytes);
  EXPECT_EQ(last.total_peak_bytes, first.total_peak_bytes);
}

TEST(MemoryLimit, holds_for_caches_and_everything_else_goes_on) {
  uint64_t weights, workspace, state;
  {
    RandomModel free(odd_shape, WKV_TYPE_F32, two_threads());
    Cache cache = create_cache(free.model);
    step(free.info, free.model, cache, random_tokens(8, free.info.vocab_size, 1));
    wkv_memory_info memory = memory_of(free.model);
    weights = memory.weights_bytes;
    workspace = memory.workspace_peak_bytes;
    state = free.info.state_bytes;
  }
  uint64_t limit = weights + workspace + 5 * state + state / 2;
  RandomModel random(odd_shape, WKV_TYPE_F32, two_threads(limit));
  ASSERT_NE(random.model.get(), nullptr);
  EXPECT_EQ(memory_of(random.model).limit_bytes, limit);
  std::vector<int32_t> tokens = random_tokens(8, random.info.vocab_size, 1);
  std::vector<Cache> caches;
  Failure failure;
  wkv_status status = WKV_OK;
  {
    Cache first = create_cache(random.model);
    step(random.info, random.model, first, tokens);  // the workspace is there from now on
    caches.push_back(std::move(first));
  }
  while (caches.size() < 100) {
    Cache cache;
    status = wkv_cache_create(random.model, nullptr, cache.out(), &failure);
    if (status != WKV_OK) {
      EXPECT_EQ(cache.get(), nullptr);
      break;
    }
    caches.push_back(std::move(cache));
    EXPECT_LE(memory_of(random.model).total_bytes, limit);
  }
  EXPECT_EQ(status, WKV_OUT_OF_MEMORY) << failure.message;
  EXPECT_EQ(caches.size(), 5u);
  Snapshot before = snapshot_of(random.info, caches[0]);
  EXPECT_EQ(memory_of(random.model).caches_bytes, 5 * state);
  // everything else goes on: steps, assignment, and a new cache in place of an old one
  for (Cache &cache : caches) step(random.info, random.model, cache, tokens);
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_assign(caches[1], caches[0], &failure), failure);
  caches.pop_back();
  Cache again;
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_create(random.model, nullptr, again.out(), &failure), failure);
  EXPECT_LE(memory_of(random.model).total_peak_bytes, limit);
  // a fork needs no memory until it steps; then it is refused, and its state stays shared
  Cache fork, other;
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_copy(caches[2], fork.out(), &failure), failure);
  Snapshot shared = snapshot_of(random.info, fork);
  caches.push_back(create_cache(random.model));  // takes what the assignment above has freed
  WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY, wkv_cache_create(random.model, nullptr, other.out(), &failure), failure);
  WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY, wkv_cache_step(fork, tokens.data(), tokens.size(), nullptr, 0, &failure),
                    failure);
  EXPECT_TRUE(snapshot_of(random.info, fork) == shared);
  caches[2].reset();  // nobody shares any more
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_step(fork, tokens.data(), tokens.size(), nullptr, 0, &failure), failure);
  EXPECT_FALSE(snapshot_of(random.info, caches[0]) == before);
}

// No room for a second state: the store gives up the one it shares with the cache, which then steps in place.
TEST(MemoryLimit, makes_a_store_give_way_to_the_cache_it_shares_a_state_with) {
  const std::vector<int32_t> tokens = random_tokens(20, odd_shape.vocab_size, 1);
  const std::span<const int32_t> prompt = std::span(tokens).first(19), last = std::span(tokens).last(1);
  RandomModel free(odd_shape, WKV_TYPE_F32, two_threads());
  Cache expected = create_cache(free.model);
  step(free.info, free.model, expected, prompt);
  step(free.info, free.model, expected, last);
  const wkv_memory_info memory = memory_of(free.model);
  RandomModel random(odd_shape, WKV_TYPE_F32, two_threads(memory.total_bytes + free.info.state_bytes / 2));
  Cache cache = create_cache(random.model);
  step(random.info, random.model, cache, prompt);
  Owned<wkv_prefix_store, wkv_prefix_store_release> store;
  Failure failure;
  WKV_ASSERT_STATUS(WKV_OK, wkv_prefix_store_create(random.model, nullptr, store.out(), &failure), failure);
  WKV_ASSERT_STATUS(WKV_OK, wkv_prefix_store_put(store, prompt.data(), prompt.size(), cache, &failure), failure);
  EXPECT_EQ(info_of(cache).is_shared, 1);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_step(cache, last.data(), 1, nullptr, 0, &failure), failure);
  EXPECT_TRUE(snapshot_of(random.info, cache) == snapshot_of(free.info, expected));
  wkv_prefix_store_info info{};
  info.struct_size = sizeof info;
  ASSERT_EQ(wkv_prefix_store_get_info(store, &info, nullptr), WKV_OK);
  EXPECT_EQ(info.entries, 0u);
  EXPECT_EQ(info.evictions, 1u);
}

// A step whose workspace would pass the limit fails before anything changes, and a smaller one still works.
TEST(MemoryLimit, holds_for_steps) {
  uint64_t weights;
  {
    RandomModel free(odd_shape, WKV_TYPE_F32, two_threads());
    weights = memory_of(free.model).weights_bytes;
  }
  for (uint64_t spare : {10'000, 100'000, 200'000, 500'000, 1'000'000, 4'000'000}) {
    wkv_model_options options = two_threads(weights + spare);
    Image image = random_gguf(odd_shape, WKV_TYPE_F32, 0.5, 1, 1);
    Model model;
    Failure failure;
    wkv_status status = wkv_model_load_memory(image.data(), image.size(), &options, model.out(), &failure);
    if (status == WKV_OUT_OF_MEMORY) continue;
    ASSERT_EQ(status, WKV_OK) << failure.message;
    wkv_model_info info = info_of(model);
    Cache cache;
    status = wkv_cache_create(model, nullptr, cache.out(), &failure);
    if (status == WKV_OUT_OF_MEMORY) continue;
    ASSERT_EQ(status, WKV_OK) << failure.message;
    std::vector<int32_t> tokens = random_tokens(400, info.vocab_size, 1);
    std::vector<float> logits(400 * static_cast<size_t>(info.vocab_size));
    for (size_t count : {400, 100, 10, 1}) {
      Snapshot before = snapshot_of(info, cache);
      wkv_step_item item =
          make_item(cache, std::span(tokens).first(count), logits.data(), logits.size(), WKV_STEP_ALL_LOGITS);
      status = wkv_model_step(model, &item, 1, &failure);
      EXPECT_TRUE(status == WKV_OK || status == WKV_OUT_OF_MEMORY) << status << " " << failure.message;
      if (status != WKV_OK) {
        EXPECT_TRUE(snapshot_of(info, cache) == before);
      }
      EXPECT_LE(memory_of(model).total_peak_bytes, weights + spare);
    }
  }
}

TEST(MemoryLimit, below_the_weights_refuses_the_model) {
  Image image = random_gguf(odd_shape, WKV_TYPE_F32, 0.5, 1, 1);
  wkv_model_options options = two_threads(image.size() / 2);
  wkv_model *model = nullptr;
  Failure failure;
  WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY, wkv_model_load_memory(image.data(), image.size(), &options, &model, &failure),
                    failure);
  EXPECT_EQ(model, nullptr);
}

}  // namespace
}  // namespace libwkv::test
