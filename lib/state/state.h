// SPDX-License-Identifier: Apache-2.0
// The numbers of a state, and who holds them. States are shared until somebody steps.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <span>

#include "base/memory.h"
#include "model/hyper_parameters.h"

namespace libwkv {

// Where the parts lie in a state's floats. Per layer: att shift [C], ffn shift [C], WKV [H][N key][N value] (the
// transpose of the official layout: kernels run along values).
struct StateLayout {
  explicit StateLayout(const HyperParameters &hyper);
  size_t att_shift(int64_t layer) const { return static_cast<size_t>(layer) * layer_floats; }
  size_t ffn_shift(int64_t layer) const { return att_shift(layer) + width; }
  size_t wkv(int64_t layer) const { return ffn_shift(layer) + width; }
  size_t bytes() const { return floats * sizeof(float); }

  size_t layers, width, heads, head_size;
  size_t layer_floats, floats;
};

// One layer's WKV between the engine's [key][value] and the official [value][key]: the same both ways, head by head.
// The memories must not overlap.
void transpose_wkv(const StateLayout &layout, const float *from, float *to) noexcept;

// Why somebody holds a state: it is counted under the first of these that holds it.
enum class Holder { cache, checkpoint, store };

class State;

// A counted reference to a state, or to none (which stands for the state that is all zero). A value: copies share.
// While more than one reference exists the floats are read-only; the only one may write.
class StateHold {
 public:
  StateHold() = default;
  // New floats, all zero or of any content. Throws WKV_OUT_OF_MEMORY.
  static StateHold make(const std::shared_ptr<MemoryAccount> &account, size_t floats, Holder holder, bool is_zero);
  StateHold(const StateHold &other) noexcept;
  StateHold(StateHold &&other) noexcept : state_(other.state_), holder_(other.holder_) { other.state_ = nullptr; }
  StateHold &operator=(StateHold other) noexcept;
  ~StateHold();
  // The same state, held for another reason.
  StateHold as(Holder holder) const noexcept;

  explicit operator bool() const { return state_ != nullptr; }
  bool is_same(const StateHold &other) const { return state_ == other.state_; }
  bool is_only() const noexcept;  // no other reference exists: only then may it be written to. False for none
  float *host_floats() const;     // NULL for none, and for a state on a device

  // For a state that there is. What can fail throws WKV_DEVICE.
  void zero() const;
  void copy_from(const StateHold &other) const;
  void read(size_t first, std::span<float> values) const;
  void write(size_t first, std::span<const float> values) const;
  // Moves a state on a device to the host's memory until it is next used. False: a step uses it. Throws
  // WKV_OUT_OF_MEMORY.
  bool park() const;

 private:
  friend class StatePin;
  StateHold(State *state, Holder holder) noexcept;
  State *state_ = nullptr;
  Holder holder_ = Holder::cache;
};

// A reference to a state that there is, which keeps it where the executor finds it. Move-only.
class StatePin {
 public:
  StatePin() = default;
  explicit StatePin(StateHold hold);  // throws WKV_OUT_OF_MEMORY, WKV_DEVICE
  StatePin(StatePin &&other) noexcept { *this = std::move(other); }
  StatePin &operator=(StatePin &&other) noexcept;
  ~StatePin();
  void *memory() const { return memory_; }  // only the executor follows it: it may lie on a device

 private:
  StateHold hold_;
  void *memory_ = nullptr;
};

struct FreeFloats {
  void operator()(float *floats) const { std::free(floats); }
};
using HostFloats = std::unique_ptr<float[], FreeFloats>;

// All floats of a state that there is, to be read in the host's memory: its own, or a copy of what lies on a device.
class StateView {
 public:
  // Throws WKV_OUT_OF_MEMORY and WKV_DEVICE.
  StateView(const StateHold &hold, size_t floats);
  const float *floats() const { return floats_; }

 private:
  HostFloats copy_;
  const float *floats_;
};

// All floats of a state that there is and that nobody else holds, to be written in the host's memory.
class StateDraft {
 public:
  // The content is anything. Throws WKV_OUT_OF_MEMORY.
  StateDraft(const StateHold &hold, size_t floats);
  float *floats() const { return floats_; }
  // They are the state's from now on. Throws WKV_DEVICE.
  void finish();

 private:
  const StateHold &hold_;
  const size_t count_;
  HostFloats copy_;
  float *floats_;
};

}  // namespace libwkv
