// SPDX-License-Identifier: Apache-2.0
// The middle of the time mix: second low-rank products, the recurrence, group norm and gate. Two blocks a head, each
// with half of its value columns; they meet for the group norm alone.
#pragma once

#include "kernels/cuda/few_common.cuh"

namespace libwkv::cuda::few {

constexpr int head_size = 64;
constexpr int half_head = head_size / 2;

enum LowRank { low_decay, low_rate, low_value, low_gate, low_ranks };

struct TimeMix {
  Batch batch;
  const float *receptance, *key, *value, *first_value;  // [rows][width]; first_value: NULL in the first layer
  const __half *low[low_ranks];                         // operands, rank inputs
  const __half *second[low_ranks];                      // w2, a2, v2, g2: [width][rank]
  int32_t rank[low_ranks];                              // 0: not there
  const float *w0, *a0, *v0, *k_k, *k_a, *r_k, *ln_x_weight, *ln_x_bias;
  __half *out;       // an operand, or
  float *plain_out;  // of one row: [width]
  const float *h;    // of one row: the new token shift, to be written by now that all have read the old one; or NULL
  size_t wkv_at, shift_at;  // in a state
  int32_t width, rows, padded;
};

// What a row brings to the recurrence, in shared memory.
struct RowVectors {
  float receptance[head_size], decay[head_size], key[head_size], removal[head_size], rate[head_size];
  float value[half_head], gate[half_head], y[half_head];
  float bonus, unused[3];
  float2 norm[2];  // mean and sum of squared differences of either half's y
};

__host__ __device__ constexpr int outputs_of(int low) {
  return low == low_decay || low == low_rate ? head_size : half_head;
}

// Shared memory: barriers, rows, second matrices, operands.
constexpr int time_mix_rows_at = 128;
__host__ __device__ inline int time_mix_weights_at(int rows) {
  return time_mix_rows_at + rows * static_cast<int>(sizeof(RowVectors));
}
static_assert(sizeof(RowVectors) % 16 == 0);
inline int time_mix_shared_bytes(const int32_t (&rank)[low_ranks], int rows) {
  int bytes = time_mix_weights_at(rows);
  for (int i = 0; i < low_ranks; i++) bytes += rank[i] * (outputs_of(i) * 2 + padded_rows(rows) * 4);
  return bytes;
}

__device__ inline float load(const float *at) { return *at; }
__device__ inline float load(const __half *at) { return __half2float(*at); }
__device__ inline void store(float *at, float value) { *at = value; }
__device__ inline void store(__half *at, float value) { *at = __float2half_rn(value); }

// The part of a state that a thread keeps in registers: one value column, every fourth group of four keys. With four
// lanes a column, a warp reads and writes whole sectors of eight columns.
template <class Number>
struct StatePart {
  float s[16];
  static __device__ int key(int i, int group) { return (i / 4 * 4 + group) * 4 + i % 4; }
  __device__ void read(const Number *state, int group) {
#pragma unroll
    for (int i = 0; i < 16; i++) s[i] = load(state + key(i, group) * head_size);
  }
  __device__ void write(Number *state, int group) const {
#pragma unroll
    for (int i = 0; i < 16; i++) store(state + key(i, group) * head_size, s[i]);
  }
};

// 16 outputs of a second product, from shared memory.
template <int tiles, class Use>
__device__ inline void multiply_low(const char *weights, const char *operand, int rank, int padded, int lane, Use use) {
  const int g = lane / 4, t = lane % 4;
  float sums[2][tiles][4] = {};  // two chains, as one mma waits for the one before
  int column[tiles];
#pragma unroll
  for (int n = 0; n < tiles; n++) column[n] = column_of<tiles>(n, g, padded) * 64 + t * 16;
#pragma unroll 2
  for (int block = 0; block < rank / 32; block++) {
    const uint4 a = *reinterpret_cast<const uint4 *>(weights + g * rank * 2 + block * 64 + t * 16);
    const uint4 b = *reinterpret_cast<const uint4 *>(weights + (g + 8) * rank * 2 + block * 64 + t * 16);
#pragma unroll
    for (int n = 0; n < tiles; n++) {
      const uint4 x = *reinterpret_cast<const uint4 *>(operand + block * padded * 128 + column[n]);
      mma(sums[0][n], a.x, b.x, a.y, b.y, x.x, x.y);
      mma(sums[1][n], a.z, b.z, a.w, b.w, x.z, x.w);
    }
  }
#pragma unroll
  for (int n = 0; n < tiles; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) sums[0][n][i] += sums[1][n][i];
  join<tiles>(sums[0], lane, use);
}

template <class Number, int tiles, int warps>
__global__ void __launch_bounds__(warps * 32, tiles == 1 ? 3 : 1) mix_time(const __grid_constant__ TimeMix p) {
  extern __shared__ __align__(128) char shared[];
  RowVectors *rows = reinterpret_cast<RowVectors *>(shared + time_mix_rows_at);
  const uint32_t weights_barrier = shared_address(shared);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int head = static_cast<int>(blockIdx.x) / 2, side = static_cast<int>(blockIdx.x) % 2;
  const int channel = head * head_size, own = channel + side * half_head;
  int weights_at[low_ranks], operands_at[low_ranks];
  int next = time_mix_weights_at(p.rows);
#pragma unroll
  for (int i = 0; i < low_ranks; i++) {
    weights_at[i] = next;
    next += p.rank[i] * outputs_of(i) * 2;
  }
#pragma unroll
  for (int i = 0; i < low_ranks; i++) {
    operands_at[i] = next;
    next += p.rank[i] * p.padded * 4;
  }
  if (threadIdx.x == 0) {
    barrier_init(weights_barrier, 1);
    barrier_init_fence();
    uint32_t bytes = 0;
    for (int i = 0; i < low_ranks; i++) bytes += static_cast<uint32_t>(p.rank[i] * outputs_of(i) * 2);
    barrier_expect(weights_barrier, bytes);
#pragma unroll
    for (int i = 0; i < low_ranks; i++)
      if (p.rank[i] > 0)
        copy_bulk(shared_address(shared + weights_at[i]),
                  p.second[i] + static_cast<int64_t>(outputs_of(i) == head_size ? channel : own) * p.rank[i],
                  static_cast<uint32_t>(p.rank[i] * outputs_of(i) * 2), weights_barrier);
  }
  __syncthreads();
  cluster_arrive();  // the other block runs: its shared memory may be written
  launch_dependents();

  // States and vectors of the model come before the wait. Four warps a segment.
  constexpr int groups = warps / 4;
  const int group = lane % 4, own_column = warp % 4 * 8 + lane / 4;
  const size_t state_at = static_cast<size_t>(channel * head_size + side * half_head + own_column);
  const auto from_of = [&](const Segment &s) { return reinterpret_cast<const Number *>(s.from + p.wkv_at) + state_at; };
  StatePart<Number> state;
  Segment segment{};
  if (warp / 4 < p.batch.segments_count) {
    segment = p.batch.segments[warp / 4];
    state.read(from_of(segment), group);
  }
  float w0[2], a0[2], k_k[2], k_a[2], r_k[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int c = channel + i * 32 + lane;
    w0[i] = p.w0[c];
    a0[i] = p.a0[c];
    k_k[i] = p.k_k[c];
    k_a[i] = p.k_a[c];
    r_k[i] = p.r_k[c];
  }
  const float v0 = p.first_value ? p.v0[own + lane] : 0;
  const float ln_weight = p.ln_x_weight[own + lane], ln_bias = p.ln_x_bias[own + lane];
  wait_for_predecessors();

#pragma unroll
  for (int i = 0; i < low_ranks; i++)
    for (int at = static_cast<int>(threadIdx.x) * 16; at < p.rank[i] * p.padded * 4; at += warps * 512)
      copy_16(shared_address(shared + operands_at[i] + at), reinterpret_cast<const char *>(p.low[i]) + at);
  // Rows of this warp: their r, k and v are on their way while the products run.
  constexpr int rows_a_warp = (tile_rows<tiles> + warps - 1) / warps;
  float receptance[rows_a_warp][2], key[rows_a_warp][2], value[rows_a_warp], first_value[rows_a_warp];
#pragma unroll
  for (int n = 0; n < rows_a_warp; n++) {
    const int row = warp + n * warps;
    if (row >= p.rows) continue;
    const int64_t at = static_cast<int64_t>(row) * p.width;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      receptance[n][i] = p.receptance[at + channel + i * 32 + lane];
      key[n][i] = p.key[at + channel + i * 32 + lane];
    }
    value[n] = p.value[at + own + lane];
    first_value[n] = p.first_value ? p.first_value[at + own + lane] : 0;
  }

