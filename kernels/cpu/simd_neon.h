// SPDX-License-Identifier: Apache-2.0
// NEON of 64-bit Arm behind the names that the kernel templates use. Included by neon*.cpp alone.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace libwkv::kernels {

// Members as those of Avx2.
struct Neon {
  using Float = float32x4_t;
  using Int = int32x4_t;
  using Mask = uint32x4_t;
  static constexpr int lanes = 4;

  // ---- floats
  static Float load(const float *p) { return vld1q_f32(p); }
  static void store(float *p, Float a) { vst1q_f32(p, a); }
  static Float load_partial(const float *p, int64_t count) {
    float values[4] = {};
    __builtin_memcpy(values, p, static_cast<size_t>(count) * 4);
    return vld1q_f32(values);
  }
  static void store_partial(float *p, Float a, int64_t count) {
    float values[4];
    vst1q_f32(values, a);
    __builtin_memcpy(p, values, static_cast<size_t>(count) * 4);
  }
  static Float broadcast(float a) { return vdupq_n_f32(a); }
  static Float zero() { return vdupq_n_f32(0.0f); }
  static Float add(Float a, Float b) { return vaddq_f32(a, b); }
  static Float sub(Float a, Float b) { return vsubq_f32(a, b); }
  static Float mul(Float a, Float b) { return vmulq_f32(a, b); }
  static Float div(Float a, Float b) { return vdivq_f32(a, b); }
  static Float fma(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }   // a * b + c
  static Float fnma(Float a, Float b, Float c) { return vfmsq_f32(c, a, b); }  // -(a * b) + c
  static Float max(Float a, Float b) { return vmaxq_f32(a, b); }
  static Float min(Float a, Float b) { return vminq_f32(a, b); }
  static Float sqrt(Float a) { return vsqrtq_f32(a); }
  static Float abs(Float a) { return vabsq_f32(a); }
  static Float neg(Float a) { return vnegq_f32(a); }
  static float reduce_add(Float a) { return vaddvq_f32(a); }
  static float reduce_max(Float a) { return vmaxvq_f32(a); }

  // ---- comparisons
  static Mask greater(Float a, Float b) { return vcgtq_f32(a, b); }
  static Mask is_nan(Float a) { return vmvnq_u32(vceqq_f32(a, a)); }
  static Float select(Mask mask, Float yes, Float no) { return vbslq_f32(mask, yes, no); }

  // ---- integers of 32 bits
  static Int broadcast_int(int32_t a) { return vdupq_n_s32(a); }
  static Int add_int(Int a, Int b) { return vaddq_s32(a, b); }
  static Int sub_int(Int a, Int b) { return vsubq_s32(a, b); }
  static Int and_int(Int a, Int b) { return vandq_s32(a, b); }
  static Int or_int(Int a, Int b) { return vorrq_s32(a, b); }
  static Int xor_int(Int a, Int b) { return veorq_s32(a, b); }
  template <int bits>
  static Int shift_left(Int a) {
    return vshlq_n_s32(a, bits);
  }
  template <int bits>
  static Int shift_right(Int a) {
    return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a), bits));
  }
  static Int round_to_int(Float a) { return vcvtnq_s32_f32(a); }
  static Float float_from_int(Int a) { return vcvtq_f32_s32(a); }
  static Int bits_of(Float a) { return vreinterpretq_s32_f32(a); }
  static Float from_bits(Int a) { return vreinterpretq_f32_s32(a); }

  // ---- weights
  static Float load_f32(const void *p) { return vreinterpretq_f32_u8(vld1q_u8(static_cast<const uint8_t *>(p))); }
  static Float load_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(load_8_bytes(p))); }
  static Float load_bf16(const void *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(load_8_bytes(p)), 16));
  }
  static Float load_i8(const void *p) {
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(load_4_bytes(p, 4))))));
  }
  static Float load_low_nibbles(const void *p) { return vcvtq_f32_u32(vandq_u32(load_u8(p), vdupq_n_u32(15))); }
  static Float load_high_nibbles(const void *p) { return vcvtq_f32_u32(vshrq_n_u32(load_u8(p), 4)); }
  static Float load_f32_partial(const void *p, int64_t count) {
    return load_partial(static_cast<const float *>(p), count);
  }
  static Float load_f16_partial(const void *p, int64_t count) {
    uint16_t bits[4] = {};
    __builtin_memcpy(bits, p, static_cast<size_t>(count) * 2);
    return load_f16(bits);
  }
  static Float load_bf16_partial(const void *p, int64_t count) {
    uint16_t bits[4] = {};
    __builtin_memcpy(bits, p, static_cast<size_t>(count) * 2);
    return load_bf16(bits);
  }
  static Float load_i8_partial(const void *p, int64_t count) {
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(load_4_bytes(p, count))))));
  }
  template <int stride>
  static Int load_quads(const void *p) {
    return vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t *>(p)));
  }
  template <int stride>
  static Float load_f16_scales(const void *p) {
    return broadcast_f16(p);
  }
  template <int stride>
  static Float load_f32_scales(const void *p) {
    float scale;
    __builtin_memcpy(&scale, p, sizeof scale);
    return vdupq_n_f32(scale);
  }
  static Float broadcast_f16(const void *p) { return vdupq_n_f32(f16_at(p)); }
  static float f16_at(const void *p) {
    __fp16 half;
    __builtin_memcpy(&half, p, sizeof half);
    return static_cast<float>(half);
  }

  // ---- bytes
  static Int load_bytes(const void *p) { return vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t *>(p))); }
  // Which four products meet in a lane differs from x86; their sum over the lanes does not.
  static Int add_dots(Int sums, Int a, Int x, Int b, Int y) {
    const int8x16_t a8 = vreinterpretq_s8_s32(a), x8 = vreinterpretq_s8_s32(x);
    const int8x16_t b8 = vreinterpretq_s8_s32(b), y8 = vreinterpretq_s8_s32(y);
    const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(a8), vget_low_s8(x8)), vget_low_s8(b8), vget_low_s8(y8));
    const int16x8_t high = vmlal_high_s8(vmull_high_s8(a8, x8), b8, y8);
    return vpadalq_s16(vpadalq_s16(sums, low), high);
  }

  static void prefetch(const void *p) { __builtin_prefetch(p, 0, 2); }

  // rows[i] lane j becomes rows[j] lane i.
  static void transpose(Float (&rows)[lanes]) {
    const float32x4x2_t top = vtrnq_f32(rows[0], rows[1]), bottom = vtrnq_f32(rows[2], rows[3]);
    rows[0] = vcombine_f32(vget_low_f32(top.val[0]), vget_low_f32(bottom.val[0]));
    rows[1] = vcombine_f32(vget_low_f32(top.val[1]), vget_low_f32(bottom.val[1]));
    rows[2] = vcombine_f32(vget_high_f32(top.val[0]), vget_high_f32(bottom.val[0]));
    rows[3] = vcombine_f32(vget_high_f32(top.val[1]), vget_high_f32(bottom.val[1]));
  }

 private:
  static uint8x8_t load_8_bytes(const void *p) { return vld1_u8(static_cast<const uint8_t *>(p)); }
  static uint32x2_t load_4_bytes(const void *p, int64_t count) {
    uint32_t bytes = 0;
    __builtin_memcpy(&bytes, p, static_cast<size_t>(count));
    return vdup_n_u32(bytes);
  }
  static uint32x4_t load_u8(const void *p) {
    return vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(load_4_bytes(p, 4)))));
  }
};

}  // namespace libwkv::kernels
