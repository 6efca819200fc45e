// SPDX-License-Identifier: Apache-2.0
// One persistent cooperative kernel for a whole token: a block a multiprocessor.
//
// Three exchanges between blocks a layer, each of words that readers poll in L2:
//   1  receptance, key, value and the first low-rank products (FORMATS.md section 0: r, k, v, xw@w1, xa@a1, xv@v1,
//      xg@g1), rows shared out over all blocks;
//   2  x += Wo(o*g). The blocks of a head each compute all of the head (second low-rank products, state, norm), then
//      their part of the outputs of Wo over the head's 64 inputs;
//   3  x += Wvalue(relu(k2)^2). A block has some rows of ffn.key and the same inputs of ffn.value.
// 2 and 3 are sums over blocks: fixed-point atomics, whose order does not matter. Every block keeps all of x.
//
// A producer warp streams the block's weights through a ring in shared memory and never waits for activations; another
// one brings what a head needs for its second low-rank products. In-place state: what a block writes, others may still
// have to read, so shifts are written after exchange 3 and WKV numbers after exchange 2 of their layer, which no block
// passes before all have read.
#include "kernels/cuda/stream.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include <cuda_bf16.h>

#include "kernels/cuda/stream_ring.cuh"

namespace libwkv::cuda {
namespace {

using namespace stream_parts;

constexpr int head_size = 64;
constexpr int recurrence_warps = 8;  // a warp has 8 value columns of the head
constexpr int most_blocks = (1 << count_bits) - 1;
constexpr int wide_slot_bytes = 20480;  // slots have up to this; bulk copies of 8 KB do not reach the read roof
constexpr int least_slot_rows = 4;
constexpr int least_ring_bytes = 65536;

// Vectors of a layer by their place in the packed copy, [width] each. Mixes lie in the order of Products, so value's is
// there twice.
enum Vector : int { ln1_weight, ln1_bias, first_mix, ln2_weight = first_mix + 7, ln2_bias, ffn_mix, vectors_count };
// What exchange 1 carries: rows of one long matrix.
enum Product : int { receptance, key, value, low_w, low_a, low_v, low_g, products_count };
// Vectors of a head, [head_size] each, behind its second low-rank matrices in the packed copy.
enum HeadVector : int { base_w, base_a, base_v, k_k, k_a, r_k, ln_x_weight, ln_x_bias, head_vectors_count };

// Matrices of a layer that are read where they are.
struct LayerMatrices {
  const char *products[products_count], *ffn_key, *ffn_value;
};

// Rows shared out over blocks.
struct Split {
  int quotient, remainder;
};
__host__ __device__ inline Split split(int rows, int blocks) { return {rows / blocks, rows % blocks}; }
struct Rows {
  int begin, count;
};
// place: the block's number; counted from the other end for ffn, so that no block has a row more in both.
__host__ __device__ inline Rows rows_of(const Split &split, int place) {
  return {place * split.quotient + min(place, split.remainder), split.quotient + (place < split.remainder ? 1 : 0)};
}

// Everything that follows from shape and device.
struct Plan {
  int layers, width, heads, ffn_width, vocab, blocks;
  int ranks[4];               // w, a, v, g
  int lows;                   // their sum
  int parts;                  // blocks a head
  int row_bytes;              // of every matrix that goes through the ring by rows of width numbers
  int slot_rows, slot_shift;  // such rows a slot, a power of two
  int slot_outputs;           // rows of 64 numbers of att.output a slot
  uint32_t slot_outputs_inverse;
  int slots, slot_bytes;
  int padded_width;  // multiple of 256
  float inverse_width;
  uint32_t layer_bytes, wkv_bytes;              // of a state: of a layer, and before the WKV numbers in it
  int mixed_count;                              // mixed vectors a block has at most
  int head_bytes;                               // packed copy of a head: low-rank matrices, then vectors
  Split first_products, products, ffn, logits;  // first: of layer 0, which has no v1
  // Bytes in the packed copy.
  size_t packed_vectors, packed_heads, packed_output, packed_bytes;
  // Bytes in shared memory; the ring is at 0. rows: of what product each row of exchange 1 is, and where it goes;
  // kept: what is to be written to the state later (registers are short, and L1 is too small for what spills).
  int at_head, at_mixed, at_hidden, at_squares, at_rows, at_kept, at_small, at_barriers, shared_bytes;
};

__host__ __device__ inline int rank_of(const Plan &plan, int product, bool is_first) {
  return product == low_v && is_first ? 0 : plan.ranks[product - low_w];
}
// The product a row belongs to and the first row of it.
__host__ __device__ inline int product_of(const Plan &plan, int row, bool is_first, int *begin) {
  int start = 0;
  for (int p = 0; p < products_count - 1; p++) {
    const int next = start + (p < low_w ? plan.width : rank_of(plan, p, is_first));
    if (row < next) {
      *begin = start;
      return p;
    }
    start = next;
  }
  *begin = start;
  return low_g;
}

// Floats in the small area of shared memory.
enum Small : int {
  small_receptance = 0,
  small_key = 64,
  small_value = 128,
  small_first_value = 192,
  small_decay = 256,
  small_rate = 320,
  small_gate = 384,
  small_wkv = 448,
  small_sums = 512,     // two floats a warp
  small_scalars = 576,  // 1 / |k * k_k|, sum r k r_k
  small_count = 592
};

int round_up(int value, int to) { return (value + to - 1) / to * to; }

uint32_t inverse_of(int divisor) {
  return static_cast<uint32_t>((uint64_t{1} << 32) / static_cast<uint64_t>(divisor) + 1);
}
// Threads of a class of shapes: consumer warps, and how many pairs of x a thread has. Few warps with many registers:
// what spills comes back from L2, since shared memory takes nearly all of L1.
struct ShapeClass {
  int warps, pairs;
};
ShapeClass class_of(int width) {
  if (width <= 768) return {8, 2};
  if (width <= 1024) return {8, 2};
  if (width <= 2048) return {8, 4};
  return {12, 4};
}

Plan make_plan(const DeviceShape &s, int blocks, int shared_limit) {
  Plan p{};
  p.layers = static_cast<int>(s.layers);
  p.width = static_cast<int>(s.width);
  p.heads = static_cast<int>(s.heads);
  p.ffn_width = static_cast<int>(s.ffn_width);
  p.vocab = static_cast<int>(s.vocab_size);
  p.blocks = blocks;
  p.ranks[0] = static_cast<int>(s.rank_w);
  p.ranks[1] = static_cast<int>(s.rank_a);
  p.ranks[2] = static_cast<int>(s.rank_v);
  p.ranks[3] = static_cast<int>(s.rank_g);
  p.lows = p.ranks[0] + p.ranks[1] + p.ranks[2] + p.ranks[3];
  p.parts = std::max(1, blocks / p.heads);
  p.row_bytes = p.width * 2;
  p.slot_rows = least_slot_rows;
  while (2 * p.slot_rows * p.row_bytes <= wide_slot_bytes) p.slot_rows *= 2;
  while (1 << p.slot_shift < p.slot_rows) p.slot_shift++;
  p.slot_bytes = p.slot_rows * p.row_bytes;
  p.slot_outputs = p.slot_bytes / (head_size * 2) / 8 * 8;  // a warp takes 8 at a time, all of one slot
  p.slot_outputs_inverse = inverse_of(p.slot_outputs);
  p.padded_width = round_up(p.width, 256);
  p.inverse_width = 1.0f / static_cast<float>(p.width);
  p.head_bytes = head_size * 2 * p.lows + head_vectors_count * head_size * 4;
  p.first_products = split(3 * p.width + p.lows - p.ranks[2], blocks);
  p.products = split(3 * p.width + p.lows, blocks);
  p.ffn = split(p.ffn_width, blocks);
  p.logits = split(p.vocab, blocks);
  for (int place = 0; place < blocks; place++)
    for (const bool is_first : {true, false}) {
      const Rows rows = rows_of(is_first ? p.first_products : p.products, place);
      int begin;
      if (rows.count > 0)
        p.mixed_count = std::max(p.mixed_count, product_of(p, rows.begin + rows.count - 1, is_first, &begin) -
                                                    product_of(p, rows.begin, is_first, &begin) + 1);
    }

  const auto aligned = [](size_t bytes) { return (bytes + 255) / 256 * 256; };
  const size_t layers = static_cast<size_t>(p.layers), width = static_cast<size_t>(p.width);
  p.packed_vectors = aligned(layers * sizeof(LayerMatrices));
  p.packed_heads = p.packed_vectors + aligned(layers * vectors_count * width * sizeof(float));
  p.packed_output = p.packed_heads + aligned(layers * static_cast<size_t>(p.heads) * static_cast<size_t>(p.head_bytes));
  p.packed_bytes = p.packed_output + aligned(layers * width * width * 2);

  const int head = round_up(p.head_bytes, 128), mixed = p.mixed_count * p.padded_width * 4;
  const int hidden = round_up(p.lows * 4, 128), squares = round_up((p.ffn.quotient + 5) * 4, 128);
  const int barriers = 1024;
  const int rows = round_up((2 * p.products.quotient + 3) * 4, 128);
  const int kept_shifts = 3 * (p.width / 2 / blocks + 1) * 8;
  const int kept = round_up(kept_shifts, 128) + round_up(recurrence_warps, std::min(p.parts, recurrence_warps)) /
                                                    std::min(p.parts, recurrence_warps) * 32 * 8 * 8;
  const int fixed = head + mixed + hidden + squares + rows + kept + small_count * 4 + barriers;
  p.slots = std::min((shared_limit - fixed) / p.slot_bytes, 60);
  p.at_head = p.slots * p.slot_bytes;
  p.at_mixed = p.at_head + head;
  p.at_hidden = p.at_mixed + mixed;
  p.at_squares = p.at_hidden + hidden;
  p.at_rows = p.at_squares + squares;
  p.at_kept = p.at_rows + rows;
  p.at_small = p.at_kept + kept;
  p.at_barriers = p.at_small + small_count * 4;
  p.shared_bytes = p.at_barriers + barriers;
  return p;
}

// ---- workspace: the number of the step, words of exchange 1, sums of exchanges 2 and 3 of every layer, twice: a step
// uses one set and zeroes the other.

size_t words_of_products(const Plan &p) { return static_cast<size_t>(3 * p.width + p.lows); }
size_t words_of_sums(const Plan &p) { return static_cast<size_t>(p.layers) * 2 * static_cast<size_t>(p.width) * 4; }
constexpr size_t counter_bytes = 256;

struct Arguments {
  Plan plan;
  StateShape states;
  Matrix embedding;
  const float *ln0_weight, *ln0_bias, *ln_out_weight, *ln_out_bias;
  const char *head, *packed;
  const int32_t *tokens;
  const Segment *segments;
  float *logits;  // NULL: not wanted
  uint32_t *step;
  uint64_t *products, *sums;
  size_t sums_count;  // of one set
};

#if __CUDA_ARCH__ >= 900

constexpr int most_in_flight = 3;  // with more, what the stages wait for waits too: 3 % of a token at width 2048

extern __shared__ __align__(1024) char shared[];

// row / divisor for the small numbers there are; divisors are 2 or more.
__device__ inline int divide(int row, uint32_t inverse) {
  return static_cast<int>(__umulhi(static_cast<uint32_t>(row), inverse));
}

__device__ inline float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

__device__ inline float2 embedding_pair(const Matrix &m, int64_t token, int pair) {
  const int64_t at = token * m.inputs / 2 + pair;
  if (m.format == Format::f32) return static_cast<const float2 *>(m.values)[at];
  if (m.format == Format::f16) return __half22float2(static_cast<const __half2 *>(m.values)[at]);
  return __bfloat1622float2(static_cast<const __nv_bfloat162 *>(m.values)[at]);
}

// Whole words at once: the compiler would else read 16 bytes in pieces, and lanes would meet in the banks.
__device__ inline uint4 load16(const void *at) { return *static_cast<const uint4 *>(at); }
__device__ inline float2 pair_of(uint32_t word) {
  __half2 pair;
  memcpy(&pair, &word, sizeof pair);
  return __half22float2(pair);
}
__device__ inline void load8(const float *at, float (&values)[8]) {
  const float4 low = *reinterpret_cast<const float4 *>(at), high = *reinterpret_cast<const float4 *>(at + 4);
  values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
  values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}

__device__ inline float2 dot(uint4 weights, float4 low, float4 high, float2 sum) {
  const float2 a = pair_of(weights.x), b = pair_of(weights.y), c = pair_of(weights.z), d = pair_of(weights.w);
  sum.x = fmaf(a.x, low.x, sum.x);
  sum.y = fmaf(c.x, high.x, sum.y);
  sum.x = fmaf(a.y, low.y, sum.x);
  sum.y = fmaf(c.y, high.y, sum.y);
  sum.x = fmaf(b.x, low.z, sum.x);
  sum.y = fmaf(d.x, high.z, sum.y);
  sum.x = fmaf(b.y, low.w, sum.x);
  sum.y = fmaf(d.y, high.w, sum.y);
  return sum;
}

// Where number k of a vector lies that lanes read in eights: the first and second four of an eight are apart, so that
// both reads are of consecutive words over the lanes.
__device__ inline int spread(int k) { return (k & ~255) | (k & 4) << 5 | (k & 248) >> 1 | (k & 3); }

template <int warps>
__device__ inline void consumers_sync() {
  asm volatile("bar.sync 1, %0;" ::"n"(warps * 32) : "memory");
}

// Products of four rows with one vector; lanes 8 r to 8 r + 7 get row r's. Rows that are not there repeat the last one.
template <int eights>
__device__ inline float multiply_rows(const Plan &plan, const Consumer &ring, int row, int last, const float *x,
                                      int lane) {
  const char *at[4];
  float2 sums[4];
#pragma unroll
  for (int r = 0; r < 4; r++) {
    const int one = min(row + r, last), chunk = one >> plan.slot_shift;
    at[r] = shared + ring.at(chunk) + (one - (chunk << plan.slot_shift)) * plan.row_bytes + lane * 16;
    sums[r] = make_float2(0, 0);
  }
  x += lane * 4;
  const auto step = [&](int eight) {
    const float4 low = *reinterpret_cast<const float4 *>(x + eight * 256);
    const float4 high = *reinterpret_cast<const float4 *>(x + eight * 256 + 128);
#pragma unroll
    for (int r = 0; r < 4; r++) sums[r] = dot(load16(at[r] + eight * 512), low, high, sums[r]);
  };
  if constexpr (eights <= 4) {
#pragma unroll
    for (int eight = 0; eight < eights; eight++)
      if (lane * 8 + eight * 256 < plan.width) step(eight);
  } else {
#pragma unroll 2
    for (int eight = 0; lane * 8 + eight * 256 < plan.width; eight++) step(eight);
  }
  __syncwarp();
  // Each round halves the rows that a lane has sums of.
  const bool is_upper = lane & 16, is_odd = lane & 8;
  float all[4];
#pragma unroll
  for (int r = 0; r < 4; r++) all[r] = sums[r].x + sums[r].y;
  const float first = (is_upper ? all[2] : all[0]) + __shfl_xor_sync(~0u, is_upper ? all[0] : all[2], 16);
  const float second = (is_upper ? all[3] : all[1]) + __shfl_xor_sync(~0u, is_upper ? all[1] : all[3], 16);
  float sum = (is_odd ? second : first) + __shfl_xor_sync(~0u, is_odd ? first : second, 8);
#pragma unroll
  for (int distance = 4; distance; distance >>= 1) sum += __shfl_xor_sync(~0u, sum, distance);
  return sum;
}

// ---- producers

__device__ void stream_weights(const Arguments &a, uint32_t first_word, const RingShape &shape) {
  const Plan &plan = a.plan;
  const int block = static_cast<int>(blockIdx.x);
  const uint64_t policy = read_once_policy();
  const uint32_t ring = first_word;
  Producer producer{shape};
  const auto send = [&](const char *from, int bytes_count, int chunk_bytes) {
#pragma unroll 1
    for (int done = 0; done < bytes_count; done += chunk_bytes) {
      const uint32_t bytes = static_cast<uint32_t>(min(chunk_bytes, bytes_count - done));
      const uint32_t to = producer.begin(bytes);
      bulk_copy_once(ring + to, from + done, bytes, producer.barrier(), policy);
      producer.end();
    }
  };
  const LayerMatrices *layers = reinterpret_cast<const LayerMatrices *>(a.packed);
#pragma unroll 1
  for (int l = 0; l < plan.layers; l++) {
    const LayerMatrices &layer = layers[l];
    // Rows of several matrices share slots.
    const Rows products = rows_of(l == 0 ? plan.first_products : plan.products, block);
#pragma unroll 1
    for (int done = 0; done < products.count; done += plan.slot_rows) {
      const int count = min(plan.slot_rows, products.count - done);
      uint32_t to = ring + producer.begin(static_cast<uint32_t>(count * plan.row_bytes));
#pragma unroll 1
      for (int row = products.begin + done, end = row + count; row < end;) {
        int begin;
        const int product = product_of(plan, row, l == 0, &begin);
        const int rows = product < low_w ? plan.width : rank_of(plan, product, l == 0);
        const int piece = min(end, begin + rows) - row;
        const uint32_t bytes = static_cast<uint32_t>(piece * plan.row_bytes);
        bulk_copy_once(to, layer.products[product] + static_cast<int64_t>(row - begin) * plan.row_bytes, bytes,
                       producer.barrier(), policy);
        to += bytes;
        row += piece;
      }
      producer.end();
    }
    if (block < plan.heads * plan.parts) {
      const int head = block / plan.parts, part = block % plan.parts;
      const int begin = plan.width * part / plan.parts, end = plan.width * (part + 1) / plan.parts;
      const int64_t row = (static_cast<int64_t>(l) * plan.heads + head) * plan.width + begin;
      send(a.packed + plan.packed_output + row * head_size * 2, (end - begin) * head_size * 2,
           plan.slot_outputs * head_size * 2);
    }
    const Rows ffn = rows_of(plan.ffn, plan.blocks - 1 - block);
    const int64_t offset = static_cast<int64_t>(ffn.begin) * plan.row_bytes;
    send(layer.ffn_key + offset, ffn.count * plan.row_bytes, plan.slot_bytes);
    send(layer.ffn_value + offset, ffn.count * plan.row_bytes, plan.slot_bytes);
  }
  if (a.logits == nullptr) return;
  const Rows logits = rows_of(plan.logits, block);
  send(a.head + static_cast<int64_t>(logits.begin) * plan.row_bytes, logits.count * plan.row_bytes, plan.slot_bytes);
}

// A warp: what the block's head needs in every layer, and what will be wanted in L2.
__device__ void stream_heads(const Arguments &a, uint32_t to, uint32_t full, uint32_t empty, uint64_t *old_sums) {
  const Plan &plan = a.plan;
  const int block = static_cast<int>(blockIdx.x), lane = static_cast<int>(threadIdx.x % 32);
  const bool has_head = block < plan.heads * plan.parts;
  const int head = block / plan.parts, part = block % plan.parts;
  const Segment segment = a.segments[0];
#pragma unroll 1
  for (int l = 0; l < plan.layers; l++) {
    if (has_head && lane == 0) {
      barrier_wait(empty, (l & 1) ^ 1);
      barrier_expect(full, plan.head_bytes);
      const int64_t number = static_cast<int64_t>(l) * plan.heads + head;
      bulk_copy(to, a.packed + plan.packed_heads + number * plan.head_bytes, plan.head_bytes, full);
    }
    __syncwarp();
    if (l + 1 == plan.layers) continue;
    constexpr int line = 128;
    const char *vectors =
        a.packed + plan.packed_vectors + static_cast<size_t>(l + 1) * vectors_count * plan.width * sizeof(float);
    const int vector_lines = vectors_count * plan.width * 4 / line;
    for (int i = block * 32 + lane; i < vector_lines; i += plan.blocks * 32)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(vectors + static_cast<size_t>(i) * line));
    if (has_head) {
      const int bytes = head_size * head_size * (a.states.is_half ? 2 : 4);
      const char *wkv = segment.from + a.states.wkv(l + 1) + static_cast<size_t>(head) * bytes;
      for (int i = part * 32 + lane; i < bytes / line; i += plan.parts * 32)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(wkv + static_cast<size_t>(i) * line));
    }
  }
  for (size_t i = static_cast<size_t>(block) * 32 + lane; i < a.sums_count / 4;
       i += static_cast<size_t>(plan.blocks) * 32)
    old_sums[apart(i)] = 0;
}

