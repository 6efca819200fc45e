// SPDX-License-Identifier: Apache-2.0
// y = W x of one row, for matrices held by rows. A block streams whole rows of W through a ring in shared memory, in
// bulk copies that begin before x is there. x stays in registers, each lane with the inputs of the weights it reads: as
// fp32 for f16, as three signed digits to the base 256 for q8. Layer norm, token shift and mix are part of the product:
// every block makes the whole x for itself, which costs less than a kernel in between.
#pragma once

#include "kernels/cuda/few_rows.cuh"

namespace libwkv::cuda::few {

constexpr int vector_warps = 8;
constexpr int vector_threads = vector_warps * 32;  // and one more warp, which sends
constexpr int most_vector_width = 4096;
constexpr int most_vector_slots = 16;
constexpr int sums_tiles = 32;   // tiles whose sums are kept before they are finished together
constexpr int tile_places = 32;  // sums of a tile: rows times the warps that share a row
constexpr int tiles_taken_at_once = 2;

struct VectorProduct {
  const char *values, *scales;
  const float *mix;    // of the token shift, or NULL
  const float *added;  // to y, or NULL
  void *out;           // float [outputs], or an operand of one row
  int32_t outputs;
  int32_t first_block, blocks;  // that multiply this and nothing else
  int32_t tiles, dealt;         // rows that share a slot; those after `dealt` are taken by whoever comes first
  Format format;
  Activation activation;
  bool is_operand;
};

struct VectorProducts {
  VectorProduct products[most_products];
  int32_t count, inputs;
  int32_t row_warps_bits;  // 2 to these warps share a row; the others take other rows
  int32_t slots, slot_bytes, ring_at;
  int32_t *taken;              // of each product, how many tiles have been; 0 at the beginning
  const float *x;              // [inputs]
  const float *partials;       // [partials_count][inputs], to be added to x
  int32_t partials_count;      // a multiple of 4, or 0
  float *x_out;                // where that sum goes, or NULL
  const float *weight, *bias;  // x is LN(x), if not NULL
  const Segment *segment;      // and mixed with this segment's shift, if not NULL
  size_t shift_at;             // in a state
  float *h;                    // where LN(x) goes, or NULL
};

struct VectorShared {
  uint64_t full[most_vector_slots], empty[most_vector_slots];
  int first_outputs[2 * sums_tiles];  // of the block's tiles; -1: there are no more
  float parts[2][vector_warps];
  float sums[sums_tiles * tile_places];
};
constexpr int vector_operand_at = (static_cast<int>(sizeof(VectorShared)) + 127) / 128 * 128;

__host__ __device__ constexpr int vector_row_bytes(Format format, int inputs) {
  return format == Format::f16 ? inputs * 2 : inputs;
}
__host__ __device__ constexpr int vector_scales_bytes(Format format, int inputs) {
  return format == Format::f16 ? 0 : inputs / 16;
}
// Rows of a tile that a warp multiplies, each with up to so many pieces of 512 bytes: four loads in a row.
__host__ __device__ constexpr int vector_warp_rows(Format format) { return format == Format::f16 ? 2 : 4; }
constexpr int vector_f16_pieces = 2;
__host__ __device__ constexpr int vector_tile_rows(Format format, int row_warps_bits) {
  return vector_warp_rows(format) * vector_warps >> row_warps_bits;
}

// A barrier of the warps that multiply.
__device__ inline void sync_vector_warps() { asm volatile("bar.sync 1, 256;" ::: "memory"); }
static_assert(vector_threads == 256);

__device__ inline void copy_bulk_streamed(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier,
                                          uint64_t policy) {
#if WKV_FEW_HAS_HOPPER
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
#endif
}

// One thread sends all tiles of the block: first those dealt to it, then what it can get of its product.
// (Multiprocessors do not get equal shares of the memory's bandwidth.)
__device__ inline void send_tiles(const VectorProducts &p, const VectorProduct &own, int32_t *taken, VectorShared &s,
                                  uint32_t ring) {
  const uint64_t policy = stream_policy();
  const unsigned block = blockIdx.x - static_cast<unsigned>(own.first_block), dealt_tiles = own.dealt;
  int dealt = static_cast<int>(dealt_tiles * block / own.blocks);
  const int end = static_cast<int>(dealt_tiles * (block + 1) / own.blocks), tiles = own.tiles, outputs = own.outputs;
  const int rows_of_tile = vector_tile_rows(own.format, p.row_warps_bits), slots = p.slots;
  const uint32_t slot_bytes = static_cast<uint32_t>(p.slot_bytes);
  const uint32_t row_bytes = static_cast<uint32_t>(vector_row_bytes(own.format, p.inputs));
  const uint32_t scales_bytes = static_cast<uint32_t>(vector_scales_bytes(own.format, p.inputs));
  const char *values = own.values, *scales = own.scales;
  const bool takes = own.dealt < tiles;
  int slot = 0, next = 0, left = 0, ahead = -1;  // taken tiles: from next on, so many; then those from ahead on
  uint32_t parity = 1, full = shared_address(s.full), to = ring;
  const uint32_t empty_offset = shared_address(s.empty) - full;
#pragma unroll 1
  for (int n = 0;; n++) {
    int tile = tiles;
    if (dealt < end) {
      tile = dealt++;
    } else if (takes) {
      if (left == 0) {
        if (ahead < 0) {
          wait_for_predecessors();  // one of them set the counter to 0
          ahead = atomicAdd(taken, tiles_taken_at_once);
        }
        next = own.dealt + ahead;
        left = tiles_taken_at_once;
        ahead = atomicAdd(taken, tiles_taken_at_once);
      }
      tile = next++;
      left--;
    }
    const bool is_end = tile >= tiles;
    const int output = tile * rows_of_tile;
    const uint32_t rows = static_cast<uint32_t>(min(rows_of_tile, outputs - output));
    s.first_outputs[n % (2 * sums_tiles)] = is_end ? -1 : output;
    barrier_wait(full + empty_offset, parity);
    if (is_end) {
      barrier_arrive(full);
      return;
    }
    barrier_expect(full, rows * (row_bytes + scales_bytes));
    copy_bulk_streamed(to, values + static_cast<int64_t>(output) * row_bytes, rows * row_bytes, full, policy);
    if (scales_bytes > 0)
      copy_bulk_streamed(to + rows_of_tile * row_bytes, scales + static_cast<int64_t>(output) * scales_bytes,
                         rows * scales_bytes, full, policy);
    full += 8;
    to += slot_bytes;
    if (++slot == slots) {
      slot = 0;
      full -= static_cast<uint32_t>(slots) * 8;
      to = ring;
      parity ^= 1;
    }
  }
}

__device__ inline float vector_sum(float value, float *parts, int warp, int lane) {
  value = warp_sum(value);
  if (lane == 0) parts[warp] = value;
  sync_vector_warps();
  float total = 0;
#pragma unroll
  for (int i = 0; i < vector_warps; i++) total += parts[i];
  return total;
}

// Puts x for the block's product, as fp32, into shared memory. What no kernel of the step writes is read before the
// wait: x is factor (x - mean) / deviation + offset.
__device__ inline void make_operand(const VectorProducts &p, VectorShared &s, float *operand,
                                    const float *mix_weights) {
  constexpr int most = most_vector_width / (vector_threads * 4);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const bool is_normalised = p.weight != nullptr;
  const auto column = [&](int i) { return (i * vector_threads + static_cast<int>(threadIdx.x)) * 4; };
  // (Columns beyond the end are read at the beginning, so that no branch is between loads.)
  const auto load = [&](const float *from, int i) {
    return *reinterpret_cast<const float4 *>(from + (column(i) < p.inputs ? column(i) : 0));
  };
  // The factor waits in shared memory, where x will be: registers are needed for what is on its way.
  float4 x[most], offset[most];
  const auto own = [&](int i) -> float4 & { return *reinterpret_cast<float4 *>(operand + column(i)); };
  if (is_normalised) {
    float4 weight[most];
#pragma unroll
    for (int i = 0; i < most; i++) {
      weight[i] = load(p.weight, i);
      offset[i] = load(p.bias, i);
    }
    if (p.segment) {
      // h + (shift - h) mix = h (1 - mix) + shift mix
      const float *old = reinterpret_cast<const float *>(p.segment->from + p.shift_at);
      float4 mix[most], shift[most];
#pragma unroll
      for (int i = 0; i < most; i++) {
        mix[i] = load(mix_weights, i);
        shift[i] = load(old, i);
      }
#pragma unroll
      for (int i = 0; i < most; i++) {
        const float4 rest = {1 - mix[i].x, 1 - mix[i].y, 1 - mix[i].z, 1 - mix[i].w};
        offset[i] = {offset[i].x * rest.x + shift[i].x * mix[i].x, offset[i].y * rest.y + shift[i].y * mix[i].y,
                     offset[i].z * rest.z + shift[i].z * mix[i].z, offset[i].w * rest.w + shift[i].w * mix[i].w};
        weight[i] = {weight[i].x * rest.x, weight[i].y * rest.y, weight[i].z * rest.z, weight[i].w * rest.w};
      }
    }
#pragma unroll
    for (int i = 0; i < most; i++)
      if (column(i) < p.inputs) own(i) = weight[i];
  }
  wait_for_predecessors();
  const auto read = [&](const float *from, int i) {
    return column(i) < p.inputs ? __ldcg(reinterpret_cast<const float4 *>(from + column(i))) : float4{0, 0, 0, 0};
  };
#pragma unroll
  for (int i = 0; i < most; i++) x[i] = read(p.x, i);
  constexpr int together = 4;  // partial sums
#pragma unroll 1
  for (int n = 0; n < p.partials_count; n += together) {
    const float *partials = p.partials + n * p.inputs;
#pragma unroll
    for (int i = 0; i < most; i += 2) {
      float4 more[together][2];
#pragma unroll
      for (int m = 0; m < together; m++)
#pragma unroll
        for (int j = 0; j < 2; j++) more[m][j] = read(partials + m * p.inputs, i + j);
#pragma unroll
      for (int m = 0; m < together; m++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
          float4 &to = x[i + j];
          to = {to.x + more[m][j].x, to.y + more[m][j].y, to.z + more[m][j].z, to.w + more[m][j].w};
        }
    }
  }
  // Each block writes its own part of x and h.
  const int fours = p.inputs / 4, begin = static_cast<int>(fours * blockIdx.x / gridDim.x) * 4,
            end = static_cast<int>(fours * (blockIdx.x + 1) / gridDim.x) * 4;
  if (p.x_out)
#pragma unroll
    for (int i = 0; i < most; i++)
      if (column(i) >= begin && column(i) < end) *reinterpret_cast<float4 *>(p.x_out + column(i)) = x[i];
  float scale = 1;
  if (is_normalised) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < most; i++) sum += (x[i].x + x[i].y) + (x[i].z + x[i].w);
    const float mean = vector_sum(sum, s.parts[0], warp, lane) / static_cast<float>(p.inputs);
    float squares = 0;
#pragma unroll
    for (int i = 0; i < most; i++) {
      if (column(i) >= p.inputs) continue;
      x[i] = {x[i].x - mean, x[i].y - mean, x[i].z - mean, x[i].w - mean};
      squares += (x[i].x * x[i].x + x[i].y * x[i].y) + (x[i].z * x[i].z + x[i].w * x[i].w);
    }
    scale = rsqrtf(vector_sum(squares, s.parts[1], warp, lane) / static_cast<float>(p.inputs) + 1e-5f);
  }
