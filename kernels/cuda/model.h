// SPDX-License-Identifier: Apache-2.0
// What every part of the CUDA backend shares: a model's weights on the device, and one chunk of a step.
#pragma once

#include <cstdint>

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/device.h"

namespace libwkv::cuda {

using kernels::DeviceShape;
using kernels::Format;
using kernels::Order;

// y = W x. Values and scales lie apart, so that both are read in whole words; rows follow one another without gaps, and
// every pointer is aligned to 256 bytes.
//   rows:    values[o][i]; a q4 row is inputs / 2 bytes, blocks of 32 in 16 bytes: byte j of a block has input j in its
//            low nibble and input j + 16 in its high one.
//            scales[o][inputs / 32]: q8, q4: half; q4_affine: float2 (scale, offset);
//            q8_affine: float4 (scale of inputs 0 to 15, of 16 to 31, offset, 0)
//   columns: values[i][o] and scales[inputs / 32][o]; f32, f16 and q8 only.
// value = scale * q (q4: scale * (q - 8)); affine: scale * q + offset.
struct Matrix {
  const void *values = nullptr, *scales = nullptr;
  int64_t outputs = 0, inputs = 0;
  Format format = Format::f32;
  Order order = Order::rows;
};

// Vectors are float [width].
struct Layer {
  const float *ln1_weight, *ln1_bias, *ln2_weight, *ln2_bias, *ln_x_weight, *ln_x_bias;
  const float *x_r, *x_w, *x_k, *x_v, *x_a, *x_g, *ffn_x_k;
  const float *w0, *a0, *v0, *k_k, *k_a, *r_k;  // v0: NULL in layer 0
  Matrix receptance, key, value, output;        // [C][C]
  Matrix w1, a1, v1, g1;                        // [rank][C], f32 or f16; v1, v2: empty in layer 0
  Matrix w2, a2, v2, g2;                        // [C][rank]
  Matrix ffn_key;                               // [F][C]
  Matrix ffn_value;                             // [C][F]; columns for f32, f16 and q8, so that zeros can be skipped
};

struct Weights {
  Matrix embedding;  // [V][C]: f32, f16 or bf16
  const float *ln0_weight, *ln0_bias, *ln_out_weight, *ln_out_bias;
  Matrix head;          // [V][C]
  const Layer *layers;  // host memory
};

// Where the numbers of a state lie: per layer att shift float[C], ffn shift float[C], WKV [H][N key][N value] in float
// or half. The bytes of a layer are a multiple of 256.
struct StateShape {
  int64_t layers, width, heads, head_size;
  bool is_half;

  __host__ __device__ size_t wkv_bytes() const {
    return static_cast<size_t>(heads * head_size * head_size) * (is_half ? 2 : 4);
  }
  __host__ __device__ size_t layer_bytes() const {
    return (static_cast<size_t>(width) * 8 + wkv_bytes() + 255) / 256 * 256;
  }
  __host__ __device__ size_t att_shift(int64_t layer) const { return static_cast<size_t>(layer) * layer_bytes(); }
  __host__ __device__ size_t ffn_shift(int64_t layer) const {
    return att_shift(layer) + static_cast<size_t>(width) * 4;
  }
  __host__ __device__ size_t wkv(int64_t layer) const { return att_shift(layer) + static_cast<size_t>(width) * 8; }
  __host__ __device__ size_t bytes() const { return static_cast<size_t>(layers) * layer_bytes(); }
};

// Consecutive rows of one sequence. from == state: stepped in place; else from is left as it is.
struct Segment {
  const char *from;
  char *state;
  int32_t begin, end;                  // rows
  int32_t snapshots, snapshots_count;  // into Batch::snapshots
};

// The state after a row, wanted on the way: a row of [begin, end - 1) of its segment.
struct Snapshot {
  int32_t row;
  char *state;
};

// A chunk of a step. Every pointer is memory of the device.
struct Batch {
  int32_t rows, segments_count, snapshots_count, logits_count;
  int32_t longest;             // rows of the longest segment
  const int32_t *tokens;       // [rows]
  const int32_t *row_segment;  // [rows]
  const Segment *segments;     // rising rows, covering all
  const Snapshot *snapshots;   // rising rows within a segment
  const int32_t *logits_rows;  // [logits_count], rising
  float *logits;               // [logits_count][vocab_size]
};

// Of one CUDA device.
struct Device {
  int index, processors, major, minor;
  int shared_bytes;  // most a block may have
};

}  // namespace libwkv::cuda
