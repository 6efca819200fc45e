// SPDX-License-Identifier: Apache-2.0
// What libwkv does with a backend of its own: everything but the arithmetic, which here is a sum.
#include <cstdlib>
#include <string>
#include <thread>

#include <dlfcn.h>

#include "plugin/fake_device.h"
#include "support/models.h"

namespace libwkv::test {
namespace {

constexpr Shape shape{3, 64, 32, 128, 101, 16, 16, 8, 16};

FakeDevice &fake() {
  static FakeDevice *device = [] {
    void *library = dlopen(WKV_FAKE_DEVICE, RTLD_NOW);
    if (!library) throw std::runtime_error(dlerror());
    return reinterpret_cast<FakeDeviceFunction>(dlsym(library, fake_device_symbol))();
  }();
  return *device;
}

// Before anybody asks for a device.
const int chosen = setenv("WKV_CUDA_PATH", WKV_FAKE_DEVICE, 1);

class Plugins : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(chosen, 0);
    load(options());
  }
  void TearDown() override {
    model_ = Model();
    EXPECT_EQ(fake().models, 0);
    EXPECT_EQ(fake().states, 0);
    EXPECT_EQ(fake().parked, 0);
    EXPECT_EQ(fake().workspaces, 0);
  }
  static wkv_model_options options() {
    wkv_model_options options = default_options();
    options.device = "cuda";
    options.threads = 2;
    return options;
  }
  wkv_status try_load(const wkv_model_options &options) {
    model_ = Model();
    return wkv_model_load_memory(image_.data(), image_.size(), &options, model_.out(), &failure_);
  }
  void load(const wkv_model_options &options) {
    ASSERT_EQ(try_load(options), WKV_OK) << failure_.message;
    info_ = info_of(model_);
  }

  // The numbers that a state has after these tokens.
  Snapshot expected(std::span<const int32_t> tokens) const {
    Snapshot snapshot = snapshot_of(info_, create_cache(model_));
    snapshot.position = tokens.size();
    snapshot.last_token = tokens.empty() ? -1 : tokens.back();
    const size_t width = shape.width, size = shape.head_size, heads = width / size;
    const size_t layer_floats = 2 * width + heads * size * size;
    const auto number = [&](size_t place) {
      float value = 0;
      for (int32_t token : tokens)
        value = value / 2 + static_cast<float>(token + 1) * weight_of(static_cast<int64_t>(place));
      return value;
    };
    for (size_t l = 0; l < static_cast<size_t>(shape.layers); l++) {
      for (size_t i = 0; i < width; i++) {
        snapshot.parts[WKV_STATE_ATT_SHIFT][l * width + i] = number(l * layer_floats + i);
        snapshot.parts[WKV_STATE_FFN_SHIFT][l * width + i] = number(l * layer_floats + width + i);
      }
      for (size_t h = 0; h < heads; h++)
        for (size_t value = 0; value < size; value++)
          for (size_t key = 0; key < size; key++)
            snapshot.parts[WKV_STATE_WKV][((l * heads + h) * size + value) * size + key] =
                number(l * layer_floats + 2 * width + (h * size + key) * size + value);
    }
    return snapshot;
  }
  void feed(wkv_cache *cache, const std::vector<int32_t> &tokens) {
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_step(cache, tokens.data(), tokens.size(), nullptr, 0, &failure_), failure_);
  }
  void expect_read(wkv_cache *cache, const std::vector<int32_t> &tokens) const {
    EXPECT_TRUE(snapshot_of(info_, cache) == expected(tokens));
  }

  Image image_ = random_gguf(shape, WKV_TYPE_F16, 0.5, 1, 1);
  Model model_;
  wkv_model_info info_{};
  Failure failure_;
};

