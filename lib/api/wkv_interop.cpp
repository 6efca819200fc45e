// SPDX-License-Identifier: Apache-2.0
// The C entries of interop.h.
#include <wkv/interop.h>

#include "api/edge.h"
#include "api/handles.h"
#include "api/in_use.h"
#include "engine/executor.h"
#include "engine/model.h"

using namespace libwkv;

extern "C" {

wkv_status wkv_cache_get_tensor(wkv_cache *cache, int32_t layer, wkv_state_part part, wkv_device_tensor *tensor,
                                wkv_error *error) {
  return api::guard(error, [&] {
    api::check_info(tensor, "tensor");
    api::InUse<Cache> use(cache, "cache");
    const StateTensor place = cache->model->state_tensor(*use, layer, part);
    const StateLayout &layout = use->layout();
    const int64_t width = static_cast<int64_t>(layout.width), size = static_cast<int64_t>(layout.head_size);
    wkv_device_tensor values{};
    values.device_type = 2;
    values.device_index = place.device;
    values.data = place.data;
    values.type_code = 2;
    values.type_bits = place.is_half ? 16 : 32;
    values.dimensions = 1;
    values.shape[0] = width;
    values.strides[0] = 1;
    if (part == WKV_STATE_WKV) {
      values.dimensions = 3;
      const int64_t shape[] = {static_cast<int64_t>(layout.heads), size, size}, strides[] = {size * size, size, 1};
      std::copy_n(shape, 3, values.shape);
      std::copy_n(strides, 3, values.strides);
    }
    api::write_info(tensor, values);
    return WKV_OK;
  });
}

wkv_status wkv_model_get_stream(wkv_model *model, void **stream, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(model, "model");
    api::needed(stream, "stream");
    *stream = model->object->queue();
    return WKV_OK;
  });
}

}  // extern "C"
