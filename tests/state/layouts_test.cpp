// SPDX-License-Identifier: Apache-2.0
// Whole states in the layouts of other engines, and the search for numbers that are none.
#include <cmath>
#include <limits>

#include "state/layouts.h"
#include "support/models.h"
#include "support/sparse_model.h"
#include "support/temporary_directory.h"

namespace libwkv::test {
namespace {

constexpr wkv_state_layout layouts[] = {WKV_LAYOUT_OFFICIAL, WKV_LAYOUT_FLA, WKV_LAYOUT_RWKV_CPP, WKV_LAYOUT_LLAMA_CPP};

wkv_model_options one_thread() {
  wkv_model_options options = default_options();
  options.threads = 1;
  return options;
}

size_t state_floats(const wkv_model_info &info) { return static_cast<size_t>(info.state_bytes) / sizeof(float); }

// Every number of a state is another one.
void number_state(const wkv_model_info &info, wkv_cache *cache) {
  float next = 1;
  for (int32_t layer = 0; layer < info.layers; layer++)
    for (wkv_state_part part = 0; part < 3; part++) {
      std::vector<float> values(part_size(info, part));
      for (float &value : values) value = next++;
      Failure failure;
      WKV_EXPECT_STATUS(WKV_OK, wkv_cache_write_state(cache, layer, part, values.data(), values.size(), &failure),
                        failure);
    }
}

std::vector<float> exported(const wkv_model_info &info, wkv_cache *cache, wkv_state_layout layout) {
  std::vector<float> values(state_floats(info), -1);
  Failure failure;
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_export(cache, layout, values.data(), values.size(), &failure), failure);
  return values;
}

// The layouts as cache.h words them, from the parts that read_state gives.
std::vector<float> laid_out(const wkv_model_info &info, const Snapshot &state, wkv_state_layout layout) {
  size_t width = static_cast<size_t>(info.width), size = static_cast<size_t>(info.head_size), wkv_size = width * size;
  std::vector<float> out;
  auto add = [&](const std::vector<float> &all, size_t layer, size_t count) {
    out.insert(out.end(), all.begin() + static_cast<ptrdiff_t>(layer * count),
               all.begin() + static_cast<ptrdiff_t>((layer + 1) * count));
  };
  const auto &att = state.parts[WKV_STATE_ATT_SHIFT], &ffn = state.parts[WKV_STATE_FFN_SHIFT],
             &wkv = state.parts[WKV_STATE_WKV];
  size_t layers = static_cast<size_t>(info.layers);
  for (size_t l = 0; l < layers; l++) {
    if (layout == WKV_LAYOUT_OFFICIAL) {
      add(att, l, width);
      add(wkv, l, wkv_size);
      add(ffn, l, width);
    } else if (layout == WKV_LAYOUT_FLA) {
      for (size_t head = 0; head < width / size; head++)
        for (size_t key = 0; key < size; key++)
          for (size_t value = 0; value < size; value++)
            out.push_back(wkv[l * wkv_size + (head * size + value) * size + key]);
      add(att, l, width);
      add(ffn, l, width);
    } else if (layout == WKV_LAYOUT_RWKV_CPP) {
      add(ffn, l, width);
      add(att, l, width);
      add(wkv, l, wkv_size);
    } else {
      add(att, l, width);
      add(ffn, l, width);
    }
  }
  if (layout == WKV_LAYOUT_LLAMA_CPP)
    for (size_t l = 0; l < layers; l++) add(wkv, l, wkv_size);
  return out;
}

TEST(Layouts, are_those_of_other_engines) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  Cache cache = create_cache(random.model);
  for (wkv_state_layout layout : layouts)
    EXPECT_EQ(exported(random.info, cache, layout), std::vector<float>(state_floats(random.info))) << "a new cache";
  number_state(random.info, cache);
  Snapshot state = snapshot_of(random.info, cache);
  for (wkv_state_layout layout : layouts)
    EXPECT_EQ(exported(random.info, cache, layout), laid_out(random.info, state, layout)) << layout;
}

