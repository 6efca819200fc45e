// SPDX-License-Identifier: Apache-2.0
// The kernel set of x86 processors with AVX-512 F, BW, DQ, VL and VNNI.
#include "kernel_set.h"
#include "processor_x86.h"
#include "simd_avx512.h"

namespace libwkv::kernels {
namespace {

bool is_usable() {
  const ProcessorFeatures features = processor_features();
  return has_avx2(features) && has_all(features.saved_registers, saves_avx512) &&
         has_all(features.leaf7_ebx, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL) &&
         has_all(features.leaf7_ecx, bit_AVX512VNNI);
}

}  // namespace

extern const Table avx512_table;
constinit const Table avx512_table = kernel_set<Avx512>("avx512", is_usable);

}  // namespace libwkv::kernels
