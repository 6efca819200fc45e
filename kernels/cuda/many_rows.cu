// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/many_rows.h"

#include <algorithm>

#include <cuda_bf16.h>

namespace libwkv::cuda {
namespace {

// A block has a row, a thread eight columns of it, which it keeps in registers.
constexpr int columns = row_columns;
constexpr int most_threads = most_row_width / columns;
constexpr float norm_epsilon = 1e-5f;

unsigned row_threads(int64_t width) { return static_cast<unsigned>((width / columns + 31) / 32 * 32); }

// A kernel that was launched to begin early waits here for the one ahead; the one behind need not wait for this one to
// end before it begins to wait in turn.
__device__ void begin_early() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

struct Eight {
  float at[columns];
};

__device__ Eight load(const float *from) {
  const auto *quads = reinterpret_cast<const float4 *>(from);
  const float4 low = quads[0], high = quads[1];
  return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
}

__device__ void store(float *to, const Eight &x) {
  auto *quads = reinterpret_cast<float4 *>(to);
  quads[0] = make_float4(x.at[0], x.at[1], x.at[2], x.at[3]);
  quads[1] = make_float4(x.at[4], x.at[5], x.at[6], x.at[7]);
}

__device__ Eight load(const __half *from) {
  const uint4 packed = *reinterpret_cast<const uint4 *>(from);
  const auto *pairs = reinterpret_cast<const __half2 *>(&packed);
  Eight x;
#pragma unroll
  for (int i = 0; i < columns / 2; ++i) {
    const float2 pair = __half22float2(pairs[i]);
    x.at[2 * i] = pair.x;
    x.at[2 * i + 1] = pair.y;
  }
  return x;
}

__device__ void store(__half *to, const Eight &x) {
  uint4 packed;
  auto *pairs = reinterpret_cast<__half2 *>(&packed);
#pragma unroll
  for (int i = 0; i < columns / 2; ++i) pairs[i] = __floats2half2_rn(x.at[2 * i], x.at[2 * i + 1]);
  *reinterpret_cast<uint4 *>(to) = packed;
}

// Sums over the block, in an order that depends on its size alone. Calls alternate between two arrays, so that one
// barrier a call is enough.
struct BlockSum {
  float (*sums)[32];
  int turn = 0;

  __device__ float operator()(float value) {
    float *mine = sums[turn];
    turn ^= 1;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    if (threadIdx.x % 32 == 0) mine[threadIdx.x / 32] = value;
    __syncthreads();
    float total = 0;
    for (unsigned i = 0; i < blockDim.x / 32; ++i) total += mine[i];
    return total;
  }
};

// LN of the block's row. Threads past the width have zeros and do not count.
struct Norm {
  const float *weight, *bias;
  int64_t width, column;
  bool has_columns;

  __device__ Norm(const float *weights, const float *biases, int64_t row_width)
      : weight(weights),
        bias(biases),
        width(row_width),
        column(int64_t{threadIdx.x} * columns),
        has_columns(column < row_width) {}

