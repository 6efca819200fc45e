// SPDX-License-Identifier: Apache-2.0
// W y of one row, for a matrix held by columns (ffn.value): inputs that are zero are not read. A block takes a strip of
// outputs and a part of the inputs; parts of a sum stay apart, the norm that follows adds them. A lane copies what it
// multiplies itself, so that warps never wait for one another while weights come.
#pragma once

#include "kernels/cuda/few_rows.cuh"

namespace libwkv::cuda::few {

constexpr int live_blocks = 128;
constexpr int live_warps = 8;
constexpr int live_threads = live_warps * 32;
constexpr int live_batch = 4;  // copies of a lane that are waited for together
constexpr int most_live_inputs = 4 * 0x8000;
constexpr uint16_t not_live = 0x8000;  // in a list: there to fill up a step

struct LiveProduct {
  const char *values, *scales;
  const float *hidden;  // [inputs]
  float *partials;      // [splits][outputs]
  const float *h;       // the new token shift, to be written by now that all have read the old one
  const Segment *segment;
  size_t shift_at;
  int32_t outputs, inputs, splits;
};

// Batches of copies on their way: as many as let two kernels share an SM at the widest model.
__host__ __device__ constexpr int live_batches(Format format) { return format == Format::f16 ? 5 : 3; }
// Few parts, where strips are whole pieces of 16 bytes all the same.
__host__ __device__ constexpr int live_splits(int outputs) { return outputs % 512 == 0 ? 4 : 8; }
__host__ __device__ constexpr int live_strip(int outputs) { return outputs * live_splits(outputs) / live_blocks; }

// So many lanes read an input's weights, so many inputs a warp reads at a time: a step.
struct LiveLanes {
  int lanes, abreast, abreast_bits;  // abreast: 2 to the bits

  __host__ __device__ LiveLanes(Format format, int outputs) {
    lanes = live_strip(outputs) / (format == Format::f16 ? 8 : 16);
    for (abreast_bits = 0; (lanes << abreast_bits) * 2 <= 32;) abreast_bits++;
    abreast = 1 << abreast_bits;
  }
};

// Shared memory: scales, the rings, and for each warp a list of what it
// multiplies: values and inputs.
struct LivePlaces {
  int ring, values, inputs, bytes;  // scales: at 0
  int entries;                      // of a warp's list

  __host__ __device__ LivePlaces(Format format, int outputs, int all_inputs) {
    const int strip = live_strip(outputs), range = all_inputs / live_splits(outputs);
    const int abreast = LiveLanes(format, outputs).abreast, depth = live_batches(format) * live_batch;
    // (Lists are read beyond their ends, as far as copies go ahead.)
    entries = (2 * depth + live_batch) * abreast + (range / 32 + live_warps - 1) / live_warps * 32;
    ring = format == Format::f16 ? 0 : range / 32 * strip * 2;
    values = ring + live_warps * depth * 512;
    inputs = values + live_warps * entries * 4;
    bytes = inputs + live_warps * entries * 2;
  }
};

// What a lane sums up: outputs of 16 bytes of weights.
template <Format format>
struct LiveSums;

template <>
struct LiveSums<Format::f16> {
  static constexpr int outputs = 8;
  float y[outputs] = {};

  __device__ void add(const uint4 &raw, float x, int, const char *) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float2 w = __half22float2(*reinterpret_cast<const __half2 *>(&words[j]));
      y[2 * j] = fmaf(w.x, x, y[2 * j]);
      y[2 * j + 1] = fmaf(w.y, x, y[2 * j + 1]);
    }
  }
  __device__ void finish(const char *) {}
};

// Sums up each block of 32 inputs before it comes to the scale.
template <>
struct LiveSums<Format::q8> {
  static constexpr int outputs = 16;
  float y[outputs] = {}, block_sums[outputs] = {};
  int block = -1, pitch = 0;  // bytes from a block's scales to the next one's

