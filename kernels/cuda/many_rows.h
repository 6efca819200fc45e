// SPDX-License-Identifier: Apache-2.0
// The elementwise kernels between the products of many.h. Each takes its rows from memory once.
//
// Number: of activations, __half or float. Everything only enqueues.
#pragma once

#include <cstdint>

#include "kernels/cuda/model.h"

namespace libwkv::cuda {

inline constexpr int row_columns = 8;  // of a thread: widths are multiples
inline constexpr int64_t most_row_width = 1024 * row_columns;

// x[rows][width] = LN0(emb[token])
cudaError_t embed(cudaStream_t stream, const Batch &batch, const Weights &weights, float *x);

template <class Number, int mixes>
struct ShiftAndMix {
  const float *x;              // [rows][width]
  const float *weight, *bias;  // of the norm
  size_t shift;                // bytes from the begin of a state to this layer's shift
  const float *mix[mixes];
  Number *out[mixes];  // [rows][width]
  int64_t width;
  bool begins_early =
      true;  // may be launched before the kernel ahead of it on the stream has ended; it waits for that one
};

// h = LN(x), out = h + (previous row's h - h) * mix, and the shifts of last rows and snapshots into their states.
template <class Number, int mixes>  // 6 or 1
cudaError_t shift_and_mix(cudaStream_t stream, const Device &device, const Batch &batch,
                          const ShiftAndMix<Number, mixes> &call);

// out[logits_count][width] = LN of the rows whose scores are wanted.
template <class Number>
cudaError_t gather_norm(cudaStream_t stream, const Batch &batch, const float *x, const float *weight, const float *bias,
                        int64_t width, Number *out);

enum class Activation : int32_t { tanh, sigmoid, squared_relu };

// x = act(scale * x), in place. count % 8 == 0
template <class Number>
cudaError_t activate(cudaStream_t stream, Number *x, int64_t count, Activation activation, float scale);

}  // namespace libwkv::cuda
