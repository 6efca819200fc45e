// SPDX-License-Identifier: Apache-2.0
/** @file wkv.hpp
 *  The C++17 face of wkv.h: handles that release themselves, exceptions instead of statuses, vectors and string views
 *  instead of pointers with counts. Header-only and thin: every member is one or two calls of the C functions, whose
 *  headers are the manual.
 *
 *      wkv::Model model = wkv::Model::load("rwkv7-g1-0.4b.gguf");
 *      wkv::Cache cache(model);
 *      wkv::SamplerOptions sampling;
 *      sampling.temperature = 0.8f;
 *      wkv::Sampler sampler(sampling);
 *      wkv::GenerationOptions options;
 *      options.prompt = "Once upon a time";
 *      for (const wkv::Piece &piece : wkv::Generation(cache, sampler, options)) std::cout << piece.text << std::flush;
 *
 *  Handles move and do not copy; Cache::copy makes a fork on purpose. A moved-from handle may only be destroyed or
 *  assigned to. Thread rules are those of the C functions. */
#ifndef WKV_WKV_HPP
#define WKV_WKV_HPP

#include <wkv/wkv.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wkv {

/** Every failure: the status and the library's one line of text. */
class Error : public std::runtime_error {
 public:
  Error(wkv_status status, const std::string &message) : std::runtime_error(message), status_(status) {}
  wkv_status status() const noexcept { return status_; }
  const char *status_name() const noexcept { return wkv_status_name(status_); }

 private:
  wkv_status status_;
};

/** Borrowed numbers: a pointer and a count, made from a vector, a braced list or the two themselves. */
template <class T>
class View {
 public:
  View() = default;
  View(const T *data, size_t size) : data_(data), size_(size) {}
  View(const std::vector<T> &values) : data_(values.data()), size_(values.size()) {}
  /** The list lives as long as the call it is an argument of: do not keep such a view. */
  View(std::initializer_list<T> values) : size_(values.size()) { data_ = values.begin(); }
  const T *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const T *data_ = nullptr;
  size_t size_ = 0;
};
using Tokens = View<int32_t>;

/** Called while loading, converting (bytes) or stepping (tokens); returning false cancels. May throw: the exception
 * comes out of the call. */
using Progress = std::function<bool(uint64_t done, uint64_t total)>;

namespace detail {

// Calls body(error) and throws what it reports. Gives the status back, which is WKV_OK or WKV_END.
template <class Body>
wkv_status check(Body &&body) {
  wkv_error error{};
  error.struct_size = sizeof error;
  const wkv_status status = body(&error);
  if (status < 0) throw Error(status, error.message[0] ? error.message : wkv_status_name(status));
  return status;
}

template <class Handle, void (*release)(Handle *)>
struct Releaser {
  void operator()(Handle *handle) const noexcept { release(handle); }
};
template <class Handle, void (*release)(Handle *)>
using Owned = std::unique_ptr<Handle, Releaser<Handle, release>>;

// A C struct with its size filled in; everything else zero, which means default.
template <class Struct>
struct Sized : Struct {
  Sized() : Struct{} { this->struct_size = sizeof(Struct); }
};

struct SaveOptions : Sized<wkv_save_options> {
  explicit SaveOptions(wkv_type type) { state_type = type; }
};

// The bytes of a call that tells their number first.
template <class Call>
std::vector<std::byte> filled(Call &&call) {
  size_t count = 0;
  check([&](wkv_error *error) { return call(nullptr, 0, &count, error); });
  std::vector<std::byte> bytes(count);
  check([&](wkv_error *error) { return call(bytes.data(), bytes.size(), &count, error); });
  return bytes;
}

// Carries a Progress through the C callback, and an exception out of it.
class ProgressBridge {
 public:
  explicit ProgressBridge(const Progress &progress) : progress_(progress) {}
  template <class Options>
  void connect(Options &options) {
    if (!progress_) return;
    options.progress = call;
    options.progress_user = this;
  }
  template <class Body>
  void run(Body &&body) {
    thrown_ = nullptr;
    try {
      check(body);
    } catch (const Error &) {
      if (thrown_) std::rethrow_exception(thrown_);
      throw;
    }
  }

 private:
  static int32_t call(void *user, uint64_t done_bytes, uint64_t total_bytes) {
    ProgressBridge &self = *static_cast<ProgressBridge *>(user);
    try {
      return self.progress_(done_bytes, total_bytes) ? 0 : 1;
    } catch (...) {
      self.thrown_ = std::current_exception();
      return 1;
    }
  }
  const Progress &progress_;
  std::exception_ptr thrown_;
};

}  // namespace detail

