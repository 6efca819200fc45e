// SPDX-License-Identifier: Apache-2.0
// Generation: the same as stepping and sampling by hand, and what ends it, on a model with random weights.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "api/handles.h"
#include "engine/generation.h"
#include "state/cache.h"
#include "text/decoder.h"
#include "text/generation_support.h"
#include "text/sampler.h"

namespace libwkv::test {
namespace {

struct Outcome {
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<std::string> pieces;
  Piece last;
};

class GenerationTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(model_.model.get(), nullptr);
    tokenizer_ = load_vocabulary(vocabulary());
    cache_ = create_cache(model_.model);
  }

  Generation create(const wkv_generation_options &options, wkv_sampler *sampler) {
    Generation generation;
    EXPECT_EQ(wkv_generation_create(cache_, sampler, &options, generation.out(), &failure_), WKV_OK)
        << failure_.message;
    return generation;
  }

  Outcome finish(wkv_generation *generation) {
    Outcome run;
    Piece piece;
    wkv_status status;
    while ((status = wkv_generation_next(generation, &piece, &failure_)) == WKV_OK) {
      EXPECT_EQ(piece.text[piece.text_bytes], 0);
      EXPECT_TRUE(is_utf8({piece.text, piece.text_bytes}));
      run.pieces.emplace_back(piece.text, piece.text_bytes);
      run.text += run.pieces.back();
      run.tokens.push_back(piece.token);
      EXPECT_EQ(piece.tokens_generated, static_cast<int64_t>(run.tokens.size()));
      run.last = piece;
      run.last.text = nullptr;
      if (piece.reason == WKV_REASON_NONE) {
        EXPECT_EQ(piece.pending_token, -1);
      }
    }
    EXPECT_EQ(status, WKV_END) << failure_.message;
    EXPECT_EQ(piece.token, -1);
    EXPECT_EQ(piece.text_bytes, 0u);
    EXPECT_EQ(piece.reason, run.last.reason);
    EXPECT_EQ(piece.pending_token, run.last.pending_token);
    EXPECT_NE(run.last.reason, WKV_REASON_NONE);
    if (run.last.reason == WKV_REASON_STOP_STRING) {  // taken back: generation_stop_test.cpp
      EXPECT_EQ(run.last.pending_token, -1);
      return run;
    }
    EXPECT_EQ(run.last.pending_token, run.tokens.back());
    // The cache has read everything but the last token.
    EXPECT_EQ(info_of(cache_.get()).position - start_,
              static_cast<uint64_t>(run.last.prompt_tokens) + run.tokens.size() - 1);
    return run;
  }

  Outcome run(const wkv_generation_options &options, wkv_sampler *sampler) {
    EXPECT_EQ(wkv_cache_reset(cache_, nullptr), WKV_OK);
    return finish(create(options, sampler));
  }

  RandomModel model_{odd_shape, WKV_TYPE_F32, default_options()};
  Tokenizer tokenizer_;
  Cache cache_;
  uint64_t start_ = 0;
  Failure failure_;
};

