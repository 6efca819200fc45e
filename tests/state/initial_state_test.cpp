// SPDX-License-Identifier: Apache-2.0
// Tuned initial states: what a file says is what a cache starts from, and a file that does not fit is refused.
#include <cmath>
#include <fstream>

#include "support/models.h"
#include "support/sparse_model.h"
#include "support/state_files.h"
#include "support/temporary_directory.h"

namespace libwkv::test {
namespace {

using InitialState = Owned<wkv_initial_state, wkv_initial_state_release>;

wkv_model_options one_thread() {
  wkv_model_options options = default_options();
  options.threads = 1;
  return options;
}

void write(const std::filesystem::path &path, const std::string &content) {
  std::filesystem::remove(path);  // some file systems wait for the disk when a file is written anew in place
  std::ofstream out(path, std::ios::binary);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  ASSERT_TRUE(out.flush());
}

// Multiples of 1/64 below 1: exact in every type.
std::vector<float> state_values(size_t count, uint64_t seed) {
  std::vector<float> values;
  for (int32_t number : random_tokens(count, 127, seed)) values.push_back(static_cast<float>(number - 63) / 64);
  return values;
}

std::vector<StateTensor> tensors_for(const wkv_model_info &info, uint64_t seed, StateType type = StateType::f32) {
  std::vector<StateTensor> tensors;
  for (int32_t layer = 0; layer < info.layers; layer++)
    tensors.push_back({std::string("blocks.") + std::to_string(layer) + ".att.time_state",
                       {info.heads, info.head_size, info.head_size},
                       state_values(part_size(info, WKV_STATE_WKV), seed * 100 + static_cast<uint64_t>(layer)),
                       type});
  return tensors;
}

// What wkv_cache_read_state gives for a layer: [value][key].
std::vector<float> official(const wkv_model_info &info, const std::vector<float> &stored, wkv_time_state_order order) {
  if (order == WKV_TIME_STATE_VALUE_FIRST) return stored;
  std::vector<float> values(stored.size());
  size_t size = static_cast<size_t>(info.head_size);
  for (size_t head = 0; head < stored.size(); head += size * size)
    for (size_t key = 0; key < size; key++)
      for (size_t value = 0; value < size; value++)
        values[head + value * size + key] = stored[head + key * size + value];
  return values;
}

wkv_status load_state(wkv_model *model, const std::filesystem::path &path, InitialState &state, Failure &failure,
                      wkv_time_state_order order = WKV_TIME_STATE_KEY_FIRST) {
  wkv_initial_state_options options{};
  options.struct_size = sizeof options;
  options.order = order;
  return wkv_initial_state_load(model, path.c_str(), &options, state.out(), &failure);
}

Cache cache_from(wkv_model *model, const wkv_initial_state *state) {
  wkv_cache_options options{};
  options.struct_size = sizeof options;
  options.initial_state = state;
  Cache cache;
  Failure failure;
  EXPECT_EQ(wkv_cache_create(model, &options, cache.out(), &failure), WKV_OK) << failure.message;
  return cache;
}

wkv_initial_state_info info_of(const wkv_initial_state *state) {
  wkv_initial_state_info info{};
  info.struct_size = sizeof info;
  EXPECT_EQ(wkv_initial_state_get_info(state, &info, nullptr), WKV_OK);
  return info;
}

// A cache whose state was written part by part.
Cache written_cache(const RandomModel &random, const std::vector<StateTensor> &tensors, wkv_time_state_order order) {
  Cache cache = create_cache(random.model);
  for (int32_t layer = 0; layer < random.info.layers; layer++) {
    std::vector<float> values = official(random.info, tensors[static_cast<size_t>(layer)].values, order);
    Failure failure;
    EXPECT_EQ(wkv_cache_write_state(cache, layer, WKV_STATE_WKV, values.data(), values.size(), &failure), WKV_OK)
        << failure.message;
  }
  return cache;
}

TEST(InitialStates, are_what_caches_start_from_whatever_the_file) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  TemporaryDirectory folder;
  std::vector<int32_t> tokens = random_tokens(5, random.info.vocab_size, 9);
  for (StateType type : {StateType::f32, StateType::f16, StateType::bf16}) {
    std::vector<StateTensor> tensors = tensors_for(random.info, 1, type);
    write(folder.path() / "zip.pth", make_pth(tensors));
    write(folder.path() / "legacy.pth", make_legacy_pth(tensors));
    write(folder.path() / "one.safetensors", make_safetensors(tensors));
    for (const char *name : {"zip.pth", "legacy.pth", "one.safetensors"})
      for (wkv_time_state_order order : {WKV_TIME_STATE_KEY_FIRST, WKV_TIME_STATE_VALUE_FIRST}) {
        InitialState state;
        Failure failure;
        WKV_ASSERT_STATUS(WKV_OK, load_state(random.model, folder.path() / name, state, failure, order), failure);
        Cache cache = cache_from(random.model, state), expected = written_cache(random, tensors, order);
        EXPECT_TRUE(snapshot_of(random.info, cache) == snapshot_of(random.info, expected)) << name;
        EXPECT_EQ(step(random.info, random.model, cache, tokens), step(random.info, random.model, expected, tokens))
            << name;
        EXPECT_EQ(info_of(state).may_be_rwkv6, 0) << info_of(state).warning;
        EXPECT_STREQ(info_of(state).warning, "");
        EXPECT_EQ(info_of(state).bytes, random.info.state_bytes);
      }
  }
}

TEST(InitialStates, default_to_key_first) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  TemporaryDirectory folder;
  std::vector<StateTensor> tensors = tensors_for(random.info, 1);
  write(folder.path() / "state.pth", make_pth(tensors));
  InitialState state;
  Failure failure;
  WKV_ASSERT_STATUS(
      WKV_OK,
      wkv_initial_state_load(random.model, (folder.path() / "state.pth").c_str(), nullptr, state.out(), &failure),
      failure);
  Cache cache = cache_from(random.model, state), expected = written_cache(random, tensors, WKV_TIME_STATE_KEY_FIRST);
  EXPECT_TRUE(snapshot_of(random.info, cache) == snapshot_of(random.info, expected));
}

