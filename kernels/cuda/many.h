// SPDX-License-Identifier: Apache-2.0
// The way through a model for many rows: prompts, and decoding of more sequences than the narrow kernels take. Matrix
// products by cuBLASLt, low-rank pairs in groups (group_products.h), one elementwise kernel between any two of them.
//
// With F32 receptance weights everything is fp32 (no TF32); else products take activations in half and sum in fp32, and
// the residual stream stays fp32.
#pragma once

#include "kernels/cuda/model.h"
#include "kernels/cuda/plain.h"

namespace libwkv::cuda {

bool many_fits(const Device &device, const DeviceShape &shape, const Weights &weights);

// cuBLASLt's handle, the algorithms it guessed so far, and a second stream. Of one model; one call at a time.
struct ManyPlans;
cudaError_t many_create(const Device &device, ManyPlans **plans);
void many_destroy(ManyPlans *plans);  // NULL is fine

// Looks at shapes and formats alone. Grows with rows and logits_rows.
size_t many_workspace_bytes(const Device &device, const DeviceShape &shape, const Weights &weights, int64_t rows,
                            int64_t logits_rows);

// Prompts may go in two halves, each layer of the second behind the same layer of the first, on a stream of its own:
// the recurrence of few sequences has few blocks, and then runs beside products of the other half. A sequence may go on
// from the last row of the first half to the first row of the second.
struct Halves {
  Batch first, second;  // without scores; their rows together are the batch's
};

// Rows of the first half; 0: better whole.
int64_t many_first_half(const Device &device, const DeviceShape &shape, const Weights &weights, int64_t rows,
                        int64_t segments_count);

// Only enqueues; asks cuBLASLt for an algorithm when a shape comes for the first time. stopped: set when the hook
// (NULL: none) said so.
cudaError_t many_forward(ManyPlans *plans, cudaStream_t stream, const Device &device, const DeviceShape &shape,
                         const StateShape &states, const Weights &weights, const Batch &batch, const Halves *halves,
                         void *workspace, const LayerHook *hook, bool *stopped);

}  // namespace libwkv::cuda
