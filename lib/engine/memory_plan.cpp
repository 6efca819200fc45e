// SPDX-License-Identifier: Apache-2.0
#include "engine/memory_plan.h"

#include <algorithm>

#include "base/error.h"
#include "engine/cpu_executor.h"
#include "engine/cpu_weights.h"
#include "engine/cpu_workspace.h"
#include "engine/device_executor.h"
#include "engine/plugin.h"
#include "state/state.h"

namespace libwkv {
namespace {

uint64_t multiply(uint64_t a, uint64_t b) {
  uint64_t product;
  if (__builtin_mul_overflow(a, b, &product)) fail(WKV_INVALID, "the plan passes 2^64 bytes");
  return product;
}

uint64_t add(uint64_t a, uint64_t b) {
  uint64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) fail(WKV_INVALID, "the plan passes 2^64 bytes");
  return sum;
}

}  // namespace

wkv_memory_plan plan_memory(const formats::Checkpoint &checkpoint, const LoadOptions &options,
                            const wkv_memory_plan &asked) {
  check_options(options);
  const HyperParameters hyper = derive_hyper_parameters(checkpoint);
  // As Model::step cuts a step: a chunk has no more rows, scores or sampled items than chunk_tokens.
  const int64_t chunk = chunk_tokens_of(options);
  const int device = device_of(options);
  const kernels::DeviceShape shape = device_shape(hyper);
  const kernels::DeviceOptions device_options{device, options.state_type == WKV_TYPE_F16, options.is_reproducible};
  const int64_t rows = !asked.step_tokens ? chunk
                       : device < 0
                           ? rows_together(asked.step_tokens, chunk, options.is_reproducible)
                           : cuda_plugin().table->chunk_rows(&shape, &device_options, asked.step_tokens, chunk);
  const int64_t sampled = std::min<int64_t>(asked.step_sampled, rows);
  const int64_t scores = std::clamp<int64_t>(asked.step_logits, std::max<int64_t>(sampled, 1), rows);

  wkv_memory_plan plan = asked;
  uint64_t workspace;
  if (device < 0) {
    const CpuWeightStore store(checkpoint, hyper, options.weight_type, nullptr, nullptr, {});
    const CpuWorkspaceSizes sizes(hyper, store.weights(), select_kernels(options.kernels),
                                  resolve_threads(options.threads));
    plan.weights_bytes = store.weights().weight_bytes;
    plan.mapped_bytes = store.weights().mapped_bytes;
    plan.state_bytes = StateLayout(hyper).bytes();
    workspace = workspace_bytes(sizes, rows, scores);
  } else {
    const kernels::DeviceTable &table = *cuda_plugin().table;
    const DeviceWeightPlan weights = plan_device_weights(checkpoint, hyper, options.weight_type, device_options, table);
    const kernels::DeviceFormats formats = weights.all_formats();
    plan.weights_bytes = weights.weight_bytes;
    plan.mapped_bytes = 0;
    plan.state_bytes = table.state_bytes(&shape, options.state_type == WKV_TYPE_F16);
    workspace = table.workspace_bytes(&shape, &device_options, &formats, rows, scores);
  }
  plan.caches_bytes = multiply(add(asked.caches_count, asked.step_spares), plan.state_bytes);
  plan.workspace_bytes = add(workspace, unseen_logits_bytes(hyper.vocab_size, device < 0 ? sampled : 0));
  plan.total_bytes = add(add(plan.weights_bytes, plan.caches_bytes), plan.workspace_bytes);
  return plan;
}

}  // namespace libwkv
