// SPDX-License-Identifier: Apache-2.0
#include "state/layouts.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace libwkv {
namespace {

// Where the parts of a layer begin in another engine's floats, and how its WKV lies.
struct Places {
  size_t att_shift, ffn_shift, wkv;
  bool is_key_first;
};

Places places_of(const StateLayout &state, wkv_state_layout layout, size_t layer) {
  const size_t width = state.width, wkv = state.heads * state.head_size * state.head_size;
  const size_t begin = layer * state.layer_floats;
  switch (layout) {
    case WKV_LAYOUT_OFFICIAL:
      return {begin, begin + width + wkv, begin + width, false};
    case WKV_LAYOUT_FLA:
      return {begin + wkv, begin + wkv + width, begin, true};
    case WKV_LAYOUT_RWKV_CPP:
      return {begin + width, begin, begin + 2 * width, false};
    case WKV_LAYOUT_LLAMA_CPP:
      return {layer * 2 * width, layer * 2 * width + width, state.layers * 2 * width + layer * wkv, false};
  }
  fail(WKV_INVALID, "state layout %d does not exist", layout);
}

void copy_wkv(const StateLayout &state, bool is_transposed, const float *from, float *to) {
  if (is_transposed)
    transpose_wkv(state, from, to);
  else
    std::copy_n(from, state.heads * state.head_size * state.head_size, to);
}

bool is_finite(const float *values, size_t count) {
  return std::all_of(values, values + count, [](float value) { return std::isfinite(value); });
}

}  // namespace

void export_state(const Cache &cache, wkv_state_layout layout, std::span<float> values) {
  const StateLayout &state = cache.layout();
  places_of(state, layout, 0);
  if (values.size() < state.floats)
    fail(WKV_INVALID, "values_count is %zu, the state has %zu", values.size(), state.floats);
  if (!cache.now().state) {
    std::fill_n(values.begin(), state.floats, 0.0f);
    return;
  }
  const StateView view(cache.now().state, state.floats);
  const float *from = view.floats();
  for (size_t l = 0; l < state.layers; l++) {
    const int64_t layer = static_cast<int64_t>(l);
    const Places to = places_of(state, layout, l);
    std::copy_n(from + state.att_shift(layer), state.width, values.data() + to.att_shift);
    std::copy_n(from + state.ffn_shift(layer), state.width, values.data() + to.ffn_shift);
    copy_wkv(state, !to.is_key_first, from + state.wkv(layer), values.data() + to.wkv);
  }
}

void import_state(Cache &cache, wkv_state_layout layout, std::span<const float> values, uint64_t position) {
  const StateLayout &state = cache.layout();
  places_of(state, layout, 0);
  if (values.size() != state.floats)
    fail(WKV_INVALID, "values_count is %zu, the state has %zu", values.size(), state.floats);
  if (position > INT64_MAX)
    fail(WKV_INVALID, "position is %llu, at most 2^63 - 1 is possible", static_cast<unsigned long long>(position));
  for (size_t i = 0; i < values.size(); i++)
    if (!std::isfinite(values[i])) fail(WKV_INVALID, "value %zu is not a finite number", i);

  // Memory that is the cache's alone is written in place: nothing can fail on the way but a device.
  StateHold hold = cache.now().state.is_only() ? cache.now().state
                                               : StateHold::make(cache.account(), state.floats, Holder::cache, false);
  StateDraft draft(hold, state.floats);
  float *to = draft.floats();
  for (size_t l = 0; l < state.layers; l++) {
    const int64_t layer = static_cast<int64_t>(l);
    const Places from = places_of(state, layout, l);
    std::copy_n(values.data() + from.att_shift, state.width, to + state.att_shift(layer));
    std::copy_n(values.data() + from.ffn_shift, state.width, to + state.ffn_shift(layer));
    copy_wkv(state, !from.is_key_first, values.data() + from.wkv, to + state.wkv(layer));
  }
  draft.finish();
  cache.replace({position, {}, std::move(hold)});
}

BadPart check_state(const Cache &cache) {
  const StateLayout &state = cache.layout();
  if (!cache.now().state) return {};
  const StateView view(cache.now().state, state.floats);
  const float *floats = view.floats();
  for (size_t l = 0; l < state.layers; l++) {
    const int64_t layer = static_cast<int64_t>(l);
    const std::pair<wkv_state_part, std::pair<size_t, size_t>> parts[] = {
        {WKV_STATE_ATT_SHIFT, {state.att_shift(layer), state.width}},
        {WKV_STATE_FFN_SHIFT, {state.ffn_shift(layer), state.width}},
        {WKV_STATE_WKV, {state.wkv(layer), state.heads * state.head_size * state.head_size}}};
    for (const auto &[part, place] : parts)
      if (!is_finite(floats + place.first, place.second)) return {static_cast<int32_t>(l), part};
  }
  return {};
}

}  // namespace libwkv