#pragma unroll
  for (int i = 0; i < most; i++) {
    if (column(i) >= p.inputs) continue;
    float4 y = x[i];
    if (is_normalised) {
      const float4 factor = own(i);
      y = {y.x * scale * factor.x + offset[i].x, y.y * scale * factor.y + offset[i].y,
           y.z * scale * factor.z + offset[i].z, y.w * scale * factor.w + offset[i].w};
    }
    own(i) = y;
  }
  sync_vector_warps();
  if (!p.h) return;
#pragma unroll
  for (int i = 0; i < most; i++) {
    if (column(i) < begin || column(i) >= end) continue;
    const float4 weight = load(p.weight, i), bias = load(p.bias, i);
    *reinterpret_cast<float4 *>(p.h + column(i)) = {
        x[i].x * scale * weight.x + bias.x, x[i].y * scale * weight.y + bias.y, x[i].z * scale * weight.z + bias.z,
        x[i].w * scale * weight.w + bias.w};
  }
}

// Loads that stay behind the barrier that they follow.
__device__ inline uint4 load_shared_16(uint32_t at) {
  uint4 value;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(at)
               : "memory");
  return value;
}
__device__ inline int load_shared_4(uint32_t at) {
  int value;
  asm volatile("ld.shared.s32 %0, [%1];" : "=r"(value) : "r"(at) : "memory");
  return value;
}
__device__ inline __half load_shared_half(uint32_t at) {
  uint16_t value;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(at) : "memory");
  return __ushort_as_half(value);
}

