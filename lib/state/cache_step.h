// SPDX-License-Identifier: Apache-2.0
// One cache through one step: all memory before the first number, and all of the outcome at once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "state/cache.h"

namespace libwkv {

// A state to be kept on the way: that after the token `index` of the step.
struct Snapshot {
  size_t index;
  void *state;
};

// Steps in place when nobody else holds the cache's state and the step cannot fail any more once it has begun
// (is_final); else the step's outcome is written elsewhere, and the cache keeps its state until commit.
class CacheStep {
 public:
  // Expects the caller to hold cache.busy(), tokens that are not empty, and a position behind them that is in range.
  // Throws WKV_OUT_OF_MEMORY; nothing has changed then.
  CacheStep(Cache &cache, std::span<const int32_t> tokens, bool is_final, bool keeps_all_states);
  CacheStep(CacheStep &&) = default;

  // Memory of the executor: the state before the step, and where that after it goes, which may be the same.
  const void *from() const { return from_.memory(); }
  void *state() const { return to_.memory(); }
  std::span<const Snapshot> snapshots() const { return snapshots_; }  // rising; none at the last token

  void commit() noexcept;

  // The commit of a step that was made without one of these, into a state that nobody else writes to. The cache keeps
  // no checkpoints by itself, and none to verify.
  static void commit(Cache &cache, std::span<const int32_t> tokens, StateHold state) noexcept;

 private:
  Cache &cache_;
  std::span<const int32_t> tokens_;
  StateHold state_;
  StatePin from_, to_;
  std::vector<StatePin> kept_;  // of snapshots_
  std::vector<Snapshot> snapshots_;
  std::shared_ptr<std::vector<Checkpoint>> checkpoints_;  // NULL: as before. The last one may await the final state
  bool keeps_last_ = false;
};

}  // namespace libwkv