using ModelOptions = detail::Sized<wkv_model_options>;
using ModelInfo = detail::Sized<wkv_model_info>;
using MemoryInfo = detail::Sized<wkv_memory_info>;
using MemoryPlan = detail::Sized<wkv_memory_plan>;
using InitialStateInfo = detail::Sized<wkv_initial_state_info>;
using CacheInfo = detail::Sized<wkv_cache_info>;
using BlobInfo = detail::Sized<wkv_blob_info>;
using CacheOptions = detail::Sized<wkv_cache_options>;
using PrefixStoreOptions = detail::Sized<wkv_prefix_store_options>;
using PrefixStoreInfo = detail::Sized<wkv_prefix_store_info>;
/** The host's own storage, for PrefixStoreOptions::storage. */
using PrefixStorage = detail::Sized<wkv_prefix_storage>;
using TokenizerInfo = detail::Sized<wkv_tokenizer_info>;
using DeviceInfo = detail::Sized<wkv_device_info>;
using ConvertOptions = detail::Sized<wkv_convert_options>;
/** One row of Model::step. */
using StepItem = detail::Sized<wkv_step_item>;

/** All devices of this process; the first is the CPU. */
inline std::vector<DeviceInfo> devices() {
  std::vector<DeviceInfo> all(wkv_device_count());
  for (size_t i = 0; i < all.size(); i++)
    detail::check([&](wkv_error *error) { return wkv_device_get_info(i, &all[i], error); });
  return all;
}

/** Bytes to token ids and back; see tokenizer.h. */
class Tokenizer {
 public:
  static Tokenizer load(const std::string &path) {
    return make([&](wkv_tokenizer **out, wkv_error *error) { return wkv_tokenizer_load(path.c_str(), out, error); });
  }
  static Tokenizer load_memory(std::string_view bytes) {
    return make([&](wkv_tokenizer **out, wkv_error *error) {
      return wkv_tokenizer_load_memory(bytes.data(), bytes.size(), out, error);
    });
  }

  TokenizerInfo info() const {
    TokenizerInfo info;
    detail::check([&](wkv_error *error) { return wkv_tokenizer_get_info(handle(), &info, error); });
    return info;
  }
  std::vector<int32_t> encode(std::string_view text) const {
    std::vector<int32_t> tokens(text.size());  // a token has at least one byte
    size_t count = 0;
    detail::check([&](wkv_error *error) {
      return wkv_tokenizer_encode(handle(), text.data(), text.size(), tokens.data(), tokens.size(), &count, error);
    });
    tokens.resize(count);
    return tokens;
  }
  std::string decode(Tokens tokens) const {
    size_t bytes = 0;
    // an empty text needs no room, so that the first call may well succeed
    wkv_tokenizer_decode(handle(), tokens.data(), tokens.size(), nullptr, 0, &bytes, nullptr);
    std::string text(bytes, '\0');
    detail::check([&](wkv_error *error) {
      return wkv_tokenizer_decode(handle(), tokens.data(), tokens.size(), text.data(), text.size(), &bytes, error);
    });
    return text;
  }

  wkv_tokenizer *handle() const { return handle_.get(); }

 private:
  friend class Model;
  template <class Load>
  static Tokenizer make(Load &&load) {
    wkv_tokenizer *handle = nullptr;
    detail::check([&](wkv_error *error) { return load(&handle, error); });
    return Tokenizer(handle);
  }
  explicit Tokenizer(wkv_tokenizer *handle) : handle_(handle) {}
  detail::Owned<wkv_tokenizer, wkv_tokenizer_release> handle_;
};

/** Text out of tokens that arrive one by one, never split inside a character. */
class Decoder {
 public:
  explicit Decoder(const Tokenizer &tokenizer) {
    wkv_decoder *handle = nullptr;
    detail::check([&](wkv_error *error) { return wkv_decoder_create(tokenizer.handle(), &handle, error); });
    handle_.reset(handle);
  }
  /** The text is valid until the next call. */
  std::string_view push(int32_t token) {
    return text([&](const char **text, size_t *bytes, wkv_error *error) {
      return wkv_decoder_push(handle_.get(), token, text, bytes, error);
    });
  }
  std::string_view finish() {
    return text([&](const char **text, size_t *bytes, wkv_error *error) {
      return wkv_decoder_finish(handle_.get(), text, bytes, error);
    });
  }
  wkv_decoder *handle() const { return handle_.get(); }