  if (p.h && warp == warps - 1) {
    const float h = __ldcg(p.h + own + lane);
    reinterpret_cast<float *>(p.batch.segments->state + p.shift_at)[own + lane] = h;
  }

  // kk / |kk| needs the key alone.
  float unit[rows_a_warp][2];
#pragma unroll
  for (int n = 0; n < rows_a_warp; n++) {
    if (warp + n * warps >= p.rows) continue;
    const float kk[2] = {key[n][0] * k_k[0], key[n][1] * k_k[1]};
    const float inverse = 1.0f / fmaxf(sqrtf(warp_sum(kk[0] * kk[0] + kk[1] * kk[1])), 1e-12f);
    unit[n][0] = kk[0] * inverse;
    unit[n][1] = kk[1] * inverse;
  }

  // Eight warps do the products: two the gate's halves, which have the highest rank, and so on.
  copies_commit();
  copies_wait<0>();
  __syncthreads();
  barrier_wait(weights_barrier, 0);
  if (warp < 8) {
    // (No copies of this code for each of them: it runs once, and then fetching it takes longer than running it.)
    const int low = warp < 2 ? low_gate : warp < 4 ? low_decay : warp < 6 ? low_rate : low_value;
    const int rank = warp < 2   ? p.rank[low_gate]
                     : warp < 4 ? p.rank[low_decay]
                     : warp < 6 ? p.rank[low_rate]
                                : p.rank[low_value];
    const int count = outputs_of(low) / 32;
    const int from = warp < 2   ? weights_at[low_gate]
                     : warp < 4 ? weights_at[low_decay]
                     : warp < 6 ? weights_at[low_rate]
                                : weights_at[low_value];
    const int operand = warp < 2   ? operands_at[low_gate]
                        : warp < 4 ? operands_at[low_decay]
                        : warp < 6 ? operands_at[low_rate]
                                   : operands_at[low_value];
    float *to = low == low_gate    ? rows->gate
                : low == low_decay ? rows->decay
                : low == low_rate  ? rows->rate
                                   : rows->value;
#pragma unroll 1
    for (int i = 0; i < (rank > 0 ? count : 0); i++) {
      const int tile = warp % 2 * count + i;
      multiply_low<tiles>(shared + from + tile * 16 * rank * 2, shared + operand, rank, p.padded, lane,
                          [&](int o, int row, float y) {
                            if (row < p.rows) to[row * (sizeof(RowVectors) / sizeof(float)) + tile * 16 + o] = y;
                          });
    }
  }
  __syncthreads();

