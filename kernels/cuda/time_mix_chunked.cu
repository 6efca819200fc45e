// SPDX-License-Identifier: Apache-2.0
// The recurrence of long segments, 16 rows at a time on tensor cores, for heads of 64.
//
// With D_t the product of a chunk's decays up to row t, S_0 the state before the chunk (keys x values), and
//   A_t = -kk_t D_(t-1)   R_t = r_t D_t   B_t = b_t / D_t   K_t = k_t / D_t   (rows of 64; b = kk * a)
// the recurrence S_t = diag(w_t) S_(t-1) - b_t (kk_t^T S_(t-1)) + k_t v_t^T unrolls to
//   U = A S_0 + lower(A B^T) U + lower(A K^T) V            what each row removes; lower: strictly below the diagonal
//   Y = R S_0 + low(R B^T) U + low(R K^T) V                low: with the diagonal
//   S = diag(D_16) (S_0 + B^T U + K^T V).
// All but S_0, U and Y is independent of the state, so that
//   U = W S_0 + P V   with   (I - lower(A B^T)) [W P] = [A lower(A K^T)]
// leaves 5 small products per chunk for the only part that is sequential. The system is solved by forward
// substitution in fp32: powers of the matrix, which would replace it, reach thousands when keys repeat.
//
// D falls to 0.5452^16 = 6e-5 and 1 / D rises to 16,000: bf16 has the range. Its 8 bits are doubled by splitting each
// operand in two parts, x = high + low, and dropping low * low: products are right to about 5e-6.
//
// A block works on one head of one segment. Its four state warps own 16 value columns each and keep S^T in registers in
// the layout of accumulators, which is that of the next product's operand as well. Its other warps take turns with the
// chunks: each prepares a chunk in a stage of its own, waits for its Y, turns that into the output, and goes on.
#include <algorithm>
#include <cmath>
#include <cstddef>

#include <cuda_bf16.h>

#include "kernels/cuda/time_mix_common.cuh"

namespace libwkv::cuda::mixing {
namespace {

constexpr int chunk_rows = 16, state_warps = head_size / 16, most_stages = 7;

// Rows are padded so that the 8 rows which ldmatrix reads at once start in different banks.
constexpr int row_words = head_size / 2 + 4, square_words = chunk_rows / 2 + 4, y_stride = head_size + 4;
constexpr int square_stride = chunk_rows + 4;

// Two bf16 in a word; [0] is the high part, [1] the low one.
using RowParts = uint32_t[2][chunk_rows][row_words];

// A chunk on its way from a preparing warp to the state warps and, as y, to the warp that finishes it.
struct __align__(16) Stage {
  RowParts removal;                                     // A, then W
  RowParts receptance;                                  // R
  RowParts rate;                                        // B
  RowParts key;                                         // K
  RowParts value;                                       // V
  uint32_t pull[2][chunk_rows][square_words];           // P
  uint4 receptance_rate[2][32], receptance_key[2][32];  // low(R B^T), low(R K^T): fragments, a lane's words together
  float decay[head_size];                               // D of the last row
  float bonus[chunk_rows];                              // sum_j r k r_k
  union {                                               // what is not for other blocks
    float y[chunk_rows][y_stride];
    float squares[2][chunk_rows][square_stride];  // lower(A B^T), lower(A K^T)
    float bonus_parts[chunk_rows][33];            // of the lanes; 33: columns are read
  };
};

// The chunks of a segment: at most 16 rows, cut where a snapshot is wanted.
struct Walk {
  int begin, end, last, snapshot, snapshots_end;

  __device__ explicit Walk(const Segment &segment)
      : begin(segment.begin),
        end(segment.begin),
        last(segment.end),
        snapshot(segment.snapshots),
        snapshots_end(segment.snapshots + segment.snapshots_count) {}

  // False when there is none left. `snapshot` is then the first one of this chunk.
  __device__ bool next(const Snapshot *snapshots) {
    begin = end;
    if (begin >= last) return false;
    while (snapshot < snapshots_end && snapshots[snapshot].row < begin) ++snapshot;
    end = min(begin + chunk_rows, last);
    if (snapshot < snapshots_end) end = min(end, snapshots[snapshot].row + 1);
    return true;
  }

