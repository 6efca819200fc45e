// SPDX-License-Identifier: Apache-2.0
// The serial kernels of the time mix and the choice between the ways. For heads of 64 one kernel does everything, one
// row after another, with a head's state in the registers of a block: it reads and writes every state once, which is
// all that batched decode has to wait for. Other head sizes take three slow kernels and a workspace.
#include "kernels/cuda/time_mix.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include <cuda_pipeline_primitives.h>

#include "kernels/cuda/time_mix_common.cuh"

namespace libwkv::cuda {
namespace mixing {
namespace {

constexpr int serial_threads = 128, serial_warps = serial_threads / 32;
constexpr int serial_blocks = 5;  // of a multiprocessor

// From this length on a segment is chunked: when segments and heads fill the device, the serial kernel's blocks hide
// one another's waiting for longer.
constexpr int32_t chunked_shortest = 16, chunked_shortest_of_many = 32;

// 16 bytes of a state.
__device__ void to_floats(const float *from, float (&to)[4]) {
  const float4 x = *reinterpret_cast<const float4 *>(from);
  to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
}

__device__ void to_floats(const __half *from, float (&to)[8]) {
  const uint4 x = *reinterpret_cast<const uint4 *>(from);
  const uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __half22float2(*reinterpret_cast<const __half2 *>(&words[i]));
    to[2 * i] = pair.x, to[2 * i + 1] = pair.y;
  }
}

__device__ void store_numbers(float *to, const float (&from)[4]) {
  __stcs(reinterpret_cast<float4 *>(to), make_float4(from[0], from[1], from[2], from[3]));
}

__device__ void store_numbers(__half *to, const float (&from)[8]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __half2 pair = __floats2half2_rn(from[2 * i], from[2 * i + 1]);
    words[i] = *reinterpret_cast<const uint32_t *>(&pair);
  }
  __stcs(reinterpret_cast<uint4 *>(to), make_uint4(words[0], words[1], words[2], words[3]));
}

// Sums columns over the lanes of a warp that share row_lanes: a step gives half of the columns away and keeps the other
// half, until two are left, the first of which is `kept`.
template <int columns, int row_lanes>
__device__ float2 sum_columns(float (&sums)[columns], int lane, int &kept) {
  static_assert(columns * row_lanes == 64 && (columns == 4 || columns == 8));
  const auto fold = [&](auto half, int offset) {
    const bool is_upper = lane & offset;
    if (is_upper) kept += half.value;
#pragma unroll
    for (int i = 0; i < half.value; ++i) {
      const float own = is_upper ? sums[i + half.value] : sums[i], given = is_upper ? sums[i] : sums[i + half.value];
      sums[i] = own + __shfl_xor_sync(~0u, given, offset);
    }
  };
  kept = 0;
  fold(std::integral_constant<int, columns / 2>(), row_lanes);
  if constexpr (columns == 8) fold(std::integral_constant<int, 2>(), 2 * row_lanes);
  return make_float2(sums[0], sums[1]);
}

__device__ void load_four(const float *from, float *to) {
  const float4 x = *reinterpret_cast<const float4 *>(from);
  to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
}

// Adds the warps' parts of some columns; `parts` is the first warp's.
template <int columns>
__device__ void add_parts(const float *parts, float (&sums)[columns]) {
#pragma unroll
  for (int i = 0; i < columns; ++i) sums[i] = 0;
#pragma unroll
  for (int part = 0; part < serial_warps; ++part) {
    float more[columns];
    if constexpr (columns % 4 == 0) {
#pragma unroll
      for (int i = 0; i < columns; i += 4) load_four(parts + part * head_size + i, more + i);
    } else {
      const float2 pair = load_pair(parts + part * head_size);
      more[0] = pair.x, more[1] = pair.y;
    }
#pragma unroll
    for (int i = 0; i < columns; ++i) sums[i] += more[i];
  }
}

// What the recurrence wants of one row of a head.
struct __align__(16) RowVectors {
  float decay[head_size], removal[head_size], rate[head_size], key[head_size];  // w, -kk, kk * a, k
  float value[head_size], receptance[head_size];
};

// A block owns a head and takes segments in turn. A thread holds `keys` rows of its 16 bytes of value columns, so that
// a warp reads and writes whole rows of the state. The next segment's state is on its way to shared memory while the
// present one is worked on: registers alone would not hold enough of it to fill the memory's pipe. Each thread fetches
// what it will read itself, so that only descriptions of segments, two ahead, need the barrier.
//
// The warps share the rest by roles: warp 0 makes w, kk and k, warp 1 v, warp 2 r, each one row ahead in the loads, and
// warp 3 turns y into the output while the others make the next row's vectors.
template <class Number>
__global__ void __launch_bounds__(serial_threads, serial_blocks)
    step_rows(const Arguments arguments, int segments_count) {
  constexpr int columns = 16 / sizeof(Number), keys = 32 / columns, row_lanes = head_size / columns;
  constexpr int ring = 4;
  __shared__ uint4 next_state[keys][serial_threads];
  __shared__ RowVectors vectors[2];
  __shared__ __align__(16) float removed_parts[serial_warps][head_size], y_parts[serial_warps][head_size];
  __shared__ float2 parameters[serial_warps][4][32];  // of the lanes, which would otherwise lack registers
  __shared__ __align__(16) Segment segments[ring];
  static_assert(sizeof(Segment) == 32);
  const int head = static_cast<int>(blockIdx.x) % arguments.heads;
  const int first_segment = static_cast<int>(blockIdx.x) / arguments.heads;
  const int stride = static_cast<int>(gridDim.x) / arguments.heads;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int column = static_cast<int>(threadIdx.x) % row_lanes * columns;
  const int key = static_cast<int>(threadIdx.x) / row_lanes * keys;
  const int state_at = (head * head_size + key) * head_size + column;

  const auto is_ours = [&](const Segment &segment) {
    const int count = segment.end - segment.begin;
    return count >= arguments.shortest && count <= arguments.longest;
  };
  const auto fetch_segment = [&](int turn) {
    const int index = first_segment + turn * stride;
    if (threadIdx.x >= 2 || index >= segments_count) return;
    __pipeline_memcpy_async(reinterpret_cast<uint4 *>(&segments[turn % ring]) + threadIdx.x,
                            reinterpret_cast<const uint4 *>(&arguments.segments[index]) + threadIdx.x, 16);
  };
  const auto fetch_state = [&](const Segment &segment) {
    const auto *from = reinterpret_cast<const Number *>(segment.from + arguments.wkv_offset) + state_at;
#pragma unroll
    for (int j = 0; j < keys; ++j) __pipeline_memcpy_async(&next_state[j][threadIdx.x], from + j * head_size, 16);
  };

  // Two channels a lane in every role.
  const int channel = head * head_size + 2 * lane;
  const TimeMixRows &rows = arguments.rows;
  float2 raw[3] = {};
  const auto load_row = [&](int row) {
    const int64_t at = row * arguments.width + channel;
    if (warp == 0) {
      raw[0] = load_pair(rows.key + at);
      raw[1] = load_pair(rows.w + at);
      raw[2] = load_pair(rows.a + at);
    } else if (warp == 1) {
      raw[0] = load_pair(rows.value + at);
      if (arguments.is_first_layer) return;
      raw[1] = load_pair(rows.v + at);
      raw[2] = load_pair(rows.first_value + at);
    } else {
      raw[0] = load_pair((warp == 2 ? rows.receptance : rows.g) + at);
    }
  };

  fetch_segment(0);
  fetch_segment(1);
  __pipeline_commit();
  const auto keep = [&](int index, const float *vector) {
    parameters[warp][index][lane] = load_pair(vector + channel);
  };
  if (warp == 0) {
    keep(0, arguments.w0), keep(1, arguments.a0), keep(2, arguments.k_k), keep(3, arguments.k_a);
  } else if (warp == 1 && !arguments.is_first_layer) {
    keep(0, arguments.v0);
  } else if (warp == 3) {
    keep(0, arguments.r_k), keep(1, arguments.norm_weight), keep(2, arguments.norm_bias);
  }
  __pipeline_wait_prior(0);
  __syncthreads();
  if (is_ours(segments[0])) {
    fetch_state(segments[0]);
    load_row(segments[0].begin);
  }
  __pipeline_commit();

  int parity = 0;  // of rows
  for (int turn = 0; first_segment + turn * stride < segments_count; ++turn) {
    __pipeline_wait_prior(0);
    __syncthreads();
    const Segment &segment = segments[turn % ring], &next = segments[(turn + 1) % ring];
    const bool is_work = is_ours(segment);
    const bool is_more = first_segment + (turn + 1) * stride < segments_count && is_ours(next);
    float state[keys][columns];
    if (is_work) {
#pragma unroll
      for (int j = 0; j < keys; ++j) {
        to_floats(reinterpret_cast<const Number *>(&next_state[j][threadIdx.x]), state[j]);
      }
    }
    if (is_more) fetch_state(next);
    fetch_segment(turn + 2);
    __pipeline_commit();
    if (!is_work) {
      if (is_more) load_row(next.begin);
      continue;
    }

    int snapshot = segment.snapshots;
    const int snapshots_end = segment.snapshots + segment.snapshots_count, end = segment.end;
    for (int row = segment.begin; row < end; ++row, parity ^= 1) {
      RowVectors &now = vectors[parity];
      const float2 gate = raw[0];  // of warp 3
      const auto parameter = [&](int index) { return parameters[warp][index][lane]; };
      if (warp == 0) {
        const float2 w0 = parameter(0), a0 = parameter(1), k_k = parameter(2), k_a = parameter(3);
        const float2 w = make_float2(power_of_two(decay_scale * sigmoid(w0.x + raw[1].x)),
                                     power_of_two(decay_scale * sigmoid(w0.y + raw[1].y)));
        const float2 a = make_float2(sigmoid(a0.x + raw[2].x), sigmoid(a0.y + raw[2].y));
        const float2 scaled = make_float2(raw[0].x * k_k.x, raw[0].y * k_k.y);
        const float inverse_norm = inverse_root(warp_sum(scaled.x * scaled.x + scaled.y * scaled.y));
        const float2 kk = make_float2(scaled.x * inverse_norm, scaled.y * inverse_norm);
        *reinterpret_cast<float2 *>(now.decay + 2 * lane) = w;
        *reinterpret_cast<float2 *>(now.removal + 2 * lane) = make_float2(-kk.x, -kk.y);
        *reinterpret_cast<float2 *>(now.rate + 2 * lane) = make_float2(kk.x * a.x, kk.y * a.y);
        *reinterpret_cast<float2 *>(now.key + 2 * lane) =
            make_float2(raw[0].x * (1.f + (a.x - 1.f) * k_a.x), raw[0].y * (1.f + (a.y - 1.f) * k_a.y));
      } else if (warp == 1) {
        float2 value = raw[0];
        if (arguments.is_first_layer) {
          *reinterpret_cast<float2 *>(rows.first_value + row * arguments.width + channel) = value;
        } else {
          const float2 v0 = parameter(0);
          value.x += (raw[2].x - value.x) * sigmoid(v0.x + raw[1].x);
          value.y += (raw[2].y - value.y) * sigmoid(v0.y + raw[1].y);
        }
        *reinterpret_cast<float2 *>(now.value + 2 * lane) = value;
      } else if (warp == 2) {
        *reinterpret_cast<float2 *>(now.receptance + 2 * lane) = raw[0];
      }
      const bool is_last = row + 1 == end;
      if (!is_last || is_more) load_row(is_last ? next.begin : row + 1);
      __syncthreads();

      // removed = S^T (-kk), for this thread's columns.
      float removed[columns] = {};
#pragma unroll
      for (int j = 0; j < keys; j += 4) {
        float of_keys[4];
        load_four(now.removal + key + j, of_keys);
#pragma unroll
        for (int i = 0; i < 4 * columns; ++i)
          removed[i % columns] += state[j + i / columns][i % columns] * of_keys[i / columns];
      }
      int kept;
      const float2 kept_removed = sum_columns<columns, row_lanes>(removed, lane, kept);
      *reinterpret_cast<float2 *>(&removed_parts[warp][column + kept]) = kept_removed;
      __syncthreads();
      add_parts<columns>(&removed_parts[0][column], removed);

      float value[columns], y[columns] = {};
#pragma unroll
      for (int i = 0; i < columns; i += 4) load_four(now.value + column + i, value + i);
#pragma unroll
      for (int j = 0; j < keys; j += 4) {
        float w[4], b[4], k[4], r[4];
        const int at = key + j;
        load_four(now.decay + at, w);
        load_four(now.rate + at, b);
        load_four(now.key + at, k);
        load_four(now.receptance + at, r);
#pragma unroll
        for (int i = 0; i < 4 * columns; ++i) {
          const int of_key = i / columns, c = i % columns;
          float &number = state[j + of_key][c];
          number = number * w[of_key] + (b[of_key] * removed[c] + k[of_key] * value[c]);
          y[c] += number * r[of_key];
        }
      }
      const auto store_state = [&](char *to) {
        auto *numbers = reinterpret_cast<Number *>(to + arguments.wkv_offset) + state_at;
#pragma unroll
        for (int j = 0; j < keys; ++j) store_numbers(numbers + j * head_size, state[j]);
      };
      if (is_last) store_state(segment.state);
      for (; snapshot < snapshots_end && arguments.snapshots[snapshot].row <= row; ++snapshot) {
        store_state(arguments.snapshots[snapshot].state);
      }
      const float2 kept_y = sum_columns<columns, row_lanes>(y, lane, kept);
      *reinterpret_cast<float2 *>(&y_parts[warp][column + kept]) = kept_y;
      __syncthreads();

      // What is read here is written again only behind the next row's first barrier.
      if (warp != 3) continue;
      float sum[2];
      add_parts<2>(&y_parts[0][2 * lane], sum);
      const float2 k = load_pair(now.key + 2 * lane), r = load_pair(now.receptance + 2 * lane);
      const float2 v = load_pair(now.value + 2 * lane);
      const float2 r_k = parameter(0), norm_weight = parameter(1), norm_bias = parameter(2);
      const float bonus = warp_sum(r.x * k.x * r_k.x + r.y * k.y * r_k.y);
      const float mean = warp_sum(sum[0] + sum[1]) / head_size;
      const float2 centred = make_float2(sum[0] - mean, sum[1] - mean);
      const float variance = warp_sum(centred.x * centred.x + centred.y * centred.y) / head_size;
      const float scale = rsqrtf(variance + group_norm_epsilon);
      store_pair(rows, row * arguments.width + channel,
                 (centred.x * scale * norm_weight.x + norm_bias.x + bonus * v.x) * gate.x,
                 (centred.y * scale * norm_weight.y + norm_bias.y + bonus * v.y) * gate.y);
    }
  }
}

// Any head size: vectors and y of all rows lie in the workspace, [rows][width] each.
struct Workspace {
  float *decay, *removal, *rate, *key, *value, *y;
};
constexpr int workspace_vectors = 6, any_tile = 32;

__device__ float block_sum(float x, float *parts) {
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < static_cast<int>(blockDim.x) / 32; ++i) sum += parts[i];
  return sum;
}