 private:
  template <class Call>
  static std::string_view text(Call &&call) {
    const char *text = nullptr;
    size_t bytes = 0;
    detail::check([&](wkv_error *error) { return call(&text, &bytes, error); });
    return {text, bytes};
  }
  detail::Owned<wkv_decoder, wkv_decoder_release> handle_;
};

/** The weights of a checkpoint; see model.h. */
class Model {
 public:
  /** A progress function given here takes the place of the one in options. */
  static Model load(const std::string &path, const ModelOptions &options = {}, const Progress &progress = {}) {
    return make(options, progress, [&](const wkv_model_options *all, wkv_model **out, wkv_error *error) {
      return wkv_model_load(path.c_str(), all, out, error);
    });
  }
  /** The bytes are not copied: they must outlive the model and everything made from it. */
  static Model load_memory(const void *bytes, size_t bytes_count, const ModelOptions &options = {},
                           const Progress &progress = {}) {
    return make(options, progress, [&](const wkv_model_options *all, wkv_model **out, wkv_error *error) {
      return wkv_model_load_memory(bytes, bytes_count, all, out, error);
    });
  }

  /** What loading and running it will need; the fields that ask come with `plan`. */
  static MemoryPlan plan_memory(const std::string &path, MemoryPlan plan = {}, const ModelOptions &options = {}) {
    detail::check([&](wkv_error *error) { return wkv_model_plan_memory(path.c_str(), &options, &plan, error); });
    return plan;
  }

  ModelInfo info() const {
    ModelInfo info;
    detail::check([&](wkv_error *error) { return wkv_model_get_info(handle(), &info, error); });
    return info;
  }
  MemoryInfo memory() const {
    MemoryInfo info;
    detail::check([&](wkv_error *error) { return wkv_model_get_memory(handle(), &info, error); });
    return info;
  }
  /** The vocabulary that came with the model; throws WKV_NOT_FOUND when there is none (info().has_tokenizer). */
  Tokenizer tokenizer() const {
    return Tokenizer::make(
        [&](wkv_tokenizer **out, wkv_error *error) { return wkv_model_get_tokenizer(handle(), out, error); });
  }
  /** Feeds several caches at once; see step.h. On failure each item's status tells whether it was at fault. */
  void step(StepItem *items, size_t items_count) {
    static_assert(sizeof(StepItem) == sizeof(wkv_step_item), "an array of StepItem is one of wkv_step_item");
    detail::check([&](wkv_error *error) { return wkv_model_step(handle(), items, items_count, error); });
  }
  void step(std::vector<StepItem> &items) { step(items.data(), items.size()); }
  /** The same, followed by progress, in tokens; returning false cancels (WKV_CANCELLED), and nothing has changed. */
  void step(std::vector<StepItem> &items, const Progress &progress) {
    detail::Sized<wkv_step_options> options;
    detail::ProgressBridge bridge(progress);
    bridge.connect(options);
    bridge.run([&](wkv_error *error) {
      return wkv_model_step_watched(handle(), items.data(), items.size(), &options, error);
    });
  }

  wkv_model *handle() const { return handle_.get(); }

 private:
  template <class Load>
  static Model make(const ModelOptions &options, const Progress &progress, Load &&load) {
    ModelOptions all = options;
    detail::ProgressBridge bridge(progress);
    bridge.connect(all);
    wkv_model *handle = nullptr;
    bridge.run([&](wkv_error *error) { return load(&all, &handle, error); });
    return Model(handle);
  }
  explicit Model(wkv_model *handle) : handle_(handle) {}
  detail::Owned<wkv_model, wkv_model_release> handle_;
};

/** A tuned state that caches may start from; see initial_state.h. */
class InitialState {
 public:
  static InitialState load(const Model &model, const std::string &path,
                           wkv_time_state_order order = WKV_TIME_STATE_KEY_FIRST) {
    detail::Sized<wkv_initial_state_options> options;
    options.order = order;
    wkv_initial_state *handle = nullptr;
    detail::check([&](wkv_error *error) {
      return wkv_initial_state_load(model.handle(), path.c_str(), &options, &handle, error);
    });
    return InitialState(handle);
  }
  InitialStateInfo info() const {
    InitialStateInfo info;
    detail::check([&](wkv_error *error) { return wkv_initial_state_get_info(handle(), &info, error); });
    return info;
  }
  wkv_initial_state *handle() const { return handle_.get(); }

