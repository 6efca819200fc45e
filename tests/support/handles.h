// SPDX-License-Identifier: Apache-2.0
// The C ABI as tests use it: handles that release themselves, a call that shows the library's message when it fails,
// and the whole content of a cache as one value to compare.
#pragma once

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <wkv/wkv.h>

namespace libwkv::test {

// A wkv_error that is ready to be passed.
struct Failure : wkv_error {
  Failure() : wkv_error{} { struct_size = sizeof(wkv_error); }
};

template <class Handle, void (*release)(Handle *)>
class Owned {
 public:
  Owned() = default;
  explicit Owned(Handle *handle) : handle_(handle) {}
  Owned(Owned &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned &operator=(Owned &&other) noexcept {
    if (this != &other) reset(std::exchange(other.handle_, nullptr));
    return *this;
  }
  ~Owned() { release(handle_); }

  Handle *get() const { return handle_; }
  operator Handle *() const { return handle_; }
  // Where a create function may write. The handle that was there is released.
  Handle **out() {
    reset();
    return &handle_;
  }
  void reset(Handle *handle = nullptr) { release(std::exchange(handle_, handle)); }

 private:
  Handle *handle_ = nullptr;
};

using Model = Owned<wkv_model, wkv_model_release>;
using Cache = Owned<wkv_cache, wkv_cache_release>;
using Sampler = Owned<wkv_sampler, wkv_sampler_release>;
using Tokenizer = Owned<wkv_tokenizer, wkv_tokenizer_release>;
using Generation = Owned<wkv_generation, wkv_generation_release>;
using PrefixStore = Owned<wkv_prefix_store, wkv_prefix_store_release>;

// WKV_EXPECT_STATUS(WKV_OK, wkv_cache_reset(cache, &failure), failure)
#define WKV_EXPECT_STATUS(expected, call, failure) \
  EXPECT_EQ(wkv_status_name(call), std::string(wkv_status_name(expected))) << "message: " << (failure).message
#define WKV_ASSERT_STATUS(expected, call, failure) \
  ASSERT_EQ(wkv_status_name(call), std::string(wkv_status_name(expected))) << "message: " << (failure).message

inline wkv_model_options default_options() {
  wkv_model_options options{};
  options.struct_size = sizeof options;
  // Suites of values run on a GPU in the mode that computes everything in fp32 (tests/gpu.sh).
  const char *reproducible = std::getenv("WKV_TEST_REPRODUCIBLE");
  options.is_reproducible = reproducible && *reproducible == '1';
  return options;
}

inline Model load_model(const std::filesystem::path &path, const wkv_model_options &options = default_options()) {
  Model model;
  Failure failure;
  wkv_status status = wkv_model_load(path.c_str(), &options, model.out(), &failure);
  EXPECT_EQ(status, WKV_OK) << path << ": " << failure.message;
  return model;
}

inline Cache create_cache(wkv_model *model) {
  Cache cache;
  Failure failure;
  EXPECT_EQ(wkv_cache_create(model, nullptr, cache.out(), &failure), WKV_OK) << failure.message;
  return cache;
}

inline wkv_model_info info_of(const wkv_model *model) {
  wkv_model_info info{};
  info.struct_size = sizeof info;
  EXPECT_EQ(wkv_model_get_info(model, &info, nullptr), WKV_OK);
  return info;
}

inline wkv_cache_info info_of(const wkv_cache *cache) {
  wkv_cache_info info{};
  info.struct_size = sizeof info;
  EXPECT_EQ(wkv_cache_get_info(cache, &info, nullptr), WKV_OK);
  return info;
}

inline wkv_memory_info memory_of(const wkv_model *model) {
  wkv_memory_info info{};
  info.struct_size = sizeof info;
  EXPECT_EQ(wkv_model_get_memory(model, &info, nullptr), WKV_OK);
  return info;
}

inline size_t part_size(const wkv_model_info &info, wkv_state_part part) {
  size_t width = static_cast<size_t>(info.width);
  return part == WKV_STATE_WKV ? width * static_cast<size_t>(info.head_size) : width;
}

// Everything a cache holds.
struct Snapshot {
  uint64_t position = 0;
  int32_t last_token = -1;
  std::vector<float> parts[3];  // by wkv_state_part, all layers