// ---- consumers

// Sum and sum of squares over all consumers, as mean and 1 / deviation.
template <int warps, int pairs>
__device__ inline float2 measure(const float2 (&x)[pairs], float inverse_width, float *sums, int warp, int lane) {
  float sum = 0, squares = 0;
#pragma unroll
  for (int i = 0; i < pairs; i++) {
    sum += x[i].x + x[i].y;
    squares += x[i].x * x[i].x + x[i].y * x[i].y;
  }
#pragma unroll
  for (int step = 16; step; step >>= 1) {
    sum += __shfl_xor_sync(~0u, sum, step);
    squares += __shfl_xor_sync(~0u, squares, step);
  }
  if (lane == 0) *reinterpret_cast<float2 *>(sums + 2 * warp) = make_float2(sum, squares);
  consumers_sync<warps>();
  sum = squares = 0;
#pragma unroll
  for (int i = 0; i < warps / 2; i++) {
    const float4 two = reinterpret_cast<const float4 *>(sums)[i];
    sum += two.x + two.z;
    squares += two.y + two.w;
  }
  const float mean = sum * inverse_width;
  return {mean, rsqrtf(fmaxf(squares * inverse_width - mean * mean, 0.0f) + 1e-5f)};
}

__device__ inline float2 normalise(float2 x, float2 norm, float2 weight, float2 bias) {
  return {(x.x - norm.x) * norm.y * weight.x + bias.x, (x.y - norm.x) * norm.y * weight.y + bias.y};
}

