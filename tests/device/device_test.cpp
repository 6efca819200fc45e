// SPDX-License-Identifier: Apache-2.0
// The same steps on the CPU and on a CUDA device: same scores, same states, same tokens, same bytes.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "support/models.h"

namespace libwkv::test {
namespace {

// What the fast ways take: heads of 64, ranks of several sizes.
constexpr Shape usual_shape{3, 256, 64, 1024, 1003, 64, 32, 32, 96};

double relative_error(std::span<const float> found, std::span<const float> expected) {
  if (found.size() != expected.size()) return INFINITY;
  double difference = 0, size = 0;
  for (size_t i = 0; i < found.size(); i++) {
    const double d = static_cast<double>(found[i]) - static_cast<double>(expected[i]);
    difference += d * d;
    size += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  const double error = std::sqrt(difference / std::max(size, 1e-30));
  return std::isfinite(error) ? error : INFINITY;
}

// More than 16 rows of narrow weights round activations to half.
double allowed_error(wkv_type type, size_t rows) { return type == WKV_TYPE_F32 || rows <= 16 ? 3e-5 : 4e-3; }

wkv_model_options options_for(const char *device) {
  wkv_model_options options = default_options();
  options.device = device;
  options.threads = 4;
  return options;
}

// One model twice.
struct Pair {
  Pair(const Shape &shape, wkv_type type, wkv_type state_type = WKV_TYPE_DEFAULT, int32_t chunk = 0,
       LowRank low_ranks = LowRank::wide)
      : image(random_gguf(shape, type, 0.5, 7, 4, low_ranks)) {
    wkv_model_options options = options_for("cpu");
    load(options, cpu, cpu_info);
    options = options_for("cuda");
    options.state_type = state_type;
    options.chunk_tokens = chunk;
    load(options, gpu, gpu_info);
  }
  void load(const wkv_model_options &options, Model &model, wkv_model_info &info) {
    Failure failure;
    EXPECT_EQ(wkv_model_load_memory(image.data(), image.size(), &options, model.out(), &failure), WKV_OK)
        << failure.message;
    if (model) info = info_of(model);
  }
  Image image;  // goes after the models
  Model cpu, gpu;
  wkv_model_info cpu_info{}, gpu_info{};
};

// A batch step of many caches on one model, with the last scores of each.
struct Batch {
  Batch(const wkv_model_info &model_info, wkv_model *owner, size_t count) : info(model_info), model(owner) {
    for (size_t i = 0; i < count; i++) caches.push_back(create_cache(model));
  }
  std::vector<std::vector<float>> step(const std::vector<std::vector<int32_t>> &tokens) {
    std::vector<std::vector<float>> logits(caches.size(), std::vector<float>(static_cast<size_t>(info.vocab_size)));
    std::vector<wkv_step_item> items;
    for (size_t i = 0; i < caches.size(); i++)
      items.push_back(make_item(caches[i], tokens[i], logits[i].data(), logits[i].size()));
    Failure failure;
    EXPECT_EQ(wkv_model_step(model, items.data(), items.size(), &failure), WKV_OK) << failure.message;
    return logits;
  }
  const wkv_model_info &info;
  wkv_model *model;
  std::vector<Cache> caches;
};

void expect_same_state(const Pair &pair, const Cache &cpu, const Cache &gpu, double allowed, const std::string &what) {
  const Snapshot expected = snapshot_of(pair.cpu_info, cpu), found = snapshot_of(pair.gpu_info, gpu);
  EXPECT_EQ(found.position, expected.position) << what;
  for (wkv_state_part part = 0; part < 3; part++)
    EXPECT_LE(relative_error(found.parts[part], expected.parts[part]), allowed) << what << ", part " << part;
}

class OnDevice : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_cuda()) GTEST_SKIP() << "no CUDA device can be used here";
  }
};
class Types : public testing::TestWithParam<wkv_type> {
 protected:
  void SetUp() override {
    if (!has_cuda()) GTEST_SKIP() << "no CUDA device can be used here";
  }
};

