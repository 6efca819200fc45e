// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/plain.h"

#include <cuda_bf16.h>

namespace libwkv::cuda {
namespace {

constexpr int block_threads = 256;
constexpr int product_rows = 8;  // that share a read of the weights

__device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// The sum of one value a thread, the same for all; in an order that depends on the block's size alone.
__device__ float block_sum(float value) {
  __shared__ float sums[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(~0u, value, step);
  __syncthreads();
  if (lane == 0) sums[warp] = value;
  __syncthreads();
  float total = 0;
  for (unsigned i = 0; i < blockDim.x / 32; i++) total += sums[i];
  return total;
}

struct Norm {
  float mean, scale;
};

__device__ Norm measure(const float *x, int64_t count, float epsilon) {
  float sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += x[i];
  const float mean = block_sum(sum) / static_cast<float>(count);
  float squares = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) squares += (x[i] - mean) * (x[i] - mean);
  return {mean, 1.0f / sqrtf(block_sum(squares) / static_cast<float>(count) + epsilon)};
}

__device__ float apply(const Norm &norm, float x, float weight, float bias) {
  return (x - norm.mean) * norm.scale * weight + bias;
}

// One number of a matrix held by rows.
__device__ float weight_at(const Matrix &m, int64_t o, int64_t i) {
  const int64_t at = m.order == Order::rows ? o * m.inputs + i : i * m.outputs + o;
  const int64_t group = m.order == Order::rows ? o * (m.inputs / 32) + i / 32 : i / 32 * m.outputs + o;
  switch (m.format) {
    case Format::f32:
      return static_cast<const float *>(m.values)[at];
    case Format::f16:
      return __half2float(static_cast<const __half *>(m.values)[at]);
    case Format::bf16:
      return __bfloat162float(static_cast<const __nv_bfloat16 *>(m.values)[at]);
    case Format::q8:
      return static_cast<float>(static_cast<const int8_t *>(m.values)[at]) *
             __half2float(static_cast<const __half *>(m.scales)[group]);
    case Format::q8_affine: {
      const float4 s = static_cast<const float4 *>(m.scales)[group];
      return static_cast<float>(static_cast<const int8_t *>(m.values)[at]) * (i % 32 < 16 ? s.x : s.y) + s.z;
    }
    default: {
      const uint8_t byte = static_cast<const uint8_t *>(m.values)[o * (m.inputs / 2) + i / 32 * 16 + i % 16];
      const float q = static_cast<float>(i % 32 < 16 ? byte & 15 : byte >> 4);
      if (m.format == Format::q4) return (q - 8.0f) * __half2float(static_cast<const __half *>(m.scales)[group]);
      const float2 s = static_cast<const float2 *>(m.scales)[group];
      return q * s.x + s.y;
    }
  }
}

// x = LN0(emb[token]); a block a row.
__global__ void embed(Batch batch, Weights weights, int64_t width, float *x) {
  float *to = x + blockIdx.x * width;
  const int64_t token = batch.tokens[blockIdx.x];
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) to[i] = weight_at(weights.embedding, token, i);
  __syncthreads();
  const Norm norm = measure(to, width, 1e-5f);
  __syncthreads();
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
    to[i] = apply(norm, to[i], weights.ln0_weight[i], weights.ln0_bias[i]);
}

struct Mixes {
  const float *mix[6];
  float *out[6];  // [rows][width]
  int count;
};

// h = LN(x); out = h + (previous - h) * mix. A block a row.
__global__ void shift_and_mix(Batch batch, int64_t width, const float *x, const float *weight, const float *bias,
                              size_t shift_offset, Mixes mixes) {
  const int64_t row = blockIdx.x;
  const Segment segment = batch.segments[batch.row_segment[row]];
  const float *now = x + row * width;
  const bool is_first = row == segment.begin;
  const float *before = is_first ? reinterpret_cast<const float *>(segment.from + shift_offset) : now - width;
  const Norm norm = measure(now, width, 1e-5f);
  Norm norm_before{0, 1};
  if (!is_first) norm_before = measure(before, width, 1e-5f);
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    const float h = apply(norm, now[i], weight[i], bias[i]);
    const float previous = is_first ? before[i] : apply(norm_before, before[i], weight[i], bias[i]);
    for (int m = 0; m < mixes.count; m++) mixes.out[m][row * width + i] = h + (previous - h) * mixes.mix[m][i];
  }
}

