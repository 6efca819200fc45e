// SPDX-License-Identifier: Apache-2.0
// What an x86 processor and its operating system allow. In an unnamed namespace: each kernel set is compiled with
// instructions that the others may lack, so no function here may be shared between them at link time.
#pragma once

#include <cpuid.h>

#include <cstdint>

namespace libwkv::kernels {
namespace {

struct ProcessorFeatures {
  uint32_t leaf1_ecx = 0, leaf7_ebx = 0, leaf7_ecx = 0;
  uint32_t saved_registers = 0;  // XCR0: register files that the system keeps for a process
};

inline ProcessorFeatures processor_features() {
  ProcessorFeatures features;
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return features;
  features.leaf1_ecx = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    features.leaf7_ebx = b;
    features.leaf7_ecx = c;
  }
  if (features.leaf1_ecx & bit_OSXSAVE) {
    uint32_t high;
    __asm__("xgetbv" : "=a"(features.saved_registers), "=d"(high) : "c"(0));
  }
  return features;
}

constexpr uint32_t saves_avx = 0x6, saves_avx512 = 0xe6;

inline bool has_all(uint32_t value, uint32_t bits) { return (value & bits) == bits; }

inline bool has_avx2(const ProcessorFeatures &features) {
  return has_all(features.saved_registers, saves_avx) && has_all(features.leaf1_ecx, bit_AVX | bit_FMA | bit_F16C) &&
         has_all(features.leaf7_ebx, bit_AVX2);
}

}  // namespace
}  // namespace libwkv::kernels