// Prompts of every length around a chunk, and single tokens among them, in one step.
TEST_P(Types, ragged_steps_give_the_cpu_s_values) {
  const wkv_type type = GetParam();
  for (const Shape &shape : {usual_shape, odd_shape}) {
    Pair pair(shape, type);
    ASSERT_NE(pair.gpu.get(), nullptr);
    const std::vector<size_t> lengths = {1, 2, 15, 1, 16, 17, 63, 1, 64, 65, 1000, 7, 4096, 1};
    const size_t rows = std::accumulate(lengths.begin(), lengths.end(), size_t{0});
    Batch cpu(pair.cpu_info, pair.cpu, lengths.size()), gpu(pair.gpu_info, pair.gpu, lengths.size());
    for (int round = 0; round < 2; round++) {
      std::vector<std::vector<int32_t>> tokens;
      for (size_t i = 0; i < lengths.size(); i++)
        tokens.push_back(random_tokens(round == 0 ? lengths[i] : lengths[lengths.size() - 1 - i],
                                       pair.cpu_info.vocab_size, static_cast<uint32_t>(31 * i + round)));
      const auto expected = cpu.step(tokens), found = gpu.step(tokens);
      for (size_t i = 0; i < lengths.size(); i++)
        EXPECT_LE(relative_error(found[i], expected[i]), allowed_error(type, rows)) << "item " << i;
    }
    for (size_t i = 0; i < lengths.size(); i++)
      expect_same_state(pair, cpu.caches[i], gpu.caches[i], allowed_error(type, rows), "item " + std::to_string(i));
  }
}

TEST_P(Types, batches_of_every_size_give_the_cpu_s_values) {
  const wkv_type type = GetParam();
  Pair pair(usual_shape, type);
  ASSERT_NE(pair.gpu.get(), nullptr);
  for (const size_t count : {1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 64, 321, 960}) {
    Batch cpu(pair.cpu_info, pair.cpu, count), gpu(pair.gpu_info, pair.gpu, count);
    for (int round = 0; round < 4; round++) {  // the third of a kind is the first out of a graph
      std::vector<std::vector<int32_t>> tokens;
      for (size_t i = 0; i < count; i++)
        tokens.push_back(random_tokens(1, pair.cpu_info.vocab_size, static_cast<uint32_t>(977 * i + round)));
      const auto expected = cpu.step(tokens), found = gpu.step(tokens);
      std::vector<double> errors;
      for (size_t i = 0; i < count; i++) errors.push_back(relative_error(found[i], expected[i]));
      std::sort(errors.begin(), errors.end());
      EXPECT_LE(errors[count / 2], allowed_error(type, count) / 2) << count << " rows, round " << round;
      EXPECT_LE(errors.back(), 2 * allowed_error(type, count)) << count << " rows, round " << round;
    }
    for (const size_t i : {size_t{0}, count / 2, count - 1})
      expect_same_state(pair, cpu.caches[i], gpu.caches[i], allowed_error(type, count),
                        std::to_string(count) + " rows");
  }
}

INSTANTIATE_TEST_SUITE_P(device, Types,
                         testing::Values(WKV_TYPE_F32, WKV_TYPE_F16, WKV_TYPE_BF16, WKV_TYPE_Q8, WKV_TYPE_Q4),
                         [](const auto &test) { return type_name(test.param); });

// A row among others and the same row alone: of one way through the model, so that only rounding differs.
TEST_F(OnDevice, rows_do_not_see_their_neighbours) {
  Pair pair(usual_shape, WKV_TYPE_F16);
  for (const size_t count : {5, 200}) {
    Batch all(pair.gpu_info, pair.gpu, count), other(pair.gpu_info, pair.gpu, count);
    std::vector<std::vector<int32_t>> tokens, changed;
    for (size_t i = 0; i < count; i++) {
      tokens.push_back(random_tokens(1 + i % 3, pair.cpu_info.vocab_size, static_cast<uint32_t>(i)));
      changed.push_back(
          i == 3 ? tokens[i]
                 : random_tokens(tokens[i].size(), pair.cpu_info.vocab_size, static_cast<uint32_t>(i + 5000)));
    }
    const auto a = all.step(tokens), b = other.step(changed);
    EXPECT_EQ(a[3], b[3]) << count << " rows";
    EXPECT_TRUE(snapshot_of(pair.gpu_info, all.caches[3]) == snapshot_of(pair.gpu_info, other.caches[3])) << count;
  }
}

// Twice the same gives twice the same bits: nothing depends on the order in which blocks run.
TEST_F(OnDevice, runs_repeat_to_the_bit) {
  for (const wkv_type type : {WKV_TYPE_F32, WKV_TYPE_F16, WKV_TYPE_Q8}) {
    Pair pair(usual_shape, type);
    for (const size_t count : {1, 4, 40}) {
      std::vector<std::vector<float>> first;
      for (int run = 0; run < 3; run++) {
        Batch batch(pair.gpu_info, pair.gpu, count);
        std::vector<std::vector<float>> logits;
        for (int round = 0; round < 5; round++) {
          std::vector<std::vector<int32_t>> tokens;
          for (size_t i = 0; i < count; i++)
            tokens.push_back(
                random_tokens(round == 0 ? 40 : 1, pair.gpu_info.vocab_size, static_cast<uint32_t>(13 * i + round)));
          logits = batch.step(tokens);
        }
        if (run == 0)
          first = logits;
        else
          EXPECT_EQ(logits, first) << type_name(type) << " " << count << " rows, run " << run;
      }
    }
  }
}