TEST(InitialStates, are_chosen_per_cache_and_reset_goes_back_to_them) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  TemporaryDirectory folder;
  std::vector<int32_t> tokens = random_tokens(20, random.info.vocab_size, 9);
  std::vector<Cache> caches;
  std::vector<Snapshot> starts;
  for (uint64_t i = 0; i < 3; i++) {
    write(folder.path() / "state.safetensors", make_safetensors(tensors_for(random.info, i)));
    InitialState state;
    Failure failure;
    WKV_ASSERT_STATUS(WKV_OK, load_state(random.model, folder.path() / "state.safetensors", state, failure), failure);
    caches.push_back(cache_from(random.model, state));
    starts.push_back(snapshot_of(random.info, caches.back()));
    EXPECT_EQ(starts.back().position, 0u);
  }  // the handle of the state is gone
  EXPECT_FALSE(starts[0] == starts[1] || starts[1] == starts[2]);
  for (size_t i = 0; i < caches.size(); i++) {
    Failure failure;
    Cache copy;
    step(random.info, random.model, caches[i], tokens);
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_copy(caches[i], copy.out(), &failure), failure);
    for (Cache *cache : {&caches[i], &copy}) {
      EXPECT_FALSE(snapshot_of(random.info, *cache) == starts[i]);
      WKV_EXPECT_STATUS(WKV_OK, wkv_cache_reset(*cache, &failure), failure);
      EXPECT_TRUE(snapshot_of(random.info, *cache) == starts[i]);
    }
  }
  // A thousand caches share one state until they step.
  uint64_t before = memory_of(random.model).total_bytes;
  std::vector<Cache> many;
  for (int i = 0; i < 1000; i++) {
    Cache copy;
    ASSERT_EQ(wkv_cache_copy(caches[0], copy.out(), nullptr), WKV_OK);
    many.push_back(std::move(copy));
  }
  EXPECT_EQ(memory_of(random.model).total_bytes, before);
}