  // scales: of the lane's first output.
  __device__ void read_scales(float (&scale)[outputs], const char *scales) const {
    const uint4 raw[2] = {reinterpret_cast<const uint4 *>(scales)[0], reinterpret_cast<const uint4 *>(scales)[1]};
    const uint32_t words[8] = {raw[0].x, raw[0].y, raw[0].z, raw[0].w, raw[1].x, raw[1].y, raw[1].z, raw[1].w};
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float2 two = __half22float2(*reinterpret_cast<const __half2 *>(&words[j]));
      scale[2 * j] = two.x;
      scale[2 * j + 1] = two.y;
    }
  }
  __device__ void add(const uint4 &raw, float x, int input, const char *scales) {
    if (input / 32 != block) {
      finish(scales);
      block = input / 32;
    }
    const uint32_t words[4] = {raw.x ^ 0x80808080u, raw.y ^ 0x80808080u, raw.z ^ 0x80808080u, raw.w ^ 0x80808080u};
#pragma unroll
    for (int j = 0; j < outputs; j++) {
      // 2^23 + byte has the byte as the low bits of its mantissa.
      const float w = __uint_as_float(__byte_perm(words[j / 4], 0x4b000000u, 0x7440 + j % 4)) - 8388736.0f;
      block_sums[j] = fmaf(w, x, block_sums[j]);
    }
  }
  __device__ void finish(const char *scales) {
    if (block < 0) return;
    float scale[outputs];
    read_scales(scale, scales + block * pitch);
#pragma unroll
    for (int j = 0; j < outputs; j++) {
      y[j] = fmaf(scale[j], block_sums[j], y[j]);
      block_sums[j] = 0;
    }
  }
};

template <Format format>
__global__ void __launch_bounds__(live_threads, 2) multiply_live(const __grid_constant__ LiveProduct p) {
  extern __shared__ __align__(128) char shared[];
  using Sums = LiveSums<format>;
  constexpr int batches = live_batches(format), depth = batches * live_batch, ring_bytes = depth * 512;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int width = live_strip(p.outputs), strips = p.outputs / width;
  const int strip = static_cast<int>(blockIdx.x) % strips, split = static_cast<int>(blockIdx.x) / strips;
  const int range = p.inputs / p.splits, first = split * range;
  const LivePlaces places(format, p.outputs, p.inputs);
  const LiveLanes sharing(format, p.outputs);
  const int lanes = sharing.lanes, abreast = sharing.abreast, bits = sharing.abreast_bits, sub = lane / lanes,
            part = lane % lanes;
  const bool is_used = sub < abreast;
  float *values = reinterpret_cast<float *>(shared + places.values);  // [warp][entry]
  uint16_t *inputs = reinterpret_cast<uint16_t *>(shared + places.inputs);
  char *ring = shared + places.ring + warp * ring_bytes + lane * 16;
  launch_dependents();

  // Weights of the first inputs, and all scales, come before it is known which are wanted. The warps deal these steps.
  constexpr int weight_bytes = format == Format::f16 ? 2 : 1;
  // (Copies have no policy for the cache: see copy_16_streamed.)
  const int64_t pitch = static_cast<int64_t>(p.outputs) * weight_bytes;
  const char *weights = p.values + first * pitch + strip * width * weight_bytes + part * 16;
  const uint32_t ring_address = shared_address(ring);
  const int dense = min(range, depth * live_warps * abreast), dense_steps = dense >> bits;
  const int own_dense = dense_steps > warp ? (dense_steps - warp + live_warps - 1) / live_warps : 0;
  if constexpr (format != Format::f16) {
    const int pieces = width * 2 / 16;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < range / 32 * pieces; i += live_threads) {
      const int64_t block = first / 32 + i / pieces;
      copy_16(shared_address(shared + i * 16), p.scales + (block * p.outputs + strip * width) * 2 + i % pieces * 16);
    }
  }
#pragma unroll 1
  for (int b = 0; b < batches; b++) {
#pragma unroll
    for (int u = 0; u < live_batch; u++) {
      const int step = b * live_batch + u;
      if (step >= own_dense)
        *reinterpret_cast<uint4 *>(ring + step * 512) = {0, 0, 0, 0};  // will be multiplied by zero
      else if (is_used)
        copy_16(ring_address + step * 512, weights + ((step * live_warps + warp) * abreast + sub) * pitch);
    }
    copies_commit();
  }
  wait_for_predecessors();

  const int shift_share = p.outputs / live_blocks;
  const bool has_shift = threadIdx.x < shift_share;
  const int shift = static_cast<int>(blockIdx.x * shift_share + threadIdx.x);
  const float h = has_shift ? __ldcg(p.h + shift) : 0;

  // Each warp looks for what it will multiply, and lists it: of every eighth group of 32 inputs. With q8 a step has
  // inputs of one group only, as they share scales.
  constexpr int kept = 16;  // numbers of so many groups are on their way at once
  const float *hidden = p.hidden + first;
  const int first_group = dense / 32 + warp, groups = (range / 32 - first_group + live_warps - 1) / live_warps;
  const auto read = [&](int i) { return i < groups ? __ldcg(hidden + (first_group + i * live_warps) * 32 + lane) : 0; };
  float *own_values = values + warp * places.entries;
  uint16_t *own_inputs = inputs + warp * places.entries;
  const auto put_entry = [&](int entry, int input, float value) {
    own_inputs[entry] = static_cast<uint16_t>(input);
    own_values[entry] = value;
  };
  int entry = own_dense * abreast;  // the next
  const auto put_group = [&](int i, float value) {
    const bool is_live = value != 0;
    const uint32_t live = __ballot_sync(~0u, is_live);
    const int count = __popc(live), input = (first_group + i * live_warps) * 32;
    if (is_live) put_entry(entry + __popc(live & ((1u << lane) - 1)), input + lane, value);
    entry += count;
    if constexpr (format != Format::f16) {
      const int more = -count & (abreast - 1);
      if (lane < more) put_entry(entry + lane, not_live | input, 0);
      entry += more;
    }
  };
  float value[kept];