  __device__ Eight operator()(const Eight &x, BlockSum &block_sum) const {
    float sum = 0;
#pragma unroll
    for (float value : x.at) sum += value;
    const float mean = block_sum(sum) / static_cast<float>(width);
    float squares = 0;
#pragma unroll
    for (float value : x.at) squares += (value - mean) * (value - mean);
    const float variance = block_sum(has_columns ? squares : 0.0f) / static_cast<float>(width);
    const float scale = rsqrtf(variance + norm_epsilon);
    Eight h{};
    if (!has_columns) return h;
    const Eight weights = load(weight + column), biases = load(bias + column);
#pragma unroll
    for (int i = 0; i < columns; ++i) h.at[i] = (x.at[i] - mean) * scale * weights.at[i] + biases.at[i];
    return h;
  }
};

// x = LN0(emb[token])
__global__ void __launch_bounds__(most_threads)
    embed_kernel(const int32_t *tokens, const void *embedding, Format format, const float *weight, const float *bias,
                 int64_t width, float *x) {
  __shared__ float sums[2][32];
  BlockSum block_sum{sums};
  const Norm norm(weight, bias, width);
  const int64_t column = norm.column, from = tokens[blockIdx.x] * width + column;
  Eight token{};
  if (norm.has_columns) {
    if (format == Format::f32) {
      token = load(static_cast<const float *>(embedding) + from);
    } else if (format == Format::f16) {
      token = load(static_cast<const __half *>(embedding) + from);
    } else {
      for (int i = 0; i < columns; ++i) {
        token.at[i] = __bfloat162float(static_cast<const __nv_bfloat16 *>(embedding)[from + i]);
      }
    }
  }
  const Eight out = norm(token, block_sum);
  if (norm.has_columns) store(x + blockIdx.x * width + column, out);
}

// h = LN(x), out = h + (previous h - h) * mix. A block has block_rows rows one after another, so that it norms one row
// more and not each twice, and reads ahead: what a row needs is three loads away, each waiting for the one before.
//
// The shift of a segment's last row goes into its state. Other blocks may be about to read the old one there when the
// segment is stepped in place, so the block of the first row, the only one that reads it, writes the new one, and norms
// the last row for that.
template <class Number, int mixes>
__global__ void __launch_bounds__(most_threads)
    shift_and_mix_kernel(Batch batch, ShiftAndMix<Number, mixes> call, int block_rows) {
  __shared__ float sums[2][32];
  begin_early();
  BlockSum block_sum{sums};
  const int64_t width = call.width;
  const Norm norm(call.weight, call.bias, width);
  const int64_t column = norm.column;
  const auto load_row = [&](int row) { return norm.has_columns ? load(call.x + row * width + column) : Eight{}; };
  const auto load_shift = [&](const Segment &segment) {
    return norm.has_columns ? load(reinterpret_cast<const float *>(segment.from + call.shift) + column) : Eight{};
  };
  const int first = blockIdx.x * block_rows, end = min(first + block_rows, batch.rows);
  Segment segment = batch.segments[batch.row_segment[first]];
  Eight x = load_row(first), previous;
  if (first == segment.begin) {
    previous = load_shift(segment);
  } else {
    previous = norm(load_row(first - 1), block_sum);
  }
  for (int row = first; row < end; ++row) {
    Segment next_segment = segment;
    Eight next_x{}, next_previous{};
    bool is_next_begin = false;
    if (row + 1 < end) {
      next_x = load_row(row + 1);
      if (row + 1 == segment.end) {
        next_segment = batch.segments[batch.row_segment[row + 1]];
        next_previous = load_shift(next_segment);
        is_next_begin = true;
      }
    }
    const Eight h = norm(x, block_sum);
    if (norm.has_columns) {
#pragma unroll
      for (int m = 0; m < mixes; ++m) {
        const Eight mix = load(call.mix[m] + column);
        Eight out;
#pragma unroll
        for (int i = 0; i < columns; ++i) out.at[i] = h.at[i] + (previous.at[i] - h.at[i]) * mix.at[i];
        store(call.out[m] + row * width + column, out);
      }
    }
    if (row == segment.begin) {
      const Eight last = row == segment.end - 1 ? h : norm(load_row(segment.end - 1), block_sum);
      if (norm.has_columns) store(reinterpret_cast<float *>(segment.state + call.shift) + column, last);
    }
    for (int i = 0; i < segment.snapshots_count; ++i) {
      const Snapshot snapshot = batch.snapshots[segment.snapshots + i];
      if (snapshot.row == row && norm.has_columns)
        store(reinterpret_cast<float *>(snapshot.state + call.shift) + column, h);
    }
    previous = is_next_begin ? next_previous : h;
    x = next_x;
    segment = next_segment;
  }
}

// LN of the rows whose scores are wanted.
template <class Number>
__global__ void __launch_bounds__(most_threads)
    gather_norm_kernel(const int32_t *rows, const float *x, const float *weight, const float *bias, int64_t width,
                       Number *out) {
  __shared__ float sums[2][32];
  BlockSum block_sum{sums};
  const Norm norm(weight, bias, width);
  const int64_t column = norm.column;
  const Eight from = norm.has_columns ? load(x + rows[blockIdx.x] * width + column) : Eight{};
  const Eight h = norm(from, block_sum);
  if (norm.has_columns) store(out + blockIdx.x * width + column, h);
}

constexpr int flat_threads = 256;

// x = act(scale * x), in place.
template <class Number>
__global__ void __launch_bounds__(flat_threads)
    activate_kernel(Number *x, int64_t count, Activation activation, float scale) {
  const int64_t at = (int64_t{blockIdx.x} * flat_threads + threadIdx.x) * columns;
  if (at >= count) return;
  Eight values = load(x + at);
#pragma unroll
  for (float &value : values.at) {
    value *= scale;
    if (activation == Activation::tanh) {
      value = tanhf(value);
    } else if (activation == Activation::sigmoid) {
      value = 1.0f / (1.0f + expf(-value));
    } else {
      value = value < 0 ? 0.0f : value * value;  // NaN stays NaN
    }
  }
  store(x + at, values);
}

}  // namespace

cudaError_t embed(cudaStream_t stream, const Batch &batch, const Weights &weights, float *x) {
  const int64_t width = weights.embedding.inputs;
  embed_kernel<<<static_cast<unsigned>(batch.rows), row_threads(width), 0, stream>>>(
      batch.tokens, weights.embedding.values, weights.embedding.format, weights.ln0_weight, weights.ln0_bias, width, x);
  return cudaGetLastError();
}

template <class Number, int mixes>
cudaError_t shift_and_mix(cudaStream_t stream, const Device &device, const Batch &batch,
                          const ShiftAndMix<Number, mixes> &call) {
  // As many blocks as fit on the device at once: with 64 registers a thread, 1024 threads on a multiprocessor.
  const unsigned threads = row_threads(call.width);
  const int64_t at_once = int64_t{device.processors} * std::max(1u, 1024 / threads);
  const int block_rows = static_cast<int>((batch.rows + at_once - 1) / at_once);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>((batch.rows + block_rows - 1) / block_rows));
  config.blockDim = dim3(threads);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = device.major >= 9 && call.begins_early ? 1 : 0;
  return cudaLaunchKernelEx(&config, shift_and_mix_kernel<Number, mixes>, batch, call, block_rows);
}