TEST_F(Plugins, are_devices_with_reasons) {
  ASSERT_EQ(wkv_device_count(), 3u);
  wkv_device_info info{};
  info.struct_size = sizeof info;
  ASSERT_EQ(wkv_device_get_info(1, &info, nullptr), WKV_OK);
  EXPECT_STREQ(info.name, "cuda:0");
  EXPECT_EQ(info.is_usable, 1);
  EXPECT_STREQ(info.description, "a device that is none, number 0");
  EXPECT_EQ(info.cores, 7);
  ASSERT_EQ(wkv_device_get_info(2, &info, nullptr), WKV_OK);
  EXPECT_EQ(info.is_usable, 0);
  EXPECT_STREQ(info.unusable_reason, "it is the second one");
  wkv_model_options other = options();
  other.device = "cuda:1";
  WKV_EXPECT_STATUS(WKV_DEVICE, try_load(other), failure_);
  EXPECT_NE(std::string(failure_.message).find("it is the second one"), std::string::npos) << failure_.message;
  other.device = "cuda:2";
  WKV_EXPECT_STATUS(WKV_NOT_FOUND, try_load(other), failure_);
  other.device = "auto";
  load(other);
  EXPECT_STREQ(info_.device, "cuda:0");
  EXPECT_STREQ(info_.kernels, "fake");
}

TEST_F(Plugins, get_every_tensor_once) {
  // 6 that exist once; in a layer 18 vectors, 6 matrices and 6 low-rank ones; v0, v1 and v2 behind the first layer.
  EXPECT_EQ(fake().parts, 6 + shape.layers * (18 + 6 + 6) + (shape.layers - 1) * 3);
  EXPECT_EQ(info_.weight_bytes, static_cast<uint64_t>(fake().parts) * 1000 + 500);
}

TEST_F(Plugins, failing_or_cancelled_loads_leave_nothing) {
  fake().fail_load = 20;
  WKV_EXPECT_STATUS(WKV_DEVICE, try_load(options()), failure_);
  EXPECT_EQ(fake().models, 0);
  wkv_model_options watched = options();
  int calls = 0;
  watched.progress = [](void *user, uint64_t, uint64_t) { return ++*static_cast<int *>(user) == 10 ? 1 : 0; };
  watched.progress_user = &calls;
  WKV_EXPECT_STATUS(WKV_CANCELLED, try_load(watched), failure_);
  EXPECT_EQ(fake().models, 0);
  wkv_model_options limited = options();
  limited.memory_limit_bytes = 1000;
  WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY, try_load(limited), failure_);
  EXPECT_EQ(fake().models, 0);
}

TEST_F(Plugins, step_fork_and_go_back) {
  Cache cache = create_cache(model_), fork;
  feed(cache, {3, 1, 4});
  expect_read(cache, {3, 1, 4});
  const int64_t states = fake().states.load();
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_copy(cache, fork.out(), &failure_), failure_);
  EXPECT_EQ(fake().states, states) << "a fork costs no state";
  feed(fork, {9});
  expect_read(cache, {3, 1, 4});
  expect_read(fork, {3, 1, 4, 9});
  uint64_t here = 0;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_mark(cache, &here, &failure_), failure_);
  feed(cache, {5, 6});
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(cache, here, &failure_), failure_);
  expect_read(cache, {3, 1, 4});
  wkv_step_item item = make_item(cache, std::array<int32_t, 3>{7, 8, 9}, nullptr, 0, WKV_STEP_ALL_STATES);
  const std::vector<int32_t> three = {7, 8, 9};
  item.tokens = three.data();
  WKV_ASSERT_STATUS(WKV_OK, wkv_model_step(model_, &item, 1, &failure_), failure_);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(cache, 5, &failure_), failure_);
  expect_read(cache, {3, 1, 4, 7, 8});
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_reset(cache, &failure_), failure_);
  expect_read(cache, {});
}

