// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu_workspace.h"

#include <algorithm>

namespace libwkv {

using kernels::Matrix;
using kernels::max_vectors;

namespace {

// Rows of a matrix are spread over cache sets: a power-of-two stride would put a column of them into one set.
int64_t padded(int64_t floats) { return (floats + 15) / 16 * 16 + 16; }

}  // namespace

CpuWorkspaceSizes::CpuWorkspaceSizes(const HyperParameters &hyper, const CpuWeights &weights,
                                     const kernels::Table &table, int thread_count)
    : width_stride(padded(hyper.width)),
      ffn_stride(padded(hyper.ffn_width)),
      rank_stride(padded(std::max({hyper.rank_w, hyper.rank_a, hyper.rank_v, hyper.rank_g}))),
      vocab(hyper.vocab_size),
      scratch_floats((table.multiply_scratch_floats() + 15) / 16 * 16),
      threads(thread_count) {
  auto widen = [&](const Matrix &matrix) {
    if (matrix.inputs > 0)  // layer 0 has no v1
      prepared_floats = std::max(prepared_floats, table.prepared_floats(matrix.format, matrix.inputs));
  };
  for (const CpuLayer &l : weights.layers)
    for (const Matrix *matrix :
         {&l.receptance, &l.key, &l.value, &l.output, &l.w1, &l.a1, &l.v1, &l.g1, &l.ffn_key, &l.ffn_value})
      widen(*matrix);
  widen(weights.head);
  prepared_floats = (prepared_floats + 15) / 16 * 16;
}

size_t CpuWorkspace::lay_out(const CpuWorkspaceSizes &sizes, float *base) {
  size_t used = 0;
  auto place = [&](float *&pointer, int64_t floats) {
    pointer = base ? base + used : nullptr;
    used += static_cast<size_t>((floats + 15) / 16 * 16);
  };
  const int64_t wide = rows * sizes.width_stride;
  for (float **pointer : {&x, &h, &mixed[0], &mixed[1], &mixed[2], &mixed[3], &mixed[4], &mixed[5], &receptance, &decay,
                          &key, &value, &rate, &gate, &first_value})
    place(*pointer, wide);
  removal = mixed[0];
  value_mix = mixed[1];
  wkv = mixed[2];
  out = mixed[3];
  product = mixed[4];
  for (float **pointer : {&low_w, &low_a, &low_v, &low_g}) place(*pointer, rows * sizes.rank_stride);
  place(ffn, rows * sizes.ffn_stride);
  for (float *&one : prepared) place(one, max_vectors * static_cast<int64_t>(sizes.prepared_floats));
  place(partial, ffn_parts * max_vectors * sizes.width_stride);
  place(logits, logits_rows * sizes.vocab);
  place(scratch, sizes.threads * static_cast<int64_t>(sizes.scratch_floats));
  return used * sizeof(float);
}

// Two goes of the streaming way are faster than one of matrix products, which are worth their packing from more rows
// on: 9 rows by 15 to 40 %, 16 by 0 to 12, and 24 rows are slower in F32 and Q8 (0.1B, two cores with AVX-512).
int64_t rows_together(int64_t rows, int64_t most, bool is_reproducible) {
  const bool is_in_two = !is_reproducible && rows > max_vectors && rows <= 2 * max_vectors;
  return std::min(is_in_two ? int64_t{max_vectors} : rows, most);
}

int64_t held_logits(int64_t wanted) { return wanted > 1 ? std::min(wanted, logits_group) : 0; }

uint64_t workspace_bytes(const CpuWorkspaceSizes &sizes, int64_t rows, int64_t wanted_logits) {
  CpuWorkspace plan;
  plan.rows = rows;
  plan.logits_rows = held_logits(wanted_logits);
  return plan.lay_out(sizes, nullptr);
}

}  // namespace libwkv
