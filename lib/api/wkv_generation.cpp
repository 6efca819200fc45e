// SPDX-License-Identifier: Apache-2.0
// The C entries of generation.h.
#include <wkv/generation.h>

#include "api/edge.h"
#include "api/handles.h"
#include "engine/generation.h"
#include "engine/model.h"
#include "state/prefix_store.h"

using namespace libwkv;

extern "C" {

wkv_status wkv_generation_create(wkv_cache *cache, wkv_sampler *sampler, const wkv_generation_options *options,
                                 wkv_generation **generation, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(cache, "cache");
    api::needed(generation, "generation");
    const wkv_generation_options values = api::read_options(options, "options");
    if (values.prefix_store && values.prefix_store->object->account() != cache->object->account())
      fail(WKV_MISMATCH, "the prefix store belongs to another model");
    *generation = new wkv_generation{
        std::make_shared<Generation>(cache->model, cache->object, sampler ? sampler->object : nullptr,
                                     values.tokenizer ? values.tokenizer->object : nullptr,
                                     values.prefix_store ? values.prefix_store->object : nullptr, values)};
    return WKV_OK;
  });
}

wkv_status wkv_generation_next(wkv_generation *generation, wkv_generation_piece *piece, wkv_error *error) {
  return api::guard(error, [&]() -> wkv_status {
    const std::shared_ptr<Generation> object = api::needed(generation, "generation")->object;
    api::check_info(api::needed(piece, "piece"), "piece");
    wkv_generation_piece values{};
    const bool is_piece = object->next(values);
    api::write_info(piece, values);
    return is_piece ? WKV_OK : WKV_END;
  });
}

void wkv_generation_release(wkv_generation *generation) { delete generation; }

}  // extern "C"
