// SPDX-License-Identifier: Apache-2.0
#include "table.h"

namespace libwkv::kernels {

extern const Table scalar_table;
#if defined(WKV_KERNELS_X86)
extern const Table avx2_table, avx512_table;
#endif
#if defined(WKV_KERNELS_NEON)
extern const Table neon_table;
#endif

const Table *const *tables() {
  static const Table *const list[] = {
#if defined(WKV_KERNELS_X86)
    &avx512_table,
    &avx2_table,
#endif
#if defined(WKV_KERNELS_NEON)
    &neon_table,
#endif
    &scalar_table,
    nullptr
  };
  return list;
}

}  // namespace libwkv::kernels