 private:
  explicit InitialState(wkv_initial_state *handle) : handle_(handle) {}
  detail::Owned<wkv_initial_state, wkv_initial_state_release> handle_;
};

/** The first part of a state with a number that is not finite; layer is -1 when there is none. */
struct BadPart {
  int32_t layer = -1;
  wkv_state_part part = WKV_STATE_ATT_SHIFT;
};

/** The recurrent state of one sequence; see cache.h and step.h. */
class Cache {
 public:
  explicit Cache(const Model &model, const CacheOptions &options = {}) : info_(model.info()) {
    wkv_cache *handle = nullptr;
    detail::check([&](wkv_error *error) { return wkv_cache_create(model.handle(), &options, &handle, error); });
    handle_.reset(handle);
  }

  /** An independent cache that has read the same. */
  Cache copy() const {
    wkv_cache *handle = nullptr;
    detail::check([&](wkv_error *error) { return wkv_cache_copy(this->handle(), &handle, error); });
    return Cache(handle, info_);
  }
  void assign(const Cache &source) {
    detail::check([&](wkv_error *error) { return wkv_cache_assign(handle(), source.handle(), error); });
  }
  void reset() {
    detail::check([&](wkv_error *error) { return wkv_cache_reset(handle(), error); });
  }
  // The state waits in the host's memory until the next use.
  void park() {
    detail::check([&](wkv_error *error) { return wkv_cache_park(handle(), error); });
  }
  CacheInfo info() const {
    CacheInfo info;
    detail::check([&](wkv_error *error) { return wkv_cache_get_info(handle(), &info, error); });
    return info;
  }

  /** Keeps a checkpoint here and gives its position. */
  uint64_t mark() {
    uint64_t position = 0;
    detail::check([&](wkv_error *error) { return wkv_cache_mark(handle(), &position, error); });
    return position;
  }
  void unmark(uint64_t position) {
    detail::check([&](wkv_error *error) { return wkv_cache_unmark(handle(), position, error); });
  }
  /** Back to a kept position; throws WKV_NOT_FOUND when it is not kept. */
  void rollback(uint64_t position) {
    detail::check([&](wkv_error *error) { return wkv_cache_rollback(handle(), position, error); });
  }
  std::vector<uint64_t> kept_positions() const {
    size_t count = 0;
    detail::check([&](wkv_error *error) { return wkv_cache_get_kept_positions(handle(), nullptr, 0, &count, error); });
    std::vector<uint64_t> positions(count);
    detail::check([&](wkv_error *error) {
      return wkv_cache_get_kept_positions(handle(), positions.data(), positions.size(), &count, error);
    });
    return positions;
  }

  /** Copies of caches chosen by index. */
  static std::vector<Cache> select(const std::vector<Cache> &caches, View<size_t> indices) {
    return copies(
        caches, indices.size(),
        [&](wkv_cache *const *all, wkv_cache **out, wkv_error *error) {
          return wkv_cache_select(all, caches.size(), indices.data(), out, indices.size(), error);
        },
        [&](size_t i) { return indices.data()[i]; });
  }
  /** `times` copies of each, next to each other. */
  static std::vector<Cache> repeat(const std::vector<Cache> &caches, size_t times) {
    return copies(
        caches, caches.size() * times,
        [&](wkv_cache *const *all, wkv_cache **out, wkv_error *error) {
          return wkv_cache_repeat(all, caches.size(), times, out, caches.size() * times, error);
        },
        [&](size_t i) { return i / times; });
  }
  /** caches[i] becomes what caches[sources[i]] was. */
  static void reorder(const std::vector<Cache> &caches, View<size_t> sources) {
    if (sources.size() != caches.size())
      throw Error(WKV_INVALID, "sources has " + std::to_string(sources.size()) + " numbers for " +
                                   std::to_string(caches.size()) + " caches");
    const std::vector<wkv_cache *> all = handles(caches);
    detail::check([&](wkv_error *error) { return wkv_cache_reorder(all.data(), sources.data(), all.size(), error); });
  }

  /** Feeds tokens and gives the scores of the last one, float32[vocab_size]. */
  std::vector<float> step(Tokens tokens) {
    std::vector<float> logits(static_cast<size_t>(info_.vocab_size));
    step(tokens, logits.data(), logits.size());
    return logits;
  }
  void step(Tokens tokens, float *logits, size_t logits_count) {
    detail::check([&](wkv_error *error) {
      return wkv_cache_step(handle(), tokens.data(), tokens.size(), logits, logits_count, error);
    });
  }
  /** Feeds tokens and computes no scores. */
  void feed(Tokens tokens) { step(tokens, nullptr, 0); }

