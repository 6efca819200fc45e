// SPDX-License-Identifier: Apache-2.0
// A generation that ends on a stop string leaves the cache as it was before the stop, and says what it has not read.
#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "text/decoder.h"
#include "text/generation_support.h"

namespace libwkv::test {
namespace {

std::string decoded(std::string_view bytes) {
  std::string text;
  Utf8Stream stream;
  stream.push(bytes, text);
  stream.finish(text);
  return text;
}

struct Answer {
  std::vector<int32_t> tokens;
  std::string text, unread;
  Piece last;
};

struct Place {
  size_t token = 0;    // the first one with a byte of the stop
  std::string unread;  // its bytes before the stop
};

class GenerationStop : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(model_.model.get(), nullptr);
    tokenizer_ = load_vocabulary(rough_vocabulary());
  }

  wkv_generation_options options(int32_t max_tokens) const {
    return generation_options(tokenizer_, "It is", max_tokens);
  }

  Answer run(const wkv_generation_options &o, wkv_sampler *sampler, wkv_cache *cache) {
    Answer run;
    Generation generation;
    EXPECT_EQ(wkv_generation_create(cache, sampler, &o, generation.out(), &failure_), WKV_OK) << failure_.message;
    Piece piece;
    wkv_status status;
    while ((status = wkv_generation_next(generation, &piece, &failure_)) == WKV_OK) {
      run.tokens.push_back(piece.token);
      run.text.append(piece.text, piece.text_bytes);
      run.unread.assign(piece.unread_text, piece.unread_bytes);
      EXPECT_EQ(piece.unread_text[piece.unread_bytes], 0);
      if (piece.reason != WKV_REASON_STOP_STRING) {
        EXPECT_EQ(piece.unread_bytes, 0u);
      }
      run.last = piece;
    }
    EXPECT_EQ(status, WKV_END) << failure_.message;
    EXPECT_EQ(piece.reason, run.last.reason);
    EXPECT_EQ(piece.pending_token, run.last.pending_token);
    EXPECT_EQ(std::string(piece.unread_text, piece.unread_bytes), run.unread);
    return run;
  }

  std::string bytes_of(int32_t token) const { return token == 0 ? "" : decode(tokenizer_, {token}); }

  // Where the text from `stop` on comes from: found by cutting the bytes where the text can be cut.
  Place place_of(const std::vector<int32_t> &tokens, size_t stop) const {
    std::string raw;
    for (const int32_t token : tokens) raw += bytes_of(token);
    const std::string text = decoded(raw);
    size_t cut = 0;
    while (cut <= raw.size() && (decoded(raw.substr(0, cut)).size() != stop ||
                                 decoded(raw.substr(0, cut)) + decoded(raw.substr(cut)) != text))
      cut++;
    EXPECT_LE(cut, raw.size());
    Place place;
    size_t begin = 0;
    while (place.token < tokens.size() && begin + bytes_of(tokens[place.token]).size() <= cut)
      begin += bytes_of(tokens[place.token++]).size();
    place.unread = raw.substr(begin, cut - begin);
    return place;
  }

  // A cache that has read the prompt and these tokens as a generation feeds them.
  Snapshot expected_snapshot(std::span<const int32_t> tokens) {
    const Cache cache = create_cache(model_.model);
    step(model_.info, model_.model, cache, encode(tokenizer_, "It is"));
    for (const int32_t token : tokens) step(model_.info, model_.model, cache, {&token, 1});
    return snapshot_of(model_.info, cache);
  }
  std::vector<int32_t> last_tokens(wkv_cache *cache) {
    const wkv_cache_info info = info_of(cache);
    return {info.last_tokens, info.last_tokens + info.last_tokens_count};
  }

  RandomModel model_{odd_shape, WKV_TYPE_F32, default_options()};
  Tokenizer tokenizer_;
  Failure failure_;
};

