// SPDX-License-Identifier: Apache-2.0
// Chooses tokens from scores on the device: the operations of wkv/sampler.h but typical_p, in their order.
//
// The same scores, options and drawn number give the token that the host's sampler chooses. Scores, their distances
// from the highest one and the order of tokens are the same doubles as there. Sums differ in their last bits, so the
// choice can be another one when the drawn number, or top_p, falls within about 1e-13 (of all probability) of the
// border between two tokens: 2e-14 for the exponential, and below vocab * 2^-64 for the tokens more than 64 doublings
// behind the highest, which are left out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/model.h"

namespace libwkv::cuda {

// As kernels::DeviceSampler, for the scores logits[logits_row]. Its lists are parts of SampleLists.
struct SampleRow {
  double temperature, top_p, min_p, uniform, repetition, presence, frequency;
  int32_t top_k, ids_end, counts_begin, counts_count, biases_begin, biases_count, logits_row;
};

// Memory of the device. The tokens of a row's list never fall, and counted_tokens rise; biases of the same token are
// added in their order.
struct SampleLists {
  const int32_t *counted_tokens;
  const double *counts;
  const int32_t *bias_tokens;
  const float *biases;
};

size_t sample_workspace_bytes(const Device &device, int64_t vocab, int64_t rows);

// tokens[i] is the choice of rows[i], or -1 when no token is left. Only enqueues; reads nothing before the work that
// was enqueued before is done, whether or not that announces it. logits: [..][vocab], left as they are.
// workspace: sample_workspace_bytes for `count` rows or more, aligned to 256. inputs: NULL, or the tokens again, 0 for
// -1.
cudaError_t sample(cudaStream_t stream, const Device &device, const float *logits, int64_t vocab, const SampleRow *rows,
                   int count, SampleLists lists, int32_t *tokens, void *workspace, int32_t *inputs = nullptr);

}  // namespace libwkv::cuda
