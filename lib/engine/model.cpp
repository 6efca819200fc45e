// SPDX-License-Identifier: Apache-2.0
#include "engine/model.h"

#include <algorithm>

#include "base/error.h"
#include "base/state_memory.h"
#include "engine/cpu_executor.h"
#include "engine/device_executor.h"
#include "engine/executor.h"
#include "engine/plugin.h"
#include "model/fingerprint.h"
#include "state/cache.h"
#include "text/tokenizer.h"

namespace libwkv {
namespace {

constexpr int default_chunk_tokens = 512, default_device_chunk_tokens = 4096;

template <size_t size>
void write_text(char (&field)[size], const std::string &text) {
  text.copy(field, size - 1);
}

// The types of the large matrices in the file, by bytes, largest first.
std::string stored_types(const formats::Checkpoint &checkpoint) {
  std::vector<std::pair<formats::StoredType, uint64_t>> totals;
  for (const auto &[name, tensor] : checkpoint.tensors) {
    if (tensor.rank != 2 || !name.ends_with(".weight")) continue;
    auto found = std::find_if(totals.begin(), totals.end(), [&](auto &total) { return total.first == tensor.type; });
    if (found == totals.end()) found = totals.insert(totals.end(), {tensor.type, 0});
    found->second += tensor.bytes.size();
  }
  std::stable_sort(totals.begin(), totals.end(), [](auto &a, auto &b) { return a.second > b.second; });
  std::string text;
  for (auto &[type, bytes] : totals) {
    if (!text.empty()) text += ", ";
    text += formats::name_of(type);
  }
  return text;
}

}  // namespace

void check_options(const LoadOptions &options) {
  if (options.threads < 0 || options.threads > 256)
    fail(WKV_INVALID, "threads is %d, expected 0 to 256", options.threads);
  if (options.chunk_tokens < 0 || options.chunk_tokens > 4096)
    fail(WKV_INVALID, "chunk_tokens is %d, expected 0 to 4096", options.chunk_tokens);
  if (options.weight_type < WKV_TYPE_DEFAULT || options.weight_type > WKV_TYPE_Q4)
    fail(WKV_INVALID, "weight_type %d does not exist", options.weight_type);
  if (options.state_type < WKV_TYPE_DEFAULT || options.state_type > WKV_TYPE_Q4)
    fail(WKV_INVALID, "state_type %d does not exist", options.state_type);
  if (options.state_type > WKV_TYPE_F16)
    fail(WKV_UNSUPPORTED, "state_type %d: states are F32 or F16", options.state_type);
  if (device_of(options) < 0) {
    if (options.state_type == WKV_TYPE_F16)
      fail(WKV_UNSUPPORTED, "state_type %d: the cpu keeps states in F32 only", options.state_type);
    select_kernels(options.kernels);
  } else if (!options.kernels.empty()) {
    fail(WKV_INVALID, "kernels is '%s', which are the cpu's, and the device is %s", options.kernels.c_str(),
         options.device.c_str());
  }
}

// Kernel sets are the CPU's: who names one wants the CPU.
int device_of(const LoadOptions &options) {
  const bool is_auto = options.device.empty() || options.device == "auto";
  return is_auto && !options.kernels.empty() ? -1 : resolve_device(options.device);
}

int chunk_tokens_of(const LoadOptions &options) {
  if (options.chunk_tokens) return options.chunk_tokens;
  return device_of(options) < 0 ? default_chunk_tokens : default_device_chunk_tokens;
}

Model::~Model() = default;

std::shared_ptr<Model> Model::load(formats::Checkpoint checkpoint, const LoadOptions &options) {
  std::shared_ptr<Model> model(new Model);
  check_options(options);
  model->hyper_ = derive_hyper_parameters(checkpoint);
  const HyperParameters &hyper = model->hyper_;
  model->account_ = std::make_shared<MemoryAccount>(options.memory_limit_bytes);
  const int device = device_of(options);
  if (device < 0) {
    CpuOptions cpu{options.threads, options.kernels, options.weight_type, options.is_reproducible};
    model->executor_ = std::make_unique<CpuExecutor>(checkpoint, hyper, cpu, model->account_, options.progress);
  } else {
    const DeviceModelOptions on_device{device,
                                       options.threads,
                                       options.weight_type,
                                       options.state_type == WKV_TYPE_F16,
                                       options.is_reproducible,
                                       options.parking_limit_bytes};
    model->executor_ =
        std::make_unique<DeviceExecutor>(checkpoint, hyper, on_device, model->account_, options.progress);
  }
  if (!checkpoint.vocabulary.empty()) {
    model->tokenizer_ = std::make_shared<const Tokenizer>(checkpoint.vocabulary);
    int64_t end = std::min<int64_t>(model->tokenizer_->ids_end(), hyper.vocab_size);
    model->ids_without_bytes_ = model->tokenizer_->ids_without_bytes(static_cast<int32_t>(end));
  }

  wkv_model_info &info = model->info_;
  info.layers = static_cast<int32_t>(hyper.layers);
  info.width = static_cast<int32_t>(hyper.width);
  info.heads = static_cast<int32_t>(hyper.heads);
  info.head_size = static_cast<int32_t>(hyper.head_size);
  info.ffn_width = static_cast<int32_t>(hyper.ffn_width);
  info.vocab_size = static_cast<int32_t>(hyper.vocab_size);
  info.rank_w = static_cast<int32_t>(hyper.rank_w);
  info.rank_a = static_cast<int32_t>(hyper.rank_a);
  info.rank_v = static_cast<int32_t>(hyper.rank_v);
  info.rank_g = static_cast<int32_t>(hyper.rank_g);
  info.state_type = device >= 0 && options.state_type == WKV_TYPE_F16 ? WKV_TYPE_F16 : WKV_TYPE_F32;
  info.has_tokenizer = model->tokenizer_ != nullptr;
  info.is_reproducible = options.is_reproducible;
  info.chunk_tokens = chunk_tokens_of(options);
  for (const auto &[name, tensor] : checkpoint.tensors) info.parameters += static_cast<uint64_t>(tensor.values());
  const StateMemory *states = model->account_->state_memory();
  info.state_bytes = states ? states->bytes() : StateLayout(hyper).bytes();
  info.fingerprint = fingerprint(checkpoint, hyper);
  ExecutorInfo executor = model->executor_->info();
  info.threads = executor.threads;
  info.weight_bytes = executor.weight_bytes;
  info.mapped_bytes = executor.mapped_bytes;
  info.step_bytes = executor.step_bytes;
  write_text(info.format, checkpoint.format);
  write_text(info.stored_types, stored_types(checkpoint));
  write_text(info.compute_types, executor.compute_types);
  write_text(info.device, executor.device);
  write_text(info.kernels, executor.kernels);
  if (device < 0) model->files_ = std::move(checkpoint.files);  // a device has its own copy of everything
  return model;
}

StateTensor Model::state_tensor(const Cache &cache, int64_t layer, wkv_state_part part) const {
  if (!executor_->is_on_device())
    fail(WKV_UNSUPPORTED, "the model is on the cpu: wkv_cache_read_state reads its states");
  if (layer < 0 || layer >= hyper_.layers)
    fail(WKV_INVALID, "layer %lld is outside the model's %lld layers", static_cast<long long>(layer),
         static_cast<long long>(hyper_.layers));
  (void)cache.part_values(part);
  if (!cache.now().state) fail(WKV_NOT_FOUND, "the state is all zero and has no memory yet");
  return executor_->state_tensor(cache.now().state, layer, part);
}

void *Model::queue() const {
  if (!executor_->is_on_device()) fail(WKV_UNSUPPORTED, "the model is on the cpu");
  return executor_->queue();
}

uint64_t Model::parked_bytes() const {
  const StateMemory *states = account_->state_memory();
  return states ? states->parked_bytes() : 0;
}

std::shared_ptr<Cache> Model::create_cache(CacheOptions options) const {
  return std::make_shared<Cache>(hyper_, account_, std::move(options));
}

}  // namespace libwkv