TEST_F(GenerationTest, equals_stepping_and_sampling_by_hand) {
  const char *prompt = "Once w260 upon w333 a time";
  wkv_generation_options o = generation_options(tokenizer_, prompt, 60);
  const int32_t before[] = {5, 510};
  o.prompt_tokens = before;
  o.prompt_tokens_count = 2;
  o.wants_log_probability = 1;
  o.alternatives_count = 5;
  o.keeps_end_token = 1;
  wkv_sampler_options s = sampler_options(17);
  s.temperature = 1.2f;
  s.frequency = 0.3f;
  const Generation generation = create(o, create_sampler(s));

  s.ids_end = tokens_end;
  std::vector<int32_t> gap;
  for (int32_t id = gap_begin; id < gap_end; id++) gap.push_back(id);
  s.banned_tokens = gap.data();
  s.banned_tokens_count = gap.size();
  const Sampler sampler = create_sampler(s);
  const Cache cache = create_cache(model_.model);
  wkv_decoder *decoder = nullptr;
  ASSERT_EQ(wkv_decoder_create(tokenizer_, &decoder, nullptr), WKV_OK);
  std::vector<int32_t> feed = encode(tokenizer_, prompt);
  feed.insert(feed.begin(), before, before + 2);
  const int64_t prompt_tokens = static_cast<int64_t>(feed.size());
  Piece piece;
  for (int i = 0; i < 60; i++) {
    WKV_ASSERT_STATUS(WKV_OK, wkv_generation_next(generation, &piece, &failure_), failure_);
    const std::vector<float> logits = step(model_.info, model_.model, cache, feed);
    int32_t token = -1;
    ASSERT_EQ(wkv_sampler_sample(sampler, logits.data(), logits.size(), &token, nullptr), WKV_OK);
    ASSERT_EQ(piece.token, token) << i;
    EXPECT_EQ(piece.prompt_tokens, prompt_tokens);
    EXPECT_EQ(piece.reason, i == 59 ? WKV_REASON_MAX_TOKENS : WKV_REASON_NONE);
    const char *text = nullptr;
    size_t bytes = 0;
    ASSERT_EQ(wkv_decoder_push(decoder, token, &text, &bytes, nullptr), WKV_OK);
    std::string expected(text, bytes);
    if (i == 59) {
      ASSERT_EQ(wkv_decoder_finish(decoder, &text, &bytes, nullptr), WKV_OK);
      expected += std::string(text, bytes);
    }
    EXPECT_EQ(std::string(piece.text, piece.text_bytes), expected);

    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    const auto log_probability = [&](int32_t id) {
      return static_cast<double>(logits[static_cast<size_t>(id)]) - std::log(sum);
    };
    EXPECT_NEAR(piece.log_probability, log_probability(token), 1e-5);
    std::vector<int32_t> order(logits.size());
    for (size_t id = 0; id < order.size(); id++) order[id] = static_cast<int32_t>(id);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    ASSERT_EQ(piece.alternatives_count, 5);
    for (size_t a = 0; a < 5; a++) {
      EXPECT_EQ(piece.alternatives[a].token, order[a]);
      EXPECT_NEAR(piece.alternatives[a].log_probability, log_probability(order[a]), 1e-5);
    }
    feed = {token};
  }
  EXPECT_EQ(wkv_generation_next(generation, &piece, &failure_), WKV_END);
  EXPECT_EQ(snapshot_of(model_.info, cache_), snapshot_of(model_.info, cache));
  wkv_decoder_release(decoder);
}

TEST_F(GenerationTest, goes_on_with_the_pending_token) {
  wkv_generation_options o = generation_options(tokenizer_, "A beginning", 40);
  o.keeps_end_token = 1;
  const Outcome whole = run(o, create_sampler(sampler_options(3)));
  const Sampler sampler = create_sampler(sampler_options(3));
  o.max_tokens = 15;
  const Outcome first = run(o, sampler);
  EXPECT_EQ(first.last.reason, WKV_REASON_MAX_TOKENS);
  o = generation_options(tokenizer_, nullptr, 25);
  o.keeps_end_token = 1;
  o.prompt_tokens = &first.last.pending_token;
  o.prompt_tokens_count = 1;
  start_ = info_of(cache_.get()).position;
  const Outcome second = finish(create(o, sampler));
  std::vector<int32_t> together = first.tokens;
  together.insert(together.end(), second.tokens.begin(), second.tokens.end());
  EXPECT_EQ(together, whole.tokens);
}

TEST_F(GenerationTest, ends_at_a_stop_token_without_its_text) {
  wkv_generation_options o = generation_options(tokenizer_, "The", 30);
  o.keeps_end_token = 1;
  const Outcome free = run(o, create_sampler(sampler_options(21)));
  ASSERT_EQ(free.last.reason, WKV_REASON_MAX_TOKENS);
  const int32_t stop = free.tokens[20];
  const size_t place =
      static_cast<size_t>(std::find(free.tokens.begin(), free.tokens.end(), stop) - free.tokens.begin());
  const int32_t stops[] = {516, stop};
  o.stop_tokens = stops;
  o.stop_tokens_count = 2;
  const Outcome stopped = run(o, create_sampler(sampler_options(21)));
  EXPECT_EQ(stopped.last.reason, WKV_REASON_STOP_TOKEN);
  EXPECT_EQ(stopped.tokens,
            std::vector<int32_t>(free.tokens.begin(), free.tokens.begin() + static_cast<long>(place) + 1));
  std::string text;
  for (size_t i = 0; i < place; i++) text += free.pieces[i];
  EXPECT_EQ(stopped.text.substr(0, text.size()), text);
}

