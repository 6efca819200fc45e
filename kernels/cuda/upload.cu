// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/upload.h"

#include <algorithm>
#include <climits>

#include <cuda_bf16.h>

namespace libwkv::cuda {

using kernels::DevicePart;

namespace {

constexpr int tile = 32;  // numbers a side of what a block moves: one quantised block along the inputs

bool is_plain(Format format) { return format == Format::f32 || format == Format::f16 || format == Format::bf16; }

template <class Stored>
__device__ float widen(Stored value);
template <>
__device__ float widen(float value) {
  return value;
}
template <>
__device__ float widen(__half value) {
  return __half2float(value);
}
template <>
__device__ float widen(__nv_bfloat16 value) {
  return __bfloat162float(value);
}

__device__ void store(float *to, float value, int32_t, int32_t *) { *to = value; }
__device__ void store(__half *to, float value, int32_t number, int32_t *overflow) {
  *to = __float2half_rn(value);
  if (isfinite(value) && __hisinf(*to)) atomicMin(overflow, number);
}
__device__ void store(__nv_bfloat16 *to, float value, int32_t, int32_t *) { *to = __float2bfloat16_rn(value); }

// A tile of source rows [row0 ..) goes to its place: through shared memory, so that both sides move whole lines when
// rows become columns.
template <class Source, class Target>
__global__ void move_plain(const Source *source, int64_t row0, int64_t rows, int64_t columns, Target *target,
                           int64_t target_row_stride, int64_t target_column_stride, int32_t number, int32_t *overflow) {
  __shared__ float values[tile][tile + 1];
  const int64_t c0 = static_cast<int64_t>(blockIdx.x) * tile, r0 = static_cast<int64_t>(blockIdx.y) * tile;
  for (int r = threadIdx.y; r < tile; r += blockDim.y)
    if (r0 + r < rows && c0 + threadIdx.x < columns)
      values[r][threadIdx.x] = widen(source[(r0 + r) * columns + c0 + threadIdx.x]);
  __syncthreads();
  const bool is_turned = target_row_stride == 1;
  for (int k = threadIdx.y; k < tile; k += blockDim.y) {
    const int r = is_turned ? threadIdx.x : k, c = is_turned ? k : threadIdx.x;
    if (r0 + r < rows && c0 + c < columns)
      store(target + (row0 + r0 + r) * target_row_stride + (c0 + c) * target_column_stride, values[r][c], number,
            overflow);
  }
}

// A warp a block of 32 inputs, as formats::encode rounds: q8 to nearest, q4 up at ties.
template <class Source>
__global__ void quantise(const Source *source, int64_t row0, int64_t rows, int64_t inputs, int64_t outputs,
                         bool is_nibbles, bool is_columns, uint8_t *values, __half *scales) {
  __shared__ int8_t turned[tile][tile + 4];
  const int lane = threadIdx.x;
  const int64_t group = blockIdx.x, groups = inputs / 32;
  for (int r = threadIdx.y; r < tile; r += blockDim.y) {
    const int64_t row = static_cast<int64_t>(blockIdx.y) * tile + r, o = row0 + row;
    if (row >= rows) continue;
    const float x = widen(source[row * inputs + group * 32 + lane]);
    float largest = fabsf(x);
    for (int step = 16; step; step >>= 1) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
    float d;
    int q;
    if (is_nibbles) {
      const unsigned holders = __ballot_sync(~0u, fabsf(x) == largest);
      d = __shfl_sync(~0u, x, holders ? __ffs(holders) - 1 : 0) / -8.0f;
      float shifted = __fadd_rn(__fdiv_rn(x, d != 0 ? d : 1.0f), 8.5f);
      q = static_cast<int>(fminf(shifted >= 0 ? shifted : 0.0f, 15.0f));
    } else {
      d = __fdiv_rn(largest, 127.0f);
      q = static_cast<int>(rintf(__fdiv_rn(x, d != 0 ? d : 1.0f)));
    }
    if (lane == 0) scales[is_columns ? group * outputs + o : o * groups + group] = __float2half_rn(d);
    if (is_nibbles) {
      const int high = __shfl_down_sync(~0u, q, 16);
      if (lane < 16) values[o * (inputs / 2) + group * 16 + lane] = static_cast<uint8_t>(q | high << 4);
    } else if (is_columns) {
      turned[lane][r] = static_cast<int8_t>(q);
    } else {
      values[o * inputs + group * 32 + lane] = static_cast<uint8_t>(q);
    }
  }
  if (!is_columns) return;
  __syncthreads();
  for (int i = threadIdx.y; i < tile; i += blockDim.y) {
    const int64_t row = static_cast<int64_t>(blockIdx.y) * tile + lane;
    if (row < rows) values[(group * 32 + i) * outputs + row0 + row] = static_cast<uint8_t>(turned[i][lane]);
  }
}

// Blocks as kernels/table.h lays them out, to values and scales apart. A thread a byte of values.
__global__ void split_blocks(const uint8_t *source, int64_t row0, int64_t rows, int64_t inputs, int64_t outputs,
                             Format format, bool is_columns, uint8_t *values, void *scales) {
  const int head = format == Format::q4_affine ? 8 : format == Format::q8_affine ? 12 : 2;
  const int bytes = format == Format::q4 || format == Format::q4_affine ? 16 : 32;
  const int64_t groups = inputs / 32, total = rows * groups * bytes;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < total;
       at += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int64_t block = at / bytes, row = block / groups, group = block % groups, o = row0 + row;
    const int byte = static_cast<int>(at % bytes);
    const uint8_t *from = source + block * (head + bytes);
    const uint8_t value = from[head + byte];
    if (is_columns)
      values[(group * 32 + byte) * outputs + o] = value;
    else
      values[o * groups * bytes + group * bytes + byte] = value;
    if (byte > 0) continue;
    const int64_t place = is_columns ? group * outputs + o : o * groups + group;
    if (head == 2) {
      static_cast<uint16_t *>(scales)[place] = static_cast<uint16_t>(from[0] | from[1] << 8);
    } else {
      float numbers[4] = {};
      for (int i = 0; i < head / 4; i++) {
        uint32_t bits = 0;
        for (int b = 0; b < 4; b++) bits |= static_cast<uint32_t>(from[4 * i + b]) << 8 * b;
        numbers[i] = __uint_as_float(bits);
      }
      float *to = static_cast<float *>(scales) + place * (head == 8 ? 2 : 4);
      for (int i = 0; i < (head == 8 ? 2 : 4); i++) to[i] = numbers[i];
    }
  }
}

struct Piece {
  const std::byte *source;
  int64_t row0, rows, columns;
  bool is_transposed;
};

template <class Source, class Target>
void launch_move(cudaStream_t stream, const Piece &piece, const Matrix &to, int32_t number, int32_t *overflow) {
  // Strides of the target along the source's rows and columns.
  const bool is_turned = piece.is_transposed != (to.order == Order::columns);
  const int64_t across = to.order == Order::columns ? to.outputs : to.inputs;
  const dim3 grid(static_cast<unsigned>((piece.columns + tile - 1) / tile),
                  static_cast<unsigned>((piece.rows + tile - 1) / tile));
  move_plain<Source, Target>
      <<<grid, dim3(tile, 8), 0, stream>>>(reinterpret_cast<const Source *>(piece.source), piece.row0, piece.rows,
                                           piece.columns, static_cast<Target *>(const_cast<void *>(to.values)),
                                           is_turned ? 1 : across, is_turned ? across : 1, number, overflow);
}

template <class Source>
bool launch_from(cudaStream_t stream, const Piece &piece, const Matrix &to, int32_t number, int32_t *overflow) {
  switch (to.format) {
    case Format::f32:
      launch_move<Source, float>(stream, piece, to, number, overflow);
      return true;
    case Format::f16:
      launch_move<Source, __half>(stream, piece, to, number, overflow);
      return true;
    case Format::bf16:
      launch_move<Source, __nv_bfloat16>(stream, piece, to, number, overflow);
      return true;
    case Format::q8:
    case Format::q4: {
      const dim3 grid(static_cast<unsigned>(to.inputs / 32), static_cast<unsigned>((piece.rows + tile - 1) / tile));
      quantise<Source><<<grid, dim3(32, 8), 0, stream>>>(
          reinterpret_cast<const Source *>(piece.source), piece.row0, piece.rows, to.inputs, to.outputs,
          to.format == Format::q4, to.order == Order::columns, static_cast<uint8_t *>(const_cast<void *>(to.values)),
          static_cast<__half *>(const_cast<void *>(to.scales)));
      return true;
    }
    default:
      return false;
  }
}

}  // namespace

