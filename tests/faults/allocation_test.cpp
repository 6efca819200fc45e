// SPDX-License-Identifier: Apache-2.0
// No memory, at every place where memory is asked for: a clean status, nothing leaked, nothing changed, and the same
// objects go on afterwards.
#include <string>
#include <tuple>

#include "faults/fail_each.h"
#include "support/models.h"

namespace libwkv::test {
namespace {

wkv_model_options one_thread() {
  wkv_model_options options = default_options();
  options.threads = 1;
  return options;
}

class Allocations : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!malloc_can_fail()) GTEST_SKIP() << "malloc cannot be replaced in this build";
  }
};

// One case a file: an ended process in one format must not hide the others.
class LoadAllocations : public testing::TestWithParam<std::tuple<std::pair<const char *, const char *>, bool>> {};

TEST_P(LoadAllocations, fail_cleanly) {
  if (!malloc_can_fail()) GTEST_SKIP() << "malloc cannot be replaced in this build";
  auto [source, all] = GetParam();
  std::string path = golden_directory(source.first) / "weights" / source.second;
  if (golden_directory(source.first).empty() || !std::filesystem::exists(path))
    GTEST_SKIP() << "no " << source.second << " here";
  for (wkv_type type : {WKV_TYPE_DEFAULT, WKV_TYPE_Q8}) {
    wkv_model_options options = one_thread();
    options.weight_type = type;
    fail_each("as " + type_name(type), all, [&]() -> wkv_status {
      wkv_model *model = nullptr;
      Failure failure;
      wkv_status status = wkv_model_load(path.c_str(), &options, &model, &failure);
      if (status != WKV_OK && model) return WKV_INTERNAL;  // an output that a failed call has written
      wkv_model_release(model);
      return status;
    });
    if (HasFatalFailure()) return;
  }
}

constexpr std::pair<const char *, const char *> load_files[] = {{"rnd_a", "rnd_a.F32.gguf"},
                                                                {"rnd_a", "rnd_a.Q8_0.gguf"},
                                                                {"rnd_a", "rnd_a.bf16.pth"},
                                                                {"rnd_a", "pth_variants/legacy_not_zip.pth"},
                                                                {"rnd_a", "fla_bf16"},
                                                                {"rnd_a", "fla_sharded_f16"},
                                                                {"tiny", "tiny-rwkv-7v0-834K-Q5_0.bin"}};
INSTANTIATE_TEST_SUITE_P(faults, LoadAllocations, testing::Combine(testing::ValuesIn(load_files), testing::Bool()),
                         [](const auto &test) {
                           return plain_name(std::get<0>(test.param).second) +
                                  (std::get<1>(test.param) ? "_and_all_after" : "_one_alone");
                         });

// A fresh model each time, so that the first step's workspace is asked for under fire.
TEST_P(Allocations, of_a_step) {
  for (wkv_type type : {WKV_TYPE_F32, WKV_TYPE_Q8}) {
    RandomModel random(odd_shape, type, one_thread());
    std::vector<int32_t> tokens = random_tokens(40, random.info.vocab_size, 1), one = {7};
    size_t vocab_size = static_cast<size_t>(random.info.vocab_size);
    std::vector<float> logits(40 * vocab_size);
    wkv_model_options options = one_thread();
    fail_each("first steps in " + type_name(type), GetParam(), [&] {
      wkv_model *model = nullptr;
      wkv_cache *cache = nullptr;
      wkv_status status = wkv_model_load_memory(random.image.data(), random.image.size(), &options, &model, nullptr);
      if (status == WKV_OK) status = wkv_cache_create(model, nullptr, &cache, nullptr);
      if (status == WKV_OK) {
        wkv_step_item item = make_item(cache, tokens, logits.data(), logits.size(), WKV_STEP_ALL_LOGITS);
        status = wkv_model_step(model, &item, 1, nullptr);
        if (status == WKV_OK) status = wkv_cache_step(cache, one.data(), 1, logits.data(), vocab_size, nullptr);
      }
      wkv_cache_release(cache);
      wkv_model_release(model);
      return status;
    });
    if (HasFatalFailure()) return;
  }
}

