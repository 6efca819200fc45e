// SPDX-License-Identifier: Apache-2.0
// The UTF-8 state machine.
#include "text/decoder.h"

#include "base/error.h"

namespace libwkv {
namespace {

constexpr std::string_view replacement = "\xef\xbf\xbd";

}  // namespace

void Utf8Stream::push(std::string_view bytes, std::string &text) {
  // Each byte, and the character pending from before, becomes at most one U+FFFD: nothing below can fail.
  text.reserve(text.size() + replacement.size() * (bytes.size() + 1));
  for (size_t i = 0; i < bytes.size();) {
    const uint8_t byte = static_cast<uint8_t>(bytes[i]);
    if (missing_ == 0) {
      i++;
      if (byte < 0x80) {
        text += static_cast<char>(byte);
        continue;
      }
      // C0 and C1 could only begin overlong forms, F5 and above only numbers beyond U+10FFFF; so could some second
      // bytes, and after ED those from A0 would be surrogates.
      if (byte < 0xc2 || byte > 0xf4) {
        text += replacement;
        continue;
      }
      lowest_ = byte == 0xe0 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;
      highest_ = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;
      missing_ = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
      pending_[0] = static_cast<char>(byte);
      pending_bytes_ = 1;
    } else if (byte < lowest_ || byte > highest_) {
      finish(text);  // and the byte is looked at again, as a first one
    } else {
      i++;
      pending_[pending_bytes_++] = static_cast<char>(byte);
      lowest_ = 0x80;
      highest_ = 0xbf;
      if (--missing_ > 0) continue;
      text.append(pending_.data(), pending_bytes_);
      pending_bytes_ = 0;
    }
  }
}

void Utf8Stream::finish(std::string &text) {
  if (pending_bytes_ > 0) text += replacement;
  pending_bytes_ = missing_ = 0;
}

bool is_utf8(std::string_view bytes) {
  std::string text;
  Utf8Stream stream;
  stream.push(bytes, text);
  stream.finish(text);
  return text == bytes;
}

const std::string &Decoder::push(int32_t token) {
  if (token < 0) fail(WKV_INVALID, "token %d is negative", token);
  text_.clear();
  stream_.push(tokenizer_->bytes_of(token), text_);
  return text_;
}

const std::string &Decoder::finish() {
  text_.clear();
  stream_.finish(text_);
  return text_;
}

}  // namespace libwkv