// What a lane has of x, and its part of a tile. Warps that share a row read pieces of 512 bytes of it in turn; lanes
// that would be beyond its end read something else of it and multiply it by zero.
template <Format format>
struct VectorPart;

template <>
struct VectorPart<Format::f16> {
  static constexpr int rows = vector_warp_rows(Format::f16), pieces = vector_f16_pieces;
  float x[pieces][8];
  uint32_t first, piece_step, row_step;  // bytes in a slot

  struct Loaded {
    uint4 values[rows][pieces];
  };

  __device__ VectorPart(const float *operand, int inputs, int bits, int warp, int lane) {
    const int part = warp & ((1 << bits) - 1), begin = (part * 32 + lane) * 8;
    const int stride = 256 << bits;
#pragma unroll
    for (int i = 0; i < pieces; i++) {
      const int input = begin + i * stride;
#pragma unroll
      for (int j = 0; j < 8; j++) x[i][j] = input < inputs ? operand[input + j] : 0;
    }
    const int place = begin < inputs ? begin : lane * 8;
    first = static_cast<uint32_t>(((warp >> bits) * inputs + place) * 2);
    piece_step = begin + stride < inputs ? static_cast<uint32_t>(stride * 2) : 0;
    row_step = static_cast<uint32_t>((vector_warps >> bits) * inputs * 2);
  }
  __device__ void load(Loaded &loaded, uint32_t slot) const {
#pragma unroll
    for (int r = 0; r < rows; r++)
#pragma unroll
      for (int i = 0; i < pieces; i++)
        loaded.values[r][i] = load_shared_16(slot + first + r * row_step + i * piece_step);
  }
  __device__ void multiply(float (&y)[rows], const Loaded &loaded) const {
#pragma unroll
    for (int r = 0; r < rows; r++) {
      float even = 0, odd = 0;
#pragma unroll
      for (int i = 0; i < pieces; i++) {
        const uint4 raw = loaded.values[r][i];
        const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const float2 w = __half22float2(*reinterpret_cast<const __half2 *>(&words[j]));
          even = fmaf(w.x, x[i][2 * j], even);
          odd = fmaf(w.y, x[i][2 * j + 1], odd);
        }
      }
      y[r] = even + odd;
    }
  }
};