  __device__ void skip(int chunks, const Snapshot *snapshots) {
    for (; chunks > 0 && snapshot < snapshots_end; --chunks) {
      if (!next(snapshots)) return;
    }
    end += chunks * chunk_rows;
  }
};

struct Split {
  uint32_t high, low;
};

__device__ uint32_t pack(float x, float y) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
  return *reinterpret_cast<const uint32_t *>(&pair);
}
__device__ float first_of(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ float second_of(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ Split split(float x, float y) {
  const uint32_t high = pack(x, y);
  return {high, pack(x - first_of(high), y - second_of(high))};
}

__device__ void store_split(RowParts &to, int row, int lane, float x, float y) {
  const Split parts = split(x, y);
  to[0][row][lane] = parts.high;
  to[1][row][lane] = parts.low;
}

__device__ float2 load_split(const RowParts &from, int row, int lane) {
  const uint32_t high = from[0][row][lane], low = from[1][row][lane];
  return make_float2(first_of(high) + first_of(low), second_of(high) + second_of(low));
}

// Four 8 x 8 matrices from 16 rows of 16 columns; `at` is this lane's row of 8 columns. Their order is the order of the
// lanes' addresses (below), and is chosen so that an operand's words come in neighbouring registers.
__device__ void load_matrices(uint32_t (&to)[4], const uint32_t *at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(at)))
               : "memory");
}

__device__ void load_transposed(uint32_t (&to)[4], const uint32_t *at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(at)))
               : "memory");
}

// Words from the first of 16 rows of `words` to a lane's address: rows 0 to 7 and 8 to 15 of the first columns, then of
// the others; or the first columns and the others of rows 0 to 7, then of 8 to 15.
__device__ int down_first(int lane, int words) { return lane % 16 * words + lane / 16 * 4; }
__device__ int across_first(int lane, int words) { return (lane / 16 * 8 + lane % 8) * words + lane / 8 % 2 * 4; }

// sums[16][8] += a[16][16] b[16][8]. Lane 4 g + q holds of the sums rows g (0, 1) and g + 8 (2, 3) at columns 2 q and
// 2 q + 1; of a rows g, g + 8, g, g + 8 at columns 2 q, 2 q, 2 q + 8, 2 q + 8 (and one more); of b rows 2 q and 2 q + 8
// (and one more) at column g.
__device__ void multiply(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// Meetings of a preparing warp with the state warps, at barriers 1 to 7 (a stage is full) and 8 to 14 (its y is there).
constexpr int meeting_threads = 32 * (state_warps + 1);
__device__ int full_barrier(int stage) { return 1 + stage; }
__device__ int done_barrier(int stage) { return 1 + most_stages + stage; }
__device__ void arrive(int barrier) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "n"(meeting_threads) : "memory");
}
__device__ void meet(int barrier) { asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(meeting_threads) : "memory"); }

// Sums 16 numbers over the warp: lane l gets the sum of numbers[l % 16]. Each step gives half of the numbers away and
// keeps the other half, so that 16 shuffles do what 80 would.
template <int half>
__device__ void fold(float (&numbers)[chunk_rows], int lane) {
  const bool is_upper = lane & half;
#pragma unroll
  for (int i = 0; i < half; ++i) {
    const float kept = is_upper ? numbers[i + half] : numbers[i], given = is_upper ? numbers[i] : numbers[i + half];
    numbers[i] = kept + __shfl_xor_sync(~0u, given, half);
  }
}

__device__ float sum_each(float (&numbers)[chunk_rows], int lane) {
  fold<8>(numbers, lane);
  fold<4>(numbers, lane);
  fold<2>(numbers, lane);
  fold<1>(numbers, lane);
  return numbers[0] + __shfl_xor_sync(~0u, numbers[0], 16);
}