PartShape part_shape(const DeviceShape &s, DevicePart part) {
  switch (part) {
    case DevicePart::embedding:
    case DevicePart::head:
      return {s.vocab_size, s.width, false};
    case DevicePart::receptance:
    case DevicePart::key:
    case DevicePart::value:
    case DevicePart::output:
      return {s.width, s.width, false};
    case DevicePart::ffn_key:
      return {s.ffn_width, s.width, false};
    case DevicePart::ffn_value:
      return {s.width, s.ffn_width, false};
    case DevicePart::w1:
      return {s.rank_w, s.width, false};
    case DevicePart::a1:
      return {s.rank_a, s.width, false};
    case DevicePart::v1:
      return {s.rank_v, s.width, false};
    case DevicePart::g1:
      return {s.rank_g, s.width, false};
    case DevicePart::w2:
      return {s.width, s.rank_w, false};
    case DevicePart::a2:
      return {s.width, s.rank_a, false};
    case DevicePart::v2:
      return {s.width, s.rank_v, false};
    case DevicePart::g2:
      return {s.width, s.rank_g, false};
    default:
      return {1, s.width, true};
  }
}

Order part_order(DevicePart part, Format format) {
  const bool can = format == Format::f32 || format == Format::f16 || format == Format::q8;
  return part == DevicePart::ffn_value && can ? Order::columns : Order::rows;
}