// A block per row and head.
__global__ void prepare_any(const Arguments arguments, const Workspace work, int size) {
  __shared__ float parts[32];
  const int64_t row = blockIdx.x / arguments.heads;
  const int first = static_cast<int>(blockIdx.x) % arguments.heads * size;
  const TimeMixRows &rows = arguments.rows;
  float squares = 0;
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const float kk = rows.key[row * arguments.width + first + i] * arguments.k_k[first + i];
    squares += kk * kk;
  }
  const float inverse_norm = inverse_root(block_sum(squares, parts));
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const int channel = first + i;
    const int64_t at = row * arguments.width + channel;
    const float k = rows.key[at], kk = k * arguments.k_k[channel] * inverse_norm;
    const float a = sigmoid(arguments.a0[channel] + rows.a[at]);
    work.decay[at] = power_of_two(decay_scale * sigmoid(arguments.w0[channel] + rows.w[at]));
    work.removal[at] = -kk;
    work.rate[at] = kk * a;
    work.key[at] = k * (1.f + (a - 1.f) * arguments.k_a[channel]);
    float v = rows.value[at];
    if (arguments.is_first_layer)
      rows.first_value[at] = v;
    else
      v += (rows.first_value[at] - v) * sigmoid(arguments.v0[channel] + rows.v[at]);
    work.value[at] = v;
  }
}

