// SPDX-License-Identifier: Apache-2.0
#include "formats/python_literal.h"

#include <cstdint>

#include "formats/bytes.h"

namespace libwkv::formats {

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Takes `digits` hexadecimal digits at `at`.
bool read_hex(std::string_view text, size_t &at, size_t digits, uint32_t &value) {
  if (text.size() - at < digits) return false;
  value = 0;
  for (size_t end = at + digits; at < end; at++) {
    int digit = hex_digit(text[at]);
    if (digit < 0) return false;
    value = value << 4 | static_cast<uint32_t>(digit);
  }
  return true;
}

// quote: the character that may not stand unescaped; 0: none.
const char *read_inside(std::string_view inside, bool is_bytes, char quote, std::string &out) {
  for (size_t i = 0; i < inside.size();) {
    char c = inside[i++];
    if (c != '\\') {
      if (c == quote) return "a quote inside the literal";
      if (is_bytes && static_cast<unsigned char>(c) >= 0x80) return "a character outside ASCII in a bytes literal";
      out += c;
      continue;
    }
    if (i == inside.size()) return "a backslash at the end";
    uint32_t value = 0;
    switch (char escape = inside[i++]) {
      case '\\':
      case '\'':
      case '"':
        out += escape;
        break;
      case 'n':
        out += '\n';
        break;
      case 'r':
        out += '\r';
        break;
      case 't':
        out += '\t';
        break;
      case 'x':
        if (!read_hex(inside, i, 2, value)) return "a bad \\x escape";
        if (is_bytes)
          out += static_cast<char>(value);
        else
          append_utf8(out, value);
        break;
      case 'u':
      case 'U':
        if (is_bytes || !read_hex(inside, i, escape == 'u' ? 4 : 8, value) || value > 0x10ffff ||
            (value >= 0xd800 && value < 0xe000))
          return "a bad \\u escape";
        append_utf8(out, value);
        break;
      default:
        return "an unknown escape";
    }
  }
  return nullptr;
}

}  // namespace

const char *read_python_literal(std::string_view literal, std::string &out) {
  bool is_bytes = literal.starts_with('b');
  if (is_bytes) literal.remove_prefix(1);
  if (literal.empty() || (literal.front() != '\'' && literal.front() != '"')) return "no text or bytes literal";
  char quote = literal.front();
  if (literal.size() < 2 || literal.back() != quote) return "the literal does not end";
  std::string_view inside = literal.substr(1, literal.size() - 2);
  if (!is_bytes && !is_utf8(inside)) return "invalid UTF-8";
  return read_inside(inside, is_bytes, quote, out);
}

const char *read_python_bytes(std::string_view inside, std::string &out) { return read_inside(inside, true, 0, out); }

std::string write_python_bytes(std::string_view bytes) {
  constexpr char digits[] = "0123456789abcdef";
  // Python takes double quotes around bytes that hold single ones alone, and escapes single ones otherwise.
  bool escapes_quote = bytes.find('"') != std::string_view::npos;
  std::string out;
  for (char c : bytes) {
    unsigned char byte = static_cast<unsigned char>(c);
    if (c == '\\' || (c == '\'' && escapes_quote)) {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte >= 0x7f) {
      out += "\\x";
      out += digits[byte >> 4];
      out += digits[byte & 15];
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace libwkv::formats