// The shift of the last row of each segment, and of rows whose state is wanted: after shift_and_mix, which reads what
// is overwritten here. A block a segment or snapshot.
__global__ void save_shift(Batch batch, int64_t width, const float *x, const float *weight, const float *bias,
                           size_t shift_offset) {
  const int index = static_cast<int>(blockIdx.x);
  const bool is_end = index < batch.segments_count;
  const int row = is_end ? batch.segments[index].end - 1 : batch.snapshots[index - batch.segments_count].row;
  char *state = is_end ? batch.segments[index].state : batch.snapshots[index - batch.segments_count].state;
  const float *now = x + row * width;
  const Norm norm = measure(now, width, 1e-5f);
  float *to = reinterpret_cast<float *>(state + shift_offset);
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) to[i] = apply(norm, now[i], weight[i], bias[i]);
}

enum class After { nothing, tanh, sigmoid, squared_relu };

// y[r][o] = after(sum_i W[o][i] x[r][i]); add: onto what is there. A warp an output, product_rows rows at a time; the
// sum's order depends on the row alone.
__global__ void multiply(Matrix w, const float *x, int64_t rows, float *y, After after, bool adds) {
  const int64_t o = blockIdx.x * static_cast<int64_t>(blockDim.y) + threadIdx.y;
  const int64_t first = blockIdx.y * static_cast<int64_t>(product_rows);
  const int count = static_cast<int>(min(static_cast<int64_t>(product_rows), rows - first));
  if (o >= w.outputs) return;
  float sums[product_rows] = {};
  for (int64_t i = threadIdx.x; i < w.inputs; i += 32) {
    const float weight = weight_at(w, o, i);
#pragma unroll
    for (int r = 0; r < product_rows; r++)
      if (r < count) sums[r] = fmaf(weight, x[(first + r) * w.inputs + i], sums[r]);
  }
#pragma unroll
  for (int r = 0; r < product_rows; r++) {
    if (r >= count) break;
    float sum = sums[r];
    for (int step = 16; step; step >>= 1) sum += __shfl_xor_sync(~0u, sum, step);
    if (threadIdx.x != 0) continue;
    if (after == After::tanh) sum = tanhf(sum);
    if (after == After::sigmoid) sum = sigmoid(sum);
    if (after == After::squared_relu) sum = sum > 0 ? sum * sum : 0.0f;
    float *to = y + (first + r) * w.outputs + o;
    *to = adds ? *to + sum : sum;
  }
}

// Raw products to what the recurrence takes, in place; a block a (row, head).
struct TimeMix {
  float *receptance, *key, *value, *decay, *rate, *value_mix, *gate, *removal, *first_value, *wkv, *out;
};

__global__ void prepare_time_mix(TimeMix t, Layer layer, int64_t width, int64_t head_size, bool is_first_layer) {
  const int64_t row = blockIdx.x, begin = static_cast<int64_t>(blockIdx.y) * head_size;
  float squares = 0;
  for (int64_t n = threadIdx.x; n < head_size; n += blockDim.x) {
    const float kk = t.key[row * width + begin + n] * layer.k_k[begin + n];
    squares += kk * kk;
  }
  const float length = fmaxf(sqrtf(block_sum(squares)), 1e-12f);
  for (int64_t n = threadIdx.x; n < head_size; n += blockDim.x) {
    const int64_t c = begin + n, at = row * width + c;
    const float k = t.key[at], kk = k * layer.k_k[c] / length, a = sigmoid(layer.a0[c] + t.rate[at]);
    t.decay[at] = expf(-0.60653065971263342f * sigmoid(layer.w0[c] + t.decay[at]));
    t.removal[at] = -kk;
    t.rate[at] = kk * a;
    t.key[at] = k * (1 + (a - 1) * layer.k_a[c]);
    if (is_first_layer)
      t.first_value[at] = t.value[at];
    else
      t.value[at] += (t.first_value[at] - t.value[at]) * sigmoid(layer.v0[c] + t.value_mix[at]);
  }
}

template <class Number>
__device__ float load(const Number *at);
template <>
__device__ float load(const float *at) {
  return *at;
}
template <>
__device__ float load(const __half *at) {
  return __half2float(*at);
}
__device__ void store(float *at, float value) { *at = value; }
__device__ void store(__half *at, float value) { *at = __float2half_rn(value); }