std::vector<std::byte> bytes_of(wkv_cache *cache) {
  size_t size = 0;
  Failure failure;
  EXPECT_EQ(wkv_cache_serialize(cache, nullptr, 0, &size, &failure), WKV_OK) << failure.message;
  std::vector<std::byte> bytes(size);
  EXPECT_EQ(wkv_cache_serialize(cache, bytes.data(), size, &size, &failure), WKV_OK) << failure.message;
  return bytes;
}

TEST_F(OnDevice, blobs_are_the_same_bytes_and_go_both_ways) {
  Pair pair(usual_shape, WKV_TYPE_F16);
  Failure failure;
  Cache cpu = create_cache(pair.cpu);
  step(pair.cpu_info, pair.cpu, cpu, random_tokens(50, pair.cpu_info.vocab_size, 3));
  const std::vector<std::byte> bytes = bytes_of(cpu);

  Cache gpu;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_deserialize(pair.gpu, bytes.data(), bytes.size(), gpu.out(), &failure), failure);
  EXPECT_EQ(bytes_of(gpu), bytes);
  EXPECT_TRUE(snapshot_of(pair.gpu_info, gpu) == snapshot_of(pair.cpu_info, cpu));

  const std::vector<int32_t> more = random_tokens(9, pair.cpu_info.vocab_size, 4);
  const std::vector<float> expected = step(pair.cpu_info, pair.cpu, cpu, more);
  EXPECT_LE(relative_error(step(pair.gpu_info, pair.gpu, gpu, more), expected), 3e-5);

  const std::vector<std::byte> there = bytes_of(gpu);
  Cache back;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_deserialize(pair.cpu, there.data(), there.size(), back.out(), &failure), failure);
  EXPECT_EQ(bytes_of(back), there);
}

TEST_F(OnDevice, forks_and_rollbacks_stay_on_the_device) {
  Pair pair(usual_shape, WKV_TYPE_F16);
  Failure failure;
  Cache cache = create_cache(pair.gpu);
  step(pair.gpu_info, pair.gpu, cache, random_tokens(20, pair.gpu_info.vocab_size, 1));
  const wkv_memory_info before = memory_of(pair.gpu);
  std::vector<Cache> forks(100);
  for (Cache &fork : forks) WKV_ASSERT_STATUS(WKV_OK, wkv_cache_copy(cache, fork.out(), &failure), failure);
  EXPECT_EQ(memory_of(pair.gpu).caches_bytes, before.caches_bytes) << "a fork costs no state";
  uint64_t position = 0;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_mark(cache, &position, &failure), failure);
  const Snapshot marked = snapshot_of(pair.gpu_info, cache);
  step(pair.gpu_info, pair.gpu, cache, random_tokens(3, pair.gpu_info.vocab_size, 2));
  for (const Cache &fork : forks) EXPECT_TRUE(snapshot_of(pair.gpu_info, fork) == marked);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(cache, position, &failure), failure);
  EXPECT_TRUE(snapshot_of(pair.gpu_info, cache) == marked);
}

// Tokens chosen on the device are those that the host's sampler chooses from the same scores.
std::vector<wkv_sampler_options> kinds_of_samplers() {
  static const wkv_token_bias biases[] = {{3, 2.5f}, {17, -1.0f}, {40, 4.0f}};
  static const int32_t banned[] = {1, 2, 500};
  std::vector<wkv_sampler_options> kinds(7);
  for (wkv_sampler_options &kind : kinds) {
    kind.struct_size = sizeof kind;
    kind.seed = 11;
  }
  kinds[0].is_greedy = 1;
  kinds[1].temperature = 0.8f;
  kinds[1].top_p = 0.7f;
  kinds[2].top_k = 20;
  kinds[3].min_p = 0.05f;
  kinds[3].temperature = 1.5f;
  kinds[4].repetition = 1.2f;
  kinds[4].presence = 0.3f;
  kinds[4].frequency = 0.2f;
  kinds[4].penalty_decay = 0.99f;
  kinds[5].biases = biases;
  kinds[5].biases_count = 3;
  kinds[5].banned_tokens = banned;
  kinds[5].banned_tokens_count = 3;
  kinds[6].typical_p = 0.6f;  // chosen on the host in either case
  return kinds;
}