// What a preparing warp knows of its head: two channels a lane, 2 * lane and the next.
struct Channels {
  int first;          // this lane's first channel, in a row
  float2 w0, a0, v0;  // times logistic_scale
  float2 k_k, k_a, r_k;
};

template <bool is_first_layer>
__device__ Channels load_channels(const Arguments &arguments, int first) {
  const auto scaled = [](float2 x) { return make_float2(x.x * logistic_scale, x.y * logistic_scale); };
  Channels channels;
  channels.first = first;
  channels.w0 = scaled(load_pair(arguments.w0 + first));
  channels.a0 = scaled(load_pair(arguments.a0 + first));
  channels.v0 = is_first_layer ? make_float2(0, 0) : scaled(load_pair(arguments.v0 + first));
  channels.k_k = load_pair(arguments.k_k + first);
  channels.k_a = load_pair(arguments.k_a + first);
  channels.r_k = load_pair(arguments.r_k + first);
  return channels;
}

struct RawRow {
  float2 receptance, key, value, w, a, v, first_value;
};

// Row t of a chunk of `count` rows, of which `at` is the first number; a row behind changes nothing: k = v = r = kk = 0
// and w = 1.
template <bool is_first_layer>
__device__ RawRow load_row(const TimeMixRows &rows, int at, int width, int t, int count) {
  RawRow raw;
  if (t >= count) {
    raw.receptance = raw.key = raw.value = raw.a = raw.v = raw.first_value = make_float2(0, 0);
    raw.w = make_float2(-INFINITY, -INFINITY);
    return raw;
  }
  at += t * width;
  raw.receptance = load_pair(rows.receptance + at);
  raw.key = load_pair(rows.key + at);
  raw.value = load_pair(rows.value + at);
  raw.w = load_pair(rows.w + at);
  raw.a = load_pair(rows.a + at);
  if (!is_first_layer) {
    raw.v = load_pair(rows.v + at);
    raw.first_value = load_pair(rows.first_value + at);
  }
  return raw;
}

// Asks for the rows that this warp wants next to be brought to L2: a lane has 128 bytes of a row.
__device__ void prefetch_rows(const Arguments &arguments, int begin, int last, int head, int lane) {
  const int row = begin + lane / 2;
  if (row >= last) return;
  const int64_t at = row * arguments.width + head * head_size + lane % 2 * 32;
  const TimeMixRows &rows = arguments.rows;
  const auto prefetch = [&](const float *from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at)); };
  prefetch(rows.receptance);
  prefetch(rows.key);
  prefetch(rows.value);
  prefetch(rows.w);
  prefetch(rows.a);
  prefetch(rows.g);
  if (arguments.is_first_layer) return;
  prefetch(rows.v);
  prefetch(rows.first_value);
}