TEST(Layouts, come_back_as_they_went) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  Cache cache = create_cache(random.model);
  std::vector<int32_t> tokens = random_tokens(7, random.info.vocab_size, 1);
  step(random.info, random.model, cache, tokens);
  Snapshot before = snapshot_of(random.info, cache);
  std::vector<Cache> targets;
  for (wkv_state_layout layout : layouts) {
    Cache target = create_cache(random.model), fork;
    Failure failure;
    if (layout % 2) step(random.info, random.model, target, tokens);
    ASSERT_EQ(wkv_cache_copy(target, fork.out(), nullptr), WKV_OK);
    Snapshot fork_before = snapshot_of(random.info, fork);
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_mark(target, nullptr, &failure), failure);
    std::vector<float> values = exported(random.info, cache, layout);
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_import(target, layout, values.data(), values.size(), before.position, &failure),
                      failure);
    Snapshot after = snapshot_of(random.info, target);
    for (wkv_state_part part = 0; part < 3; part++) EXPECT_EQ(after.parts[part], before.parts[part]) << layout;
    EXPECT_EQ(after.position, 7u);
    EXPECT_EQ(after.last_token, -1);
    EXPECT_EQ(info_of(target).kept_count, 0u);
    EXPECT_TRUE(snapshot_of(random.info, fork) == fork_before) << "a fork was changed";
    targets.push_back(std::move(target));
  }
  std::vector<float> expected = step(random.info, random.model, cache, tokens);
  for (Cache &target : targets) EXPECT_EQ(step(random.info, random.model, target, tokens), expected);
}

TEST(Layouts, replace_a_state_in_its_own_memory) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  Cache cache = create_cache(random.model);
  number_state(random.info, cache);
  std::vector<float> values = exported(random.info, cache, WKV_LAYOUT_FLA);
  wkv_memory_info before = memory_of(random.model);
  Failure failure;
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_import(cache, WKV_LAYOUT_FLA, values.data(), values.size(), 0, &failure),
                    failure);
  EXPECT_EQ(memory_of(random.model).total_peak_bytes, before.total_peak_bytes);
  EXPECT_EQ(memory_of(random.model).total_bytes, before.total_bytes);
  EXPECT_EQ(exported(random.info, cache, WKV_LAYOUT_FLA), values);
}

TEST(Layouts, refuse_what_is_not_a_state_and_change_nothing) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  Cache cache = create_cache(random.model);
  step(random.info, random.model, cache, random_tokens(7, random.info.vocab_size, 1));
  uint64_t mark = 0;
  Failure failure;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_mark(cache, &mark, &failure), failure);
  Snapshot before = snapshot_of(random.info, cache);
  size_t count = state_floats(random.info);
  std::vector<float> values(count + 1, 0.5f);
  auto import = [&](wkv_state_layout layout, size_t values_count, uint64_t position = 1) {
    return wkv_cache_import(cache, layout, values.data(), values_count, position, &failure);
  };
  for (wkv_state_layout layout : {-1, 4, 1000}) {
    WKV_EXPECT_STATUS(WKV_INVALID, import(layout, count), failure);
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_export(cache, layout, values.data(), count, &failure), failure);
  }
  for (wkv_state_layout layout : layouts) {
    WKV_EXPECT_STATUS(WKV_INVALID, import(layout, count - 1), failure);
    WKV_EXPECT_STATUS(WKV_INVALID, import(layout, count + 1), failure);
    WKV_EXPECT_STATUS(WKV_INVALID, import(layout, 0), failure);
    WKV_EXPECT_STATUS(WKV_INVALID, import(layout, count, uint64_t{1} << 63), failure);
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_export(cache, layout, values.data(), count - 1, &failure), failure);
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_export(cache, layout, nullptr, count, &failure), failure);
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_import(cache, layout, nullptr, count, 1, &failure), failure);
    for (size_t at : {size_t{0}, count / 2, count - 1})
      for (float bad : {NAN, INFINITY, -INFINITY}) {
        values[at] = bad;
        WKV_EXPECT_STATUS(WKV_INVALID, import(layout, count), failure);
        values[at] = 0.5f;
      }
  }
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_export(nullptr, 0, values.data(), count, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_import(nullptr, 0, values.data(), count, 1, &failure), failure);
  EXPECT_TRUE(snapshot_of(random.info, cache) == before);
  EXPECT_EQ(info_of(cache).kept_count, 1u);
  EXPECT_EQ(values, std::vector<float>(count + 1, 0.5f));
  WKV_EXPECT_STATUS(WKV_OK, import(WKV_LAYOUT_OFFICIAL, count, INT64_MAX), failure);
  EXPECT_EQ(info_of(cache).position, uint64_t{INT64_MAX});
}

