// SPDX-License-Identifier: Apache-2.0
// What a plan says before loading is what loading and stepping then take, and a budget of exactly that suffices.
#include <cstdio>
#include <fstream>

#include "support/models.h"
#include "support/sparse_model.h"
#include "support/temporary_directory.h"

namespace libwkv::test {
namespace {

constexpr Shape one_layer{1, 32, 16, 96, 61, 8, 8, 8, 8}, wide{2, 512, 64, 2048, 5003, 64, 64, 32, 128},
    deep{24, 64, 32, 224, 300, 16, 16, 16, 24};

wkv_memory_plan plan_of(const std::filesystem::path &path, const wkv_model_options &options, wkv_memory_plan asked) {
  asked.struct_size = sizeof asked;
  Failure failure;
  EXPECT_EQ(wkv_model_plan_memory(path.c_str(), &options, &asked, &failure), WKV_OK) << failure.message;
  return asked;
}

wkv_model_options with(int32_t chunk_tokens, wkv_type type = WKV_TYPE_DEFAULT, uint64_t limit = 0) {
  wkv_model_options options = default_options();
  options.threads = 2;
  options.chunk_tokens = chunk_tokens;
  options.weight_type = type;
  options.memory_limit_bytes = limit;
  return options;
}

// Some caches that are fed together, and then decode together.
struct Work {
  size_t batch = 1;
  std::vector<size_t> prompt = {5};  // tokens of item i: prompt[i % size]
  bool all_logits = false;           // of the prompt; else the last ones
  size_t sampled = 0;                // items of the decoding step that sample, unseen; the others want logits
  size_t forks = 0;                  // of the first cache, each stepped once

  wkv_memory_plan asked() const {
    size_t tokens = 0, logits = 0;
    for (size_t i = 0; i < batch; i++) tokens += prompt[i % prompt.size()];
    logits = all_logits ? tokens : batch;
    wkv_memory_plan plan{};
    plan.caches_count = static_cast<uint32_t>(batch + forks);
    plan.step_tokens = static_cast<uint32_t>(std::max(tokens, batch));
    plan.step_logits = static_cast<uint32_t>(logits);
    plan.step_sampled = static_cast<uint32_t>(sampled);
    plan.step_spares = static_cast<uint32_t>(sampled ? batch : 0);
    return plan;
  }

  std::string name() const {
    return "batch " + std::to_string(batch) + ", prompt " + std::to_string(prompt[0]) + "..., all " +
           std::to_string(all_logits) + ", sampled " + std::to_string(sampled) + ", forks " + std::to_string(forks);
  }

