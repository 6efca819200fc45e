// SPDX-License-Identifier: Apache-2.0
#include "engine/model.h"

#include <algorithm>
#include <mutex>

#include "base/error.h"
#include "engine/cpu_executor.h"
#include "engine/executor.h"
#include "model/fingerprint.h"
#include "state/cache.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

namespace libwkv {
namespace {

constexpr int default_chunk_tokens = 512;

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

// Caches and samplers that a step has taken; given back when it ends.
class Taken {
 public:
  ~Taken() {
    for (BusyFlag *flag : flags_) flag->release();
  }
  void reserve(size_t count) { flags_.reserve(count); }
  // False when it is not free; has() tells whether this very step has it.
  bool take(BusyFlag &flag) {
    if (!flag.try_acquire()) return false;
    flags_.push_back(&flag);
    return true;
  }
  bool has(const BusyFlag &flag) const { return std::find(flags_.begin(), flags_.end(), &flag) != flags_.end(); }

 private:
  std::vector<BusyFlag *> flags_;
};

}  // namespace

Model::~Model() = default;

std::shared_ptr<Model> Model::load(formats::Checkpoint checkpoint, const LoadOptions &options) {
  std::shared_ptr<Model> model(new Model);
  if (options.threads < 0 || options.threads > 256)
    fail(WKV_INVALID, "threads is %d, expected 0 to 256", options.threads);
  if (options.chunk_tokens < 0 || options.chunk_tokens > 4096)
    fail(WKV_INVALID, "chunk_tokens is %d, expected 0 to 4096", options.chunk_tokens);
  if (options.weight_type < WKV_TYPE_DEFAULT || options.weight_type > WKV_TYPE_Q4)
    fail(WKV_INVALID, "weight_type %d does not exist", options.weight_type);
  if (options.state_type < WKV_TYPE_DEFAULT || options.state_type > WKV_TYPE_Q4)
    fail(WKV_INVALID, "state_type %d does not exist", options.state_type);
  if (options.state_type > WKV_TYPE_F32)
    fail(WKV_UNSUPPORTED, "state_type %d: the cpu keeps states in F32 only", options.state_type);
  if (options.device != "" && options.device != "auto" && options.device != "cpu")
    fail(WKV_NOT_FOUND, "device '%s' is not present; this build has cpu", options.device.c_str());
  select_kernels(options.kernels);

  model->hyper_ = derive_hyper_parameters(checkpoint);
  const HyperParameters &hyper = model->hyper_;
  model->account_ = std::make_shared<MemoryAccount>(options.memory_limit_bytes);
  CpuOptions cpu{options.threads, options.kernels, options.weight_type, options.is_reproducible};
  model->executor_ = std::make_unique<CpuExecutor>(checkpoint, hyper, cpu, model->account_, options.progress);
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
  info.state_type = WKV_TYPE_F32;
  info.has_tokenizer = model->tokenizer_ != nullptr;
  info.is_reproducible = options.is_reproducible;
  info.chunk_tokens = options.chunk_tokens ? options.chunk_tokens : default_chunk_tokens;
  for (const auto &[name, tensor] : checkpoint.tensors) info.parameters += static_cast<uint64_t>(tensor.values());
  info.state_bytes = StateLayout(hyper).floats * sizeof(float);
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
  model->files_ = std::move(checkpoint.files);
  return model;
}

std::shared_ptr<Cache> Model::create_cache() const { return std::make_shared<Cache>(hyper_, account_); }

void Model::step(std::span<StepItem> items) {
  size_t vocab = static_cast<size_t>(hyper_.vocab_size);
  Taken taken;
  taken.reserve(2 * items.size());
  for (StepItem &item : items) item.status = WKV_OK;

  // Every check, and everything that can be refused, before anything changes.
  for (size_t i = 0; i < items.size(); i++) {
    StepItem &item = items[i];
    try {
      if (item.tokens.empty()) continue;
      if (item.cache->account() != account_) fail(WKV_MISMATCH, "item %zu: the cache belongs to another model", i);
      for (int32_t token : item.tokens)
        if (token < 0 || static_cast<size_t>(token) >= vocab)
          fail(WKV_INVALID, "token %d is outside the vocabulary of %zu", token, vocab);
      if (item.logits) {
        size_t rows = item.wants_all_logits ? item.tokens.size() : 1;
        if (item.logits_count / vocab < rows)
          fail(WKV_INVALID, "logits_count is %zu, needed are %zu rows of %zu", item.logits_count, rows, vocab);
      }
      if (item.sampler && !item.next_token) fail(WKV_INVALID, "item %zu: next_token is NULL", i);
      if (!taken.take(item.cache->busy())) {
        if (taken.has(item.cache->busy())) fail(WKV_INVALID, "item %zu: the same cache stands in an earlier item", i);
        fail(WKV_BUSY, "the cache is in use by another call");
      }
      if (item.sampler && !taken.take(item.sampler->busy())) {
        if (taken.has(item.sampler->busy()))
          fail(WKV_INVALID, "item %zu: the same sampler stands in an earlier item", i);
        fail(WKV_BUSY, "the sampler is in use by another call");
      }
    } catch (const Error &error) {
      item.status = error.status();
      throw;
    }
  }

  std::lock_guard lock(*executor_);
  for (const auto &file : files_) file->check_length();

  // Cut the rows of all items into chunks: an item may span chunks, and a chunk many items.
  size_t rows_total = 0, logits_total = 0, rows_limit = static_cast<size_t>(info_.chunk_tokens);
  for (const StepItem &item : items) {
    rows_total += item.tokens.size();
    if (!item.tokens.empty() && (item.logits || item.sampler))
      logits_total += item.logits && item.wants_all_logits ? item.tokens.size() : 1;
  }
  if (rows_total == 0) return;
  size_t chunk_rows = std::min(rows_limit, rows_total);
  std::vector<int32_t> tokens;
  std::vector<Segment> segments;
  std::vector<LogitsRow> logits;
  std::vector<StepItem *> finished;  // items with a sampler whose last row is in the chunk
  tokens.reserve(chunk_rows);
  segments.reserve(std::min(chunk_rows, items.size()));
  logits.reserve(std::min(chunk_rows, logits_total));
  finished.reserve(std::min(chunk_rows, items.size()));
  // Scores that only a sampler will see.
  size_t unseen = static_cast<size_t>(std::count_if(items.begin(), items.end(), [](const StepItem &item) {
    return item.sampler && !item.logits && !item.tokens.empty();
  }));
  Buffer unseen_logits(account_, MemoryKind::workspace, std::min(unseen, chunk_rows) * vocab * sizeof(float));
  std::vector<float *> last_logits;  // of `finished`
  last_logits.reserve(std::min(chunk_rows, items.size()));
  executor_->reserve(static_cast<int64_t>(chunk_rows), static_cast<int64_t>(std::min(chunk_rows, logits_total)));

  SamplerLimits limits{tokenizer_ ? tokenizer_->ids_end() : 0, ids_without_bytes_};
  for (size_t i = 0, at = 0; i < items.size();) {  // `at`: tokens of item i that are done
    tokens.clear(), segments.clear(), logits.clear(), finished.clear(), last_logits.clear();
    size_t unseen_rows = 0;
    while (i < items.size() && tokens.size() < chunk_rows) {
      StepItem &item = items[i];
      size_t count = std::min(item.tokens.size() - at, chunk_rows - tokens.size());
      if (count > 0) {
        int64_t begin = static_cast<int64_t>(tokens.size()), end = begin + static_cast<int64_t>(count);
        segments.push_back({item.cache->state(), begin, end});
        tokens.insert(tokens.end(), item.tokens.begin() + static_cast<ptrdiff_t>(at),
                      item.tokens.begin() + static_cast<ptrdiff_t>(at + count));
        item.cache->position += count;
        item.cache->last_token = tokens.back();
        bool is_last = at + count == item.tokens.size();
        if (item.logits && item.wants_all_logits) {
          for (size_t r = 0; r < count; r++)
            logits.push_back({begin + static_cast<int64_t>(r), item.logits + (at + r) * vocab});
        } else if (is_last && (item.logits || item.sampler)) {
          logits.push_back({end - 1, item.logits ? item.logits : unseen_logits.as<float>() + unseen_rows++ * vocab});
        }
        if (is_last && item.sampler) {
          finished.push_back(&item);
          last_logits.push_back(logits.back().logits);
        }
        at += count;
      }
      if (at == item.tokens.size()) i++, at = 0;
    }
    executor_->run({tokens, segments, logits});
    auto sample = [&](size_t f) {
      StepItem &item = *finished[f];
      try {
        Sampler::Choice choice = item.sampler->choose({last_logits[f], vocab}, limits);
        item.sampler->commit(choice);
        *item.next_token = choice.token;
      } catch (const Error &error) {
        *item.next_token = -1;
        item.status = error.status();
      } catch (...) {
        *item.next_token = -1;
        item.status = WKV_OUT_OF_MEMORY;
      }
    };
    executor_->parallel(
        finished.size(), [](void *context, size_t index) { (*static_cast<decltype(sample) *>(context))(index); },
        &sample);
  }
  for (size_t i = 0; i < items.size(); i++)
    if (items[i].status != WKV_OK) fail(items[i].status, "item %zu: the sampler found no token to choose", i);
}

}  // namespace libwkv
