// SPDX-License-Identifier: Apache-2.0
// The prefix store in memory: what it finds, what it gives up and when, and that a found state is the computed one.
#include <algorithm>
#include <atomic>
#include <list>
#include <thread>
#include <vector>

#include "api/handles.h"
#include "engine/model.h"
#include "state/cache.h"
#include "state/prefix_store.h"
#include "support/models.h"
#include "support/prefix_stores.h"

namespace libwkv::test {
namespace {

wkv_model_options reproducible(uint64_t limit = 0) {
  wkv_model_options options = default_options();
  options.threads = 1;
  options.is_reproducible = 1;
  options.memory_limit_bytes = limit;
  return options;
}

TEST(PrefixStore, finds_the_longest_beginning_and_leaves_a_token_to_feed) {
  Sequences sequences;
  auto store = sequences.store({.min_tokens = 1});
  const std::vector<int32_t> tokens = random_tokens(50, Sequences::vocab_size, 1);
  for (size_t length : {10, 20, 30}) sequences.put(*store, std::span(tokens).first(length));
  EXPECT_EQ(sequences.find(*store, std::span(tokens).first(50)), 30u);
  EXPECT_EQ(sequences.find(*store, std::span(tokens).first(31)), 30u);
  EXPECT_EQ(sequences.find(*store, std::span(tokens).first(30)), 20u) << "nothing would be left to feed";
  EXPECT_EQ(sequences.find(*store, std::span(tokens).first(11)), 10u);
  EXPECT_EQ(sequences.find(*store, std::span(tokens).first(10)), 0u);
  EXPECT_EQ(sequences.find(*store, std::span(tokens).first(1)), 0u);
  std::vector<int32_t> other = tokens;
  other[25] = (other[25] + 1) % Sequences::vocab_size;
  EXPECT_EQ(sequences.find(*store, other), 20u);
  other[0] = (other[0] + 1) % Sequences::vocab_size;
  EXPECT_EQ(sequences.find(*store, other), 0u);
  const wkv_prefix_store_info info = store->info();
  EXPECT_EQ(info.entries, 3u);
  EXPECT_EQ(info.puts, 3u);
  EXPECT_EQ(info.finds, 8u);
  EXPECT_EQ(info.hits, 5u);
  EXPECT_EQ(info.reused_tokens, 30u + 30 + 20 + 10 + 20);
  EXPECT_EQ(info.stored_entries + info.stored_hits + info.evictions + info.storage_failures, 0u);
}

TEST(PrefixStore, keeps_nothing_shorter_than_min_tokens) {
  Sequences sequences;
  auto store = sequences.store({});
  const std::vector<int32_t> tokens = random_tokens(40, Sequences::vocab_size, 1);
  sequences.put(*store, std::span(tokens).first(15));
  EXPECT_EQ(store->info().entries, 0u);
  sequences.put(*store, std::span(tokens).first(16));
  EXPECT_EQ(store->info().entries, 1u);
  EXPECT_EQ(sequences.find(*store, tokens), 16u);
}

TEST(PrefixStore, puts_a_known_sequence_once) {
  Sequences sequences;
  auto store = sequences.store({.min_tokens = 1});
  const std::vector<int32_t> tokens = random_tokens(20, Sequences::vocab_size, 1);
  for (int i = 0; i < 5; i++) sequences.put(*store, tokens);
  EXPECT_EQ(store->info().puts, 1u);
  EXPECT_EQ(store->info().entries, 1u);
  EXPECT_EQ(store->info().entries_bytes, sequences.state_bytes());
}

TEST(PrefixStore, works_with_a_budget_that_holds_no_state) {
  Sequences sequences;
  auto store = sequences.store({.min_tokens = 1, .memory_bytes_max = sequences.state_bytes() - 1});
  const std::vector<int32_t> tokens = random_tokens(20, Sequences::vocab_size, 1);
  sequences.put(*store, tokens);
  EXPECT_EQ(store->info().entries, 0u);
  EXPECT_EQ(store->info().puts, 0u);
  EXPECT_EQ(sequences.find(*store, random_tokens(21, Sequences::vocab_size, 1)), 0u);
}

TEST(PrefixStore, gives_up_the_least_recently_used_entry_when_the_budget_is_used_up) {
  Sequences sequences;
  auto store = sequences.store({.min_tokens = 1, .memory_bytes_max = 3 * sequences.state_bytes() + 1});
  std::vector<std::vector<int32_t>> all;
  for (uint64_t i = 0; i < 4; i++) all.push_back(random_tokens(20, Sequences::vocab_size, 100 + i));
  auto is_there = [&](size_t i) {
    std::vector<int32_t> longer = all[i];
    longer.push_back(0);
    return sequences.find(*store, longer) == 20;
  };
  for (size_t i = 0; i < 3; i++) sequences.put(*store, all[i]);
  EXPECT_EQ(store->info().entries_bytes, 3 * sequences.state_bytes());
  EXPECT_TRUE(is_there(0));       // used now
  sequences.put(*store, all[1]);  // this too
  sequences.put(*store, all[3]);  // 2 is the oldest
  EXPECT_EQ(store->info().entries, 3u);
  EXPECT_EQ(store->info().evictions, 1u);
  EXPECT_FALSE(is_there(2));
  EXPECT_TRUE(is_there(0));
  EXPECT_TRUE(is_there(1));
  EXPECT_TRUE(is_there(3));
}

// Thousands of sequences with shared beginnings, against a list in order of use.
TEST(PrefixStore, agrees_with_a_plain_list) {
  constexpr size_t capacity = 24;
  Sequences sequences;
  auto store = sequences.store({.min_tokens = 2, .memory_bytes_max = capacity * sequences.state_bytes()});
  std::list<std::vector<int32_t>> model;  // most recently used first
  uint64_t state = 1, evictions = 0, reused = 0;
  auto random = [&](uint64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
  };
  for (int round = 0; round < 20000; round++) {
    std::vector<int32_t> tokens;
    if (!model.empty() && random(4)) {
      auto place = model.begin();
      std::advance(place, static_cast<ptrdiff_t>(random(model.size())));
      tokens = *place;
      tokens.resize(1 + random(tokens.size()));
    }
    for (uint64_t more = random(5) + tokens.empty(); more > 0; more--)
      tokens.push_back(static_cast<int32_t>(random(4)));
    if (random(2)) {
      auto longest = model.end();
      for (auto i = model.begin(); i != model.end(); ++i)
        if (i->size() < tokens.size() && std::equal(i->begin(), i->end(), tokens.begin()) &&
            (longest == model.end() || i->size() > longest->size()))
          longest = i;
      const size_t expected = longest == model.end() ? 0 : longest->size();
      ASSERT_EQ(sequences.find(*store, tokens), expected) << "round " << round;
      reused += expected;
      if (longest != model.end()) model.splice(model.begin(), model, longest);
    } else {
      sequences.put(*store, tokens);
      if (tokens.size() < 2) continue;
      auto known = std::find(model.begin(), model.end(), tokens);
      if (known != model.end()) {
        model.splice(model.begin(), model, known);
      } else {
        model.push_front(tokens);
        if (model.size() > capacity) {
          model.pop_back();
          evictions++;
        }
      }
    }
    if (random(4000) == 0) {
      store->clear();
      model.clear();
    }
    const wkv_prefix_store_info info = store->info();
    ASSERT_EQ(info.entries, model.size());
    ASSERT_EQ(info.entries_bytes, model.size() * sequences.state_bytes());
    ASSERT_EQ(info.evictions, evictions);
    ASSERT_EQ(info.reused_tokens, reused);
  }
}

TEST(PrefixStore, refuses_what_is_not_the_state_of_these_tokens) {
  Sequences sequences, others;
  auto store = sequences.store({.min_tokens = 1});
  const std::vector<int32_t> tokens = random_tokens(20, Sequences::vocab_size, 1);
  auto cache = sequences.cache_of(tokens);
  auto status_of = [](auto &&call) -> wkv_status {
    try {
      call();
      return WKV_OK;
    } catch (const Error &error) {
      return error.status();
    }
  };
  std::vector<int32_t> changed = tokens, outside = tokens, longer = tokens;
  changed[19] = (changed[19] + 1) % Sequences::vocab_size;
  outside[0] = Sequences::vocab_size;
  longer.push_back(1);
  EXPECT_EQ(status_of([&] { store->put(changed, *cache); }), WKV_INVALID);
  EXPECT_EQ(status_of([&] { store->put(outside, *cache); }), WKV_INVALID);
  EXPECT_EQ(status_of([&] { store->put(longer, *cache); }), WKV_INVALID);
  EXPECT_EQ(status_of([&] { store->put(std::span(tokens).first(19), *cache); }), WKV_INVALID);
  EXPECT_EQ(status_of([&] { store->put(tokens, *others.cache_of(tokens)); }), WKV_MISMATCH);
  EXPECT_EQ(status_of([&] { store->find(tokens, *others.cache_of(tokens)); }), WKV_MISMATCH);
  EXPECT_EQ(status_of([&] { store->find(outside, *cache); }), WKV_INVALID);
  EXPECT_EQ(status_of([&] { store->find({}, *cache); }), WKV_INVALID);
  CacheOptions tuned;
  tuned.initial = StateHold::make(sequences.account, cache->layout().floats, Holder::cache, true);
  libwkv::Cache started(sequences.hyper, sequences.account, tuned);
  started.replace(cache->now());
  EXPECT_EQ(status_of([&] { store->put(tokens, started); }), WKV_INVALID);
  EXPECT_EQ(status_of([&] { store->find(tokens, started); }), WKV_INVALID);
  EXPECT_EQ(store->info().entries + store->info().finds, 0u);
}

// An imported state knows no last tokens: the caller is believed.
TEST(PrefixStore, takes_a_state_whose_last_tokens_are_not_known) {
  Sequences sequences;
  auto store = sequences.store({.min_tokens = 1});
  const std::vector<int32_t> tokens = random_tokens(20, Sequences::vocab_size, 1);
  auto cache = sequences.cache_of(tokens);
  Moment moment = cache->now();
  moment.last_tokens = {};
  cache->replace(moment);
  store->put(tokens, *cache);
  EXPECT_EQ(store->info().entries, 1u);
}

TEST(PrefixStore, gives_entries_up_before_the_memory_limit_fails_a_call) {
  Sequences probe;
  const uint64_t state = probe.state_bytes();
  Sequences sequences(4 * state);
  auto store = sequences.store({.min_tokens = 1});
  for (uint64_t i = 0; i < 10; i++) sequences.put(*store, random_tokens(20, Sequences::vocab_size, i));
  EXPECT_EQ(store->info().entries, 4u) << "as many as the limit holds";
  EXPECT_EQ(store->info().evictions, 6u);
  EXPECT_EQ(sequences.account->snapshot().total.live, 4 * state);
  {
    std::vector<StateHold> held;
    for (int i = 0; i < 4; i++)
      held.push_back(StateHold::make(sequences.account, sequences.floats(), Holder::cache, false));
    EXPECT_EQ(store->info().entries, 0u);
    EXPECT_THROW(StateHold::make(sequences.account, sequences.floats(), Holder::cache, false), Error);
  }
  EXPECT_LE(sequences.account->snapshot().total.peak, 4 * state);
  // of entries, those that free memory go first
  const std::vector<int32_t> shared_tokens = random_tokens(20, Sequences::vocab_size, 50);
  auto shared = sequences.cache_of(shared_tokens);
  store->put(shared_tokens, *shared);
  for (uint64_t i = 0; i < 3; i++) sequences.put(*store, random_tokens(20, Sequences::vocab_size, i));
  StateHold one = StateHold::make(sequences.account, sequences.floats(), Holder::cache, false);
  EXPECT_EQ(store->info().entries, 3u);
  std::vector<int32_t> longer = shared_tokens;
  longer.push_back(1);
  EXPECT_EQ(sequences.find(*store, longer), 20u);
  // the account outlives the store
  store.reset();
  StateHold two = StateHold::make(sequences.account, sequences.floats(), Holder::cache, false);
}

TEST(PrefixStore, does_not_empty_itself_for_what_no_memory_could_hold) {
  Sequences probe;
  Sequences sequences(4 * probe.state_bytes());
  auto store = sequences.store({.min_tokens = 1});
  for (uint64_t i = 0; i < 3; i++) sequences.put(*store, random_tokens(20, Sequences::vocab_size, i));
  EXPECT_THROW(sequences.account->reserve(MemoryKind::workspace, 4 * probe.state_bytes() + 1), Error);
  EXPECT_EQ(store->info().entries, 3u);
}

TEST(PrefixStore, found_states_are_to_the_bit_the_computed_ones) {
  RandomModel random(odd_shape, WKV_TYPE_F32, reproducible());
  PrefixStore store = create_store(random.model);
  const std::vector<int32_t> tokens = random_tokens(60, random.info.vocab_size, 1);
  Cache cache = create_cache(random.model), again = create_cache(random.model), scratch = create_cache(random.model);
  step(random.info, random.model, cache, std::span(tokens).first(40));
  const Snapshot kept = snapshot_of(random.info, cache);
  put(store, std::span(tokens).first(40), cache);
  const std::vector<float> expected = step(random.info, random.model, cache, std::span(tokens).subspan(40));
  EXPECT_EQ(find(store, tokens, again), 40u);
  EXPECT_TRUE(snapshot_of(random.info, again) == kept);
  EXPECT_EQ(step(random.info, random.model, again, std::span(tokens).subspan(40)), expected);
  EXPECT_EQ(step(random.info, random.model, scratch, tokens), expected);
  EXPECT_EQ(find(store, tokens, again), 40u) << "the step must not have touched the entry";
  EXPECT_TRUE(snapshot_of(random.info, again) == kept);
}

TEST(PrefixStore, shares_memory_until_somebody_steps) {
  RandomModel random(odd_shape, WKV_TYPE_F32, reproducible());
  const uint64_t state = random.info.state_bytes;
  PrefixStore store = create_store(random.model);
  const std::vector<int32_t> tokens = random_tokens(41, random.info.vocab_size, 1);
  Cache cache = create_cache(random.model);
  step(random.info, random.model, cache, std::span(tokens).first(40));
  const uint64_t before = memory_of(random.model).total_bytes;
  put(store, std::span(tokens).first(40), cache);
  std::vector<Cache> found;
  for (int i = 0; i < 20; i++) {
    found.push_back(create_cache(random.model));
    EXPECT_EQ(find(store, tokens, found.back()), 40u);
    EXPECT_EQ(info_of(found.back()).is_shared, 1);
  }
  EXPECT_EQ(memory_of(random.model).total_bytes, before);
  EXPECT_EQ(memory_of(random.model).caches_bytes, state);
  step(random.info, random.model, cache, std::span(tokens).subspan(40));
  EXPECT_EQ(memory_of(random.model).total_bytes, before + state);
  found.clear();
  EXPECT_EQ(memory_of(random.model).caches_bytes, state);
  EXPECT_EQ(memory_of(random.model).store_bytes, state) << "only the store holds it now";
  EXPECT_EQ(wkv_prefix_store_clear(store, nullptr), WKV_OK);
  EXPECT_EQ(memory_of(random.model).store_bytes, 0u);
}

TEST(PrefixStore, replaces_the_cache_and_its_checkpoints_on_a_hit_alone) {
  RandomModel random(odd_shape, WKV_TYPE_F32, reproducible());
  PrefixStore store = create_store(random.model);
  const std::vector<int32_t> tokens = random_tokens(20, random.info.vocab_size, 1);
  Cache cache = create_cache(random.model), other = create_cache(random.model);
  step(random.info, random.model, cache, tokens);
  put(store, tokens, cache);
  step(random.info, random.model, other, random_tokens(7, random.info.vocab_size, 2));
  uint64_t mark = 0;
  ASSERT_EQ(wkv_cache_mark(other, &mark, nullptr), WKV_OK);
  const Snapshot before = snapshot_of(random.info, other);
  EXPECT_EQ(find(store, random_tokens(30, random.info.vocab_size, 3), other), 0u);
  EXPECT_TRUE(snapshot_of(random.info, other) == before);
  EXPECT_EQ(info_of(other).kept_count, 1u);
  std::vector<int32_t> longer = tokens;
  longer.push_back(5);
  EXPECT_EQ(find(store, longer, other), 20u);
  EXPECT_EQ(info_of(other).kept_count, 0u);
  EXPECT_EQ(info_of(other).position, 20u);
  EXPECT_EQ(info_of(other).last_token, tokens.back());
}

// A chat: each turn adds to the history. What is computed in a turn are its new tokens.
TEST(PrefixStore, makes_a_turn_cost_its_new_tokens) {
  RandomModel random(odd_shape, WKV_TYPE_F32, reproducible());
  PrefixStore store = create_store(random.model);
  std::vector<int32_t> history;
  size_t computed = 0;
  for (uint64_t turn = 0; turn < 30; turn++) {
    for (int32_t token : random_tokens(16 + turn % 5, random.info.vocab_size, turn)) history.push_back(token);
    Cache cache = create_cache(random.model);
    const size_t known = find(store, history, cache);
    step(random.info, random.model, cache, std::span(history).subspan(known));
    computed += history.size() - known;
    put(store, history, cache);
  }
  EXPECT_EQ(computed, history.size());
}

TEST(PrefixStore, keeps_its_model_and_may_be_released_first) {
  RandomModel random(odd_shape, WKV_TYPE_F32, reproducible());
  PrefixStore store = create_store(random.model);
  const std::vector<int32_t> tokens = random_tokens(30, random.info.vocab_size, 1);
  Cache cache = create_cache(random.model), found = create_cache(random.model);
  step(random.info, random.model, cache, std::span(tokens).first(20));
  put(store, std::span(tokens).first(20), cache);
  const Snapshot before = snapshot_of(random.info, cache);
  random.model.reset();
  cache.reset();
  EXPECT_EQ(find(store, tokens, found), 20u);
  store.reset();
  EXPECT_TRUE(snapshot_of(random.info, found) == before);
}

TEST(PrefixStore, refuses_a_cache_in_use) {
  RandomModel random(odd_shape, WKV_TYPE_F32, reproducible());
  PrefixStore store = create_store(random.model);
  Cache cache = create_cache(random.model);
  const std::vector<int32_t> tokens = random_tokens(20, random.info.vocab_size, 1);
  size_t known = 77;
  BusyGuard use(cache.get()->object->busy(), "cache");
  EXPECT_EQ(wkv_prefix_store_find(store, tokens.data(), 20, cache, &known, nullptr), WKV_BUSY);
  EXPECT_EQ(wkv_prefix_store_put(store, tokens.data(), 20, cache, nullptr), WKV_BUSY);
  EXPECT_EQ(known, 77u);
}

// A tight limit: the store gives way to steps.
TEST(PrefixStore, never_makes_a_step_fail_for_memory) {
  uint64_t fixed, state;
  {
    RandomModel free(odd_shape, WKV_TYPE_F32, reproducible());
    Cache cache = create_cache(free.model);
    step(free.info, free.model, cache, random_tokens(20, free.info.vocab_size, 1));
    fixed = memory_of(free.model).weights_bytes + memory_of(free.model).workspace_peak_bytes;
    state = free.info.state_bytes;
  }
  for (uint64_t spare : {2 * state, 2 * state + state / 2, 4 * state}) {
    RandomModel random(odd_shape, WKV_TYPE_F32, reproducible(fixed + spare));
    PrefixStore store = create_store(random.model);
    Cache cache = create_cache(random.model);
    std::vector<int32_t> history;
    Failure failure;
    for (uint64_t round = 0; round < 10; round++) {
      const std::vector<int32_t> tokens = random_tokens(20, random.info.vocab_size, round);
      WKV_ASSERT_STATUS(WKV_OK, wkv_cache_step(cache, tokens.data(), 20, nullptr, 0, &failure), failure);
      history.insert(history.end(), tokens.begin(), tokens.end());
      put(store, history, cache);
    }
    EXPECT_LE(memory_of(random.model).total_peak_bytes, fixed + spare);
  }
}

// Every state found is that of the tokens it was found for, whatever the others do.
TEST(ConcurrentPrefixStore, finds_and_puts_and_clears_from_many_threads) {
  Sequences probe;
  for (bool has_limit : {false, true}) {
    Sequences sequences(has_limit ? 40 * probe.state_bytes() : 0);
    auto store = sequences.store({.min_tokens = 1, .memory_bytes_max = 30 * sequences.state_bytes()});
    constexpr int threads = 8, rounds = 400;
    std::atomic<int> wrong{0}, hits{0}, without_memory{0};
    {
      std::vector<std::jthread> running;
      for (int t = 0; t < threads; t++)
        running.emplace_back([&, t] {
          for (int i = 0; i < rounds; i++) try {
              // few sequences, so that threads meet
              const std::vector<int32_t> tokens =
                  random_tokens(static_cast<size_t>(4 + (i * 7 + t) % 40), Sequences::vocab_size, (i + t) % 3);
              auto cache = sequences.cache_of({});
              const size_t known = store->find(tokens, *cache);
              if (known > 0) {
                hits++;
                if (!sequences.is_state_of(*cache, std::span(tokens).first(known))) wrong++;
              }
              store->put(tokens, *sequences.cache_of(tokens));
              if (i % 100 == 99 && t == 0) store->clear();
              if (store->info().entries > 30) wrong++;
            } catch (const Error &error) {
              (error.status() == WKV_OUT_OF_MEMORY ? without_memory : wrong)++;
            }
        });
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_GT(hits, threads * rounds / 4);
    if (!has_limit) {
      EXPECT_EQ(without_memory, 0);
    }
    store.reset();
    EXPECT_EQ(sequences.account->snapshot().total.live, 0u);
  }
}

TEST(ConcurrentPrefixStore, serves_models_steps_under_a_limit) {
  uint64_t fixed, state;
  {
    RandomModel free(odd_shape, WKV_TYPE_F32, reproducible());
    Cache cache = create_cache(free.model);
    step(free.info, free.model, cache, random_tokens(40, free.info.vocab_size, 1));
    fixed = memory_of(free.model).weights_bytes + memory_of(free.model).workspace_peak_bytes;
    state = free.info.state_bytes;
  }
  RandomModel random(odd_shape, WKV_TYPE_F32, reproducible(fixed + 14 * state));
  PrefixStore store = create_store(random.model);
  constexpr int threads = 4;
  std::atomic<int> failures{0}, reused{0};
  {
    std::vector<std::jthread> running;
    for (int t = 0; t < threads; t++)
      running.emplace_back([&, t] {
        for (uint64_t round = 0; round < 25; round++) {
          const std::vector<int32_t> tokens =
              random_tokens(40, random.info.vocab_size, (round + static_cast<uint64_t>(t)) % 9);
          Cache cache;
          size_t known = 0;
          wkv_status status = wkv_cache_create(random.model, nullptr, cache.out(), nullptr);
          if (status == WKV_OK) status = wkv_prefix_store_find(store, tokens.data(), 40, cache, &known, nullptr);
          const size_t half = std::max<size_t>(known, 20);
          if (status == WKV_OK && known < half)
            status = wkv_cache_step(cache, tokens.data() + known, half - known, nullptr, 0, nullptr);
          if (status == WKV_OK) status = wkv_prefix_store_put(store, tokens.data(), half, cache, nullptr);
          if (status == WKV_OK) status = wkv_cache_step(cache, tokens.data() + half, 40 - half, nullptr, 0, nullptr);
          if (status != WKV_OK) failures++;
          reused += static_cast<int>(known);
        }
      });
  }
  EXPECT_EQ(failures, 0) << "four caches of two states each fit, the rest is the store's to give";
  EXPECT_GT(reused, 0);
  EXPECT_LE(memory_of(random.model).total_peak_bytes, fixed + 14 * state);
}

}  // namespace
}  // namespace libwkv::test