// A warp per segment, head and any_tile value columns, one of them a lane.
template <class Number>
__global__ void recur_any(const Arguments arguments, const Workspace work, int size) {
  extern __shared__ float shared[];
  float *state = shared;  // [size][any_tile]
  float *vectors = shared + size * any_tile;
  const Segment segment = arguments.segments[blockIdx.x / arguments.heads];
  const int head = static_cast<int>(blockIdx.x) % arguments.heads, lane = threadIdx.x;
  const int column = static_cast<int>(blockIdx.y) * any_tile + lane;
  const bool is_column = column < size;
  const int64_t head_at = static_cast<int64_t>(head) * size * size;
  const auto *from = reinterpret_cast<const Number *>(segment.from + arguments.wkv_offset) + head_at + column;
  for (int j = 0; j < size && is_column; ++j) {
    state[j * any_tile + lane] = static_cast<float>(from[static_cast<int64_t>(j) * size]);
  }
  const auto store_state = [&](char *to) {
    auto *numbers = reinterpret_cast<Number *>(to + arguments.wkv_offset) + head_at + column;
    for (int j = 0; j < size && is_column; ++j) {
      numbers[static_cast<int64_t>(j) * size] = static_cast<Number>(state[j * any_tile + lane]);
    }
  };
  int snapshot = segment.snapshots;
  const int snapshots_end = segment.snapshots + segment.snapshots_count;
  for (int row = segment.begin; row < segment.end; ++row) {
    const int64_t at = row * arguments.width + static_cast<int64_t>(head) * size;
    const float *const of_row[] = {work.decay, work.removal, work.rate, work.key, arguments.rows.receptance};
    __syncwarp();
    for (int i = lane; i < size; i += 32) {
#pragma unroll
      for (int vector = 0; vector < 5; ++vector) vectors[vector * size + i] = of_row[vector][at + i];
    }
    __syncwarp();
    if (is_column) {
      const float *w = vectors, *removal = w + size, *b = removal + size, *k = b + size, *r = k + size;
      const float v = work.value[at + column];
      float removed = 0, y = 0;
      for (int j = 0; j < size; ++j) removed += state[j * any_tile + lane] * removal[j];
      for (int j = 0; j < size; ++j) {
        float &s = state[j * any_tile + lane];
        s = s * w[j] + (b[j] * removed + k[j] * v);
        y += s * r[j];
      }
      work.y[at + column] = y;
    }
    for (; snapshot < snapshots_end && arguments.snapshots[snapshot].row <= row; ++snapshot) {
      store_state(arguments.snapshots[snapshot].state);
    }
  }
  store_state(segment.state);
}

