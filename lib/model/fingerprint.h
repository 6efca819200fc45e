// SPDX-License-Identifier: Apache-2.0
// A number that tells models apart: states of one model are of no use to another.
#pragma once

#include <cstdint>

#include "formats/checkpoint.h"
#include "model/hyper_parameters.h"

namespace libwkv {

// XXH3 over the sizes, all vectors, and 256 values spread over each matrix, taken as float32 in official orientation:
// equal for two files that hold the same numbers, whatever their format. Touches little of the file.
uint64_t fingerprint(const formats::Checkpoint &checkpoint, const HyperParameters &hyper);

}  // namespace libwkv
