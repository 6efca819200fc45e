// SPDX-License-Identifier: Apache-2.0
// The C entries of cache.h.
#include <wkv/cache.h>

#include "api/edge.h"
#include "api/handles.h"
#include "engine/model.h"
#include "state/cache.h"

using namespace libwkv;

namespace {

// A reference to the cache for the whole call, and exclusive use of it.
struct InUse {
  explicit InUse(const wkv_cache *handle)
      : cache(api::needed(handle, "cache")->object), guard(cache->busy(), "cache") {}
  std::shared_ptr<Cache> cache;
  BusyGuard guard;
};

}  // namespace

extern "C" {

wkv_status wkv_cache_create(wkv_model *model, const wkv_cache_options *options, wkv_cache **cache, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(model, "model");
    api::needed(cache, "cache");
    wkv_cache_options o = api::read_options(options, "options");
    if (o.reserved != 0) fail(WKV_UNSUPPORTED, "options.reserved is %u, expected 0", o.reserved);
    std::shared_ptr<Model> owner = model->object;
    std::shared_ptr<Cache> made = owner->create_cache();
    *cache = new wkv_cache{std::move(made), std::move(owner)};
    return WKV_OK;
  });
}

wkv_status wkv_cache_copy(wkv_cache *source, wkv_cache **copy, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(copy, "copy");
    InUse use(source);
    std::shared_ptr<Model> owner = source->model;
    *copy = new wkv_cache{use.cache->copy(), std::move(owner)};
    return WKV_OK;
  });
}

wkv_status wkv_cache_assign(wkv_cache *target, wkv_cache *source, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(source, "source");
    InUse to(target);
    if (source->object == to.cache) return WKV_OK;
    InUse from(source);
    if (from.cache->account() != to.cache->account()) fail(WKV_MISMATCH, "the caches belong to two models");
    to.cache->assign(*from.cache);
    return WKV_OK;
  });
}

wkv_status wkv_cache_reset(wkv_cache *cache, wkv_error *error) {
  return api::guard(error, [&] {
    InUse(cache).cache->reset();
    return WKV_OK;
  });
}

wkv_status wkv_cache_get_info(const wkv_cache *cache, wkv_cache_info *info, wkv_error *error) {
  return api::guard(error, [&] {
    api::check_info(info, "info");
    InUse use(cache);
    wkv_cache_info values{};
    values.state_type = WKV_TYPE_F32;
    values.position = use.cache->position;
    values.bytes = use.cache->bytes();
    values.last_token = use.cache->last_token;
    api::write_text(values.device, "cpu");
    api::write_info(info, values);
    return WKV_OK;
  });
}

wkv_status wkv_cache_read_state(wkv_cache *cache, int32_t layer, wkv_state_part part, float *values,
                                size_t values_count, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(values, "values");
    InUse(cache).cache->read_state(layer, part, {values, values_count});
    return WKV_OK;
  });
}

wkv_status wkv_cache_write_state(wkv_cache *cache, int32_t layer, wkv_state_part part, const float *values,
                                 size_t values_count, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(values, "values");
    InUse(cache).cache->write_state(layer, part, {values, values_count});
    return WKV_OK;
  });
}

void wkv_cache_release(wkv_cache *cache) { delete cache; }

}  // extern "C"