  /** state_type: WKV_TYPE_F16 halves the size; see blob.h. */
  void save(const std::string &path, wkv_type state_type = WKV_TYPE_DEFAULT) const {
    const detail::SaveOptions options(state_type);
    detail::check([&](wkv_error *error) { return wkv_cache_save_as(handle(), path.c_str(), &options, error); });
  }
  std::vector<std::byte> serialize(wkv_type state_type = WKV_TYPE_DEFAULT) const {
    const detail::SaveOptions options(state_type);
    return detail::filled([&](void *bytes, size_t capacity, size_t *count, wkv_error *error) {
      return wkv_cache_serialize_as(handle(), &options, bytes, capacity, count, error);
    });
  }
  static Cache load(const Model &model, const std::string &path) {
    wkv_cache *handle = nullptr;
    detail::check([&](wkv_error *error) { return wkv_cache_load(model.handle(), path.c_str(), &handle, error); });
    return Cache(handle, model.info());
  }
  static Cache deserialize(const Model &model, const void *bytes, size_t bytes_count) {
    wkv_cache *handle = nullptr;
    detail::check(
        [&](wkv_error *error) { return wkv_cache_deserialize(model.handle(), bytes, bytes_count, &handle, error); });
    return Cache(handle, model.info());
  }
  /** What a blob says of itself; no model is needed. */
  static BlobInfo read_header(const std::string &path) {
    BlobInfo info;
    detail::check([&](wkv_error *error) { return wkv_cache_read_header(path.c_str(), &info, error); });
    return info;
  }
  static BlobInfo read_header(const void *bytes, size_t bytes_count) {
    BlobInfo info;
    detail::check([&](wkv_error *error) { return wkv_cache_read_header_memory(bytes, bytes_count, &info, error); });
    return info;
  }

  std::vector<float> read_state(int32_t layer, wkv_state_part part) const {
    const size_t width = static_cast<size_t>(info_.width);
    std::vector<float> values(part == WKV_STATE_WKV ? width * static_cast<size_t>(info_.head_size) : width);
    detail::check([&](wkv_error *error) {
      return wkv_cache_read_state(handle(), layer, part, values.data(), values.size(), error);
    });
    return values;
  }
  void write_state(int32_t layer, wkv_state_part part, View<float> values) {
    detail::check([&](wkv_error *error) {
      return wkv_cache_write_state(handle(), layer, part, values.data(), values.size(), error);
    });
  }
  BadPart check() const {
    BadPart bad;
    detail::check([&](wkv_error *error) { return wkv_cache_check(handle(), &bad.layer, &bad.part, error); });
    return bad;
  }

  /** A whole state as another engine lays it out. */
  std::vector<float> export_state(wkv_state_layout layout) const {
    const size_t width = static_cast<size_t>(info_.width), head_size = static_cast<size_t>(info_.head_size);
    std::vector<float> values(static_cast<size_t>(info_.layers) * width * (2 + head_size));
    detail::check(
        [&](wkv_error *error) { return wkv_cache_export(handle(), layout, values.data(), values.size(), error); });
    return values;
  }
  void import_state(wkv_state_layout layout, View<float> values, uint64_t position) {
    detail::check([&](wkv_error *error) {
      return wkv_cache_import(handle(), layout, values.data(), values.size(), position, error);
    });
  }

  wkv_cache *handle() const { return handle_.get(); }

 private:
  friend struct Session;
  Cache(wkv_cache *handle, const ModelInfo &info) : info_(info), handle_(handle) {}
  static std::vector<wkv_cache *> handles(const std::vector<Cache> &caches) {
    std::vector<wkv_cache *> all;
    for (const Cache &cache : caches) all.push_back(cache.handle());
    return all;
  }
  // `call` makes `count` copies; copy i is one of caches[source_of(i)].
  template <class Call, class SourceOf>
  static std::vector<Cache> copies(const std::vector<Cache> &caches, size_t count, Call &&call, SourceOf &&source_of) {
    const std::vector<wkv_cache *> all = handles(caches);
    std::vector<wkv_cache *> made(count);
    std::vector<Cache> result;
    result.reserve(count);
    detail::check([&](wkv_error *error) { return call(all.data(), made.data(), error); });
    for (size_t i = 0; i < count; i++) result.push_back(Cache(made[i], caches[source_of(i)].info_));
    return result;
  }
  ModelInfo info_;
  detail::Owned<wkv_cache, wkv_cache_release> handle_;
};

