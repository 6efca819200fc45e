// SPDX-License-Identifier: Apache-2.0
// Large memory: aligned buffers, counted by kind against one model's limit.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

namespace libwkv {

enum class MemoryKind { weights, caches, workspace };
inline constexpr size_t memory_kinds = 3;

// Counts live and peak bytes of one model. Thread-safe.
class MemoryAccount {
 public:
  explicit MemoryAccount(uint64_t limit_bytes) : limit_(limit_bytes) {}

  // Throws WKV_OUT_OF_MEMORY when the limit would be passed; nothing is counted then.
  void reserve(MemoryKind kind, uint64_t bytes);
  void release(MemoryKind kind, uint64_t bytes) noexcept;

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
  const uint64_t limit_;
  mutable std::mutex mutex_;
  std::array<Count, memory_kinds> kinds_;
  Count total_;
};

// Bytes aligned to 64, counted while they live. Large weights and workspaces lie on huge pages; caches do not, so that
// a state costs what it counts. Move-only.
class Buffer {
 public:
  Buffer() = default;
  // Throws WKV_OUT_OF_MEMORY. The content is zero.
  Buffer(std::shared_ptr<MemoryAccount> account, MemoryKind kind, size_t bytes);
  Buffer(Buffer &&other) noexcept { *this = std::move(other); }
  Buffer &operator=(Buffer &&other) noexcept;
  ~Buffer() { free(); }

  std::byte *data() const { return data_; }
  size_t size() const { return size_; }
  template <class T>
  T *as() const {
    return reinterpret_cast<T *>(data_);
  }

 private:
  void free() noexcept;
  std::byte *data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;  // length of an own mapping; 0: from the heap
  MemoryKind kind_ = MemoryKind::workspace;
  std::shared_ptr<MemoryAccount> account_;
};

}  // namespace libwkv
