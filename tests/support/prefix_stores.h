// SPDX-License-Identifier: Apache-2.0
// Prefix stores for tests: through the C ABI with a model, and without one, with states that tell their tokens.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "state/cache.h"
#include "state/prefix_store.h"
#include "support/handles.h"

namespace libwkv::test {

inline PrefixStore create_store(wkv_model *model, wkv_prefix_store_options options = {}) {
  options.struct_size = sizeof options;
  PrefixStore store;
  Failure failure;
  EXPECT_EQ(wkv_prefix_store_create(model, &options, store.out(), &failure), WKV_OK) << failure.message;
  return store;
}

inline size_t find(wkv_prefix_store *store, std::span<const int32_t> tokens, wkv_cache *cache) {
  size_t known = 0;
  Failure failure;
  EXPECT_EQ(wkv_prefix_store_find(store, tokens.data(), tokens.size(), cache, &known, &failure), WKV_OK)
      << failure.message;
  return known;
}

inline void put(wkv_prefix_store *store, std::span<const int32_t> tokens, wkv_cache *cache) {
  Failure failure;
  EXPECT_EQ(wkv_prefix_store_put(store, tokens.data(), tokens.size(), cache, &failure), WKV_OK) << failure.message;
}

inline wkv_prefix_store_info info_of(wkv_prefix_store *store) {
  wkv_prefix_store_info info{};
  info.struct_size = sizeof info;
  EXPECT_EQ(wkv_prefix_store_get_info(store, &info, nullptr), WKV_OK);
  return info;
}

// Caches without a model: the state of a sequence has numbers that only this sequence has.
struct Sequences {
  static constexpr int32_t vocab_size = 1000;

  explicit Sequences(uint64_t limit = 0) : account(std::make_shared<MemoryAccount>(limit)) {
    hyper.layers = 2;
    hyper.width = 16;
    hyper.heads = 2;
    hyper.head_size = 8;
    hyper.ffn_width = 32;
    hyper.vocab_size = vocab_size;
  }

  size_t floats() const { return StateLayout(hyper).floats; }
  uint64_t state_bytes() const { return StateLayout(hyper).bytes(); }

  std::shared_ptr<libwkv::PrefixStore> store(PrefixStoreOptions options, uint64_t fingerprint = 0x1234) const {
    return libwkv::PrefixStore::make(hyper, fingerprint, account, std::move(options));
  }

  std::shared_ptr<libwkv::Cache> cache_of(std::span<const int32_t> tokens) const {
    auto cache = std::make_shared<libwkv::Cache>(hyper, account);
    if (tokens.empty()) return cache;
    Moment moment = cache->now();
    moment.position = tokens.size();
    moment.last_tokens.push(tokens);
    fill(tokens, {moment.state.host_floats(), floats()});
    cache->replace(std::move(moment));
    return cache;
  }

  bool is_state_of(const libwkv::Cache &cache, std::span<const int32_t> tokens) const {
    std::vector<float> expected(floats());
    fill(tokens, expected);
    return cache.now().position == tokens.size() && cache.now().state &&
           std::memcmp(cache.now().state.host_floats(), expected.data(), state_bytes()) == 0;
  }

  void put(libwkv::PrefixStore &store, std::span<const int32_t> tokens) const { store.put(tokens, *cache_of(tokens)); }

  // What the store knows; the state that came with it is checked.
  size_t find(libwkv::PrefixStore &store, std::span<const int32_t> tokens) const {
    auto cache = cache_of({});
    const size_t known = store.find(tokens, *cache);
    EXPECT_EQ(cache->now().position, known);
    EXPECT_TRUE(known == 0 || is_state_of(*cache, tokens.first(known)));
    return known;
  }

  HyperParameters hyper;
  std::shared_ptr<MemoryAccount> account;

 private:
  static void fill(std::span<const int32_t> tokens, std::span<float> numbers) {
    uint64_t state = tokens.size();
    for (int32_t token : tokens) state = (state ^ static_cast<uint64_t>(token)) * 6364136223846793005u + 1;
    for (float &number : numbers) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      number = static_cast<float>(state >> 40) * 0x1p-20f - 8;
    }
  }
};

}  // namespace libwkv::test