TEST_F(Plugins, states_are_written_saved_and_restored) {
  Cache cache = create_cache(model_);
  feed(cache, {2, 3});
  size_t size = 0;
  ASSERT_EQ(wkv_cache_serialize(cache, nullptr, 0, &size, nullptr), WKV_OK);
  std::vector<std::byte> bytes(size);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_serialize(cache, bytes.data(), size, &size, &failure_), failure_);
  Cache again;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_deserialize(model_, bytes.data(), size, again.out(), &failure_), failure_);
  expect_read(again, {2, 3});
  // and on the CPU, which has the same bytes
  wkv_model_options on_cpu = options();
  on_cpu.device = "cpu";
  Model cpu;
  WKV_ASSERT_STATUS(WKV_OK, wkv_model_load_memory(image_.data(), image_.size(), &on_cpu, cpu.out(), &failure_),
                    failure_);
  Cache there;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_deserialize(cpu, bytes.data(), size, there.out(), &failure_), failure_);
  EXPECT_TRUE(snapshot_of(info_of(cpu), there) == expected(std::vector<int32_t>{2, 3}));

  std::vector<float> part(part_size(info_, WKV_STATE_WKV));
  for (size_t i = 0; i < part.size(); i++) part[i] = static_cast<float>(i);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_write_state(cache, 1, WKV_STATE_WKV, part.data(), part.size(), &failure_),
                    failure_);
  std::vector<float> back(part.size());
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_read_state(cache, 1, WKV_STATE_WKV, back.data(), back.size(), &failure_),
                    failure_);
  EXPECT_EQ(back, part);
  expect_read(again, {2, 3});

  wkv_device_tensor tensor{};
  tensor.struct_size = sizeof tensor;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_get_tensor(again, 2, WKV_STATE_WKV, &tensor, &failure_), failure_);
  EXPECT_EQ(tensor.dimensions, 3);
  EXPECT_EQ(tensor.shape[0] * tensor.shape[1] * tensor.shape[2], static_cast<int64_t>(part.size()));
  const Snapshot wanted = expected(std::vector<int32_t>{2, 3});
  const float *numbers = static_cast<const float *>(tensor.data);  // [head][key][value]
  EXPECT_EQ(numbers[1], wanted.parts[WKV_STATE_WKV][2 * part.size() + 32]);
}

TEST_F(Plugins, parked_states_come_back) {
  std::vector<Cache> caches;
  for (int32_t i = 0; i < 5; i++) {
    caches.push_back(create_cache(model_));
    feed(caches.back(), {i, i + 1});
  }
  const uint64_t all = memory_of(model_).caches_bytes;
  for (const Cache &cache : caches) WKV_ASSERT_STATUS(WKV_OK, wkv_cache_park(cache, &failure_), failure_);
  EXPECT_EQ(fake().states, 0);
  EXPECT_EQ(fake().parked, 5);
  EXPECT_EQ(memory_of(model_).parked_bytes, all);
  EXPECT_EQ(memory_of(model_).caches_bytes, 0u);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_park(caches[0], &failure_), failure_);  // twice is fine
  feed(caches[1], {7});
  expect_read(caches[1], {1, 2, 7});
  expect_read(caches[3], {3, 4});
  EXPECT_EQ(fake().parked, 3);
  fake().fail_park = 1;
  WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY, wkv_cache_park(caches[1], &failure_), failure_);
  expect_read(caches[1], {1, 2, 7});
  fake().fail_state = 1;
  WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY,
                    wkv_cache_step(caches[4], std::vector<int32_t>{1}.data(), 1, nullptr, 0, &failure_), failure_);
  expect_read(caches[4], {4, 5});
}

TEST_F(Plugins, parked_states_without_room_reset_to_zeros) {
  Cache cache = create_cache(model_);
  feed(cache, {4, 5});
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_park(cache, &failure_), failure_);
  fake().fail_state = 1;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_reset(cache, &failure_), failure_);
  expect_read(cache, {});
  feed(cache, {6});
  expect_read(cache, {6});
}

