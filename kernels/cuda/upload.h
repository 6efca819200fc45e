// SPDX-License-Identifier: Apache-2.0
// Weights on their way to the device: through two pinned buffers, converted and rearranged there.
#pragma once

#include <vector>

#include "kernels/cuda/failure.h"
#include "kernels/cuda/model.h"

namespace libwkv::cuda {

// Outputs and inputs of a matrix; 1 and width of a vector.
struct PartShape {
  int64_t outputs, inputs;
  bool is_vector;
};
PartShape part_shape(const DeviceShape &shape, kernels::DevicePart part);
// ffn.value lies by inputs where its format allows, so that inputs that are zero need not be read.
Order part_order(kernels::DevicePart part, Format format);
size_t values_bytes(Format format, int64_t outputs, int64_t inputs);
size_t scales_bytes(Format format, int64_t outputs, int64_t inputs);
inline size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }
uint64_t part_bytes(const DeviceShape &shape, kernels::DevicePart part, Format format);

class Upload {
 public:
  Upload() = default;
  Upload(const Upload &) = delete;
  Upload &operator=(const Upload &) = delete;
  ~Upload() { finish(nullptr); }

  bool begin(cudaStream_t stream, kernels::DeviceFailure *failure);
  // Brings a tensor to `values` and `scales`, which have room for it. Returns before it is there.
  bool send(const kernels::DeviceSource &source, const Matrix &target, int32_t number, kernels::DeviceFailure *failure);
  // Waits, and gives the buffers back. overflowed: number of a tensor with a value that F16 cannot hold; -1: none.
  cudaError_t finish(int32_t *overflowed);

 private:
  static constexpr size_t buffer_bytes = size_t{32} << 20;
  struct Buffer {
    std::byte *host = nullptr, *device = nullptr;
    cudaEvent_t is_free = nullptr;  // recorded when both may be written again
  };
  cudaStream_t stream_ = nullptr;
  Buffer buffers_[2];
  int next_ = 0;
  int32_t *overflow_ = nullptr;  // on the device
};

}  // namespace libwkv::cuda