// A state that is shared needs memory of its own, and a budget may not have it.
TEST(Layouts, need_memory_for_a_state_that_is_shared) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  wkv_model_options options = one_thread();
  options.memory_limit_bytes = random.info.weight_bytes + random.info.state_bytes + random.info.state_bytes / 2;
  Model model;
  ASSERT_EQ(wkv_model_load_memory(random.image.data(), random.image.size(), &options, model.out(), nullptr), WKV_OK);
  Cache cache = create_cache(model), fork;
  number_state(random.info, cache);
  ASSERT_EQ(wkv_cache_copy(cache, fork.out(), nullptr), WKV_OK);
  Snapshot before = snapshot_of(random.info, cache);
  std::vector<float> values(state_floats(random.info));
  Failure failure;
  WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY, wkv_cache_import(cache, 0, values.data(), values.size(), 1, &failure), failure);
  EXPECT_TRUE(snapshot_of(random.info, cache) == before);
  fork.reset();
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_import(cache, 0, values.data(), values.size(), 1, &failure), failure);
}

// The golden states are of the official implementation.
TEST(Layouts, agree_with_golden_states) {
  for (const char *name : {"tiny", "rnd_a"}) {
    if (golden_directory(name).empty()) continue;
    GoldenCase golden(name, "len33");
    Model model = load_model(exact_weights(name), one_thread());
    wkv_model_info info = info_of(model);
    Snapshot expected;
    const char *arrays[] = {"state_att_shift", "state_ffn_shift", "state_wkv"};
    const Quantity quantities[] = {Quantity::att_shift, Quantity::ffn_shift, Quantity::wkv};
    for (wkv_state_part part = 0; part < 3; part++) expected.parts[part] = golden.floats(arrays[part]);
    Cache cache = create_cache(model), imported = create_cache(model);
    step(info, model, cache, golden.integers("tokens"));
    for (wkv_state_layout layout : layouts) {
      std::vector<float> values = laid_out(info, expected, layout);
      Failure failure;
      WKV_ASSERT_STATUS(WKV_OK, wkv_cache_import(imported, layout, values.data(), values.size(), 33, &failure),
                        failure);
      Snapshot found = snapshot_of(info, imported), stepped;
      for (wkv_state_part part = 0; part < 3; part++) EXPECT_EQ(found.parts[part], expected.parts[part]) << name;
      // The engine's own state goes the same way, and is as near as the model's own tests ask.
      std::vector<float> own = exported(info, cache, layout);
      WKV_ASSERT_STATUS(WKV_OK, wkv_cache_import(imported, layout, own.data(), own.size(), 33, &failure), failure);
      stepped = snapshot_of(info, imported);
      for (wkv_state_part part = 0; part < 3; part++)
        EXPECT_LE(largest_difference(stepped.parts[part], expected.parts[part]),
                  tolerance(golden.name(), quantities[part], expected.parts[part]))
            << name << " " << arrays[part];
    }
  }
}