TEST_F(Plugins, idle_states_make_room) {
  Cache first = create_cache(model_);
  feed(first, {1});
  wkv_model_options limited = options();
  limited.memory_limit_bytes = memory_of(model_).total_bytes + 3 * info_.state_bytes;
  first = Cache();
  for (const uint64_t parking : {uint64_t{0}, uint64_t{20} * info_.state_bytes}) {
    limited.parking_limit_bytes = parking;
    load(limited);
    std::vector<Cache> caches;
    wkv_status status = WKV_OK;
    for (int32_t i = 0; i < 20 && status == WKV_OK; i++) {
      Cache cache;
      status = wkv_cache_create(model_, nullptr, cache.out(), &failure_);
      if (status != WKV_OK) break;
      feed(cache, {i});
      caches.push_back(std::move(cache));
    }
    if (parking == 0) {
      EXPECT_EQ(status, WKV_OUT_OF_MEMORY);
      EXPECT_EQ(caches.size(), 4u);
      continue;
    }
    ASSERT_EQ(status, WKV_OK) << failure_.message;
    EXPECT_LE(memory_of(model_).total_peak_bytes, limited.memory_limit_bytes);
    EXPECT_GT(fake().parked, 10);
    for (int32_t i = 0; i < 20; i++) feed(caches[static_cast<size_t>(i)], {i + 50});
    for (int32_t i = 0; i < 20; i++) expect_read(caches[static_cast<size_t>(i)], {i, i + 50});
  }
}

// Threads that step more caches than there is room for: states go and come while others are stepped.
using ConcurrentPlugins = Plugins;
TEST_F(ConcurrentPlugins, threads_share_what_room_there_is) {
  constexpr int32_t threads_count = 4, caches_a_thread = 5, rounds = 6;
  Cache first = create_cache(model_);
  feed(first, {1});
  wkv_model_options limited = options();
  limited.memory_limit_bytes = memory_of(model_).total_bytes + 2 * threads_count * info_.state_bytes;
  limited.parking_limit_bytes = threads_count * caches_a_thread * info_.state_bytes;
  first = Cache();
  load(limited);
  std::vector<std::vector<Cache>> caches(threads_count);
  for (auto &list : caches)
    for (int32_t i = 0; i < caches_a_thread; i++) list.push_back(create_cache(model_));
  std::vector<std::thread> threads;
  for (int32_t t = 0; t < threads_count; t++)
    threads.emplace_back([&, t] {
      for (int32_t round = 0; round < rounds; round++)
        for (int32_t i = 0; i < caches_a_thread; i++) {
          const int32_t token = 10 * t + i + round;
          Failure failure;
          wkv_cache *cache = caches[static_cast<size_t>(t)][static_cast<size_t>(i)];
          EXPECT_EQ(wkv_cache_step(cache, &token, 1, nullptr, 0, &failure), WKV_OK) << failure.message;
          if ((round + i) % 3 == 0) {
            EXPECT_EQ(wkv_cache_park(cache, &failure), WKV_OK) << failure.message;
          }
        }
    });
  for (std::thread &thread : threads) thread.join();
  for (int32_t t = 0; t < threads_count; t++)
    for (int32_t i = 0; i < caches_a_thread; i++) {
      std::vector<int32_t> read;
      for (int32_t round = 0; round < rounds; round++) read.push_back(10 * t + i + round);
      expect_read(caches[static_cast<size_t>(t)][static_cast<size_t>(i)], read);
    }
  EXPECT_LE(memory_of(model_).total_peak_bytes, limited.memory_limit_bytes);
}

TEST_F(Plugins, failures_change_nothing) {
  Cache cache = create_cache(model_);
  feed(cache, {3, 1});
  const std::vector<int32_t> more = {4, 5};
  const auto step_fails = [&](wkv_status status) {
    wkv_sampler_options options{};
    options.struct_size = sizeof options;
    Sampler sampler;
    ASSERT_EQ(wkv_sampler_create(&options, sampler.out(), nullptr), WKV_OK);
    int32_t next = -5;
    wkv_step_item item = make_item(cache, more);
    item.sampler = sampler;
    item.next_token = &next;
    WKV_EXPECT_STATUS(status, wkv_model_step(model_, &item, 1, &failure_), failure_);
    EXPECT_EQ(next, -5);
    expect_read(cache, {3, 1});
  };
  fake().fail_run = 1;
  step_fails(WKV_DEVICE);
  fake().fail_state = 1;
  step_fails(WKV_OUT_OF_MEMORY);
  fake().is_out_of_tokens = true;
  step_fails(WKV_INVALID);
  fake().is_out_of_tokens = false;
  const std::vector<int32_t> many(300, 2);
  fake().fail_reserve = 1;
  WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY, wkv_cache_step(cache, many.data(), many.size(), nullptr, 0, &failure_),
                    failure_);
  expect_read(cache, {3, 1});
  feed(cache, {8});  // the room is made again
  expect_read(cache, {3, 1, 8});
}