// x = scale (d0 + 256 d1 + 65536 d2), d in [-128, 127], and scale so that the largest of the lane's inputs just fits:
// as exact as fp32 is for that one. Products with eight-bit weights are whole numbers below 2^22, so that sums that
// begin at 1.5 * 2^23 are floats as they stand.
template <>
struct VectorPart<Format::q8> {
  static constexpr int rows = vector_warp_rows(Format::q8);
  static constexpr float largest_whole = 8355000;  // a little below 127 (1 + 256 + 65536)
  uint32_t digits[3][4];
  float scale;
  uint32_t first, row_step, first_scale, scale_step;  // bytes in a slot

  struct Loaded {
    uint4 values[rows];
    __half scales[rows];
  };

  __device__ VectorPart(const float *operand, int inputs, int bits, int warp, int lane) {
    const int part = warp & ((1 << bits) - 1), begin = (part * 32 + lane) * 16;
    const bool is_there = begin < inputs;
    float x[16], largest = 0, nothing = 0;
#pragma unroll
    for (int j = 0; j < 16; j++) {
      x[j] = is_there ? operand[begin + j] : 0;
      largest = fmaxf(largest, fabsf(x[j]));
      nothing += x[j] * 0.0f;  // NaN if one is
    }
    const float factor = largest > 0 ? largest_whole / largest : 0;
    scale = largest * (1 / largest_whole) + nothing;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      int whole[4];
#pragma unroll
      for (int n = 0; n < 4; n++) whole[n] = __float2int_rn(x[j * 4 + n] * factor);
#pragma unroll
      for (int d = 0; d < 3; d++) {
        const uint32_t low = __byte_perm(static_cast<uint32_t>(whole[0]), static_cast<uint32_t>(whole[1]), 0x0040);
        const uint32_t high = __byte_perm(static_cast<uint32_t>(whole[2]), static_cast<uint32_t>(whole[3]), 0x0040);
        digits[d][j] = __byte_perm(low, high, 0x5410);
#pragma unroll
        for (int n = 0; n < 4; n++) whole[n] = (whole[n] + 128) >> 8;
      }
    }
    const int place = is_there ? begin : lane % 16 * 16, row = warp >> bits, step = vector_warps >> bits;
    first = static_cast<uint32_t>(row * inputs + place);
    row_step = static_cast<uint32_t>(step * inputs);
    first_scale = static_cast<uint32_t>(rows * step * inputs + row * (inputs / 16) + place / 32 * 2);
    scale_step = static_cast<uint32_t>(step * (inputs / 16));
  }
  __device__ void load(Loaded &loaded, uint32_t slot) const {
#pragma unroll
    for (int r = 0; r < rows; r++) loaded.values[r] = load_shared_16(slot + first + r * row_step);
#pragma unroll
    for (int r = 0; r < rows; r++) loaded.scales[r] = load_shared_half(slot + first_scale + r * scale_step);
  }
  __device__ void multiply(float (&y)[rows], const Loaded &loaded) const {
    constexpr int zero_bits = 0x4b400000;
    const float zero = __int_as_float(zero_bits);
#pragma unroll
    for (int r = 0; r < rows; r++) {
      const uint4 raw = loaded.values[r];
      const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
      int sum[3] = {zero_bits, zero_bits, zero_bits};
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int d = 0; d < 3; d++) sum[d] = __dp4a(static_cast<int>(words[j]), static_cast<int>(digits[d][j]), sum[d]);
      float whole = (__int_as_float(sum[2]) - zero) * 65536.0f;
      whole = fmaf(__int_as_float(sum[1]) - zero, 256.0f, whole);
      whole += __int_as_float(sum[0]) - zero;
      y[r] = whole * (__half2float(loaded.scales[r]) * scale);
    }
  }
};