// D += A B with A of 16 x 16 and B of 16 x 8, in fp16 with fp32 sums.
__device__ inline void multiply_tile(float (&d)[4], uint4 a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// Activations on tensor cores: x = high + low / low_scale, both fp16, next to 22 bits.
constexpr float low_scale = 2048.0f;

// What each row of exchange 1 is: product, and its word. And the groups of rows that warps take: up to four rows of one
// product, first and last, then how many groups there are.
constexpr int product_bits = 3, product_mask = (1 << product_bits) - 1;
constexpr int group_bits = 16;
__device__ void describe_rows(const Plan &plan, uint32_t *rows_table, uint32_t *groups, const Rows &rows, bool is_first,
                              int thread, int threads) {
  for (int r = thread; r < rows.count; r += threads) {
    int begin;
    const int row = rows.begin + r, product = product_of(plan, row, is_first, &begin);
    const int word = row + (product == low_g && is_first ? plan.ranks[low_v - low_w] : 0);
    rows_table[r] = static_cast<uint32_t>(word << product_bits | product);
  }
  if (thread > 0) return;
  int count = 0;
  for (int r = 0, last; r < rows.count; r = last + 1) {
    int begin, next = 0;
    const int product = product_of(plan, rows.begin + r, is_first, &begin);
    for (last = r; last + 1 < min(r + 4, rows.count); last++) {
      next = product_of(plan, rows.begin + last + 1, is_first, &begin);
      if (next != product) break;
    }
    groups[1 + count++] = static_cast<uint32_t>(last << group_bits | r);
  }
  groups[0] = static_cast<uint32_t>(count);
}

template <int warps, int pairs, int eights>
__device__ void consume(const Arguments &a, Consumer &ring, uint32_t head_full, uint32_t head_empty, uint32_t step,
                        uint64_t *sums) {
  const Plan &plan = a.plan;
  constexpr int threads = warps * 32;
  constexpr int early_mixes = pairs > 2 ? 1 : 2;  // a block seldom has rows of more products
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int block = static_cast<int>(blockIdx.x);
  const int width = plan.width, half_width = width / 2;
  float *mixed = reinterpret_cast<float *>(shared + plan.at_mixed);
  uint32_t *hidden = reinterpret_cast<uint32_t *>(shared + plan.at_hidden);  // pairs: high parts, then low parts
  float *squares = reinterpret_cast<float *>(shared + plan.at_squares);
  uint32_t *rows_table = reinterpret_cast<uint32_t *>(shared + plan.at_rows);
  uint32_t *groups = rows_table + plan.products.quotient + 1;
  float *small = reinterpret_cast<float *>(shared + plan.at_small);
  const char *head_matrices = shared + plan.at_head;
  const float *head_vectors = reinterpret_cast<const float *>(head_matrices + head_size * 2 * plan.lows);
  const bool has_head = block < plan.heads * plan.parts;
  const int head = block / plan.parts, part = block % plan.parts;
  const int out_begin = width * part / plan.parts, out_count = width * (part + 1) / plan.parts - out_begin;
  const int out_chunks = divide(out_count + plan.slot_outputs - 1, plan.slot_outputs_inverse);
  const Segment segment = a.segments[0];
  // A lane's state numbers: keys 8 * (lane / 4) + n, columns 8 * warp + 2 * (lane % 4) and the next.
  const int keys = 8 * (lane / 4), column = 8 * warp + 2 * (lane % 4);
  const bool has_columns = has_head && warp < recurrence_warps;
  // Blocks of a head have the same state; their warps write it in turn.
  const bool writes_columns = has_columns && warp % min(plan.parts, recurrence_warps) == part;
  const bool is_half = a.states.is_half;
  const bool is_freer = warp == warps - 2;
  const uint32_t wkv_at =
      plan.wkv_bytes + (head * head_size * head_size + keys * head_size + column) * (is_half ? 2 : 4);
  // Pairs of the shifts that this block writes.
  const int own_begin = half_width * block / plan.blocks, own_end = half_width * (block + 1) / plan.blocks;
  float2 *kept_shifts = reinterpret_cast<float2 *>(shared + plan.at_kept);  // att of even layers, of odd ones, ffn
  const int most_own = half_width / plan.blocks + 1;
  float2 *kept_columns = reinterpret_cast<float2 *>(shared + plan.at_kept + (most_own * 24 + 127) / 128 * 128) +
                         warp / min(plan.parts, recurrence_warps) * 256 + lane;
  Rows rows = rows_of(plan.first_products, block);
  describe_rows(plan, rows_table, groups, rows, true, thread, threads);
  for (int i = thread; i < plan.ffn.quotient + 5; i += threads) squares[i] = 0;
  // Tiles of the second low-rank products that the warp has: those of g first, they are the longest.
  constexpr int tiles = (16 + warps - 1) / warps;
  int tile_matrix[tiles], tile_rank[tiles], tile_begin[tiles];
#pragma unroll
  for (int t = 0; t < tiles; t++) {
    const int tile = warp + t * warps;
    tile_matrix[t] = tile >= 16 ? -1 : tile < 4 ? 3 : tile / 4 - 1;
    tile_begin[t] = 0;
    tile_rank[t] = plan.ranks[max(tile_matrix[t], 0)];
    for (int m = 0; m < tile_matrix[t]; m++) tile_begin[t] += plan.ranks[m];
  }

  // x = LN0(emb[token])
  float2 x[pairs];
  {
    const int64_t token = a.tokens[0];
#pragma unroll
    for (int i = 0; i < pairs; i++) {
      const int pair = thread + i * threads;
      x[i] = pair < half_width ? embedding_pair(a.embedding, token, pair) : make_float2(0, 0);
    }
    const float2 norm = measure<warps>(x, plan.inverse_width, small + small_sums, warp, lane);
#pragma unroll
    for (int i = 0; i < pairs; i++) {
      const int pair = thread + i * threads;
      if (pair < half_width)
        x[i] = normalise(x[i], norm, reinterpret_cast<const float2 *>(a.ln0_weight)[pair],
                         reinterpret_cast<const float2 *>(a.ln0_bias)[pair]);
    }
    consumers_sync<warps>();
  }

  const char *from = segment.from;
  char *state = segment.state;
  const float *vectors = reinterpret_cast<const float *>(a.packed + plan.packed_vectors);
  const uint64_t *words = sums - 4 * width;
  uint32_t use = step * plan.layers;  // + 1 for each layer
#pragma unroll 1
  for (int stage = 0; stage <= 2 * plan.layers; stage++, words += 4 * width) {
    const int l = stage >> 1;
    const bool is_ffn = stage & 1, is_head = stage == 2 * plan.layers;
    if (stage == 2 && !is_head) {
      rows = rows_of(plan.products, block);
      describe_rows(plan, rows_table, groups, rows, false, thread, threads);
      consumers_sync<warps>();
    }
    const Rows stage_rows = is_head  ? rows_of(plan.logits, block)
                            : is_ffn ? rows_of(plan.ffn, plan.blocks - 1 - block)
                                     : rows;
    int first_product = 0, mixes_count = is_ffn ? 1 : 0;
    if (!is_ffn && !is_head && rows.count > 0) {
      first_product = rows_table[0] & product_mask;
      mixes_count = (rows_table[rows.count - 1] & product_mask) - first_product + 1;
    }
    const float *norm_weight = is_head ? a.ln_out_weight : vectors + (is_ffn ? ln2_weight : ln1_weight) * width;
    const float *norm_bias = is_head ? a.ln_out_bias : norm_weight + width;
    const float *mixes = vectors + (is_ffn ? static_cast<int>(ffn_mix) : first_mix + first_product) * width;
    const float *shift = reinterpret_cast<const float *>(from) + (is_ffn ? width : 0);

    // What does not depend on other blocks is asked for first.
    float2 weight[pairs], bias[pairs], before[pairs], mix[early_mixes][pairs];
#pragma unroll
    for (int i = 0; i < pairs; i++) {
      const int pair = thread + i * threads;
      if (pair >= half_width) continue;
      weight[i] = reinterpret_cast<const float2 *>(norm_weight)[pair];
      bias[i] = reinterpret_cast<const float2 *>(norm_bias)[pair];
      if (is_head) continue;
      before[i] = __ldcg(reinterpret_cast<const float2 *>(shift) + pair);
      mix[0][i] = reinterpret_cast<const float2 *>(mixes)[pair];
      // Behind the last mix are other vectors of the layer.
      if (early_mixes > 1) mix[early_mixes - 1][i] = reinterpret_cast<const float2 *>(mixes + width)[pair];
    }

    if (stage > 0) {
      const uint32_t count = is_ffn ? plan.heads : plan.blocks;
      ulonglong2 two[pairs];
      Spin spin;
      for (bool is_all_there = false; !is_all_there; spin.again()) {
        is_all_there = true;
#pragma unroll
        for (int i = 0; i < pairs; i++)
          if (thread + i * threads < half_width) two[i] = load_words(words + apart(2 * (thread + i * threads)));
#pragma unroll
        for (int i = 0; i < pairs; i++)
          if (thread + i * threads < half_width)
            is_all_there &= is_complete(two[i].x, count) && is_complete(two[i].y, count);
      }
#pragma unroll
      for (int i = 0; i < pairs; i++) {
        if (thread + i * threads >= half_width) continue;
        x[i].x += sum_of(two[i].x);
        x[i].y += sum_of(two[i].y);
      }
      __syncwarp();
    }

    const float2 norm = measure<warps>(x, plan.inverse_width, small + small_sums, warp, lane);
    ring.free_ended(is_freer, warps);
#pragma unroll
    for (int i = 0; i < pairs; i++) {
      const int pair = thread + i * threads;
      if (pair >= half_width) continue;
      const float2 h = normalise(x[i], norm, weight[i], bias[i]);
      float *to = mixed + spread(2 * pair);
      if (is_head) {
        *reinterpret_cast<float2 *>(to) = h;
        continue;
      }
      if (pair >= own_begin && pair < own_end) kept_shifts[(is_ffn ? 2 : l % 2) * most_own + pair - own_begin] = h;
      const float2 d{before[i].x - h.x, before[i].y - h.y};
      const auto put = [&](int m, float2 one) {
        *reinterpret_cast<float2 *>(to + m * plan.padded_width) =
            make_float2(fmaf(d.x, one.x, h.x), fmaf(d.y, one.y, h.y));
      };
      put(0, mix[0][i]);
      if (early_mixes > 1 && mixes_count > 1) put(1, mix[early_mixes - 1][i]);
#pragma unroll 1
      for (int m = early_mixes; m < mixes_count; m++) put(m, reinterpret_cast<const float2 *>(mixes + m * width)[pair]);
    }
    consumers_sync<warps>();

    // Rows of the stage, four at a time, taken by warps in turn.
    const int row_chunks = (stage_rows.count + plan.slot_rows - 1) >> plan.slot_shift;
    const bool is_long = row_chunks > plan.slots / 2;
    if (!is_head || a.logits != nullptr) {
      const bool has_products = !is_ffn && !is_head;
      const int count = has_products ? static_cast<int>(groups[0]) : (stage_rows.count + 3) / 4;
#pragma unroll 1
      for (int g = warp; g < count; g += warps) {
        int row = 4 * g, last = min(row + 4, stage_rows.count) - 1, slot = 0;
        if (has_products) {
          row = groups[1 + g] & ((1 << group_bits) - 1);
          last = groups[1 + g] >> group_bits;
          slot = (rows_table[row] & product_mask) - first_product;
        }
        if (is_long) ring.free_before(row >> plan.slot_shift);
        ring.wait(last >> plan.slot_shift);
        const float y = multiply_rows<eights>(plan, ring, row, last, mixed + slot * plan.padded_width, lane);
        const int mine = row + lane / 8;
        if (lane % 8 != 0 || mine > last) continue;
        if (is_head) {
          a.logits[stage_rows.begin + mine] = y;
        } else if (is_ffn) {
          const float positive = fmaxf(y, 0.0f);
          squares[mine] = positive * positive;
        } else {
          const uint32_t about = rows_table[mine];
          const int product = about & product_mask;
          publish(a.products + (about >> product_bits),
                  product == low_w   ? tanhf(y)
                  : product == low_g ? sigmoid(y)
                                     : y,
                  use + 1);
        }
      }
      ring.end_stage(row_chunks, is_long);
    }

    if (is_ffn) {
      // ---- ffn.value over the block's own inputs
      consumers_sync<warps>();
      ring.free_ended(is_freer, warps);
      float2 sum[pairs];
      int offset[pairs];
#pragma unroll
      for (int i = 0; i < pairs; i++) {
        sum[i] = make_float2(0, 0);
        offset[i] = min(thread + i * threads, half_width - 1) * 4;
      }
      int chunk = 0;
#pragma unroll 1
      for (int row = 0; row < stage_rows.count; row += plan.slot_rows, chunk++) {
        if (is_long) ring.free_before(chunk);
        ring.wait(chunk);
        const char *columns = shared + ring.at(chunk);
        const int last = min(plan.slot_rows, stage_rows.count - row) - 1;
        // Four at a time; the squares behind the last one are zeros.
#pragma unroll 2
        for (int n = 0; n <= last; n += 4) {
          const float4 four = *reinterpret_cast<const float4 *>(squares + row + n);
#pragma unroll
          for (int m = 0; m < 4; m++) {
            const float square = m == 0 ? four.x : m == 1 ? four.y : m == 2 ? four.z : four.w;
            const char *one = columns + min(n + m, last) * plan.row_bytes;
#pragma unroll
            for (int i = 0; i < pairs; i++) {
              const float2 w = pair_of(*reinterpret_cast<const uint32_t *>(one + offset[i]));
              sum[i].x = fmaf(square, w.x, sum[i].x);
              sum[i].y = fmaf(square, w.y, sum[i].y);
            }
          }
        }
      }
      // Lanes trade sums, so that neighbours add to neighbouring words: a warp then fills its sectors.
      uint64_t *to = sums + static_cast<size_t>(stage) * width * 4;
#pragma unroll
      for (int i = 0; i < pairs; i++) {
        const int first = 2 * (warp * 32 + i * threads);
        if (first >= width) continue;
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const float even = __shfl_sync(~0u, sum[i].x, half * 16 + lane / 2);
          const float odd = __shfl_sync(~0u, sum[i].y, half * 16 + lane / 2);
          contribute(to + apart(first + half * 32 + lane), lane % 2 ? odd : even);
        }
      }
      ring.end_stage(chunk, is_long);
      // Exchange 2 is over: the state may be overwritten.
      if (writes_columns) {
        char *at = state + wkv_at;
        if (is_half) {
#pragma unroll
          for (int n = 0; n < 8; n++)
            *reinterpret_cast<__half2 *>(at + n * head_size * 2) = __float22half2_rn(kept_columns[n * 32]);
        } else {
#pragma unroll
          for (int n = 0; n < 8; n++) *reinterpret_cast<float2 *>(at + n * head_size * 4) = kept_columns[n * 32];
        }
      }
      from += plan.layer_bytes;
      state += plan.layer_bytes;
      vectors += vectors_count * width;
      use++;
      continue;
    }

    // Exchange 3 of the layer before is over: its shifts may be overwritten.
    if (l > 0) {
#pragma unroll
      for (int i = 0; i < pairs; i++) {
        const int pair = thread + i * threads;
        if (pair < own_begin || pair >= own_end) continue;
        float2 *to = reinterpret_cast<float2 *>(state - plan.layer_bytes) + pair;
        to[0] = kept_shifts[(l - 1) % 2 * most_own + pair - own_begin];
        to[half_width] = kept_shifts[2 * most_own + pair - own_begin];
      }
    }
    if (is_head) break;
    if (!has_head) continue;

    // ---- the head's time mix
    float2 wkv[8];
    if (has_columns) {
      const char *at = from + wkv_at;
      if (is_half) {
#pragma unroll
        for (int n = 0; n < 8; n++)
          wkv[n] = __half22float2(__ldcg(reinterpret_cast<const __half2 *>(at + n * head_size * 2)));
      } else {
#pragma unroll
        for (int n = 0; n < 8; n++) wkv[n] = __ldcg(reinterpret_cast<const float2 *>(at + n * head_size * 4));
      }
    }
#pragma unroll 1
    for (int asked = thread; asked < (3 * head_size + plan.lows) / 2; asked += threads) {
      const int low = 2 * asked - 3 * head_size;
      const bool is_low = low >= 0;
      const int at = is_low ? 3 * width + low : warp * width + head * head_size + 2 * lane;
      const int v_begin = plan.ranks[0] + plan.ranks[1];
      float2 two{0, 0};
      if (l > 0 || low < v_begin || low >= v_begin + plan.ranks[2]) {
        ulonglong2 both = load_words(a.products + at);
        for (Spin spin;
             static_cast<uint32_t>(both.x >> 32) != use + 1 || static_cast<uint32_t>(both.y >> 32) != use + 1;
             spin.again())
          both = load_words(a.products + at);
        two =
            make_float2(__uint_as_float(static_cast<uint32_t>(both.x)), __uint_as_float(static_cast<uint32_t>(both.y)));
      }
      if (is_low) {
        const __half2 high = __float22half2_rn(two);
        const float2 rounded = __half22float2(high);
        const __half2 rest = __floats2half2_rn((two.x - rounded.x) * low_scale, (two.y - rounded.y) * low_scale);
        memcpy(hidden + low / 2, &high, 4);
        memcpy(hidden + plan.lows / 2 + low / 2, &rest, 4);
      } else {
        *reinterpret_cast<float2 *>(small + 2 * asked) = two;
      }
    }
    barrier_wait(head_full, l & 1);
    consumers_sync<warps>();
    ring.free_ended(is_freer, warps);

    if (warp == warps - 1) {
      const float2 k = reinterpret_cast<const float2 *>(small + small_key)[lane];
      const float2 scale = reinterpret_cast<const float2 *>(head_vectors + k_k * head_size)[lane];
      const float length = warp_sum(k.x * scale.x * (k.x * scale.x) + k.y * scale.y * (k.y * scale.y));
      if (lane == 0) small[small_scalars] = 1.0f / fmaxf(sqrtf(length), 1e-12f);
    }
    // Second low-rank products, by tiles of 16 of the 64 rows. Even columns of B are the high parts, odd ones the low
    // parts, so that each lane has both sums of rows lane / 4 and that plus 8.
#pragma unroll
    for (int t = 0; t < tiles; t++) {
      const int matrix = tile_matrix[t], rank = tile_rank[t], rows_of_head = (warp + t * warps) % 4 * 16;
      if (matrix < 0) continue;
      const char *at = head_matrices + tile_begin[t] * head_size * 2 + rows_of_head * rank * 2 + lane * 16;
      const uint32_t *b = hidden + (lane / 4 % 2) * (plan.lows / 2) + tile_begin[t] / 2 + lane % 4;
      float even[4] = {}, odd[4] = {};
#pragma unroll 2
      for (int k = 0; k < rank; k += 32, at += 1024, b += 16) {
        multiply_tile(even, load16(at), b[0], b[4]);
        multiply_tile(odd, load16(at + 512), b[8], b[12]);
      }
      const bool is_lower = lane % 4 == 1;
      const float high = is_lower ? even[2] + odd[2] : even[0] + odd[0];
      const float low = is_lower ? even[3] + odd[3] : even[1] + odd[1];
      const float u = high + low * (1.0f / low_scale);
      const int channel = rows_of_head + lane / 4 + (is_lower ? 8 : 0);
      if (lane % 4 > 1) continue;
      if (matrix == 3) {
        small[small_gate + channel] = u;
        continue;
      }
      const float gate = sigmoid(u + head_vectors[(base_w + matrix) * head_size + channel]);
      if (matrix == 0) small[small_decay + channel] = __expf(-0.60653065971263342f * gate);
      if (matrix == 1) small[small_rate + channel] = gate;
      if (matrix == 2) {
        const float v = small[small_value + channel], v_first = small[small_first_value + channel];
        if (l == 0)
          small[small_first_value + channel] = v;
        else
          small[small_value + channel] = v + (v_first - v) * gate;
      }
    }
    consumers_sync<warps>();

    // S = S diag(w) + (S (-kk)) (kk a)^T + v k^T; y = S r. Lanes with the same columns share the keys.
    if (has_columns) {
      const float inverse = small[small_scalars];
      float kk[8], k[8], r[8], rate[8], decay[8], scale[8];
      float2 removed{0, 0};
      load8(small + small_key + keys, k);
      load8(head_vectors + k_k * head_size + keys, kk);
      load8(small + small_rate + keys, rate);
      load8(small + small_decay + keys, decay);
#pragma unroll
      for (int n = 0; n < 8; n++) {
        kk[n] *= k[n] * inverse;
        removed.x = fmaf(-wkv[n].x, kk[n], removed.x);
        removed.y = fmaf(-wkv[n].y, kk[n], removed.y);
      }
#pragma unroll
      for (int distance = 4; distance < 32; distance <<= 1) {
        removed.x += __shfl_xor_sync(~0u, removed.x, distance);
        removed.y += __shfl_xor_sync(~0u, removed.y, distance);
      }
      const float2 v = *reinterpret_cast<const float2 *>(small + small_value + column);
      load8(head_vectors + k_a * head_size + keys, scale);
      load8(small + small_receptance + keys, r);
      float2 y{0, 0};
#pragma unroll
      for (int n = 0; n < 8; n++) {
        k[n] *= fmaf(rate[n] - 1, scale[n], 1.0f);
        kk[n] *= rate[n];
        wkv[n].x = fmaf(wkv[n].x, decay[n], fmaf(removed.x, kk[n], v.x * k[n]));
        wkv[n].y = fmaf(wkv[n].y, decay[n], fmaf(removed.y, kk[n], v.y * k[n]));
        y.x = fmaf(wkv[n].x, r[n], y.x);
        y.y = fmaf(wkv[n].y, r[n], y.y);
      }
      load8(head_vectors + r_k * head_size + keys, scale);
      float bonus = 0;
#pragma unroll
      for (int n = 0; n < 8; n++) bonus = fmaf(r[n] * k[n], scale[n], bonus);
#pragma unroll
      for (int distance = 4; distance < 32; distance <<= 1) {
        y.x += __shfl_xor_sync(~0u, y.x, distance);
        y.y += __shfl_xor_sync(~0u, y.y, distance);
        bonus += __shfl_xor_sync(~0u, bonus, distance);
      }
      if (writes_columns) {
#pragma unroll
        for (int n = 0; n < 8; n++) kept_columns[n * 32] = wkv[n];
      }
      if (lane < 4) *reinterpret_cast<float2 *>(small + small_wkv + column) = y;
      if (thread == 0) small[small_scalars + 1] = bonus;
    }
    consumers_sync<warps>();

    // o = (group_norm(y) ln_x.w + ln_x.b + bonus v) g, eight channels a lane; then att.output over these 64 inputs.
    const int channels = 8 * (lane % 8);
    float out[8];
    {
      float one[8], sum = 0, variance = 0;
      load8(small + small_wkv + channels, out);
#pragma unroll
      for (int n = 0; n < 8; n++) sum += out[n];
#pragma unroll
      for (int distance = 1; distance < 8; distance <<= 1) sum += __shfl_xor_sync(~0u, sum, distance);
      const float mean = sum / head_size, bonus = small[small_scalars + 1];
#pragma unroll
      for (int n = 0; n < 8; n++) {
        out[n] -= mean;
        variance = fmaf(out[n], out[n], variance);
      }
#pragma unroll
      for (int distance = 1; distance < 8; distance <<= 1) variance += __shfl_xor_sync(~0u, variance, distance);
      const float scale = rsqrtf(variance / head_size + 64e-5f);
      load8(head_vectors + ln_x_weight * head_size + channels, one);
#pragma unroll
      for (int n = 0; n < 8; n++) out[n] *= scale * one[n];
      load8(head_vectors + ln_x_bias * head_size + channels, one);
#pragma unroll
      for (int n = 0; n < 8; n++) out[n] += one[n];
      load8(small + small_value + channels, one);
#pragma unroll
      for (int n = 0; n < 8; n++) out[n] = fmaf(bonus, one[n], out[n]);
      load8(small + small_gate + channels, one);
#pragma unroll
      for (int n = 0; n < 8; n++) out[n] *= one[n];
    }
    const float4 low{out[0], out[1], out[2], out[3]}, high{out[4], out[5], out[6], out[7]};
    uint64_t *to = sums + static_cast<size_t>(stage) * width * 4;
    const bool out_is_long = out_chunks > plan.slots / 2;
#pragma unroll 1
    for (int row = warp * 8; row < out_count; row += warps * 8) {
      const int chunk = divide(row, plan.slot_outputs_inverse);
      if (out_is_long) ring.free_before(chunk);
      ring.wait(chunk);
      const char *first = shared + ring.at(chunk) - chunk * plan.slot_outputs * head_size * 2 + channels * 2;
      const int mine[2] = {row + lane / 8, row + 4 + lane / 8};
      float both[2];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const float2 halves =
            dot(load16(first + min(mine[i], out_count - 1) * head_size * 2), low, high, make_float2(0, 0));
        both[i] = halves.x + halves.y;
      }
#pragma unroll
      for (int distance = 1; distance < 8; distance <<= 1)
#pragma unroll
        for (int i = 0; i < 2; i++) both[i] += __shfl_xor_sync(~0u, both[i], distance);
      const int target = lane % 8 == 0 ? mine[0] : mine[1];
      if (lane % 8 < 2 && target < out_count)
        contribute(to + apart(out_begin + target), lane % 8 == 0 ? both[0] : both[1]);
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(head_empty);
    ring.end_stage(out_chunks, out_is_long);
  }
  // All blocks have read the number of the step: they took part in the last exchange.
  if (block == 0 && thread == 0) *a.step = step + 1;
}

