// SPDX-License-Identifier: Apache-2.0
// Vocabularies for tests: written as files, loaded through the C ABI.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "support/handles.h"

namespace libwkv::test {

// A line of a vocabulary file, with every byte escaped.
inline std::string vocabulary_line(int32_t id, std::string_view bytes) {
  std::string line = std::to_string(id) + " b'";
  for (const char c : bytes) {
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    line += escaped;
  }
  return line + "' " + std::to_string(bytes.size()) + "\n";
}

// Every single byte as in the World vocabulary (id = byte + 1), then these from id 257.
inline std::string vocabulary_file(const std::vector<std::string> &more) {
  std::string file;
  for (int byte = 0; byte < 256; byte++) file += vocabulary_line(byte + 1, std::string(1, static_cast<char>(byte)));
  for (size_t i = 0; i < more.size(); i++) file += vocabulary_line(static_cast<int32_t>(257 + i), more[i]);
  return file;
}

inline Tokenizer load_vocabulary(const std::string &file) {
  Tokenizer tokenizer;
  Failure failure;
  EXPECT_EQ(wkv_tokenizer_load_memory(file.data(), file.size(), tokenizer.out(), &failure), WKV_OK) << failure.message;
  return tokenizer;
}

inline std::vector<int32_t> encode(const wkv_tokenizer *tokenizer, std::string_view text) {
  size_t count = 0;
  Failure failure;
  EXPECT_EQ(wkv_tokenizer_encode(tokenizer, text.data(), text.size(), nullptr, 0, &count, &failure), WKV_OK)
      << failure.message;
  std::vector<int32_t> tokens(count);
  size_t written = 0;
  // An empty vector may have no memory: that is another question for the size, which is 0.
  EXPECT_EQ(wkv_tokenizer_encode(tokenizer, text.data(), text.size(), tokens.data(), count, &written, &failure), WKV_OK)
      << failure.message;
  EXPECT_EQ(written, count);
  return tokens;
}

inline std::string decode(const wkv_tokenizer *tokenizer, const std::vector<int32_t> &tokens) {
  size_t count = 0;
  Failure failure;
  EXPECT_EQ(wkv_tokenizer_decode(tokenizer, tokens.data(), tokens.size(), nullptr, 0, &count, &failure), WKV_OK)
      << failure.message;
  std::string text(count, '?');
  size_t written = 0;
  EXPECT_EQ(wkv_tokenizer_decode(tokenizer, tokens.data(), tokens.size(), text.data(), count, &written, &failure),
            WKV_OK)
      << failure.message;
  EXPECT_EQ(written, count);
  return text;
}

}  // namespace libwkv::test