// Fills A, R, B, K, V and D of a stage, and every lane's part of each row's bonus sum_j r k r_k.
template <bool is_first_layer>
__device__ void prepare_rows(const Arguments &arguments, const Channels &channels, Stage &stage, int begin, int count,
                             int lane) {
  const TimeMixRows &rows = arguments.rows;
  const int width = static_cast<int>(arguments.width), at = begin * width + channels.first;
  float squares[chunk_rows];
#pragma unroll
  for (int t = 0; t < chunk_rows; ++t) {
    const float2 k = load_pair(rows.key + at + min(t, count - 1) * width);
    const float2 kk = make_float2(k.x * channels.k_k.x, k.y * channels.k_k.y);
    squares[t] = kk.x * kk.x + kk.y * kk.y;
  }
  const float inverse_norms = inverse_root(sum_each(squares, lane));

  constexpr int group = 2;
  float exponents[2] = {}, decays[2] = {1, 1};  // log2 D and D
  RawRow next[group];
#pragma unroll
  for (int i = 0; i < group; ++i) next[i] = load_row<is_first_layer>(rows, at, width, i, count);
#pragma unroll 1
  for (int first = 0; first < chunk_rows; first += group) {
    RawRow now[group];
#pragma unroll
    for (int i = 0; i < group; ++i) now[i] = next[i];
    if (first + group < chunk_rows) {
#pragma unroll
      for (int i = 0; i < group; ++i) {
        next[i] = load_row<is_first_layer>(rows, at, width, first + group + i, count);
      }
    }
#pragma unroll
    for (int i = 0; i < group; ++i) {
      const int t = first + i;
      const RawRow &raw = now[i];
      const float inverse_norm = __shfl_sync(~0u, inverse_norms, t);
      if (is_first_layer && t < count) {
        *reinterpret_cast<float2 *>(rows.first_value + at + t * width) = raw.value;
      }
      float removal[2], receptance[2], rate[2], key[2], value[2], bonus = 0;
      // One channel, c of the two.
      const auto channel = [&](int c, float r, float k, float v, float w, float a, float mix, float first_value,
                               float w0, float a0, float v0, float k_k, float k_a, float r_k) {
        const float removal_rate = scaled_sigmoid(a * logistic_scale + a0), kk = k * k_k * inverse_norm;
        removal[c] = -kk * decays[c];
        exponents[c] += decay_scale * scaled_sigmoid(w * logistic_scale + w0);
        decays[c] = power_of_two(exponents[c]);
        const float inverse = power_of_two(-exponents[c]), new_key = k * ((removal_rate - 1.f) * k_a + 1.f);
        rate[c] = kk * removal_rate * inverse;
        key[c] = new_key * inverse;
        receptance[c] = r * decays[c];
        value[c] = is_first_layer ? v : (first_value - v) * scaled_sigmoid(mix * logistic_scale + v0) + v;
        bonus += r * new_key * r_k;
      };
      channel(0, raw.receptance.x, raw.key.x, raw.value.x, raw.w.x, raw.a.x, raw.v.x, raw.first_value.x, channels.w0.x,
              channels.a0.x, channels.v0.x, channels.k_k.x, channels.k_a.x, channels.r_k.x);
      channel(1, raw.receptance.y, raw.key.y, raw.value.y, raw.w.y, raw.a.y, raw.v.y, raw.first_value.y, channels.w0.y,
              channels.a0.y, channels.v0.y, channels.k_k.y, channels.k_a.y, channels.r_k.y);
      store_split(stage.removal, t, lane, removal[0], removal[1]);
      store_split(stage.receptance, t, lane, receptance[0], receptance[1]);
      store_split(stage.rate, t, lane, rate[0], rate[1]);
      store_split(stage.key, t, lane, key[0], key[1]);
      store_split(stage.value, t, lane, value[0], value[1]);
      stage.bonus_parts[t][lane] = bonus;
    }
  }
  *reinterpret_cast<float2 *>(&stage.decay[2 * lane]) = make_float2(decays[0], decays[1]);
}

__device__ void sum_bonus(Stage &stage, int lane) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 16; ++i) sum += stage.bonus_parts[lane % 16][lane / 16 * 16 + i];
  sum += __shfl_xor_sync(~0u, sum, 16);
  if (lane < 16) stage.bonus[lane] = sum;
}