TEST_F(GenerationTest, ends_at_the_end_of_text_unless_told_otherwise) {
  wkv_generation_options o = generation_options(tokenizer_, "x", 4);
  Outcome ended = run(o, forced(0));
  EXPECT_EQ(ended.last.reason, WKV_REASON_STOP_TOKEN);
  EXPECT_EQ(ended.tokens, (std::vector<int32_t>{0}));
  EXPECT_EQ(ended.text, "");
  o.keeps_end_token = 1;
  ended = run(o, forced(0));
  EXPECT_EQ(ended.last.reason, WKV_REASON_MAX_TOKENS);
  EXPECT_EQ(ended.tokens.size(), 4u);
  const int32_t zero = 0;
  o.stop_tokens = &zero;
  o.stop_tokens_count = 1;
  EXPECT_EQ(run(o, forced(0)).last.reason, WKV_REASON_STOP_TOKEN);
}

TEST_F(GenerationTest, ends_before_a_stop_string_and_holds_its_beginning_back) {
  wkv_sampler_options s = sampler_options(5);
  const int32_t zero = 0;
  s.banned_tokens = &zero;
  s.banned_tokens_count = 1;
  wkv_generation_options o = generation_options(tokenizer_, "The", 50);
  const Outcome free = run(o, create_sampler(s));
  ASSERT_EQ(free.tokens.size(), 50u);
  size_t cases = 0;
  for (size_t begin = 3; begin + 12 < free.text.size(); begin += 5) {
    const std::string stop = free.text.substr(begin, 1 + begin % 11);
    if (!is_utf8(stop) || stop.find('\0') != std::string::npos) continue;
    const char *stops[] = {"never in the text", stop.c_str()};
    o.stop_strings = stops;
    o.stop_strings_count = 2;
    const Outcome stopped = run(o, create_sampler(s));
    EXPECT_EQ(stopped.last.reason, WKV_REASON_STOP_STRING);
    EXPECT_EQ(stopped.text, free.text.substr(0, free.text.find(stop)));
    EXPECT_TRUE(std::equal(stopped.tokens.begin(), stopped.tokens.end(), free.tokens.begin()));
    cases++;
  }
  EXPECT_GE(cases, 5u);
  // What was held back comes out when the generation ends otherwise.
  const std::string longer = free.text.substr(free.text.size() - 3) + "and more";
  if (is_utf8(longer) && longer.find('\0') == std::string::npos) {
    const char *stops[] = {longer.c_str()};
    o.stop_strings = stops;
    o.stop_strings_count = 1;
    const Outcome flushed = run(o, create_sampler(s));
    EXPECT_EQ(flushed.last.reason, WKV_REASON_MAX_TOKENS);
    EXPECT_EQ(flushed.text, free.text);
  }
}

TEST_F(GenerationTest, holds_back_and_flushes_a_repeated_word) {
  const Sampler sampler = forced(333);  // "w333 "
  wkv_generation_options o = generation_options(tokenizer_, "x", 4);
  const char *stops[] = {"w333 w333 w3339"};
  o.stop_strings = stops;
  o.stop_strings_count = 1;
  const Outcome flushed = run(o, sampler);
  // "w333 w333 w333" could go on with 9, and after the blank the last two words could
  EXPECT_EQ(flushed.pieces, (std::vector<std::string>{"", "", "w333 ", "w333 w333 w333 "}));
  stops[0] = " w";
  const Outcome stopped = run(o, sampler);
  EXPECT_EQ(stopped.pieces, (std::vector<std::string>{"w333", ""}));
  EXPECT_EQ(stopped.last.reason, WKV_REASON_STOP_STRING);
}

