// SPDX-License-Identifier: Apache-2.0
// The activations of a batch on the CPU, and what they cost: one list of sizes for planning and for reserving.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/memory.h"
#include "engine/cpu_weights.h"
#include "kernels/table.h"
#include "model/hyper_parameters.h"

namespace libwkv {

// What the sizes of a workspace follow from, batch apart. In floats.
struct CpuWorkspaceSizes {
  CpuWorkspaceSizes(const HyperParameters &hyper, const CpuWeights &weights, const kernels::Table &table, int threads);

  int64_t width_stride, ffn_stride, rank_stride, vocab;
  size_t prepared_floats = 0;  // of one vector for the matrix that wants most
  size_t scratch_floats;
  int threads;
};

// Rows are `width_stride` floats apart unless said. Names as in FORMATS.
struct CpuWorkspace {
  int64_t rows = 0, logits_rows = 0;
  Buffer memory;
  float *x{}, *h{};   // residual; normalised input of the mix at hand
  float *mixed[6]{};  // token-shifted inputs r, w, k, v, a, g; dead after the first products
  float *receptance{}, *decay{}, *key{}, *value{}, *rate{}, *gate{}, *first_value{};
  float *removal{}, *value_mix{}, *wkv{}, *out{};  // share memory with `mixed`
  float *product{};                                // what an output matrix gave
  float *low_w{}, *low_a{}, *low_v{}, *low_g{};    // [rows][rank_stride]
  float *ffn{};                                    // [rows][ffn_stride]
  float *prepared[7]{};                            // [max_vectors][prepared_floats]: receptance key value w1 a1 v1 g1
  float *partial{};                                // [ffn_parts][max_vectors][width_stride]
  float *logits{};                                 // [logits_rows][vocab]
  float *scratch{};                                // [threads][scratch_floats]

  // Gives places out from base (NULL: no memory yet) for rows and logits_rows as they are. Returns the bytes taken.
  size_t lay_out(const CpuWorkspaceSizes &sizes, float *base);
};

inline constexpr int64_t ffn_parts = 8;      // sums that ffn.value is cut into
inline constexpr int64_t logits_group = 64;  // rows of scores computed together

// Rows that go through the layers together when a step has `rows` of them and chunks of `most`.
int64_t rows_together(int64_t rows, int64_t most, bool is_reproducible);

// Rows of scores that a workspace holds for a batch that wants `wanted`: a single one goes straight to its place.
int64_t held_logits(int64_t wanted);

// Bytes of the workspace for batches of up to `rows` rows with `wanted_logits` scores.
uint64_t workspace_bytes(const CpuWorkspaceSizes &sizes, int64_t rows, int64_t wanted_logits);

}  // namespace libwkv
