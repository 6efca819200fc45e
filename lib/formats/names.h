// SPDX-License-Identifier: Apache-2.0
// Names and orientation of other formats, turned into the official ones.
#pragma once

#include <string_view>

#include "formats/readers.h"

namespace libwkv::formats {

// Renames, transposes and splits by views alone. Drops layer 0's value mixing, which the model does not have. Throws
// WKV_UNSUPPORTED for another architecture or a tensor that RWKV-7 does not know (leaving one out would silently give
// another function), WKV_FORMAT for a tensor twice or with a shape that its name cannot have.
Checkpoint name_tensors(RawCheckpoint raw);

// "PREFIX<number>.REST": the number, without leading zeros, and the rest. False for other names.
bool split_layer(std::string_view name, std::string_view prefix, int32_t &number, std::string_view &rest);

// The name of an official tensor in GGUF; empty when it has none of its own (the six shifts are one tensor there).
std::string gguf_name_of(std::string_view official_name);

}  // namespace libwkv::formats