// The sum of each row over the warp, in lane r * 32 / rows. Halves of the lanes keep half of the rows each.
template <int rows>
__device__ inline float sum_rows(const float (&y)[rows], int lane) {
  float sum;
  if constexpr (rows == 4) {
    const bool is_upper = lane & 16;
    float two[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      two[i] = is_upper ? y[i + 2] : y[i];
      two[i] += __shfl_xor_sync(~0u, is_upper ? y[i] : y[i + 2], 16);
    }
    const bool is_second = lane & 8;
    sum = is_second ? two[1] : two[0];
    sum += __shfl_xor_sync(~0u, is_second ? two[0] : two[1], 8);
  } else {
    const bool is_upper = lane & 16;
    sum = is_upper ? y[1] : y[0];
    sum += __shfl_xor_sync(~0u, is_upper ? y[0] : y[1], 16);
    sum += __shfl_xor_sync(~0u, sum, 8);
  }
#pragma unroll
  for (int distance = 4; distance; distance >>= 1) sum += __shfl_xor_sync(~0u, sum, distance);
  return sum;
}

// Joins the warps' sums of tiles, and hands them on. (One copy of this code: it would be fetched for longer than it
// runs.)
__device__ __noinline__ void finish_tiles(const VectorProducts &p, const VectorProduct &product, const VectorShared &s,
                                          int from, int count) {
  sync_vector_warps();
  const int row_warps = 1 << p.row_warps_bits, rows_bits = 5 - p.row_warps_bits;
  const int rows = vector_tile_rows(product.format, p.row_warps_bits);
  for (int i = static_cast<int>(threadIdx.x); i < count << rows_bits; i += vector_threads) {
    const int row = i & ((1 << rows_bits) - 1);
    const int output = s.first_outputs[(from + (i >> rows_bits)) % (2 * sums_tiles)] + row;
    float y = 0;
#pragma unroll
    for (int w = 0; w < vector_warps; w++)
      if (w < row_warps) y += s.sums[(i << p.row_warps_bits) + w];
    if (row >= rows || output >= product.outputs) continue;
    if (product.activation == Activation::tanh) y = tanhf(y);
    if (product.activation == Activation::sigmoid) y = sigmoid(y);
    if (product.activation == Activation::squared_relu) y = y > 0 ? y * y : 0.0f;
    if (product.added) y += __ldcg(product.added + output);
    if (product.is_operand)
      put(static_cast<__half *>(product.out), 1, 0, output, InputOrder::consecutive, y);
    else
      static_cast<float *>(product.out)[output] = y;
  }
  sync_vector_warps();
}

