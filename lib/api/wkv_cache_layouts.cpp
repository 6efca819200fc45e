// SPDX-License-Identifier: Apache-2.0
// The C entries of cache.h that look at a whole state: other engines' layouts, and the check for numbers that are none.
#include <wkv/cache.h>

#include "api/edge.h"
#include "api/handles.h"
#include "api/in_use.h"
#include "state/layouts.h"

using namespace libwkv;

namespace {

using InUse = api::InUse<Cache>;

}  // namespace

extern "C" {

wkv_status wkv_cache_check(wkv_cache *cache, int32_t *layer, wkv_state_part *part, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(layer, "layer");
    api::needed(part, "part");
    BadPart found = check_state(*InUse(cache, "cache"));
    *layer = found.layer;
    *part = found.part;
    return WKV_OK;
  });
}

wkv_status wkv_cache_export(wkv_cache *cache, wkv_state_layout layout, float *values, size_t values_count,
                            wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(values, "values");
    export_state(*InUse(cache, "cache"), layout, {values, values_count});
    return WKV_OK;
  });
}

wkv_status wkv_cache_import(wkv_cache *cache, wkv_state_layout layout, const float *values, size_t values_count,
                            uint64_t position, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(values, "values");
    import_state(*InUse(cache, "cache"), layout, {values, values_count}, position);
    return WKV_OK;
  });
}

}  // extern "C"
