// SPDX-License-Identifier: Apache-2.0
#include "formats/json.h"

#include <set>
#include <vector>

#include "base/error.h"
#include "formats/bytes.h"

namespace libwkv::formats {

nlohmann::json parse_json_object(std::string_view text, const std::string &name) {
  using nlohmann::json;
  constexpr int most_levels = 16;
  if (text.size() > longest_json)
    fail(WKV_UNSUPPORTED, "%s: %zu bytes of JSON, at most %zu are read", name.c_str(), text.size(), longest_json);
  std::vector<std::set<std::string>> keys;  // of the open objects
  auto watch = [&](int depth, json::parse_event_t event, json &value) {
    if (depth > most_levels) fail(WKV_FORMAT, "%s: JSON nested more than %d deep", name.c_str(), most_levels);
    switch (event) {
      case json::parse_event_t::object_start:
        keys.emplace_back();
        break;
      case json::parse_event_t::object_end:
        keys.pop_back();
        break;
      case json::parse_event_t::key:
        if (const std::string &key = value.get_ref<const std::string &>(); !keys.back().insert(key).second)
          fail(WKV_FORMAT, "%s: key %s is there twice", name.c_str(), printable(key).c_str());
        break;
      default:
        break;
    }
    return true;
  };
  json result;
  try {
    result = json::parse(text.begin(), text.end(), watch);
  } catch (const json::exception &problem) {
    fail(WKV_FORMAT, "%s: bad JSON: %s", name.c_str(), printable(problem.what()).c_str());
  }
  if (!result.is_object()) fail(WKV_FORMAT, "%s: not a JSON object", name.c_str());
  return result;
}

}  // namespace libwkv::formats
