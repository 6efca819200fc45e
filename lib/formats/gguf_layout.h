// SPDX-License-Identifier: Apache-2.0
// Numbers of the GGUF format that its reader and its writer share.
#pragma once

#include <cstdint>

namespace libwkv::formats {

enum GgufValueType : uint32_t {
  gguf_u8 = 0,
  gguf_i8 = 1,
  gguf_u16 = 2,
  gguf_i16 = 3,
  gguf_u32 = 4,
  gguf_i32 = 5,
  gguf_f32 = 6,
  gguf_bool = 7,
  gguf_string = 8,
  gguf_array = 9,
  gguf_u64 = 10,
  gguf_i64 = 11,
  gguf_f64 = 12
};

// ggml's number of each StoredType, in its order.
inline constexpr uint32_t ggml_types[] = {0, 1, 30, 8, 2, 3, 6, 7, 12, 13, 14};

enum GgufTokenType : int32_t { token_normal = 1, token_control = 3, token_user_defined = 4, token_unused = 5 };

inline constexpr uint64_t gguf_alignment = 32;

}  // namespace libwkv::formats
