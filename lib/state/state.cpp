// SPDX-License-Identifier: Apache-2.0
#include "state/state.h"

#include <cstring>
#include <cstdlib>
#include <optional>
#include <utility>

#include <sys/mman.h>

#include "base/error.h"
#include "base/state_memory.h"

namespace libwkv {

StateLayout::StateLayout(const HyperParameters &hyper)
    : layers(static_cast<size_t>(hyper.layers)),
      width(static_cast<size_t>(hyper.width)),
      heads(static_cast<size_t>(hyper.heads)),
      head_size(static_cast<size_t>(hyper.head_size)),
      layer_floats(2 * width + heads * head_size * head_size),
      floats(layers * layer_floats) {}

void transpose_wkv(const StateLayout &layout, const float *from, float *to) noexcept {
  const size_t size = layout.head_size;
  for (size_t head = 0; head < layout.heads; head++, from += size * size, to += size * size)
    for (size_t i = 0; i < size; i++)
      for (size_t j = 0; j < size; j++) to[i * size + j] = from[j * size + i];
}

namespace {

// Fresh pages of a large state cost more than its copy from the device does: huge ones are 500 times fewer.
HostFloats make_floats(size_t count) {
  constexpr size_t huge_page = size_t{2} << 20;
  const size_t bytes = count * sizeof(float), alignment = bytes >= huge_page ? huge_page : 64;
  HostFloats floats(
      static_cast<float *>(std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment)));
  if (!floats) fail(WKV_OUT_OF_MEMORY, "no memory for %zu bytes", bytes);
#ifdef MADV_HUGEPAGE
  if (alignment == huge_page) madvise(floats.get(), (bytes + alignment - 1) / alignment * alignment, MADV_HUGEPAGE);
#endif
  return floats;
}

}  // namespace

// Numbers with a count of references a reason.
class State {
 public:
  State(const std::shared_ptr<MemoryAccount> &account, size_t floats, Holder holder, bool is_zero) {
    if (account->state_memory())
      block_.emplace(account, kind_of(holder), is_zero);
    else
      floats_ = Buffer(account, kind_of(holder), floats * sizeof(float), is_zero);
  }

  float *host_floats() const { return block_ ? nullptr : floats_.as<float>(); }
  StateBlock *block() { return block_ ? &*block_ : nullptr; }
  size_t host_bytes() const { return floats_.size(); }

  void add(Holder holder) noexcept {
    std::lock_guard lock(mutex_);
    holds_[static_cast<size_t>(holder)]++;
    count_again();
  }
  // True when it was the last one.
  bool remove(Holder holder) noexcept {
    std::lock_guard lock(mutex_);
    holds_[static_cast<size_t>(holder)]--;
    if (total() == 0) return true;
    count_again();
    return false;
  }
  bool is_only() const noexcept {
    std::lock_guard lock(mutex_);
    return total() == 1;
  }

 private:
  static MemoryKind kind_of(Holder holder) {
    return holder == Holder::cache        ? MemoryKind::caches
           : holder == Holder::checkpoint ? MemoryKind::checkpoints
                                          : MemoryKind::store;
  }
  size_t total() const { return holds_[0] + holds_[1] + holds_[2]; }
  void count_again() noexcept {
    size_t first = 0;
    while (holds_[first] == 0) first++;
    const MemoryKind kind = kind_of(static_cast<Holder>(first));
    if (block_)
      block_->count_as(kind);
    else
      floats_.count_as(kind);
  }

  mutable std::mutex mutex_;
  std::array<size_t, 3> holds_{};
  Buffer floats_;                    // of a state on the host
  std::optional<StateBlock> block_;  // of one on a device
};

StateHold StateHold::make(const std::shared_ptr<MemoryAccount> &account, size_t floats, Holder holder, bool is_zero) {
  return StateHold(new State(account, floats, holder, is_zero), holder);
}

StateHold::StateHold(State *state, Holder holder) noexcept : state_(state), holder_(holder) {
  if (state_) state_->add(holder_);
}
StateHold::StateHold(const StateHold &other) noexcept : StateHold(other.state_, other.holder_) {}

StateHold &StateHold::operator=(StateHold other) noexcept {
  std::swap(state_, other.state_);
  std::swap(holder_, other.holder_);
  return *this;
}

StateHold::~StateHold() {
  if (state_ && state_->remove(holder_)) delete state_;
}

StateHold StateHold::as(Holder holder) const noexcept { return StateHold(state_, holder); }
bool StateHold::is_only() const noexcept { return state_ && state_->is_only(); }
float *StateHold::host_floats() const { return state_ ? state_->host_floats() : nullptr; }

bool StateHold::park() const {
  StateBlock *block = state_ ? state_->block() : nullptr;
  return !block || block->park();
}

void StateHold::zero() const {
  if (StateBlock *block = state_->block()) return block->zero();
  std::memset(state_->host_floats(), 0, state_->host_bytes());
}

void StateHold::copy_from(const StateHold &other) const {
  if (StateBlock *block = state_->block()) return block->copy_from(*other.state_->block());
  std::memcpy(state_->host_floats(), other.host_floats(), state_->host_bytes());
}

void StateHold::read(size_t first, std::span<float> values) const {
  if (StateBlock *block = state_->block()) return block->read(first, values);
  std::memcpy(values.data(), host_floats() + first, values.size_bytes());
}

void StateHold::write(size_t first, std::span<const float> values) const {
  if (StateBlock *block = state_->block()) return block->write(first, values);
  std::memcpy(host_floats() + first, values.data(), values.size_bytes());
}

StatePin::StatePin(StateHold hold) : hold_(std::move(hold)) {
  StateBlock *block = hold_.state_->block();
  memory_ = block ? block->pin() : hold_.state_->host_floats();
}

StatePin &StatePin::operator=(StatePin &&other) noexcept {
  std::swap(hold_, other.hold_);
  std::swap(memory_, other.memory_);
  return *this;
}

StatePin::~StatePin() {
  if (memory_ && hold_.state_->block()) hold_.state_->block()->unpin();
}

StateView::StateView(const StateHold &hold, size_t floats) : floats_(hold.host_floats()) {
  if (floats_) return;
  copy_ = make_floats(floats);
  hold.read(0, {copy_.get(), floats});
  floats_ = copy_.get();
}

StateDraft::StateDraft(const StateHold &hold, size_t floats)
    : hold_(hold), count_(floats), floats_(hold.host_floats()) {
  if (floats_) return;
  copy_ = make_floats(floats);
  floats_ = copy_.get();
}

void StateDraft::finish() {
  if (copy_) hold_.write(0, {copy_.get(), count_});
}

}  // namespace libwkv