TEST_F(OnDevice, tokens_are_chosen_as_on_the_host) {
  Pair pair(usual_shape, WKV_TYPE_F16);
  Failure failure;
  const std::vector<wkv_sampler_options> kinds = kinds_of_samplers();
  std::vector<Sampler> on_device(kinds.size()), on_host(kinds.size());
  for (size_t i = 0; i < kinds.size(); i++) {
    ASSERT_EQ(wkv_sampler_create(&kinds[i], on_device[i].out(), nullptr), WKV_OK);
    ASSERT_EQ(wkv_sampler_create(&kinds[i], on_host[i].out(), nullptr), WKV_OK);
  }
  Batch batch(pair.gpu_info, pair.gpu, kinds.size());
  std::vector<std::vector<float>> logits(kinds.size(),
                                         std::vector<float>(static_cast<size_t>(pair.gpu_info.vocab_size)));
  std::vector<int32_t> tokens(kinds.size(), 5), next(kinds.size());
  for (int round = 0; round < 40; round++) {
    std::vector<wkv_step_item> items;
    for (size_t i = 0; i < kinds.size(); i++) {
      items.push_back(make_item(batch.caches[i], {&tokens[i], 1}, logits[i].data(), logits[i].size()));
      items.back().sampler = on_device[i];
      items.back().next_token = &next[i];
    }
    WKV_ASSERT_STATUS(WKV_OK, wkv_model_step(pair.gpu, items.data(), items.size(), &failure), failure);
    for (size_t i = 0; i < kinds.size(); i++) {
      int32_t expected = -1;
      ASSERT_EQ(wkv_sampler_sample(on_host[i], logits[i].data(), logits[i].size(), &expected, nullptr), WKV_OK);
      EXPECT_EQ(next[i], expected) << "kind " << i << ", round " << round;
      tokens[i] = next[i];
    }
  }
}

// With steps begun ahead where that can be done, and without, since probabilities want the scores: the same tokens and
// states to the bit, whatever else the model does meanwhile.
TEST_F(OnDevice, generations_run_ahead_to_the_same_tokens) {
  constexpr Shape wide_shape{2, 2304, 64, 4608, 1003, 64, 32, 32, 96};  // wider than what is streamed
  for (const Shape &shape : {usual_shape, odd_shape, wide_shape}) {
    Pair pair(shape, WKV_TYPE_F16);
    Cache other = create_cache(pair.gpu);
    const std::vector<int32_t> prompt = random_tokens(9, pair.gpu_info.vocab_size, 4);
    for (const wkv_sampler_options &kind : kinds_of_samplers()) {
      Snapshot states[2];
      std::vector<int32_t> tokens[2];
      for (int with_scores = 0; with_scores < 2; with_scores++) {
        Sampler sampler;
        ASSERT_EQ(wkv_sampler_create(&kind, sampler.out(), nullptr), WKV_OK);
        Cache cache = create_cache(pair.gpu);
        wkv_generation_options options{};
        options.struct_size = sizeof options;
        options.prompt_tokens = prompt.data();
        options.prompt_tokens_count = prompt.size();
        options.max_tokens = 60;
        options.keeps_end_token = 1;
        options.wants_log_probability = with_scores;
        Generation generation;
        ASSERT_EQ(wkv_generation_create(cache, sampler, &options, generation.out(), nullptr), WKV_OK);
        wkv_generation_piece piece{};
        piece.struct_size = sizeof piece;
        Failure failure;
        while (wkv_generation_next(generation, &piece, &failure) == WKV_OK) {
          tokens[with_scores].push_back(piece.token);
          if (piece.tokens_generated % 7 == 0) step(pair.gpu_info, pair.gpu, other, {&piece.token, 1});
        }
        EXPECT_EQ(tokens[with_scores].size(), 60u) << failure.message;
        states[with_scores] = snapshot_of(pair.gpu_info, cache);
      }
      EXPECT_EQ(tokens[0], tokens[1]) << "width " << shape.width;
      EXPECT_TRUE(states[0] == states[1]) << "width " << shape.width;
    }
  }
}

