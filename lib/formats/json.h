// SPDX-License-Identifier: Apache-2.0
// JSON from files that may be damaged or hostile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace libwkv::formats {

// Largest text read. The header of the largest released checkpoint has 300 KB; parsed, a text takes up to 40 times its
// size.
inline constexpr size_t longest_json = size_t{4} << 20;

struct JsonValue;
struct JsonMember;
using JsonArray = std::vector<JsonValue>;
using JsonObject = std::vector<JsonMember>;  // sorted by key, no key twice

// Our own, since the parser's values allocate while they are destroyed, which ends the process when memory has run out.
// Destroying this one only frees, and the limit on levels bounds its recursion.
struct JsonValue {
  // Whole numbers are int64_t where they fit, else uint64_t, else double, which also holds -0.
  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, JsonArray, JsonObject> held;
};

struct JsonMember {
  std::string key;
  JsonValue value;
};

// Parses an object. Throws WKV_FORMAT for bad syntax or UTF-8, a key twice in one object, more than 16 levels, anything
// but an object, and WKV_UNSUPPORTED for more than longest_json bytes. name is for messages.
JsonObject parse_json_object(std::string_view text, const std::string &name);

// NULL when the key is missing or null.
const JsonValue *find(const JsonObject &object, std::string_view key);

// NULL when the value is of another kind.
template <class Kind>
const Kind *get_if(const JsonValue &value) {
  return std::get_if<Kind>(&value.held);
}

// Nothing for a number with a fraction or exponent, or beyond 64 signed bits.
std::optional<int64_t> as_integer(const JsonValue &value);
std::optional<double> as_number(const JsonValue &value);
bool is_true(const JsonValue &value);
bool is_text(const JsonValue &value, std::string_view text);

// As JSON, for messages.
std::string to_text(const JsonValue &value);

}  // namespace libwkv::formats
