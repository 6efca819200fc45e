// SPDX-License-Identifier: Apache-2.0
// RWKV vocabulary files, and Python's notation of bytes.
#include "formats/checkpoint_files.h"
#include "formats/python_literal.h"
#include "formats/vocabulary.h"

namespace libwkv::tests {
namespace {

using formats::parse_vocabulary;
using formats::VocabularyToken;

std::string bytes_of_literal(const std::string &literal) {
  std::string out;
  const char *problem = formats::read_python_literal(literal, out);
  EXPECT_EQ(problem, nullptr) << literal;
  return out;
}

TEST(VocabularyFile, literals) {
  using namespace std::string_literals;
  EXPECT_EQ(bytes_of_literal("'abc'"), "abc");
  EXPECT_EQ(bytes_of_literal("\"it's\""), "it's");
  EXPECT_EQ(bytes_of_literal("' a b '"), " a b ");
  EXPECT_EQ(bytes_of_literal(R"('\n\r\t\\\'\"')"), "\n\r\t\\'\"");
  EXPECT_EQ(bytes_of_literal(R"('\x00\x7f')"), "\0\x7f"s);
  EXPECT_EQ(bytes_of_literal(R"('\xe9')"), "\xc3\xa9");  // a code point in text
  EXPECT_EQ(bytes_of_literal(R"(b'\xe9')"), "\xe9");     // a byte in bytes
  EXPECT_EQ(bytes_of_literal(R"('\u4f60\U0001f642')"), "你🙂");
  EXPECT_EQ(bytes_of_literal("'你'"), "你");
  EXPECT_EQ(bytes_of_literal("b\"'\""), "'");
}

TEST(VocabularyFile, what_is_no_literal_is_refused) {
  for (const char *literal : {"",
                              "'",
                              "b",
                              "b'",
                              "abc",
                              "'abc",
                              "abc'",
                              "'a'b'",
                              "'\\'",
                              "'\\xZZ'",
                              "'\\x1'",
                              "'\\u12'",
                              "'\\ud800'",
                              "'\\U00110000'",
                              "'\\q'",
                              "b'\\u0041'",
                              "b'é'",
                              "'\xff'",
                              "'\xed\xa0\x80'",
                              "__import__('os')",
                              "'a' 'b'",
                              "'a'+'b'",
                              "('a')",
                              "u'a'",
                              "r'a'",
                              "B'a'",
                              "1",
                              "None",
                              "\"a'"}) {
    std::string out;
    EXPECT_NE(formats::read_python_literal(literal, out), nullptr) << literal;
  }
}

TEST(VocabularyFile, python_bytes_round_trip) {
  std::vector<std::string> cases = {"", "abc", "'", "\"", "'\"", "\\", "\n\r\t", "\\n", "\x7f\x80\xff"};
  for (int i = 0; i < 256; i++) cases.push_back(std::string(1, static_cast<char>(i)));
  for (const std::string &bytes : cases) {
    std::string out;
    EXPECT_EQ(formats::read_python_bytes(formats::write_python_bytes(bytes), out), nullptr);
    EXPECT_EQ(out, bytes);
  }
  EXPECT_EQ(formats::write_python_bytes("it's"), "it's");
  EXPECT_EQ(formats::write_python_bytes("'\""), "\\'\"");
  EXPECT_EQ(formats::write_python_bytes("\xe4\n\x01"), "\\xe4\\n\\x01");
}

TEST(VocabularyFile, lines) {
  std::vector<VocabularyToken> tokens = parse_vocabulary("7 ' a b' 4\n3 b'\\xff' 1\r\n5 '\\n\\n' 2", "test");
  ASSERT_EQ(tokens.size(), 3u);
  EXPECT_EQ(tokens[0].id, 3);
  EXPECT_EQ(tokens[0].bytes, "\xff");
  EXPECT_EQ(tokens[1].bytes, "\n\n");
  EXPECT_EQ(tokens[2].id, 7);
  EXPECT_EQ(tokens[2].bytes, " a b");
  EXPECT_EQ(parse_vocabulary("\xef\xbb\xbf"
                             "1 'a' 1\n",
                             "test")
                .size(),
            1u);
}

TEST(VocabularyFile, errors_name_the_line) {
  struct {
    const char *content, *part;
  } cases[] = {
      {"", "no tokens"},
      {"\xef\xbb\xbf", "no tokens"},
      {"1 'a' 1\n\n2 'b' 1\n", "line 2"},
      {"1 'a' 1\n2 'b'\n", "line 2"},
      {"1 'a' 1\nx 'b' 1\n", "line 2"},
      {"-1 'a' 1\n", "line 1"},
      {"+1 'a' 1\n", "line 1"},
      {"1.0 'a' 1\n", "line 1"},
      {" 1 'a' 1\n", "line 1"},
      {"0 'a' 1\n", "id 0"},
      {"99999999999999999999 'a' 1\n", "line 1"},
      {"2000000 'a' 1\n", "line 1"},
      {"1 'a' 1\n1 'b' 1\n", "line 2: id 1 is in line 1"},
      {"1 'a' 1\n2 b'a' 1\n", "line 2: the token is in line 1"},
      {"1 'abc' 5\n", "3 bytes, its length field says 5"},
      {"1 'a' 1 \n", "line 1"},
      {"1 'a' x\n", "line 1"},
      {"1 '' 0\n", "empty token"},
      {"1 'a 2\n", "line 1"},
      {"1 __import__('os').system('true') 4\n", "line 1"},
  };
  for (const auto &[content, part] : cases) {
    std::string message;
    EXPECT_EQ(status_of([&] { parse_vocabulary(content, "test"); }, &message), WKV_FORMAT) << content;
    EXPECT_NE(message.find(part), std::string::npos) << content << ": " << message;
  }
}

TEST(VocabularyFile, committed_file) {
  std::vector<VocabularyToken> tokens = formats::load_vocabulary((data_folder() / "rwkv_vocab.txt").string());
  ASSERT_EQ(tokens.size(), 323u);
  EXPECT_EQ(tokens.back().bytes, "Assistant:");
  EXPECT_EQ(status_of([] { formats::load_vocabulary("/nonexistent"); }), WKV_NOT_FOUND);
}

}  // namespace
}  // namespace libwkv::tests
