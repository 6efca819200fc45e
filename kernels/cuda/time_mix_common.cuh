// SPDX-License-Identifier: Apache-2.0
// What the kernels of time_mix share.
#pragma once

#include <cstdint>

#include "kernels/cuda/time_mix.h"

namespace libwkv::cuda::mixing {

inline constexpr int head_size = 64;  // of the fast kernels

struct Arguments {
  TimeMixRows rows;
  const float *w0, *a0, *v0, *k_k, *k_a, *r_k, *norm_weight, *norm_bias;
  const Segment *segments;
  const Snapshot *snapshots;
  size_t wkv_offset;  // of the layer, in a state
  int64_t width;
  int32_t heads;
  int32_t shortest, longest;  // segments of other lengths are another kernel's
  bool is_first_layer, is_half_state;
};

// Whether the chunked kernel runs on a device, and its launch for the segments of at least arguments.shortest rows.
bool chunked_fits(const Device &device);
cudaError_t chunked(cudaStream_t stream, const Device &device, const Arguments &arguments, int32_t segments_count,
                    int32_t longest);

inline constexpr float group_norm_epsilon = 64e-5f;

// 1 / max(||kk||, 1e-12)
__device__ inline float inverse_root(float squares) { return rsqrtf(fmaxf(squares, 1e-24f)); }

// log2 w = decay_scale * sig(w0 + ..)
inline constexpr float decay_scale = static_cast<float>(-0.60653065971263342 * 1.4426950408889634);

__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// sig(x), given x * logistic_scale.
inline constexpr float logistic_scale = -1.4426950408889634f;
__device__ inline float scaled_sigmoid(float scaled_x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.f + power_of_two(scaled_x)));
  return y;
}
__device__ inline float sigmoid(float x) { return scaled_sigmoid(x * logistic_scale); }

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

__device__ inline float2 load_pair(const float *at) { return *reinterpret_cast<const float2 *>(at); }

// The gated result of two channels.
__device__ inline void store_pair(const TimeMixRows &rows, int64_t at, float x, float y) {
  if (rows.out_half != nullptr)
    *reinterpret_cast<__half2 *>(rows.out_half + at) = __floats2half2_rn(x, y);
  else
    *reinterpret_cast<float2 *>(rows.out + at) = make_float2(x, y);
}

}  // namespace libwkv::cuda::mixing
