// SPDX-License-Identifier: Apache-2.0
// RWKV vocabulary files: one token a line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"

namespace libwkv::formats {

// Longest token in bytes, and largest id, that any file may have. The World vocabulary has 128 and 65529.
inline constexpr size_t longest_token = 4096;
inline constexpr int32_t largest_token_id = (1 << 20) - 1;

// Lines of "id SPACE literal SPACE length", where the literal is Python text or bytes and may hold spaces itself, and
// length counts its bytes. Gives rising ids. Strict: throws WKV_FORMAT with the line number for a bad line, an id or a
// token that is there twice, an empty token, or a file without tokens. Accepted besides: a byte-order mark, lines that
// end in CR LF, a last line without its end, lines in any order. name is for messages.
std::vector<VocabularyToken> parse_vocabulary(std::string_view content, const std::string &name);

// The same for a file. Throws WKV_NOT_FOUND, WKV_IO, and WKV_UNSUPPORTED for more than 64 MB besides.
std::vector<VocabularyToken> load_vocabulary(const std::string &path);

}  // namespace libwkv::formats
