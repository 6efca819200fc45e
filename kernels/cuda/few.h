// SPDX-License-Identifier: Apache-2.0
// The way through a model for 1 to 16 rows: every weight is read once, at the speed of the card's memory.
#pragma once

#include "kernels/cuda/model.h"

namespace libwkv::cuda {

inline constexpr int few_rows = 16;

// Whether few_forward can step this model on this device: Hopper or newer, heads of 64, widths in whole blocks of 256
// up to 4096, large matrices in f16, q8 or q4 and low ranks in f16.
bool few_fits(const Device &device, const DeviceShape &shape, const Weights &weights);

size_t few_workspace_bytes(const DeviceShape &shape, int rows);

// Enqueues one chunk of at most few_rows rows. workspace: few_workspace_bytes(shape, rows or more), aligned to 256
// bytes, zeroed once.
cudaError_t few_forward(cudaStream_t stream, const Device &device, const DeviceShape &shape, const StateShape &states,
                        const Weights &weights, const Batch &batch, void *workspace);

}  // namespace libwkv::cuda
