// SPDX-License-Identifier: Apache-2.0
// y = W x for matrices held by rows: one block an SM, each with an even share of the outputs. Warps share the inputs,
// and each streams its own part of the weights through a ring in shared memory that is full before activations come.
#pragma once

#include "kernels/cuda/few_common.cuh"

namespace libwkv::cuda::few {

constexpr int product_warps = 8;
constexpr int product_threads = product_warps * 32;
constexpr int most_products = 7;

enum class Activation { none, tanh, sigmoid, squared_relu };

struct Product {
  const char *values, *scales;
  const __half *operand;  // its inputs
  void *out;              // float [row][out_stride], or an operand
  int64_t out_stride;
  int32_t first, outputs;  // among all of the launch
  int32_t units;           // of inputs
  Format format;
  Activation activation;
  bool is_operand;  // out
};

struct RowProducts {
  Product products[most_products];
  int32_t count, outputs, inputs, rows, padded;
  int32_t tile;  // most outputs that go through the ring together
  int32_t slot_bytes, operand_at;
  InputOrder out_order;       // of operands written
  float in_scale, out_scale;  // sums are multiplied by in_scale, operands written hold their numbers times out_scale
};

// A slot holds for each output of a tile the values of one unit of inputs, then the scales, then the operand. Units are
// dealt to the warps in turn, so that together they read a kilobyte of each row.
__host__ __device__ constexpr int unit_inputs(Format format) { return format == Format::f16 ? 64 : 128; }
__host__ __device__ constexpr int unit_bytes(Format format) { return format == Format::q4 ? 64 : 128; }
__host__ __device__ constexpr int unit_scales(Format format) { return format == Format::f16 ? 0 : 8; }  // bytes
__host__ __device__ constexpr int slot_operand_at(Format format, int tiles) {
  return tiles * 16 * (unit_bytes(format) + unit_scales(format));
}
// Where 16 bytes of a row lie, so that the rows that a warp reads together are in different banks.
template <Format format>
__device__ inline int piece_at(int row, int piece) {
  const int turn = format == Format::f16 ? row % 2 * 4 : format == Format::q8 ? row % 4 * 2 : row / 2 % 4;
  return row * unit_bytes(format) + (piece ^ turn) * 16;
}

// Two places for sums in turn, where there is room: one barrier a tile is enough then.
template <int tiles>
constexpr int row_sums_places = tiles == 4 ? 1 : 2;
template <int tiles, int output_tiles>
constexpr int row_sums_bytes = row_sums_places<tiles> *product_warps *output_tiles * 16 * tile_rows<tiles> * 4;

// The tiles of this block's share of the outputs, one after another. (No divisions: they would take longer than a
// tile.)
struct TileWalk {
  int begin, end;  // the share
  int product = -1, output = 0, outputs = 0, units = 0;

  __device__ explicit TileWalk(const RowProducts &p) {
    begin = static_cast<int>(static_cast<unsigned>(p.outputs) * blockIdx.x / gridDim.x);
    end = static_cast<int>(static_cast<unsigned>(p.outputs) * (blockIdx.x + 1) / gridDim.x);
    next_product(p);
  }
  __device__ bool is_done(const RowProducts &p) const { return product == p.count; }
  __device__ void next(const RowProducts &p) {
    output += outputs;
    outputs = min(p.tile, end_in(p) - output);
    if (outputs <= 0) next_product(p);
  }

 private:
  __device__ int end_in(const RowProducts &p) const {
    return min(end - p.products[product].first, p.products[product].outputs);
  }
  __device__ void next_product(const RowProducts &p) {
    while (++product < p.count) {
      output = max(begin - p.products[product].first, 0);
      outputs = min(p.tile, end_in(p) - output);
      units = p.products[product].units;
      if (outputs > 0) return;
    }
  }
};

// What a warp sends: the units that are its own, of every tile in turn. Blocks begin at different inputs, or all would
// read the same part of memory's channels, and the same activations, at a time.
template <Format format, int tiles, int output_tiles>
struct Sender {
  TileWalk tile;
  const char *values, *scales, *operand;  // of this lane: its place in the first row and unit
  int64_t row_step;                       // to the next row that this lane copies
  int step, turn, warp, lane;
  bool is_f16;

  __device__ Sender(const RowProducts &p, const TileWalk &first, int own_warp, int own_lane)
      : tile(first), warp(own_warp), lane(own_lane) {
    step = warp;
    set_tile(p);
    skip_empty(p);
  }
  __device__ bool is_done(const RowProducts &p) const { return tile.is_done(p); }
  __device__ void next(const RowProducts &p) {
    step += product_warps;
    skip_empty(p);
  }
  __device__ void send_weights(uint32_t slot, uint64_t policy) const {
    if (format == Format::f16 || is_f16)
      send_weights_as<Format::f16>(slot, policy);
    else
      send_weights_as<format>(slot, policy);
  }
  __device__ void send_operand(const RowProducts &p, uint32_t slot) const {
    constexpr int most = (format == Format::f16 ? 64 : 128) * tile_rows<tiles> * 4;
    const int bytes = (format == Format::f16 || is_f16 ? 64 : 128) * p.padded * 4;
    const char *from = operand + unit() * bytes;
    const uint32_t to = slot + static_cast<uint32_t>(p.operand_at + lane * 16);
#pragma unroll
    for (int i = 0; i < most; i += 512)
      if (i + lane * 16 < bytes) copy_16(to + i, from + i);
  }

