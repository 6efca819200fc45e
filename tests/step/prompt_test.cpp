// SPDX-License-Identifier: Apache-2.0
// A prompt fed at once, in parts or token by token, with any number of threads and any chunk, gives the same.
#include <numeric>

#include "support/models.h"

namespace libwkv::test {
namespace {

struct Setting {
  wkv_type type;
  bool reproducible;
  const char *kernels;  // NULL: best
};

class Prompts : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    if (GetParam().kernels && !can_run(GetParam().kernels))
      GTEST_SKIP() << GetParam().kernels << " kernels do not run on this machine";
  }
  wkv_model_options options(int32_t threads, int32_t chunk) const {
    wkv_model_options options = default_options();
    options.threads = threads;
    options.chunk_tokens = chunk;
    options.is_reproducible = GetParam().reproducible;
    choose(options, GetParam().kernels);
    return options;
  }
  // Equal bits in the reproducible mode, else within rounding.
  void expect_same(std::span<const float> a, std::span<const float> b, const std::string &what) const {
    ASSERT_EQ(a.size(), b.size());
    if (GetParam().reproducible) {
      EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size_bytes()), 0) << what << ": " << largest_difference(a, b);
    } else {
      EXPECT_LE(largest_difference(a, b), order_tolerance(b, Quantity::logits)) << what;
    }
  }
  void expect_same(const Snapshot &a, const Snapshot &b, const std::string &what) const {
    if (GetParam().reproducible) {
      EXPECT_TRUE(a == b) << what;
    } else {
      expect_near(a, b, what);
    }
  }
};

TEST_P(Prompts, at_once_equal_one_by_one) {
  constexpr int32_t chunk = 24;
  for (int32_t threads : {1, 3}) {
    RandomModel random(odd_shape, GetParam().type, options(threads, chunk));
    ASSERT_NE(random.model.get(), nullptr);
    EXPECT_EQ(random.info.chunk_tokens, chunk);
    size_t vocab_size = static_cast<size_t>(random.info.vocab_size);
    std::vector<int32_t> tokens = random_tokens(1000, random.info.vocab_size, 7);
    Cache slow = create_cache(random.model);
    std::vector<float> slow_logits;  // [1000][vocab]
    std::vector<std::pair<size_t, Snapshot>> slow_snapshots;
    std::vector<size_t> lengths = {1, 2, 8, 9, chunk - 1, chunk, chunk + 1, 2 * chunk, 2 * chunk + 1, 1000};
    for (size_t t = 0; t < tokens.size(); t++) {
      std::vector<float> logits = step(random.info, random.model, slow, std::span(tokens).subspan(t, 1));
      slow_logits.insert(slow_logits.end(), logits.begin(), logits.end());
      if (std::find(lengths.begin(), lengths.end(), t + 1) != lengths.end())
        slow_snapshots.emplace_back(t + 1, snapshot_of(random.info, slow));
    }
    for (const auto &[length, snapshot] : slow_snapshots) {
      std::string what = std::to_string(length) + " tokens, " + std::to_string(threads) + " threads";
      std::span<const int32_t> prompt = std::span(tokens).first(length);
      Cache fast = create_cache(random.model);
      std::vector<float> last = step(random.info, random.model, fast, prompt);
      expect_same(last, std::span(slow_logits).subspan((length - 1) * vocab_size, vocab_size), what + ", last logits");
      expect_same(snapshot_of(random.info, fast), snapshot, what);
      Cache every = create_cache(random.model);
      std::vector<float> all = step(random.info, random.model, every, prompt, true);
      expect_same(all, std::span(slow_logits).first(length * vocab_size), what + ", all logits");
      expect_same(snapshot_of(random.info, every), snapshot, what + ", all logits");
      Cache silent = create_cache(random.model);
      Failure failure;
      WKV_EXPECT_STATUS(WKV_OK, wkv_cache_step(silent, prompt.data(), length, nullptr, 0, &failure), failure);
      expect_same(snapshot_of(random.info, silent), snapshot, what + ", no logits");
    }
  }
}

TEST_P(Prompts, in_parts_equal_at_once) {
  RandomModel random(odd_shape, GetParam().type, options(2, 16));
  ASSERT_NE(random.model.get(), nullptr);
  std::vector<int32_t> tokens = random_tokens(200, random.info.vocab_size, 8);
  Cache whole = create_cache(random.model);
  std::vector<float> expected = step(random.info, random.model, whole, tokens);
  for (size_t first : {1, 2, 15, 16, 17, 33, 100, 199}) {
    Cache cache = create_cache(random.model);
    step(random.info, random.model, cache, std::span(tokens).first(first));
    EXPECT_EQ(info_of(cache).position, first);
    std::vector<float> logits = step(random.info, random.model, cache, std::span(tokens).subspan(first));
    expect_same(logits, expected, "cut at " + std::to_string(first));
    expect_same(snapshot_of(random.info, cache), snapshot_of(random.info, whole), "cut at " + std::to_string(first));
  }
}

