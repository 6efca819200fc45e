// SPDX-License-Identifier: Apache-2.0
// Matrix products with many rows, by cuBLASLt. Quantised weights are turned into half before.
//
// Everything here only enqueues on a stream and can be captured in a graph.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/model.h"

namespace libwkv::cuda {

// A cuBLASLt handle and the algorithms found so far. Of one device; one call at a time.
struct Products;

cudaError_t products_create(Products **products);
void products_destroy(Products *products);  // NULL is fine

// y[b][rows][outputs] = scale * x[b][rows][inputs] W_b^T, + y if `adds`, for b in [0, batch).
struct Product {
  const void *weights;  // half if is_half, else float; [outputs][inputs], or [inputs][outputs] with Order::columns
  Order order;
  bool is_half;  // of weights and x; sums are float always
  bool is_half_output;
  bool adds;
  int64_t rows, outputs, inputs;
  const void *x;
  void *y;
  int64_t x_stride, y_stride;  // numbers from row to row
  float scale;
  int32_t batch;
  int64_t weights_batch_stride, x_batch_stride, y_batch_stride;  // numbers; batch > 1
  void *workspace;                                               // of this product alone while it runs; 256
  size_t workspace_bytes;
};

// With cuBLASLt's first guess of an algorithm, which is kept for the shape and, rounded up, the number of rows. Timing
// its eight best guesses found nothing: with weights of several layers and 32 to 2048 rows at widths 2048 and 4096
// whole steps took the same time within 2 % (H200, cuBLASLt 13.0).
cudaError_t product(Products *products, cudaStream_t stream, const Product &call);

// Whether `expand` knows the matrix.
bool can_expand(const Matrix &matrix);
// Writes all values, in the matrix's own order, as half or float.
cudaError_t expand(cudaStream_t stream, const Matrix &matrix, bool to_half, void *to);

}  // namespace libwkv::cuda