// The products of a chunk with itself, and W and P in the place of A.
__device__ void prepare_squares(Stage &stage, int lane) {
  const int group = lane / 4, quad = lane % 4;
  const int down = down_first(lane, row_words), across = across_first(lane, row_words);
  // [half of the columns]: of A B^T, A K^T, R B^T and R K^T
  float removal_rate[2][4] = {}, removal_key[2][4] = {}, receptance_rate[2][4] = {}, receptance_key[2][4] = {};
#pragma unroll 1
  for (int words = 0; words < head_size / 2; words += 8) {
    uint32_t removal[2][4], receptance[2][4], rate[2][4], key[2][4];
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      load_matrices(removal[part], stage.removal[part][0] + down + words);
      load_matrices(receptance[part], stage.receptance[part][0] + down + words);
      load_matrices(rate[part], stage.rate[part][0] + across + words);
      load_matrices(key[part], stage.key[part][0] + across + words);
    }
#pragma unroll
    for (int product = 0; product < 3; ++product) {  // low * high, high * low, high * high
      const int left = product == 0, right = product == 1;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        multiply(removal_rate[half], removal[left], rate[right][2 * half], rate[right][2 * half + 1]);
        multiply(removal_key[half], removal[left], key[right][2 * half], key[right][2 * half + 1]);
        multiply(receptance_rate[half], receptance[left], rate[right][2 * half], rate[right][2 * half + 1]);
        multiply(receptance_key[half], receptance[left], key[right][2 * half], key[right][2 * half + 1]);
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = group + i / 2 * 8, column = half * 8 + quad * 2 + i % 2;
      if (column >= row) removal_rate[half][i] = removal_key[half][i] = 0;
      if (column > row) receptance_rate[half][i] = receptance_key[half][i] = 0;
    }
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      const int row = group + lower * 8, column = half * 8 + quad * 2;
      *reinterpret_cast<float2 *>(&stage.squares[0][row][column]) =
          make_float2(removal_rate[half][2 * lower], removal_rate[half][2 * lower + 1]);
      *reinterpret_cast<float2 *>(&stage.squares[1][row][column]) =
          make_float2(removal_key[half][2 * lower], removal_key[half][2 * lower + 1]);
    }
  }
  // Transposed, a sum's place is an operand's: word 2 * i + half has rows 8 * i + group, columns 8 * half + 2 * quad.
  const auto store_fragment = [&](uint4(&to)[2][32], const float(&sums)[2][4]) {
    const Split parts[4] = {split(sums[0][0], sums[0][1]), split(sums[1][0], sums[1][1]), split(sums[0][2], sums[0][3]),
                            split(sums[1][2], sums[1][3])};
    to[0][lane] = make_uint4(parts[0].high, parts[1].high, parts[2].high, parts[3].high);
    to[1][lane] = make_uint4(parts[0].low, parts[1].low, parts[2].low, parts[3].low);
  };
  store_fragment(stage.receptance_rate, receptance_rate);
  store_fragment(stage.receptance_key, receptance_key);
  __syncwarp();

  // Forward substitution, two columns of W and one of P a lane.
  float2 w[chunk_rows];
  float p[chunk_rows];
#pragma unroll
  for (int t = 0; t < chunk_rows; ++t) {
    float2 sum = load_split(stage.removal, t, lane);
    float pull = stage.squares[1][t][lane % 16];
#pragma unroll
    for (int first = 0; first < t; first += 4) {
      const float4 factors = *reinterpret_cast<const float4 *>(&stage.squares[0][t][first]);
      const float factor[4] = {factors.x, factors.y, factors.z, factors.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (first + i >= t) continue;
        sum.x += factor[i] * w[first + i].x;
        sum.y += factor[i] * w[first + i].y;
        pull += factor[i] * p[first + i];
      }
    }
    w[t] = sum;
    p[t] = pull;
    store_split(stage.removal, t, lane, sum.x, sum.y);  // a lane takes the place of what it alone read
  }
  // P by rows: a lane has a column, and its neighbour the other half of the word.
#pragma unroll
  for (int t = 0; t < chunk_rows; ++t) {
    const Split parts = split(p[t], __shfl_down_sync(~0u, p[t], 1));
    if (lane < 16 && lane % 2 == 0) {
      stage.pull[0][t][lane / 2] = parts.high;
      stage.pull[1][t][lane / 2] = parts.low;
    }
  }
}

// All that a chunk's stage has for the state warps.
template <bool is_first_layer>
__device__ void prepare_chunk(const Arguments &arguments, const Channels &channels, Stage &stage, int begin, int count,
                              int lane) {
  prepare_rows<is_first_layer>(arguments, channels, stage, begin, count, lane);
  __syncwarp();
  sum_bonus(stage, lane);
  __syncwarp();
  prepare_squares(stage, lane);
}

// What finishing wants from global memory, asked for before y is there.
struct Gates {
  float2 rows[chunk_rows], norm_weight, norm_bias;
};

