// SPDX-License-Identifier: Apache-2.0
#include "base/memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

#include "base/error.h"

namespace libwkv {
namespace {

constexpr size_t huge_page = size_t{2} << 20;

std::byte *allocate_small(size_t bytes) {
  void *memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (memory) std::memset(memory, 0, bytes);
  return static_cast<std::byte *>(memory);
}

// Fresh pages, which are zero, on a huge-page boundary. They become resident when they are first written, by the
// threads that write them. `mapped` receives the length to unmap.
std::byte *map_huge(size_t bytes, size_t &mapped) {
  size_t length = (bytes + 4095) / 4096 * 4096;
  void *memory = mmap(nullptr, length + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  std::byte *begin = static_cast<std::byte *>(memory);
  size_t before = (huge_page - reinterpret_cast<uintptr_t>(begin) % huge_page) % huge_page;
  if (before) munmap(begin, before);
  if (before < huge_page) munmap(begin + before + length, huge_page - before);
#ifdef MADV_HUGEPAGE
  madvise(begin + before, length, MADV_HUGEPAGE);
#endif
  mapped = length;
  return begin + before;
}

}  // namespace

void MemoryAccount::reserve(MemoryKind kind, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (limit_ && (bytes > limit_ || total_.live > limit_ - bytes))
    fail(WKV_OUT_OF_MEMORY, "%llu bytes more than the %llu in use pass the memory limit of %llu",
         (unsigned long long)bytes, (unsigned long long)total_.live, (unsigned long long)limit_);
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
  if (bytes > SIZE_MAX - 2 * huge_page) fail(WKV_OUT_OF_MEMORY, "%zu bytes are more than the address space", bytes);
  account->reserve(kind, bytes);
  data_ = kind != MemoryKind::caches && bytes >= huge_page ? map_huge(bytes, mapped_) : allocate_small(bytes);
  if (!data_) {
    account->release(kind, bytes);
    fail(WKV_OUT_OF_MEMORY, "no memory for %zu bytes", bytes);
  }
  size_ = bytes;
  kind_ = kind;
  account_ = std::move(account);
}

Buffer &Buffer::operator=(Buffer &&other) noexcept {
  if (this == &other) return *this;
  free();
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  mapped_ = std::exchange(other.mapped_, 0);
  kind_ = other.kind_;
  account_ = std::move(other.account_);
  return *this;
}

void Buffer::free() noexcept {
  if (!data_) return;
  if (mapped_)
    munmap(data_, mapped_);
  else
    std::free(data_);
  account_->release(kind_, size_);
  data_ = nullptr;
  size_ = mapped_ = 0;
}

}  // namespace libwkv