  // The first failure, or WKV_OK.
  wkv_status run(wkv_model *model, std::vector<Cache> &caches, Failure &failure) const {
    wkv_model_info info = info_of(model);
    size_t vocab = static_cast<size_t>(info.vocab_size);
    std::vector<std::vector<int32_t>> tokens(batch);
    std::vector<std::vector<float>> logits(batch);
    std::vector<Sampler> samplers(batch);
    std::vector<int32_t> next(batch);
    std::vector<wkv_step_item> items;
    for (size_t i = 0; i < batch; i++) {
      if (caches.size() <= i) caches.push_back(create_cache(model));
      tokens[i] = random_tokens(prompt[i % prompt.size()], info.vocab_size, i);
      logits[i].resize(vocab * (all_logits ? tokens[i].size() : 1));
      items.push_back(
          make_item(caches[i], tokens[i], logits[i].data(), logits[i].size(), all_logits ? WKV_STEP_ALL_LOGITS : 0));
    }
    wkv_status status = wkv_model_step(model, items.data(), items.size(), &failure);
    if (status != WKV_OK) return status;
    for (size_t i = 0; i < forks; i++) {
      Cache fork;
      status = wkv_cache_copy(caches[0], fork.out(), &failure);
      if (status != WKV_OK) return status;
      caches.push_back(std::move(fork));
      status = wkv_cache_step(caches.back(), tokens[0].data(), 1, logits[0].data(), vocab, &failure);
      if (status != WKV_OK) return status;
    }
    for (size_t i = 0; i < batch; i++) {
      items[i] = make_item(caches[i], std::span(tokens[i]).first(1), logits[i].data(), vocab);
      if (i >= sampled) continue;
      EXPECT_EQ(wkv_sampler_create(nullptr, samplers[i].out(), nullptr), WKV_OK);
      items[i].logits = nullptr;
      items[i].logits_count = 0;
      items[i].sampler = samplers[i];
      items[i].next_token = &next[i];
    }
    return wkv_model_step(model, items.data(), items.size(), &failure);
  }
};

// The peak is no larger than the plan, and no more than 2 % smaller.
void expect_planned(const std::filesystem::path &path, const wkv_model_options &options, const Work &work,
                    const std::string &what) {
  wkv_memory_plan plan = plan_of(path, options, work.asked());
  Model model = load_model(path, options);
  ASSERT_NE(model.get(), nullptr) << what;
  wkv_model_info info = info_of(model);
  EXPECT_EQ(plan.weights_bytes, info.weight_bytes) << what;
  EXPECT_EQ(plan.weights_bytes, memory_of(model).weights_peak_bytes) << what;
  EXPECT_EQ(plan.mapped_bytes, info.mapped_bytes) << what;
  EXPECT_EQ(plan.state_bytes, info.state_bytes) << what;
  std::vector<Cache> caches;
  Failure failure;
  ASSERT_EQ(work.run(model, caches, failure), WKV_OK) << what << ": " << failure.message;
  wkv_memory_info memory = memory_of(model);
  EXPECT_LE(memory.total_peak_bytes, plan.total_bytes) << what;
  EXPECT_GE(static_cast<double>(memory.total_peak_bytes), 0.98 * static_cast<double>(plan.total_bytes)) << what;
  EXPECT_EQ(plan.total_bytes, plan.weights_bytes + plan.caches_bytes + plan.workspace_bytes);
}

TEST(Plan, is_the_measured_peak_in_every_weight_type) {
  TemporaryDirectory folder;
  for (const GgufType &type : gguf_types) {
    SparseModel file(folder.path() / "model.gguf", wide, type.name);
    for (wkv_type to : {WKV_TYPE_DEFAULT, WKV_TYPE_F32, WKV_TYPE_F16, WKV_TYPE_BF16, WKV_TYPE_Q8, WKV_TYPE_Q4})
      expect_planned(file.path(), with(16, to), {2, {20, 3}}, std::string(type.name) + " as " + type_name(to));
  }
}

TEST(Plan, is_the_measured_peak_at_every_shape_batch_and_chunk_length) {
  TemporaryDirectory folder;
  const Work works[] = {{1, {1}},
                        {1, {700}},
                        {1, {40}, true},
                        {2, {3}, false, 2},
                        {8, {9, 1, 30}, true, 3},
                        {64, {2}, false, 64},
                        {64, {1, 2, 3, 4, 5}, true, 7, 2},
                        {8, {1}, false, 0, 9}};
  int at = 0;
  for (const Shape &shape : {odd_shape, one_layer, wide, deep}) {
    SparseModel file(folder.path() / "model.gguf", shape, "F16");
    for (int32_t chunk : {1, 16, 512})
      for (const Work &work : works) {
        if (chunk == 1 && shape.width == wide.width && work.prompt[0] == 700) continue;  // slow, and nothing new
        expect_planned(
            file.path(), with(chunk, at++ % 2 ? WKV_TYPE_DEFAULT : WKV_TYPE_Q8), work,
            "width " + std::to_string(shape.width) + ", chunk " + std::to_string(chunk) + ", " + work.name());
      }
  }
}

TEST(Plan, is_the_measured_peak_with_other_kernels_and_bits_that_repeat) {
  TemporaryDirectory folder;
  SparseModel file(folder.path() / "model.gguf", odd_shape, "F16");
  for (const std::string &kernels : usable_kernels())
    for (int32_t is_reproducible : {0, 1})
      for (int32_t threads : {1, 3}) {
        wkv_model_options options = with(16);
        options.kernels = kernels.c_str();
        options.is_reproducible = is_reproducible;
        options.threads = threads;
        expect_planned(file.path(), options, {3, {30, 2}, true, 1}, kernels);
      }
}

// Steps that get larger and larger: what smaller ones took does not add up.
TEST(Plan, holds_for_steps_that_grow) {
  TemporaryDirectory folder;
  SparseModel file(folder.path() / "model.gguf", wide, "F16");
  wkv_memory_plan asked{};
  asked.caches_count = 1;
  asked.step_tokens = 400;
  asked.step_logits = 64;
  wkv_memory_plan plan = plan_of(file.path(), with(0), asked);
  Model model = load_model(file.path(), with(0, WKV_TYPE_DEFAULT, plan.total_bytes));
  Cache cache = create_cache(model);
  wkv_model_info info = info_of(model);
  for (size_t count : {1, 2, 8, 30, 64}) step(info, model, cache, random_tokens(count, info.vocab_size, 1), true);
  for (size_t count : {100, 200, 400}) step(info, model, cache, random_tokens(count, info.vocab_size, 1));
  EXPECT_EQ(memory_of(model).total_peak_bytes, plan.total_bytes);
  EXPECT_EQ(memory_of(model).workspace_bytes, plan.workspace_bytes);
}

// A chunk_tokens-sized step is what a plan that asks nothing is for.
TEST(Plan, of_nothing_in_particular_is_for_a_whole_chunk) {
  TemporaryDirectory folder;
  SparseModel file(folder.path() / "model.gguf", odd_shape, "F16");
  wkv_memory_plan plan = plan_of(file.path(), with(48), {});
  EXPECT_EQ(plan.caches_bytes, 0u);
  Model model = load_model(file.path(), with(48));
  Cache cache = create_cache(model);
  wkv_model_info info = info_of(model);
  step(info, model, cache, random_tokens(100, info.vocab_size, 1));
  EXPECT_EQ(memory_of(model).total_peak_bytes, plan.total_bytes + plan.state_bytes);
}

struct Observed {
  std::vector<Snapshot> caches;
  uint64_t states_bytes;
};
Observed observe(wkv_model *model, const std::vector<Cache> &caches) {
  Observed observed{{}, memory_of(model).caches_bytes + memory_of(model).checkpoints_bytes};
  for (const Cache &cache : caches) observed.caches.push_back(snapshot_of(info_of(model), cache));
  return observed;
}

// Exactly the plan lets the work run; one byte less does not, and the step that it stops has changed nothing.
TEST(Plan, is_a_budget_to_the_byte) {
  TemporaryDirectory folder;
  SparseModel file(folder.path() / "model.gguf", odd_shape, "F16");
  const Work works[] = {{1, {50}}, {8, {4, 1}, true}, {8, {1}, false, 8}, {3, {9}, false, 1}, {2, {2}, false, 0, 5}};
  for (const Work &work : works) {
    for (wkv_type type : {WKV_TYPE_DEFAULT, WKV_TYPE_Q8}) {
      wkv_memory_plan plan = plan_of(file.path(), with(16, type), work.asked());
      Failure failure;
      {
        Model model = load_model(file.path(), with(16, type, plan.total_bytes));
        std::vector<Cache> caches;
        EXPECT_EQ(work.run(model, caches, failure), WKV_OK) << work.name() << ": " << failure.message;
        EXPECT_EQ(memory_of(model).total_peak_bytes, plan.total_bytes) << work.name();
      }
      Model model = load_model(file.path(), with(16, type, plan.total_bytes - 1));
      ASSERT_NE(model.get(), nullptr);
      std::vector<Cache> caches;
      WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY, work.run(model, caches, failure), failure);
      EXPECT_LT(memory_of(model).total_peak_bytes, plan.total_bytes) << work.name();
      // The same call again: it fails again, and what it fails on is as it was.
      Observed before = observe(model, caches);
      std::vector<Cache> again;
      for (const Cache &cache : caches) {
        Cache copy;
        ASSERT_EQ(wkv_cache_copy(cache, copy.out(), &failure), WKV_OK);
        again.push_back(std::move(copy));
      }
      WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY, work.run(model, again, failure), failure);
      again.clear();
      Observed after = observe(model, caches);
      EXPECT_TRUE(before.caches == after.caches) << work.name();
      EXPECT_EQ(before.states_bytes, after.states_bytes) << work.name();
    }
  }
}