// S = S diag(w) + (S^T a) b + v k^T; y = S^T r. A block a (segment, head), a thread a value column, which it alone
// reads and writes.
template <class Number>
__global__ void recur(Batch batch, TimeMix t, int64_t width, int64_t head_size, size_t wkv_offset) {
  const Segment segment = batch.segments[blockIdx.x];
  const int64_t head = blockIdx.y;
  const size_t offset = wkv_offset + static_cast<size_t>(head * head_size * head_size) * sizeof(Number);
  const Number *from = reinterpret_cast<const Number *>(segment.from + offset);
  Number *state = reinterpret_cast<Number *>(segment.state + offset);
  int snapshot = segment.snapshots;
  for (int64_t i = threadIdx.x; i < head_size; i += blockDim.x) {
    if (from != state)
      for (int64_t j = 0; j < head_size; j++) state[j * head_size + i] = from[j * head_size + i];
    snapshot = segment.snapshots;
    for (int64_t row = segment.begin; row < segment.end; row++) {
      const int64_t at = row * width + head * head_size;
      const float v = t.value[at + i];
      float removed = 0;
      for (int64_t j = 0; j < head_size; j++)
        removed = fmaf(load(state + j * head_size + i), t.removal[at + j], removed);
      float y = 0;
      for (int64_t j = 0; j < head_size; j++) {
        const float s =
            load(state + j * head_size + i) * t.decay[at + j] + removed * t.rate[at + j] + v * t.key[at + j];
        store(state + j * head_size + i, s);
        y = fmaf(s, t.receptance[at + j], y);
      }
      t.wkv[at + i] = y;
      if (snapshot < segment.snapshots + segment.snapshots_count && batch.snapshots[snapshot].row == row) {
        Number *to = reinterpret_cast<Number *>(batch.snapshots[snapshot].state + offset);
        for (int64_t j = 0; j < head_size; j++) to[j * head_size + i] = state[j * head_size + i];
        snapshot++;
      }
    }
  }
}

// (group_norm(y) + (sum r k r_k) v) g; a block a (row, head).
__global__ void finish_time_mix(TimeMix t, Layer layer, int64_t width, int64_t head_size) {
  const int64_t row = blockIdx.x, begin = static_cast<int64_t>(blockIdx.y) * head_size;
  const Norm norm = measure(t.wkv + row * width + begin, head_size, 64e-5f);
  float bonus = 0;
  for (int64_t n = threadIdx.x; n < head_size; n += blockDim.x) {
    const int64_t at = row * width + begin + n;
    bonus += t.receptance[at] * t.key[at] * layer.r_k[begin + n];
  }
  bonus = block_sum(bonus);
  for (int64_t n = threadIdx.x; n < head_size; n += blockDim.x) {
    const int64_t c = begin + n, at = row * width + c;
    t.out[at] = (apply(norm, t.wkv[at], layer.ln_x_weight[c], layer.ln_x_bias[c]) + bonus * t.value[at]) * t.gate[at];
  }
}

// LN of the rows whose scores are wanted; a block a row.
__global__ void gather_norm(Batch batch, int64_t width, const float *x, const float *weight, const float *bias,
                            float *out) {
  const float *from = x + batch.logits_rows[blockIdx.x] * width;
  const Norm norm = measure(from, width, 1e-5f);
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
    out[blockIdx.x * width + i] = apply(norm, from[i], weight[i], bias[i]);
}

void enqueue_product(cudaStream_t stream, const Matrix &w, const float *x, int64_t rows, float *y,
                     After after = After::nothing, bool adds = false) {
  const dim3 grid(static_cast<unsigned>((w.outputs + 7) / 8),
                  static_cast<unsigned>((rows + product_rows - 1) / product_rows));
  multiply<<<grid, dim3(32, 8), 0, stream>>>(w, x, rows, y, after, adds);
}

// Rows of width C: x, six mixes and ten of the time mix; then ranks and ffn.
constexpr int64_t wide_buffers = 1 + 6 + 10;
int64_t most_rank(const DeviceShape &s) { return max(max(s.rank_w, s.rank_a), max(s.rank_v, s.rank_g)); }

}  // namespace

size_t plain_workspace_bytes(const DeviceShape &s, int64_t rows) {
  return static_cast<size_t>(rows * (wide_buffers * s.width + 4 * most_rank(s) + s.ffn_width)) * sizeof(float);
}

