// SPDX-License-Identifier: Apache-2.0
// The kernel set of 64-bit Arm processors: each has NEON.
#include "kernel_set.h"
#include "simd_neon.h"

namespace libwkv::kernels {
namespace {

bool is_usable() { return true; }

}  // namespace

extern const Table neon_table;
constinit const Table neon_table = kernel_set<Neon>("neon", is_usable);

}  // namespace libwkv::kernels
