// SPDX-License-Identifier: Apache-2.0
#include "base/memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

#include "base/error.h"
#include "base/state_memory.h"

namespace libwkv {
namespace {

constexpr size_t huge_page = size_t{2} << 20;
constexpr size_t smallest_mapping = size_t{256} << 10;  // of zeros that may never be written; smallest spare
constexpr size_t most_spare_bytes = size_t{64} << 20;   // two spares are fine whatever their size

Block allocate_heap(size_t bytes, bool is_zero) {
  void *memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (memory && is_zero) std::memset(memory, 0, bytes);
  return {static_cast<std::byte *>(memory), 0};
}

// Fresh pages, which are zero. They become resident when they are first written, by the threads that write them. From
// one huge page on the block begins on a boundary of them; it ends where it must, so that nothing is resident behind
// it.
Block map_pages(size_t bytes) {
  const size_t length = (bytes + 4095) / 4096 * 4096, slack = bytes >= huge_page ? huge_page : 0;
  void *memory = mmap(nullptr, length + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return {};
  std::byte *begin = static_cast<std::byte *>(memory);
  if (slack == 0) return {begin, length};
  const size_t before = (huge_page - reinterpret_cast<uintptr_t>(begin) % huge_page) % huge_page;
  if (before) munmap(begin, before);
  if (before < huge_page) munmap(begin + before + length, huge_page - before);
#ifdef MADV_HUGEPAGE
  madvise(begin + before, length, MADV_HUGEPAGE);
#endif
  return {begin + before, length};
}

Block allocate(size_t bytes, bool is_zero) {
  return bytes >= (is_zero ? smallest_mapping : huge_page) ? map_pages(bytes) : allocate_heap(bytes, is_zero);
}

void free_block(Block block) noexcept {
  if (block.mapped)
    munmap(block.data, block.mapped);
  else
    std::free(block.data);
}

// States come and go; the heap is good enough for small ones.
bool is_kept(MemoryKind kind, size_t bytes) {
  return kind != MemoryKind::weights && kind != MemoryKind::workspace && bytes >= smallest_mapping;
}

}  // namespace

MemoryAccount::~MemoryAccount() { free_spares(); }

void MemoryAccount::free_spares() noexcept {
  while (spares_count_ > 0) free_block(spares_[--spares_count_].block);
  spares_bytes_ = 0;
}

Block MemoryAccount::take_spare(size_t bytes) noexcept {
  std::lock_guard lock(mutex_);
  for (size_t i = spares_count_; i-- > 0;)
    if (spares_[i].bytes == bytes) {
      const Block block = spares_[i].block;
      spares_[i] = spares_[--spares_count_];
      spares_bytes_ -= bytes;
      return block;
    }
  return {};
}

void MemoryAccount::keep_spare(Block block, size_t bytes) noexcept {
  {
    std::lock_guard lock(mutex_);
    const bool has_room = spares_count_ < spares_.size() &&
                          (spares_count_ < 2 || spares_bytes_ + bytes <= most_spare_bytes) &&
                          (!limit_ || total_.live + spares_bytes_ + bytes <= limit_);
    if (has_room) {
      spares_[spares_count_++] = {block, bytes};
      spares_bytes_ += bytes;
      return;
    }
  }
  free_block(block);
}

bool MemoryAccount::try_reserve(MemoryKind kind, uint64_t bytes) noexcept {
  std::lock_guard lock(mutex_);
  if (limit_ && spares_bytes_ > 0 && total_.live + spares_bytes_ + std::min(bytes, limit_) > limit_) free_spares();
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

void MemoryAccount::keep_states_in(std::shared_ptr<StateMemory> memory) {
  state_memory_ = std::move(memory);
  add_reclaimer(state_memory_);
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
  // The spare comes first: the limit counts it until it is taken.
  if (is_kept(kind, bytes)) block_ = account->take_spare(bytes);
  try {
    account->reserve(kind, bytes);
  } catch (...) {
    free_block(block_);
    throw;
  }
  if (block_.data && is_zero) std::memset(block_.data, 0, bytes);
  if (!block_.data) block_ = allocate(bytes, is_zero);
  if (!block_.data) {
    account->release(kind, bytes);
    fail(WKV_OUT_OF_MEMORY, "no memory for %zu bytes", bytes);
  }
  size_ = bytes;
  kind_ = kind;
  account_ = std::move(account);
}

void Buffer::count_as(MemoryKind kind) noexcept {
  if (kind == kind_ || !block_.data) return;
  account_->move(kind_, kind, size_);
  kind_ = kind;
}

Buffer &Buffer::operator=(Buffer &&other) noexcept {
  if (this == &other) return *this;
  free();
  block_ = std::exchange(other.block_, {});
  size_ = std::exchange(other.size_, 0);
  kind_ = other.kind_;
  account_ = std::move(other.account_);
  return *this;
}

void Buffer::free() noexcept {
  if (!block_.data) return;
  account_->release(kind_, size_);
  if (is_kept(kind_, size_))
    account_->keep_spare(block_, size_);
  else
    free_block(block_);
  block_ = {};
  size_ = 0;
}

}  // namespace libwkv