// A block per row and head.
__global__ void finish_any(const Arguments arguments, const Workspace work, int size) {
  __shared__ float parts[32];
  const int64_t row = blockIdx.x / arguments.heads;
  const int first = static_cast<int>(blockIdx.x) % arguments.heads * size;
  const TimeMixRows &rows = arguments.rows;
  float sum = 0, products = 0;
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const int64_t at = row * arguments.width + first + i;
    sum += work.y[at];
    products += rows.receptance[at] * work.key[at] * arguments.r_k[first + i];
  }
  const float mean = block_sum(sum, parts) / static_cast<float>(size), bonus = block_sum(products, parts);
  float squares = 0;
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const float centred = work.y[row * arguments.width + first + i] - mean;
    squares += centred * centred;
  }
  const float scale = rsqrtf(block_sum(squares, parts) / static_cast<float>(size) + group_norm_epsilon);
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const int64_t at = row * arguments.width + first + i;
    const float o = (work.y[at] - mean) * scale * arguments.norm_weight[first + i] + arguments.norm_bias[first + i];
    const float gated = (o + bonus * work.value[at]) * rows.g[at];
    if (rows.out_half != nullptr)
      rows.out_half[at] = __float2half_rn(gated);
    else
      rows.out[at] = gated;
  }
}

