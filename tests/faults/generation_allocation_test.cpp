// SPDX-License-Identifier: Apache-2.0
// No memory, at every place where a generation asks for some: the call that failed has changed nothing, and the
// generation goes on to the same end. With stops that are taken back, a prefix store and sessions.
#include <cstring>
#include <string>
#include <vector>

#include "faults/failing_malloc.h"
#include "text/generation_support.h"

namespace libwkv::test {
namespace {

using Store = Owned<wkv_prefix_store, wkv_prefix_store_release>;

wkv_model_options one_thread() {
  wkv_model_options options = default_options();
  options.threads = 1;
  options.is_reproducible = 1;
  return options;
}

// Does it begin and end between characters?
bool is_text(const std::string &bytes) {
  const auto is_inside = [](char byte) { return (byte & 0xc0) == 0x80; };
  if (bytes.empty() || is_inside(bytes.front())) return false;
  size_t last = bytes.size() - 1;
  while (last > 0 && is_inside(bytes[last])) last--;
  const unsigned char lead = static_cast<unsigned char>(bytes[last]);
  return bytes.size() - last == (lead < 0x80 ? 1u : lead < 0xe0 ? 2u : lead < 0xf0 ? 3u : 4u);
}

struct Running {
  Store store;
  Cache cache;
  Sampler sampler;
  Generation generation;
};

struct Outcome {
  std::string text, unread;
  std::vector<int32_t> tokens;
  wkv_reason reason = WKV_REASON_NONE;
  int32_t pending_token = 0;
  Snapshot snapshot;
  bool operator==(const Outcome &) const = default;
};

class GenerationAllocations : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!malloc_can_fail()) GTEST_SKIP() << "malloc cannot be replaced in this build";
    tokenizer_ = load_vocabulary(rough_vocabulary());
  }

  Running start(const char *stop, bool has_store, uint64_t seed = 3) {
    Running running;
    if (has_store) {
      wkv_prefix_store_options o{};
      o.struct_size = sizeof o;
      o.min_tokens = 1;
      EXPECT_EQ(wkv_prefix_store_create(model_.model, &o, running.store.out(), nullptr), WKV_OK);
    }
    running.cache = create_cache(model_.model);
    running.sampler = rough_sampler(seed, 1);
    wkv_generation_options o = generation_options(tokenizer_, "ab a", 24);
    const char *stops[] = {stop, "never in the text", "aaaaaaaaaaaaaa!"};
    o.stop_strings = stops;
    o.stop_strings_count = 3;
    o.alternatives_count = 2;
    o.accepts_prompt = 1;
    o.prefix_store = running.store;
    EXPECT_EQ(wkv_generation_create(running.cache, running.sampler, &o, running.generation.out(), nullptr), WKV_OK);
    return running;
  }

  void finish(const Running &running, Outcome &outcome) {
    Piece piece;
    wkv_status status;
    while ((status = wkv_generation_next(running.generation, &piece, nullptr)) == WKV_OK) add(outcome, piece);
    EXPECT_EQ(status, WKV_END);
    outcome.snapshot = snapshot_of(model_.info, running.cache);
  }
  static void add(Outcome &outcome, const Piece &piece) {
    outcome.tokens.push_back(piece.token);
    outcome.text.append(piece.text, piece.text_bytes);
    outcome.unread.assign(piece.unread_text, piece.unread_bytes);
    outcome.reason = piece.reason;
    outcome.pending_token = piece.pending_token;
  }

  // Call `at` of the generation, with allocation 0, 1, 2, ... failing until none is left.
  void fail_each(size_t at, const Outcome &expected, const char *stop, bool has_store) {
    for (int64_t n = 0; n < 2000; n++) {
      const Running running = start(stop, has_store);
      Outcome outcome;
      Piece piece;
      for (size_t i = 0; i < at; i++) {
        ASSERT_EQ(wkv_generation_next(running.generation, &piece, nullptr), WKV_OK);
        add(outcome, piece);
      }
      const Piece before = piece;
      const uint64_t position = info_of(running.cache.get()).position;
      fail_after(n, !GetParam());
      const wkv_status status = wkv_generation_next(running.generation, &piece, nullptr);
      const bool has_failed = stop_failing();
      if (status == WKV_OK) {
        add(outcome, piece);
      } else {
        ASSERT_EQ(wkv_status_name(status), std::string("WKV_OUT_OF_MEMORY")) << "call " << at << ", allocation " << n;
        ASSERT_EQ(std::memcmp(&piece, &before, sizeof piece), 0) << "call " << at << ", allocation " << n;
        // What was to be read may have been read, and nothing else has happened.
        const uint64_t now = info_of(running.cache.get()).position;
        ASSERT_TRUE(now == position || now == position + (at == 0 ? prompt_tokens : 1))
            << "call " << at << ", allocation " << n;
      }
      finish(running, outcome);
      ASSERT_TRUE(outcome == expected) << "call " << at << ", allocation " << n << ", text " << outcome.text;
      if (!has_failed) {
        ASSERT_GT(n, 0) << "the call allocates nothing: the test sees nothing";
        return;
      }
    }
    FAIL() << "call " << at << " never succeeds";
  }

  void check_sessions(int at, const Outcome &expected);

  static constexpr uint64_t prompt_tokens = 3;  // "ab", " ", "a"
  RandomModel model_{{2, 64, 32, 128, 300, 16, 16, 16, 16}, WKV_TYPE_F32, one_thread()};
  Tokenizer tokenizer_;
};

