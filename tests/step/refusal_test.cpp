// SPDX-License-Identifier: Apache-2.0
// A step with bad arguments says what is wrong and changes nothing: no cache, no sampler, no output.
#include <climits>
#include <string>

#include "support/models.h"

namespace libwkv::test {
namespace {

class Refusals : public testing::Test {
 protected:
  Refusals() : random_(odd_shape, WKV_TYPE_F32, one_thread()) {
    a_ = create_cache(random_.model);
    b_ = create_cache(random_.model);
    step(random_.info, random_.model, a_, random_tokens(5, random_.info.vocab_size, 1));
    step(random_.info, random_.model, b_, random_tokens(9, random_.info.vocab_size, 2));
    before_a_ = snapshot_of(random_.info, a_);
    before_b_ = snapshot_of(random_.info, b_);
    logits_a_.assign(vocab() * 2, 123.0f);
    logits_b_.assign(vocab() * 2, 123.0f);
    wkv_sampler_options options{};
    options.struct_size = sizeof options;
    options.seed = 5;
    EXPECT_EQ(wkv_sampler_create(&options, sampler_.out(), nullptr), WKV_OK);
    EXPECT_EQ(wkv_sampler_create(&options, twin_.out(), nullptr), WKV_OK);
  }
  static wkv_model_options one_thread() {
    wkv_model_options options = default_options();
    options.threads = 1;
    return options;
  }
  size_t vocab() const { return static_cast<size_t>(random_.info.vocab_size); }
  wkv_step_item item_a() { return make_item(a_, tokens_, logits_a_.data(), logits_a_.size()); }
  wkv_step_item item_b() { return make_item(b_, tokens_, logits_b_.data(), logits_b_.size()); }

  // Runs the items, expects the status and text, that item `at` alone is blamed, and that nothing has changed.
  void expect(wkv_status expected, std::vector<wkv_step_item> items, size_t at, const std::string &text = "") {
    Failure failure;
    for (wkv_step_item &item : items) item.status = 77;
    WKV_EXPECT_STATUS(expected, wkv_model_step(random_.model, items.data(), items.size(), &failure), failure);
    EXPECT_NE(std::string(failure.message).find(text), std::string::npos) << failure.message;
    EXPECT_STRNE(failure.message, "");
    for (size_t i = 0; i < items.size(); i++)
      EXPECT_EQ(items[i].status, i == at ? expected : WKV_OK) << "status of item " << i << ": " << failure.message;
    expect_untouched();
  }
  void expect_untouched() {
    EXPECT_TRUE(snapshot_of(random_.info, a_) == before_a_);
    EXPECT_TRUE(snapshot_of(random_.info, b_) == before_b_);
    for (const std::vector<float> *logits : {&logits_a_, &logits_b_})
      EXPECT_TRUE(std::all_of(logits->begin(), logits->end(), [](float v) { return v == 123.0f; }));
    EXPECT_EQ(next_token_, -3);
    // the sampler has drawn nothing: its next draws are those of its twin
    std::vector<float> flat(vocab(), 0.0f);
    int32_t drawn = -1, expected = -2;
    EXPECT_EQ(wkv_sampler_sample(sampler_, flat.data(), flat.size(), &drawn, nullptr), WKV_OK);
    EXPECT_EQ(wkv_sampler_sample(twin_, flat.data(), flat.size(), &expected, nullptr), WKV_OK);
    EXPECT_EQ(drawn, expected);
  }

  RandomModel random_;
  Cache a_, b_;
  Snapshot before_a_, before_b_;
  std::vector<int32_t> tokens_{1, 2};
  std::vector<float> logits_a_, logits_b_;
  Sampler sampler_, twin_;
  int32_t next_token_ = -3;
};

TEST_F(Refusals, token_outside_the_vocabulary) {
  for (int32_t bad : {517, 70000, -1, INT_MAX, INT_MIN}) {
    std::vector<int32_t> tokens = {3, bad, 4};
    wkv_step_item item = item_b();
    item.tokens = tokens.data();
    item.tokens_count = 3;
    expect(WKV_INVALID, {item_a(), item}, 1, std::to_string(bad));
    expect(WKV_INVALID, {item, item_a()}, 0, "517");
    Failure failure;
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_step(a_, tokens.data(), 3, logits_a_.data(), logits_a_.size(), &failure),
                      failure);
    EXPECT_NE(std::string(failure.message).find(std::to_string(bad)), std::string::npos) << failure.message;
    EXPECT_NE(std::string(failure.message).find("517"), std::string::npos) << failure.message;
    expect_untouched();
  }
}

TEST_F(Refusals, logits_buffer_too_small) {
  wkv_step_item item = item_b();
  item.logits_count = vocab() - 1;
  expect(WKV_INVALID, {item_a(), item}, 1, std::to_string(vocab()));
  item.flags = WKV_STEP_ALL_LOGITS;
  item.logits_count = vocab() * 2 - 1;
  expect(WKV_INVALID, {item_a(), item}, 1, std::to_string(vocab()));
  item.logits_count = vocab();
  expect(WKV_INVALID, {item, item_a()}, 0);
  Failure failure;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_step(a_, tokens_.data(), 2, logits_a_.data(), vocab() - 1, &failure),
                    failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_step(a_, tokens_.data(), 2, logits_a_.data(), 0, &failure), failure);
  expect_untouched();
}

