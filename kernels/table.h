// SPDX-License-Identifier: Apache-2.0
// The only door to kernels/: a sized, versioned table of functions, one table a kernel set (scalar, avx2, ...).
//
// All numbers that kernels read and write are float32; only weights have other formats. Weight memory may have any
// alignment. Shapes are written [rows][columns], row-major. No function allocates, throws or keeps a pointer.
#pragma once

#include <cstddef>
#include <cstdint>

namespace libwkv::kernels {

// How the numbers of a weight matrix are stored.
enum class Format : int32_t {
  f32,
  f16,
  bf16,
  q8,         // blocks of 32 along the inputs, 34 bytes: f16 scale, int8 q[32]; value = scale * q   (GGUF Q8_0)
  q4,         // blocks of 32, 18 bytes: f16 scale, uint8 qs[16]; value = scale * (q - 8); the low nibble of qs[i] is
              // input i, the high nibble input i + 16                                               (GGUF Q4_0)
  q4_affine,  // blocks of 32, 24 bytes: f32 scale, f32 offset, uint8 qs[16] as in q4; value = scale * q + offset
              // holds Q4_1 and Q4_K exactly
  q8_affine,  // blocks of 32, 44 bytes: f32 scale[2], f32 offset, int8 q[32]; value = scale[i / 16] * q + offset
              // holds Q5_0, Q5_1, Q5_K and Q6_K exactly
};
inline constexpr int32_t formats = 7;
inline constexpr int64_t block = 32;  // inputs of a quantised block

// y = W x with W [outputs][inputs], in one of two orders:
//
// rows:    one output after another: row o begins at data + o * stride and holds its inputs contiguously.
// columns: one input after another, so that inputs that are zero need not be read.
//   f32, f16, bf16: input i begins at data + i * stride and holds its outputs contiguously.
//   quantised: group g of 32 inputs begins at data + g * stride and holds, contiguously,
//     q8:        f16 scale[outputs];                          then 32 rows of int8 q[outputs]
//     q4:        f16 scale[outputs];                          then 32 rows of nibbles, outputs / 2 bytes each
//     q4_affine: f32 scale[outputs], f32 offset[outputs];     then 32 rows of nibbles
//     q8_affine: f32 scale[2][outputs], f32 offset[outputs];  then 32 rows of int8
//   a row of nibbles is cut in tiles of 64 outputs, 32 bytes each: the low nibble of byte i is output i of the tile,
//   the high nibble output i + 32. Needs outputs % 64 == 0.
// Quantised matrices have inputs % 32 == 0.
enum class Order : int32_t { rows, columns };

struct Matrix {
  const void *data;
  int64_t outputs, inputs;
  size_t stride;  // bytes
  Format format;
  Order order;
};

// Most vectors of one multiply_rows or multiply_columns call.
inline constexpr int32_t max_vectors = 8;
// Inputs of `multiply` that are summed together before they join the rest.
inline constexpr int64_t sum_block = 256;

// One token's inputs and parameters of the time mix, all [width] unless said, for some heads. Formulas: FORMATS of
// the checkpoint documentation; sig is the logistic function.
struct TimeMixInputs {
  // per-token values; on entry raw products, on return what `wkv` takes
  float *decay;              // in: low-rank product w;  out: exp(-e^-0.5 * sig(w0 + in))
  float *key;                // in: k;                   out: k * (1 + (a - 1) * k_a)
  float *value;              // in: v;                   out: v + (first_value - v) * sig(v0 + value_mix)
  float *rate;               // in: low-rank product a;  out: b = kk * a, where a = sig(a0 + in)
  float *removal;            // out: -kk, kk = normalised per head (k * k_k), with the k before its update
  const float *value_mix;    // low-rank product v; NULL in layer 0: value is left alone
  const float *first_value;  // layer 0's value of this token; NULL in layer 0
  // parameters
  const float *w0, *a0, *v0, *k_k, *k_a;
  int64_t head_size;
};

struct TimeMixOutputs {
  const float *wkv;                       // output of `wkv`
  const float *receptance, *key, *value;  // as `wkv` took them
  const float *gate;                      // low-rank product g
  const float *norm_weight, *norm_bias;   // ln_x
  const float *r_k;                       // [heads][head_size]
  float *out;  // (group_norm(wkv, 64e-5) * weight + bias + (sum over the head r * k * r_k) * v) * gate
  int64_t head_size;
};

enum class Activation : int32_t { tanh, sigmoid, relu_squared };

struct Table {
  uint32_t table_size;     // sizeof(Table) of the library that was compiled: checked before use
  uint32_t table_version;  // kernel_table_version
  const char *name;
  bool (*is_usable)();  // processor and system allow it

