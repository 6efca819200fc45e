// SPDX-License-Identifier: Apache-2.0
// Text in cells: how wide it is, where its lines break, and bars beside it. Cells are columns of a terminal.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace examples {

// Columns that UTF-8 text takes in a terminal.
size_t display_width(std::string_view text);

// Lines of at most `width` columns (of one character, if that is wider), broken at spaces where there are any; never
// empty.
std::vector<std::string> wrap(std::string_view text, size_t width);

// The beginning of `text` that fits `width` columns, with an ellipsis when something is missing; filled with spaces.
std::string fit(std::string_view text, size_t width, bool is_ascii);

// What may go to a terminal as one line: line ends become a mark, other control characters spaces, and what is not
// UTF-8 becomes U+FFFD.
std::string one_line(std::string_view bytes, bool is_ascii);

// Bytes of the longest beginning that does not end inside a character.
size_t whole_characters(std::string_view bytes);

// `share` of `width` columns, in eighths of a column where Unicode allows it.
std::string bar(double share, size_t width, bool is_ascii);

}  // namespace examples