// A step that cannot choose leaves everything as it was.
TEST_F(OnDevice, no_token_left_leaves_the_caches) {
  Pair pair(usual_shape, WKV_TYPE_F16);
  Failure failure;
  Cache cache = create_cache(pair.gpu);
  step(pair.gpu_info, pair.gpu, cache, random_tokens(5, pair.gpu_info.vocab_size, 1));
  const Snapshot before = snapshot_of(pair.gpu_info, cache);
  wkv_sampler_options options{};
  options.struct_size = sizeof options;
  std::vector<int32_t> all(static_cast<size_t>(pair.gpu_info.vocab_size));
  std::iota(all.begin(), all.end(), 0);
  options.banned_tokens = all.data();
  options.banned_tokens_count = all.size();
  Sampler sampler;
  ASSERT_EQ(wkv_sampler_create(&options, sampler.out(), nullptr), WKV_OK);
  const int32_t token = 9;
  int32_t next = 77;
  wkv_step_item item = make_item(cache, {&token, 1});
  item.sampler = sampler;
  item.next_token = &next;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_step(pair.gpu, &item, 1, &failure), failure);
  EXPECT_EQ(next, 77);
  EXPECT_TRUE(snapshot_of(pair.gpu_info, cache) == before);
}

TEST_F(OnDevice, half_states_cost_what_half_costs) {
  Pair pair(usual_shape, WKV_TYPE_F16, WKV_TYPE_F16);
  EXPECT_EQ(pair.gpu_info.state_type, WKV_TYPE_F16);
  EXPECT_LT(pair.gpu_info.state_bytes, pair.cpu_info.state_bytes * 6 / 10);
  for (const size_t length : {1, 12, 300}) {
    Cache cpu = create_cache(pair.cpu), gpu = create_cache(pair.gpu);
    for (int part = 0; part < 3; part++) {
      const std::vector<int32_t> tokens = random_tokens(length, pair.cpu_info.vocab_size, static_cast<uint32_t>(part));
      const std::vector<float> expected = step(pair.cpu_info, pair.cpu, cpu, tokens);
      EXPECT_LE(relative_error(step(pair.gpu_info, pair.gpu, gpu, tokens), expected), 8e-3) << length;
    }
    expect_same_state(pair, cpu, gpu, 8e-3, std::to_string(length));
  }
}

// A hundred thousand tokens: errors must not grow with the context.
TEST_F(OnDevice, long_contexts_do_not_drift) {
  for (const wkv_type type : {WKV_TYPE_F32, WKV_TYPE_F16}) {
    Pair pair(shape_named("tiny"), type);
    Cache cpu = create_cache(pair.cpu), gpu = create_cache(pair.gpu);
    double early = 0;
    for (int part = 0; part < 25; part++) {
      const std::vector<int32_t> tokens =
          random_tokens(4000, pair.cpu_info.vocab_size, static_cast<uint32_t>(part + 100));
      step(pair.cpu_info, pair.cpu, cpu, tokens);
      step(pair.gpu_info, pair.gpu, gpu, tokens);
      if (part != 0 && part != 24) continue;
      const Snapshot a = snapshot_of(pair.gpu_info, gpu), b = snapshot_of(pair.cpu_info, cpu);
      const double error = relative_error(a.parts[WKV_STATE_WKV], b.parts[WKV_STATE_WKV]);
      std::printf("%s: after %d tokens the state differs by %.2e\n", type_name(type).c_str(), 4000 * (part + 1), error);
      EXPECT_LE(error, allowed_error(type, 4000));
      if (part == 0) early = error;
      if (part > 0) {
        EXPECT_LE(error, std::max(4 * early, 1e-6));
      }
    }
  }
}

TEST_F(OnDevice, budgets_hold_to_the_byte) {
  const Image image = random_gguf(usual_shape, WKV_TYPE_F16, 0.5, 7, 2);
  wkv_model_options options = options_for("cuda");
  Failure failure;
  Model model;
  WKV_ASSERT_STATUS(WKV_OK, wkv_model_load_memory(image.data(), image.size(), &options, model.out(), &failure),
                    failure);
  const wkv_model_info info = info_of(model);
  Cache cache = create_cache(model);
  step(info, model, cache, random_tokens(700, info.vocab_size, 1));
  const uint64_t peak = memory_of(model).total_peak_bytes;
  cache = Cache();
  model = Model();

  options.memory_limit_bytes = peak;
  WKV_ASSERT_STATUS(WKV_OK, wkv_model_load_memory(image.data(), image.size(), &options, model.out(), &failure),
                    failure);
  cache = create_cache(model);
  step(info, model, cache, random_tokens(700, info.vocab_size, 1));
  Cache more;
  WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY, wkv_cache_create(model, nullptr, more.out(), &failure), failure);
  step(info, model, cache, random_tokens(3, info.vocab_size, 2));  // everything else stays usable
}

}  // namespace
}  // namespace libwkv::test