template cudaError_t shift_and_mix(cudaStream_t, const Device &, const Batch &, const ShiftAndMix<__half, 6> &);
template cudaError_t shift_and_mix(cudaStream_t, const Device &, const Batch &, const ShiftAndMix<__half, 1> &);
template cudaError_t shift_and_mix(cudaStream_t, const Device &, const Batch &, const ShiftAndMix<float, 6> &);
template cudaError_t shift_and_mix(cudaStream_t, const Device &, const Batch &, const ShiftAndMix<float, 1> &);

template <class Number>
cudaError_t gather_norm(cudaStream_t stream, const Batch &batch, const float *x, const float *weight, const float *bias,
                        int64_t width, Number *out) {
  gather_norm_kernel<<<static_cast<unsigned>(batch.logits_count), row_threads(width), 0, stream>>>(
      batch.logits_rows, x, weight, bias, width, out);
  return cudaGetLastError();
}

template cudaError_t gather_norm(cudaStream_t, const Batch &, const float *, const float *, const float *, int64_t,
                                 __half *);
template cudaError_t gather_norm(cudaStream_t, const Batch &, const float *, const float *, const float *, int64_t,
                                 float *);

template <class Number>
cudaError_t activate(cudaStream_t stream, Number *x, int64_t count, Activation activation, float scale) {
  const int64_t in_block = int64_t{flat_threads} * columns;
  activate_kernel<<<static_cast<unsigned>((count + in_block - 1) / in_block), flat_threads, 0, stream>>>(
      x, count, activation, scale);
  return cudaGetLastError();
}

template cudaError_t activate(cudaStream_t, __half *, int64_t, Activation, float);
template cudaError_t activate(cudaStream_t, float *, int64_t, Activation, float);

}  // namespace libwkv::cuda
