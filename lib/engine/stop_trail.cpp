// SPDX-License-Identifier: Apache-2.0
#include "engine/stop_trail.h"

#include <algorithm>

namespace libwkv {

StopTrail::Entry StopTrail::entry(int32_t token, const Utf8Stream &before, uint64_t begin, const Utf8Stream &after,
                                  uint64_t decoded) {
  return {token, before, begin, decoded + (after.pending().empty() ? 0 : 1), std::nullopt};
}

bool StopTrail::wants_moment() const {
  const auto moments =
      std::count_if(entries_.begin(), entries_.end(), [](const Entry &entry) { return entry.moment.has_value(); });
  return static_cast<size_t>(moments) < most_moments;
}

void StopTrail::drop_until(uint64_t given) {
  const size_t first = find(given);
  if (first == entries_.size()) return entries_.clear();
  entries_.erase(entries_.begin(), entries_.begin() + static_cast<ptrdiff_t>(moment_before(first)));
}

size_t StopTrail::find(uint64_t stop) const {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry &entry) { return entry.end > stop; });
  return static_cast<size_t>(found - entries_.begin());
}

size_t StopTrail::moment_before(size_t index) const {
  while (index > 0 && !entries_[index].moment) index--;
  return index;
}

std::string_view bytes_before(const StopTrail::Entry &entry, std::string_view token_bytes, uint64_t stop) {
  Utf8Stream stream = entry.before;
  uint64_t decoded = entry.begin;
  std::string text;
  for (size_t i = 0; i < token_bytes.size(); i++) {
    // A byte that does not go on with an unfinished character turns that one into U+FFFD, and begins behind it.
    const bool is_behind = !stream.pending().empty() && !stream.is_continued_by(token_bytes[i]);
    if (decoded + (is_behind ? 3 : 0) >= stop) return token_bytes.substr(0, i);
    text.clear();
    stream.push(token_bytes.substr(i, 1), text);
    decoded += text.size();
  }
  return token_bytes;
}

}  // namespace libwkv
