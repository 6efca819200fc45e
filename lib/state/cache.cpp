// SPDX-License-Identifier: Apache-2.0
#include "state/cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace libwkv {

void LastTokens::push(std::span<const int32_t> tokens) {
  constexpr size_t most = WKV_LAST_TOKENS;
  if (tokens.size() > most) tokens = tokens.last(most);
  const size_t kept = std::min<size_t>(count, most - tokens.size());
  std::copy(ids.begin() + (count - kept), ids.begin() + count, ids.begin());
  std::copy(tokens.begin(), tokens.end(), ids.begin() + static_cast<ptrdiff_t>(kept));
  count = static_cast<uint32_t>(kept + tokens.size());
}

Cache::Cache(const HyperParameters &hyper, std::shared_ptr<MemoryAccount> account, CacheOptions options)
    : layout_(hyper), account_(std::move(account)), options_(std::move(options)) {
  // A cache that starts from zeros has its memory from the beginning, so that a budget refuses it here and not at its
  // first step.
  now_.state = options_.initial ? options_.initial.as(Holder::cache)
                                : StateHold::make(account_, layout_.floats, Holder::cache, true);
}

Cache::Cache(const Cache &source)
    : layout_(source.layout_),
      account_(source.account_),
      options_(source.options_),
      now_(source.now_),
      checkpoints_(source.checkpoints_) {}

std::shared_ptr<Cache> Cache::copy() const { return std::shared_ptr<Cache>(new Cache(*this)); }

void Cache::assign(const Cache &source) noexcept {
  options_ = source.options_;
  now_ = source.now_;
  checkpoints_ = source.checkpoints_;
}

void Cache::reset() noexcept {
  if (options_.initial || !now_.state.is_only()) return replace({0, {}, options_.initial});
  try {
    now_.state.zero();
  } catch (const Error &) {
    return replace({0, {}, {}});  // a parked state that found no room, or a lost device: no state is all zero as well
  }
  replace({0, {}, std::move(now_.state)});
}

void Cache::replace(Moment moment) noexcept {
  checkpoints_.reset();
  now_ = std::move(moment);
  now_.state = now_.state.as(Holder::cache);
}

void Cache::go_back(Moment moment) {
  keep_until(moment.position);
  now_ = std::move(moment);
  now_.state = now_.state.as(Holder::cache);
}

void Cache::keep_until(uint64_t position) {
  const std::span<const Checkpoint> kept = checkpoints();
  if (kept.empty() || kept.back().moment.position <= position) return;
  auto list = std::make_shared<Checkpoints>();
  for (const Checkpoint &checkpoint : kept)
    if (checkpoint.moment.position <= position) list->push_back(checkpoint);
  checkpoints_ = std::move(list);
}

const Checkpoint *Cache::find(uint64_t position) const {
  const std::span<const Checkpoint> kept = checkpoints();
  const auto found = std::lower_bound(kept.begin(), kept.end(), position, [](const Checkpoint &entry, uint64_t wanted) {
    return entry.moment.position < wanted;
  });
  return found != kept.end() && found->moment.position == position ? &*found : nullptr;
}

void Cache::mark() {
  auto list = std::make_shared<Checkpoints>();
  list->reserve(checkpoints().size() + 1);
  // Steps only go forward and rolling back drops what lies ahead, so nothing is kept behind the present.
  for (const Checkpoint &checkpoint : checkpoints())
    if (checkpoint.moment.position != now_.position) list->push_back(checkpoint);
  list->push_back({{now_.position, now_.last_tokens, now_.state.as(Holder::checkpoint)}, Kept::mark});
  checkpoints_ = std::move(list);
}

void Cache::unmark(uint64_t position) {
  const Checkpoint *found = find(position);
  if (!found) fail(WKV_NOT_FOUND, "no checkpoint is kept at position %llu", static_cast<unsigned long long>(position));
  auto list = std::make_shared<Checkpoints>();
  list->reserve(checkpoints().size() - 1);
  for (const Checkpoint &checkpoint : checkpoints())
    if (&checkpoint != found) list->push_back(checkpoint);
  checkpoints_ = std::move(list);
}

void Cache::rollback(uint64_t position) {
  if (position > now_.position)
    fail(WKV_NOT_FOUND, "position %llu lies ahead of %llu", static_cast<unsigned long long>(position),
         static_cast<unsigned long long>(now_.position));
  // Before the present itself: a state that was written to after its mark goes back to the mark.
  const Checkpoint *found = find(position);
  if (found) return go_back(Moment(found->moment));
  if (position != now_.position)
    fail(WKV_NOT_FOUND, "no checkpoint is kept at position %llu", static_cast<unsigned long long>(position));
}

void Cache::own_state() {
  if (now_.state.is_only()) return;
  StateHold own = StateHold::make(account_, layout_.floats, Holder::cache, !now_.state);
  if (now_.state) own.copy_from(now_.state);
  now_.state = std::move(own);
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
  size_t count = part_values(part), offset = part_offset(layer, part);
  if (values.size() < count) fail(WKV_INVALID, "values_count is %zu, the part has %zu", values.size(), count);
  if (!now_.state) {
    std::fill_n(values.begin(), count, 0.0f);
    return;
  }
  if (part != WKV_STATE_WKV) return now_.state.read(offset, values.first(count));
  if (const float *floats = now_.state.host_floats()) return transpose_wkv(layout_, floats + offset, values.data());
  std::vector<float> copy(count);
  now_.state.read(offset, copy);
  transpose_wkv(layout_, copy.data(), values.data());
}

void Cache::write_state(int64_t layer, wkv_state_part part, std::span<const float> values) {
  size_t count = part_values(part), offset = part_offset(layer, part);
  if (values.size() != count) fail(WKV_INVALID, "values_count is %zu, the part has %zu", values.size(), count);
  for (size_t i = 0; i < count; i++)
    if (!std::isfinite(values[i])) fail(WKV_INVALID, "value %zu is not a finite number", i);
  std::vector<float> transposed;
  const bool is_on_host = !account_->state_memory();
  if (part == WKV_STATE_WKV && !is_on_host) {
    transposed.resize(count);
    transpose_wkv(layout_, values.data(), transposed.data());
    values = transposed;
  }
  own_state();
  if (part == WKV_STATE_WKV && is_on_host)
    transpose_wkv(layout_, values.data(), now_.state.host_floats() + offset);
  else
    now_.state.write(offset, values);
}

}  // namespace libwkv