TEST_F(GenerationTest, flushes_an_unfinished_character) {
  const Outcome halves = run(generation_options(tokenizer_, "x", 3), forced(0xe6 + 1));
  EXPECT_EQ(halves.pieces, (std::vector<std::string>{"", "\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd"}));
}

TEST_F(GenerationTest, never_chooses_ids_without_a_token) {
  std::vector<wkv_token_bias> biases;
  for (int32_t id = gap_begin; id < gap_end; id++) biases.push_back({id, 1e6f});
  for (int32_t id = tokens_end; id < 517; id++) biases.push_back({id, 1e6f});
  for (const int32_t is_greedy : {0, 1}) {
    wkv_sampler_options s = sampler_options(1);
    s.is_greedy = is_greedy;
    s.biases = biases.data();
    s.biases_count = biases.size();
    wkv_generation_options o = generation_options(tokenizer_, "x", 50);
    for (const int32_t token : run(o, create_sampler(s)).tokens)
      EXPECT_TRUE(token < gap_begin || (token >= gap_end && token < tokens_end)) << token;
    // Without a tokenizer nothing is known about ids, and there is no text.
    const int32_t prompt = 7;
    o = generation_options(nullptr, nullptr, 3);
    o.prompt_tokens = &prompt;
    o.prompt_tokens_count = 1;
    const Outcome blind = run(o, create_sampler(s));
    EXPECT_EQ(blind.text, "");
    for (const int32_t token : blind.tokens)
      EXPECT_TRUE((token >= gap_begin && token < gap_end) || token >= tokens_end) << token;
  }
}

TEST_F(GenerationTest, busy_calls_change_nothing_and_can_be_repeated) {
  wkv_generation_options o = generation_options(tokenizer_, "Some words", 10);
  o.accepts_prompt = 1;
  o.keeps_end_token = 1;
  wkv_sampler_options s = sampler_options(8);
  s.presence = 0.7f;
  const Outcome undisturbed = run(o, create_sampler(s));
  ASSERT_EQ(wkv_cache_reset(cache_, nullptr), WKV_OK);
  const Sampler sampler = create_sampler(s);
  const Generation generation = create(o, sampler);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 10; i++) {
    Piece piece;
    piece.token = -77;
    auto &cache = *cache_.get()->object;
    ASSERT_TRUE(cache.busy().try_acquire());
    EXPECT_EQ(wkv_generation_next(generation, &piece, &failure_), WKV_BUSY);
    cache.busy().release();
    ASSERT_TRUE(sampler.get()->object->busy().try_acquire());
    EXPECT_EQ(wkv_generation_next(generation, &piece, &failure_), WKV_BUSY);
    sampler.get()->object->busy().release();
    EXPECT_EQ(piece.token, -77);
    WKV_ASSERT_STATUS(WKV_OK, wkv_generation_next(generation, &piece, &failure_), failure_);
    tokens.push_back(piece.token);
  }
  EXPECT_EQ(tokens, undisturbed.tokens);
}

TEST_F(GenerationTest, says_when_no_token_is_left) {
  wkv_sampler_options s = sampler_options(8);
  const int32_t zero = 0;
  s.ids_end = 1;
  s.banned_tokens = &zero;
  s.banned_tokens_count = 1;
  const Generation generation = create(generation_options(tokenizer_, "Two", 10), create_sampler(s));
  for (int i = 0; i < 3; i++) {
    Piece piece;
    piece.token = -77;
    EXPECT_EQ(wkv_generation_next(generation, &piece, &failure_), WKV_INVALID);
    EXPECT_NE(std::string(failure_.message).find("no token is left"), std::string::npos) << failure_.message;
    EXPECT_EQ(piece.token, -77);
    EXPECT_EQ(info_of(cache_.get()).position, 3u);  // the prompt is not fed again
  }
}

