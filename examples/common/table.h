// SPDX-License-Identifier: Apache-2.0
// Names and values, one pair a line, for people.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace examples {

using Table = std::vector<std::pair<std::string, std::string>>;

// A row with an empty value is a heading.
void print(const Table &table);

// One object, over several lines or on one.
void print(const nlohmann::json &object);
void print_line(const nlohmann::json &object);

// A fingerprint, as 16 hexadecimal digits.
std::string hexadecimal(uint64_t value);

}  // namespace examples