/** States of sequences that were read before, found by their tokens; see prefix_store.h. */
class PrefixStore {
 public:
  explicit PrefixStore(const Model &model, const PrefixStoreOptions &options = {}) {
    wkv_prefix_store *handle = nullptr;
    detail::check([&](wkv_error *error) { return wkv_prefix_store_create(model.handle(), &options, &handle, error); });
    handle_.reset(handle);
  }

  /** Puts the longest known beginning into the cache and gives its length; 0: none is known, the cache is as before. */
  size_t find(Tokens tokens, Cache &cache) {
    size_t known = 0;
    detail::check([&](wkv_error *error) {
      return wkv_prefix_store_find(handle(), tokens.data(), tokens.size(), cache.handle(), &known, error);
    });
    return known;
  }
  /** Keeps the state of a cache that has read exactly these tokens. */
  void put(Tokens tokens, const Cache &cache) {
    detail::check([&](wkv_error *error) {
      return wkv_prefix_store_put(handle(), tokens.data(), tokens.size(), cache.handle(), error);
    });
  }
  void clear() {
    detail::check([&](wkv_error *error) { return wkv_prefix_store_clear(handle(), error); });
  }
  PrefixStoreInfo info() const {
    PrefixStoreInfo info;
    detail::check([&](wkv_error *error) { return wkv_prefix_store_get_info(handle(), &info, error); });
    return info;
  }

  wkv_prefix_store *handle() const { return handle_.get(); }

 private:
  detail::Owned<wkv_prefix_store, wkv_prefix_store_release> handle_;
};

/** wkv_sampler_options with vectors; the fields mean what they mean there, zero is the default. */
struct SamplerOptions {
  bool is_greedy = false;
  uint64_t seed = 0;
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 0, min_p = 0, typical_p = 0;
  float repetition = 0, presence = 0, frequency = 0, penalty_decay = 0;
  int32_t ids_end = 0;
  std::vector<wkv_token_bias> biases;
  std::vector<int32_t> banned_tokens, exempt_tokens;
};

/** Chooses tokens from scores; see sampler.h. */
class Sampler {
 public:
  explicit Sampler(const SamplerOptions &options = {}) {
    detail::Sized<wkv_sampler_options> all;
    all.is_greedy = options.is_greedy ? 1 : 0;
    all.seed = options.seed;
    all.temperature = options.temperature;
    all.top_k = options.top_k;
    all.top_p = options.top_p;
    all.min_p = options.min_p;
    all.typical_p = options.typical_p;
    all.repetition = options.repetition;
    all.presence = options.presence;
    all.frequency = options.frequency;
    all.penalty_decay = options.penalty_decay;
    all.ids_end = options.ids_end;
    all.biases = options.biases.data();
    all.biases_count = options.biases.size();
    all.banned_tokens = options.banned_tokens.data();
    all.banned_tokens_count = options.banned_tokens.size();
    all.exempt_tokens = options.exempt_tokens.data();
    all.exempt_tokens_count = options.exempt_tokens.size();
    wkv_sampler *handle = nullptr;
    detail::check([&](wkv_error *error) { return wkv_sampler_create(&all, &handle, error); });
    handle_.reset(handle);
  }

  int32_t sample(View<float> logits) {
    int32_t token = 0;
    detail::check(
        [&](wkv_error *error) { return wkv_sampler_sample(handle(), logits.data(), logits.size(), &token, error); });
    return token;
  }
  void accept(int32_t token) {
    detail::check([&](wkv_error *error) { return wkv_sampler_accept(handle(), token, error); });
  }
  std::vector<float> probabilities(View<float> logits) const {
    std::vector<float> result(logits.size());
    detail::check([&](wkv_error *error) {
      return wkv_sampler_get_probabilities(handle(), logits.data(), logits.size(), result.data(), error);
    });
    return result;
  }
  void reset(uint64_t seed) {
    detail::check([&](wkv_error *error) { return wkv_sampler_reset(handle(), seed, error); });
  }

  wkv_sampler *handle() const { return handle_.get(); }

 private:
  friend struct Session;
  explicit Sampler(wkv_sampler *handle) : handle_(handle) {}
  detail::Owned<wkv_sampler, wkv_sampler_release> handle_;
};

