// SPDX-License-Identifier: Apache-2.0
// A cache is a value: copies are independent, everything in it can be read and written, and refusals change nothing.
#include <cmath>
#include <limits>

#include "support/models.h"

namespace libwkv::test {
namespace {

class Caches : public testing::Test {
 protected:
  static wkv_model_options reproducible() {
    wkv_model_options options = default_options();
    options.threads = 2;
    options.is_reproducible = 1;
    return options;
  }
  RandomModel random_{odd_shape, WKV_TYPE_F32, reproducible()};
  std::vector<int32_t> prompt_ = random_tokens(12, odd_shape.vocab_size, 1);
  std::vector<int32_t> more_ = random_tokens(5, odd_shape.vocab_size, 2);
  Failure failure_;
};

TEST_F(Caches, begin_empty) {
  Cache cache = create_cache(random_.model);
  wkv_cache_info info = info_of(cache);
  EXPECT_EQ(info.position, 0u);
  EXPECT_EQ(info.last_token, -1);
  EXPECT_EQ(info.state_type, WKV_TYPE_F32);
  EXPECT_STREQ(info.device, "cpu");
  EXPECT_EQ(info.bytes, random_.info.state_bytes);
  Snapshot snapshot = snapshot_of(random_.info, cache);
  for (const std::vector<float> &part : snapshot.parts) EXPECT_EQ(largest_magnitude(part), 0);
}

TEST_F(Caches, count_tokens_and_remember_the_last) {
  Cache cache = create_cache(random_.model);
  step(random_.info, random_.model, cache, prompt_);
  EXPECT_EQ(info_of(cache).position, 12u);
  EXPECT_EQ(info_of(cache).last_token, prompt_.back());
  step(random_.info, random_.model, cache, std::span(more_).first(1));
  EXPECT_EQ(info_of(cache).position, 13u);
  EXPECT_EQ(info_of(cache).last_token, more_[0]);
}

TEST_F(Caches, copies_are_independent) {
  Cache cache = create_cache(random_.model), copy;
  step(random_.info, random_.model, cache, prompt_);
  Snapshot before = snapshot_of(random_.info, cache);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_copy(cache, copy.out(), &failure_), failure_);
  EXPECT_TRUE(snapshot_of(random_.info, copy) == before);
  std::vector<float> a = step(random_.info, random_.model, copy, more_);
  EXPECT_TRUE(snapshot_of(random_.info, cache) == before) << "the source moved with its copy";
  EXPECT_EQ(step(random_.info, random_.model, cache, more_), a);
  EXPECT_TRUE(snapshot_of(random_.info, cache) == snapshot_of(random_.info, copy));
  cache.reset();  // a copy outlives its source
  EXPECT_EQ(step(random_.info, random_.model, copy, more_).size(), static_cast<size_t>(random_.info.vocab_size));
}

TEST_F(Caches, assign_takes_everything_over) {
  Cache source = create_cache(random_.model), target = create_cache(random_.model);
  step(random_.info, random_.model, source, prompt_);
  step(random_.info, random_.model, target, more_);
  Snapshot before = snapshot_of(random_.info, source);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_assign(target, source, &failure_), failure_);
  EXPECT_TRUE(snapshot_of(random_.info, target) == before);
  step(random_.info, random_.model, target, more_);
  EXPECT_TRUE(snapshot_of(random_.info, source) == before);
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_assign(source, source, &failure_), failure_);
  EXPECT_TRUE(snapshot_of(random_.info, source) == before);
}

TEST_F(Caches, reset_forgets_everything) {
  Cache cache = create_cache(random_.model), fresh = create_cache(random_.model);
  step(random_.info, random_.model, cache, prompt_);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_reset(cache, &failure_), failure_);
  EXPECT_TRUE(snapshot_of(random_.info, cache) == snapshot_of(random_.info, fresh));
  EXPECT_EQ(step(random_.info, random_.model, cache, more_), step(random_.info, random_.model, fresh, more_));
}

TEST_F(Caches, every_part_can_be_carried_over) {
  Cache source = create_cache(random_.model), target = create_cache(random_.model);
  step(random_.info, random_.model, source, prompt_);
  for (int32_t layer = 0; layer < random_.info.layers; layer++)
    for (wkv_state_part part = 0; part < 3; part++) {
      std::vector<float> values(part_size(random_.info, part));
      WKV_ASSERT_STATUS(WKV_OK, wkv_cache_read_state(source, layer, part, values.data(), values.size(), &failure_),
                        failure_);
      EXPECT_GT(largest_magnitude(values), 0);
      WKV_ASSERT_STATUS(WKV_OK, wkv_cache_write_state(target, layer, part, values.data(), values.size(), &failure_),
                        failure_);
    }
  Snapshot a = snapshot_of(random_.info, source), b = snapshot_of(random_.info, target);
  for (int part = 0; part < 3; part++) EXPECT_EQ(a.parts[part], b.parts[part]);
  EXPECT_EQ(b.position, 0u) << "writing does not touch the position";
  EXPECT_EQ(b.last_token, -1);
  EXPECT_EQ(step(random_.info, random_.model, source, more_), step(random_.info, random_.model, target, more_));
}

