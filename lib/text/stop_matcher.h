// SPDX-License-Identifier: Apache-2.0
// Finds stop strings in text that arrives in pieces, and holds back what could be the beginning of one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace libwkv {

// The stop that is complete first ends the text, the longest of those that are complete at the same byte; so the result
// does not depend on how the text was cut into pieces.
class StopMatcher {
 public:
  StopMatcher() = default;
  // None may be empty.
  explicit StopMatcher(std::vector<std::string> stops);

  size_t size() const { return stops_.size(); }
  const std::string &operator[](size_t index) const { return stops_[index].text; }

  // What was read since construction and not given out yet. A plain value, so that a caller can work on a copy. held
  // makes it: pushing held to begin() gives the same state and no text, since no match reaches back further.
  struct State {
    std::string held;
    std::vector<uint32_t> matched;  // for each stop: how many of its bytes end the text so far
  };
  State begin() const { return {{}, std::vector<uint32_t>(stops_.size(), 0)}; }

  // Reads text and appends to out what is certain not to belong to a stop. True when a stop is complete: out then ends
  // before it, and what was held is dropped.
  bool push(State &state, std::string_view text, std::string &out) const;
  // No text follows: gives out what was held.
  void finish(State &state, std::string &out) const;

 private:
  struct Stop {
    std::string text;
    std::vector<uint32_t> border;  // [n]: longest proper beginning of the first n bytes that also ends them
  };
  std::vector<Stop> stops_;
};

}  // namespace libwkv