cudaError_t any_head_size(cudaStream_t stream, const Device &device, const Arguments &arguments, const Batch &batch,
                          int64_t size, void *workspace) {
  auto *vectors = static_cast<float *>(workspace);
  const int64_t stride = batch.rows * arguments.width;
  const Workspace work = {vectors,
                          vectors + stride,
                          vectors + 2 * stride,
                          vectors + 3 * stride,
                          vectors + 4 * stride,
                          vectors + 5 * stride};
  const int64_t shared = size * (any_tile + 5) * static_cast<int64_t>(sizeof(float));
  if (shared > device.shared_bytes) return cudaErrorInvalidValue;
  const auto recur = arguments.is_half_state ? recur_any<__half> : recur_any<float>;
  const auto shared_bytes = static_cast<int>(shared);
  cudaError_t error = cudaFuncSetAttribute(recur, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (error != cudaSuccess) return error;
  const auto heads = static_cast<unsigned>(batch.rows * arguments.heads);
  const auto threads = static_cast<unsigned>(std::min<int64_t>((size + 31) / 32 * 32, 256));
  const auto n = static_cast<int>(size);
  prepare_any<<<heads, threads, 0, stream>>>(arguments, work, n);
  const dim3 tiles(static_cast<unsigned>(batch.segments_count * arguments.heads),
                   static_cast<unsigned>((size + any_tile - 1) / any_tile));
  recur<<<tiles, any_tile, static_cast<size_t>(shared), stream>>>(arguments, work, n);
  finish_any<<<heads, threads, 0, stream>>>(arguments, work, n);
  return cudaGetLastError();
}

}  // namespace
}  // namespace mixing