TEST(InitialStates, are_counted_and_keep_their_model) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  TemporaryDirectory folder;
  write(folder.path() / "state.pth", make_pth(tensors_for(random.info, 1)));
  InitialState state;
  Failure failure;
  WKV_ASSERT_STATUS(WKV_OK, load_state(random.model, folder.path() / "state.pth", state, failure), failure);
  wkv_memory_info memory = memory_of(random.model);
  EXPECT_EQ(memory.checkpoints_bytes, random.info.state_bytes);
  EXPECT_EQ(memory.caches_bytes, 0u);
  {
    Cache cache = cache_from(random.model, state);
    EXPECT_EQ(memory_of(random.model).caches_bytes, random.info.state_bytes);
    EXPECT_EQ(memory_of(random.model).checkpoints_bytes, 0u);
    EXPECT_EQ(memory_of(random.model).total_bytes, memory.total_bytes);
  }
  EXPECT_EQ(memory_of(random.model).checkpoints_bytes, random.info.state_bytes);
  {
    InitialState other;
    WKV_EXPECT_STATUS(WKV_OK, load_state(random.model, folder.path() / "state.pth", other, failure), failure);
  }
  random.model.reset();
  EXPECT_EQ(info_of(state).bytes, random.info.state_bytes);
  state.reset();

  wkv_model_options options = one_thread();
  options.memory_limit_bytes = random.info.weight_bytes + random.info.state_bytes - 1;
  Model tight;
  ASSERT_EQ(wkv_model_load_memory(random.image.data(), random.image.size(), &options, tight.out(), &failure), WKV_OK);
  WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY, load_state(tight, folder.path() / "state.pth", state, failure), failure);
  EXPECT_EQ(memory_of(tight).total_bytes, random.info.weight_bytes);
}

TEST(InitialStates, of_another_model_are_refused_by_a_cache) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread()), other(odd_shape, WKV_TYPE_F32, one_thread());
  TemporaryDirectory folder;
  write(folder.path() / "state.pth", make_pth(tensors_for(random.info, 1)));
  InitialState state;
  Failure failure;
  WKV_ASSERT_STATUS(WKV_OK, load_state(random.model, folder.path() / "state.pth", state, failure), failure);
  wkv_cache_options options{};
  options.struct_size = sizeof options;
  options.initial_state = state;
  wkv_cache *cache = nullptr;
  WKV_EXPECT_STATUS(WKV_MISMATCH, wkv_cache_create(other.model, &options, &cache, &failure), failure);
  EXPECT_EQ(cache, nullptr);
}

TEST(InitialStates, leave_other_tensors_alone_and_read_strides) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  TemporaryDirectory folder;
  std::vector<StateTensor> tensors = tensors_for(random.info, 1), strided = tensors;
  for (StateTensor &tensor : strided)
    tensor.strides = {random.info.head_size * random.info.head_size, 1, random.info.head_size};
  strided.push_back({"emb.weight", {2, 3}, {1, 2, 3, 4, 5, NAN}});
  strided.push_back({"blocks.00.att.time_state", {1}, {1}});
  strided.push_back({"blocks.0.att.time_state2", {1}, {1}});
  write(folder.path() / "state.pth", make_pth(strided));
  InitialState state;
  Failure failure;
  WKV_ASSERT_STATUS(WKV_OK, load_state(random.model, folder.path() / "state.pth", state, failure), failure);
  Cache cache = cache_from(random.model, state), expected = written_cache(random, tensors, WKV_TIME_STATE_VALUE_FIRST);
  EXPECT_TRUE(snapshot_of(random.info, cache) == snapshot_of(random.info, expected));
}