 private:
  __device__ int unit() const { return step + turn < tile.units ? step + turn : step + turn - tile.units; }
  template <Format as>
  __device__ void send_weights_as(uint32_t slot, uint64_t policy) const {
    constexpr int pieces = unit_bytes(as) / 16, rows = 32 / pieces;
    const uint32_t to = slot + static_cast<uint32_t>(piece_at<as>(lane / pieces, lane % pieces));
    const char *from = values + unit() * unit_bytes(as);
#pragma unroll
    for (int i = 0; i < output_tiles * 16 / rows; i++) {
      if (i * rows + lane / pieces < tile.outputs) copy_16_streamed(to + i * 512, from, policy);
      from += row_step;
    }
    if constexpr (as != Format::f16)
      if (lane < tile.outputs)
        copy_8(slot + static_cast<uint32_t>(output_tiles * 16 * unit_bytes(as) + lane * 8), scales + unit() * 8);
  }
  __device__ void skip_empty(const RowProducts &p) {
    while (step >= tile.units && !tile.is_done(p)) {
      tile.next(p);
      step = warp;
      set_tile(p);
    }
  }
  __device__ void set_tile(const RowProducts &p) {
    if (tile.is_done(p)) return;
    const Product &product = p.products[tile.product];
    is_f16 = product.format == Format::f16;
    turn = static_cast<int>(blockIdx.x % 8) * tile.units / 8;
    const bool is_half_unit = format == Format::q4 && !is_f16;  // 64 bytes, otherwise 128
    const int64_t pitch = static_cast<int64_t>(tile.units) * (is_half_unit ? 64 : 128);
    const int row = is_half_unit ? lane / 4 : lane / 8, piece = is_half_unit ? lane % 4 : lane % 8;
    values = product.values + (tile.output + row) * pitch + piece * 16;
    row_step = pitch * (is_half_unit ? 8 : 4);
    scales = product.scales + static_cast<int64_t>(tile.output + lane) * (p.inputs / 16);
    operand = reinterpret_cast<const char *>(product.operand) + lane * 16;
  }
};

// Sums over a unit.
template <Format format, int tiles, int output_tiles>
__device__ inline void multiply_unit(float (&sums)[output_tiles][tiles][4], const char *slot, const RowProducts &p,
                                     int lane) {
  const int g = lane / 4, t = lane % 4;
  const char *scales = slot + output_tiles * 16 * unit_bytes(format);
  const char *operand = slot + p.operand_at + t * 16;
  int column[tiles];
#pragma unroll
  for (int n = 0; n < tiles; n++) column[n] = column_of<tiles>(n, g, p.padded) * 64;
#pragma unroll
  for (int block = 0; block < unit_inputs(format) / 32; block++) {
    uint4 x[tiles];
#pragma unroll
    for (int n = 0; n < tiles; n++)
      x[n] = *reinterpret_cast<const uint4 *>(operand + block * p.padded * 128 + column[n]);
#pragma unroll
    for (int m = 0; m < output_tiles; m++) {
      const int row[2] = {m * 16 + g, m * 16 + 8 + g};
      if constexpr (format == Format::f16) {
        const uint4 a = *reinterpret_cast<const uint4 *>(slot + piece_at<format>(row[0], block * 4 + t));
        const uint4 b = *reinterpret_cast<const uint4 *>(slot + piece_at<format>(row[1], block * 4 + t));
#pragma unroll
        for (int n = 0; n < tiles; n++) {
          mma(sums[m][n], a.x, b.x, a.y, b.y, x[n].x, x[n].y);
          mma(sums[m][n], a.z, b.z, a.w, b.w, x[n].z, x[n].w);
        }
      } else {
        // Whole numbers are exact as halves; scales come in after the sum over their block.
        uint32_t words[2][2];
        float scale[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
          if constexpr (format == Format::q8) {
            const uint2 v =
                *reinterpret_cast<const uint2 *>(slot + piece_at<format>(row[h], block * 2 + t / 2) + t % 2 * 8);
            words[h][0] = v.x ^ 0x80808080u;
            words[h][1] = v.y ^ 0x80808080u;
          } else {
            const uint2 v = *reinterpret_cast<const uint2 *>(slot + piece_at<format>(row[h], block) + t % 2 * 8);
            words[h][0] = v.x >> (t / 2 * 4) & 0x0f0f0f0fu;
            words[h][1] = v.y >> (t / 2 * 4) & 0x0f0f0f0fu;
          }
          scale[h] = __half2float(*reinterpret_cast<const __half *>(scales + row[h] * 8 + block * 2));
        }
        const __half2 offset = __half2half2(__ushort_as_half(format == Format::q8 ? 0x6480 : 0x6408));
        uint32_t a[2][2][2];  // [half][mma][pair]
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
          for (int i = 0; i < 2; i++) {
            a[h][i][0] = halves_of_bytes<0>(words[h][i], offset);
            a[h][i][1] = halves_of_bytes<1>(words[h][i], offset);
          }
#pragma unroll
        for (int n = 0; n < tiles; n++) {
          float part[4] = {};
          mma(part, a[0][0][0], a[1][0][0], a[0][0][1], a[1][0][1], x[n].x, x[n].y);
          mma(part, a[0][1][0], a[1][1][0], a[0][1][1], a[1][1][1], x[n].z, x[n].w);
#pragma unroll
          for (int i = 0; i < 4; i++) sums[m][n][i] = fmaf(scale[i / 2], part[i], sums[m][n][i]);
        }
      }
    }
  }
}

// Adds up the warps' sums of a tile and hands them on.
template <int tiles, int output_tiles>
__device__ inline void finish_tile(const float (&sums)[output_tiles][tiles][4], float *shared_sums,
                                   const RowProducts &p, const Product &product, int output, int outputs) {
  constexpr int height = output_tiles * 16, width = tile_rows<tiles>;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int m = 0; m < output_tiles; m++)
    join<tiles>(sums[m], lane,
                [&](int o, int row, float value) { shared_sums[(warp * width + row) * height + m * 16 + o] = value; });
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < height * width; i += product_threads) {
    const int o = i % height, row = i / height;
    if (o >= outputs || row >= p.rows) continue;
    float y = 0;
#pragma unroll
    for (int w = 0; w < product_warps; w++) y += shared_sums[w * width * height + i];
    y *= p.in_scale;
    if (product.activation == Activation::tanh) y = tanhf(y);
    if (product.activation == Activation::sigmoid) y = sigmoid(y);
    if (product.activation == Activation::squared_relu) y = y > 0 ? y * y : 0.0f;
    if (product.is_operand)
      put(static_cast<__half *>(product.out), p.padded, row, output + o, p.out_order, y * p.out_scale);
    else
      static_cast<float *>(product.out)[row * product.out_stride + output + o] = y;
  }
}

