// SPDX-License-Identifier: Apache-2.0
#include "state/state.h"

#include <utility>

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

// Floats with a count of references a reason.
class State {
 public:
  State(const std::shared_ptr<MemoryAccount> &account, size_t floats, Holder holder, bool is_zero)
      : floats_(account, kind_of(holder), floats * sizeof(float), is_zero) {}

  float *floats() const { return floats_.as<float>(); }

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
    floats_.count_as(kind_of(static_cast<Holder>(first)));
  }

  mutable std::mutex mutex_;
  std::array<size_t, 3> holds_{};
  Buffer floats_;
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
float *StateHold::floats() const { return state_ ? state_->floats() : nullptr; }

}  // namespace libwkv