// Multiplies all tiles of the block. The next tile is loaded, and the sums of the one before are joined, while a tile
// is multiplied: one after another, their latencies would take as long as the memory does.
template <Format format>
__device__ inline void multiply_tiles(const VectorProducts &p, const VectorProduct &product, VectorShared &s,
                                      const float *operand, uint32_t ring) {
  using Part = VectorPart<format>;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int bits = p.row_warps_bits, slots = p.slots;
  const Part x(operand, p.inputs, bits, warp, lane);
  constexpr int lanes_of_row = 32 / Part::rows;
  const int row = (warp >> bits) + lane / lanes_of_row * (vector_warps >> bits);
  float *sums = s.sums + (row << bits) + (warp & ((1 << bits) - 1));
  const uint32_t outputs = shared_address(s.first_outputs), full = shared_address(s.full),
                 empty_offset = shared_address(s.empty) - full;
  const uint32_t slot_bytes = static_cast<uint32_t>(p.slot_bytes);
  uint32_t parity = 0, barrier = full, at = ring;
  int slot = 0, n = 0, finished = 0;
  typename Part::Loaded loaded, next;
  int output;
  // Loads the next slot, and frees it.
  const auto load = [&](typename Part::Loaded &to, int tile) {
    barrier_wait(barrier, parity);
    output = load_shared_4(outputs + tile % (2 * sums_tiles) * 4);
    x.load(to, at);
  };
  const auto free_slot = [&] {
    __syncwarp();
    if (lane == 0) barrier_arrive(barrier + empty_offset);
    barrier += 8;
    at += slot_bytes;
    if (++slot == slots) {
      slot = 0;
      barrier = full;
      at = ring;
      parity ^= 1;
    }
  };
  const auto keep = [&](const float(&y)[Part::rows], int tile) {
    const float sum = sum_rows(y, lane);
    if (tile - finished == sums_tiles) {
      finish_tiles(p, product, s, finished, sums_tiles);
      finished = tile;
    }
    if (lane % lanes_of_row == 0) sums[(tile - finished) * tile_places] = sum;
  };
  float y[Part::rows], before[Part::rows];
  load(loaded, 0);
  if (output >= 0) {
    free_slot();
    load(next, 1);
    x.multiply(before, loaded);
    n = 1;
#pragma unroll 1
    while (output >= 0) {
      loaded = next;
      free_slot();
      load(next, n + 1);
      x.multiply(y, loaded);
      keep(before, n - 1);
#pragma unroll
      for (int r = 0; r < Part::rows; r++) before[r] = y[r];
      n++;
    }
    keep(before, n - 1);
  }
  finish_tiles(p, product, s, finished, n - finished);
}

// format: of the products that are not f16.
template <Format format>
__global__ void __launch_bounds__(vector_threads + 32, 2) multiply_vector(const __grid_constant__ VectorProducts p) {
  extern __shared__ __align__(128) char shared[];
  VectorShared &s = *reinterpret_cast<VectorShared *>(shared);
  float *operand = reinterpret_cast<float *>(shared + vector_operand_at);
  const uint32_t ring = shared_address(shared + p.ring_at);
  int index = 0;
  while (index + 1 < p.count && static_cast<int>(blockIdx.x) >= p.products[index + 1].first_block) index++;
  const VectorProduct &product = p.products[index];
  if (threadIdx.x == vector_threads) {
    for (int i = 0; i < p.slots; i++) {
      barrier_init(shared_address(&s.full[i]), 1);
      barrier_init(shared_address(&s.empty[i]), vector_warps);
    }
    barrier_init_fence();
  }
  __syncthreads();
  launch_dependents();
  if (threadIdx.x >= vector_threads) {
    if (threadIdx.x == vector_threads) send_tiles(p, product, p.taken + index, s, ring);
    return;
  }
  make_operand(p, s, operand, product.mix);
  if (format == Format::f16 || product.format == Format::f16)
    multiply_tiles<Format::f16>(p, product, s, operand, ring);
  else
    multiply_tiles<format>(p, product, s, operand, ring);
}

}  // namespace libwkv::cuda::few