TEST_F(Plugins, cancelled_steps_change_nothing) {
  Cache cache = create_cache(model_);
  feed(cache, {3, 1});
  const std::vector<int32_t> tokens(40, 2);
  for (int stop = 1; stop <= 3; stop++) {
    struct Count {
      int calls = 0, stop = 0;
    } count{0, stop};
    wkv_step_options watch{};
    watch.struct_size = sizeof watch;
    watch.progress = [](void *user, uint64_t, uint64_t) {
      Count &c = *static_cast<Count *>(user);
      return ++c.calls == c.stop ? 1 : 0;
    };
    watch.progress_user = &count;
    wkv_step_item item = make_item(cache, tokens);
    WKV_EXPECT_STATUS(WKV_CANCELLED, wkv_model_step_watched(model_, &item, 1, &watch, &failure_), failure_);
    expect_read(cache, {3, 1});
  }
}

TEST_F(Plugins, choose_without_sending_scores) {
  const int64_t samples = fake().samples;
  Cache cache = create_cache(model_), other = create_cache(model_);
  wkv_sampler_options options{};
  options.struct_size = sizeof options;
  Sampler sampler, typical;
  ASSERT_EQ(wkv_sampler_create(&options, sampler.out(), nullptr), WKV_OK);
  options.typical_p = 0.5f;  // which a device leaves to the host
  ASSERT_EQ(wkv_sampler_create(&options, typical.out(), nullptr), WKV_OK);
  const std::vector<int32_t> tokens = {11, 12};
  int32_t next[2] = {-1, -1};
  wkv_step_item items[] = {make_item(cache, tokens), make_item(other, tokens)};
  items[0].sampler = sampler;
  items[0].next_token = &next[0];
  items[1].sampler = typical;
  items[1].next_token = &next[1];
  WKV_ASSERT_STATUS(WKV_OK, wkv_model_step(model_, items, 2, &failure_), failure_);
  EXPECT_EQ(fake().samples, samples + 1);
  const int32_t best = best_of(12.0f / 2 + 13, shape.vocab_size);
  EXPECT_EQ(next[0], best);
  EXPECT_GE(next[1], 0);
  expect_read(cache, {11, 12});

  std::vector<float> scores(static_cast<size_t>(shape.vocab_size), -1);
  Cache third = create_cache(model_);
  wkv_step_item to_device = make_item(third, tokens, scores.data(), scores.size(), WKV_STEP_DEVICE_LOGITS);
  WKV_ASSERT_STATUS(WKV_OK, wkv_model_step(model_, &to_device, 1, &failure_), failure_);
  EXPECT_EQ(scores[static_cast<size_t>(best)], 10.0f);
}

// A greedy generation, and what its cache has read when nothing interferes.
struct Talk {
  Talk(wkv_model *model, int32_t first, int32_t max_tokens) : cache(create_cache(model)), read{first, 6, 7} {
    wkv_generation_options options{};
    options.struct_size = sizeof options;
    options.prompt_tokens = read.data();
    options.prompt_tokens_count = read.size();
    options.max_tokens = max_tokens;
    options.keeps_end_token = 1;
    EXPECT_EQ(wkv_generation_create(cache, nullptr, &options, generation.out(), nullptr), WKV_OK);
  }
  wkv_status next(wkv_error *error) {
    wkv_generation_piece piece{};
    piece.struct_size = sizeof piece;
    const wkv_status status = wkv_generation_next(generation, &piece, error);
    if (status != WKV_OK) return status;
    if (pending >= 0) read.push_back(pending);
    pending = piece.token;
    return status;
  }
  Cache cache;
  Generation generation;
  std::vector<int32_t> read;
  int32_t pending = -1;
};