// A model whose workspace has yet to grow, at every allocation of that growth: the cache is as before, and the next
// step gives what it would have given.
TEST_P(Allocations, of_growing_leave_the_cache_alone) {
  RandomModel reference(odd_shape, WKV_TYPE_F16, one_thread());
  std::vector<int32_t> prompt = random_tokens(3, reference.info.vocab_size, 1);
  std::vector<int32_t> tokens = random_tokens(50, reference.info.vocab_size, 2);
  std::vector<float> expected, logits(50 * static_cast<size_t>(reference.info.vocab_size));
  {
    Cache cache = create_cache(reference.model);
    step(reference.info, reference.model, cache, prompt);
    expected = step(reference.info, reference.model, cache, tokens, true);
  }
  for (int64_t n = 0; n < 1000; n++) {
    Model model;
    wkv_model_options options = one_thread();
    ASSERT_EQ(wkv_model_load_memory(reference.image.data(), reference.image.size(), &options, model.out(), nullptr),
              WKV_OK);
    Cache cache = create_cache(model);
    step(reference.info, model, cache, prompt);
    Snapshot before = snapshot_of(reference.info, cache);
    wkv_step_item item = make_item(cache, tokens, logits.data(), logits.size(), WKV_STEP_ALL_LOGITS);
    fail_after(n, !GetParam());
    wkv_status status = wkv_model_step(model, &item, 1, nullptr);
    bool failed = stop_failing();
    if (status != WKV_OK) {
      ASSERT_EQ(status, WKV_OUT_OF_MEMORY) << "allocation " << n;
      ASSERT_TRUE(snapshot_of(reference.info, cache) == before) << "allocation " << n;
      ASSERT_EQ(wkv_model_step(model, &item, 1, nullptr), WKV_OK) << "after allocation " << n;
    }
    ASSERT_EQ(logits, expected) << "after allocation " << n;
    if (!failed) return;
  }
  FAIL() << "growing never succeeds";
}

// One model and its caches through all failures: they stay as they were and go on.
TEST_P(Allocations, of_a_batch_leave_the_caches_alone) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  size_t vocab_size = static_cast<size_t>(random.info.vocab_size);
  std::vector<int32_t> prompt = random_tokens(6, random.info.vocab_size, 1);
  Cache kept = create_cache(random.model);
  step(random.info, random.model, kept, prompt);
  Snapshot before = snapshot_of(random.info, kept);
  std::vector<float> logits(vocab_size * 64);
  int32_t next_token = -1;
  size_t length = 64;
  auto call = [&]() -> wkv_status {
    Cache a, b;
    if (wkv_cache_copy(kept, a.out(), nullptr) != WKV_OK || wkv_cache_copy(kept, b.out(), nullptr) != WKV_OK)
      return WKV_OUT_OF_MEMORY;
    std::vector<int32_t> tokens(64, 9);
    std::vector<wkv_step_item> items = {
        make_item(a, std::span(tokens).first(length), logits.data(), logits.size(), WKV_STEP_ALL_LOGITS),
        make_item(b, prompt)};
    Sampler sampler;  // a new one, whose own memory is asked for under fire as well
    wkv_status status = wkv_sampler_create(nullptr, sampler.out(), nullptr);
    items[1].sampler = sampler;
    items[1].next_token = &next_token;
    if (status == WKV_OK) status = wkv_model_step(random.model, items.data(), 2, nullptr);
    // whole at the end, or untouched; looked at without memory of its own, since the next allocation may fail as well
    EXPECT_EQ(info_of(a).position, status == WKV_OK ? 6u + length : 6u);
    EXPECT_EQ(info_of(b).position, status == WKV_OK ? 12u : 6u);
    for (wkv_cache *cache : {a.get(), b.get()})
      EXPECT_TRUE(status == WKV_OK || info_of(cache).is_shared) << "another state";
    return status;
  };
  // the vectors of `call` itself may throw: catch what is ours
  auto guarded = [&]() -> wkv_status {
    try {
      return call();
    } catch (const std::bad_alloc &) {
      return WKV_OUT_OF_MEMORY;
    }
  };
  fail_each("batch", GetParam(), guarded, [&](int64_t n, wkv_status) {
    ASSERT_TRUE(snapshot_of(random.info, kept) == before) << "allocation " << n;
  });
}