  // ---- products with few vectors (decode): bound by the speed at which weights arrive

  // Some kernels want x rearranged, with sums a block, ... : `prepare` writes the form that multiply_rows reads.
  size_t (*prepared_floats)(Format format, int64_t inputs);
  void (*prepare)(Format format, int64_t inputs, const float *x, float *prepared);

  // y[v * y_stride + o] = sum_i W[o][i] x_v[i] for o in [begin, end), v in [0, vectors), vectors <= max_vectors.
  // x_v is at prepared + v * prepared_floats(format, inputs). Order::rows only.
  void (*multiply_rows)(const Matrix *w, int64_t begin, int64_t end, const float *prepared, int32_t vectors, float *y,
                        int64_t y_stride);

  // y[v * y_stride + o] = sum over i in [input_begin, input_end) of W[o][i] x[v * x_stride + i], for o in
  // [output_begin, output_end); weights of inputs that are zero in every vector are not read. Order::columns only.
  // Quantised: input_begin % 32 == 0, input_end % 32 == 0 or == inputs. Nibbles: output_begin, output_end % 64 == 0.
  void (*multiply_columns)(const Matrix *w, int64_t input_begin, int64_t input_end, int64_t output_begin,
                           int64_t output_end, const float *x, int64_t x_stride, int32_t vectors, float *y,
                           int64_t y_stride);

  // ---- products with many vectors (prefill, large batches): bound by arithmetic

  // y[t * y_stride + o] = sum_i W[o][i] x[t * x_stride + i] for o in [begin, end), t in [0, tokens). Inputs are cut in
  // blocks of `sum_block`; a block's sum is one chain of fused multiply-adds over rising i, starting at 0, and blocks
  // are added in order: the same bits whatever tokens, begin and end are, so for every way to cut the work, and less
  // rounding than one long chain. Both orders, all formats. x is [tokens][inputs], x_stride >= inputs. begin % 64 == 0.
  // scratch: multiply_scratch_floats() floats, aligned to 64 bytes, of this thread alone.
  size_t (*multiply_scratch_floats)();
  void (*multiply)(const Matrix *w, int64_t begin, int64_t end, const float *x, int64_t x_stride, int64_t tokens,
                   float *y, int64_t y_stride, float *scratch);

  // ---- the recurrence, one head

  // For each token t in order, with vectors of head_size at pointer + t * stride:
  //   sa = S^T a;  S = S * diag(w) by keys + b sa^T + k v^T;  y = S^T r        (y uses the new S)
  // where state S is [head_size key][head_size value]. decay w, removal a = -kk, rate b = kk * a.
  // The bits of a token's result do not depend on how tokens are split over calls. head_size: any >= 1.
  void (*wkv)(int64_t tokens, int64_t stride, const float *receptance, const float *decay, const float *key,
              const float *value, const float *removal, const float *rate, float *state, float *y, int64_t head_size);

  // ---- elementwise, one token

  // y = (x - mean) / sqrt(variance + epsilon) * weight + bias; biased variance; y may be x.
  void (*layer_norm)(int64_t count, const float *x, const float *weight, const float *bias, float epsilon, float *y);
  // y = current + (previous - current) * mix
  void (*token_shift)(int64_t count, const float *current, const float *previous, const float *mix, float *y);
  void (*activate)(Activation activation, int64_t count, float *x);
  // x += y
  void (*add)(int64_t count, float *x, const float *y);
  // Heads [head_begin, head_end) of one token.
  void (*time_mix_inputs)(const TimeMixInputs *io, int64_t head_begin, int64_t head_end);
  void (*time_mix_outputs)(const TimeMixOutputs *io, int64_t head_begin, int64_t head_end);
};

inline constexpr uint32_t kernel_table_version = 1;

// The tables of this build, best first; ends with NULL. Each is complete.
const Table *const *tables();

}  // namespace libwkv::kernels
