// SPDX-License-Identifier: Apache-2.0
// A state's numbers to a blob's and back, looked at on the way so that they pass through the processor once.
#pragma once

#include <cstddef>

namespace libwkv {

// Pointers need no alignment and must not overlap. False: a number was not finite, or F16 cannot hold it; everything
// has been written all the same.
bool copy_f32(std::byte *to, const std::byte *from, size_t count) noexcept;
bool f32_to_f16(std::byte *to, const std::byte *from, size_t count) noexcept;
bool f16_to_f32(std::byte *to, const std::byte *from, size_t count) noexcept;
bool is_finite_f32(const std::byte *numbers, size_t count) noexcept;

}  // namespace libwkv
