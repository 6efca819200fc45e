// SPDX-License-Identifier: Apache-2.0
// The C entries of model.h, but for the tokenizer's.
#include <wkv/model.h>

#include "api/edge.h"
#include "api/handles.h"
#include "engine/memory_plan.h"
#include "engine/model.h"

using namespace libwkv;

namespace {

LoadOptions load_options(const wkv_model_options *options) {
  wkv_model_options o = api::read_options(options, "options");
  LoadOptions load;
  load.threads = o.threads;
  load.device = o.device ? o.device : "";
  load.weight_type = o.weight_type;
  load.state_type = o.state_type;
  load.memory_limit_bytes = o.memory_limit_bytes;
  if (o.progress)
    load.progress = [o](uint64_t done, uint64_t total) { return o.progress(o.progress_user, done, total) != 0; };
  load.kernels = o.kernels ? o.kernels : "";
  load.is_reproducible = o.is_reproducible != 0;
  load.chunk_tokens = o.chunk_tokens;
  load.parking_limit_bytes = o.parking_limit_bytes;
  return load;
}

}  // namespace

extern "C" {

wkv_status wkv_model_load(const char *path, const wkv_model_options *options, wkv_model **model, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(path, "path");
    api::needed(model, "model");
    LoadOptions load = load_options(options);
    *model = new wkv_model{Model::load(formats::open_checkpoint(path), load)};
    return WKV_OK;
  });
}

wkv_status wkv_model_load_memory(const void *bytes, size_t bytes_count, const wkv_model_options *options,
                                 wkv_model **model, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(bytes, "bytes");
    api::needed(model, "model");
    if (bytes_count > PTRDIFF_MAX) fail(WKV_INVALID, "bytes_count is %zu", bytes_count);
    LoadOptions load = load_options(options);
    *model = new wkv_model{
        Model::load(formats::open_checkpoint_memory({static_cast<const std::byte *>(bytes), bytes_count}), load)};
    return WKV_OK;
  });
}

wkv_status wkv_model_plan_memory(const char *path, const wkv_model_options *options, wkv_memory_plan *plan,
                                 wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(path, "path");
    api::check_info(plan, "plan");
    LoadOptions load = load_options(options);
    api::write_info(plan, plan_memory(formats::open_checkpoint(path), load, *plan));
    return WKV_OK;
  });
}

wkv_status wkv_model_get_info(const wkv_model *model, wkv_model_info *info, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(model, "model");
    api::check_info(info, "info");
    api::write_info(info, model->object->info());
    return WKV_OK;
  });
}

wkv_status wkv_model_get_memory(const wkv_model *model, wkv_memory_info *info, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(model, "model");
    api::check_info(info, "info");
    MemoryAccount::Snapshot memory = model->object->memory();
    auto kind = [&](MemoryKind k) { return memory.kinds[static_cast<size_t>(k)]; };
    wkv_memory_info values{};
    values.limit_bytes = memory.limit;
    values.weights_bytes = kind(MemoryKind::weights).live;
    values.weights_peak_bytes = kind(MemoryKind::weights).peak;
    values.caches_bytes = kind(MemoryKind::caches).live;
    values.caches_peak_bytes = kind(MemoryKind::caches).peak;
    values.workspace_bytes = kind(MemoryKind::workspace).live;
    values.workspace_peak_bytes = kind(MemoryKind::workspace).peak;
    values.checkpoints_bytes = kind(MemoryKind::checkpoints).live;
    values.checkpoints_peak_bytes = kind(MemoryKind::checkpoints).peak;
    values.store_bytes = kind(MemoryKind::store).live;
    values.store_peak_bytes = kind(MemoryKind::store).peak;
    values.parked_bytes = model->object->parked_bytes();
    values.total_bytes = memory.total.live;
    values.total_peak_bytes = memory.total.peak;
    api::write_info(info, values);
    return WKV_OK;
  });
}

void wkv_model_release(wkv_model *model) { delete model; }

}  // extern "C"
