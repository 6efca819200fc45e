// SPDX-License-Identifier: Apache-2.0
// A step of a model: every check first, then all memory, then chunk after chunk of rows.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <optional>

#include "base/error.h"
#include "engine/executor.h"
#include "engine/model.h"
#include "state/cache.h"
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

// Copies of the caches of a step that can still fail after it has begun: one with samplers, which may find no token.
class Undo {
 public:
  Undo(std::span<StepItem> items, const std::shared_ptr<MemoryAccount> &account) {
    size_t bytes = 0;
    for (const StepItem &item : items)
      if (!item.tokens.empty()) bytes += item.cache->bytes();
    states_ = Buffer(account, MemoryKind::workspace, bytes);
    saved_.reserve(items.size());
    std::byte *place = states_.data();
    for (const StepItem &item : items) {
      if (item.tokens.empty()) continue;
      std::memcpy(place, item.cache->state(), item.cache->bytes());
      saved_.push_back({item.cache, place, item.cache->position, item.cache->last_token});
      place += item.cache->bytes();
    }
  }
  void restore() noexcept {
    for (const Saved &saved : saved_) {
      std::memcpy(saved.cache->state(), saved.state, saved.cache->bytes());
      saved.cache->position = saved.position;
      saved.cache->last_token = saved.last_token;
    }
  }

 private:
  struct Saved {
    Cache *cache;
    const std::byte *state;
    uint64_t position;
    int32_t last_token;
  };
  Buffer states_;
  std::vector<Saved> saved_;
};

// What one sampler chose, and where from.
struct Choosing {
  StepItem *item;
  const float *logits;
  Sampler::Choice choice;
};

void check_item(const StepItem &item, size_t vocab, const MemoryAccount *account) {
  if (item.fault) fail(item.status, "%s", item.fault);
  if (item.tokens.empty()) return;
  if (item.cache->account().get() != account) fail(WKV_MISMATCH, "the cache belongs to another model");
  for (int32_t token : item.tokens)
    if (token < 0 || static_cast<size_t>(token) >= vocab)
      fail(WKV_INVALID, "token %d is outside the vocabulary of %zu", token, vocab);
  if (item.logits) {
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
      if (item.sampler) taken.take(item.sampler->busy(), "sampler");
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

void Model::step(std::span<StepItem> items) {
  size_t vocab = static_cast<size_t>(hyper_.vocab_size);
  Taken taken(2 * items.size());
  check_items(items, vocab, account_.get(), taken);

  std::lock_guard lock(*executor_);
  for (const auto &file : files_) file->check_length();

  // Rows of all items are cut into chunks: an item may span chunks, and a chunk many items.
  size_t rows_total = 0, logits_total = 0, samplers = 0, unseen = 0;  // unseen: scores that only a sampler sees
  for (const StepItem &item : items) {
    if (item.tokens.empty()) continue;
    rows_total += item.tokens.size();
    if (item.logits || item.sampler) logits_total += item.logits && item.wants_all_logits ? item.tokens.size() : 1;
    samplers += item.sampler != nullptr;
    unseen += item.sampler && !item.logits;
  }
  if (rows_total == 0) return;
  size_t chunk_rows = std::min(static_cast<size_t>(info_.chunk_tokens), rows_total);
  size_t chunk_items = std::min(chunk_rows, items.size());
  std::vector<int32_t> tokens;
  std::vector<Segment> segments;
  std::vector<LogitsRow> logits;
  std::vector<Choosing> choosing;  // of all chunks
  tokens.reserve(chunk_rows);
  segments.reserve(chunk_items);
  logits.reserve(std::min(chunk_rows, logits_total));
  choosing.reserve(samplers);
  Buffer unseen_logits(account_, MemoryKind::workspace, std::min(unseen, chunk_rows) * vocab * sizeof(float));
  executor_->reserve(static_cast<int64_t>(chunk_rows), static_cast<int64_t>(std::min(chunk_rows, logits_total)));
  std::optional<Undo> undo;
  if (samplers > 0) undo.emplace(items, account_);

  SamplerLimits limits{tokenizer_ ? tokenizer_->ids_end() : 0, ids_without_bytes_};
  for (size_t i = 0, at = 0; i < items.size();) {  // at: tokens of item i that are done
    tokens.clear();
    segments.clear();
    logits.clear();
    size_t unseen_rows = 0, chosen = choosing.size();
    for (; i < items.size() && tokens.size() < chunk_rows;) {
      StepItem &item = items[i];
      size_t count = std::min(item.tokens.size() - at, chunk_rows - tokens.size());
      if (count > 0) {
        int64_t begin = static_cast<int64_t>(tokens.size()), end = begin + static_cast<int64_t>(count);
        std::span<const int32_t> part = item.tokens.subspan(at, count);
        segments.push_back({item.cache->state(), begin, end});
        tokens.insert(tokens.end(), part.begin(), part.end());
        item.cache->position += count;
        item.cache->last_token = part.back();
        bool is_last = at + count == item.tokens.size();
        if (item.logits && item.wants_all_logits) {
          for (size_t r = 0; r < count; r++)
            logits.push_back({begin + static_cast<int64_t>(r), item.logits + (at + r) * vocab});
        } else if (is_last && (item.logits || item.sampler)) {
          float *place = item.logits ? item.logits : unseen_logits.as<float>() + unseen_rows++ * vocab;
          logits.push_back({end - 1, place});
        }
        if (is_last && item.sampler)
          choosing.push_back({&item, logits.back().logits, {0, item.sampler->state().random}});
        at += count;
      }
      if (at == item.tokens.size()) {
        i++;
        at = 0;
      }
    }
    executor_->run({tokens, segments, logits});

    auto choose = [&](size_t index) {
      Choosing &one = choosing[chosen + index];
      try {
        one.choice = one.item->sampler->choose({one.logits, vocab}, limits);
      } catch (const Error &error) {
        one.item->status = error.status();
      } catch (...) {
        one.item->status = WKV_OUT_OF_MEMORY;
      }
    };
    executor_->parallel(
        choosing.size() - chosen,
        [](void *context, size_t index) { (*static_cast<decltype(choose) *>(context))(index); }, &choose);
  }

  for (size_t i = 0; i < items.size(); i++) {
    if (items[i].status == WKV_OK) continue;
    undo->restore();
    if (items[i].status == WKV_OUT_OF_MEMORY) fail(WKV_OUT_OF_MEMORY, "item %zu: no memory for its sampler", i);
    fail(items[i].status, "item %zu: no token is left to choose from: all are banned or not a number", i);
  }
  for (const Choosing &one : choosing) {
    one.item->sampler->commit(one.choice);
    *one.item->next_token = one.choice.token;
  }
}

}  // namespace libwkv