#endif

template <int warps, int pairs, int eights>
__global__ void __launch_bounds__(warps * 32 + 64, 1) stream_token(const __grid_constant__ Arguments a) {
#if __CUDA_ARCH__ >= 900
  const Plan &plan = a.plan;
  const uint32_t barriers = shared_address(shared + plan.at_barriers);
  const RingShape ring{barriers, barriers + 8 * plan.slots, plan.slots, most_in_flight,
                       static_cast<uint32_t>(plan.slot_bytes)};
  const uint32_t head_full = barriers + 16 * plan.slots, head_empty = head_full + 8;
  if (threadIdx.x == 0) {
    for (int i = 0; i < plan.slots; i++) {
      barrier_init(ring.full + 8 * i, 1);
      barrier_init(ring.empty + 8 * i, warps);
    }
    barrier_init(head_full, 1);
    barrier_init(head_empty, warps);
    barrier_init_done();
  }
  __syncthreads();
  const uint32_t step = __ldcg(a.step);
  uint64_t *sums = a.sums + step % 2 * a.sums_count, *old_sums = a.sums + (step + 1) % 2 * a.sums_count;
  const int warp = static_cast<int>(threadIdx.x / 32);
  if (warp == warps) {
    if (threadIdx.x % 32 == 0) stream_weights(a, shared_address(shared), ring);
  } else if (warp == warps + 1) {
    stream_heads(a, shared_address(shared + plan.at_head), head_full, head_empty, old_sums);
  } else {
    Consumer consumer{ring};
    consume<warps, pairs, eights>(a, consumer, head_full, head_empty, step, sums);
  }
#endif
}

