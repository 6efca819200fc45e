// SPDX-License-Identifier: Apache-2.0
// A complete table from one SIMD struct.
#pragma once

#include "../table.h"
#include "elementwise.h"
#include "matrix_columns.h"
#include "matrix_matrix.h"
#include "matrix_rows.h"
#include "recurrence.h"

namespace libwkv::kernels {

template <class S>
constexpr Table kernel_set(const char *name, bool (*is_usable)()) {
  return {
      sizeof(Table),
      kernel_table_version,
      name,
      is_usable,
      MatrixRows<S>::prepared_floats,
      MatrixRows<S>::prepare,
      MatrixRows<S>::multiply_rows,
      MatrixColumns<S>::multiply_columns,
      Multiply<S>::scratch_floats,
      Multiply<S>::run,
      Recurrence<S>::run,
      Elementwise<S>::layer_norm,
      Elementwise<S>::token_shift,
      Elementwise<S>::activate,
      Elementwise<S>::add,
      Elementwise<S>::time_mix_inputs,
      Elementwise<S>::time_mix_outputs,
  };
}

}  // namespace libwkv::kernels
