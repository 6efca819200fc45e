// SPDX-License-Identifier: Apache-2.0
#include "state/cache.h"

#include <cmath>
#include <cstring>

#include "base/error.h"

namespace libwkv {
namespace {

// Between the engine's [key][value] and the official [value][key]: the same transposition both ways, head by head.
void transpose_heads(size_t heads, size_t size, const float *from, float *to) {
  for (size_t head = 0; head < heads; head++, from += size * size, to += size * size)
    for (size_t i = 0; i < size; i++)
      for (size_t j = 0; j < size; j++) to[i * size + j] = from[j * size + i];
}

}  // namespace

StateLayout::StateLayout(const HyperParameters &hyper)
    : layers(static_cast<size_t>(hyper.layers)),
      width(static_cast<size_t>(hyper.width)),
      heads(static_cast<size_t>(hyper.heads)),
      head_size(static_cast<size_t>(hyper.head_size)),
      layer_floats(2 * width + heads * head_size * head_size),
      floats(layers * layer_floats) {}

Cache::Cache(const HyperParameters &hyper, std::shared_ptr<MemoryAccount> account)
    : layout_(hyper),
      account_(std::move(account)),
      state_(account_, MemoryKind::caches, layout_.floats * sizeof(float)) {}

Cache::Cache(const StateLayout &layout, std::shared_ptr<MemoryAccount> account)
    : layout_(layout),
      account_(std::move(account)),
      state_(account_, MemoryKind::caches, layout_.floats * sizeof(float)) {}

std::shared_ptr<Cache> Cache::copy() const {
  std::shared_ptr<Cache> result(new Cache(layout_, account_));
  result->assign(*this);
  return result;
}

void Cache::assign(const Cache &source) {
  std::memcpy(state_.data(), source.state_.data(), state_.size());
  position = source.position;
  last_token = source.last_token;
}

void Cache::reset() {
  std::memset(state_.data(), 0, state_.size());
  position = 0;
  last_token = -1;
}

size_t Cache::part_values(wkv_state_part part) const {
  switch (part) {
    case WKV_STATE_ATT_SHIFT:
    case WKV_STATE_FFN_SHIFT:
      return layout_.width;
    case WKV_STATE_WKV:
      return layout_.heads * layout_.head_size * layout_.head_size;
  }
  fail(WKV_INVALID, "state part %d does not exist", part);
}

size_t Cache::part_offset(int64_t layer, wkv_state_part part) const {
  if (layer < 0 || static_cast<size_t>(layer) >= layout_.layers)
    fail(WKV_INVALID, "layer %lld is outside the model's %zu layers", static_cast<long long>(layer), layout_.layers);
  return part == WKV_STATE_ATT_SHIFT   ? layout_.att_shift(layer)
         : part == WKV_STATE_FFN_SHIFT ? layout_.ffn_shift(layer)
                                       : layout_.wkv(layer);
}

void Cache::read_state(int64_t layer, wkv_state_part part, std::span<float> values) const {
  size_t count = part_values(part);
  const float *from = state() + part_offset(layer, part);
  if (values.size() < count) fail(WKV_INVALID, "values_count is %zu, the part has %zu", values.size(), count);
  if (part == WKV_STATE_WKV)
    transpose_heads(layout_.heads, layout_.head_size, from, values.data());
  else
    std::memcpy(values.data(), from, count * sizeof(float));
}

void Cache::write_state(int64_t layer, wkv_state_part part, std::span<const float> values) {
  size_t count = part_values(part);
  float *to = state() + part_offset(layer, part);
  if (values.size() != count) fail(WKV_INVALID, "values_count is %zu, the part has %zu", values.size(), count);
  for (size_t i = 0; i < count; i++)
    if (!std::isfinite(values[i])) fail(WKV_INVALID, "value %zu is not a finite number", i);
  if (part == WKV_STATE_WKV)
    transpose_heads(layout_.heads, layout_.head_size, values.data(), to);
  else
    std::memcpy(to, values.data(), count * sizeof(float));
}

}  // namespace libwkv
