// SPDX-License-Identifier: Apache-2.0
#include "state/cache_step.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace libwkv {

CacheStep::CacheStep(Cache &cache, std::span<const int32_t> tokens, bool is_final, bool keeps_all_states)
    : cache_(cache), tokens_(tokens) {
  const Moment &now = cache.now_;
  const CacheOptions &options = cache.options_;
  const uint64_t begin = now.position, count = tokens.size(), every = options.checkpoint_every_tokens;

  // What the list of checkpoints will be: marks, the newest of the ring, and what this step verifies.
  const std::span<const Checkpoint> kept = cache.checkpoints();
  const uint64_t first_ring = every ? begin / every + 1 : 0, end_ring = every ? (begin + count) / every + 1 : 0;
  const uint64_t new_ring = std::min<uint64_t>(end_ring - first_ring, options.checkpoints_count_max);
  const uint64_t old_ring = static_cast<uint64_t>(
      std::count_if(kept.begin(), kept.end(), [](const Checkpoint &entry) { return entry.reason == Kept::ring; }));
  uint64_t ring_too_many =
      std::max(old_ring + new_ring, uint64_t{options.checkpoints_count_max}) - options.checkpoints_count_max;
  const bool drops_verified =
      std::any_of(kept.begin(), kept.end(), [](const Checkpoint &entry) { return entry.reason == Kept::verify; });
  if (new_ring > 0 || drops_verified || keeps_all_states) {
    checkpoints_ = std::make_shared<std::vector<Checkpoint>>();
    checkpoints_->reserve(kept.size() + new_ring + (keeps_all_states ? count + 1 : 0));
    for (const Checkpoint &entry : kept) {
      if (entry.reason == Kept::verify || (entry.reason == Kept::ring && ring_too_many > 0 && ring_too_many--))
        continue;
      checkpoints_->push_back(entry);
    }
    if (keeps_all_states && (checkpoints_->empty() || checkpoints_->back().moment.position != begin))
      checkpoints_->push_back({{begin, now.last_tokens, now.state.as(Holder::checkpoint)}, Kept::verify});
    LastTokens last_tokens = now.last_tokens;
    uint64_t pushed = 0;
    auto keep = [&](uint64_t tokens_done, Kept reason) {
      last_tokens.push(tokens.subspan(pushed, tokens_done - pushed));
      pushed = tokens_done;
      Checkpoint entry{{begin + tokens_done, last_tokens, {}}, reason};
      if (tokens_done < count) {
        entry.moment.state = StateHold::make(cache.account_, cache.layout_.floats, Holder::checkpoint, false);
        kept_.emplace_back(entry.moment.state);
        snapshots_.push_back({tokens_done - 1, kept_.back().memory()});
      } else {
        keeps_last_ = true;
      }
      checkpoints_->push_back(std::move(entry));
    };
    if (keeps_all_states) {
      snapshots_.reserve(count);
      for (uint64_t done = 1; done <= count; done++)
        keep(done, every && (begin + done) % every == 0 && (begin + done) / every >= end_ring - new_ring
                       ? Kept::ring
                       : Kept::verify);
    } else {
      snapshots_.reserve(new_ring);
      for (uint64_t ring = end_ring - new_ring; ring < end_ring; ring++) keep(ring * every - begin, Kept::ring);
    }
  }

  // Checkpoints hold the present state as well, so that only a state nobody wants to go back to is stepped in place.
  auto is_own = [&] { return is_final && now.state.is_only(); };
  if (!is_own()) {
    try {
      state_ = StateHold::make(cache.account_, cache.layout_.floats, Holder::cache, !now.state);
    } catch (const Error &) {
      if (!is_own()) throw;  // else a prefix store, asked for memory, has given up what it shared with the cache
    }
  }
  if (!state_) state_ = now.state;
  to_ = StatePin(state_);
  from_ = StatePin(now.state ? now.state : state_);
}

void CacheStep::commit(Cache &cache, std::span<const int32_t> tokens, StateHold state) noexcept {
  cache.now_.state = std::move(state);
  cache.now_.position += tokens.size();
  cache.now_.last_tokens.push(tokens);
}

void CacheStep::commit() noexcept {
  commit(cache_, tokens_, std::move(state_));
  if (!checkpoints_) return;
  if (keeps_last_) checkpoints_->back().moment.state = cache_.now_.state.as(Holder::checkpoint);
  cache_.checkpoints_ = std::move(checkpoints_);
}

}  // namespace libwkv