__device__ Gates load_gates(const Arguments &arguments, int channel, int begin, int count) {
  const int width = static_cast<int>(arguments.width), at = begin * width + channel;
  Gates gates;
#pragma unroll
  for (int t = 0; t < chunk_rows; ++t) gates.rows[t] = load_pair(arguments.rows.g + at + min(t, count - 1) * width);
  gates.norm_weight = load_pair(arguments.norm_weight + channel);
  gates.norm_bias = load_pair(arguments.norm_bias + channel);
  return gates;
}

// Group norm, bonus and gate of a chunk's y.
__device__ void finish_chunk(const Arguments &arguments, const Stage &stage, const Gates &gates, int channel, int begin,
                             int count, int lane) {
  // A lane has half a row.
  const float *half_row = &stage.y[lane % 16][lane / 16 * 32];
  float4 y[8];
  float sum = 0, squares = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    y[i] = *reinterpret_cast<const float4 *>(half_row + 4 * i);
    sum += y[i].x + y[i].y + (y[i].z + y[i].w);
  }
  const float mean = (sum + __shfl_xor_sync(~0u, sum, 16)) / head_size;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float4 d = make_float4(y[i].x - mean, y[i].y - mean, y[i].z - mean, y[i].w - mean);
    squares += d.x * d.x + d.y * d.y + (d.z * d.z + d.w * d.w);
  }
  const float variance = (squares + __shfl_xor_sync(~0u, squares, 16)) / head_size;
  const float scale = rsqrtf(variance + group_norm_epsilon);
  const int width = static_cast<int>(arguments.width), at = begin * width + channel;
#pragma unroll
  for (int t = 0; t < chunk_rows; ++t) {
    const float row_mean = __shfl_sync(~0u, mean, t), row_scale = __shfl_sync(~0u, scale, t), bonus = stage.bonus[t];
    const float2 o = load_pair(&stage.y[t][2 * lane]), v = load_split(stage.value, t, lane);
    const float2 weight = gates.norm_weight, bias = gates.norm_bias;
    if (t >= count) continue;
    store_pair(arguments.rows, at + t * width,
               ((o.x - row_mean) * row_scale * weight.x + bias.x + bonus * v.x) * gates.rows[t].x,
               ((o.y - row_mean) * row_scale * weight.y + bias.y + bonus * v.y) * gates.rows[t].y);
  }
}

// S^T of 16 value columns: state[n] has keys 8 n to 8 n + 7.
using StateTile = float[head_size / 8][4];

// Where a lane's numbers of key 8 n + 2 quad + i % 2 lie: value column + group + i / 2 * 8.
__device__ int state_at(int n, int i, int column, int lane) {
  return (8 * n + lane % 4 * 2 + i % 2) * head_size + column + lane / 4 + i / 2 * 8;
}

__device__ void load_state(const Arguments &arguments, const char *from, int head, int column, int lane,
                           StateTile &state) {
  const char *numbers = from + arguments.wkv_offset;
  const int first = head * head_size * head_size;
#pragma unroll
  for (int n = 0; n < head_size / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = first + state_at(n, i, column, lane);
      state[n][i] = arguments.is_half_state ? __half2float(reinterpret_cast<const __half *>(numbers)[at])
                                            : reinterpret_cast<const float *>(numbers)[at];
    }
  }
}

__device__ void store_state(const Arguments &arguments, char *to, int head, int column, int lane,
                            const StateTile &state) {
  char *numbers = to + arguments.wkv_offset;
  const int first = head * head_size * head_size;
#pragma unroll
  for (int n = 0; n < head_size / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = first + state_at(n, i, column, lane);
      if (arguments.is_half_state)
        reinterpret_cast<__half *>(numbers)[at] = __float2half_rn(state[n][i]);
      else
        reinterpret_cast<float *>(numbers)[at] = state[n][i];
    }
  }
}

