// SPDX-License-Identifier: Apache-2.0
// The streaming decoder: whole characters only, and one U+FFFD for each maximal invalid part.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "text/decoder.h"
#include "text/vocabulary.h"

namespace libwkv::test {
namespace {

const std::string bad = "\xef\xbf\xbd";

// The well-formed byte sequences of Unicode, row by row (table 3-7 of the standard).
const std::vector<std::vector<std::pair<int, int>>> well_formed = {
    {{0x00, 0x7f}},
    {{0xc2, 0xdf}, {0x80, 0xbf}},
    {{0xe0, 0xe0}, {0xa0, 0xbf}, {0x80, 0xbf}},
    {{0xe1, 0xec}, {0x80, 0xbf}, {0x80, 0xbf}},
    {{0xed, 0xed}, {0x80, 0x9f}, {0x80, 0xbf}},
    {{0xee, 0xef}, {0x80, 0xbf}, {0x80, 0xbf}},
    {{0xf0, 0xf0}, {0x90, 0xbf}, {0x80, 0xbf}, {0x80, 0xbf}},
    {{0xf1, 0xf3}, {0x80, 0xbf}, {0x80, 0xbf}, {0x80, 0xbf}},
    {{0xf4, 0xf4}, {0x80, 0x8f}, {0x80, 0xbf}, {0x80, 0xbf}},
};

// What the table says about a whole text. *unfinished: bytes at its end that more text could complete.
std::string by_table(const std::string &bytes, size_t *unfinished) {
  std::string text;
  *unfinished = 0;
  for (size_t i = 0; i < bytes.size();) {
    size_t longest = 0;
    bool is_whole = false;
    for (const auto &row : well_formed) {
      size_t n = 0;
      while (n < row.size() && i + n < bytes.size() && static_cast<uint8_t>(bytes[i + n]) >= row[n].first &&
             static_cast<uint8_t>(bytes[i + n]) <= row[n].second)
        n++;
      if (n > longest) {
        longest = n;
        is_whole = n == row.size();
      }
    }
    if (is_whole) {
      text += bytes.substr(i, longest);
    } else if (longest > 0 && i + longest == bytes.size()) {
      *unfinished = longest;
    } else {
      text += bad;
    }
    i += std::max<size_t>(longest, 1);
  }
  return text;
}

std::string finished(Utf8Stream stream) {
  std::string text;
  stream.finish(text);
  return text;
}

TEST(Utf8, replaces_each_maximal_invalid_part_once) {
  struct Case {
    std::string bytes, text;
  };
  const Case cases[] = {
      {"plain", "plain"},
      {"\xc3\xa9\xe6\x97\xa5\xf0\x9f\x99\x82", "\xc3\xa9\xe6\x97\xa5\xf0\x9f\x99\x82"},
      // the standard's own examples (section 3.9)
      {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", bad + bad + bad + bad + bad + bad + bad + bad + "A"},
      {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", bad + bad + bad + bad + bad + bad + bad + bad + "A"},
      {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", bad + bad + bad + bad + bad + "A" + bad + bad + "B"},
      {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", bad + bad + bad + bad + "A"},
      // truncated at the end, by one, two and three bytes
      {"a\xf0\x9f\x99", "a" + bad},
      {"a\xf0\x9f", "a" + bad},
      {"a\xf0", "a" + bad},
      {"a\xe6\x97", "a" + bad},
      {"a\xc3", "a" + bad},
      // the edges of the ranges
      {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
      {"\xf4\x90\x80\x80", bad + bad + bad + bad},
      {"\xed\x9f\xbf\xee\x80\x80", "\xed\x9f\xbf\xee\x80\x80"},
      {"\xe0\xa0\x80\xe0\x9f\xbf", "\xe0\xa0\x80" + bad + bad + bad},
      {"\xf0\x90\x80\x80\xf0\x8f\xbf\xbf", "\xf0\x90\x80\x80" + bad + bad + bad + bad},
      {"\xc1\xbf\xc2\x80", bad + bad + "\xc2\x80"},
      {"\xf5\xf6\xf7\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff", bad + bad + bad + bad + bad + bad + bad + bad + bad + bad + bad},
      {"\xef\xbf\xbd\xef\xbb\xbf", "\xef\xbf\xbd\xef\xbb\xbf"},
  };
  for (const Case &c : cases) {
    Utf8Stream stream;
    std::string text;
    stream.push(c.bytes, text);
    stream.finish(text);
    EXPECT_EQ(text, c.text) << testing::PrintToString(c.bytes);
  }
}

TEST(Utf8, agrees_with_the_table_for_every_mixture_of_edge_bytes) {
  const std::vector<uint8_t> edges = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2,
                                      0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
  const size_t n = edges.size();
  size_t wrong = 0, cases = 0;
  for (size_t length = 1; length <= 4; length++) {
    size_t combinations = 1;
    for (size_t i = 0; i < length; i++) combinations *= n;
    for (size_t c = 0; c < combinations; c++) {
      std::string bytes;
      for (size_t i = 0, rest = c; i < length; i++, rest /= n) bytes += static_cast<char>(edges[rest % n]);
      size_t unfinished = 0;
      const std::string expected = by_table(bytes, &unfinished);
      Utf8Stream whole, single;
      std::string whole_text, single_text;
      whole.push(bytes, whole_text);
      for (const char &byte : bytes) single.push({&byte, 1}, single_text);
      const std::string end = unfinished ? bad : "";
      wrong += whole_text != expected || single_text != expected || finished(whole) != end || finished(single) != end;
      cases++;
    }
  }
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(cases, 300000u);
}

TEST(Utf8, never_splits_a_character_however_the_bytes_arrive) {
  const std::string text = "a\xc3\xa9-\xe6\x97\xa5\xf0\x9f\x99\x82z";
  for (uint32_t cuts = 0; cuts < 1u << (text.size() - 1); cuts++) {
    Utf8Stream stream;
    std::string sum;
    size_t begin = 0;
    for (size_t i = 0; i < text.size(); i++) {
      if (i + 1 < text.size() && !(cuts >> i & 1)) continue;
      std::string piece;
      stream.push(std::string_view(text).substr(begin, i + 1 - begin), piece);
      EXPECT_TRUE(is_utf8(piece));
      sum += piece;
      begin = i + 1;
    }
    ASSERT_EQ(sum, text) << cuts;
    ASSERT_EQ(finished(stream), "");
  }
}

TEST(Utf8, recognises_itself) {
  EXPECT_TRUE(is_utf8(""));
  EXPECT_TRUE(is_utf8("\xef\xbf\xbd \xf0\x9f\x99\x82"));
  EXPECT_FALSE(is_utf8("\xf0\x9f\x99"));
  EXPECT_FALSE(is_utf8("a\x80"));
  EXPECT_FALSE(is_utf8("\xed\xa0\x80"));
}

TEST(Decoder, gives_text_token_by_token) {
  const Tokenizer tokenizer = load_vocabulary(vocabulary_file({"\xf0\x9f", "ok"}));
  wkv_decoder *decoder = nullptr;
  ASSERT_EQ(wkv_decoder_create(tokenizer, &decoder, nullptr), WKV_OK);
  const char *text = nullptr;
  size_t bytes = 99;
  const auto push = [&](int32_t token) {
    EXPECT_EQ(wkv_decoder_push(decoder, token, &text, &bytes, nullptr), WKV_OK);
    EXPECT_EQ(text[bytes], 0);
    return std::string(text, bytes);
  };
  const auto finish = [&] {
    EXPECT_EQ(wkv_decoder_finish(decoder, &text, &bytes, nullptr), WKV_OK);
    EXPECT_EQ(text[bytes], 0);
    return std::string(text, bytes);
  };
  EXPECT_EQ(push(258), "ok");
  EXPECT_EQ(push(257), "");
  EXPECT_EQ(push(0), "");      // the end of text adds nothing
  EXPECT_EQ(push(70000), "");  // nor does an unknown token
  EXPECT_EQ(push(0x9a), "");   // 0x99
  EXPECT_EQ(push(0x83), "\xf0\x9f\x99\x82");
  EXPECT_EQ(push(1), std::string(1, '\0'));
  EXPECT_EQ(finish(), "");
  EXPECT_EQ(push(257), "");
  EXPECT_EQ(push(258), bad + "ok");
  EXPECT_EQ(push(257), "");
  EXPECT_EQ(finish(), bad);
  EXPECT_EQ(push(0x9a), bad);  // as new: nothing pending
  Failure failure;
  EXPECT_EQ(push(257), "");
  const char *before = text;
  EXPECT_EQ(wkv_decoder_push(decoder, -1, &text, &bytes, &failure), WKV_INVALID);
  EXPECT_EQ(text, before);
  EXPECT_EQ(wkv_decoder_push(nullptr, 1, &text, &bytes, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_decoder_push(decoder, 1, nullptr, &bytes, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_decoder_push(decoder, 1, &text, nullptr, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_decoder_finish(nullptr, &text, &bytes, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_decoder_finish(decoder, nullptr, &bytes, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_decoder_finish(decoder, &text, nullptr, &failure), WKV_INVALID);
  EXPECT_EQ(finish(), bad);  // the failures changed nothing
  wkv_decoder_release(decoder);
}

}  // namespace
}  // namespace libwkv::test