TEST_F(GenerationTest, penalties_may_remember_the_prompt) {
  // Whichever token of the prompt is the favourite, it is chosen, and no longer when it counts as seen.
  for (const char favourite : std::string("abc")) {
    wkv_sampler_options s = sampler_options(0);
    const wkv_token_bias bias = {favourite + 1, 1000};
    s.is_greedy = 1;
    s.presence = 1e6f;
    s.biases = &bias;
    s.biases_count = 1;
    wkv_generation_options o = generation_options(tokenizer_, "abc", 1);
    EXPECT_EQ(run(o, create_sampler(s)).tokens[0], favourite + 1);
    o.accepts_prompt = 1;
    EXPECT_NE(run(o, create_sampler(s)).tokens[0], favourite + 1);
  }
}

TEST_F(GenerationTest, keeps_what_it_needs) {
  wkv_generation_options o = generation_options(tokenizer_, "Some words", 8);
  const Outcome expected = run(o, create_sampler(sampler_options(2)));
  ASSERT_EQ(wkv_cache_reset(cache_, nullptr), WKV_OK);
  Generation generation;
  {
    const Sampler sampler = create_sampler(sampler_options(2));
    std::string prompt = "Some words";
    o.prompt = prompt.c_str();
    generation = create(o, sampler);
    std::fill(prompt.begin(), prompt.end(), '#');
  }
  cache_.reset();
  tokenizer_.reset();
  model_.model.reset();
  std::vector<int32_t> tokens;
  Piece piece;
  while (wkv_generation_next(generation, &piece, &failure_) == WKV_OK) tokens.push_back(piece.token);
  EXPECT_EQ(tokens, expected.tokens);
}

TEST_F(GenerationTest, has_defaults) {
  wkv_generation_options o = generation_options(tokenizer_, "x", 0);
  o.keeps_end_token = 1;
  const Outcome greedy = run(o, nullptr);
  EXPECT_EQ(greedy.tokens.size(), 256u);
  EXPECT_EQ(greedy.last.log_probability, 0);
  EXPECT_EQ(greedy.last.alternatives_count, 0);
  wkv_sampler_options s = sampler_options(0);
  s.is_greedy = 1;
  EXPECT_EQ(run(o, create_sampler(s)).tokens, greedy.tokens);
}