size_t values_bytes(Format format, int64_t outputs, int64_t inputs) {
  const size_t numbers = static_cast<size_t>(outputs * inputs);
  switch (format) {
    case Format::f32:
      return numbers * 4;
    case Format::f16:
    case Format::bf16:
      return numbers * 2;
    case Format::q8:
    case Format::q8_affine:
      return numbers;
    case Format::q4:
    case Format::q4_affine:
      return numbers / 2;
  }
  return 0;
}

size_t scales_bytes(Format format, int64_t outputs, int64_t inputs) {
  const size_t blocks = static_cast<size_t>(outputs * (inputs / 32));
  switch (format) {
    case Format::q8:
    case Format::q4:
      return blocks * 2;
    case Format::q4_affine:
      return blocks * 8;
    case Format::q8_affine:
      return blocks * 16;
    default:
      return 0;
  }
}

uint64_t part_bytes(const DeviceShape &shape, DevicePart part, Format format) {
  const PartShape s = part_shape(shape, part);
  return aligned(values_bytes(format, s.outputs, s.inputs)) + aligned(scales_bytes(format, s.outputs, s.inputs));
}

bool Upload::begin(cudaStream_t stream, kernels::DeviceFailure *failure) {
  stream_ = stream;
  for (Buffer &buffer : buffers_) {
    if (!check(cudaMallocHost(&buffer.host, buffer_bytes), "pinned memory", failure)) return false;
    if (!check(cudaMalloc(&buffer.device, buffer_bytes), "weights on their way", failure)) return false;
    if (!check(cudaEventCreateWithFlags(&buffer.is_free, cudaEventDisableTiming), "an event", failure)) return false;
  }
  const int32_t none = INT_MAX;
  return check(cudaMalloc(&overflow_, sizeof *overflow_), "weights on their way", failure) &&
         check(cudaMemcpy(overflow_, &none, sizeof none, cudaMemcpyHostToDevice), "a copy to the device", failure);
}