TEST(Plan, below_the_weights_is_refused_at_load) {
  TemporaryDirectory folder;
  SparseModel file(folder.path() / "model.gguf", odd_shape, "F16");
  for (wkv_type type : {WKV_TYPE_DEFAULT, WKV_TYPE_F32, WKV_TYPE_Q4}) {
    wkv_memory_plan plan = plan_of(file.path(), with(0, type), {});
    wkv_model_options options = with(0, type, plan.weights_bytes - 1);
    wkv_model *none = nullptr;
    Failure failure;
    WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY, wkv_model_load(file.path().c_str(), &options, &none, &failure), failure);
    EXPECT_EQ(none, nullptr);
    EXPECT_EQ(plan_of(file.path(), options, {}).total_bytes, plan.total_bytes) << "a plan looks at no limit";
    options.memory_limit_bytes++;
    EXPECT_NE(load_model(file.path(), options).get(), nullptr);
  }
}

// Every committed and golden file, whatever its format: the weights are planned to the byte.
TEST(Plan, knows_the_weights_of_every_format) {
  size_t files = 0;
  for (const char *name : {"tiny", "rnd_a", "rnd_d", "reverse"}) {
    std::filesystem::path weights = golden_directory(name) / "weights";
    if (!std::filesystem::is_directory(weights)) continue;
    for (const auto &entry : std::filesystem::directory_iterator(weights)) {
      std::string file = entry.path().filename();
      bool is_model = entry.is_directory() ? std::filesystem::exists(entry.path() / "config.json")
                                           : !file.ends_with(".txt") && !file.ends_with(".json");
      if (!is_model) continue;
      files++;
      for (wkv_type type : {WKV_TYPE_DEFAULT, WKV_TYPE_F32, WKV_TYPE_Q4}) {
        wkv_model_options options = with(0, type);
        wkv_model *model = nullptr;
        wkv_memory_plan plan{};
        plan.struct_size = sizeof plan;
        Failure failure, plan_failure;
        wkv_status loaded = wkv_model_load(entry.path().c_str(), &options, &model, &failure);
        EXPECT_EQ(wkv_model_plan_memory(entry.path().c_str(), &options, &plan, &plan_failure), loaded)
            << file << ": " << plan_failure.message;
        EXPECT_STREQ(plan_failure.message, failure.message) << file;
        if (loaded == WKV_OK) {
          EXPECT_EQ(plan.weights_bytes, info_of(model).weight_bytes) << file;
          EXPECT_EQ(plan.mapped_bytes, info_of(model).mapped_bytes) << file;
        }
        wkv_model_release(model);
      }
    }
  }
  EXPECT_GT(files, 0u);
}

