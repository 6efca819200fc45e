// SPDX-License-Identifier: Apache-2.0
#include "base/memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

#include "base/error.h"

namespace libwkv {

void MemoryAccount::reserve(MemoryKind kind, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (limit_ && (bytes > limit_ || total_.live > limit_ - bytes))
    fail(WKV_OUT_OF_MEMORY, "%llu bytes more than the %llu in use pass the memory limit of %llu", (unsigned long long)bytes,
         (unsigned long long)total_.live, (unsigned long long)limit_);
  auto count = [bytes](Count &c) {
    c.live += bytes;
    c.peak = std::max(c.peak, c.live);
  };
  count(kinds_[static_cast<size_t>(kind)]);
  count(total_);
}

void MemoryAccount::release(MemoryKind kind, uint64_t bytes) noexcept {
  std::lock_guard lock(mutex_);
  kinds_[static_cast<size_t>(kind)].live -= bytes;
  total_.live -= bytes;
}

MemoryAccount::Snapshot MemoryAccount::snapshot() const {
  std::lock_guard lock(mutex_);
  return {kinds_, total_, limit_};
}

Buffer::Buffer(std::shared_ptr<MemoryAccount> account, MemoryKind kind, size_t bytes) {
  if (bytes == 0) return;
  constexpr size_t huge_page = size_t{2} << 20;
  size_t alignment = bytes >= huge_page ? huge_page : 64;
  if (bytes > SIZE_MAX - alignment) fail(WKV_OUT_OF_MEMORY, "%zu bytes are more than the address space", bytes);
  account->reserve(kind, bytes);
  void *memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (!memory) {
    account->release(kind, bytes);
    fail(WKV_OUT_OF_MEMORY, "no memory for %zu bytes", bytes);
  }
#ifdef MADV_HUGEPAGE
  if (alignment == huge_page) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  std::memset(memory, 0, bytes);
  data_ = static_cast<std::byte *>(memory);
  size_ = bytes;
  kind_ = kind;
  account_ = std::move(account);
}

Buffer &Buffer::operator=(Buffer &&other) noexcept {
  if (this == &other) return *this;
  free();
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  kind_ = other.kind_;
  account_ = std::move(other.account_);
  return *this;
}

void Buffer::free() noexcept {
  if (!data_) return;
  std::free(data_);
  account_->release(kind_, size_);
  data_ = nullptr;
  size_ = 0;
}

}  // namespace libwkv