bool Upload::send(const kernels::DeviceSource &source, const Matrix &target, int32_t number,
                  kernels::DeviceFailure *failure) {
  if (source.row_bytes > buffer_bytes)
    return fail(failure, status_unsupported, "a row of %zu bytes is longer than %zu", source.row_bytes, buffer_bytes);
  // The same numbers in the same places: no conversion on the way.
  const bool is_direct =
      source.format == target.format && is_plain(source.format) && target.order == Order::rows && !source.is_transposed;
  const int64_t rows_at_once = std::max<int64_t>(1, static_cast<int64_t>(buffer_bytes / source.row_bytes));
  for (int64_t row = 0; row < source.rows; row += rows_at_once) {
    Buffer &buffer = buffers_[next_];
    next_ ^= 1;
    const int64_t rows = std::min(rows_at_once, source.rows - row);
    const size_t bytes = static_cast<size_t>(rows) * source.row_bytes;
    if (!check(cudaEventSynchronize(buffer.is_free), "loading", failure)) return false;
    source.fill(source.context, row, row + rows, buffer.host);
    void *to = is_direct ? static_cast<std::byte *>(const_cast<void *>(target.values)) +
                               static_cast<size_t>(row) * source.row_bytes
                         : buffer.device;
    if (!check(cudaMemcpyAsync(to, buffer.host, bytes, cudaMemcpyHostToDevice, stream_), "a copy to the device",
               failure))
      return false;
    if (!is_direct) {
      const Piece piece{buffer.device, row, rows, source.columns, source.is_transposed};
      bool is_known = true;
      switch (source.format) {
        case Format::f32:
          is_known = launch_from<float>(stream_, piece, target, number, overflow_);
          break;
        case Format::f16:
          is_known = launch_from<__half>(stream_, piece, target, number, overflow_);
          break;
        case Format::bf16:
          is_known = launch_from<__nv_bfloat16>(stream_, piece, target, number, overflow_);
          break;
        default:
          is_known = source.format == target.format;
          if (is_known)
            split_blocks<<<1024, 256, 0, stream_>>>(
                reinterpret_cast<const uint8_t *>(buffer.device), row, rows, target.inputs, target.outputs,
                target.format, target.order == Order::columns,
                static_cast<uint8_t *>(const_cast<void *>(target.values)), const_cast<void *>(target.scales));
      }
      if (!is_known)
        return fail(failure, status_internal, "weights of format %d cannot become format %d",
                    static_cast<int>(source.format), static_cast<int>(target.format));
      if (!check(cudaGetLastError(), "a conversion of weights", failure)) return false;
    }
    if (!check(cudaEventRecord(buffer.is_free, stream_), "loading", failure)) return false;
  }
  return true;
}

cudaError_t Upload::finish(int32_t *overflowed) {
  cudaError_t error = stream_ ? cudaStreamSynchronize(stream_) : cudaSuccess;
  if (overflowed) {
    int32_t number = INT_MAX;
    if (error == cudaSuccess && overflow_)
      error = cudaMemcpy(&number, overflow_, sizeof number, cudaMemcpyDeviceToHost);
    *overflowed = number == INT_MAX ? -1 : number;
  }
  for (Buffer &buffer : buffers_) {
    cudaFreeHost(buffer.host);
    cudaFree(buffer.device);
    if (buffer.is_free) cudaEventDestroy(buffer.is_free);
    buffer = {};
  }
  cudaFree(overflow_);
  overflow_ = nullptr;
  stream_ = nullptr;
  return error;
}

}  // namespace libwkv::cuda
