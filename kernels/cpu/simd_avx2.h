// SPDX-License-Identifier: Apache-2.0
// AVX2 with FMA and F16C behind the names that the kernel templates use. Included by avx2*.cpp alone.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace libwkv::kernels {

// Every SIMD struct of this folder has the same members; `count` of a partial access is in [0, lanes], lanes beyond it
// are zero and their memory is not touched. Pointers to weights may have any alignment.
struct Avx2 {
  using Float = __m256;
  using Int = __m256i;  // `lanes` numbers of 32 bits
  using Mask = __m256;  // all bits of a lane set or clear
  static constexpr int lanes = 8;

  // ---- floats
  static Float load(const float *p) { return _mm256_loadu_ps(p); }
  static void store(float *p, Float a) { _mm256_storeu_ps(p, a); }
  static Float load_partial(const float *p, int64_t count) { return _mm256_maskload_ps(p, first(count)); }
  static void store_partial(float *p, Float a, int64_t count) { _mm256_maskstore_ps(p, first(count), a); }
  static Float broadcast(float a) { return _mm256_set1_ps(a); }
  static Float zero() { return _mm256_setzero_ps(); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float div(Float a, Float b) { return _mm256_div_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }    // a * b + c
  static Float fnma(Float a, Float b, Float c) { return _mm256_fnmadd_ps(a, b, c); }  // -(a * b) + c
  static Float max(Float a, Float b) { return _mm256_max_ps(a, b); }  // b where either is NaN (Arm: NaN)
  static Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
  static Float sqrt(Float a) { return _mm256_sqrt_ps(a); }
  static Float abs(Float a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
  static Float neg(Float a) { return _mm256_xor_ps(_mm256_set1_ps(-0.0f), a); }
  static float reduce_add(Float a) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
  static float reduce_max(Float a) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
  }

  // ---- comparisons: select takes yes where the mask is set
  static Mask greater(Float a, Float b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
  static Mask is_nan(Float a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
  static Float select(Mask mask, Float yes, Float no) { return _mm256_blendv_ps(no, yes, mask); }

  // ---- integers of 32 bits
  static Int broadcast_int(int32_t a) { return _mm256_set1_epi32(a); }
  static Int add_int(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int sub_int(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static Int and_int(Int a, Int b) { return _mm256_and_si256(a, b); }
  static Int or_int(Int a, Int b) { return _mm256_or_si256(a, b); }
  static Int xor_int(Int a, Int b) { return _mm256_xor_si256(a, b); }
  template <int bits>
  static Int shift_left(Int a) {
    return _mm256_slli_epi32(a, bits);
  }
  template <int bits>
  static Int shift_right(Int a) {
    return _mm256_srli_epi32(a, bits);
  }                                                                   // zeros come in
  static Int round_to_int(Float a) { return _mm256_cvtps_epi32(a); }  // to nearest, ties to even
  static Float float_from_int(Int a) { return _mm256_cvtepi32_ps(a); }
  static Int bits_of(Float a) { return _mm256_castps_si256(a); }
  static Float from_bits(Int a) { return _mm256_castsi256_ps(a); }

  // ---- weights: `lanes` of them in a row
  static Float load_f16(const void *p) { return _mm256_cvtph_ps(load_16_bytes(p)); }
  static Float load_bf16(const void *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_16_bytes(p)), 16));
  }
  static Float load_i8(const void *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i *>(p))));
  }
  static Float load_f32(const void *p) { return _mm256_loadu_ps(static_cast<const float *>(p)); }
  // Numbers 0 to 15 from the low or the high halves of bytes.
  static Float load_low_nibbles(const void *p) {
    return _mm256_cvtepi32_ps(_mm256_and_si256(load_u8(p), _mm256_set1_epi32(15)));
  }
  static Float load_high_nibbles(const void *p) { return _mm256_cvtepi32_ps(_mm256_srli_epi32(load_u8(p), 4)); }
  static Float load_f32_partial(const void *p, int64_t count) {
    return load_partial(static_cast<const float *>(p), count);
  }
  static Float load_f16_partial(const void *p, int64_t count) {
    alignas(16) uint16_t bits[8] = {};
    __builtin_memcpy(bits, p, static_cast<size_t>(count) * 2);
    return load_f16(bits);
  }
  static Float load_bf16_partial(const void *p, int64_t count) {
    alignas(16) uint16_t bits[8] = {};
    __builtin_memcpy(bits, p, static_cast<size_t>(count) * 2);
    return load_bf16(bits);
  }
  static Float load_i8_partial(const void *p, int64_t count) {
    alignas(8) int8_t bytes[8] = {};
    __builtin_memcpy(bytes, p, static_cast<size_t>(count));
    return load_i8(bytes);
  }
  // 16 bytes from each of lanes / 4 blocks that are `stride` bytes apart.
  template <int stride>
  static Int load_quads(const void *p) {
    const auto *bytes = static_cast<const char *>(p);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load_16_bytes(bytes)), load_16_bytes(bytes + stride), 1);
  }
  // The scales of those blocks, each in the four lanes of its 16 bytes.
  template <int stride>
  static Float load_f16_scales(const void *p) {
    uint16_t first_bits, second_bits;
    __builtin_memcpy(&first_bits, p, sizeof first_bits);
    __builtin_memcpy(&second_bits, static_cast<const char *>(p) + stride, sizeof second_bits);
    const __m128i both = _mm_cvtsi32_si128(first_bits | second_bits << 16);
    return _mm256_cvtph_ps(_mm_shuffle_epi8(both, _mm_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3)));
  }
  template <int stride>
  static Float load_f32_scales(const void *p) {
    __m128 halves[2];
    for (int i = 0; i < 2; i++) {
      float scale;
      __builtin_memcpy(&scale, static_cast<const char *>(p) + i * stride, sizeof scale);
      halves[i] = _mm_set1_ps(scale);
    }
    return _mm256_set_m128(halves[1], halves[0]);
  }
  // One f16 in all lanes.
  static Float broadcast_f16(const void *p) {
    uint16_t bits;
    __builtin_memcpy(&bits, p, sizeof bits);
    return _mm256_cvtph_ps(_mm_set1_epi16(static_cast<short>(bits)));
  }
  static float f16_at(const void *p) {
    uint16_t bits;
    __builtin_memcpy(&bits, p, sizeof bits);
    return _cvtsh_ss(bits);
  }

  // ---- bytes
  static Int load_bytes(const void *p) { return _mm256_loadu_si256(static_cast<const Int *>(p)); }
  // sums + the products of small unsigned bytes (at most 15) with signed ones, four of each pair of vectors a lane
  static Int add_dots(Int sums, Int a, Int x, Int b, Int y) {
    const Int pairs = _mm256_add_epi16(_mm256_maddubs_epi16(a, x), _mm256_maddubs_epi16(b, y));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  // To the second-level cache: the first has too few open requests to carry all that memory can deliver.
  static void prefetch(const void *p) { _mm_prefetch(static_cast<const char *>(p), _MM_HINT_T1); }

  // rows[i] lane j becomes rows[j] lane i.
  static void transpose(Float (&rows)[lanes]) {
    Float pairs[8], quads[8];
    for (int i = 0; i < 8; i += 2) {
      pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
      pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      for (int j = 0; j < 2; ++j) {
        quads[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
        quads[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
      }
    }
    for (int i = 0; i < 4; ++i) {
      rows[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
      rows[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
    }
  }

 private:
  static Int first(int64_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static __m128i load_16_bytes(const void *p) { return _mm_loadu_si128(static_cast<const __m128i *>(p)); }
  static Int load_u8(const void *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i *>(p))); }
};

}  // namespace libwkv::kernels
