// SPDX-License-Identifier: Apache-2.0
// The C entries of cache.h.
#include <wkv/cache.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "api/edge.h"
#include "api/handles.h"
#include "api/in_use.h"
#include "engine/model.h"
#include "state/cache.h"
#include "state/initial_state.h"

using namespace libwkv;

namespace {

using InUse = api::InUse<Cache>;

constexpr size_t most_caches = size_t{1} << 20;
constexpr uint32_t default_checkpoints = 8, most_checkpoints = 65536;

// Several caches, each used exclusively however often it stands in the array.
class ManyInUse {
 public:
  ManyInUse(wkv_cache *const *handles, size_t count, const char *what) {
    if (count > most_caches) fail(WKV_INVALID, "%s_count is %zu, at most %zu", what, count, most_caches);
    api::needed(handles, what);
    handles_.assign(handles, handles + count);
    for (size_t i = 0; i < count; i++)
      if (!handles_[i]) fail(WKV_INVALID, "%s[%zu] is NULL", what, i);
    caches_.reserve(count);
    for (const wkv_cache *handle : handles_) caches_.push_back(handle->object);
    sorted_.reserve(count);
    for (const auto &cache : caches_) sorted_.push_back(cache.get());
    std::sort(sorted_.begin(), sorted_.end());
    sorted_.erase(std::unique(sorted_.begin(), sorted_.end()), sorted_.end());
    for (; taken_ < sorted_.size(); taken_++)
      if (!sorted_[taken_]->busy().try_acquire()) {
        release();
        fail(WKV_BUSY, "a cache is in use by another call");
      }
  }
  ~ManyInUse() { release(); }
  ManyInUse(const ManyInUse &) = delete;
  ManyInUse &operator=(const ManyInUse &) = delete;

  Cache &operator[](size_t i) const { return *caches_[i]; }
  const wkv_cache *handle(size_t i) const { return handles_[i]; }
  bool are_different() const { return sorted_.size() == caches_.size(); }

 private:
  void release() {
    while (taken_ > 0) sorted_[--taken_]->busy().release();
  }
  std::vector<const wkv_cache *> handles_;
  std::vector<std::shared_ptr<Cache>> caches_;
  std::vector<Cache *> sorted_;
  size_t taken_ = 0;  // of sorted_
};

// Writes copies[i] = copy of the cache that index_of(i) names: all of them or, when memory fails, none.
template <class IndexOf>
void write_copies(const ManyInUse &caches, wkv_cache **copies, size_t count, const IndexOf &index_of) {
  std::vector<std::unique_ptr<wkv_cache>> made;
  made.reserve(count);
  for (size_t i = 0; i < count; i++) {
    const size_t index = index_of(i);
    made.push_back(std::make_unique<wkv_cache>(wkv_cache{caches[index].copy(), caches.handle(index)->model}));
  }
  for (size_t i = 0; i < count; i++) copies[i] = made[i].release();
}

void check_indices(const size_t *indices, size_t count, size_t caches_count, const char *what) {
  api::needed(indices, what);
  for (size_t i = 0; i < count; i++)
    if (indices[i] >= caches_count)
      fail(WKV_INVALID, "%s[%zu] is %zu, there are %zu caches", what, i, indices[i], caches_count);
}

}  // namespace

extern "C" {

wkv_status wkv_cache_create(wkv_model *model, const wkv_cache_options *options, wkv_cache **cache, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(model, "model");
    api::needed(cache, "cache");
    const wkv_cache_options o = api::read_options(options, "options");
    if (o.reserved != 0) fail(WKV_UNSUPPORTED, "options.reserved is %u, expected 0", o.reserved);
    if (o.checkpoints_count_max > most_checkpoints)
      fail(WKV_INVALID, "checkpoints_count_max is %u, at most %u", o.checkpoints_count_max, most_checkpoints);
    std::shared_ptr<Model> owner = model->object;
    CacheOptions values;
    values.checkpoint_every_tokens = o.checkpoint_every_tokens;
    values.checkpoints_count_max = o.checkpoints_count_max ? o.checkpoints_count_max : default_checkpoints;
    if (o.checkpoints_bytes_max)
      values.checkpoints_count_max = static_cast<uint32_t>(
          std::min<uint64_t>(values.checkpoints_count_max, o.checkpoints_bytes_max / owner->info().state_bytes));
    if (o.initial_state) {
      if (o.initial_state->object->account() != owner->account())
        fail(WKV_MISMATCH, "the initial state belongs to another model");
      values.initial = o.initial_state->object->state();
    }
    std::shared_ptr<Cache> made = owner->create_cache(std::move(values));
    *cache = new wkv_cache{std::move(made), std::move(owner)};
    return WKV_OK;
  });
}

wkv_status wkv_cache_copy(wkv_cache *source, wkv_cache **copy, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(copy, "copy");
    InUse use(source, "cache");
    std::shared_ptr<Model> owner = source->model;
    *copy = new wkv_cache{use->copy(), std::move(owner)};
    return WKV_OK;
  });
}

wkv_status wkv_cache_assign(wkv_cache *target, wkv_cache *source, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(source, "source");
    InUse to(target, "cache");
    if (source->object == to.object) return WKV_OK;
    InUse from(source, "cache");
    if (from->account() != to->account()) fail(WKV_MISMATCH, "the caches belong to two models");
    to->assign(*from);
    return WKV_OK;
  });
}

wkv_status wkv_cache_park(wkv_cache *cache, wkv_error *error) {
  return api::guard(error, [&] {
    InUse use(cache, "cache");
    if (!use->now().state.park()) fail(WKV_BUSY, "a step reads the cache's state, which a fork shares");
    return WKV_OK;
  });
}