using Kernel = void (*)(Arguments);
Kernel kernel_of(const ShapeClass &shape_class) {
  if (shape_class.pairs == 2) return stream_token<8, 2, 4>;
  if (shape_class.warps == 8) return stream_token<8, 4, 8>;
  return stream_token<12, 4, 12>;
}

// ---- packing

struct PackedLayer {
  Matrix second[4];  // w2, a2, v2 (empty in layer 0), g2
  Matrix output;
  const float *vectors[vectors_count], *head_vectors[head_vectors_count];  // NULL: zeros
};

__global__ void pack_layer(const __grid_constant__ PackedLayer layer, Plan plan, int64_t l, char *packed) {
  const int64_t first = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x, width = plan.width;
  float *vectors = reinterpret_cast<float *>(packed + plan.packed_vectors) + l * vectors_count * width;
  for (int64_t i = first; i < vectors_count * width; i += stride) vectors[i] = layer.vectors[i / width][i % width];

  char *heads = packed + plan.packed_heads + l * plan.heads * plan.head_bytes;
  int before = 0;
#pragma unroll
  for (int m = 0; m < 4; m++) {
    const int64_t rank = plan.ranks[m];
    for (int64_t i = first; i < width * rank; i += stride) {
      const int64_t channel = i / rank, head = channel / head_size, row = channel % head_size, k = i % rank;
      __half *to = reinterpret_cast<__half *>(heads + head * plan.head_bytes) + before * head_size;
      // Tiles of 16 x 16, a lane's operand of mma.m16n8k16 in consecutive bytes.
      const int64_t tile = row / 16 * (rank / 16) + k / 16, lane = row % 8 * 4 + k % 8 / 2;
      to[tile * 256 + lane * 8 + k % 16 / 8 * 4 + row % 16 / 8 * 2 + k % 2] =
          layer.second[m].values == nullptr ? __half(0) : static_cast<const __half *>(layer.second[m].values)[i];
    }
    before += plan.ranks[m];
  }
  for (int64_t i = first; i < head_vectors_count * width; i += stride) {
    const int64_t vector = i / width, channel = i % width, head = channel / head_size;
    float *to = reinterpret_cast<float *>(heads + head * plan.head_bytes + head_size * 2 * plan.lows);
    to[vector * head_size + channel % head_size] =
        layer.head_vectors[vector] == nullptr ? 0.0f : layer.head_vectors[vector][channel];
  }
  // [head][output][64 inputs]
  const uint32_t *from = static_cast<const uint32_t *>(layer.output.values);
  uint32_t *to = reinterpret_cast<uint32_t *>(packed + plan.packed_output) + l * width * width / 2;
  for (int64_t i = first; i < width * width / 2; i += stride) {
    const int64_t output = i / (width / 2), pair = i % (width / 2);
    to[(pair / 32 * width + output) * 32 + pair % 32] = from[i];
  }
}

