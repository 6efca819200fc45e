// SPDX-License-Identifier: Apache-2.0
// Rows of a checkpoint's tensors in the formats of kernels/table.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/checkpoint.h"
#include "kernels/table.h"

namespace libwkv {

// The kernel format that holds a stored type exactly.
kernels::Format exact_format(formats::StoredType type);
// The bytes of both are the same, so that kernels can read the file in place.
bool is_same_layout(formats::StoredType type, kernels::Format format);

// Bytes of `inputs` numbers of one output in Order::rows.
size_t row_bytes(kernels::Format format, int64_t inputs);
// Bytes of one input (plain formats) or of one group of 32 inputs (quantised) of all outputs in Order::columns.
size_t column_bytes(kernels::Format format, int64_t outputs);
inline bool is_quantised(kernels::Format format) {
  return format != kernels::Format::f32 && format != kernels::Format::f16 && format != kernels::Format::bf16;
}

// Writes row `row` of a tensor [outputs, inputs] in Order::rows. scratch: [inputs] floats.
void pack_row(const formats::Tensor &tensor, int64_t row, kernels::Format format, float *scratch, std::byte *out);

// Moves outputs [begin, end) from rows (row_bytes apart, the first one is output `begin`) to their places in a matrix
// in Order::columns. Quantised nibbles: begin % 64 == 0 and end % 64 == 0.
void rows_to_columns(kernels::Format format, const std::byte *rows, int64_t begin, int64_t end, int64_t outputs,
                     int64_t inputs, std::byte *columns);

}  // namespace libwkv
