// SPDX-License-Identifier: Apache-2.0
// The state of one sequence on the CPU, and its use by one call at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include <wkv/cache.h>

#include "base/busy.h"
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

  size_t layers, width, heads, head_size;
  size_t layer_floats, floats;
};

class Cache {
 public:
  Cache(const HyperParameters &hyper, std::shared_ptr<MemoryAccount> account);

  // These expect the caller to hold busy().
  std::shared_ptr<Cache> copy() const;
  void assign(const Cache &source);
  void reset();
  void read_state(int64_t layer, wkv_state_part part, std::span<float> values) const;
  void write_state(int64_t layer, wkv_state_part part, std::span<const float> values);
  size_t part_values(wkv_state_part part) const;  // throws WKV_INVALID for an unknown part

  BusyFlag &busy() const { return busy_; }
  const StateLayout &layout() const { return layout_; }
  const std::shared_ptr<MemoryAccount> &account() const { return account_; }  // its identity is the model's
  float *state() { return state_.as<float>(); }
  const float *state() const { return state_.as<float>(); }
  size_t bytes() const { return state_.size(); }

  uint64_t position = 0;
  int32_t last_token = -1;

 private:
  Cache(const StateLayout &layout, std::shared_ptr<MemoryAccount> account);
  size_t part_offset(int64_t layer, wkv_state_part part) const;  // throws WKV_INVALID for a layer outside the model

  StateLayout layout_;
  std::shared_ptr<MemoryAccount> account_;
  Buffer state_;
  mutable BusyFlag busy_;
};

}  // namespace libwkv