struct Found {
  int32_t layer = 99;
  wkv_state_part part = 99;
};
Found check(wkv_cache *cache) {
  Found found;
  Failure failure;
  EXPECT_EQ(wkv_cache_check(cache, &found.layer, &found.part, &failure), WKV_OK) << failure.message;
  return found;
}

TEST(StateCheck, finds_nothing_in_a_state_of_numbers) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  Cache cache = create_cache(random.model);
  for (int i = 0; i < 2; i++) {
    Found found = check(cache);
    EXPECT_EQ(found.layer, -1);
    EXPECT_EQ(found.part, 0);
    step(random.info, random.model, cache, random_tokens(7, random.info.vocab_size, 1));
  }
  int32_t layer = 99;
  wkv_state_part part = 99;
  Failure failure;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_check(nullptr, &layer, &part, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_check(cache, nullptr, &part, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_check(cache, &layer, nullptr, &failure), failure);
  EXPECT_TRUE(layer == 99 && part == 99);
}

// States that a step made worthless: numbers in the weights that are none show in the part that they reach first.
TEST(StateCheck, finds_the_first_bad_layer_and_part) {
  struct Case {
    const char *tensor;
    float value;
    int32_t layer;
    wkv_state_part part;
  };
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const Case cases[] = {{"blk.0.attn_norm.bias", infinity, 0, WKV_STATE_ATT_SHIFT},
                        {"blk.1.attn_norm.bias", nan, 1, WKV_STATE_ATT_SHIFT},
                        {"blk.0.attn_norm_2.bias", -infinity, 0, WKV_STATE_FFN_SHIFT},
                        {"blk.2.attn_norm_2.bias", nan, 2, WKV_STATE_FFN_SHIFT},
                        // what the time mix makes of it comes by the channel mix of the same layer
                        {"blk.1.time_mix_a0.weight", nan, 1, WKV_STATE_FFN_SHIFT}};
  TemporaryDirectory folder;
  for (const Case &one : cases) {
    SparseModel file(folder.path() / "model.gguf", odd_shape, "F32");
    const float values[] = {0, one.value};
    file.write(one.tensor, values);
    Model model = load_model(file.path(), one_thread());
    Cache cache = create_cache(model);
    int32_t token = 3;
    Failure failure;
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_step(cache, &token, 1, nullptr, 0, &failure), failure);
    Found found = check(cache);
    EXPECT_EQ(found.layer, one.layer) << one.tensor;
    EXPECT_EQ(found.part, one.part) << one.tensor;
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_reset(cache, &failure), failure);
    EXPECT_EQ(check(cache).layer, -1);
  }
}

// Any one number of a state, whatever else is right.
TEST(StateCheck, looks_at_every_number) {
  HyperParameters hyper{};
  hyper.layers = 3;
  hyper.width = 6;
  hyper.heads = 2;
  hyper.head_size = 3;
  auto account = std::make_shared<MemoryAccount>(0);
  libwkv::Cache cache(hyper, account);
  const StateLayout layout = cache.layout();
  for (size_t at = 0; at < layout.floats; at++) {
    StateHold hold = StateHold::make(account, layout.floats, Holder::cache, true);
    hold.host_floats()[at] = at % 2 ? INFINITY : NAN;
    hold.host_floats()[layout.floats - 1] = NAN;
    cache.replace({1, {}, hold});
    BadPart found = check_state(cache);
    const size_t in_layer = at % layout.layer_floats;
    EXPECT_EQ(found.layer, static_cast<int32_t>(at / layout.layer_floats));
    EXPECT_EQ(found.part, in_layer < 6 ? WKV_STATE_ATT_SHIFT : in_layer < 12 ? WKV_STATE_FFN_SHIFT : WKV_STATE_WKV);
  }
}

}  // namespace
}  // namespace libwkv::test
