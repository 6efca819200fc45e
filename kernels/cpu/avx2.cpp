// SPDX-License-Identifier: Apache-2.0
// The kernel set of x86 processors with AVX2, FMA and F16C.
#include "kernel_set.h"
#include "processor_x86.h"
#include "simd_avx2.h"

namespace libwkv::kernels {
namespace {

bool is_usable() { return has_avx2(processor_features()); }

}  // namespace

extern const Table avx2_table;
constinit const Table avx2_table = kernel_set<Avx2>("avx2", is_usable);

}  // namespace libwkv::kernels
