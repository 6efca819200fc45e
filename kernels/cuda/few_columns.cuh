// SPDX-License-Identifier: Apache-2.0
// y = W x for a matrix held by columns (ffn.value): a block takes a strip of outputs and a part of the inputs, and
// inputs that are zero in all rows are not read. Parts of a sum stay apart: the norm that follows adds them.
#pragma once

#include "kernels/cuda/few_rows.cuh"

namespace libwkv::cuda::few {

constexpr int strip = 256;     // outputs of a block; 32 a warp
constexpr int group = 32;      // inputs in a slot of the ring
constexpr int most_slots = 5;  // as many as let two kernels and a norm share an SM
constexpr int column_barriers_bytes = 2 * most_slots * 8;

struct ColumnProduct {
  const char *values, *scales;
  const void *hidden;  // up to four rows: float [row][inputs]; more: an operand in native order, over hidden_scale
  float *partials;     // [splits][rows][outputs]
  int32_t outputs, inputs, rows, padded, splits;
  int32_t slots, slot_bytes, scales_at, operand_at, ring_at;
};

__host__ __device__ constexpr int column_pitch(Format format) {
  return format == Format::f16 ? strip * 2 + 16 : strip + 16;
}

// Sums over a slot's inputs, for the 32 outputs of a warp. operand: of the slot's 32 inputs, native order.
template <Format format, int tiles>
__device__ inline void multiply_group(float (&sums)[2][tiles][4], const char *slot, const char *scales,
                                      const char *operand, int padded, int warp, int lane) {
  const int g = lane / 4, t = lane % 4;
  constexpr int pitch = column_pitch(format);
  uint4 x[tiles];
#pragma unroll
  for (int n = 0; n < tiles; n++)
    x[n] = *reinterpret_cast<const uint4 *>(operand + column_of<tiles>(n, g, padded) * 64 + t * 16);
  if constexpr (format == Format::f16) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
      for (int k = 0; k < 2; k++) {
        const int input = k * 16 + lane / 16 * 8 + lane % 8, output = warp * 32 + m * 16 + lane / 8 % 2 * 8;
        uint32_t a[4];
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                     : "r"(shared_address(slot + input * pitch + output * 2))
                     : "memory");
#pragma unroll
        for (int n = 0; n < tiles; n++)
          mma(sums[m][n], a[0], a[1], a[2], a[3], k == 0 ? x[n].x : x[n].z, k == 0 ? x[n].y : x[n].w);
      }
  } else {
    // A word has four outputs of an input: 4g and 4g + 1 are rows g and g + 8 of the first tile, the others of the
    // second.
    float part[2][tiles][4] = {};
    const __half2 offset = __half2half2(__ushort_as_half(0x6480));
#pragma unroll
    for (int k = 0; k < 2; k++) {
      uint32_t a[2][4];  // [output tile][register]
#pragma unroll
      for (int q = 0; q < 2; q++) {
        const char *at = slot + (k * 16 + q * 8 + t * 2) * pitch + warp * 32 + g * 4;
        const uint32_t first = *reinterpret_cast<const uint32_t *>(at) ^ 0x80808080u;
        const uint32_t second = *reinterpret_cast<const uint32_t *>(at + pitch) ^ 0x80808080u;
        const uint32_t low = __byte_perm(first, second, 0x5140), high = __byte_perm(first, second, 0x7362);
        a[0][q * 2] = halves_of_bytes<0>(low, offset);
        a[0][q * 2 + 1] = halves_of_bytes<1>(low, offset);
        a[1][q * 2] = halves_of_bytes<0>(high, offset);
        a[1][q * 2 + 1] = halves_of_bytes<1>(high, offset);
      }
#pragma unroll
      for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < tiles; n++)
          mma(part[m][n], a[m][0], a[m][1], a[m][2], a[m][3], k == 0 ? x[n].x : x[n].z, k == 0 ? x[n].y : x[n].w);
    }
    const uint2 raw = *reinterpret_cast<const uint2 *>(scales + (warp * 32 + g * 4) * 2);
    const float2 scale[2] = {__half22float2(*reinterpret_cast<const __half2 *>(&raw.x)),
                             __half22float2(*reinterpret_cast<const __half2 *>(&raw.y))};
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
      for (int n = 0; n < tiles; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[m][n][i] = fmaf(i < 2 ? scale[m].x : scale[m].y, part[m][n][i], sums[m][n][i]);
  }
}

