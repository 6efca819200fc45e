// SPDX-License-Identifier: Apache-2.0
// Large memory: aligned buffers, counted by kind against one model's limit.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace libwkv {

enum class MemoryKind { weights, caches, checkpoints, store, workspace };
inline constexpr size_t memory_kinds = 5;

// Somebody who holds memory that can be done without.
class Reclaimer {
 public:
  // Gives something up, whether or not that frees memory at once; false: there is nothing left. Any thread, which may
  // hold locks of its own: never waits for anybody who might be waiting for memory.
  virtual bool give_up_one() noexcept = 0;

 protected:
  ~Reclaimer() = default;
};

class StateMemory;  // state_memory.h: where a model's states live when that is not the host's memory

// Memory as it came from the system.
struct Block {
  std::byte *data = nullptr;
  size_t mapped = 0;  // length of an own mapping; 0: from the heap
};

// Counts live and peak bytes of one model, and keeps a few released states for the next ones: fresh pages cost several
// times what a copy of the state costs. Spare states are not live, but a limit holds for them too. Thread-safe.
class MemoryAccount {
 public:
  explicit MemoryAccount(uint64_t limit_bytes) : limit_(limit_bytes) {}
  ~MemoryAccount();

  // Throws WKV_OUT_OF_MEMORY when the limit would be passed although the reclaimers have given up all they have;
  // nothing is counted then. No lock of the account is held while they are asked.
  void reserve(MemoryKind kind, uint64_t bytes);
  void add_reclaimer(std::weak_ptr<Reclaimer> reclaimer);
  // From now on states are made there, and it is a reclaimer. Before the first of them, and once.
  void keep_states_in(std::shared_ptr<StateMemory> memory);
  StateMemory *state_memory() const { return state_memory_.get(); }  // NULL: the host's memory
  void release(MemoryKind kind, uint64_t bytes) noexcept;
  // Counts bytes under another kind from now on.
  void move(MemoryKind from, MemoryKind to, uint64_t bytes) noexcept;

  // A spare block of exactly this size, of any content; no data: there is none.
  Block take_spare(size_t bytes) noexcept;
  // Takes a block over, and frees it when there are enough.
  void keep_spare(Block block, size_t bytes) noexcept;

  struct Count {
    uint64_t live = 0, peak = 0;
  };
  struct Snapshot {
    std::array<Count, memory_kinds> kinds;
    Count total;
    uint64_t limit = 0;
  };
  Snapshot snapshot() const;

 private:
  bool try_reserve(MemoryKind kind, uint64_t bytes) noexcept;
  std::shared_ptr<Reclaimer> reclaimer(size_t index) const noexcept;  // NULL: gone, or past the last one
  size_t reclaimers_count() const noexcept;

  const uint64_t limit_;
  mutable std::mutex mutex_;
  std::array<Count, memory_kinds> kinds_;
  Count total_;
  std::vector<std::weak_ptr<Reclaimer>> reclaimers_;

  void free_spares() noexcept;  // under the mutex
  struct Spare {
    Block block;
    size_t bytes;
  };
  std::array<Spare, 32> spares_;
  size_t spares_count_ = 0, spares_bytes_ = 0;
  std::shared_ptr<StateMemory> state_memory_;
};

// Bytes aligned to 64, counted while they live; large ones on huge pages where the system has them. Move-only.
class Buffer {
 public:
  Buffer() = default;
  // Throws WKV_OUT_OF_MEMORY. The content is zero, unless is_zero is false: then it is anything.
  Buffer(std::shared_ptr<MemoryAccount> account, MemoryKind kind, size_t bytes, bool is_zero = true);
  Buffer(Buffer &&other) noexcept { *this = std::move(other); }
  Buffer &operator=(Buffer &&other) noexcept;
  ~Buffer() { free(); }

  std::byte *data() const { return block_.data; }
  size_t size() const { return size_; }
  void count_as(MemoryKind kind) noexcept;
  template <class T>
  T *as() const {
    return reinterpret_cast<T *>(block_.data);
  }

 private:
  void free() noexcept;
  Block block_;
  size_t size_ = 0;
  MemoryKind kind_ = MemoryKind::workspace;
  std::shared_ptr<MemoryAccount> account_;
};

}  // namespace libwkv