// One chunk: y into the stage, and the state after it. Products that do not wait for one another alternate, because a
// product's sums are there only some 30 cycles later.
__device__ void step_chunk(Stage &stage, StateTile &state, int column, int lane) {
  const int down = down_first(lane, row_words), across = across_first(lane, row_words);
  // Sums of low * high, high * low and high * high, kept apart; [half] is rows 8 half to 8 half + 7 of the chunk.
  float removed[3][2][4] = {}, y[3][2][4] = {};
#pragma unroll
  for (int tile = 0; tile < head_size / 16; ++tile) {
    const float(&a)[4] = state[2 * tile], (&b)[4] = state[2 * tile + 1];
    const Split parts[4] = {split(a[0], a[1]), split(a[2], a[3]), split(b[0], b[1]), split(b[2], b[3])};
    const uint32_t left[2][4] = {{parts[0].high, parts[1].high, parts[2].high, parts[3].high},
                                 {parts[0].low, parts[1].low, parts[2].low, parts[3].low}};
    uint32_t removal[2][4], receptance[2][4];
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      load_matrices(removal[part], stage.removal[part][0] + across + 8 * tile);
      load_matrices(receptance[part], stage.receptance[part][0] + across + 8 * tile);
    }
#pragma unroll
    for (int product = 0; product < 3; ++product) {
      const int l = product == 0, r = product == 1;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        multiply(removed[product][half], left[l], removal[r][2 * half], removal[r][2 * half + 1]);
        multiply(y[product][half], left[l], receptance[r][2 * half], receptance[r][2 * half + 1]);
      }
    }
  }

  uint32_t value[2][4], pull[2][4], key[2][4][4];
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    load_transposed(value[part], stage.value[part][0] + across + column / 2);
    load_matrices(pull[part], stage.pull[part][0] + across_first(lane, square_words));
#pragma unroll
    for (int tile = 0; tile < head_size / 16; ++tile) {
      load_transposed(key[part][tile], stage.key[part][0] + down + 8 * tile);
    }
  }
  const uint4 by_key[2] = {stage.receptance_key[0][lane], stage.receptance_key[1][lane]};
  const uint4 by_rate[2] = {stage.receptance_rate[0][lane], stage.receptance_rate[1][lane]};
#pragma unroll
  for (int product = 0; product < 3; ++product) {
    const int l = product == 0, r = product == 1;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      multiply(removed[product][half], value[l], pull[r][2 * half], pull[r][2 * half + 1]);
    }
    multiply(y[product][0], value[l], by_key[r].x, by_key[r].y);
    multiply(y[product][1], value[l], by_key[r].z, by_key[r].w);
  }
#pragma unroll
  for (int product = 0; product < 3; ++product) {
    const int l = product == 0, r = product == 1;
#pragma unroll
    for (int tile = 0; tile < head_size / 16; ++tile) {
      multiply(state[2 * tile], value[l], key[r][tile][0], key[r][tile][1]);
      multiply(state[2 * tile + 1], value[l], key[r][tile][2], key[r][tile][3]);
    }
  }

  uint32_t left[2][4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      const int i = 2 * lower;
      const Split parts = split(removed[0][half][i] + removed[1][half][i] + removed[2][half][i],
                                removed[0][half][i + 1] + removed[1][half][i + 1] + removed[2][half][i + 1]);
      left[0][2 * half + lower] = parts.high;
      left[1][2 * half + lower] = parts.low;
    }
  }
  uint32_t rate[2][4][4];
#pragma unroll
  for (int part = 0; part < 2; ++part) {
#pragma unroll
    for (int tile = 0; tile < head_size / 16; ++tile) {
      load_transposed(rate[part][tile], stage.rate[part][0] + down + 8 * tile);
    }
  }
#pragma unroll
  for (int product = 0; product < 3; ++product) {
    const int l = product == 0, r = product == 1;
#pragma unroll
    for (int tile = 0; tile < head_size / 16; ++tile) {
      multiply(state[2 * tile], left[l], rate[r][tile][0], rate[r][tile][1]);
      multiply(state[2 * tile + 1], left[l], rate[r][tile][2], rate[r][tile][3]);
    }
    multiply(y[product][0], left[l], by_rate[r].x, by_rate[r].y);
    multiply(y[product][1], left[l], by_rate[r].z, by_rate[r].w);
  }