// Shared memory of up to four rows, where zeros are skipped, behind the barriers: inputs to read, how many of each
// group, and the operand of them, for all groups of the block.
struct InputList {
  uint16_t *inputs;  // of the block's range
  int *counts;       // of a group of the list
  int *warp_counts;  // and how many groups the list has
  char *operand;
};
__host__ __device__ constexpr int list_bytes(int groups, int padded) {
  return groups * (group * 2 + 4 + padded * 128) + (product_warps + 1) * 4;
}
__device__ inline InputList list_in(char *memory, int groups, int padded) {
  InputList list;
  list.operand = memory;
  memory += groups * padded * 128;
  list.inputs = reinterpret_cast<uint16_t *>(memory);
  list.counts = reinterpret_cast<int *>(memory + groups * group * 2);
  list.warp_counts = list.counts + groups;
  return list;
}

// Lists the inputs that any row needs. The first `dense` groups are listed whole: their weights are here already. What
// follows is dense again with f16, in groups of the list's own; with q8 each group shares scales and stays itself.
// Warps take ranges of groups, so that the list is in rising order.
template <Format format>
__device__ inline void list_inputs(const ColumnProduct &p, const InputList &list, int first, int groups, int dense,
                                   int warp, int lane) {
  const float *hidden = static_cast<const float *>(p.hidden) + first * group + lane;
  const int begin = groups * warp / product_warps, end = groups * (warp + 1) / product_warps;
  const auto read = [&](int g, float(&x)[4]) {
    bool is_wanted = g < dense;
#pragma unroll
    for (int row = 0; row < 4; row++) {
      x[row] = row < p.rows ? hidden[static_cast<int64_t>(row) * p.inputs + g * group] : 0;
      is_wanted |= x[row] != 0;
    }
    return __ballot_sync(~0u, is_wanted);
  };
  const auto put_input = [&](int at, const float(&x)[4], float factor) {
#pragma unroll
    for (int row = 0; row < 4; row++)
      if (row < p.rows)
        put(reinterpret_cast<__half *>(list.operand), p.padded, row, at, InputOrder::native, x[row] * factor);
  };
  const uint32_t below = (1u << lane) - 1;
  int at = 0;
  if constexpr (format == Format::f16) {
    int count = 0;
#pragma unroll 4
    for (int g = begin; g < end; g++) {
      float x[4];
      count += __popc(read(g, x));
    }
    if (lane == 0) list.warp_counts[warp] = count;
    __syncthreads();
    int total = 0;
    for (int w = 0; w < product_warps; w++) {
      if (w == warp) at = total;
      total += list.warp_counts[w];
    }
    const int listed = (total + group - 1) / group;
    for (int g = static_cast<int>(threadIdx.x); g < listed; g += product_threads)
      list.counts[g] = min(group, total - g * group);
    if (threadIdx.x == 0) list.warp_counts[product_warps] = listed;
    constexpr float zeros[4] = {};
    if (warp == 0 && total + lane < listed * group) put_input(total + lane, zeros, 0);
  } else if (threadIdx.x == 0) {
    list.warp_counts[product_warps] = groups;
  }
#pragma unroll 4
  for (int g = begin; g < end; g++) {
    float x[4];
    const uint32_t mask = read(g, x);
    const int count = __popc(mask), rank = __popc(mask & below);
    const bool is_wanted = mask >> lane & 1;
    if constexpr (format == Format::f16) {
      if (is_wanted) {
        list.inputs[at + rank] = static_cast<uint16_t>(g * group + lane);
        put_input(at + rank, x, 1 / hidden_scale);
      }
      at += count;
    } else {
      // Zeros take the places behind, whatever the ring has there.
      const int place = g * group + (is_wanted ? rank : count + lane - rank);
      list.inputs[place] = static_cast<uint16_t>(g * group + lane);
      put_input(place, x, 1 / hidden_scale);
      if (lane == 0) list.counts[g] = count;
    }
  }
}

