// SPDX-License-Identifier: Apache-2.0
#include "formats/bytes.h"

namespace libwkv::formats {

std::string printable(std::string_view text) {
  constexpr size_t longest = 120;
  std::string out;
  for (char c : text.substr(0, longest)) out += c >= 0x20 && c < 0x7f ? c : '?';
  if (text.size() > longest) out += "...";
  return out;
}

bool is_utf8(std::string_view text) {
  size_t i = 0;
  auto byte = [&](size_t at) { return static_cast<unsigned char>(text[at]); };
  while (i < text.size()) {
    uint32_t lead = byte(i++);
    if (lead < 0x80) continue;
    int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - i < static_cast<size_t>(more)) return false;
    uint32_t code_point = lead & (0x3fu >> more);
    for (int k = 0; k < more; k++) {
      uint32_t next = byte(i++);
      if ((next & 0xc0) != 0x80) return false;
      code_point = code_point << 6 | (next & 0x3f);
    }
    if (more == 2 && (code_point < 0x800 || (code_point >= 0xd800 && code_point < 0xe000))) return false;
    if (more == 3 && (code_point < 0x10000 || code_point > 0x10ffff)) return false;
  }
  return true;
}

void append_utf8(std::string &out, uint32_t code_point) {
  auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((code_point >> shift) & 0x3f)); };
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    out += static_cast<char>(0xc0 | code_point >> 6);
    tail(0);
  } else if (code_point < 0x10000) {
    out += static_cast<char>(0xe0 | code_point >> 12);
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xf0 | code_point >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

}  // namespace libwkv::formats
