// SPDX-License-Identifier: Apache-2.0
// One Knuth-Morris-Pratt matcher a stop string: the cost of a byte does not depend on the strings' lengths.
#include "text/stop_matcher.h"

#include <algorithm>

namespace libwkv {

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string &text : stops) {
    std::vector<uint32_t> border(text.size() + 1, 0);
    uint32_t length = 0;
    for (size_t i = 1; i < text.size(); i++) {
      while (length > 0 && text[i] != text[length]) length = border[length];
      if (text[i] == text[length]) length++;
      border[i + 1] = length;
    }
    stops_.push_back({std::move(text), std::move(border)});
  }
}

bool StopMatcher::push(State &state, std::string_view text, std::string &out) const {
  if (stops_.empty()) {
    out += text;
    return false;
  }
  for (const char byte : text) {
    state.held += byte;
    uint32_t held = 0, complete = 0;
    for (size_t s = 0; s < stops_.size(); s++) {
      const Stop &stop = stops_[s];
      uint32_t matched = state.matched[s];
      while (matched > 0 && stop.text[matched] != byte) matched = stop.border[matched];
      if (stop.text[matched] == byte) matched++;
      if (matched == stop.text.size()) complete = std::max(complete, matched);
      state.matched[s] = matched;
      held = std::max(held, matched);
    }
    if (complete > 0) {
      out.append(state.held, 0, state.held.size() - complete);
      state = begin();
      return true;
    }
    if (held == 0) {
      out += state.held;
      state.held.clear();
    }
  }
  uint32_t keep = 0;
  for (const uint32_t matched : state.matched) keep = std::max(keep, matched);
  out.append(state.held, 0, state.held.size() - keep);
  state.held.erase(0, state.held.size() - keep);
  return false;
}

void StopMatcher::finish(State &state, std::string &out) const {
  out += state.held;
  state = begin();
}

}  // namespace libwkv