  // Raw products to what the recurrence takes.
#pragma unroll
  for (int n = 0; n < rows_a_warp; n++) {
    const int row = warp + n * warps;
    if (row >= p.rows) continue;
    RowVectors &v = rows[row];
    float bonus = 0;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int c = i * 32 + lane;
      const float a = sigmoid(a0[i] + v.rate[c]);
      const float k = key[n][i] * (1 + (a - 1) * k_a[i]);
      v.decay[c] = __expf(-0.60653065971263342f * sigmoid(w0[i] + v.decay[c]));
      v.removal[c] = -unit[n][i];
      v.rate[c] = unit[n][i] * a;
      v.key[c] = k;
      v.receptance[c] = receptance[n][i];
      bonus += receptance[n][i] * k * r_k[i];
    }
    bonus = warp_sum(bonus);
    if (lane == 0) v.bonus = bonus;
    float mixed = value[n];
    if (p.first_value) mixed += (first_value[n] - mixed) * sigmoid(v0 + v.value[lane]);
    v.value[lane] = mixed;
  }
  __syncthreads();

  // S = S diag(w) + (S^T removal) rate + v k^T; y = S^T r.
  for (int s = warp / 4; s < p.batch.segments_count; s += groups) {
    // Many segments: the next state comes while this one is worked on. Few: registers are dearer.
    StatePart<Number> next_state;
    Segment next_segment{};
    const auto read_next = [&] {
      if (s + groups >= p.batch.segments_count) return;
      next_segment = p.batch.segments[s + groups];
      next_state.read(from_of(next_segment), group);
    };
    if constexpr (tiles > 1) read_next();
    int snapshot = segment.snapshots;
    const int snapshots_end = segment.snapshots + segment.snapshots_count;
    for (int row = segment.begin; row < segment.end; row++) {
      RowVectors &v = rows[row];
      const auto four = [&](const float(&vector)[head_size], int i) {
        return reinterpret_cast<const float4 *>(vector)[i * 4 + group];
      };
      const float own_value = v.value[own_column];
      float removed = 0;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float4 a = four(v.removal, i);
        removed +=
            state.s[i * 4] * a.x + state.s[i * 4 + 1] * a.y + state.s[i * 4 + 2] * a.z + state.s[i * 4 + 3] * a.w;
      }
      removed += __shfl_xor_sync(~0u, removed, 1);
      removed += __shfl_xor_sync(~0u, removed, 2);
      float y = 0;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float4 w = four(v.decay, i), b = four(v.rate, i), k = four(v.key, i), r = four(v.receptance, i);
        float *x = state.s + i * 4;
        x[0] = x[0] * w.x + removed * b.x + own_value * k.x;
        x[1] = x[1] * w.y + removed * b.y + own_value * k.y;
        x[2] = x[2] * w.z + removed * b.z + own_value * k.z;
        x[3] = x[3] * w.w + removed * b.w + own_value * k.w;
        y += x[0] * r.x + x[1] * r.y + x[2] * r.z + x[3] * r.w;
      }
      y += __shfl_xor_sync(~0u, y, 1);
      y += __shfl_xor_sync(~0u, y, 2);
      if (group == 0) v.y[own_column] = y;
      if (snapshot < snapshots_end && p.batch.snapshots[snapshot].row == row) {
        state.write(reinterpret_cast<Number *>(p.batch.snapshots[snapshot].state + p.wkv_at) + state_at, group);
        snapshot++;
      }
      if constexpr (sizeof(Number) == 2)  // rows in one step or in two give the same numbers