/** wkv_generation_options with strings and vectors; the fields mean what they mean there, zero is the default. */
struct GenerationOptions {
  int32_t max_tokens = 0;
  const Tokenizer *tokenizer = nullptr; /* nullptr: the model's own */
  std::string prompt;
  std::vector<int32_t> prompt_tokens; /* fed before prompt */
  std::vector<int32_t> stop_tokens;
  std::vector<std::string> stop_strings;
  bool keeps_end_token = false;
  bool wants_log_probability = false;
  int32_t alternatives_count = 0;
  bool accepts_prompt = false;
  bool keeps_stop_string = false;
  const PrefixStore *prefix_store = nullptr;
  Progress progress; /* while the prompt is fed */
};

/** What a generation gives out; text and alternatives are valid until the generation goes on. */
struct Piece {
  int32_t token = -1;
  std::string_view text;
  wkv_reason reason = WKV_REASON_NONE;
  int32_t pending_token = -1;
  float log_probability = 0;
  View<wkv_token_probability> alternatives;
  int64_t tokens_generated = 0, prompt_tokens = 0, reused_tokens = 0;
  std::string_view unread_text; /* given out, and not read by the cache, after a stop string that was taken back */
};

/** Tokens and text, pulled one piece at a time: by next(), or by a range-for loop; see generation.h. */
class Generation {
 public:
  /** Greedy. */
  Generation(Cache &cache, const GenerationOptions &options) : Generation(cache.handle(), nullptr, options) {}
  Generation(Cache &cache, Sampler &sampler, const GenerationOptions &options)
      : Generation(cache.handle(), sampler.handle(), options) {}

  /** False when there is nothing more; piece is then the empty one. */
  bool next(Piece &piece) {
    detail::Sized<wkv_generation_piece> raw;
    wkv_status status = WKV_END;
    const auto call = [&](wkv_error *error) { return status = wkv_generation_next(handle(), &raw, error); };
    if (watch_)
      watch_->bridge.run(call);
    else
      detail::check(call);
    piece = Piece();
    if (status == WKV_END) return false;
    piece.token = raw.token;
    piece.text = {raw.text ? raw.text : "", raw.text_bytes};
    piece.reason = raw.reason;
    piece.pending_token = raw.pending_token;
    piece.log_probability = raw.log_probability;
    piece.alternatives = {raw.alternatives, static_cast<size_t>(raw.alternatives_count)};
    piece.tokens_generated = raw.tokens_generated;
    piece.prompt_tokens = raw.prompt_tokens;
    piece.reused_tokens = raw.reused_tokens;
    piece.unread_text = {raw.unread_text ? raw.unread_text : "", raw.unread_bytes};
    return true;
  }

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Piece;
    using difference_type = std::ptrdiff_t;
    using pointer = const Piece *;
    using reference = const Piece &;
    Iterator() = default;
    reference operator*() const { return piece_; }
    pointer operator->() const { return &piece_; }
    Iterator &operator++() {
      if (!generation_->next(piece_)) generation_ = nullptr;
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(const Iterator &other) const { return generation_ == other.generation_; }
    bool operator!=(const Iterator &other) const { return generation_ != other.generation_; }

   private:
    friend class Generation;
    explicit Iterator(Generation *generation) : generation_(generation) { ++*this; }
    Generation *generation_ = nullptr;
    Piece piece_;
  };
  /** Goes on from where the generation is: two loops over one generation share its pieces. */
  Iterator begin() { return Iterator(this); }
  Iterator end() { return {}; }

  wkv_generation *handle() const { return handle_.get(); }

 private:
  friend struct Session;
  explicit Generation(wkv_generation *handle) : handle_(handle) {}
  Generation(wkv_cache *cache, wkv_sampler *sampler, const GenerationOptions &options) {
    std::vector<const char *> stop_strings;
    for (const std::string &stop : options.stop_strings) stop_strings.push_back(stop.c_str());
    detail::Sized<wkv_generation_options> all;
    all.max_tokens = options.max_tokens;
    all.tokenizer = options.tokenizer ? options.tokenizer->handle() : nullptr;
    all.prompt = options.prompt.data();
    all.prompt_bytes = options.prompt.size();
    all.prompt_tokens = options.prompt_tokens.data();
    all.prompt_tokens_count = options.prompt_tokens.size();
    all.stop_tokens = options.stop_tokens.data();
    all.stop_tokens_count = options.stop_tokens.size();
    all.stop_strings = stop_strings.data();
    all.stop_strings_count = stop_strings.size();
    all.keeps_end_token = options.keeps_end_token ? 1 : 0;
    all.wants_log_probability = options.wants_log_probability ? 1 : 0;
    all.alternatives_count = options.alternatives_count;
    all.accepts_prompt = options.accepts_prompt ? 1 : 0;
    all.keeps_stop_string = options.keeps_stop_string ? 1 : 0;
    all.prefix_store = options.prefix_store ? options.prefix_store->handle() : nullptr;
    if (options.progress) {
      watch_ = std::make_unique<Watch>(options.progress);
      watch_->bridge.connect(all);
    }
    wkv_generation *handle = nullptr;
    detail::check([&](wkv_error *error) { return wkv_generation_create(cache, sampler, &all, &handle, error); });
    handle_.reset(handle);
  }
  // Stays where it is when the generation moves.
  struct Watch {
    explicit Watch(const Progress &function) : progress(function), bridge(progress) {}
    Progress progress;
    detail::ProgressBridge bridge;
  };
  std::unique_ptr<Watch> watch_;
  detail::Owned<wkv_generation, wkv_generation_release> handle_;
};