TEST_F(Refusals, counts_that_cannot_be) {
  for (size_t huge : {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / sizeof(float), size_t{1} << 62}) {
    Failure failure;
    // the logits of so many tokens overflow any count; nothing may be read past the two tokens that exist
    wkv_step_item item = item_b();
    item.flags = WKV_STEP_ALL_LOGITS;
    item.tokens_count = huge;
    expect(WKV_INVALID, {item_a(), item}, 1);
    std::vector<wkv_step_item> items = {item_a(), item_b()};
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_step(random_.model, items.data(), huge, &failure), failure);
  }
  std::vector<wkv_step_item> items = {item_a(), item_b()};
  Failure failure;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_step(random_.model, items.data(), 65537, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_step(a_, tokens_.data(), 0, logits_a_.data(), logits_a_.size(), &failure),
                    failure);
  expect_untouched();
}

TEST_F(Refusals, one_cache_twice) {
  wkv_step_item again = make_item(a_, tokens_, logits_b_.data(), logits_b_.size());
  expect(WKV_INVALID, {item_a(), item_b(), again}, 2);
  expect(WKV_INVALID, {item_a(), again}, 1);
}

TEST_F(Refusals, one_sampler_twice) {
  wkv_step_item first = item_a(), second = item_b();
  first.sampler = second.sampler = sampler_;
  first.next_token = second.next_token = &next_token_;
  expect(WKV_INVALID, {first, second}, 1);
}

TEST_F(Refusals, sampler_without_a_place_for_its_token) {
  wkv_step_item item = item_b();
  item.sampler = sampler_;
  expect(WKV_INVALID, {item_a(), item}, 1, "next_token");
}

TEST_F(Refusals, cache_of_another_model) {
  RandomModel other(odd_shape, WKV_TYPE_F32, one_thread(), 2);
  Cache stranger = create_cache(other.model);
  wkv_step_item item = make_item(stranger, tokens_, logits_b_.data(), logits_b_.size());
  expect(WKV_MISMATCH, {item_a(), item}, 1);
  EXPECT_EQ(info_of(stranger).position, 0u);
  Failure failure;
  WKV_EXPECT_STATUS(WKV_MISMATCH, wkv_cache_assign(a_, stranger, &failure), failure);
  // the same file loaded twice is two models
  RandomModel twin(odd_shape, WKV_TYPE_F32, one_thread());
  Cache double_ = create_cache(twin.model);
  item.cache = double_;
  expect(WKV_MISMATCH, {item, item_a()}, 0);
}

TEST_F(Refusals, missing_pointers) {
  Failure failure;
  wkv_step_item item = item_b();
  item.cache = nullptr;
  expect(WKV_INVALID, {item_a(), item}, 1);
  item = item_b();
  item.tokens = nullptr;
  expect(WKV_INVALID, {item_a(), item}, 1);
  item = item_b();
  item.struct_size = 0;
  expect(WKV_INVALID, {item_a(), item}, 1);
  item = item_b();
  item.struct_size -= 8;
  expect(WKV_INVALID, {item_a(), item}, 1);
  item = item_b();
  item.flags = 1u << 31;
  Failure flags;
  wkv_status status = wkv_model_step(random_.model, &item, 1, &flags);
  EXPECT_TRUE(status == WKV_INVALID || status == WKV_UNSUPPORTED) << status;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_step(random_.model, nullptr, 1, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_step(nullptr, &item, 1, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_step(nullptr, tokens_.data(), 2, nullptr, 0, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_step(a_, nullptr, 2, nullptr, 0, &failure), failure);
  EXPECT_EQ(wkv_cache_step(nullptr, nullptr, 0, nullptr, 0, nullptr), WKV_INVALID);
  expect_untouched();
}

TEST_F(Refusals, several_items_at_fault_are_all_named) {
  std::vector<int32_t> bad = {9999};
  Cache c = create_cache(random_.model);
  std::vector<wkv_step_item> items = {item_a(), make_item(b_, bad), make_item(c, bad)};
  Failure failure;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_step(random_.model, items.data(), items.size(), &failure), failure);
  EXPECT_EQ(items[0].status, WKV_OK);
  EXPECT_EQ(items[1].status, WKV_INVALID);
  EXPECT_EQ(items[2].status, WKV_INVALID);
  expect_untouched();
}

// After any of this, the caches go on as if nothing had been asked.
TEST_F(Refusals, leave_the_cache_usable) {
  Cache twin;
  EXPECT_EQ(wkv_cache_copy(a_, twin.out(), nullptr), WKV_OK);
  std::vector<int32_t> bad = {1, 2, 9999};
  EXPECT_EQ(wkv_cache_step(a_, bad.data(), 3, nullptr, 0, nullptr), WKV_INVALID);
  EXPECT_EQ(step(random_.info, random_.model, a_, tokens_), step(random_.info, random_.model, twin, tokens_));
}

// A sampler that has nothing to choose from fails, and the step with it.
TEST_F(Refusals, sampler_with_nothing_to_choose) {
  std::vector<int32_t> all(vocab());
  for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<int32_t>(i);
  wkv_sampler_options options{};
  options.struct_size = sizeof options;
  options.banned_tokens = all.data();
  options.banned_tokens_count = all.size();
  Sampler nothing;
  ASSERT_EQ(wkv_sampler_create(&options, nothing.out(), nullptr), WKV_OK);
  wkv_step_item item = item_b();
  item.sampler = nothing;
  item.next_token = &next_token_;
  // scores may have been written by then: they are the only thing a failed step may leave behind
  wkv_step_item other = item_a();
  item.logits = other.logits = nullptr;
  expect(WKV_INVALID, {other, item}, 1);
}

}  // namespace
}  // namespace libwkv::test