// All threads send a part of each slot, all warps read all of it.
template <Format format, int tiles>
__global__ void __launch_bounds__(product_threads, tiles == 4 ? 1 : 2)
    multiply_columns(const __grid_constant__ ColumnProduct p) {
  extern __shared__ __align__(128) char shared[];
  constexpr bool skips_zeros = tiles == 1;
  const uint32_t full = shared_address(shared), empty = full + most_slots * 8;
  char *ring = shared + p.ring_at;
  const uint32_t ring_address = shared_address(ring);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int strips = p.outputs / strip, first_output = static_cast<int>(blockIdx.x) % strips * strip;
  const int split = static_cast<int>(blockIdx.x) / strips;
  const int all = p.inputs / group, first = all * split / p.splits, groups = all * (split + 1) / p.splits - first;
  const int ahead = min(p.slots, groups);  // groups whose weights are on their way before their activations are there
  const InputList list = list_in(shared + column_barriers_bytes, groups, p.padded);
  if (threadIdx.x < p.slots) {
    barrier_init(full + threadIdx.x * 8, product_threads * (skips_zeros ? 1 : 2));
    barrier_init(empty + threadIdx.x * 8, product_warps);
  }
  __syncthreads();
  launch_dependents();

  constexpr int bytes = format == Format::f16 ? 2 : 1;            // of a weight
  constexpr int pieces = strip * bytes / 16, step = 32 / pieces;  // inputs that a warp sends at a time
  const uint64_t policy = stream_policy();
  const char *values =
      p.values + (static_cast<int64_t>(first) * group * p.outputs + first_output) * bytes + lane % pieces * 16;
  const int64_t pitch = static_cast<int64_t>(p.outputs) * bytes;
  // input_of(i): of the block's range, what comes to place i of the slot.
  const auto send = [&](int slot, int count, int scale_group, auto input_of) {
    const uint32_t to = ring_address + slot * p.slot_bytes;
#pragma unroll
    for (int n = 0; n < group / (product_warps * step); n++) {
      const int i = warp * step + lane / pieces + n * product_warps * step;
      if (i < count)
        copy_16_streamed(to + i * column_pitch(format) + lane % pieces * 16, values + input_of(i) * pitch, policy);
    }
    if (format != Format::f16 && warp == 0)
      copy_16_streamed(
          to + p.scales_at + lane * 16,
          p.scales + (static_cast<int64_t>(first + scale_group) * p.outputs + first_output) * 2 + lane * 16, policy);
    barrier_covers_copies(full + slot * 8);
  };
  const auto send_group = [&](int slot, int g) { send(slot, group, g, [&](int i) { return g * group + i; }); };
  const auto send_activations = [&](int slot, int g) {
    const int operand_bytes = p.padded * 128;
    const char *from = static_cast<const char *>(p.hidden) + static_cast<int64_t>(first + g) * operand_bytes;
    for (int i = static_cast<int>(threadIdx.x) * 16; i < operand_bytes; i += product_threads * 16)
      copy_16(ring_address + slot * p.slot_bytes + p.operand_at + i, from + i);
    barrier_covers_copies(full + slot * 8);
  };
  for (int g = 0; g < ahead; g++) send_group(g, g);
  wait_for_predecessors();
  int listed = groups;
  if constexpr (skips_zeros) {
    list_inputs<format>(p, list, first, groups, ahead, warp, lane);
    __syncthreads();
    listed = list.warp_counts[product_warps];
  } else {
    for (int g = 0; g < ahead; g++) send_activations(g, g);
  }

  float sums[2][tiles][4] = {};
  int slot = 0, last_slot = 0;
  uint32_t phase = 0, last_phase = 0;
  for (int g = 0; g < listed; g++) {
    barrier_wait(full + slot * 8, phase);
    const char *at = ring + slot * p.slot_bytes;
    multiply_group<format, tiles>(sums, at, at + p.scales_at,
                                  skips_zeros ? list.operand + g * p.padded * 128 : at + p.operand_at, p.padded, warp,
                                  lane);
    __syncwarp();
    if (lane == 0) barrier_arrive(empty + slot * 8);
    // The slot before this one is filled again: by now all warps have read it.
    const int next = g - 1 + p.slots;
    if (g > 0 && next < listed) {
      barrier_wait(empty + last_slot * 8, last_phase);
      if constexpr (skips_zeros) {
        const uint16_t *inputs = list.inputs + next * group;
        send(last_slot, list.counts[next], list.inputs[next * group] / group, [&](int i) { return inputs[i]; });
      } else {
        send_group(last_slot, next);
        send_activations(last_slot, next);
      }
    }
    last_slot = slot;
    last_phase = phase;
    if (++slot == p.slots) {
      slot = 0;
      phase ^= 1;
    }
  }
#pragma unroll
  for (int m = 0; m < 2; m++)
    join<tiles>(sums[m], lane, [&](int o, int row, float y) {
      if (row >= p.rows) return;
      const int output = warp * 32 + (format == Format::f16 ? m * 16 + o : o % 8 * 4 + m * 2 + o / 8);
      p.partials[(static_cast<int64_t>(split) * p.rows + row) * p.outputs + first_output + output] = y * hidden_scale;
    });
}

}  // namespace libwkv::cuda::few