TEST_P(Allocations, of_caches) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  Cache source = create_cache(random.model);
  step(random.info, random.model, source, random_tokens(6, random.info.vocab_size, 1));
  Snapshot before = snapshot_of(random.info, source);
  wkv_memory_info memory = memory_of(random.model);
  auto check = [&](int64_t n, wkv_status) {
    ASSERT_EQ(memory_of(random.model).caches_bytes, memory.caches_bytes) << "allocation " << n;
    ASSERT_TRUE(snapshot_of(random.info, source) == before) << "allocation " << n;
  };
  fail_each(
      "cache create", GetParam(),
      [&] {
        wkv_cache *cache = nullptr;
        wkv_status status = wkv_cache_create(random.model, nullptr, &cache, nullptr);
        wkv_cache_release(cache);
        return status;
      },
      check);
  fail_each(
      "cache copy", GetParam(),
      [&] {
        wkv_cache *cache = nullptr;
        wkv_status status = wkv_cache_copy(source, &cache, nullptr);
        wkv_cache_release(cache);
        return status;
      },
      check);
}

TEST_P(Allocations, of_tokenizers) {
  std::vector<std::byte> vocabulary = read_file(golden_directory("rnd_a") / "weights/rwkv_vocab.txt");
  fail_each("tokenizer load", GetParam(), [&] {
    wkv_tokenizer *tokenizer = nullptr;
    wkv_status status = wkv_tokenizer_load_memory(vocabulary.data(), vocabulary.size(), &tokenizer, nullptr);
    wkv_tokenizer_release(tokenizer);
    return status;
  });
  Tokenizer tokenizer;
  ASSERT_EQ(wkv_tokenizer_load_memory(vocabulary.data(), vocabulary.size(), tokenizer.out(), nullptr), WKV_OK);
  int32_t token = 0x41;
  fail_each("decoder", GetParam(), [&] {
    wkv_decoder *decoder = nullptr;
    const char *text;
    size_t text_bytes;
    wkv_status status = wkv_decoder_create(tokenizer, &decoder, nullptr);
    for (int i = 0; i < 20 && status == WKV_OK; i++)
      status = wkv_decoder_push(decoder, token, &text, &text_bytes, nullptr);
    if (status == WKV_OK) status = wkv_decoder_finish(decoder, &text, &text_bytes, nullptr);
    wkv_decoder_release(decoder);
    return status;
  });
}

TEST_P(Allocations, of_samplers) {
  wkv_token_bias biases[] = {{3, 1.0f}, {4, -2.0f}};
  int32_t banned[] = {1, 2}, exempt[] = {9};
  wkv_sampler_options options{};
  options.struct_size = sizeof options;
  options.top_k = 20;
  options.typical_p = 0.9f;
  options.top_p = 0.9f;
  options.min_p = 0.01f;
  options.presence = 0.5f;
  options.repetition = 1.1f;
  options.biases = biases;
  options.biases_count = 2;
  options.banned_tokens = banned;
  options.banned_tokens_count = 2;
  options.exempt_tokens = exempt;
  options.exempt_tokens_count = 1;
  std::vector<float> logits(300);
  for (size_t i = 0; i < logits.size(); i++) logits[i] = static_cast<float>(i % 17) * 0.3f;
  fail_each("sampler", GetParam(), [&] {
    wkv_sampler *sampler = nullptr;
    wkv_status status = wkv_sampler_create(&options, &sampler, nullptr);
    int32_t token = -1;
    for (int i = 0; i < 3 && status == WKV_OK; i++) {
      status = wkv_sampler_sample(sampler, logits.data(), logits.size(), &token, nullptr);
      if (status != WKV_OK && token >= 0 && i == 0) status = WKV_INTERNAL;  // output written by a failed call
    }
    if (status == WKV_OK) status = wkv_sampler_accept(sampler, 77, nullptr);
    wkv_sampler_release(sampler);
    return status;
  });
}

