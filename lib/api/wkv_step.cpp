// SPDX-License-Identifier: Apache-2.0
// The C entries of step.h.
#include <wkv/step.h>

#include <memory>
#include <vector>

#include "api/edge.h"
#include "api/handles.h"
#include "engine/model.h"
#include "state/cache.h"
#include "text/sampler.h"

using namespace libwkv;

namespace {

constexpr size_t most_items = 65536;
constexpr uint32_t known_flags = WKV_STEP_ALL_LOGITS | WKV_STEP_ALL_STATES | WKV_STEP_DEVICE_LOGITS;
constexpr size_t most_tokens = size_t{1} << 31;  // of one item: far beyond any use, and sums cannot overflow

wkv_status step_items(wkv_model *model, wkv_step_item *items, size_t items_count, const StepWatch &watch) {
  api::needed(model, "model");
  if (items_count == 0) return WKV_OK;
  api::needed(items, "items");
  if (items_count > most_items)
    fail(WKV_INVALID, "items_count is %zu, at most %zu go into a call", items_count, most_items);
  // Items of a later version may be longer: the first one's struct_size is the distance between them.
  uint32_t item_size = items[0].struct_size;
  api::check_struct(&items[0], item_size, {}, sizeof(wkv_step_item), "items[0]");
  if (item_size % alignof(wkv_step_item))
    fail(WKV_INVALID, "items[0].struct_size is %u, not a multiple of %zu", item_size, alignof(wkv_step_item));
  auto item_at = [&](size_t i) {
    return reinterpret_cast<wkv_step_item *>(reinterpret_cast<std::byte *>(items) + i * item_size);
  };

  std::shared_ptr<Model> owner = model->object;
  std::vector<std::shared_ptr<void>> references;  // caches and samplers live to the end of the call
  std::vector<StepItem> list(items_count);
  references.reserve(2 * items_count);
  for (size_t i = 0; i < items_count; i++) item_at(i)->status = WKV_OK;
  for (size_t i = 0; i < items_count; i++) {
    const wkv_step_item &item = *item_at(i);
    StepItem &entry = list[i];
    auto refuse = [&entry](wkv_status status, const char *fault) {
      entry.status = status;
      entry.fault = fault;
    };
    if (item.struct_size != item_size) {
      refuse(WKV_INVALID, "struct_size differs from the first item's");
      continue;
    }
    if (i > 0) api::check_struct(&item, item_size, {}, sizeof(wkv_step_item), "items");
    if (item.flags & ~known_flags) {
      refuse(WKV_UNSUPPORTED, "a flag that this version does not know");
      continue;
    }
    if (item.tokens_count == 0) continue;
    const char *missing = !item.cache                        ? "cache is NULL"
                          : !item.tokens                     ? "tokens is NULL"
                          : item.tokens_count > most_tokens  ? "tokens_count is too large"
                          : item.sampler && !item.next_token ? "next_token is NULL"
                                                             : nullptr;
    if (missing) {
      refuse(WKV_INVALID, missing);
      continue;
    }
    references.push_back(item.cache->object);
    entry.cache = item.cache->object.get();
    entry.tokens = {item.tokens, item.tokens_count};
    (item.flags & WKV_STEP_DEVICE_LOGITS ? entry.device_logits : entry.logits) = item.logits;
    entry.logits_count = item.logits_count;
    entry.wants_all_logits = (item.flags & WKV_STEP_ALL_LOGITS) != 0;
    entry.keeps_all_states = (item.flags & WKV_STEP_ALL_STATES) != 0;
    if (item.sampler) {
      references.push_back(item.sampler->object);
      entry.sampler = item.sampler->object.get();
      entry.next_token = item.next_token;
    }
  }
  try {
    owner->step(list, watch);
  } catch (...) {
    for (size_t i = 0; i < items_count; i++) item_at(i)->status = list[i].status;
    throw;
  }
  return WKV_OK;
}

}  // namespace

extern "C" {

wkv_status wkv_cache_step(wkv_cache *cache, const int32_t *tokens, size_t tokens_count, float *logits,
                          size_t logits_count, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(cache, "cache");
    api::needed(tokens, "tokens");
    if (tokens_count == 0) fail(WKV_INVALID, "tokens_count is 0");
    if (tokens_count > most_tokens)
      fail(WKV_INVALID, "tokens_count is %zu, at most %zu go into a call", tokens_count, most_tokens);
    std::shared_ptr<Model> model = cache->model;
    std::shared_ptr<Cache> object = cache->object;
    StepItem item;
    item.cache = object.get();
    item.tokens = {tokens, tokens_count};
    item.logits = logits;
    item.logits_count = logits_count;
    model->step({&item, 1});
    return WKV_OK;
  });
}

wkv_status wkv_model_step(wkv_model *model, wkv_step_item *items, size_t items_count, wkv_error *error) {
  return api::guard(error, [&] { return step_items(model, items, items_count, {}); });
}

wkv_status wkv_model_step_watched(wkv_model *model, wkv_step_item *items, size_t items_count,
                                  const wkv_step_options *options, wkv_error *error) {
  return api::guard(error, [&] {
    const wkv_step_options o = api::read_options(options, "options");
    if (o.reserved != 0) fail(WKV_UNSUPPORTED, "options.reserved is %u, expected 0", o.reserved);
    return step_items(model, items, items_count, {o.progress, o.progress_user});
  });
}

}  // extern "C"
