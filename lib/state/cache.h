// SPDX-License-Identifier: Apache-2.0
// The state of one sequence: where it is, how it got there, and where it can go back to.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <wkv/cache.h>

#include "base/busy.h"
#include "state/state.h"

namespace libwkv {

// The tokens read last, oldest first.
struct LastTokens {
  std::array<int32_t, WKV_LAST_TOKENS> ids{};
  uint32_t count = 0;

  void push(std::span<const int32_t> tokens);
  int32_t last() const { return count ? ids[count - 1] : -1; }
  std::span<const int32_t> all() const { return {ids.data(), count}; }
};

// A sequence at one moment. Cheap to copy: the floats are shared.
struct Moment {
  uint64_t position = 0;
  LastTokens last_tokens;
  StateHold state;  // none: all zero
};

enum class Kept { mark, ring, verify };

struct Checkpoint {
  Moment moment;  // its state is held as a checkpoint
  Kept reason;
};

// wkv_cache_options with defaults filled in.
struct CacheOptions {
  uint32_t checkpoint_every_tokens = 0;
  uint32_t checkpoints_count_max = 8;  // of those that the cache keeps by itself
  StateHold initial;                   // none: all zero
};

class Cache {
 public:
  // Throws WKV_OUT_OF_MEMORY.
  Cache(const HyperParameters &hyper, std::shared_ptr<MemoryAccount> account, CacheOptions options = {});

  // These expect the caller to hold busy(). What throws has changed nothing.
  std::shared_ptr<Cache> copy() const;
  void assign(const Cache &source) noexcept;
  void reset() noexcept;
  // Another moment, without checkpoints.
  void replace(Moment moment) noexcept;
  // Back to a moment of this sequence that the caller kept: checkpoints behind it go.
  void go_back(Moment moment);

  void mark();
  void unmark(uint64_t position);    // throws WKV_NOT_FOUND
  void rollback(uint64_t position);  // throws WKV_NOT_FOUND
  // Rising positions.
  std::span<const Checkpoint> checkpoints() const {
    return checkpoints_ ? std::span<const Checkpoint>(*checkpoints_) : std::span<const Checkpoint>();
  }

  void read_state(int64_t layer, wkv_state_part part, std::span<float> values) const;
  void write_state(int64_t layer, wkv_state_part part, std::span<const float> values);
  size_t part_values(wkv_state_part part) const;  // throws WKV_INVALID for an unknown part

  BusyFlag &busy() const { return busy_; }
  const StateLayout &layout() const { return layout_; }
  const std::shared_ptr<MemoryAccount> &account() const { return account_; }  // its identity is the model's
  const CacheOptions &options() const { return options_; }
  const Moment &now() const { return now_; }

 private:
  friend class CacheStep;
  using Checkpoints = std::vector<Checkpoint>;
  Cache(const Cache &source);
  const Checkpoint *find(uint64_t position) const;               // NULL: nothing is kept there
  void keep_until(uint64_t position);                            // gives up what is kept behind it
  size_t part_offset(int64_t layer, wkv_state_part part) const;  // throws WKV_INVALID for a layer outside the model
  void own_state();                                              // makes it this cache's alone

  StateLayout layout_;
  std::shared_ptr<MemoryAccount> account_;
  CacheOptions options_;
  Moment now_;
  std::shared_ptr<const Checkpoints> checkpoints_;  // NULL: none. Shared with copies: never changed, only replaced
  mutable BusyFlag busy_;
};

}  // namespace libwkv