// A sampler that could not sample draws what it would have drawn.
TEST_P(Allocations, of_sampling_do_not_move_the_sampler) {
  std::vector<float> logits(500);
  for (size_t i = 0; i < logits.size(); i++) logits[i] = static_cast<float>(i % 23) * 0.2f;
  wkv_sampler_options options{};
  options.struct_size = sizeof options;
  options.seed = 11;
  options.presence = 1.0f;
  options.top_p = 0.9f;
  Sampler twin;
  ASSERT_EQ(wkv_sampler_create(&options, twin.out(), nullptr), WKV_OK);
  std::vector<int32_t> expected(10);
  for (int32_t &token : expected)
    ASSERT_EQ(wkv_sampler_sample(twin, logits.data(), logits.size(), &token, nullptr), WKV_OK);
  for (int64_t n = 0; n < 200; n++) {
    Sampler sampler;
    ASSERT_EQ(wkv_sampler_create(&options, sampler.out(), nullptr), WKV_OK);
    int32_t token = -1;
    fail_after(n, !GetParam());
    wkv_status status = wkv_sampler_sample(sampler, logits.data(), logits.size(), &token, nullptr);
    bool failed = stop_failing();
    size_t from = status == WKV_OK ? 1 : 0;
    if (from) {
      ASSERT_EQ(token, expected[0]);
    } else {
      ASSERT_EQ(status, WKV_OUT_OF_MEMORY);
      ASSERT_EQ(token, -1);
    }
    for (size_t i = from; i < expected.size(); i++) {
      ASSERT_EQ(wkv_sampler_sample(sampler, logits.data(), logits.size(), &token, nullptr), WKV_OK);
      ASSERT_EQ(token, expected[i]) << "draw " << i << " after allocation " << n << " failed";
    }
    if (!failed) return;
  }
  FAIL() << "sampling never succeeds";
}

TEST_P(Allocations, of_generations) {
  Model model = load_model(exact_weights("rnd_a"), one_thread());
  Tokenizer tokenizer;
  ASSERT_EQ(
      wkv_tokenizer_load((golden_directory("rnd_a") / "weights/rwkv_vocab.txt").c_str(), tokenizer.out(), nullptr),
      WKV_OK);
  Cache cache = create_cache(model);
  const char *stops[] = {"zzz", "qqq"};
  wkv_generation_options options{};
  options.struct_size = sizeof options;
  options.tokenizer = tokenizer;
  options.prompt = "the old man";
  options.prompt_bytes = 11;
  options.max_tokens = 4;
  options.stop_strings = stops;
  options.stop_strings_count = 2;
  options.keeps_end_token = 1;
  options.wants_log_probability = 1;
  options.alternatives_count = 3;
  fail_each("generation", GetParam(), [&]() -> wkv_status {
    wkv_generation *generation = nullptr;
    wkv_generation_piece piece{};
    piece.struct_size = sizeof piece;
    if (wkv_cache_reset(cache, nullptr) != WKV_OK) return WKV_INTERNAL;
    wkv_status status = wkv_generation_create(cache, nullptr, &options, &generation, nullptr);
    while (status == WKV_OK) status = wkv_generation_next(generation, &piece, nullptr);
    wkv_generation_release(generation);
    wkv_cache_reset(cache, nullptr);  // a cache may have stepped into new memory
    return status == WKV_END ? WKV_OK : status;
  });
}

INSTANTIATE_TEST_SUITE_P(faults, Allocations, testing::Bool(),
                         [](const auto &test) { return test.param ? "and_all_after" : "one_alone"; });

// With worker threads: no thread may be lost, no process ended, whichever thread meets the failure.
TEST(ThreadedAllocations, fail_cleanly) {
  if (!malloc_can_fail()) GTEST_SKIP() << "malloc cannot be replaced in this build";
  std::string path = exact_weights("rnd_a");
  wkv_model_options options = default_options();
  options.threads = 4;
  options.weight_type = WKV_TYPE_F16;
  std::vector<int32_t> tokens = random_tokens(70, 331, 1);
  std::vector<float> logits(331);
  for (int64_t n = 0; n < 100000; n++) {
    wkv_model *model = nullptr;
    wkv_cache *cache = nullptr;
    fail_everywhere_after(n);
    wkv_status status = wkv_model_load(path.c_str(), &options, &model, nullptr);
    if (status == WKV_OK) status = wkv_cache_create(model, nullptr, &cache, nullptr);
    if (status == WKV_OK)
      status = wkv_cache_step(cache, tokens.data(), tokens.size(), logits.data(), logits.size(), nullptr);
    bool failed = stop_failing_everywhere();
    wkv_cache_release(cache);
    wkv_model_release(model);
    if (!failed) {
      ASSERT_EQ(status, WKV_OK);
      return;
    }
    if (status != WKV_OK) {
      ASSERT_EQ(wkv_status_name(status), std::string("WKV_OUT_OF_MEMORY")) << "allocation " << n;
    }
  }
  FAIL() << "never succeeds";
}

}  // namespace
}  // namespace libwkv::test
