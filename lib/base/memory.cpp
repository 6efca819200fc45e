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
constexpr size_t smallest_mapping = size_t{256} << 10;  // of zeros that may never be written

std::byte *allocate_small(size_t bytes, bool is_zero) {
  void *memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (memory && is_zero) std::memset(memory, 0, bytes);
  return static_cast<std::byte *>(memory);
}

// Fresh pages, which are zero and become resident one by one when they are first written.
std::byte *map_pages(size_t bytes, size_t &mapped) {
  void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  mapped = bytes;
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

bool MemoryAccount::try_reserve(MemoryKind kind, uint64_t bytes) noexcept {
  std::lock_guard lock(mutex_);
  if (limit_ && (bytes > limit_ || total_.live > limit_ - bytes)) return false;
  auto count = [bytes](Count &c) {
    c.live += bytes;
    c.peak = std::max(c.peak, c.live);
  };
  count(kinds_[static_cast<size_t>(kind)]);
  count(total_);
  return true;
}

void MemoryAccount::reserve(MemoryKind kind, uint64_t bytes) {
  if (try_reserve(kind, bytes)) return;
  // What no giving up makes room for costs nobody anything.
  for (size_t i = 0; bytes <= limit_ && i < reclaimers_count(); i++)
    for (std::shared_ptr<Reclaimer> asked = reclaimer(i); asked && asked->give_up_one();)
      if (try_reserve(kind, bytes)) return;
  const uint64_t live = snapshot().total.live;
  fail(WKV_OUT_OF_MEMORY, "%llu bytes more than the %llu in use pass the memory limit of %llu",
       (unsigned long long)bytes, (unsigned long long)live, (unsigned long long)limit_);
}

void MemoryAccount::add_reclaimer(std::weak_ptr<Reclaimer> reclaimer) {
  std::lock_guard lock(mutex_);
  std::erase_if(reclaimers_, [](const std::weak_ptr<Reclaimer> &one) { return one.expired(); });
  reclaimers_.push_back(std::move(reclaimer));
}

std::shared_ptr<Reclaimer> MemoryAccount::reclaimer(size_t index) const noexcept {
  std::lock_guard lock(mutex_);
  return index < reclaimers_.size() ? reclaimers_[index].lock() : nullptr;
}

size_t MemoryAccount::reclaimers_count() const noexcept {
  std::lock_guard lock(mutex_);
  return reclaimers_.size();
}

void MemoryAccount::release(MemoryKind kind, uint64_t bytes) noexcept {
  std::lock_guard lock(mutex_);
  kinds_[static_cast<size_t>(kind)].live -= bytes;
  total_.live -= bytes;
}

void MemoryAccount::move(MemoryKind from, MemoryKind to, uint64_t bytes) noexcept {
  std::lock_guard lock(mutex_);
  kinds_[static_cast<size_t>(from)].live -= bytes;
  Count &count = kinds_[static_cast<size_t>(to)];
  count.live += bytes;
  count.peak = std::max(count.peak, count.live);
}

MemoryAccount::Snapshot MemoryAccount::snapshot() const {
  std::lock_guard lock(mutex_);
  return {kinds_, total_, limit_};
}

Buffer::Buffer(std::shared_ptr<MemoryAccount> account, MemoryKind kind, size_t bytes, bool is_zero) {
  if (bytes == 0) return;
  if (bytes > SIZE_MAX - 2 * huge_page) fail(WKV_OUT_OF_MEMORY, "%zu bytes are more than the address space", bytes);
  account->reserve(kind, bytes);
  const bool is_large = kind == MemoryKind::weights || kind == MemoryKind::workspace;
  data_ = is_large && bytes >= huge_page         ? map_huge(bytes, mapped_)
          : is_zero && bytes >= smallest_mapping ? map_pages(bytes, mapped_)
                                                 : allocate_small(bytes, is_zero);
  if (!data_) {
    account->release(kind, bytes);
    fail(WKV_OUT_OF_MEMORY, "no memory for %zu bytes", bytes);
  }
  size_ = bytes;
  kind_ = kind;
  account_ = std::move(account);
}

void Buffer::count_as(MemoryKind kind) noexcept {
  if (kind == kind_ || !data_) return;
  account_->move(kind_, kind, size_);
  kind_ = kind;
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
