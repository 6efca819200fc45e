// SPDX-License-Identifier: Apache-2.0
// The C++ layer: handles, exceptions, loops, and that nothing is lost on the way through it.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include <wkv/wkv.hpp>

namespace {

const std::string story_path = std::string(WKV_SOURCE_DIR) + "/examples/models/tales-8m.gguf";

wkv::GenerationOptions prompt(const std::string &text, int32_t max_tokens = 12) {
  wkv::GenerationOptions options;
  options.prompt = text;
  options.max_tokens = max_tokens;
  return options;
}

template <class Call>
wkv_status status_of(Call &&call) {
  try {
    call();
    return WKV_OK;
  } catch (const wkv::Error &error) {
    EXPECT_NE(std::string(error.what()), "");
    EXPECT_STREQ(error.status_name(), wkv_status_name(error.status()));
    return error.status();
  }
}

template <class Handle>
constexpr bool moves_only = std::is_nothrow_move_constructible_v<Handle> &&std::is_nothrow_move_assignable_v<Handle> &&
                            !std::is_copy_constructible_v<Handle> && !std::is_copy_assignable_v<Handle>;

TEST(wkv_hpp, handles_move_and_do_not_copy) {
  EXPECT_TRUE(moves_only<wkv::Model>);
  EXPECT_TRUE(moves_only<wkv::Cache>);
  EXPECT_TRUE(moves_only<wkv::Tokenizer>);
  EXPECT_TRUE(moves_only<wkv::Decoder>);
  EXPECT_TRUE(moves_only<wkv::Sampler>);
  EXPECT_TRUE(moves_only<wkv::Generation>);
}

TEST(wkv_hpp, failures_are_exceptions_with_status_and_text) {
  EXPECT_EQ(status_of([] { wkv::Model::load("/no/such/file"); }), WKV_NOT_FOUND);
  EXPECT_EQ(status_of([] { wkv::Tokenizer::load_memory("not a vocabulary"); }), WKV_FORMAT);
  wkv::SamplerOptions options;
  options.temperature = -1;
  EXPECT_EQ(status_of([&] { wkv::Sampler{options}; }), WKV_INVALID);
  wkv::ModelOptions model_options;
  model_options.threads = -5;
  EXPECT_EQ(status_of([&] { wkv::Model::load(story_path, model_options); }), WKV_INVALID);
}

TEST(wkv_hpp, progress_is_called_and_cancels) {
  uint64_t calls = 0, last = 0, total = 0;
  wkv::Model::load(story_path, {}, [&](uint64_t done, uint64_t all) {
    EXPECT_GE(done, last);
    last = done, total = all, calls++;
    return true;
  });
  EXPECT_GT(calls, 1u);
  EXPECT_GT(total, 0u);
  EXPECT_EQ(status_of([] { wkv::Model::load(story_path, {}, [](uint64_t, uint64_t) { return false; }); }),
            WKV_CANCELLED);
}

TEST(wkv_hpp, an_exception_of_the_progress_function_comes_out) {
  const auto load = [] {
    wkv::Model::load(story_path, {}, [](uint64_t, uint64_t) -> bool { throw std::logic_error("mine"); });
  };
  EXPECT_THROW(load(), std::logic_error);
}

TEST(wkv_hpp, objects_outlive_what_they_were_made_from) {
  auto model = std::make_unique<wkv::Model>(wkv::Model::load(story_path));
  wkv::Cache cache(*model);
  wkv::Tokenizer tokenizer = model->tokenizer();
  model.reset();
  const std::vector<int32_t> tokens = tokenizer.encode("Once upon a time");
  wkv::Decoder decoder(tokenizer);
  tokenizer = wkv::Tokenizer::load(story_path);
  EXPECT_FALSE(cache.step(tokens).empty());
  EXPECT_FALSE(decoder.push(tokens.back()).empty());
}

TEST(wkv_hpp, loads_from_memory) {
  std::ifstream file(story_path, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  const wkv::Model from_memory = wkv::Model::load_memory(bytes.data(), bytes.size());
  const wkv::Model from_file = wkv::Model::load(story_path);
  EXPECT_EQ(from_memory.info().fingerprint, from_file.info().fingerprint);
  wkv::Cache a(from_memory), b(from_file);
  EXPECT_EQ(a.step({5, 6, 7}), b.step({5, 6, 7}));
}

class WithModel : public testing::Test {
 protected:
  wkv::Model model = wkv::Model::load(story_path);
  wkv::Cache cache{model};
  wkv::Tokenizer tokenizer = model.tokenizer();
};

TEST_F(WithModel, describes_itself) {
  const wkv::ModelInfo info = model.info();
  EXPECT_EQ(info.layers, 8);
  EXPECT_EQ(info.width, 256);
  EXPECT_EQ(info.vocab_size, 2048);
  EXPECT_EQ(info.has_tokenizer, 1);
  EXPECT_GE(model.memory().weights_bytes, 8000000u);
  EXPECT_EQ(tokenizer.info().ids_end, 2048);
  const std::vector<wkv::DeviceInfo> devices = wkv::devices();
  ASSERT_FALSE(devices.empty());
  EXPECT_STREQ(devices[0].name, "cpu");
}

TEST_F(WithModel, text_goes_round) {
  const std::string text = std::string("na\xc3\xafve \xf0\x9f\x98\x80 \xff", 14) + std::string(1, '\0') + "end";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_EQ(tokenizer.encode("").size(), 0u);
  EXPECT_EQ(tokenizer.decode({}), "");
}

TEST_F(WithModel, decoder_gives_whole_characters) {
  wkv::Decoder decoder(tokenizer);
  std::string text;
  for (int32_t byte : {0xf0, 0x9f, 0x98}) text += decoder.push(byte + 1);  // ids 1 to 256 are the bytes
  EXPECT_EQ(text, "");
  text += decoder.push(0x80 + 1);
  EXPECT_EQ(text, "\xf0\x9f\x98\x80");
  EXPECT_EQ(decoder.push(0xf0 + 1), "");
  EXPECT_EQ(decoder.finish(), "\xef\xbf\xbd");
}

TEST_F(WithModel, fork_assign_reset) {
  cache.feed({5, 6, 7});
  wkv::Cache fork = cache.copy();
  EXPECT_EQ(fork.info().position, 3u);
  EXPECT_EQ(fork.step({8}), cache.step({8}));
  fork.reset();
  EXPECT_EQ(fork.info().position, 0u);
  fork.assign(cache);
  EXPECT_EQ(fork.info().position, 4u);
  EXPECT_EQ(fork.step({9}), cache.step({9}));
}

TEST_F(WithModel, state_is_read_and_written) {
  cache.feed({5, 6, 7});
  wkv::Cache other(model);
  for (int32_t layer = 0; layer < model.info().layers; layer++)
    for (wkv_state_part part : {WKV_STATE_ATT_SHIFT, WKV_STATE_FFN_SHIFT, WKV_STATE_WKV})
      other.write_state(layer, part, cache.read_state(layer, part));
  EXPECT_EQ(cache.read_state(0, WKV_STATE_WKV).size(), size_t{256 * 64});
  EXPECT_EQ(other.step({8}), cache.step({8}));
  EXPECT_EQ(status_of([&] { cache.read_state(99, WKV_STATE_WKV); }), WKV_INVALID);
}

TEST_F(WithModel, batch_step_samples) {
  wkv::Cache second(model);
  wkv::SamplerOptions greedy;
  greedy.is_greedy = true;
  wkv::Sampler sampler(greedy);
  const int32_t tokens[] = {5, 6, 7};
  std::vector<float> logits(2048);
  int32_t next = -1;
  std::vector<wkv::StepItem> items(2);
  for (size_t i = 0; i < 2; i++) {
    items[i].cache = i ? second.handle() : cache.handle();
    items[i].tokens = tokens;
    items[i].tokens_count = 3 - i;
  }
  items[0].logits = logits.data();
  items[0].logits_count = logits.size();
  items[0].sampler = sampler.handle();
  items[0].next_token = &next;
  model.step(items);
  EXPECT_EQ(cache.info().position, 3u);
  EXPECT_EQ(second.info().position, 2u);
  EXPECT_EQ(next, std::max_element(logits.begin(), logits.end()) - logits.begin());
  items[1].tokens_count = SIZE_MAX;
  EXPECT_EQ(status_of([&] { model.step(items); }), WKV_INVALID);
  EXPECT_EQ(items[1].status, WKV_INVALID);
}

TEST_F(WithModel, sampler_options_arrive) {
  const std::vector<float> scores = {0, 5, 4, 3};
  wkv::SamplerOptions options;
  options.is_greedy = true;
  options.banned_tokens = {1};
  options.biases = {{3, 2.f}};
  wkv::Sampler sampler(options);
  EXPECT_EQ(sampler.sample(scores), 3);
  EXPECT_EQ(sampler.probabilities(scores), (std::vector<float>{0, 0, 0, 1}));
  wkv::SamplerOptions penal;
  penal.is_greedy = true;
  penal.presence = 3;
  wkv::Sampler penalised(penal);
  EXPECT_EQ(penalised.sample(scores), 1);
  EXPECT_EQ(penalised.sample(scores), 2);
  penalised.reset(0);
  EXPECT_EQ(penalised.sample(scores), 1);
}

TEST_F(WithModel, equal_seeds_give_equal_tales) {
  std::string tales[3];
  for (int i = 0; i < 3; i++) {
    wkv::SamplerOptions options;
    options.seed = i < 2 ? 42 : 43;
    wkv::Sampler sampler(options);
    wkv::Cache fresh(model);
    for (const wkv::Piece &piece : wkv::Generation(fresh, sampler, prompt("Once upon a time", 40)))
      tales[i] += piece.text;
  }
  EXPECT_EQ(tales[0], tales[1]);
  EXPECT_NE(tales[0], tales[2]);
}

TEST_F(WithModel, generation_runs_in_a_loop) {
  wkv::GenerationOptions options = prompt("Once upon a time");
  options.wants_log_probability = true;
  options.alternatives_count = 3;
  std::string looped;
  int64_t tokens = 0;
  wkv_reason reason = WKV_REASON_NONE;
  wkv::Generation generation(cache, options);
  for (const wkv::Piece &piece : generation) {
    EXPECT_EQ(reason, WKV_REASON_NONE) << "a piece after the last one";
    looped += piece.text;
    reason = piece.reason;
    tokens = piece.tokens_generated;
    if (piece.token >= 0) {
      ASSERT_EQ(piece.alternatives.size(), 3u);
      EXPECT_EQ(piece.alternatives.data()[0].token, piece.token) << "greedy takes the likeliest";
      EXPECT_LE(piece.log_probability, 0);
    }
  }
  EXPECT_EQ(reason, WKV_REASON_MAX_TOKENS);
  EXPECT_EQ(tokens, 12);
  wkv::Piece piece;
  EXPECT_FALSE(generation.next(piece));
  EXPECT_EQ(piece.token, -1);

  wkv::Cache fresh(model);
  std::string pulled;
  wkv::Generation again(fresh, prompt("Once upon a time"));
  while (again.next(piece)) pulled += piece.text;
  EXPECT_EQ(pulled, looped);
}

TEST_F(WithModel, generation_stops_at_a_string) {
  wkv::Cache fresh(model);
  std::string whole;
  for (const wkv::Piece &piece : wkv::Generation(fresh, prompt("Once upon a time", 60))) whole += piece.text;
  ASSERT_GT(whole.size(), 20u);
  const std::string stop = whole.substr(10, 4);
  wkv::GenerationOptions options = prompt("Once upon a time", 60);
  options.stop_strings = {stop};
  std::string text;
  wkv_reason reason = WKV_REASON_NONE;
  for (const wkv::Piece &piece : wkv::Generation(cache, options)) {
    text += piece.text;
    reason = piece.reason;
  }
  EXPECT_EQ(reason, WKV_REASON_STOP_STRING);
  EXPECT_EQ(text, whole.substr(0, whole.find(stop)));
}

TEST_F(WithModel, generation_takes_a_stop_back_or_keeps_it) {
  wkv::Cache fresh(model);
  std::string whole;
  for (const wkv::Piece &piece : wkv::Generation(fresh, prompt("Once upon a time", 60))) whole += piece.text;
  wkv::GenerationOptions options = prompt("Once upon a time", 60);
  options.stop_strings = {whole.substr(10, 4)};
  uint64_t positions[2];
  for (const bool keeps : {false, true}) {
    options.keeps_stop_string = keeps;
    wkv::Cache own(model);
    wkv::Generation generation(own, options);
    wkv::Piece piece, last;
    std::string text;
    while (generation.next(piece)) {
      text += piece.text;
      last = piece;
    }
    EXPECT_EQ(last.reason, WKV_REASON_STOP_STRING);
    EXPECT_EQ(last.pending_token >= 0, keeps);
    EXPECT_EQ(last.reused_tokens, 0);
    positions[keeps] = own.info().position;
  }
  EXPECT_LE(positions[0], positions[1]);
}

TEST_F(WithModel, generation_uses_a_store) {
  wkv::PrefixStore store(model);
  const std::string long_prompt = "Once upon a time there was a little girl who had a red ball and a cat";
  wkv::GenerationOptions options = prompt(long_prompt, 3);
  options.prefix_store = &store;
  std::string texts[2];
  for (std::string &text : texts) {
    wkv::Cache own(model);
    wkv::Generation generation(own, options);
    wkv::Piece piece, last;
    while (generation.next(piece)) {
      text += piece.text;
      last = piece;
    }
    EXPECT_EQ(last.reused_tokens, &text == texts ? 0 : last.prompt_tokens - 1);
  }
  EXPECT_EQ(texts[0], texts[1]);
}

TEST_F(WithModel, generation_is_watched_and_cancelled) {
  wkv::GenerationOptions options = prompt("Once upon a time", 3);
  uint64_t calls = 0, last = 0;
  bool goes_on = false, throws = false;
  options.progress = [&](uint64_t done, uint64_t) {
    calls++;
    last = done;
    if (throws) throw std::runtime_error("mine");
    return goes_on;
  };
  wkv::Generation first(cache, options);
  wkv::Generation generation = std::move(first);
  wkv::Piece piece;
  try {
    generation.next(piece);
    ADD_FAILURE() << "not cancelled";
  } catch (const wkv::Error &error) {
    EXPECT_EQ(error.status(), WKV_CANCELLED);
  }
  EXPECT_EQ(cache.info().position, 0u);
  throws = true;
  EXPECT_THROW(generation.next(piece), std::runtime_error);
  throws = false;
  goes_on = true;
  int tokens = 0;
  while (generation.next(piece)) {
    EXPECT_EQ(last, static_cast<uint64_t>(piece.prompt_tokens));
    tokens++;
  }
  EXPECT_EQ(tokens, 3);
  EXPECT_GE(calls, 3u);
}

TEST_F(WithModel, threads_share_a_model) {
  const std::vector<float> expected = wkv::Cache(model).step({5, 6, 7});
  std::vector<std::vector<float>> results(8);
  std::vector<std::thread> threads;
  for (std::vector<float> &result : results)
    threads.emplace_back([&] {
      wkv::Cache own(model);
      own.feed({5, 6});
      result = own.step({7});
    });
  for (std::thread &thread : threads) thread.join();
  for (const std::vector<float> &result : results) {
    ASSERT_EQ(result.size(), expected.size());
    for (size_t i = 0; i < result.size(); i++) ASSERT_NEAR(result[i], expected[i], 1e-4) << i;
  }
}

TEST_F(WithModel, convert_writes_a_model) {
  const std::string target = testing::TempDir() + "wkv_hpp_converted.gguf";
  wkv::ConvertOptions options;
  options.weight_type = WKV_TYPE_F32;
  uint64_t calls = 0;
  wkv::convert(story_path, target, options, [&](uint64_t, uint64_t) { return ++calls > 0; });
  EXPECT_GT(calls, 0u);
  EXPECT_STREQ(wkv::Model::load(target).info().stored_types, "F32");
  std::remove(target.c_str());
}

TEST(wkv_hpp, caches_go_back_to_what_they_kept) {
  const wkv::Model model = wkv::Model::load(story_path);
  wkv::CacheOptions options;
  options.checkpoint_every_tokens = 4;
  wkv::Cache cache(model, options);
  cache.feed({5, 6, 7});
  EXPECT_EQ(cache.mark(), 3u);
  const std::vector<float> expected = cache.copy().step({8});
  cache.feed({9, 10, 11, 12, 13, 14});
  EXPECT_EQ(cache.kept_positions(), (std::vector<uint64_t>{3, 4, 8}));
  cache.rollback(3);
  EXPECT_EQ(cache.step({8}), expected);
  cache.unmark(3);
  EXPECT_EQ(status_of([&] { cache.rollback(3); }), WKV_NOT_FOUND);
  EXPECT_EQ(status_of([&] { cache.unmark(3); }), WKV_NOT_FOUND);
}

TEST(wkv_hpp, arrays_of_caches_are_selected_repeated_and_reordered) {
  const wkv::Model model = wkv::Model::load(story_path);
  std::vector<wkv::Cache> caches;
  for (int32_t i = 0; i < 3; i++) {
    caches.emplace_back(model);
    caches.back().feed(std::vector<int32_t>(static_cast<size_t>(i + 1), 5));
  }
  std::vector<wkv::Cache> selected = wkv::Cache::select(caches, {2, 0, 2});
  std::vector<wkv::Cache> repeated = wkv::Cache::repeat(caches, 2);
  wkv::Cache::reorder(caches, {1, 2, 0});
  auto positions = [](const std::vector<wkv::Cache> &all) {
    std::vector<uint64_t> result;
    for (const wkv::Cache &cache : all) result.push_back(cache.info().position);
    return result;
  };
  EXPECT_EQ(positions(selected), (std::vector<uint64_t>{3, 1, 3}));
  EXPECT_EQ(positions(repeated), (std::vector<uint64_t>{1, 1, 2, 2, 3, 3}));
  EXPECT_EQ(positions(caches), (std::vector<uint64_t>{2, 3, 1}));
  EXPECT_EQ(status_of([&] { wkv::Cache::select(caches, {3}); }), WKV_INVALID);
  EXPECT_EQ(status_of([&] { wkv::Cache::reorder(caches, {0}); }), WKV_INVALID);
  EXPECT_EQ(selected[0].step({6}).size(), static_cast<size_t>(model.info().vocab_size));
}

TEST(wkv_hpp, a_step_can_be_followed_and_cancelled) {
  wkv::Model model = wkv::Model::load(story_path);
  wkv::Cache cache(model);
  const std::vector<int32_t> tokens(40, 5);
  std::vector<wkv::StepItem> items(1);
  items[0].cache = cache.handle();
  items[0].tokens = tokens.data();
  items[0].tokens_count = tokens.size();
  uint64_t last = 0;
  EXPECT_EQ(status_of([&] { model.step(items, [](uint64_t, uint64_t) { return false; }); }), WKV_CANCELLED);
  EXPECT_THROW(model.step(items, [](uint64_t, uint64_t) -> bool { throw std::logic_error("no more"); }),
               std::logic_error);
  EXPECT_EQ(cache.info().position, 0u);
  model.step(items, [&](uint64_t done, uint64_t total) {
    last = done;
    return total == 40;
  });
  EXPECT_EQ(last, 40u);
  EXPECT_EQ(cache.info().position, 40u);
}

}  // namespace
