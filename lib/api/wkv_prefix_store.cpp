// SPDX-License-Identifier: Apache-2.0
// The C entries of prefix_store.h.
#include <wkv/prefix_store.h>

#include <utility>

#include "api/edge.h"
#include "api/handles.h"
#include "engine/model.h"
#include "state/cache.h"
#include "state/prefix_store.h"

using namespace libwkv;

namespace {

PrefixStoreOptions read_store_options(const wkv_prefix_store_options *options) {
  const wkv_prefix_store_options o = api::read_options(options, "options");
  if (o.reserved != 0) fail(WKV_UNSUPPORTED, "options.reserved is %d, expected 0", o.reserved);
  if (o.directory && o.storage) fail(WKV_INVALID, "options have both a directory and a storage");
  if (o.directory && !*o.directory) fail(WKV_INVALID, "options.directory is empty");
  if (o.save_type != WKV_TYPE_DEFAULT && o.save_type != WKV_TYPE_F32 && o.save_type != WKV_TYPE_F16)
    fail(WKV_INVALID, "options.save_type is %d, expected 0, F32 or F16", o.save_type);
  PrefixStoreOptions values;
  if (o.min_tokens) values.min_tokens = o.min_tokens;
  if (o.memory_bytes_max) values.memory_bytes_max = o.memory_bytes_max;
  if (o.directory) values.directory = o.directory;
  if (o.save_type) values.save_type = o.save_type;
  values.storage_bytes_max = o.directory_bytes_max;
  if (!o.storage) return values;
  values.storage = api::read_options(o.storage, "options.storage");
  if (values.storage.reserved != 0)
    fail(WKV_UNSUPPORTED, "options.storage.reserved is %u, expected 0", values.storage.reserved);
  if (!values.storage.put || !values.storage.get || !values.storage.evict)
    fail(WKV_INVALID, "options.storage lacks put, get or evict");
  return values;
}

// References for the whole call, and exclusive use of the cache.
struct InUse {
  InUse(const wkv_prefix_store *store_handle, const int32_t *ids, size_t ids_count, const wkv_cache *cache_handle)
      : store(api::needed(store_handle, "store")->object),
        cache(api::needed(cache_handle, "cache")->object),
        tokens(ids_count ? api::needed(ids, "tokens") : nullptr, ids_count),
        guard(cache->busy(), "cache") {}
  std::shared_ptr<PrefixStore> store;
  std::shared_ptr<Cache> cache;
  std::span<const int32_t> tokens;
  BusyGuard guard;
};

}  // namespace

extern "C" {

wkv_status wkv_prefix_store_create(wkv_model *model, const wkv_prefix_store_options *options, wkv_prefix_store **store,
                                   wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(model, "model");
    api::needed(store, "store");
    PrefixStoreOptions values = read_store_options(options);
    std::shared_ptr<Model> owner = model->object;
    std::shared_ptr<PrefixStore> made =
        PrefixStore::make(owner->hyper_parameters(), owner->info().fingerprint, owner->account(), std::move(values));
    *store = new wkv_prefix_store{std::move(made), std::move(owner)};
    return WKV_OK;
  });
}

wkv_status wkv_prefix_store_find(wkv_prefix_store *store, const int32_t *tokens, size_t tokens_count, wkv_cache *cache,
                                 size_t *known_count, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(known_count, "known_count");
    InUse use(store, tokens, tokens_count, cache);
    *known_count = use.store->find(use.tokens, *use.cache);
    return WKV_OK;
  });
}

wkv_status wkv_prefix_store_put(wkv_prefix_store *store, const int32_t *tokens, size_t tokens_count, wkv_cache *cache,
                                wkv_error *error) {
  return api::guard(error, [&] {
    InUse use(store, tokens, tokens_count, cache);
    use.store->put(use.tokens, *use.cache);
    return WKV_OK;
  });
}

wkv_status wkv_prefix_store_clear(wkv_prefix_store *store, wkv_error *error) {
  return api::guard(error, [&] {
    std::shared_ptr<PrefixStore>(api::needed(store, "store")->object)->clear();
    return WKV_OK;
  });
}

wkv_status wkv_prefix_store_get_info(wkv_prefix_store *store, wkv_prefix_store_info *info, wkv_error *error) {
  return api::guard(error, [&] {
    api::check_info(info, "info");
    api::write_info(info, std::shared_ptr<PrefixStore>(api::needed(store, "store")->object)->info());
    return WKV_OK;
  });
}

void wkv_prefix_store_release(wkv_prefix_store *store) { delete store; }

}  // extern "C"
