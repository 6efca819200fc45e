// SPDX-License-Identifier: Apache-2.0
// A loaded model: weights, the executor that runs them, and what belongs to them. Shared by its caches.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <wkv/model.h>
#include <wkv/step.h>

#include "base/memory.h"
#include "formats/checkpoint.h"
#include "model/hyper_parameters.h"
#include "state/cache.h"

namespace libwkv {

namespace kernels {
struct DeviceAheadStep;
}
class Executor;
struct StateTensor;
struct SamplerChoice;
struct SamplerLimits;
class Sampler;
class Tokenizer;

struct LoadOptions {
  int threads = 0;
  std::string device;
  wkv_type weight_type = WKV_TYPE_DEFAULT;
  wkv_type state_type = WKV_TYPE_DEFAULT;
  uint64_t memory_limit_bytes = 0;
  std::function<bool(uint64_t done_bytes, uint64_t total_bytes)> progress;  // true cancels; may be empty
  std::string kernels;
  bool is_reproducible = false;
  int chunk_tokens = 0;
  uint64_t parking_limit_bytes = 0;
};

// Throws for options that no model can be loaded with.
void check_options(const LoadOptions &options);
// Where the model goes: -1 is the CPU, else a CUDA device. Throws as resolve_device.
int device_of(const LoadOptions &options);
// Rows that go through the layers together.
int chunk_tokens_of(const LoadOptions &options);

// One sequence of a batch step; pointers as in wkv_step_item, already checked for NULL.
struct StepItem {
  Cache *cache = nullptr;
  std::span<const int32_t> tokens;
  float *logits = nullptr;
  float *device_logits = nullptr;  // in place of logits: memory of the executor's device
  size_t logits_count = 0;
  bool wants_all_logits = false;
  bool keeps_all_states = false;
  Sampler *sampler = nullptr;
  int32_t *next_token = nullptr;
  const SamplerLimits *limits = nullptr;  // for sampler; NULL: the model's own
  SamplerChoice *choice = nullptr;  // the choice goes here and the sampler, which the caller holds, stays as it is
  const char *fault = nullptr;      // what the caller of step found wrong with the item, with its status; NULL: nothing
  wkv_status status = WKV_OK;
};

// Follows a step; NULL progress: nothing. Non-zero cancels.
struct StepWatch {
  int32_t (*progress)(void *user, uint64_t done_tokens, uint64_t total_tokens) = nullptr;
  void *user = nullptr;
};

// Memory of a chunk of a step for scores that only samplers see, of `sampled` items in it.
inline uint64_t unseen_logits_bytes(int64_t vocab, int64_t sampled) {
  return static_cast<uint64_t>(sampled) * static_cast<uint64_t>(vocab) * sizeof(float);
}

class Model {
 public:
  // Takes the checkpoint's mapped files over. Throws Error.
  static std::shared_ptr<Model> load(formats::Checkpoint checkpoint, const LoadOptions &options);
  ~Model();

  const HyperParameters &hyper_parameters() const { return hyper_; }
  const wkv_model_info &info() const { return info_; }
  MemoryAccount::Snapshot memory() const { return account_->snapshot(); }
  uint64_t parked_bytes() const;
  // NULL when the file carries no vocabulary.
  std::shared_ptr<const Tokenizer> tokenizer() const { return tokenizer_; }

  const std::shared_ptr<MemoryAccount> &account() const { return account_; }
  std::shared_ptr<Cache> create_cache(CacheOptions options = {}) const;

  // Where a part of a cache's state lies on the device. Expects the caller to hold the cache.
  StateTensor state_tensor(const Cache &cache, int64_t layer, wkv_state_part part) const;
  // The device's queue of the model's work. Throws WKV_UNSUPPORTED on the CPU.
  void *queue() const;

  // Whether a sampler's choices are made where the scores are, so that these need not travel.
  bool chooses_on_device(const Sampler &sampler) const;

  // Advances the caches. Checks every item before it changes anything; on failure throws Error for the first item at
  // fault, with each item's own status set, and nothing has changed. Throws WKV_CANCELLED when watch says so. Any
  // thread.
  void step(std::span<StepItem> items, const StepWatch &watch = {});

  // Steps that are begun before the host knows their token, in chains (RunAhead). A step with a token begins a chain,
  // and ends the one that was; one without goes on with its chain. The number of the chain; 0: it could not be started.
  uint64_t start_ahead(const kernels::DeviceAheadStep &step, uint64_t chain);
  // False: the chain has ended, or the device failed. Waits.
  bool finish_ahead(uint64_t chain, int32_t *token);

 private:
  Model() = default;
  std::vector<std::shared_ptr<const Mapping>> files_;
  HyperParameters hyper_;
  wkv_model_info info_{};
  std::shared_ptr<MemoryAccount> account_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<int32_t> ids_without_bytes_;  // of tokenizer_: samplers of a step never choose them
  std::unique_ptr<Executor> executor_;
  uint64_t chains_ = 0, chain_ = 0;  // begun so far, and going on (0: none); under the executor's lock
};

}  // namespace libwkv
