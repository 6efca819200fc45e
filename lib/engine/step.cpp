// SPDX-License-Identifier: Apache-2.0
// A step of a model: every check first, then all memory, then chunk after chunk of rows, and all outcomes at the end.
#include <algorithm>
#include <mutex>
#include <optional>

#include "base/error.h"
#include "engine/device_draw.h"
#include "engine/executor.h"
#include "engine/model.h"
#include "state/cache_step.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

namespace libwkv {
namespace {

// Caches and samplers that a step has taken; given back when it ends.
class Taken {
 public:
  explicit Taken(size_t count) { flags_.reserve(count); }
  ~Taken() {
    for (BusyFlag *flag : flags_) flag->release();
  }
  Taken(const Taken &) = delete;
  Taken &operator=(const Taken &) = delete;

  void take(BusyFlag &flag, const char *what) {
    if (flag.try_acquire()) return flags_.push_back(&flag);
    if (std::find(flags_.begin(), flags_.end(), &flag) != flags_.end())
      fail(WKV_INVALID, "the same %s stands in two items", what);
    fail(WKV_BUSY, "the %s is in use by another call", what);
  }

 private:
  std::vector<BusyFlag *> flags_;
};

// An item that has tokens, and how far it has come.
struct Active {
  StepItem *item;
  CacheStep step;
  size_t done = 0;            // tokens
  size_t snapshots_done = 0;  // of step.snapshots()
};

// What one sampler chose, and where from.
struct Choosing {
  StepItem *item;
  const float *logits;  // NULL: the executor chooses
  Sampler::Choice choice;
  std::optional<DeviceDraw> draw;
};

void check_item(const StepItem &item, size_t vocab, const MemoryAccount *account) {
  if (item.fault) fail(item.status, "%s", item.fault);
  if (item.tokens.empty()) return;
  if (item.cache->account().get() != account) fail(WKV_MISMATCH, "the cache belongs to another model");
  for (int32_t token : item.tokens)
    if (token < 0 || static_cast<size_t>(token) >= vocab)
      fail(WKV_INVALID, "token %d is outside the vocabulary of %zu", token, vocab);
  if (item.keeps_all_states && item.tokens.size() > WKV_VERIFY_TOKENS)
    fail(WKV_INVALID, "tokens_count is %zu, at most %d go with WKV_STEP_ALL_STATES", item.tokens.size(),
         WKV_VERIFY_TOKENS);
  if (item.logits || item.device_logits) {
    size_t rows = item.wants_all_logits ? item.tokens.size() : 1;
    if (item.logits_count / vocab < rows)
      fail(WKV_INVALID, "logits_count is %zu, needed are %zu rows of %zu", item.logits_count, rows, vocab);
  }
}

// Looks at every item, sets its status, and throws for the first one at fault.
void check_items(std::span<StepItem> items, size_t vocab, const MemoryAccount *account, Taken &taken) {
  std::optional<Error> first;
  for (size_t i = 0; i < items.size(); i++) {
    StepItem &item = items[i];
    try {
      check_item(item, vocab, account);
      if (item.tokens.empty()) continue;
      taken.take(item.cache->busy(), "cache");
      const uint64_t position = item.cache->now().position;
      if (item.tokens.size() > INT64_MAX - position)
        fail(WKV_INVALID, "position %llu and %zu tokens more pass the largest position",
             static_cast<unsigned long long>(position), item.tokens.size());
      if (item.sampler && !item.choice) taken.take(item.sampler->busy(), "sampler");
    } catch (const Error &error) {
      item.status = error.status();
      if (first) continue;
      first = error;
      if (items.size() > 1) {
        try {
          fail(error.status(), "item %zu: %s", i, error.what());
        } catch (const Error &numbered) {
          first = numbered;
        }
      }
    }
  }
  if (first) throw *first;
}

}  // namespace

bool Model::chooses_on_device(const Sampler &sampler) const {
  return executor_->is_on_device() && DeviceDraw::can(sampler);
}

void Model::step(std::span<StepItem> items, const StepWatch &watch) {
  size_t vocab = static_cast<size_t>(hyper_.vocab_size);
  Taken taken(2 * items.size());
  for (StepItem &item : items)
    if (item.device_logits && !item.fault && !executor_->is_on_device()) {
      item.fault = "logits is said to be a GPU's memory, and the model is on the cpu";
      item.status = WKV_INVALID;
    }
  check_items(items, vocab, account_.get(), taken);

  std::lock_guard lock(*executor_);
  for (const auto &file : files_) file->check_length();

  // Rows of all items are cut into chunks: an item may span chunks, and a chunk many items.
  const auto chooses = [&](const StepItem &item) { return chooses_on_device(*item.sampler); };
  size_t rows_total = 0, logits_total = 0, samplers = 0, samplers_on_host = 0;
  size_t unseen = 0;  // scores that only a sampler sees
  size_t items_total = 0, snapshots_total = 0;
  for (const StepItem &item : items) {
    if (item.tokens.empty()) continue;
    items_total++;
    rows_total += item.tokens.size();
    const bool has_place = item.logits || item.device_logits;
    if (has_place || item.sampler) logits_total += has_place && item.wants_all_logits ? item.tokens.size() : 1;
    samplers += item.sampler != nullptr;
    const bool chooses_on_host = item.sampler && !chooses(item);
    samplers_on_host += chooses_on_host;
    unseen += chooses_on_host && !item.logits;
  }
  if (rows_total == 0) return;
  const size_t chunk_rows =
      static_cast<size_t>(executor_->chunk_rows(static_cast<int64_t>(rows_total), info_.chunk_tokens));
  size_t chunk_items = std::min(chunk_rows, items_total);
  std::vector<int32_t> tokens;
  std::vector<Segment> segments;
  std::vector<RowState> row_states;
  std::vector<LogitsRow> logits;
  std::vector<Choosing> choosing;  // of all chunks
  std::vector<Active> active;
  tokens.reserve(chunk_rows);
  segments.reserve(chunk_items);
  logits.reserve(std::min(chunk_rows, logits_total));
  choosing.reserve(samplers);
  active.reserve(items_total);
  const int64_t chunk_unseen = static_cast<int64_t>(std::min(unseen, chunk_rows));
  Buffer unseen_logits(account_, MemoryKind::workspace, unseen_logits_bytes(hyper_.vocab_size, chunk_unseen));
  executor_->reserve(static_cast<int64_t>(chunk_rows), static_cast<int64_t>(std::min(chunk_rows, logits_total)));
  // A sampler may find no token and a watch may cancel: what can still fail later keeps the caches as they are.
  const bool is_final = samplers == 0 && !watch.progress;
  for (StepItem &item : items) {
    if (item.tokens.empty()) continue;
    active.push_back({&item, CacheStep(*item.cache, item.tokens, is_final, item.keeps_all_states)});
    snapshots_total += active.back().step.snapshots().size();
  }
  row_states.reserve(snapshots_total);

  size_t rows_done = 0;
  auto report = [&](int64_t layers_done) {
    const size_t rows =
        rows_done + tokens.size() * static_cast<size_t>(layers_done) / static_cast<size_t>(hyper_.layers);
    return watch.progress(watch.user, rows, rows_total) != 0;
  };
  const LayerWatch layer_watch{
      [](void *user, int64_t layers_done) { return (*static_cast<decltype(report) *>(user))(layers_done); }, &report};

  SamplerLimits limits{tokenizer_ ? tokenizer_->ids_end() : 0, ids_without_bytes_};
  for (size_t i = 0; i < active.size();) {
    tokens.clear();
    segments.clear();
    row_states.clear();
    logits.clear();
    size_t unseen_rows = 0, chosen = choosing.size();
    while (i < active.size() && tokens.size() < chunk_rows) {
      Active &one = active[i];
      StepItem &item = *one.item;
      const size_t count = std::min(item.tokens.size() - one.done, chunk_rows - tokens.size());
      const int64_t begin = static_cast<int64_t>(tokens.size()), end = begin + static_cast<int64_t>(count);
      const std::span<const int32_t> part = item.tokens.subspan(one.done, count);
      const std::span<const Snapshot> snapshots = one.step.snapshots();
      const size_t first_state = row_states.size();
      for (; one.snapshots_done < snapshots.size() && snapshots[one.snapshots_done].index < one.done + count;
           one.snapshots_done++) {
        const Snapshot &snapshot = snapshots[one.snapshots_done];
        row_states.push_back({begin + static_cast<int64_t>(snapshot.index - one.done), snapshot.state});
      }
      segments.push_back({one.done == 0 ? one.step.from() : one.step.state(), one.step.state(), begin, end,
                          std::span<const RowState>(row_states).subspan(first_state)});
      tokens.insert(tokens.end(), part.begin(), part.end());
      const bool is_last = one.done + count == item.tokens.size();
      const auto at = [&](float *place, size_t r) { return place ? place + (one.done + r) * vocab : nullptr; };
      if ((item.logits || item.device_logits) && item.wants_all_logits) {
        for (size_t r = 0; r < count; r++)
          logits.push_back({begin + static_cast<int64_t>(r), at(item.logits, r), at(item.device_logits, r)});
      } else if (is_last && (item.logits || item.device_logits || item.sampler)) {
        float *place = item.logits;
        if (!place && item.sampler && !chooses(item)) place = unseen_logits.as<float>() + unseen_rows++ * vocab;
        logits.push_back({end - 1, place, item.device_logits});
      }
      if (is_last && item.sampler) {
        choosing.push_back({&item, logits.back().logits, {0, item.sampler->state().random}, {}});
        if (chooses(item)) {
          Choosing &last = choosing.back();
          last.draw.emplace(*item.sampler, item.limits ? *item.limits : limits);
          last.choice.random = last.draw->random();
          logits.back().sampler = &last.draw->options();
          logits.back().token = &last.choice.token;
        }
      }
      one.done += count;
      if (is_last) i++;
    }
    switch (executor_->run({tokens, segments, logits}, watch.progress ? &layer_watch : nullptr)) {
      case RunOutcome::done:
        break;
      case RunOutcome::cancelled:
        fail(WKV_CANCELLED, "cancelled after %zu of %zu tokens", rows_done, rows_total);
      case RunOutcome::failed:
        fail(WKV_DEVICE, "%s", executor_->fault());
    }
    rows_done += tokens.size();

    auto choose = [&](size_t index) {
      Choosing &one = choosing[chosen + index];
      if (one.draw) {
        if (one.choice.token < 0) one.item->status = WKV_INVALID;
        return;
      }
      try {
        one.choice = one.item->sampler->choose({one.logits, vocab}, one.item->limits ? *one.item->limits : limits);
      } catch (const Error &error) {
        one.item->status = error.status();
      } catch (...) {
        one.item->status = WKV_OUT_OF_MEMORY;
      }
    };
    if (samplers_on_host > 0)
      executor_->parallel(
          choosing.size() - chosen,
          [](void *context, size_t index) { (*static_cast<decltype(choose) *>(context))(index); }, &choose);
    else
      for (size_t index = 0; index < choosing.size() - chosen; index++) choose(index);
  }

  for (size_t i = 0; i < items.size(); i++) {
    if (items[i].status == WKV_OK) continue;
    if (items[i].status == WKV_OUT_OF_MEMORY) fail(WKV_OUT_OF_MEMORY, "item %zu: no memory for its sampler", i);
    fail(items[i].status, "item %zu: no token is left to choose from: all are banned or not a number", i);
  }
  for (Active &one : active) one.step.commit();
  for (const Choosing &one : choosing) {
    if (one.item->choice) {
      *one.item->choice = one.choice;
      continue;
    }
    one.item->sampler->commit(one.choice);
    *one.item->next_token = one.choice.token;
  }
}

}  // namespace libwkv