TEST_F(GenerationStop, leaves_the_cache_before_the_first_token_with_a_byte_of_it) {
  size_t cases = 0, inside_a_token = 0, inside_a_character = 0, spread = 0, replaced = 0;
  for (uint64_t seed = 1; seed <= 12; seed++) {
    wkv_generation_options o = options(48);
    const Answer free = run(o, rough_sampler(seed), create_cache(model_.model));
    ASSERT_EQ(free.tokens.size(), 48u);
    for (size_t begin = 0; begin + 40 < free.text.size(); begin++) {
      const std::string stop = free.text.substr(begin, 1 + (begin * 7 + seed) % 34);
      if (!is_utf8(stop)) continue;
      SCOPED_TRACE("seed " + std::to_string(seed) + ", at " + std::to_string(begin));
      const char *stops[] = {stop.c_str(), "never in the text"};
      o.stop_strings = stops;
      o.stop_strings_count = 2;
      const Cache cache = create_cache(model_.model);
      const Answer stopped = run(o, rough_sampler(seed), cache);
      ASSERT_EQ(stopped.last.reason, WKV_REASON_STOP_STRING);
      ASSERT_EQ(stopped.last.pending_token, -1);
      ASSERT_TRUE(std::equal(stopped.tokens.begin(), stopped.tokens.end(), free.tokens.begin()));
      const Place place = place_of(stopped.tokens, free.text.find(stop));
      ASSERT_EQ(stopped.text, free.text.substr(0, free.text.find(stop)));
      ASSERT_EQ(stopped.unread, place.unread);
      ASSERT_TRUE(snapshot_of(model_.info, cache) == expected_snapshot(std::span(free.tokens).first(place.token)));
      std::vector<int32_t> read = encode(tokenizer_, "It is");
      read.insert(read.end(), free.tokens.begin(), free.tokens.begin() + static_cast<long>(place.token));
      if (read.size() > WKV_LAST_TOKENS) read.erase(read.begin(), read.end() - WKV_LAST_TOKENS);
      ASSERT_EQ(last_tokens(cache), read);
      cases++;
      inside_a_token += !place.unread.empty();
      inside_a_character += !is_utf8(place.unread);
      spread += stopped.tokens.size() - place.token > 6;
      replaced += stop.find("\xef\xbf\xbd") != std::string::npos;
    }
  }
  EXPECT_GT(cases, 150u);
  EXPECT_GT(inside_a_token, 20u);
  EXPECT_GT(inside_a_character, 3u);
  EXPECT_GT(spread, 20u);
  EXPECT_GT(replaced, 20u);
}

TEST_F(GenerationStop, stays_in_the_cache_when_it_shall) {
  const wkv_generation_options free_options = options(40);
  const Answer free = run(free_options, rough_sampler(3), create_cache(model_.model));
  wkv_generation_options o = free_options;
  const std::string stop = free.text.substr(free.text.find('b', 20), 1);
  const char *stops[] = {stop.c_str()};
  o.stop_strings = stops;
  o.stop_strings_count = 1;
  o.keeps_stop_string = 1;
  const Cache cache = create_cache(model_.model);
  const Answer kept = run(o, rough_sampler(3), cache);
  EXPECT_EQ(kept.last.reason, WKV_REASON_STOP_STRING);
  EXPECT_EQ(kept.last.pending_token, kept.tokens.back());
  EXPECT_EQ(kept.unread, "");
  EXPECT_TRUE(snapshot_of(model_.info, cache) ==
              expected_snapshot(std::span(kept.tokens).first(kept.tokens.size() - 1)));
}

// A stop that the end of the text completes: what cannot become a character any more is one.
TEST_F(GenerationStop, may_come_from_the_last_unfinished_character) {
  const Cache cache = create_cache(model_.model);
  wkv_generation_options o = options(2);
  const char *stops[] = {"\xef\xbf\xbd"};
  o.stop_strings = stops;
  o.stop_strings_count = 1;
  // "a" and the beginning of a character, then another one
  const Answer stopped = run(o, forced(259), cache);
  EXPECT_EQ(stopped.tokens, (std::vector<int32_t>{259, 259}));
  EXPECT_EQ(stopped.last.reason, WKV_REASON_STOP_STRING);
  EXPECT_EQ(stopped.text, "a");
  EXPECT_EQ(stopped.unread, "a");
  EXPECT_TRUE(snapshot_of(model_.info, cache) == expected_snapshot({}));
  o.max_tokens = 1;
  ASSERT_EQ(wkv_cache_reset(cache, nullptr), WKV_OK);
  const Answer at_the_end = run(o, forced(259), cache);
  EXPECT_EQ(at_the_end.last.reason, WKV_REASON_STOP_STRING);
  EXPECT_EQ(at_the_end.unread, "a");
  EXPECT_TRUE(snapshot_of(model_.info, cache) == expected_snapshot({}));
}