size_t time_mix_workspace_bytes(const Device &, const DeviceShape &shape, int64_t rows) {
  if (shape.head_size == mixing::head_size) return 0;
  return static_cast<size_t>(rows * shape.width) * sizeof(float) * mixing::workspace_vectors;
}

cudaError_t time_mix(cudaStream_t stream, const Device &device, const DeviceShape &shape, const StateShape &states,
                     const Layer &layer, int64_t layer_index, const Batch &batch, const TimeMixRows &rows,
                     void *workspace, TimeMixWay way) {
  if (batch.rows == 0) return cudaSuccess;
  mixing::Arguments arguments = {};
  arguments.rows = rows;
  arguments.w0 = layer.w0, arguments.a0 = layer.a0, arguments.v0 = layer.v0;
  arguments.k_k = layer.k_k, arguments.k_a = layer.k_a, arguments.r_k = layer.r_k;
  arguments.norm_weight = layer.ln_x_weight, arguments.norm_bias = layer.ln_x_bias;
  arguments.segments = batch.segments, arguments.snapshots = batch.snapshots;
  arguments.wkv_offset = states.wkv(layer_index);
  arguments.width = shape.width, arguments.heads = static_cast<int32_t>(shape.heads);
  arguments.longest = batch.rows;
  arguments.is_first_layer = layer_index == 0, arguments.is_half_state = states.is_half;
  // The kernels index rows in 32 bits.
  if (batch.rows * shape.width > std::numeric_limits<int32_t>::max()) return cudaErrorInvalidValue;
  if (shape.head_size != mixing::head_size) {
    return mixing::any_head_size(stream, device, arguments, batch, shape.head_size, workspace);
  }

  const bool is_many = batch.segments_count * arguments.heads > device.processors;
  const int32_t shortest = is_many ? mixing::chunked_shortest_of_many : mixing::chunked_shortest;
  if (way != TimeMixWay::serial && batch.longest >= shortest && mixing::chunked_fits(device)) {
    arguments.shortest = shortest;
    const cudaError_t error = mixing::chunked(stream, device, arguments, batch.segments_count, batch.longest);
    if (error != cudaSuccess || batch.segments_count == 1) return error;
    arguments.shortest = 0, arguments.longest = shortest - 1;
  }
  const auto step = states.is_half ? mixing::step_rows<__half> : mixing::step_rows<float>;
  // As many blocks a head as the device holds at once, or fewer when they take as many turns.
  const int most = std::max(1, device.processors * mixing::serial_blocks / arguments.heads);
  const int turns = (batch.segments_count + most - 1) / most,
            blocks_of_head = (batch.segments_count + turns - 1) / turns;
  const auto blocks = static_cast<unsigned>(blocks_of_head * arguments.heads);
  step<<<blocks, mixing::serial_threads, 0, stream>>>(arguments, batch.segments_count);
  return cudaGetLastError();
}

}  // namespace libwkv::cuda
