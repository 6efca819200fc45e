// SPDX-License-Identifier: Apache-2.0
// No memory for initial states, imports and plans: a clean status, nothing leaked, nothing changed.
#include <fstream>

#include "faults/fail_each.h"
#include "support/sparse_model.h"
#include "support/state_files.h"
#include "support/temporary_directory.h"

namespace libwkv::test {
namespace {

wkv_model_options one_thread() {
  wkv_model_options options = default_options();
  options.threads = 1;
  return options;
}

class InitialStateAllocations : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!malloc_can_fail()) GTEST_SKIP() << "malloc cannot be replaced in this build";
  }
};

TEST_P(InitialStateAllocations, of_loading_and_starting_from_one) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  std::vector<StateTensor> tensors;
  for (int32_t layer = 0; layer < random.info.layers; layer++)
    tensors.push_back({std::string("blocks.") + std::to_string(layer) + ".att.time_state",
                       {random.info.heads, random.info.head_size, random.info.head_size},
                       std::vector<float>(part_size(random.info, WKV_STATE_WKV), 0.5f)});
  TemporaryDirectory folder;
  const std::pair<const char *, std::string> files[] = {{"v6.pth", make_pth(tensors)},
                                                        {"legacy.pth", make_legacy_pth(tensors)},
                                                        {"state.safetensors", make_safetensors(tensors)}};
  for (const auto &[name, content] : files) {
    std::string path = folder.path() / name;
    std::ofstream(path, std::ios::binary) << content;
    fail_each(
        name, GetParam(),
        [&] {
          wkv_initial_state *state = nullptr;
          wkv_cache *cache = nullptr;
          wkv_status status = wkv_initial_state_load(random.model, path.c_str(), nullptr, &state, nullptr);
          wkv_cache_options options{};
          options.struct_size = sizeof options;
          options.initial_state = state;
          if (status == WKV_OK) status = wkv_cache_create(random.model, &options, &cache, nullptr);
          wkv_initial_state_release(state);
          if (status == WKV_OK) status = wkv_cache_reset(cache, nullptr);
          wkv_cache_release(cache);
          return status;
        },
        [&](int64_t, wkv_status) { ASSERT_EQ(memory_of(random.model).total_bytes, random.info.weight_bytes); });
    if (HasFatalFailure()) return;
  }
}

TEST_P(InitialStateAllocations, of_an_import_leave_the_cache_alone) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  Cache cache = create_cache(random.model);
  step(random.info, random.model, cache, random_tokens(4, random.info.vocab_size, 1));
  Snapshot before = snapshot_of(random.info, cache);
  std::vector<float> values(static_cast<size_t>(random.info.state_bytes) / sizeof(float), 0.5f);
  fail_each(
      "import", GetParam(),
      [&]() -> wkv_status {
        Cache fork;
        wkv_status status = wkv_cache_copy(cache, fork.out(), nullptr);
        if (status != WKV_OK) return status;
        status = wkv_cache_import(fork, WKV_LAYOUT_FLA, values.data(), values.size(), 9, nullptr);
        if (status != WKV_OK) {
          EXPECT_EQ(info_of(fork).position, 4u);
          EXPECT_EQ(info_of(fork).is_shared, 1);
        }
        return status;
      },
      [&](int64_t, wkv_status) { ASSERT_TRUE(snapshot_of(random.info, cache) == before); });
}

TEST_P(InitialStateAllocations, of_a_plan) {
  TemporaryDirectory folder;
  SparseModel file(folder.path() / "model.gguf", odd_shape, "Q4_1");
  fail_each("plan", GetParam(), [&]() -> wkv_status {
    wkv_memory_plan plan{};
    plan.struct_size = sizeof plan;
    wkv_status status = wkv_model_plan_memory(file.path().c_str(), nullptr, &plan, nullptr);
    if (status != WKV_OK && plan.total_bytes != 0) return WKV_INTERNAL;
    return status;
  });
}

INSTANTIATE_TEST_SUITE_P(faults, InitialStateAllocations, testing::Bool(),
                         [](const auto &test) { return test.param ? "and_all_after" : "one_alone"; });

}  // namespace
}  // namespace libwkv::test