TEST_P(Prompts, do_not_depend_on_chunk_or_threads) {
  std::vector<float> expected;
  Snapshot expected_state;
  for (auto [threads, chunk] : std::vector<std::pair<int32_t, int32_t>>{
           {1, 1}, {1, 0}, {1, 7}, {2, 64}, {3, 100}, {4, 4096}, {5, 0}, {6, 33}, {7, 8}, {8, 1}, {8, 512}}) {
    RandomModel random(odd_shape, GetParam().type, options(threads, chunk));
    ASSERT_NE(random.model.get(), nullptr);
    EXPECT_EQ(random.info.threads, threads);
    std::vector<int32_t> tokens = random_tokens(150, random.info.vocab_size, 9);
    Cache cache = create_cache(random.model);
    std::vector<float> logits = step(random.info, random.model, cache, std::span(tokens).first(140), true);
    for (size_t t = 140; t < 150; t++) {
      std::vector<float> one = step(random.info, random.model, cache, std::span(tokens).subspan(t, 1));
      logits.insert(logits.end(), one.begin(), one.end());
    }
    Snapshot state = snapshot_of(random.info, cache);
    if (expected.empty()) {
      expected = logits;
      expected_state = state;
      continue;
    }
    std::string what = std::to_string(threads) + " threads, chunk " + std::to_string(chunk);
    expect_same(logits, expected, what);
    expect_same(state, expected_state, what);
  }
}

// Twice the same call gives the same bits in every mode: nothing depends on which thread was faster.
TEST_P(Prompts, repeat_to_the_bit) {
  RandomModel random(odd_shape, GetParam().type, options(4, 0));
  ASSERT_NE(random.model.get(), nullptr);
  std::vector<int32_t> tokens = random_tokens(70, random.info.vocab_size, 10);
  std::vector<float> expected;
  for (int i = 0; i < 5; i++) {
    Cache cache = create_cache(random.model);
    std::vector<float> logits = step(random.info, random.model, cache, std::span(tokens).first(60), true);
    for (size_t t = 60; t < 70; t++) {
      std::vector<float> one = step(random.info, random.model, cache, std::span(tokens).subspan(t, 1));
      logits.insert(logits.end(), one.begin(), one.end());
    }
    if (expected.empty()) expected = logits;
    EXPECT_EQ(std::memcmp(logits.data(), expected.data(), expected.size() * sizeof(float)), 0) << "run " << i;
  }
}

constexpr Setting settings[] = {
    {WKV_TYPE_F32, false, nullptr},  {WKV_TYPE_F16, false, nullptr}, {WKV_TYPE_BF16, false, nullptr},
    {WKV_TYPE_Q8, false, nullptr},   {WKV_TYPE_Q4, false, nullptr},  {WKV_TYPE_F32, true, nullptr},
    {WKV_TYPE_F16, true, nullptr},   {WKV_TYPE_Q8, true, nullptr},   {WKV_TYPE_Q4, true, nullptr},
    {WKV_TYPE_F32, false, "scalar"}, {WKV_TYPE_Q4, true, "scalar"},  {WKV_TYPE_F32, true, "avx2"},
    {WKV_TYPE_BF16, false, "avx2"},  {WKV_TYPE_Q8, false, "avx2"},   {WKV_TYPE_Q4, false, "avx2"},
    {WKV_TYPE_F32, false, "cuda"},   {WKV_TYPE_F32, true, "cuda"},   {WKV_TYPE_F16, true, "cuda"},
    {WKV_TYPE_Q8, true, "cuda"},     {WKV_TYPE_Q4, true, "cuda"},
};
INSTANTIATE_TEST_SUITE_P(step, Prompts, testing::ValuesIn(settings), [](const auto &test) {
  return type_name(test.param.type) + (test.param.reproducible ? "_reproducible" : "") +
         (test.param.kernels ? std::string("_") + test.param.kernels : "");
});

// What the squared ReLU zeroes must not change with the path that skips it.
TEST(SparseColumns, do_not_change_the_result) {
  for (double zeros : {0.0, 0.88, 1.0})
    for (wkv_type type : {WKV_TYPE_F32, WKV_TYPE_F16, WKV_TYPE_BF16, WKV_TYPE_Q8, WKV_TYPE_Q4}) {
      wkv_model_options options = default_options();
      options.threads = 2;
      RandomModel best(shape_named("tiny"), type, options, 3, zeros);
      options.is_reproducible = 1;
      options.kernels = "scalar";
      RandomModel plain(shape_named("tiny"), type, options, 3, zeros);
      std::vector<int32_t> tokens = random_tokens(20, best.info.vocab_size, 11);
      Cache a = create_cache(best.model), b = create_cache(plain.model);
      for (size_t t = 0; t < tokens.size(); t++) {
        std::vector<float> one = step(best.info, best.model, a, std::span(tokens).subspan(t, 1));
        std::vector<float> other = step(plain.info, plain.model, b, std::span(tokens).subspan(t, 1));
        ASSERT_LE(largest_difference(one, other), order_tolerance(other, Quantity::logits))
            << "type " << type << " zeros " << zeros << " token " << t;
      }
    }
}

}  // namespace
}  // namespace libwkv::test