TEST_P(GenerationAllocations, of_a_stop_that_is_taken_back) {
  for (const bool has_store : {false, true}) {
    Outcome free;
    finish(start("also never", has_store), free);
    ASSERT_EQ(free.tokens.size(), 24u);
    size_t cases = 0;
    // A stop of several tokens, once with states kept for each, once so long that tokens are fed again.
    for (const size_t bytes : {size_t{5}, size_t{11}}) {
      size_t begin = 9;
      while (begin + bytes < free.text.size() &&
             (!is_text(free.text.substr(begin, bytes)) || free.text.find(free.text.substr(begin, bytes)) != begin))
        begin++;
      const std::string stop = free.text.substr(begin, bytes);
      if (!is_text(stop)) continue;
      Outcome expected;
      finish(start(stop.c_str(), has_store), expected);
      ASSERT_EQ(expected.reason, WKV_REASON_STOP_STRING);
      ASSERT_EQ(expected.pending_token, -1);
      const size_t last = expected.tokens.size() - 1;
      ASSERT_GE(last, 3u);
      for (const size_t at : {size_t{0}, last - 2, last - 1, last}) {
        fail_each(at, expected, stop.c_str(), has_store);
        if (HasFatalFailure()) return;
      }
      cases++;
    }
    EXPECT_GE(cases, 1u);
  }
}

// Long runs of "aa" that a stop follows: it may have begun at any token, and mostly at one without a kept state.
TEST_P(GenerationAllocations, of_feeding_tokens_again) {
  const wkv_token_bias biases[] = {{265, 1000}, {267, 990}};  // "aa", "b\n"
  wkv_sampler_options sampling = sampler_options(4);
  sampling.temperature = 5;
  sampling.biases = biases;
  sampling.biases_count = 2;
  const auto begin = [&](const std::string &stop) {
    Running running;
    running.cache = create_cache(model_.model);
    running.sampler = create_sampler(sampling);
    wkv_generation_options o = generation_options(tokenizer_, "ab a", 200);
    const char *stops[] = {stop.c_str()};
    o.stop_strings = stops;
    o.stop_strings_count = 1;
    EXPECT_EQ(wkv_generation_create(running.cache, running.sampler, &o, running.generation.out(), nullptr), WKV_OK);
    return running;
  };
  size_t cases = 0;
  for (size_t length = 9; length <= 16; length++) {
    const std::string stop = std::string(length, 'a') + "b";
    Outcome expected;
    finish(begin(stop), expected);
    if (expected.reason != WKV_REASON_STOP_STRING) continue;
    cases++;
    for (int64_t n = 0;; n++) {
      const Running running = begin(stop);
      Outcome outcome;
      Piece piece;
      for (size_t i = 0; i + 1 < expected.tokens.size(); i++) {
        ASSERT_EQ(wkv_generation_next(running.generation, &piece, nullptr), WKV_OK);
        add(outcome, piece);
      }
      fail_after(n, !GetParam());
      const wkv_status status = wkv_generation_next(running.generation, &piece, nullptr);
      const bool has_failed = stop_failing();
      if (status == WKV_OK)
        add(outcome, piece);
      else
        ASSERT_EQ(status, WKV_OUT_OF_MEMORY);
      finish(running, outcome);
      ASSERT_TRUE(outcome == expected) << stop << ", allocation " << n;
      if (!has_failed) break;
    }
  }
  EXPECT_GE(cases, 5u);
}

