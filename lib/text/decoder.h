// SPDX-License-Identifier: Apache-2.0
// Text that arrives in pieces: bytes to whole UTF-8 characters, and tokens to text.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "text/tokenizer.h"

namespace libwkv {

// Passes whole characters on and keeps an unfinished one. What cannot become a character is replaced by U+FFFD, one for
// each maximal part that a character could have begun with, as the Unicode standard recommends (chapter 3, "U+FFFD
// Substitution of Maximal Subparts"). Plain values: copying it is the way to try something.
class Utf8Stream {
 public:
  // Appends to text. Gives the strong guarantee: when memory fails, nothing has changed.
  void push(std::string_view bytes, std::string &text);
  // The unfinished character, if any, becomes U+FFFD; then as new.
  void finish(std::string &text);

  // The bytes of the unfinished character.
  std::string_view pending() const { return {pending_.data(), pending_bytes_}; }
  // Would this byte go on with the unfinished character? False when there is none.
  bool is_continued_by(char byte) const {
    return missing_ > 0 && static_cast<uint8_t>(byte) >= lowest_ && static_cast<uint8_t>(byte) <= highest_;
  }

 private:
  std::array<char, 4> pending_{};
  uint8_t pending_bytes_ = 0;
  uint8_t missing_ = 0;                     // bytes until the character is complete
  uint8_t lowest_ = 0x80, highest_ = 0xbf;  // range of the next one
};

// Is it UTF-8 from end to end?
bool is_utf8(std::string_view bytes);

// A Utf8Stream fed by tokens, with the text of the last call.
class Decoder {
 public:
  explicit Decoder(std::shared_ptr<const Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}

  // Both give text that is valid until the next call. Throws WKV_INVALID for a negative token.
  const std::string &push(int32_t token);
  const std::string &finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  Utf8Stream stream_;
  std::string text_;
};

}  // namespace libwkv
