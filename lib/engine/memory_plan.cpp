// SPDX-License-Identifier: Apache-2.0
#include "engine/memory_plan.h"

#include <algorithm>

#include "base/error.h"
#include "engine/cpu_executor.h"
#include "engine/cpu_weights.h"
#include "engine/cpu_workspace.h"
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
  const CpuWeightStore store(checkpoint, hyper, options.weight_type, nullptr, nullptr, {});
  const CpuWorkspaceSizes sizes(hyper, store.weights(), select_kernels(options.kernels),
                                resolve_threads(options.threads));

  // As Model::step cuts a step: a chunk has no more rows, scores or sampled items than chunk_tokens.
  const int64_t chunk = chunk_tokens_of(options);
  const int64_t rows = asked.step_tokens ? rows_together(asked.step_tokens, chunk, options.is_reproducible) : chunk;
  const int64_t sampled = std::min<int64_t>(asked.step_sampled, rows);
  const int64_t scores = std::clamp<int64_t>(asked.step_logits, std::max<int64_t>(sampled, 1), rows);

  wkv_memory_plan plan = asked;
  plan.weights_bytes = store.weights().weight_bytes;
  plan.mapped_bytes = store.weights().mapped_bytes;
  plan.state_bytes = StateLayout(hyper).bytes();
  plan.caches_bytes = multiply(add(asked.caches_count, asked.step_spares), plan.state_bytes);
  plan.workspace_bytes = add(workspace_bytes(sizes, rows, scores), unseen_logits_bytes(hyper.vocab_size, sampled));
  plan.total_bytes = add(add(plan.weights_bytes, plan.caches_bytes), plan.workspace_bytes);
  return plan;
}

}  // namespace libwkv