TEST_F(GenerationTest, refuses_wrong_arguments) {
  wkv_generation *generation = nullptr;
  const auto refuses = [&](wkv_status status, const char *what, auto change) {
    wkv_generation_options o = generation_options(tokenizer_, "x", 5);
    change(o);
    EXPECT_EQ(wkv_generation_create(cache_, nullptr, &o, &generation, &failure_), status) << what;
    EXPECT_NE(std::string(failure_.message).find(what), std::string::npos) << failure_.message;
    EXPECT_EQ(generation, nullptr);
  };
  static const int32_t outside = 517, negative = -1;
  static const char *empty[] = {"ok", ""}, *null[] = {nullptr}, *broken[] = {"\xc3"}, *fine[] = {"stop"};
  refuses(WKV_INVALID, "struct_size", [](auto &o) { o.struct_size = 4; });
  refuses(WKV_INVALID, "max_tokens is -1", [](auto &o) { o.max_tokens = -1; });
  refuses(WKV_INVALID, "nothing to feed", [](auto &o) { o.prompt_bytes = 0; });
  refuses(WKV_INVALID, "prompt is NULL", [](auto &o) { o.prompt = nullptr; });
  refuses(WKV_INVALID, "prompt_bytes", [](auto &o) { o.prompt_bytes = SIZE_MAX; });
  refuses(WKV_INVALID, "prompt_tokens is NULL", [](auto &o) { o.prompt_tokens_count = 1; });
  refuses(WKV_INVALID, "prompt_tokens", [](auto &o) { o.prompt_tokens = &outside, o.prompt_tokens_count = SIZE_MAX; });
  refuses(WKV_INVALID, "token 517 is outside vocabulary 517",
          [](auto &o) { o.prompt_tokens = &outside, o.prompt_tokens_count = 1; });
  refuses(WKV_INVALID, "token -1", [](auto &o) { o.prompt_tokens = &negative, o.prompt_tokens_count = 1; });
  refuses(WKV_INVALID, "stop_tokens is NULL", [](auto &o) { o.stop_tokens_count = 1; });
  refuses(WKV_INVALID, "stop_tokens_count", [](auto &o) { o.stop_tokens = &outside, o.stop_tokens_count = SIZE_MAX; });
  refuses(WKV_INVALID, "token 517", [](auto &o) { o.stop_tokens = &outside, o.stop_tokens_count = 1; });
  refuses(WKV_INVALID, "stop_strings is NULL", [](auto &o) { o.stop_strings_count = 1; });
  refuses(WKV_INVALID, "stop_strings_count", [](auto &o) { o.stop_strings = fine, o.stop_strings_count = SIZE_MAX; });
  refuses(WKV_INVALID, "stop_strings[1] is empty", [](auto &o) { o.stop_strings = empty, o.stop_strings_count = 2; });
  refuses(WKV_INVALID, "stop_strings[0] is NULL", [](auto &o) { o.stop_strings = null, o.stop_strings_count = 1; });
  refuses(WKV_INVALID, "not UTF-8", [](auto &o) { o.stop_strings = broken, o.stop_strings_count = 1; });
  refuses(WKV_INVALID, "keeps_end_token", [](auto &o) { o.keeps_end_token = 2; });
  refuses(WKV_INVALID, "wants_log_probability", [](auto &o) { o.wants_log_probability = -1; });
  refuses(WKV_INVALID, "accepts_prompt", [](auto &o) { o.accepts_prompt = 7; });
  refuses(WKV_INVALID, "keeps_stop_string", [](auto &o) { o.keeps_stop_string = 2; });
  refuses(WKV_UNSUPPORTED, "reserved", [](auto &o) { o.reserved = 1; });
  refuses(WKV_INVALID, "alternatives_count", [](auto &o) { o.alternatives_count = 21; });
  refuses(WKV_INVALID, "alternatives_count", [](auto &o) { o.alternatives_count = -1; });
  refuses(WKV_NOT_FOUND, "tokenizer", [](auto &o) { o.tokenizer = nullptr; });
  refuses(WKV_NOT_FOUND, "tokenizer", [](auto &o) {
    static const int32_t token = 1;
    o.tokenizer = nullptr, o.prompt_bytes = 0, o.prompt_tokens = &token, o.prompt_tokens_count = 1;
    o.stop_strings = fine, o.stop_strings_count = 1;
  });
  const Tokenizer poor = load_vocabulary("1 'a' 1\n"), rich = load_vocabulary("517 'a' 1\n");
  refuses(WKV_UNSUPPORTED, "no token", [&](auto &o) { o.tokenizer = poor.get(); });
  refuses(WKV_INVALID, "token 517", [&](auto &o) { o.tokenizer = rich.get(), o.prompt = "a"; });
  refuses(WKV_INVALID, "nothing to feed", [](auto &o) {
    o = wkv_generation_options{};
    o.struct_size = sizeof o;
  });
  EXPECT_EQ(wkv_generation_create(cache_, nullptr, nullptr, &generation, &failure_), WKV_INVALID);
  const wkv_generation_options o = generation_options(tokenizer_, "x", 5);
  EXPECT_EQ(wkv_generation_create(nullptr, nullptr, &o, &generation, &failure_), WKV_INVALID);
  EXPECT_EQ(wkv_generation_create(cache_, nullptr, &o, nullptr, &failure_), WKV_INVALID);
  EXPECT_EQ(generation, nullptr);

  const Generation made = create(o, nullptr);
  Piece piece;
  EXPECT_EQ(wkv_generation_next(nullptr, &piece, &failure_), WKV_INVALID);
  EXPECT_EQ(wkv_generation_next(made, nullptr, &failure_), WKV_INVALID);
  piece.struct_size = offsetof(wkv_generation_piece, reused_tokens) - 1;
  EXPECT_EQ(wkv_generation_next(made, &piece, &failure_), WKV_INVALID);
  EXPECT_EQ(info_of(cache_.get()).position, 0u);
  wkv_generation_release(nullptr);
}

}  // namespace
}  // namespace libwkv::test
