// SPDX-License-Identifier: Apache-2.0
// A ragged batch gives every row what it would have got alone.
#include "support/models.h"

namespace libwkv::test {
namespace {

// What one row of a batch asks for, and what it got.
struct Row {
  std::vector<int32_t> history, tokens;
  bool wants_logits = true, wants_all = false, samples = false;
  Cache cache;
  Sampler sampler;
  std::vector<float> logits;
  int32_t next_token = -7;
};

Sampler create_sampler(uint64_t seed) {
  wkv_sampler_options options{};
  options.struct_size = sizeof options;
  options.seed = seed;
  options.temperature = 0.9f;
  options.top_p = 0.95f;
  options.presence = 0.3f;
  Sampler sampler;
  Failure failure;
  EXPECT_EQ(wkv_sampler_create(&options, sampler.out(), &failure), WKV_OK) << failure.message;
  return sampler;
}

// Rows of mixed lengths, some with a past, some empty, some silent, some with every logit, some sampling.
std::vector<Row> make_rows(const RandomModel &random, size_t count, uint64_t seed, bool decode_only) {
  std::vector<int32_t> choices = random_tokens(count * 4, 1 << 20, seed);
  std::vector<Row> rows(count);
  constexpr size_t lengths[] = {1, 0, 2, 5, 1, 1, 17, 40, 1, 3};
  for (size_t i = 0; i < count; i++) {
    Row &row = rows[i];
    auto choice = [&](size_t k, int32_t below) { return choices[i * 4 + k] / 64 % below; };
    row.history = random_tokens(static_cast<size_t>(choice(0, 20)), random.info.vocab_size, seed + 100 + i);
    size_t length = decode_only ? 1 : lengths[static_cast<size_t>(choice(1, 10))];
    row.tokens = random_tokens(length, random.info.vocab_size, seed + 200 + i);
    row.wants_logits = choice(2, 4) != 0;
    row.wants_all = !decode_only && choice(2, 4) == 1;
    row.samples = choice(3, 3) == 0;
    if (row.samples) row.sampler = create_sampler(seed + i);
    row.cache = create_cache(random.model);
    if (!row.history.empty()) step(random.info, random.model, row.cache, row.history);
    if (row.wants_logits)
      row.logits.assign(static_cast<size_t>(random.info.vocab_size) * (row.wants_all ? std::max<size_t>(length, 1) : 1),
                        -1e30f);
  }
  return rows;
}

wkv_step_item item_of(Row &row) {
  wkv_step_item item = make_item(row.cache, row.tokens, row.wants_logits ? row.logits.data() : nullptr,
                                 row.logits.size(), row.wants_all ? static_cast<uint32_t>(WKV_STEP_ALL_LOGITS) : 0u);
  item.sampler = row.samples ? row.sampler.get() : nullptr;
  item.next_token = row.samples ? &row.next_token : nullptr;
  item.status = 99;
  return item;
}

void check_rows(RandomModel &random, size_t count, uint64_t seed, bool decode_only, bool reproducible) {
  std::vector<Row> together = make_rows(random, count, seed, decode_only);
  std::vector<Row> alone = make_rows(random, count, seed, decode_only);
  std::vector<wkv_step_item> items;
  for (Row &row : together) items.push_back(item_of(row));
  Failure failure;
  WKV_ASSERT_STATUS(WKV_OK, wkv_model_step(random.model, items.data(), items.size(), &failure), failure);
  for (size_t i = 0; i < count; i++) {
    Row &a = together[i], &b = alone[i];
    std::string what =
        std::to_string(count) + " rows, row " + std::to_string(i) + " of " + std::to_string(a.tokens.size());
    EXPECT_EQ(items[i].status, WKV_OK) << what;
    if (a.tokens.empty()) {
      EXPECT_EQ(a.next_token, -7) << what << ": an empty row was sampled";
      EXPECT_TRUE(std::all_of(a.logits.begin(), a.logits.end(), [](float v) { return v == -1e30f; })) << what;
      EXPECT_TRUE(snapshot_of(random.info, a.cache) == snapshot_of(random.info, b.cache)) << what;
      continue;
    }
    wkv_step_item single = item_of(b);
    WKV_ASSERT_STATUS(WKV_OK, wkv_model_step(random.model, &single, 1, &failure), failure);
    Snapshot found = snapshot_of(random.info, a.cache), expected = snapshot_of(random.info, b.cache);
    if (reproducible) {
      EXPECT_EQ(a.logits, b.logits) << what;
      EXPECT_EQ(a.next_token, b.next_token) << what;
      EXPECT_TRUE(found == expected) << what;
    } else {
      if (a.wants_logits) {
        EXPECT_LE(largest_difference(a.logits, b.logits), order_tolerance(b.logits, Quantity::logits)) << what;
      }
      expect_near(found, expected, what);
    }
    if (!a.samples) continue;
    EXPECT_GE(a.next_token, 0) << what;
    if (!a.wants_logits) continue;
    // sampling inside is sampling the same logits outside
    Sampler outside = create_sampler(seed + i);
    int32_t token = -1;
    size_t vocab_size = static_cast<size_t>(random.info.vocab_size);
    WKV_EXPECT_STATUS(
        WKV_OK,
        wkv_sampler_sample(outside, a.logits.data() + a.logits.size() - vocab_size, vocab_size, &token, &failure),
        failure);
    EXPECT_EQ(a.next_token, token) << what;
  }
}

class Batches : public testing::TestWithParam<std::pair<wkv_type, bool>> {};

TEST_P(Batches, give_each_row_what_it_gets_alone) {
  auto [type, reproducible] = GetParam();
  wkv_model_options options = default_options();
  options.threads = 3;
  options.chunk_tokens = 32;  // smaller than the batches below
  options.is_reproducible = reproducible;
  RandomModel random(odd_shape, type, options);
  ASSERT_NE(random.model.get(), nullptr);
  for (size_t count = 1; count <= 40; count++) {
    check_rows(random, count, count, false, reproducible);
    if (HasFailure()) FAIL() << "at " << count << " rows";
  }
  for (size_t count : {1, 2, 3, 7, 8, 9, 16, 31, 32, 33, 40}) {
    check_rows(random, count, 1000 + count, true, reproducible);
    if (HasFailure()) FAIL() << "decoding " << count << " rows";
  }
}

INSTANTIATE_TEST_SUITE_P(step, Batches,
                         testing::Values(std::pair{WKV_TYPE_F32, false}, std::pair{WKV_TYPE_F32, true},
                                         std::pair{WKV_TYPE_BF16, false}, std::pair{WKV_TYPE_Q8, false},
                                         std::pair{WKV_TYPE_Q8, true}, std::pair{WKV_TYPE_Q4, false}),
                         [](const auto &test) {
                           return type_name(test.param.first) + (test.param.second ? "_reproducible" : "");
                         });

TEST(Batch, may_be_empty) {
  RandomModel random(odd_shape, WKV_TYPE_F32, default_options());
  Failure failure;
  wkv_step_item item = make_item(nullptr, {});
  WKV_EXPECT_STATUS(WKV_OK, wkv_model_step(random.model, nullptr, 0, &failure), failure);
  WKV_EXPECT_STATUS(WKV_OK, wkv_model_step(random.model, &item, 0, &failure), failure);
}

TEST(Batch, of_hundreds_of_rows) {
  wkv_model_options options = default_options();
  options.is_reproducible = 1;
  options.threads = 2;
  RandomModel random(odd_shape, WKV_TYPE_F32, options);
  constexpr size_t rows = 700;  // more than one chunk of tokens
  std::vector<Cache> caches;
  std::vector<wkv_step_item> items;
  std::vector<int32_t> tokens = random_tokens(rows, random.info.vocab_size, 4);
  size_t vocab_size = static_cast<size_t>(random.info.vocab_size);
  std::vector<float> logits(rows * vocab_size);
  for (size_t i = 0; i < rows; i++) {
    caches.push_back(create_cache(random.model));
    items.push_back(make_item(caches[i], std::span(tokens).subspan(i, 1), logits.data() + i * vocab_size, vocab_size));
  }
  Failure failure;
  WKV_ASSERT_STATUS(WKV_OK, wkv_model_step(random.model, items.data(), rows, &failure), failure);
  for (size_t i = 0; i < rows; i += 61) {
    Cache alone = create_cache(random.model);
    std::vector<float> expected = step(random.info, random.model, alone, std::span(tokens).subspan(i, 1));
    EXPECT_EQ(std::memcmp(expected.data(), logits.data() + i * vocab_size, vocab_size * sizeof(float)), 0)
        << "row " << i;
  }
}

}  // namespace
}  // namespace libwkv::test
