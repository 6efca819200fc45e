// SPDX-License-Identifier: Apache-2.0
// What stands between products: the residual stream, its layer norms, the token shift and its mixes.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/few_common.cuh"

namespace libwkv::cuda::few {

constexpr int norm_threads = 256;
constexpr int norm_cluster = 8;     // blocks that share a row: each takes a part of the width
constexpr int most_norm_pairs = 2;  // of columns, a thread: widths up to 8192

// The sum of one value a thread, the same for all.
__device__ inline float block_sum(float value, float *sums) {
  value = warp_sum(value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int i = 0; i < norm_threads / 32; i++) total += sums[i];
  return total;
}

__device__ inline float embedding_at(const Matrix &embedding, int64_t at) {
  if (embedding.format == Format::f32) return static_cast<const float *>(embedding.values)[at];
  if (embedding.format == Format::f16) return __half2float(static_cast<const __half *>(embedding.values)[at]);
  return __bfloat162float(static_cast<const __nv_bfloat16 *>(embedding.values)[at]);
}

// x = LN0(embedding[token]): a block a row. The step's counters begin at 0.
__global__ void __launch_bounds__(norm_threads) embed(const int32_t *tokens, Matrix embedding, const float *weight,
                                                      const float *bias, float *x, int32_t *counters, int count) {
  __shared__ float sums[norm_threads / 32];
  if (blockIdx.x == 0)
    for (int i = static_cast<int>(threadIdx.x); i < count; i += norm_threads) counters[i] = 0;
  launch_dependents();
  wait_for_predecessors();
  constexpr int most = 2 * most_norm_pairs * norm_cluster;
  const int64_t width = embedding.inputs, from = tokens[blockIdx.x] * width;
  float values[most];
  float sum = 0;
#pragma unroll
  for (int n = 0; n < most; n++) {
    const int64_t i = n * norm_threads + threadIdx.x;
    values[n] = i < width ? embedding_at(embedding, from + i) : 0;
    sum += values[n];
  }
  const float mean = block_sum(sum, sums) / static_cast<float>(width);
  float squares = 0;
#pragma unroll
  for (int n = 0; n < most; n++)
    if (n * norm_threads + threadIdx.x < width) squares += (values[n] - mean) * (values[n] - mean);
  const float scale = rsqrtf(block_sum(squares, sums) / static_cast<float>(width) + 1e-5f);
#pragma unroll
  for (int n = 0; n < most; n++) {
    const int64_t i = n * norm_threads + threadIdx.x;
    if (i < width) x[blockIdx.x * width + i] = (values[n] - mean) * scale * weight[i] + bias[i];
  }
}

struct Norm {
  Batch batch;
  const float *x;         // [rows][width]; the residual stream is x and all partial sums of the product before
  const float *partials;  // [partials_count][rows][width]
  float *x_out;           // where that sum goes: not x, which neighbours read
  const float *weight, *bias;
  const float *mix[6];
  __half *operand[6];
  size_t shift_at;  // in a state
  int32_t partials_count, mixes, width, rows, padded;
  bool is_last;  // no shift: only LN, of the rows whose scores are wanted
};

// h = LN(x), operands are h + (previous - h) mix. A cluster a row.
// The cluster of a segment's first row alone touches the shift: it reads the old one and then writes that of the last
// row, so that states can be stepped in place.
__global__ void __launch_bounds__(norm_threads, 3) norm_and_mix(const __grid_constant__ Norm p) {
  __shared__ float sums[norm_threads / 32];
  __shared__ float2 shares[3][norm_cluster];  // mean and sum of squared differences, of each block's columns
  const int cluster_rank = static_cast<int>(blockIdx.x) % norm_cluster;
  const int index = static_cast<int>(blockIdx.x) / norm_cluster;
  const int width = p.width, begin = width / norm_cluster * cluster_rank, pairs = width / norm_cluster / 2;
  cluster_arrive();  // the blocks of the cluster run: their shared memory may be written
  launch_dependents();

  // What no kernel of this step writes comes before the wait.
  const int row = p.is_last ? p.batch.logits_rows[index] : index;
  Segment segment{};
  bool is_first = false;
  if (!p.is_last) {
    segment = p.batch.segments[p.batch.row_segment[row]];
    is_first = row == segment.begin;
  }
  int column[most_norm_pairs];
  float2 weight[most_norm_pairs], bias[most_norm_pairs], shift[most_norm_pairs], mix[most_norm_pairs][6];
#pragma unroll
  for (int i = 0; i < most_norm_pairs; i++) {
    const int pair = i * norm_threads + static_cast<int>(threadIdx.x);
    column[i] = pair < pairs ? begin + pair * 2 : -1;
    if (column[i] < 0) continue;
    weight[i] = *reinterpret_cast<const float2 *>(p.weight + column[i]);
    bias[i] = *reinterpret_cast<const float2 *>(p.bias + column[i]);
    if (is_first) shift[i] = reinterpret_cast<const float2 *>(segment.from + p.shift_at)[column[i] / 2];
#pragma unroll
    for (int m = 0; m < 6; m++)
      if (m < p.mixes) mix[i][m] = *reinterpret_cast<const float2 *>(p.mix[m] + column[i]);
  }
  wait_for_predecessors();

  // This row, the one before it, and the last of the segment.
  const int rows[3] = {row, p.is_last || is_first ? -1 : row - 1,
                       is_first && segment.end - 1 > row ? segment.end - 1 : -1};
  float2 value[3][most_norm_pairs];
  float own_mean[3], own_squares[3];
#pragma unroll
  for (int r = 0; r < 3; r++) {
    if (rows[r] < 0) continue;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < most_norm_pairs; i++) {
      value[r][i] = {0, 0};
      if (column[i] < 0) continue;
      const size_t at = static_cast<size_t>(rows[r]) * width + column[i];
      float2 v = *reinterpret_cast<const float2 *>(p.x + at);
#pragma unroll 8
      for (int s = 0; s < p.partials_count; s++) {
        const float2 more =
            *reinterpret_cast<const float2 *>(p.partials + static_cast<size_t>(s) * p.rows * width + at);
        v.x += more.x;
        v.y += more.y;
      }
      value[r][i] = v;
      sum += v.x + v.y;
      if (r == 0 && !p.is_last) *reinterpret_cast<float2 *>(p.x_out + at) = v;
    }
    const float mean = block_sum(sum, sums) / static_cast<float>(pairs * 2);
    float squares = 0;
#pragma unroll
    for (int i = 0; i < most_norm_pairs; i++) {
      if (column[i] < 0) continue;
      const float x = value[r][i].x - mean, y = value[r][i].y - mean;
      squares += x * x + y * y;
    }
    own_mean[r] = mean;
    own_squares[r] = block_sum(squares, sums);
  }
  cluster_wait();
  if (threadIdx.x < norm_cluster)
#pragma unroll
    for (int r = 0; r < 3; r++)
      if (rows[r] >= 0) store_in_cluster(&shares[r][cluster_rank], threadIdx.x, {own_mean[r], own_squares[r]});
  __syncwarp();
  cluster_arrive();
  cluster_wait();