TEST(InitialStates, that_do_not_fit_the_model_are_refused) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  TemporaryDirectory folder;
  const std::vector<StateTensor> good = tensors_for(random.info, 1);
  const int64_t heads = random.info.heads, size = random.info.head_size;
  auto expect = [&](wkv_status expected, const std::vector<StateTensor> &tensors, const char *what) {
    const std::pair<const char *, std::string> files[] = {{"state.pth", make_pth(tensors)},
                                                          {"legacy.pth", make_legacy_pth(tensors)},
                                                          {"state.safetensors", make_safetensors(tensors)}};
    for (const auto &[name, content] : files) {
      write(folder.path() / name, content);
      wkv_initial_state *none = nullptr;
      Failure failure;
      EXPECT_EQ(wkv_status_name(
                    wkv_initial_state_load(random.model, (folder.path() / name).c_str(), nullptr, &none, &failure)),
                std::string(wkv_status_name(expected)))
          << what << " in " << name << ": " << failure.message;
      EXPECT_EQ(none, nullptr);
      wkv_initial_state_release(none);
    }
  };
  auto changed = [&](size_t layer, std::vector<int64_t> shape) {
    std::vector<StateTensor> tensors = good;
    tensors[layer].shape = std::move(shape);
    return tensors;
  };
  std::vector<StateTensor> tensors = good;
  tensors.pop_back();
  expect(WKV_MISMATCH, tensors, "a layer too few");
  tensors = good;
  tensors.erase(tensors.begin());
  expect(WKV_MISMATCH, tensors, "no first layer");
  tensors = good;
  tensors.push_back(good[0]);
  tensors.back().name = "blocks.3.att.time_state";
  expect(WKV_MISMATCH, tensors, "a layer too many");
  tensors.back().name = "blocks.999999.att.time_state";
  expect(WKV_MISMATCH, tensors, "many layers too many");
  expect(WKV_MISMATCH, changed(1, {heads * size, size}), "two dimensions");
  expect(WKV_MISMATCH, changed(1, {1, heads, size, size}), "four dimensions");
  expect(WKV_MISMATCH, changed(2, {size, heads, size}), "dimensions in another order");
  expect(WKV_MISMATCH, changed(0, {heads * 4, size / 2, size / 2}), "other heads");
  tensors = good;
  tensors[1].shape = {heads - 1, size, size};
  tensors[1].values.resize(static_cast<size_t>((heads - 1) * size * size));
  expect(WKV_MISMATCH, tensors, "a head too few");
  expect(WKV_NOT_FOUND, {{"emb.weight", {2}, {1, 2}}}, "no state at all");
  for (float value : {NAN, INFINITY, -INFINITY}) {
    for (StateType type : {StateType::f32, StateType::f16, StateType::bf16}) {
      tensors = tensors_for(random.info, 1, type);
      tensors[2].values.back() = value;
      expect(WKV_FORMAT, tensors, "a value that is none");
    }
  }
  EXPECT_EQ(memory_of(random.model).checkpoints_bytes, 0u);
}

TEST(InitialStates, that_are_twice_there_are_refused) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  TemporaryDirectory folder;
  std::vector<StateTensor> tensors = tensors_for(random.info, 1);
  tensors.push_back(tensors[1]);
  write(folder.path() / "state.pth", make_pth(tensors));
  write(folder.path() / "state.safetensors", make_safetensors(tensors));
  for (const char *name : {"state.pth", "state.safetensors"}) {
    InitialState state;
    Failure failure;
    WKV_EXPECT_STATUS(WKV_FORMAT, load_state(random.model, folder.path() / name, state, failure), failure);
  }
}

TEST(InitialStates, in_damaged_files_are_refused_at_every_length) {
  constexpr Shape small{1, 8, 4, 32, 20, 4, 4, 4, 4};
  RandomModel random(small, WKV_TYPE_F32, one_thread());
  TemporaryDirectory folder;
  const std::vector<StateTensor> tensors = tensors_for(random.info, 1);
  for (const std::string &content : {make_pth(tensors), make_legacy_pth(tensors), make_safetensors(tensors)}) {
    for (size_t length = 0; length < content.size(); length++) {
      write(folder.path() / "state", content.substr(0, length));
      InitialState state;
      Failure failure;
      WKV_EXPECT_STATUS(WKV_FORMAT, load_state(random.model, folder.path() / "state", state, failure), failure);
    }
    // Any one byte changed: read or refused, and never more than one state's memory.
    for (size_t at = 0; at < content.size(); at++) {
      std::string damaged = content;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x15);
      write(folder.path() / "state", damaged);
      InitialState state;
      Failure failure;
      if (load_state(random.model, folder.path() / "state", state, failure) != WKV_OK) {
        EXPECT_NE(failure.message[0], 0);
      }
    }
  }
  EXPECT_EQ(memory_of(random.model).checkpoints_bytes, 0u);
  EXPECT_LE(memory_of(random.model).checkpoints_peak_bytes, random.info.state_bytes);
}