#pragma unroll
        for (int i = 0; i < 16; i++) state.s[i] = __half2float(__float2half_rn(state.s[i]));
    }
    state.write(reinterpret_cast<Number *>(segment.state + p.wkv_at) + state_at, group);
    if constexpr (tiles == 1) read_next();
    state = next_state;
    segment = next_segment;
  }
  __syncthreads();

  // (group_norm(y) + bonus v) g.
  cluster_wait();
  for (int row = warp; row < p.rows; row += warps) {
    const float y = rows[row].y[lane], mean = warp_sum(y) / half_head;
    const float2 norm = {mean, warp_sum((y - mean) * (y - mean))};
    if (lane < 2) store_in_cluster(&rows[row].norm[side], static_cast<uint32_t>(lane), norm);
    __syncwarp();
  }
  cluster_arrive();
  cluster_wait();
  for (int row = warp; row < p.rows; row += warps) {
    const RowVectors &v = rows[row];
    const float between = v.norm[0].x - v.norm[1].x, mean = (v.norm[0].x + v.norm[1].x) / 2;
    const float squares = v.norm[0].y + v.norm[1].y + between * between * (half_head / 2);
    const float o = (v.y[lane] - mean) * rsqrtf(squares / head_size + 64e-5f) * ln_weight + ln_bias;
    const float gated = (o + v.bonus * v.value[lane]) * v.gate[lane];
    if (p.plain_out)
      p.plain_out[own + lane] = gated;
    else
      put(p.out, p.padded, row, own + lane, InputOrder::consecutive, gated);
  }
}

}  // namespace libwkv::cuda::few
