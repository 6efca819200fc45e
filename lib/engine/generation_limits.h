// SPDX-License-Identifier: Apache-2.0
// What a generation accepts, from options and from saved bytes alike.
#pragma once

#include <cstddef>
#include <cstdint>

namespace libwkv::generation_limits {

inline constexpr size_t most_stop_tokens = 65536, most_stop_strings = 1024, longest_stop_bytes = 65536;
inline constexpr size_t most_prompt_tokens = size_t{1} << 30;
inline constexpr int32_t most_alternatives = 20;

}  // namespace libwkv::generation_limits
