// SPDX-License-Identifier: Apache-2.0
// One row of one sequence through the whole model as a single persistent kernel: for decoding one sequence, where a
// launch per stage would cost more than the stage's work.
#pragma once

#include "kernels/cuda/model.h"

namespace libwkv::cuda {

// sm_90 or newer with a multiprocessor for every head, head size 64, width up to 3072, matrices in f16 (the embedding
// in any of its formats), ranks of multiples of 32, state in either format.
bool stream_fits(const Device &device, const DeviceShape &shape, const Weights &weights);

// A private copy of what does not lie as the kernel reads it: vectors, the second low-rank matrices and att.output,
// about a tenth of the weights. Aligned to 256 bytes; the weights stay in use.
size_t stream_packed_bytes(const DeviceShape &shape);
// Reads weights.layers while it runs, enqueues the rest. Not to be captured in a graph.
cudaError_t stream_pack(cudaStream_t stream, const Device &device, const DeviceShape &shape, const Weights &weights,
                        void *packed);

// Zeroed once when it is allocated, and used by one stream at a time.
size_t stream_workspace_bytes(const DeviceShape &shape);
// Only enqueues. batch: one row, one segment, no snapshots, at most one row of scores. A cooperative launch: every
// block waits for others, so all of them are resident.
cudaError_t stream_forward(cudaStream_t stream, const Device &device, const DeviceShape &shape,
                           const StateShape &states, const Weights &weights, const void *packed, const Batch &batch,
                           void *workspace);

}  // namespace libwkv::cuda