  float2 h[3][most_norm_pairs];
#pragma unroll
  for (int r = 0; r < 3; r++) {
    if (rows[r] < 0) continue;
    float mean = 0, squares = 0;
#pragma unroll
    for (int b = 0; b < norm_cluster; b++) mean += shares[r][b].x;
    mean /= norm_cluster;
#pragma unroll
    for (int b = 0; b < norm_cluster; b++) {
      const float2 share = shares[r][b];
      squares += share.y + (share.x - mean) * (share.x - mean) * static_cast<float>(pairs * 2);
    }
    const float scale = rsqrtf(squares / static_cast<float>(width) + 1e-5f);
#pragma unroll
    for (int i = 0; i < most_norm_pairs; i++) {
      if (column[i] < 0) continue;
      h[r][i] = {(value[r][i].x - mean) * scale * weight[i].x + bias[i].x,
                 (value[r][i].y - mean) * scale * weight[i].y + bias[i].y};
    }
  }

  const auto put_pair = [&](__half *operand, int at, float2 v) {
    const Parts x = split(v.x), y = split(v.y);
    __half2 *to = reinterpret_cast<__half2 *>(operand_at(operand, p.padded, index, at, InputOrder::consecutive));
    to[0] = {x.high, y.high};
    to[p.padded * 16] = {x.low, y.low};
  };
#pragma unroll
  for (int i = 0; i < most_norm_pairs; i++) {
    if (column[i] < 0) continue;
    if (p.is_last) {
      put_pair(p.operand[0], column[i], h[0][i]);
      continue;
    }
    const float2 previous = is_first ? shift[i] : h[1][i];
#pragma unroll
    for (int m = 0; m < 6; m++)
      if (m < p.mixes)
        put_pair(
            p.operand[m], column[i],
            {h[0][i].x + (previous.x - h[0][i].x) * mix[i][m].x, h[0][i].y + (previous.y - h[0][i].y) * mix[i][m].y});
    if (is_first)
      reinterpret_cast<float2 *>(segment.state + p.shift_at)[column[i] / 2] = rows[2] < 0 ? h[0][i] : h[2][i];
  }
  if (p.is_last) return;
  for (int s = segment.snapshots; s < segment.snapshots + segment.snapshots_count; s++) {
    const Snapshot snapshot = p.batch.snapshots[s];
    if (snapshot.row != row) continue;
#pragma unroll
    for (int i = 0; i < most_norm_pairs; i++)
      if (column[i] >= 0) reinterpret_cast<float2 *>(snapshot.state + p.shift_at)[column[i] / 2] = h[0][i];
  }
}

}  // namespace libwkv::cuda::few