TEST(InitialStates, in_other_files_are_not_found) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  TemporaryDirectory folder;
  SparseModel model_file(folder.path() / "model.gguf", odd_shape, "F16");
  InitialState state;
  Failure failure;
  WKV_EXPECT_STATUS(WKV_NOT_FOUND, load_state(random.model, model_file.path(), state, failure), failure);
  WKV_EXPECT_STATUS(WKV_NOT_FOUND, load_state(random.model, folder.path() / "none.pth", state, failure), failure);
  wkv_status folder_status = load_state(random.model, folder.path() / "", state, failure);
  EXPECT_TRUE(folder_status == WKV_IO || folder_status == WKV_NOT_FOUND) << failure.message;
  std::string content = make_safetensors(tensors_for(random.info, 1));
  size_t type = content.find("\"F32\"");
  write(folder.path() / "integers.safetensors", content.replace(type, 5, "\"I32\""));
  WKV_EXPECT_STATUS(WKV_UNSUPPORTED, load_state(random.model, folder.path() / "integers.safetensors", state, failure),
                    failure);
}

TEST(InitialStates, that_may_be_for_rwkv6_say_so) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  TemporaryDirectory folder;
  const std::vector<StateTensor> tensors = tensors_for(random.info, 1);
  auto warning_of = [&](const std::string &name, const std::vector<StateTensor> &content) {
    write(folder.path() / name, make_pth(content));
    InitialState state;
    Failure failure;
    EXPECT_EQ(load_state(random.model, folder.path() / name, state, failure), WKV_OK) << failure.message;
    wkv_initial_state_info info = info_of(state);
    EXPECT_EQ(info.may_be_rwkv6, info.warning[0] != 0);
    EXPECT_EQ(std::string(info.warning).find('\n'), std::string::npos);
    return std::string(info.warning);
  };
  for (const char *name : {"rwkv-x060-eng_single_round_qa-1B6.pth", "RWKV-6-state.pth", "poet.RWKV6.pth", "poet-v6.pth",
                           "v6.pth", "rwkv_6_poet.pth", "X060.pth"})
    EXPECT_NE(warning_of(name, tensors), "") << name;
  for (const char *name : {"rwkv-x070-poet.pth", "rwkv7-g1-state.pth", "poet.pth", "conv6.pth", "v60.pth",
                           "rwkv-600.pth", "rwkv7-1B6.pth"})
    EXPECT_EQ(warning_of(name, tensors), "") << name;
  for (const char *other : {"blocks.0.att.time_maa_x", "blocks.1.att.time_decay", "blocks.0.att.time_decay_w1",
                            "blocks.0.att.time_faaaa", "blocks.0.ffn.time_maa_k"}) {
    std::vector<StateTensor> more = tensors;
    more.push_back({other, {1}, {1}});
    EXPECT_NE(warning_of("poet.pth", more).find(other), std::string::npos);
  }
}

TEST(InitialStates, check_their_arguments) {
  RandomModel random(odd_shape, WKV_TYPE_F32, one_thread());
  TemporaryDirectory folder;
  write(folder.path() / "state.pth", make_pth(tensors_for(random.info, 1)));
  std::string path = folder.path() / "state.pth";
  InitialState state;
  Failure failure;
  wkv_initial_state *out = nullptr;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_initial_state_load(nullptr, path.c_str(), nullptr, &out, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_initial_state_load(random.model, nullptr, nullptr, &out, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_initial_state_load(random.model, path.c_str(), nullptr, nullptr, &failure),
                    failure);
  WKV_EXPECT_STATUS(WKV_INVALID, load_state(random.model, path, state, failure, 2), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, load_state(random.model, path, state, failure, -1), failure);
  wkv_initial_state_options options{};
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_initial_state_load(random.model, path.c_str(), &options, &out, &failure), failure);
  WKV_ASSERT_STATUS(WKV_OK, load_state(random.model, path, state, failure), failure);
  wkv_initial_state_info info{};
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_initial_state_get_info(state, &info, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_initial_state_get_info(state, nullptr, &failure), failure);
  info.struct_size = sizeof info;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_initial_state_get_info(nullptr, &info, &failure), failure);
  wkv_initial_state_release(nullptr);
  EXPECT_EQ(out, nullptr);
}

}  // namespace
}  // namespace libwkv::test
