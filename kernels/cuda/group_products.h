// SPDX-License-Identifier: Apache-2.0
// Several matrix products in one launch, on Hopper's tensor cores: for products that are too small for the device one
// at a time, the low-rank pairs. (For large matrices and few rows cuBLASLt is faster: 116 us a layer of width 4096 with
// 32 rows, 133 here.)
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/model.h"

namespace libwkv::cuda {

enum class GroupActivation : int32_t { none, tanh, sigmoid };

// y[rows][outputs] = act(x[rows][inputs] W^T)
struct GroupProduct {
  const __half *weights;    // [outputs][inputs]
  int32_t outputs, inputs;  // multiples of 8
  const __half *x;
  void *y;
  GroupActivation activation;
  bool is_half_output;  // else float
};

inline constexpr int most_group_products = 4;

// Hopper, and compiled for sm_90a. Asks the driver.
bool group_products_fit(const Device &device);

// begins_early: launched with programmatic stream serialization: it may begin before the kernel ahead on the stream has
// ended, and waits for it before it reads x. Weights must have been there before.
cudaError_t group_products(cudaStream_t stream, const Device &device, const GroupProduct *products, int32_t count,
                           int64_t rows, bool begins_early);

}  // namespace libwkv::cuda