class Generating : public Plugins {
 protected:
  void expect_next(Talk &talk) {
    WKV_ASSERT_STATUS(WKV_OK, talk.next(&failure_), failure_);
    expect_read(talk.cache, talk.read);
    EXPECT_EQ(talk.pending, best_of(expected(talk.read).parts[WKV_STATE_ATT_SHIFT][0], shape.vocab_size));
  }
};

TEST_F(Generating, brings_tokens_alone_and_runs_ahead) {
  Talk talk(model_, 5, 12);
  const int64_t samples = fake().samples, ahead = fake().ahead;
  for (int i = 0; i < 12; i++) expect_next(talk);
  EXPECT_EQ(talk.next(&failure_), WKV_END);
  // The first comes from the prompt's scores, and none is begun that nobody wants.
  EXPECT_EQ(fake().samples, samples + 11);
  EXPECT_EQ(fake().ahead, ahead + 11);
}

TEST_F(Generating, notices_what_happened_to_the_cache_meanwhile) {
  Talk talk(model_, 5, 100);
  for (int i = 0; i < 4; i++) expect_next(talk);
  feed(talk.cache, {50});
  talk.read.push_back(50);
  for (int i = 0; i < 3; i++) expect_next(talk);
  uint64_t position = 0;
  ASSERT_EQ(wkv_cache_mark(talk.cache, &position, nullptr), WKV_OK);
  const std::vector<int32_t> marked = talk.read;
  for (int i = 0; i < 3; i++) expect_next(talk);
  ASSERT_EQ(wkv_cache_rollback(talk.cache, position, nullptr), WKV_OK);
  talk.read = marked;
  for (int i = 0; i < 3; i++) expect_next(talk);
  ASSERT_EQ(wkv_cache_park(talk.cache, &failure_), WKV_OK) << failure_.message;
  for (int i = 0; i < 3; i++) expect_next(talk);
  Cache copy;
  ASSERT_EQ(wkv_cache_copy(talk.cache, copy.out(), nullptr), WKV_OK);
  const std::vector<int32_t> copied = talk.read;
  expect_next(talk);
  expect_read(copy, copied);
  std::vector<float> zeros(static_cast<size_t>(shape.width), 0.0f);
  ASSERT_EQ(wkv_cache_write_state(talk.cache, 0, WKV_STATE_ATT_SHIFT, zeros.data(), zeros.size(), nullptr), WKV_OK);
  WKV_ASSERT_STATUS(WKV_OK, talk.next(&failure_), failure_);
  EXPECT_EQ(talk.pending, best_of(static_cast<float>(talk.read.back() + 1), shape.vocab_size));
}

TEST_F(Generating, several_on_one_model_do_not_disturb_each_other) {
  Talk first(model_, 5, 40), second(model_, 30, 40);
  Cache other = create_cache(model_);
  for (int i = 0; i < 20; i++) {
    expect_next(first);
    expect_next(second);
    if (i % 5 == 0) expect_next(second);
    feed(other, {i});
  }
}

TEST_F(Generating, goes_on_after_failures) {
  Talk talk(model_, 5, 100);
  for (int i = 0; i < 3; i++) expect_next(talk);
  fake().fail_state = 1;  // no room for a state more
  expect_next(talk);
  expect_next(talk);
  fake().is_out_of_tokens = true;
  const int32_t pending = talk.pending;
  while (talk.next(&failure_) == WKV_OK) expect_read(talk.cache, talk.read);  // what was begun before
  EXPECT_EQ(failure_.status, WKV_INVALID) << failure_.message;
  EXPECT_GE(pending, 0);
  expect_read(talk.cache, talk.read);
  fake().is_out_of_tokens = false;
  expect_next(talk);
  fake().fail_finish = 1;  // what was on its way is lost, and the step is done again
  for (int i = 0; i < 3; i++) expect_next(talk);
}

TEST_F(Generating, one_that_is_given_up_leaves_nothing) {
  Talk talk(model_, 5, 100);
  for (int i = 0; i < 3; i++) expect_next(talk);
  talk.generation = Generation();
  feed(talk.cache, {9});
  talk.read.push_back(9);
  expect_read(talk.cache, talk.read);
}

}  // namespace
}  // namespace libwkv::test