// format: of the products that are not f16. A warp has `slots` units on their way.
template <Format format, int tiles, int output_tiles, int slots>
__global__ void __launch_bounds__(product_threads, tiles == 4 ? 1 : 2)
    multiply_rows(const __grid_constant__ RowProducts p) {
  extern __shared__ __align__(128) char shared[];
  float *shared_sums = reinterpret_cast<float *>(shared);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const char *ring = shared + row_sums_bytes<tiles, output_tiles> + warp * slots * p.slot_bytes;
  const uint32_t ring_address = shared_address(ring);
  launch_dependents();
  const uint64_t policy = stream_policy();
  using Own = Sender<format, tiles, output_tiles>;
  const TileWalk first(p);
  Own ahead(p, first, warp, lane), again = ahead;
#pragma unroll 1
  for (int slot = 0; slot < slots; slot++) {
    if (!ahead.is_done(p)) {
      ahead.send_weights(ring_address + slot * p.slot_bytes, policy);
      ahead.next(p);
    }
    copies_commit();
  }
  wait_for_predecessors();
#pragma unroll 1
  for (int slot = 0; slot < slots; slot++) {
    if (!again.is_done(p)) {
      again.send_operand(p, ring_address + slot * p.slot_bytes);
      again.next(p);
    }
    copies_commit();
  }

  int slot = 0;  // bytes into the ring
  int parity = 0;
  const int ring_bytes = slots * p.slot_bytes;
#pragma unroll 1
  for (TileWalk now = first; !now.is_done(p); now.next(p)) {
    float sums[output_tiles][tiles][4] = {};
    const bool is_f16 = format == Format::f16 || p.products[now.product].format == Format::f16;
#pragma unroll 1
    for (int step = warp; step < now.units; step += product_warps) {
      copies_wait<slots - 1>();
      __syncwarp();
      if (is_f16)
        multiply_unit<Format::f16, tiles, output_tiles>(sums, ring + slot, p, lane);
      else
        multiply_unit<format, tiles, output_tiles>(sums, ring + slot, p, lane);
      __syncwarp();
      if (!ahead.is_done(p)) {
        ahead.send_weights(ring_address + slot, policy);
        ahead.send_operand(p, ring_address + slot);
        ahead.next(p);
      }
      copies_commit();
      slot += p.slot_bytes;
      if (slot == ring_bytes) slot = 0;
    }
    finish_tile(sums, shared_sums + parity * (row_sums_bytes<tiles, output_tiles> / 8), p, p.products[now.product],
                now.output, now.outputs);
    if constexpr (row_sums_places<tiles> == 2)
      parity ^= 1;
    else
      __syncthreads();
  }
}

}  // namespace libwkv::cuda::few
