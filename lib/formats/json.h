// SPDX-License-Identifier: Apache-2.0
// JSON from files that may be damaged or hostile.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace libwkv::formats {

// Largest text read. The header of the largest released checkpoint has 300 KB; parsed, a text takes up to 40 times its
// size.
inline constexpr size_t longest_json = size_t{4} << 20;

// Parses an object. Throws WKV_FORMAT for bad syntax or UTF-8, a key twice in one object, more than 16 levels, anything
// but an object, and WKV_UNSUPPORTED for more than longest_json bytes. name is for messages.
nlohmann::json parse_json_object(std::string_view text, const std::string &name);

}  // namespace libwkv::formats
