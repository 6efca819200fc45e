// SPDX-License-Identifier: Apache-2.0
// The simplest way through a model: any shape and format, fp32 everywhere, and every row's numbers the same whatever
// other rows there are. The truth the faster ways are compared with on the device, and the reproducible mode.
#pragma once

#include "kernels/cuda/model.h"

namespace libwkv::cuda {

// Asked on the host after a layer's work was enqueued; true: no more of it.
struct LayerHook {
  bool (*is_stopped)(void *user, int64_t layers_done);
  void *user;
};

size_t plain_workspace_bytes(const DeviceShape &shape, int64_t rows);
// Only enqueues. stopped: set when the hook (NULL: none) said so.
cudaError_t plain_forward(cudaStream_t stream, const DeviceShape &shape, const StateShape &states,
                          const Weights &weights, const Batch &batch, void *workspace, const LayerHook *hook,
                          bool *stopped);

}  // namespace libwkv::cuda