bool is_plain(const Matrix &m, Order order) { return m.format == Format::f16 && m.order == order; }

}  // namespace

bool stream_fits(const Device &device, const DeviceShape &s, const Weights &weights) {
  if (device.major < 9 || s.head_size != head_size || s.width != s.heads * head_size) return false;
  if (s.width > 3072 || s.heads > device.processors || device.processors > most_blocks) return false;
  if (s.ffn_width > (1 << 20) || s.vocab_size > (1 << 20)) return false;
  for (const int64_t rank : {s.rank_w, s.rank_a, s.rank_v, s.rank_g})
    if (rank <= 0 || rank % 32 != 0 || rank > 1024) return false;
  const Plan plan = make_plan(s, device.processors, device.shared_bytes);
  if (plan.slots < 4 || plan.slots * plan.slot_bytes < least_ring_bytes) return false;
  if (!is_plain(weights.head, Order::rows)) return false;
  const Format embedding = weights.embedding.format;
  if (embedding != Format::f32 && embedding != Format::f16 && embedding != Format::bf16) return false;
  for (int64_t l = 0; l < s.layers; l++) {
    const Layer &layer = weights.layers[l];
    for (const Matrix *m : {&layer.receptance, &layer.key, &layer.value, &layer.output, &layer.w1, &layer.a1, &layer.g1,
                            &layer.w2, &layer.a2, &layer.g2, &layer.ffn_key})
      if (!is_plain(*m, Order::rows)) return false;
    if (l > 0 && (!is_plain(layer.v1, Order::rows) || !is_plain(layer.v2, Order::rows))) return false;
    if (!is_plain(layer.ffn_value, Order::columns)) return false;
  }
  return true;
}