TEST_F(GenerationStop, needs_few_states_however_long_it_is) {
  const std::string stop = std::string(3000, 'a') + "b";
  const char *stops[] = {stop.c_str()};
  wkv_generation_options o = options(500);
  o.stop_strings = stops;
  o.stop_strings_count = 1;
  const Cache cache = create_cache(model_.model);
  const Sampler sampler = forced(265);  // "aa"
  Generation generation;
  ASSERT_EQ(wkv_generation_create(cache, sampler, &o, generation.out(), &failure_), WKV_OK) << failure_.message;
  Piece piece;
  while (wkv_generation_next(generation, &piece, &failure_) == WKV_OK) {
    const wkv_memory_info memory = memory_of(model_.model);
    ASSERT_LE(memory.caches_bytes + memory.checkpoints_bytes, 6 * model_.info.state_bytes);
  }
  EXPECT_EQ(piece.tokens_generated, 500);
  generation.reset();
  EXPECT_EQ(memory_of(model_.model).checkpoints_bytes, 0u);
}

// The text runs along a stop for ever without completing it: the way back moves on, and is exact where it is needed.
TEST_F(GenerationStop, may_be_near_for_a_long_time) {
  const Cache cache = create_cache(model_.model);
  const Sampler sampler = forced(265);
  const std::string near = std::string(20, 'a') + "b", stop = std::string(12, 'a') + "\n";
  wkv_generation_options o = options(60);
  const char *stops[] = {near.c_str(), stop.c_str()};
  o.stop_strings = stops;
  o.stop_strings_count = 2;
  Generation generation;
  ASSERT_EQ(wkv_generation_create(cache, sampler, &o, generation.out(), &failure_), WKV_OK);
  Piece piece;
  std::string text;
  std::vector<int32_t> tokens;
  while (wkv_generation_next(generation, &piece, &failure_) == WKV_OK) {
    text.append(piece.text, piece.text_bytes);
    tokens.push_back(piece.token);
  }
  EXPECT_EQ(piece.reason, WKV_REASON_MAX_TOKENS);
  EXPECT_EQ(text, std::string(120, 'a'));
  EXPECT_TRUE(snapshot_of(model_.info, cache) == expected_snapshot(std::span(tokens).first(59)));
  EXPECT_EQ(memory_of(model_.model).checkpoints_bytes, 0u);
}

// Long runs of one letter, so that a stop may begin at any of many tokens, and mostly at one without a kept state.
TEST_F(GenerationStop, is_taken_back_exactly_where_it_could_have_begun_anywhere) {
  const wkv_token_bias biases[] = {{265, 1000}, {267, 985}};  // "aa", "b\n"
  wkv_sampler_options sampling = sampler_options(4);
  sampling.temperature = 5;
  sampling.biases = biases;
  sampling.biases_count = 2;
  wkv_generation_options o = options(300);
  const Answer free = run(o, create_sampler(sampling), create_cache(model_.model));
  size_t cases = 0;
  for (size_t length = 1; length <= 30; length++) {
    const std::string stop = std::string(length, 'a') + "b", decoy = std::string(length + 3, 'a') + "c";
    if (free.text.find(stop) == std::string::npos) continue;
    const char *stops[] = {stop.c_str(), decoy.c_str()};
    o.stop_strings = stops;
    o.stop_strings_count = 2;
    const Cache cache = create_cache(model_.model);
    const Answer stopped = run(o, create_sampler(sampling), cache);
    ASSERT_EQ(stopped.last.reason, WKV_REASON_STOP_STRING);
    const Place place = place_of(stopped.tokens, free.text.find(stop));
    ASSERT_EQ(stopped.unread, place.unread);
    ASSERT_TRUE(snapshot_of(model_.info, cache) == expected_snapshot(std::span(free.tokens).first(place.token)));
    cases++;
  }
  EXPECT_GE(cases, 12u);
}