#pragma unroll
  for (int n = 0; n < head_size / 8; ++n) {
    const float2 decay = load_pair(&stage.decay[8 * n + lane % 4 * 2]);
    state[n][0] *= decay.x, state[n][1] *= decay.y, state[n][2] *= decay.x, state[n][3] *= decay.y;
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      stage.y[8 * half + lane % 4 * 2 + i % 2][column + lane / 4 + i / 2 * 8] =
          y[0][half][i] + y[1][half][i] + y[2][half][i];
    }
  }
}

// A block per head and segment.
template <bool is_first_layer>
__global__ void __launch_bounds__(32 * (state_warps + most_stages), 1)
    chunk_rows_of_heads(const Arguments arguments, int stages_count) {
  extern __shared__ uint4 shared[];
  auto *stages = reinterpret_cast<Stage *>(shared);
  const Segment segment = arguments.segments[blockIdx.x / arguments.heads];
  const int head = static_cast<int>(blockIdx.x) % arguments.heads;
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;  // uniform, for the compiler
  if (segment.end - segment.begin < arguments.shortest) return;
  if (warp < state_warps) {
    const int column = 16 * warp;
    StateTile state;
    load_state(arguments, segment.from, head, column, lane, state);
    Walk walk(segment);
    for (int stage = 0; walk.next(arguments.snapshots); stage = stage + 1 == stages_count ? 0 : stage + 1) {
      meet(full_barrier(stage));
      step_chunk(stages[stage], state, column, lane);
      arrive(done_barrier(stage));
      for (int i = walk.snapshot; i < walk.snapshots_end && arguments.snapshots[i].row < walk.end; ++i) {
        store_state(arguments, arguments.snapshots[i].state, head, column, lane, state);
      }
    }
    store_state(arguments, segment.state, head, column, lane, state);
    return;
  }
  const int stage = warp - state_warps, channel = head * head_size + 2 * lane;
  const Channels channels = load_channels<is_first_layer>(arguments, channel);
  Stage &own = stages[stage];
  Walk walk(segment);
  walk.skip(stage, arguments.snapshots);
  for (; walk.next(arguments.snapshots); walk.skip(stages_count - 1, arguments.snapshots)) {
    const int count = walk.end - walk.begin;
    prefetch_rows(arguments, walk.begin + stages_count * chunk_rows, walk.last, head, lane);
    prepare_chunk<is_first_layer>(arguments, channels, own, walk.begin, count, lane);
    arrive(full_barrier(stage));
    const Gates gates = load_gates(arguments, channel, walk.begin, count);
    meet(done_barrier(stage));
    finish_chunk(arguments, own, gates, channel, walk.begin, count, lane);
    __syncwarp();
  }
}

int stages_of(const Device &device) {
  return std::min(most_stages, device.shared_bytes / static_cast<int>(sizeof(Stage)));
}

}  // namespace

bool chunked_fits(const Device &device) { return device.major >= 8 && stages_of(device) >= 2; }

cudaError_t chunked(cudaStream_t stream, const Device &device, const Arguments &arguments, int32_t segments_count,
                    int32_t longest) {
  const int32_t heads = segments_count * arguments.heads;
  // Snapshots make more chunks than this; then the stages serve more often.
  const int stages = std::min(stages_of(device), (longest + chunk_rows - 1) / chunk_rows);
  const int shared_bytes = stages * static_cast<int>(sizeof(Stage));
  const auto kernel = arguments.is_first_layer ? chunk_rows_of_heads<true> : chunk_rows_of_heads<false>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (error != cudaSuccess) return error;
  const auto threads = static_cast<unsigned>(32 * (state_warps + stages));
  kernel<<<static_cast<unsigned>(heads), threads, static_cast<size_t>(shared_bytes), stream>>>(arguments, stages);
  return cudaGetLastError();
}

}  // namespace libwkv::cuda::mixing