size_t stream_packed_bytes(const DeviceShape &shape) { return make_plan(shape, 132, 1 << 17).packed_bytes; }

cudaError_t stream_pack(cudaStream_t stream, const Device &device, const DeviceShape &shape, const Weights &weights,
                        void *packed) {
  const Plan plan = make_plan(shape, device.processors, device.shared_bytes);
  std::vector<LayerMatrices> matrices;
  for (int64_t l = 0; l < shape.layers; l++) {
    const Layer &w = weights.layers[l];
    const auto at = [](const Matrix &m) { return static_cast<const char *>(m.values); };
    matrices.push_back({{at(w.receptance), at(w.key), at(w.value), at(w.w1), at(w.a1), at(w.v1), at(w.g1)},
                        at(w.ffn_key),
                        at(w.ffn_value)});
    const PackedLayer layer{{w.w2, w.a2, l == 0 ? Matrix{} : w.v2, w.g2},
                            w.output,
                            {w.ln1_weight, w.ln1_bias, w.x_r, w.x_k, w.x_v, w.x_w, w.x_a, w.x_v, w.x_g, w.ln2_weight,
                             w.ln2_bias, w.ffn_x_k},
                            {w.w0, w.a0, l == 0 ? nullptr : w.v0, w.k_k, w.k_a, w.r_k, w.ln_x_weight, w.ln_x_bias}};
    pack_layer<<<512, 256, 0, stream>>>(layer, plan, l, static_cast<char *>(packed));
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  }
  // From pageable memory: the host's copy is taken before this returns.
  return cudaMemcpyAsync(packed, matrices.data(), matrices.size() * sizeof(LayerMatrices), cudaMemcpyHostToDevice,
                         stream);
}