// In the middle of the text, wherever that is.
void GenerationAllocations::check_sessions(int at, const Outcome &expected) {
  const Running running = start("\n\naaa", false);
  Outcome outcome;
  Piece piece;
  for (int i = 0; i < at; i++) {
    ASSERT_EQ(wkv_generation_next(running.generation, &piece, nullptr), WKV_OK);
    add(outcome, piece);
  }
  wkv_session session{};
  session.struct_size = sizeof session;
  session.generation = running.generation;
  size_t bytes_count = 0;
  ASSERT_EQ(wkv_session_serialize(&session, nullptr, nullptr, 0, &bytes_count, nullptr), WKV_OK);
  std::vector<std::byte> bytes(bytes_count), whole(bytes_count);
  ASSERT_EQ(wkv_session_serialize(&session, nullptr, whole.data(), whole.size(), &bytes_count, nullptr), WKV_OK);
  const int64_t live = live_allocations();
  for (int64_t n = 0;; n++) {
    fail_after(n, !GetParam());
    const wkv_status status =
        wkv_session_serialize(&session, nullptr, bytes.data(), bytes.size(), &bytes_count, nullptr);
    const bool has_failed = stop_failing();
    ASSERT_EQ(live_allocations(), live) << "allocation " << n;
    ASSERT_EQ(status, has_failed ? WKV_OUT_OF_MEMORY : WKV_OK) << "allocation " << n;
    if (!has_failed) break;
    ASSERT_LT(n, 2000);
  }
  ASSERT_EQ(bytes, whole);
  for (int64_t n = 0;; n++) {
    wkv_session loaded{};
    loaded.struct_size = sizeof loaded;
    loaded.tokenizer = tokenizer_;
    fail_after(n, !GetParam());
    const wkv_status status = wkv_session_deserialize(model_.model, whole.data(), whole.size(), &loaded, nullptr);
    const bool has_failed = stop_failing();
    ASSERT_EQ(status, has_failed ? WKV_OUT_OF_MEMORY : WKV_OK) << "allocation " << n;
    if (has_failed) {
      ASSERT_EQ(live_allocations(), live) << "allocation " << n;
      ASSERT_EQ(loaded.cache, nullptr);
      ASSERT_EQ(loaded.sampler, nullptr);
      ASSERT_EQ(loaded.generation, nullptr);
      ASSERT_LT(n, 2000);
      continue;
    }
    Running other;
    other.cache.reset(loaded.cache);
    other.sampler.reset(loaded.sampler);
    other.generation.reset(loaded.generation);
    Outcome second = outcome;
    finish(other, second);
    EXPECT_TRUE(second == expected);
    break;
  }
  finish(running, outcome);
  EXPECT_TRUE(outcome == expected);
}

TEST_P(GenerationAllocations, of_sessions) {
  Outcome expected;
  finish(start("\n\naaa", false), expected);
  for (int at = 0; at < 12; at++) check_sessions(at, expected);
}

INSTANTIATE_TEST_SUITE_P(faults, GenerationAllocations, testing::Bool(),
                         [](const auto &test) { return test.param ? "and_all_after" : "one_alone"; });

}  // namespace
}  // namespace libwkv::test
