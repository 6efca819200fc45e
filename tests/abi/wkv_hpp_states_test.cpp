// SPDX-License-Identifier: Apache-2.0
// The C++ layer over whole states: plans, initial states, other engines' layouts, and the check.
#include <cstdint>
#include <fstream>
#include <string>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include <wkv/wkv.hpp>

#include "support/state_files.h"
#include "support/temporary_directory.h"

namespace {

const std::string story_path = std::string(WKV_SOURCE_DIR) + "/examples/models/tales-8m.gguf";

template <class Call>
wkv_status status_of(Call &&call) {
  try {
    call();
    return WKV_OK;
  } catch (const wkv::Error &error) {
    EXPECT_NE(std::string(error.what()), "");
    return error.status();
  }
}

TEST(wkv_hpp_states, a_plan_is_a_budget) {
  wkv::MemoryPlan asked;
  asked.caches_count = 1;
  asked.step_tokens = 8;
  wkv::ModelOptions options;
  options.threads = 2;
  const wkv::MemoryPlan plan = wkv::Model::plan_memory(story_path, asked, options);
  EXPECT_EQ(plan.caches_count, 1u);
  options.memory_limit_bytes = plan.total_bytes;
  wkv::Model model = wkv::Model::load(story_path, options);
  wkv::Cache cache(model);
  cache.step({5, 6, 7, 8, 9, 10, 11, 12});
  EXPECT_EQ(model.memory().total_peak_bytes, plan.total_bytes);
  EXPECT_EQ(status_of([] { wkv::Model::plan_memory("/no/such/file"); }), WKV_NOT_FOUND);
}

TEST(wkv_hpp_states, caches_start_from_an_initial_state) {
  static_assert(!std::is_copy_constructible_v<wkv::InitialState> &&
                std::is_nothrow_move_constructible_v<wkv::InitialState>);
  wkv::Model model = wkv::Model::load(story_path);
  const wkv::ModelInfo info = model.info();
  std::vector<libwkv::test::StateTensor> tensors;
  const size_t count = static_cast<size_t>(info.width) * static_cast<size_t>(info.head_size);
  std::vector<float> values(count);
  for (size_t i = 0; i < count; i++) values[i] = static_cast<float>(i % 97) / 64;
  for (int32_t layer = 0; layer < info.layers; layer++)
    tensors.push_back({std::string("blocks.") + std::to_string(layer) + ".att.time_state",
                       {info.heads, info.head_size, info.head_size},
                       values});
  libwkv::test::TemporaryDirectory folder;
  const std::string path = folder.path() / "rwkv6.pth";
  std::ofstream(path, std::ios::binary) << libwkv::test::make_pth(tensors);
  wkv::CacheOptions options;
  {
    wkv::InitialState state = wkv::InitialState::load(model, path, WKV_TIME_STATE_VALUE_FIRST);
    EXPECT_EQ(state.info().may_be_rwkv6, 1);
    EXPECT_EQ(state.info().bytes, info.state_bytes);
    options.initial_state = state.handle();
    wkv::Cache cache(model, options);
    EXPECT_EQ(cache.read_state(1, WKV_STATE_WKV), values);
    cache.feed({5, 6});
    cache.reset();
    EXPECT_EQ(cache.read_state(0, WKV_STATE_WKV), values);
  }
  EXPECT_EQ(status_of([&] { wkv::InitialState::load(model, story_path); }), WKV_NOT_FOUND);
}

TEST(wkv_hpp_states, go_to_other_engines_and_back) {
  wkv::Model model = wkv::Model::load(story_path);
  wkv::Cache cache(model), other(model);
  cache.feed({5, 6, 7});
  const std::vector<float> values = cache.export_state(WKV_LAYOUT_LLAMA_CPP);
  EXPECT_EQ(values.size() * sizeof(float), model.info().state_bytes);
  other.import_state(WKV_LAYOUT_LLAMA_CPP, values, 3);
  EXPECT_EQ(other.info().position, 3u);
  EXPECT_EQ(other.step({8}), cache.step({8}));
  EXPECT_EQ(other.check().layer, -1);
  EXPECT_EQ(status_of([&] { other.export_state(77); }), WKV_INVALID);
  EXPECT_EQ(status_of([&] { other.import_state(WKV_LAYOUT_FLA, {1.f, 2.f}, 3); }), WKV_INVALID);
}

}  // namespace