size_t stream_workspace_bytes(const DeviceShape &shape) {
  const Plan plan = make_plan(shape, 132, 1 << 17);
  return counter_bytes + (words_of_products(plan) + 2 * words_of_sums(plan)) * sizeof(uint64_t);
}

cudaError_t stream_forward(cudaStream_t stream, const Device &device, const DeviceShape &shape,
                           const StateShape &states, const Weights &weights, const void *packed, const Batch &batch,
                           void *workspace) {
  const Plan plan = make_plan(shape, device.processors, device.shared_bytes);
  const ShapeClass shape_class = class_of(plan.width);
  const Kernel kernel = kernel_of(shape_class);
  uint64_t *words = reinterpret_cast<uint64_t *>(static_cast<char *>(workspace) + counter_bytes);
  Arguments arguments{plan,
                      states,
                      weights.embedding,
                      weights.ln0_weight,
                      weights.ln0_bias,
                      weights.ln_out_weight,
                      weights.ln_out_bias,
                      static_cast<const char *>(weights.head.values),
                      static_cast<const char *>(packed),
                      batch.tokens,
                      batch.segments,
                      batch.logits_count > 0 ? batch.logits : nullptr,
                      static_cast<uint32_t *>(workspace),
                      words,
                      words + words_of_products(plan),
                      words_of_sums(plan)};
  arguments.plan.layer_bytes = static_cast<uint32_t>(states.layer_bytes());
  arguments.plan.wkv_bytes = static_cast<uint32_t>(states.wkv(0));
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared_bytes);
      error != cudaSuccess)
    return error;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(plan.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape_class.warps * 32 + 64));
  config.dynamicSmemBytes = static_cast<size_t>(plan.shared_bytes);
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, arguments);
}

}  // namespace libwkv::cuda
