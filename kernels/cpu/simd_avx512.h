// SPDX-License-Identifier: Apache-2.0
// AVX-512 (F, BW, DQ, VL, VNNI) behind the names that the kernel templates use. Included by avx512*.cpp alone.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 warns of its own _mm512_undefined_ps
#endif
// GCC 12 takes the deliberately undefined values inside its own header for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cstddef>
#include <cstdint>

namespace libwkv::kernels {

// Members as those of Avx2.
struct Avx512 {
  using Float = __m512;
  using Int = __m512i;
  using Mask = __mmask16;
  static constexpr int lanes = 16;

  // ---- floats
  static Float load(const float *p) { return _mm512_loadu_ps(p); }
  static void store(float *p, Float a) { _mm512_storeu_ps(p, a); }
  static Float load_partial(const float *p, int64_t count) { return _mm512_maskz_loadu_ps(first(count), p); }
  static void store_partial(float *p, Float a, int64_t count) { _mm512_mask_storeu_ps(p, first(count), a); }
  static Float broadcast(float a) { return _mm512_set1_ps(a); }
  static Float zero() { return _mm512_setzero_ps(); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float div(Float a, Float b) { return _mm512_div_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }    // a * b + c
  static Float fnma(Float a, Float b, Float c) { return _mm512_fnmadd_ps(a, b, c); }  // -(a * b) + c
  static Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
  static Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
  static Float sqrt(Float a) { return _mm512_sqrt_ps(a); }
  static Float abs(Float a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
  static Float neg(Float a) { return _mm512_xor_ps(_mm512_set1_ps(-0.0f), a); }
  static float reduce_add(Float a) { return _mm512_reduce_add_ps(a); }
  static float reduce_max(Float a) { return _mm512_reduce_max_ps(a); }

  // ---- comparisons
  static Mask greater(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static Mask is_nan(Float a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
  static Float select(Mask mask, Float yes, Float no) { return _mm512_mask_blend_ps(mask, no, yes); }

  // ---- integers of 32 bits
  static Int broadcast_int(int32_t a) { return _mm512_set1_epi32(a); }
  static Int add_int(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int sub_int(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static Int and_int(Int a, Int b) { return _mm512_and_si512(a, b); }
  static Int or_int(Int a, Int b) { return _mm512_or_si512(a, b); }
  static Int xor_int(Int a, Int b) { return _mm512_xor_si512(a, b); }
  template <int bits>
  static Int shift_left(Int a) {
    return _mm512_slli_epi32(a, bits);
  }
  template <int bits>
  static Int shift_right(Int a) {
    return _mm512_srli_epi32(a, bits);
  }
  static Int round_to_int(Float a) { return _mm512_cvtps_epi32(a); }
  static Float float_from_int(Int a) { return _mm512_cvtepi32_ps(a); }
  static Int bits_of(Float a) { return _mm512_castps_si512(a); }
  static Float from_bits(Int a) { return _mm512_castsi512_ps(a); }

  // ---- weights
  static Float load_f32(const void *p) { return _mm512_loadu_ps(p); }
  static Float load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i *>(p))); }
  static Float load_bf16(const void *p) { return float_from_bf16(_mm256_loadu_si256(static_cast<const __m256i *>(p))); }
  static Float load_i8(const void *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_16_bytes(p))); }
  static Float load_low_nibbles(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_cvtepu8_epi32(load_16_bytes(p)), _mm512_set1_epi32(15)));
  }
  static Float load_high_nibbles(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_srli_epi32(_mm512_cvtepu8_epi32(load_16_bytes(p)), 4));
  }
  static Float load_f32_partial(const void *p, int64_t count) { return _mm512_maskz_loadu_ps(first(count), p); }
  static Float load_f16_partial(const void *p, int64_t count) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), p));
  }
  static Float load_bf16_partial(const void *p, int64_t count) {
    return float_from_bf16(_mm256_maskz_loadu_epi16(first(count), p));
  }
  static Float load_i8_partial(const void *p, int64_t count) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(count), p)));
  }
  template <int stride>
  static Int load_quads(const void *p) {
    const auto *bytes = static_cast<const char *>(p);
    __m256i low =
        _mm256_inserti128_si256(_mm256_castsi128_si256(load_16_bytes(bytes)), load_16_bytes(bytes + stride), 1);
    __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(load_16_bytes(bytes + 2 * stride)),
                                           load_16_bytes(bytes + 3 * stride), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
  template <int stride>
  static Float load_f16_scales(const void *p) {
    // one load covers the scales of four blocks and ends inside the fourth
    static_assert(stride % 2 == 0 && 3 * stride + 2 <= 64 && 4 * stride >= 64);
    constexpr int64_t words = 0x0001000100010001;
    const __m512i pick =
        _mm512_set_epi64(0, 0, 0, 0, words * (3 * stride / 2), words * stride, words * (stride / 2), 0);
    return _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(pick, _mm512_loadu_si512(p))));
  }
  template <int stride>
  static Float load_f32_scales(const void *p) {
    __m128 quarters[4];
    for (int i = 0; i < 4; i++) {
      float scale;
      __builtin_memcpy(&scale, static_cast<const char *>(p) + i * stride, sizeof scale);
      quarters[i] = _mm_set1_ps(scale);
    }
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_set_m128(quarters[1], quarters[0])),
                              _mm256_set_m128(quarters[3], quarters[2]), 1);
  }
  static Float broadcast_f16(const void *p) {
    uint16_t bits;
    __builtin_memcpy(&bits, p, sizeof bits);
    return _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<short>(bits)));
  }
  static float f16_at(const void *p) {
    uint16_t bits;
    __builtin_memcpy(&bits, p, sizeof bits);
    return _cvtsh_ss(bits);
  }

  // ---- bytes
  static Int load_bytes(const void *p) { return _mm512_loadu_si512(p); }
  static Int add_dots(Int sums, Int a, Int x, Int b, Int y) {
    return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sums, a, x), b, y);
  }

  static void prefetch(const void *p) { _mm_prefetch(static_cast<const char *>(p), _MM_HINT_T1); }

  // rows[i] lane j becomes rows[j] lane i.
  static void transpose(Float (&rows)[lanes]) {
    Float pairs[16], quads[16];
    for (int i = 0; i < 16; i += 2) {
      pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
      pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
      for (int j = 0; j < 2; ++j) {
        quads[i + 2 * j] = _mm512_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
        quads[i + 2 * j + 1] = _mm512_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
      }
    }
    for (int i = 0; i < 4; ++i) {  // quads[4 g + i], 128-bit part c: rows 4 g to 4 g + 3 at lane 4 c + i
      const Float low_even = _mm512_shuffle_f32x4(quads[i], quads[4 + i], 0x88);
      const Float low_odd = _mm512_shuffle_f32x4(quads[i], quads[4 + i], 0xdd);
      const Float high_even = _mm512_shuffle_f32x4(quads[8 + i], quads[12 + i], 0x88);
      const Float high_odd = _mm512_shuffle_f32x4(quads[8 + i], quads[12 + i], 0xdd);
      rows[i] = _mm512_shuffle_f32x4(low_even, high_even, 0x88);
      rows[i + 8] = _mm512_shuffle_f32x4(low_even, high_even, 0xdd);
      rows[i + 4] = _mm512_shuffle_f32x4(low_odd, high_odd, 0x88);
      rows[i + 12] = _mm512_shuffle_f32x4(low_odd, high_odd, 0xdd);
    }
  }

 private:
  static __mmask16 first(int64_t count) { return static_cast<__mmask16>((1u << count) - 1u); }
  static __m128i load_16_bytes(const void *p) { return _mm_loadu_si128(static_cast<const __m128i *>(p)); }
  static Float float_from_bf16(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
};

}  // namespace libwkv::kernels
