// SPDX-License-Identifier: Apache-2.0
// Numbers in the storage types of checkpoints, to float and back. Used at load and for single rows; the fast paths
// are in kernels/.
#pragma once

#include <cstdint>

#include "formats/checkpoint.h"

namespace libwkv::formats {

// values numbers from whole blocks at bytes (any alignment) to floats. values % block_values(type) == 0.
void decode(StoredType type, const std::byte *bytes, int64_t values, float *out);
// A row of a tensor in official orientation: shape[1] values of row `row` (rank 1: row 0 is the whole vector).
void decode_row(const Tensor &tensor, int64_t row, float *out);
// Floats to f32, f16, bf16, q8_0 or q4_0. q8_0: scale = max|x| / 127 rounded to f16; q4_0: scale = x_max / -8 of the
// value with the largest magnitude, as GGUF does. values % block_values(type) == 0.
void encode(StoredType type, const float *in, int64_t values, std::byte *out);

}  // namespace libwkv::formats
