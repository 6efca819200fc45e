// SPDX-License-Identifier: Apache-2.0
#include "base/state_memory.h"

#include <utility>

namespace libwkv {

// Called while somebody waits for memory, who may hold the mutex of a block of his own: others are only tried.
bool StateMemory::give_up_one() noexcept {
  std::lock_guard lock(mutex_);
  if ((parked_count_ + 1) * bytes() > parking_limit_) return false;
  for (StateBlock *block : blocks_) {
    std::unique_lock try_block(block->mutex_, std::try_to_lock);
    if (!try_block || block->pins_ > 0 || !block->data_) continue;
    try {
      block->park_here();
    } catch (...) {
      return false;
    }
    return true;
  }
  return false;
}

StateBlock::StateBlock(std::shared_ptr<MemoryAccount> account, MemoryKind kind, bool is_zero)
    : account_(std::move(account)), memory_(*account_->state_memory()), kind_(kind) {
  account_->reserve(kind_, memory_.bytes());
  try {
    data_ = memory_.allocate();
    if (is_zero) memory_.zero(data_);
    if (memory_.parking_limit_ > 0) {
      std::lock_guard lock(memory_.mutex_);
      place_ = memory_.blocks_.insert(memory_.blocks_.end(), this);
    }
  } catch (...) {
    if (data_) memory_.release(data_);
    account_->release(kind_, memory_.bytes());
    throw;
  }
}

StateBlock::~StateBlock() {
  if (memory_.parking_limit_ > 0) {
    std::lock_guard lock(memory_.mutex_);
    memory_.blocks_.erase(place_);
  }
  if (parked_) {
    memory_.parked_count_--;
    memory_.release_parked(parked_);
    return;
  }
  memory_.release(data_);
  account_->release(kind_, memory_.bytes());
}

void StateBlock::park_here() {
  parked_ = memory_.park(data_);
  data_ = nullptr;
  memory_.parked_count_++;
  account_->release(kind_, memory_.bytes());
}

void *StateBlock::resident() {
  if (data_) return data_;
  account_->reserve(kind_, memory_.bytes());
  try {
    data_ = memory_.unpark(parked_);
  } catch (...) {
    account_->release(kind_, memory_.bytes());
    throw;
  }
  parked_ = nullptr;
  memory_.parked_count_--;
  return data_;
}

void StateBlock::touch() noexcept {
  if (memory_.parking_limit_ == 0) return;
  std::lock_guard lock(memory_.mutex_);
  memory_.blocks_.splice(memory_.blocks_.end(), memory_.blocks_, place_);
}

void *StateBlock::pin() {
  touch();
  std::lock_guard lock(mutex_);
  void *data = resident();
  pins_++;
  return data;
}

void StateBlock::unpin() noexcept {
  std::lock_guard lock(mutex_);
  pins_--;
}

void StateBlock::zero() {
  std::lock_guard lock(mutex_);
  memory_.zero(resident());
}

void StateBlock::copy_from(StateBlock &other) {
  const void *from = other.pin();
  try {
    std::lock_guard lock(mutex_);
    memory_.copy(from, resident());
  } catch (...) {
    other.unpin();
    throw;
  }
  other.unpin();
}

void StateBlock::read(size_t first, std::span<float> values) {
  std::lock_guard lock(mutex_);
  memory_.read(resident(), first, values);
}

void StateBlock::write(size_t first, std::span<const float> values) {
  std::lock_guard lock(mutex_);
  memory_.write(resident(), first, values);
}

bool StateBlock::park() {
  std::lock_guard lock(mutex_);
  if (pins_ > 0) return false;
  if (data_) park_here();
  return true;
}

void StateBlock::count_as(MemoryKind kind) noexcept {
  std::lock_guard lock(mutex_);
  if (kind == kind_) return;
  if (data_) account_->move(kind_, kind, memory_.bytes());
  kind_ = kind;
}

}  // namespace libwkv