// One part of one layer is exactly what changes.
TEST_F(Caches, a_write_stays_in_its_place) {
  Cache cache = create_cache(random_.model);
  for (int32_t layer = 0; layer < random_.info.layers; layer++)
    for (wkv_state_part part = 0; part < 3; part++) {
      Snapshot expected = snapshot_of(random_.info, cache);
      size_t size = part_size(random_.info, part);
      std::vector<float> values(size);
      for (size_t i = 0; i < size; i++)
        values[i] = static_cast<float>(i) + 0.25f + static_cast<float>(layer * 3 + part) * 100000.0f;
      WKV_ASSERT_STATUS(WKV_OK, wkv_cache_write_state(cache, layer, part, values.data(), size, &failure_), failure_);
      std::copy(values.begin(), values.end(),
                expected.parts[part].begin() + static_cast<ptrdiff_t>(static_cast<size_t>(layer) * size));
      EXPECT_TRUE(snapshot_of(random_.info, cache) == expected) << "layer " << layer << " part " << part;
    }
}

TEST_F(Caches, refuse_values_that_are_no_numbers) {
  Cache cache = create_cache(random_.model);
  step(random_.info, random_.model, cache, prompt_);
  Snapshot before = snapshot_of(random_.info, cache);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()})
    for (wkv_state_part part = 0; part < 3; part++) {
      std::vector<float> values(part_size(random_.info, part), 0.5f);
      for (size_t place : {size_t{0}, values.size() / 2, values.size() - 1}) {
        std::vector<float> damaged = values;
        damaged[place] = bad;
        WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_write_state(cache, 1, part, damaged.data(), damaged.size(), &failure_),
                          failure_);
        EXPECT_TRUE(snapshot_of(random_.info, cache) == before) << "part " << part << " place " << place;
      }
    }
}

TEST_F(Caches, refuse_wrong_sizes_layers_and_parts) {
  Cache cache = create_cache(random_.model);
  step(random_.info, random_.model, cache, prompt_);
  Snapshot before = snapshot_of(random_.info, cache);
  for (wkv_state_part part = 0; part < 3; part++) {
    size_t size = part_size(random_.info, part);
    std::vector<float> values(size + 1, 7.0f);
    for (size_t wrong : {size_t{0}, size - 1, size + 1, SIZE_MAX})
      WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_write_state(cache, 0, part, values.data(), wrong, &failure_), failure_);
    for (size_t small : {size_t{0}, size - 1})
      WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_read_state(cache, 0, part, values.data(), small, &failure_), failure_);
    EXPECT_TRUE(std::all_of(values.begin(), values.end(), [](float v) { return v == 7.0f; }));
    WKV_EXPECT_STATUS(WKV_OK, wkv_cache_read_state(cache, 0, part, values.data(), size + 1, &failure_), failure_);
    EXPECT_EQ(values[size], 7.0f) << "written behind the part";
    for (int32_t layer : {-1, 3, INT32_MAX, INT32_MIN}) {
      WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_write_state(cache, layer, part, values.data(), size, &failure_),
                        failure_);
      WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_read_state(cache, layer, part, values.data(), size, &failure_),
                        failure_);
    }
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_write_state(cache, 0, part, nullptr, size, &failure_), failure_);
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_read_state(cache, 0, part, nullptr, size, &failure_), failure_);
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_write_state(nullptr, 0, part, values.data(), size, &failure_), failure_);
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_read_state(nullptr, 0, part, values.data(), size, &failure_), failure_);
  }
  std::vector<float> values(1 << 16);
  for (wkv_state_part part : {-1, 3, INT32_MAX}) {
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_read_state(cache, 0, part, values.data(), values.size(), &failure_),
                      failure_);
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_write_state(cache, 0, part, values.data(), values.size(), &failure_),
                      failure_);
  }
  EXPECT_TRUE(snapshot_of(random_.info, cache) == before);
}

TEST_F(Caches, refuse_missing_arguments) {
  Cache cache = create_cache(random_.model);
  wkv_cache *const untouched = reinterpret_cast<wkv_cache *>(&failure_);
  wkv_cache *out = untouched;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_create(nullptr, nullptr, &out, &failure_), failure_);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_create(random_.model, nullptr, nullptr, &failure_), failure_);
  wkv_cache_options options{};
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_create(random_.model, &options, &out, &failure_), failure_);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_copy(nullptr, &out, &failure_), failure_);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_copy(cache, nullptr, &failure_), failure_);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_assign(cache, nullptr, &failure_), failure_);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_assign(nullptr, cache, &failure_), failure_);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_reset(nullptr, &failure_), failure_);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_get_info(cache, nullptr, &failure_), failure_);
  wkv_cache_info info{};
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_get_info(cache, &info, &failure_), failure_);
  info.struct_size = sizeof info;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_get_info(nullptr, &info, &failure_), failure_);
  EXPECT_EQ(out, untouched);
  wkv_cache_release(nullptr);
  wkv_model_release(nullptr);
}

}  // namespace
}  // namespace libwkv::test