#pragma unroll
  for (int i = 0; i < kept; i++) value[i] = read(i);
  constexpr int together = 4;  // loads, as each takes most of a microsecond
  const auto dense_input = [&](int e) { return ((e >> bits) * live_warps + warp) * abreast + (e & (abreast - 1)); };
#pragma unroll 1
  for (int e = lane; e < own_dense * abreast; e += 32 * together) {
    float own[together];
#pragma unroll
    for (int i = 0; i < together; i++)
      own[i] = e + i * 32 < own_dense * abreast ? __ldcg(hidden + dense_input(e + i * 32)) : 0;
#pragma unroll
    for (int i = 0; i < together; i++)
      if (e + i * 32 < own_dense * abreast) put_entry(e + i * 32, dense_input(e + i * 32), own[i]);
  }
#pragma unroll
  for (int i = 0; i < kept; i++)
    if (i < groups) put_group(i, value[i]);
#pragma unroll 1
  for (int i = kept; i < groups; i++) put_group(i, read(i));
  const int own_steps = (entry + abreast - 1) >> bits;
#pragma unroll 1
  for (int e = entry + lane; e < (own_steps + live_batch - 1) * abreast; e += 32) put_entry(e, not_live, 0);
  if constexpr (format != Format::f16) {
    copies_wait<batches - 1>();
    __syncthreads();  // scales
  }
  __syncwarp();

  Sums sums;
  const char *scales = shared + part * Sums::outputs * 2;
  if constexpr (format != Format::f16) sums.pitch = width * 2;
  const float *value_at = own_values + (is_used ? sub : 0);
  const uint16_t *input_at = own_inputs + (is_used ? sub : 0);
  int slot = 0;  // bytes into the ring
#pragma unroll 1
  for (int step = 0; step < own_steps; step += live_batch) {
    copies_wait<batches - 1>();
#pragma unroll(format == Format::f16 ? live_batch : 1)
    for (int u = 0; u < live_batch; u++) {
      const int input = format == Format::f16 ? 0 : input_at[u * abreast] & (not_live - 1);
      sums.add(*reinterpret_cast<const uint4 *>(ring + slot + u * 512), value_at[u * abreast], input, scales);
    }
#pragma unroll
    for (int u = 0; u < live_batch; u++) {
      const uint32_t input = input_at[(u + depth) * abreast];
      copy_16_if(is_used && step + u + depth < own_steps && input < not_live, ring_address + slot + u * 512,
                 weights + input * static_cast<uint32_t>(pitch));
    }
    copies_commit();
    value_at += live_batch * abreast;
    input_at += live_batch * abreast;
    slot += live_batch * 512;
    if (slot == ring_bytes) slot = 0;
  }
  sums.finish(scales);

  // The lanes that share an output, then the warps.
  for (int s = abreast / 2; s > 0; s /= 2)
#pragma unroll
    for (int j = 0; j < Sums::outputs; j++)
      sums.y[j] += __shfl_down_sync(~0u, sums.y[j], static_cast<unsigned>(s * lanes));
  copies_wait<0>();
  __syncwarp();
  float *own_sums = reinterpret_cast<float *>(ring - lane * 16);
  if (sub == 0)
#pragma unroll
    for (int j = 0; j < Sums::outputs; j += 4)
      *reinterpret_cast<float4 *>(own_sums + part * Sums::outputs + j) = {sums.y[j], sums.y[j + 1], sums.y[j + 2],
                                                                          sums.y[j + 3]};
  if (has_shift) reinterpret_cast<float *>(p.segment->state + p.shift_at)[shift] = h;
  __syncthreads();
  const float *all_sums = reinterpret_cast<const float *>(shared + places.ring);
  for (int i = static_cast<int>(threadIdx.x); i < width; i += live_threads) {
    float y = 0;
#pragma unroll
    for (int w = 0; w < live_warps; w++) y += all_sums[w * (ring_bytes / 4) + i];
    p.partials[split * p.outputs + strip * width + i] = y;
  }
}

}  // namespace libwkv::cuda::few
