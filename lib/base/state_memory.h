// SPDX-License-Identifier: Apache-2.0
// States on a device: blocks of one size, of which some may wait in the host's memory until somebody needs them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>

#include "base/memory.h"

namespace libwkv {

class StateBlock;

// The device's side, one a model. The device's functions are thread-safe; what can fail throws Error.
class StateMemory : public Reclaimer {
 public:
  virtual ~StateMemory() = default;
  virtual size_t bytes() const = 0;  // of one state on the device
  virtual void *allocate() = 0;      // any content
  virtual void release(void *state) noexcept = 0;
  virtual void zero(void *state) = 0;
  virtual void copy(const void *from, void *to) = 0;
  // Numbers [first, first + values.size()) as the host would hold them.
  virtual void read(const void *state, size_t first, std::span<float> values) = 0;
  virtual void write(void *state, size_t first, std::span<const float> values) = 0;
  // Moves a state to the host's memory and back; each gives up what it was given, unless it throws.
  virtual void *park(void *state) = 0;
  virtual void *unpark(void *parked) = 0;
  virtual void release_parked(void *parked) noexcept = 0;

  // Bytes of states that may be parked when memory runs out, least recently used first. 0: none. Before the first
  // state.
  void set_parking_limit(uint64_t bytes) { parking_limit_ = bytes; }
  uint64_t parked_bytes() const { return parked_count_ * bytes(); }
  bool give_up_one() noexcept override;

 private:
  friend class StateBlock;
  uint64_t parking_limit_ = 0;
  std::mutex mutex_;  // of the list; held while a block of it is parked, so that it does not go away. Who holds a
                      // block's mutex may wait for this one, never the other way round
  std::list<StateBlock *> blocks_;  // least recently used first; empty where none is parked by itself
  std::atomic<uint64_t> parked_count_{0};
};

// One state, counted on its account while it is on the device. Thread-safe.
class StateBlock {
 public:
  // Throws WKV_OUT_OF_MEMORY, WKV_DEVICE.
  StateBlock(std::shared_ptr<MemoryAccount> account, MemoryKind kind, bool is_zero);
  StateBlock(const StateBlock &) = delete;
  StateBlock &operator=(const StateBlock &) = delete;
  ~StateBlock();

  // Each of these brings it back to the device first, and throws what that throws.
  void *pin();  // it stays there until unpin
  void unpin() noexcept;
  void zero();
  void copy_from(StateBlock &other);
  void read(size_t first, std::span<float> values);
  void write(size_t first, std::span<const float> values);

  // False: it is pinned. Throws when there is no memory for it on the host.
  bool park();
  void count_as(MemoryKind kind) noexcept;

 private:
  friend class StateMemory;
  void *resident();  // under mutex_
  void park_here();  // under mutex_
  void touch() noexcept;

  const std::shared_ptr<MemoryAccount> account_;
  StateMemory &memory_;
  std::mutex mutex_;
  MemoryKind kind_;
  void *data_ = nullptr;    // on the device
  void *parked_ = nullptr;  // on the host; one of both
  int pins_ = 0;
  std::list<StateBlock *>::iterator place_;
};

}  // namespace libwkv
