// SPDX-License-Identifier: Apache-2.0
#include "common/table.h"

#include <algorithm>
#include <cstdio>

namespace examples {

using nlohmann::json;

void print(const Table &table) {
  size_t width = 0;
  for (const auto &[name, value] : table)
    if (!value.empty()) width = std::max(width, name.size());
  for (size_t i = 0; i < table.size(); i++) {
    const auto &[name, value] = table[i];
    if (value.empty())
      std::printf("%s%s\n", i ? "\n" : "", name.c_str());
    else
      std::printf("  %-*s  %s\n", static_cast<int>(width), name.c_str(), value.c_str());
  }
}

void print(const json &object) {
  std::printf("%s\n", object.dump(2, ' ', false, json::error_handler_t::replace).c_str());
}

void print_line(const json &object) {
  std::printf("%s\n", object.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
  std::fflush(stdout);
}

std::string hexadecimal(uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace examples