  bool operator==(const Snapshot &) const = default;
};

inline Snapshot snapshot_of(const wkv_model_info &info, wkv_cache *cache) {
  Snapshot snapshot;
  wkv_cache_info cache_info = info_of(cache);
  snapshot.position = cache_info.position;
  snapshot.last_token = cache_info.last_token;
  for (wkv_state_part part = 0; part < 3; part++) {
    size_t size = part_size(info, part);
    snapshot.parts[part].resize(size * static_cast<size_t>(info.layers));
    for (int32_t layer = 0; layer < info.layers; layer++) {
      Failure failure;
      EXPECT_EQ(wkv_cache_read_state(cache, layer, part,
                                     snapshot.parts[part].data() + static_cast<size_t>(layer) * size, size, &failure),
                WKV_OK)
          << failure.message;
    }
  }
  return snapshot;
}

// Feeds tokens and returns the logits of the last one, or of all.
inline std::vector<float> step(const wkv_model_info &info, wkv_model *model, wkv_cache *cache,
                               std::span<const int32_t> tokens, bool all_logits = false) {
  std::vector<float> logits(static_cast<size_t>(info.vocab_size) * (all_logits ? tokens.size() : 1));
  Failure failure;
  if (!all_logits) {
    EXPECT_EQ(wkv_cache_step(cache, tokens.data(), tokens.size(), logits.data(), logits.size(), &failure), WKV_OK)
        << failure.message;
    return logits;
  }
  wkv_step_item item{};
  item.struct_size = sizeof item;
  item.flags = WKV_STEP_ALL_LOGITS;
  item.cache = cache;
  item.tokens = tokens.data();
  item.tokens_count = tokens.size();
  item.logits = logits.data();
  item.logits_count = logits.size();
  EXPECT_EQ(wkv_model_step(model, &item, 1, &failure), WKV_OK) << failure.message;
  return logits;
}

// The kernel sets that work on this machine, best first.
inline std::vector<std::string> usable_kernels() {
  wkv_device_info info{};
  info.struct_size = sizeof info;
  EXPECT_EQ(wkv_device_get_info(0, &info, nullptr), WKV_OK);
  std::vector<std::string> names;
  std::string list = info.kernels;
  for (size_t begin = 0; begin <= list.size();) {
    size_t end = std::min(list.find(',', begin), list.size());
    if (end > begin) names.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

// Whether a model can be loaded onto a CUDA device here.
inline bool has_cuda() {
  for (size_t i = 1; i < wkv_device_count(); i++) {
    wkv_device_info info{};
    info.struct_size = sizeof info;
    if (wkv_device_get_info(i, &info, nullptr) == WKV_OK && info.is_usable) return true;
  }
  return false;
}

// `kernels` is a kernel set, or "cuda": whether models can run with it here.
inline bool can_run(const std::string &kernels) {
  if (kernels == "cuda") return has_cuda();
  const std::vector<std::string> usable = usable_kernels();
  return std::find(usable.begin(), usable.end(), kernels) != usable.end();
}

inline void choose(wkv_model_options &options, const char *kernels) {
  if (kernels && std::string(kernels) == "cuda")
    options.device = "cuda";
  else
    options.kernels = kernels;
}

// Largest |a - b|; infinite when a value is not a number or the sizes differ, so that a comparison with a bound fails.
inline double largest_difference(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 0;
  for (size_t i = 0; i < a.size(); i++) {
    double difference = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(difference <= largest)) largest = std::isnan(difference) ? INFINITY : difference;
  }
  return largest;
}

inline double root_mean_square(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size() || a.empty()) return INFINITY;
  double sum = 0;
  for (size_t i = 0; i < a.size(); i++) {
    double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return std::sqrt(sum / static_cast<double>(a.size()));
}

inline std::string type_name(wkv_type type) {
  const char *names[] = {"stored", "F32", "F16", "BF16", "Q8", "Q4"};
  return names[type];
}

// A name that a parameterised test may have.
inline std::string plain_name(std::string text) {
  for (char &c : text)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return text;
}

// Random token ids, the same for the same seed on every platform.
inline std::vector<int32_t> random_tokens(size_t count, int32_t vocab_size, uint64_t seed) {
  std::vector<int32_t> tokens(count);
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 0x632be59bd9b4e019u;
  for (int32_t &token : tokens) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocab_size));
  }
  return tokens;
}

}  // namespace libwkv::test
