// SPDX-License-Identifier: Apache-2.0
// The middle of the time mix for many rows: from raw products to the gated output, with the recurrent state
// (FORMATS.md section 0, from the line of w to o * g).
#pragma once

#include "kernels/cuda/model.h"

namespace libwkv::cuda {

// Every pointer is memory of the device, [rows][width], aligned to 16 bytes.
struct TimeMixRows {
  const float *receptance, *key, *value;  // Wr xr, Wk xk, Wv xv
  const float *w, *a, *v, *g;             // second low-rank products, before w0, a0, v0 and sigmoid; v: NULL in layer 0
  float *first_value;                     // written in layer 0, read in the others
  __half *out_half;                       // o * g; one of both is NULL
  float *out;
};

// Serial computes everything in fp32, one row after another. Automatic takes the chunked kernel for long segments,
// which rounds operands of tensor cores to two bf16 parts (right to about 5e-6).
enum class TimeMixWay : int32_t { automatic, serial };

size_t time_mix_workspace_bytes(const Device &device, const DeviceShape &shape, int64_t rows);

// Only enqueues. Grids depend on rows, segments_count and longest alone.
cudaError_t time_mix(cudaStream_t stream, const Device &device, const DeviceShape &shape, const StateShape &states,
                     const Layer &layer, int64_t layer_index, const Batch &batch, const TimeMixRows &rows,
                     void *workspace, TimeMixWay way = TimeMixWay::automatic);

}  // namespace libwkv::cuda