/** What to save as a session; see session.h. The cache may be left out with a generation, whose cache it then is. */
struct SessionParts {
  const Cache *cache = nullptr;
  const Sampler *sampler = nullptr;
  const Generation *generation = nullptr;
  View<float> logits;

  void save(const std::string &path, wkv_type state_type = WKV_TYPE_DEFAULT) const {
    const detail::Sized<wkv_session> session = parts();
    const detail::SaveOptions options(state_type);
    detail::check([&](wkv_error *error) { return wkv_session_save(&session, path.c_str(), &options, error); });
  }
  std::vector<std::byte> serialize(wkv_type state_type = WKV_TYPE_DEFAULT) const {
    const detail::Sized<wkv_session> session = parts();
    const detail::SaveOptions options(state_type);
    return detail::filled([&](void *bytes, size_t capacity, size_t *count, wkv_error *error) {
      return wkv_session_serialize(&session, &options, bytes, capacity, count, error);
    });
  }

 private:
  detail::Sized<wkv_session> parts() const {
    detail::Sized<wkv_session> session;
    session.cache = cache ? cache->handle() : nullptr;
    session.sampler = sampler ? sampler->handle() : nullptr;
    session.generation = generation ? generation->handle() : nullptr;
    session.logits = const_cast<float *>(logits.data());  // saving only reads
    session.logits_count = logits.size();
    return session;
  }
};

/** A session that goes on; see session.h. */
struct Session {
  Cache cache;
  std::optional<Sampler> sampler;
  std::optional<Generation> generation; /* uses cache and sampler */
  std::vector<float> logits;            /* empty: the session had none */

  /** tokenizer: of the generation; nullptr: the model's own. */
  static Session load(const Model &model, const std::string &path, const Tokenizer *tokenizer = nullptr) {
    return make(model, tokenizer, [&](wkv_session *session, wkv_error *error) {
      return wkv_session_load(model.handle(), path.c_str(), session, error);
    });
  }
  static Session deserialize(const Model &model, const void *bytes, size_t bytes_count,
                             const Tokenizer *tokenizer = nullptr) {
    return make(model, tokenizer, [&](wkv_session *session, wkv_error *error) {
      return wkv_session_deserialize(model.handle(), bytes, bytes_count, session, error);
    });
  }

 private:
  template <class Load>
  static Session make(const Model &model, const Tokenizer *tokenizer, Load &&load) {
    const ModelInfo info = model.info();
    std::vector<float> logits(static_cast<size_t>(info.vocab_size));
    detail::Sized<wkv_session> session;
    session.logits = logits.data();
    session.logits_count = logits.size();
    session.tokenizer = tokenizer ? tokenizer->handle() : nullptr;
    detail::check([&](wkv_error *error) { return load(&session, error); });
    Session made{Cache(session.cache, info), std::nullopt, std::nullopt, {}};
    if (session.sampler) made.sampler = Sampler(session.sampler);
    if (session.generation) made.generation = Generation(session.generation);
    if (session.has_logits) made.logits = std::move(logits);
    return made;
  }
};

/** Rewrites a checkpoint as one GGUF file; see convert.h. */
inline void convert(const std::string &source_path, const std::string &target_path, const ConvertOptions &options = {},
                    const Progress &progress = {}) {
  ConvertOptions all = options;
  detail::ProgressBridge bridge(progress);
  bridge.connect(all);
  bridge.run([&](wkv_error *error) { return wkv_convert(source_path.c_str(), target_path.c_str(), &all, error); });
}

}  // namespace wkv

#endif