TEST_F(GenerationStop, keeps_earlier_checkpoints_and_drops_later_ones) {
  const Answer free = run(options(40), rough_sampler(5), create_cache(model_.model));
  wkv_cache_options cache_options{};
  cache_options.struct_size = sizeof cache_options;
  cache_options.checkpoint_every_tokens = 1;
  cache_options.checkpoints_count_max = 100;
  Cache cache;
  ASSERT_EQ(wkv_cache_create(model_.model, &cache_options, cache.out(), &failure_), WKV_OK) << failure_.message;
  size_t begin = free.text.size() - 20;
  while (!is_utf8(free.text.substr(begin))) begin++;
  const std::string stop = free.text.substr(begin);
  const char *stops[] = {stop.c_str()};
  wkv_generation_options o = options(40);
  o.stop_strings = stops;
  o.stop_strings_count = 1;
  const Answer stopped = run(o, rough_sampler(5), cache);
  ASSERT_EQ(stopped.last.reason, WKV_REASON_STOP_STRING);
  const wkv_cache_info info = info_of(cache.get());
  const Place place = place_of(stopped.tokens, free.text.find(stop));
  EXPECT_EQ(info.position, 5 + place.token);
  EXPECT_EQ(info.kept_count, info.position);
  EXPECT_NE(wkv_cache_rollback(cache, info.position + 1, nullptr), WKV_OK);
  ASSERT_EQ(wkv_cache_rollback(cache, info.position - 3, &failure_), WKV_OK) << failure_.message;
  EXPECT_TRUE(snapshot_of(model_.info, cache) == expected_snapshot(std::span(free.tokens).first(place.token - 3)));
}

TEST_F(GenerationStop, does_not_touch_forks) {
  const Cache cache = create_cache(model_.model);
  wkv_generation_options o = options(40);
  const Answer free = run(o, rough_sampler(6), create_cache(model_.model));
  const std::string stop = free.text.substr(free.text.find("\n\n"), 2);
  const char *stops[] = {stop.c_str()};
  o.stop_strings = stops;
  o.stop_strings_count = 1;
  const Sampler sampler = rough_sampler(6);
  Generation generation;
  ASSERT_EQ(wkv_generation_create(cache, sampler, &o, generation.out(), &failure_), WKV_OK);
  Piece piece;
  std::vector<Cache> forks;
  size_t read = 0;
  while (wkv_generation_next(generation, &piece, &failure_) == WKV_OK) {
    if (piece.reason != WKV_REASON_NONE) break;
    forks.emplace_back();
    ASSERT_EQ(wkv_cache_copy(cache, forks.back().out(), &failure_), WKV_OK);
  }
  for (const Cache &fork : forks)
    EXPECT_TRUE(snapshot_of(model_.info, fork) == expected_snapshot(std::span(free.tokens).first(read++)));
}

struct Watched {
  uint64_t last = 0, total = 0, calls = 0, cancel_at = 0;
  static int32_t progress(void *user, uint64_t done_tokens, uint64_t total_tokens) {
    Watched &w = *static_cast<Watched *>(user);
    EXPECT_GE(done_tokens, w.last);
    EXPECT_LE(done_tokens, total_tokens);
    w.last = done_tokens;
    w.total = total_tokens;
    return ++w.calls == w.cancel_at;
  }
};

TEST_F(GenerationStop, progress_watches_the_prompt_and_may_cancel_it) {
  wkv_generation_options o = options(10);
  const Answer plain = run(o, rough_sampler(9), create_cache(model_.model));
  Watched watched;
  o.progress = Watched::progress;
  o.progress_user = &watched;
  EXPECT_EQ(run(o, rough_sampler(9), create_cache(model_.model)).tokens, plain.tokens);
  EXPECT_EQ(watched.last, 5u);
  EXPECT_EQ(watched.total, 5u);
  const uint64_t calls = watched.calls;
  EXPECT_GE(calls, 1u);
  for (uint64_t at = 1; at <= calls; at++) {
    watched = {};
    watched.cancel_at = at;
    const Cache cache = create_cache(model_.model);
    const Snapshot before = snapshot_of(model_.info, cache);
    const Sampler sampler = rough_sampler(9);
    Generation generation;
    ASSERT_EQ(wkv_generation_create(cache, sampler, &o, generation.out(), &failure_), WKV_OK);
    Piece piece;
    piece.token = -77;
    WKV_EXPECT_STATUS(WKV_CANCELLED, wkv_generation_next(generation, &piece, &failure_), failure_);
    EXPECT_EQ(piece.token, -77);
    EXPECT_TRUE(snapshot_of(model_.info, cache) == before);
    watched = {};
    std::vector<int32_t> tokens;
    while (wkv_generation_next(generation, &piece, &failure_) == WKV_OK) tokens.push_back(piece.token);
    EXPECT_EQ(tokens, plain.tokens);
  }
}

}  // namespace
}  // namespace libwkv::test
