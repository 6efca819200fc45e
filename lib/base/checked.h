// SPDX-License-Identifier: Apache-2.0
// Arithmetic on numbers that come from files: overflow is a failure, never a wrapped size.
#pragma once

#include <cstdint>

#include "base/error.h"

namespace libwkv {

inline uint64_t checked_multiply(uint64_t a, uint64_t b, const char *what) {
  uint64_t result;
  if (__builtin_mul_overflow(a, b, &result))
    fail(WKV_FORMAT, "%s: %llu x %llu overflows", what, (unsigned long long)a, (unsigned long long)b);
  return result;
}

inline uint64_t checked_add(uint64_t a, uint64_t b, const char *what) {
  uint64_t result;
  if (__builtin_add_overflow(a, b, &result))
    fail(WKV_FORMAT, "%s: %llu + %llu overflows", what, (unsigned long long)a, (unsigned long long)b);
  return result;
}

}  // namespace libwkv