wkv_status wkv_cache_reset(wkv_cache *cache, wkv_error *error) {
  return api::guard(error, [&] {
    InUse(cache, "cache")->reset();
    return WKV_OK;
  });
}

wkv_status wkv_cache_select(wkv_cache *const *caches, size_t caches_count, const size_t *indices, wkv_cache **copies,
                            size_t copies_count, wkv_error *error) {
  return api::guard(error, [&] {
    if (copies_count == 0) return WKV_OK;
    if (copies_count > most_caches) fail(WKV_INVALID, "copies_count is %zu, at most %zu", copies_count, most_caches);
    api::needed(copies, "copies");
    check_indices(indices, copies_count, caches_count, "indices");
    write_copies(ManyInUse(caches, caches_count, "caches"), copies, copies_count, [&](size_t i) { return indices[i]; });
    return WKV_OK;
  });
}

wkv_status wkv_cache_repeat(wkv_cache *const *caches, size_t caches_count, size_t times, wkv_cache **copies,
                            size_t copies_count, wkv_error *error) {
  return api::guard(error, [&] {
    if (caches_count == 0) fail(WKV_INVALID, "caches_count is 0");
    if (times == 0) fail(WKV_INVALID, "times is 0");
    if (copies_count > most_caches) fail(WKV_INVALID, "copies_count is %zu, at most %zu", copies_count, most_caches);
    if (copies_count % times != 0 || copies_count / times != caches_count)
      fail(WKV_INVALID, "copies_count is %zu, expected %zu times %zu", copies_count, caches_count, times);
    api::needed(copies, "copies");
    write_copies(ManyInUse(caches, caches_count, "caches"), copies, copies_count, [&](size_t i) { return i / times; });
    return WKV_OK;
  });
}

wkv_status wkv_cache_reorder(wkv_cache *const *caches, const size_t *sources, size_t caches_count, wkv_error *error) {
  return api::guard(error, [&] {
    if (caches_count == 0) return WKV_OK;
    const ManyInUse many(caches, caches_count, "caches");
    check_indices(sources, caches_count, caches_count, "sources");
    if (!many.are_different()) fail(WKV_INVALID, "the same cache stands in two places");
    for (size_t i = 1; i < caches_count; i++)
      if (many[i].account() != many[0].account()) fail(WKV_MISMATCH, "the caches belong to two models");
    std::vector<std::shared_ptr<Cache>> before(caches_count);  // NULL: stays what it is
    for (size_t i = 0; i < caches_count; i++)
      if (sources[i] != i) before[i] = many[sources[i]].copy();
    for (size_t i = 0; i < caches_count; i++)
      if (before[i]) many[i].assign(*before[i]);
    return WKV_OK;
  });
}

wkv_status wkv_cache_mark(wkv_cache *cache, uint64_t *position, wkv_error *error) {
  return api::guard(error, [&] {
    InUse use(cache, "cache");
    use->mark();
    if (position) *position = use->now().position;
    return WKV_OK;
  });
}

wkv_status wkv_cache_unmark(wkv_cache *cache, uint64_t position, wkv_error *error) {
  return api::guard(error, [&] {
    InUse(cache, "cache")->unmark(position);
    return WKV_OK;
  });
}

wkv_status wkv_cache_rollback(wkv_cache *cache, uint64_t position, wkv_error *error) {
  return api::guard(error, [&] {
    InUse(cache, "cache")->rollback(position);
    return WKV_OK;
  });
}

wkv_status wkv_cache_get_kept_positions(const wkv_cache *cache, uint64_t *positions, size_t capacity,
                                        size_t *positions_count, wkv_error *error) {
  return api::guard(error, [&] {
    const bool is_query = api::is_query(positions, capacity, positions_count, "positions", "positions_count");
    InUse use(cache, "cache");
    const std::span<const Checkpoint> kept = use->checkpoints();
    if (!is_query) api::check_room(kept.size(), capacity, positions_count);
    *positions_count = kept.size();
    if (is_query) return WKV_OK;
    for (size_t i = 0; i < kept.size(); i++) positions[i] = kept[i].moment.position;
    return WKV_OK;
  });
}

wkv_status wkv_cache_get_info(const wkv_cache *cache, wkv_cache_info *info, wkv_error *error) {
  return api::guard(error, [&] {
    api::check_info(info, "info");
    InUse use(cache, "cache");
    const Moment &now = use->now();
    wkv_cache_info values{};
    values.state_type = WKV_TYPE_F32;
    values.position = now.position;
    values.bytes = use->layout().bytes();
    values.last_token = now.last_tokens.last();
    values.is_shared = now.state && !now.state.is_only();
    values.kept_count = use->checkpoints().size();
    values.kept_bytes = values.kept_count * values.bytes;
    std::copy_n(now.last_tokens.ids.begin(), now.last_tokens.count, values.last_tokens);
    values.last_tokens_count = static_cast<int32_t>(now.last_tokens.count);
    api::write_text(values.device, "cpu");
    api::write_info(info, values);
    return WKV_OK;
  });
}

wkv_status wkv_cache_read_state(wkv_cache *cache, int32_t layer, wkv_state_part part, float *values,
                                size_t values_count, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(values, "values");
    InUse(cache, "cache")->read_state(layer, part, {values, values_count});
    return WKV_OK;
  });
}

wkv_status wkv_cache_write_state(wkv_cache *cache, int32_t layer, wkv_state_part part, const float *values,
                                 size_t values_count, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(values, "values");
    InUse(cache, "cache")->write_state(layer, part, {values, values_count});
    return WKV_OK;
  });
}

void wkv_cache_release(wkv_cache *cache) { delete cache; }

}  // extern "C"