uint64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

// 14 GB of weights, planned on any machine.
TEST(Plan, reads_no_weights) {
  TemporaryDirectory folder;
  Shape shape = shape_named("7.2B");
  std::filesystem::path path = folder.path() / "large.gguf";
  try {
    SparseModel file(path, shape, "F16");
  } catch (const std::exception &problem) {
    GTEST_SKIP() << "no file of 14 GB here: " << problem.what();
  }
  wkv_device_count();  // brings in what devices need, once
  uint64_t before = resident_bytes();
  wkv_memory_plan asked{};
  asked.caches_count = 10;
  wkv_memory_plan plan = plan_of(path, with(512), asked);
  EXPECT_LT(resident_bytes(), before + (64u << 20));
  EXPECT_GT(plan.weights_bytes, uint64_t{14'300'000'000});
  EXPECT_LT(plan.weights_bytes, uint64_t{14'500'000'000});
  EXPECT_EQ(plan.state_bytes, 4u * 8'650'752);  // L * (2 C + N C) floats
  EXPECT_EQ(plan.caches_bytes, 10 * plan.state_bytes);
}

TEST(Plan, refuses_what_loading_refuses) {
  TemporaryDirectory folder;
  SparseModel file(folder.path() / "model.gguf", odd_shape, "F16");
  Failure failure;
  wkv_memory_plan plan{};
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_plan_memory(file.path().c_str(), nullptr, &plan, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_plan_memory(file.path().c_str(), nullptr, nullptr, &failure), failure);
  plan.struct_size = sizeof plan;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_plan_memory(nullptr, nullptr, &plan, &failure), failure);
  WKV_EXPECT_STATUS(WKV_NOT_FOUND, wkv_model_plan_memory("/no/such/file", nullptr, &plan, &failure), failure);
  wkv_model_options options = with(5000);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_plan_memory(file.path().c_str(), &options, &plan, &failure), failure);
  options = with(0);
  options.kernels = "abacus";
  WKV_EXPECT_STATUS(WKV_NOT_FOUND, wkv_model_plan_memory(file.path().c_str(), &options, &plan, &failure), failure);
  EXPECT_EQ(plan.total_bytes, 0u);
  plan.caches_count = plan.step_tokens = plan.step_logits = plan.step_sampled = plan.step_spares = UINT32_MAX;
  WKV_EXPECT_STATUS(WKV_OK, wkv_model_plan_memory(file.path().c_str(), nullptr, &plan, &failure), failure);
  EXPECT_EQ(plan.caches_bytes, 2 * uint64_t{UINT32_MAX} * plan.state_bytes);
  std::filesystem::resize_file(file.path(), std::filesystem::file_size(file.path()) - 100000);
  WKV_EXPECT_STATUS(WKV_FORMAT, wkv_model_plan_memory(file.path().c_str(), nullptr, &plan, &failure), failure);
}

}  // namespace
}  // namespace libwkv::test