cudaError_t plain_forward(cudaStream_t stream, const DeviceShape &s, const StateShape &states, const Weights &weights,
                          const Batch &batch, void *workspace, const LayerHook *hook, bool *stopped) {
  const int64_t rows = batch.rows, width = s.width;
  float *next = static_cast<float *>(workspace);
  const auto take = [&](int64_t columns) {
    float *memory = next;
    next += rows * columns;
    return memory;
  };
  float *x = take(width);
  float *mixed[6];
  for (float *&one : mixed) one = take(width);
  TimeMix t{};
  t.receptance = take(width);
  t.key = take(width);
  t.value = take(width);
  t.decay = take(width);
  t.rate = take(width);
  t.value_mix = take(width);
  t.gate = take(width);
  t.removal = take(width);
  t.first_value = take(width);
  t.wkv = take(width);
  t.out = mixed[0];
  float *low[4];
  for (float *&one : low) one = take(most_rank(s));
  float *ffn = take(s.ffn_width);

  const unsigned row_blocks = static_cast<unsigned>(rows);
  const unsigned save_blocks = static_cast<unsigned>(batch.segments_count + batch.snapshots_count);
  const dim3 heads(row_blocks, static_cast<unsigned>(s.heads));
  const unsigned head_threads = static_cast<unsigned>(min(int64_t{256}, (s.head_size + 31) / 32 * 32));
  embed<<<row_blocks, block_threads, 0, stream>>>(batch, weights, width, x);
  for (int64_t l = 0; l < s.layers; l++) {
    const Layer &layer = weights.layers[l];
    const Mixes six{{layer.x_r, layer.x_w, layer.x_k, layer.x_v, layer.x_a, layer.x_g},
                    {mixed[0], mixed[1], mixed[2], mixed[3], mixed[4], mixed[5]},
                    6};
    shift_and_mix<<<row_blocks, block_threads, 0, stream>>>(batch, width, x, layer.ln1_weight, layer.ln1_bias,
                                                            states.att_shift(l), six);
    save_shift<<<save_blocks, block_threads, 0, stream>>>(batch, width, x, layer.ln1_weight, layer.ln1_bias,
                                                          states.att_shift(l));
    enqueue_product(stream, layer.receptance, mixed[0], rows, t.receptance);
    enqueue_product(stream, layer.key, mixed[2], rows, t.key);
    enqueue_product(stream, layer.value, mixed[3], rows, t.value);
    enqueue_product(stream, layer.w1, mixed[1], rows, low[0], After::tanh);
    enqueue_product(stream, layer.a1, mixed[4], rows, low[1]);
    enqueue_product(stream, layer.g1, mixed[5], rows, low[2], After::sigmoid);
    enqueue_product(stream, layer.w2, low[0], rows, t.decay);
    enqueue_product(stream, layer.a2, low[1], rows, t.rate);
    enqueue_product(stream, layer.g2, low[2], rows, t.gate);
    if (l > 0) {
      enqueue_product(stream, layer.v1, mixed[3], rows, low[3]);
      enqueue_product(stream, layer.v2, low[3], rows, t.value_mix);
    }
    prepare_time_mix<<<heads, head_threads, 0, stream>>>(t, layer, width, s.head_size, l == 0);
    const dim3 sequences(static_cast<unsigned>(batch.segments_count), static_cast<unsigned>(s.heads));
    if (states.is_half)
      recur<__half><<<sequences, head_threads, 0, stream>>>(batch, t, width, s.head_size, states.wkv(l));
    else
      recur<float><<<sequences, head_threads, 0, stream>>>(batch, t, width, s.head_size, states.wkv(l));
    finish_time_mix<<<heads, head_threads, 0, stream>>>(t, layer, width, s.head_size);
    enqueue_product(stream, layer.output, t.out, rows, x, After::nothing, true);

    const Mixes one{{layer.ffn_x_k}, {mixed[0]}, 1};
    shift_and_mix<<<row_blocks, block_threads, 0, stream>>>(batch, width, x, layer.ln2_weight, layer.ln2_bias,
                                                            states.ffn_shift(l), one);
    save_shift<<<save_blocks, block_threads, 0, stream>>>(batch, width, x, layer.ln2_weight, layer.ln2_bias,
                                                          states.ffn_shift(l));
    enqueue_product(stream, layer.ffn_key, mixed[0], rows, ffn, After::squared_relu);
    enqueue_product(stream, layer.ffn_value, ffn, rows, x, After::nothing, true);
    if (hook && hook->is_stopped(hook->user, l + 1)) {
      *stopped = true;
      return cudaGetLastError();
    }
  }
  if (batch.logits_count > 0) {
    gather_norm<<<static_cast<unsigned>(batch.logits_count), block_threads, 0, stream>>>(
        batch, width, x, weights.ln_out_weight, weights.ln_out_bias, mixed[0]);
    enqueue_product(stream, weights.head, mixed[0], batch.logits_count, batch.logits);
  }
  return cudaGetLastError();
}

}  // namespace libwkv::cuda
