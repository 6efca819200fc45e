// SPDX-License-Identifier: Apache-2.0
#include "common/text_layout.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace examples {
namespace {

struct Character {
  uint32_t code;  // U+FFFD for what is not UTF-8
  size_t bytes;
  bool is_cut;  // the text ends inside it
};

Character first_character(std::string_view text) {
  const unsigned char lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {lead, 1, false};
  const size_t bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4) return {0xfffd, 1, false};
  uint32_t code = lead & (0x7fu >> bytes);
  for (size_t i = 1; i < bytes; i++) {
    if (i == text.size()) return {0xfffd, i, true};
    const unsigned char next = static_cast<unsigned char>(text[i]);
    if ((next & 0xc0) != 0x80) return {0xfffd, i, false};
    code = code << 6 | (next & 0x3f);
  }
  const bool is_overlong = (bytes == 3 && code < 0x800) || (bytes == 4 && code < 0x10000);
  if (is_overlong || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return {0xfffd, bytes, false};
  return {code, bytes, false};
}

size_t columns(uint32_t code) {
  struct Range {
    uint32_t first, last;
  };
  constexpr Range none[] = {{0x300, 0x36f}, {0x200b, 0x200f}, {0xfe00, 0xfe0f}};
  constexpr Range two[] = {{0x1100, 0x115f}, {0x2e80, 0xa4cf}, {0xac00, 0xd7a3},   {0xf900, 0xfaff},
                           {0xfe30, 0xfe6f}, {0xff00, 0xff60}, {0x1f300, 0x1faff}, {0x20000, 0x3fffd}};
  const auto has = [code](const Range &range) { return code >= range.first && code <= range.last; };
  if (std::any_of(std::begin(none), std::end(none), has)) return 0;
  return std::any_of(std::begin(two), std::end(two), has) ? 2 : 1;
}

}  // namespace

size_t display_width(std::string_view text) {
  size_t width = 0;
  while (!text.empty()) {
    const Character c = first_character(text);
    width += columns(c.code);
    text.remove_prefix(c.bytes);
  }
  return width;
}

std::vector<std::string> wrap(std::string_view text, size_t width) {
  std::vector<std::string> lines(1);
  size_t used = 0, break_at = std::string::npos;  // the last space of the line
  while (!text.empty()) {
    const Character c = first_character(text);
    std::string &line = lines.back();
    const size_t more = columns(c.code);
    if (used + more > width && !line.empty()) {
      std::string rest;
      if (c.code == ' ') {
        text.remove_prefix(c.bytes);
      } else if (break_at != std::string::npos) {
        rest = line.substr(break_at + 1);
        line.erase(break_at);
      }
      used = display_width(rest);
      lines.push_back(std::move(rest));
      break_at = std::string::npos;
      continue;
    }
    if (c.code == ' ' && !line.empty()) break_at = line.size();
    line += text.substr(0, c.bytes);
    used += more;
    text.remove_prefix(c.bytes);
  }
  return lines;
}

std::string fit(std::string_view text, size_t width, bool is_ascii) {
  std::string line(text);
  if (display_width(line) > width) {
    std::string mark = is_ascii ? "..." : "…";
    if (display_width(mark) > width) mark.clear();
    const size_t room = width - display_width(mark);
    line.clear();
    for (size_t used = 0; !text.empty();) {
      const Character c = first_character(text);
      used += columns(c.code);
      if (used > room) break;
      line += text.substr(0, c.bytes);
      text.remove_prefix(c.bytes);
    }
    line += mark;
  }
  return line + std::string(width - std::min(width, display_width(line)), ' ');
}

std::string one_line(std::string_view bytes, bool is_ascii) {
  std::string line;
  while (!bytes.empty()) {
    const Character c = first_character(bytes);
    if (c.code == '\n')
      line += is_ascii ? "\\n" : "⏎";
    else if (c.code < 0x20 || (c.code >= 0x7f && c.code < 0xa0))
      line += ' ';
    else if (c.code == 0xfffd)
      line += is_ascii ? "?" : "\xef\xbf\xbd";
    else
      line += bytes.substr(0, c.bytes);
    bytes.remove_prefix(c.bytes);
  }
  return line;
}

size_t whole_characters(std::string_view bytes) {
  size_t whole = 0;
  while (whole < bytes.size()) {
    const Character c = first_character(bytes.substr(whole));
    if (c.is_cut) break;
    whole += c.bytes;
  }
  return whole;
}

std::string bar(double share, size_t width, bool is_ascii) {
  static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const double clamped = share > 0 ? std::min(share, 1.0) : 0;
  const size_t parts = static_cast<size_t>(std::lround(clamped * static_cast<double>(width) * (is_ascii ? 1 : 8)));
  if (is_ascii) return std::string(parts, '#');
  std::string text;
  for (size_t i = 0; i < parts / 8; i++) text += "█";
  return text + eighths[parts % 8];
}

}  // namespace examples
