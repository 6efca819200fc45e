// SPDX-License-Identifier: Apache-2.0
// Encoding and decoding: exact on any bytes, the longest token at each place.
#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "support/golden.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace libwkv::test {
namespace {

using Ids = std::vector<int32_t>;

Tokenizer small_tokenizer() {
  return load_vocabulary(vocabulary_file({"he", "hell", "hello w", " world", "\n\n", "\xc3\xa9",
                                          "\xe6\x97\xa5\xe6\x9c\xac", std::string("\0\0\0", 3), "helium"}));
}

TEST(Tokenizer, takes_the_longest_token_at_each_place) {
  const Tokenizer tokenizer = small_tokenizer();
  struct Case {
    std::string text;
    Ids ids;
  };
  const Case cases[] = {
      {"", {}},
      {"h", {'h' + 1}},
      {"he", {257}},
      {"hel", {257, 'l' + 1}},
      {"hello", {258, 'o' + 1}},
      // greedy: "hello w" wins although " world" would be longer from the blank on
      {"hello world", {259, 'o' + 1, 'r' + 1, 'l' + 1, 'd' + 1}},
      {"hi world", {'h' + 1, 'i' + 1, 260}},
      // a path that leads nowhere falls back to the last token passed
      {"heliu", {257, 'l' + 1, 'i' + 1, 'u' + 1}},
      {"helium", {265}},
      {"\n\n\n", {261, 11}},
      {"\xc3\xa9\xc3", {262, 0xc4}},
      {"\xe6\x97\xa5\xe6\x9c\xac\xe6\x97", {263, 0xe7, 0x98}},
      {std::string("\0\0\0\0", 4), {264, 1}},
      {"\xff\xfe", {256, 255}},
  };
  for (const Case &c : cases) {
    EXPECT_EQ(encode(tokenizer, c.text), c.ids) << c.text;
    EXPECT_EQ(decode(tokenizer, c.ids), c.text);
  }
}

TEST(Tokenizer, describes_itself) {
  const Tokenizer tokenizer = small_tokenizer();
  wkv_tokenizer_info info{};
  info.struct_size = sizeof info;
  ASSERT_EQ(wkv_tokenizer_get_info(tokenizer, &info, nullptr), WKV_OK);
  EXPECT_EQ(info.tokens, 265);
  EXPECT_EQ(info.ids_end, 266);
  EXPECT_EQ(info.longest_bytes, 7);
}

TEST(Tokenizer, agrees_with_the_golden_cases) {
  for (const std::string model : {"rnd_a", "rnd_d"}) {
    const auto directory = golden_directory(model);
    const auto vocabulary = directory / "weights/rwkv_vocab.txt", cases = directory / "golden/tokenizer_cases.json";
    if (directory.empty() || !std::filesystem::exists(vocabulary) || !std::filesystem::exists(cases))
      GTEST_SKIP() << "no golden tokenizer cases of " << model;
    Tokenizer tokenizer;
    Failure failure;
    WKV_ASSERT_STATUS(WKV_OK, wkv_tokenizer_load(vocabulary.c_str(), tokenizer.out(), &failure), failure);
    size_t count = 0;
    for (const auto &c : nlohmann::json::parse(std::ifstream(cases))) {
      const std::string hex = c.at("bytes_hex");
      std::string text;
      for (size_t i = 0; i < hex.size(); i += 2) text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
      const Ids ids = c.at("ids");
      EXPECT_EQ(encode(tokenizer, text), ids) << model << " " << hex;
      EXPECT_EQ(decode(tokenizer, ids), text) << model << " " << hex;
      count++;
    }
    EXPECT_GE(count, 5u);
  }
}

TEST(Tokenizer, finds_the_vocabulary_of_a_model) {
  const auto directory = golden_directory("rnd_a");
  const auto weights = directory / "weights";
  if (!std::filesystem::exists(weights / "rnd_a.F16.gguf") || !std::filesystem::exists(weights / "fla_bf16") ||
      !std::filesystem::exists(weights / "rnd_a.f16.pth"))
    GTEST_SKIP() << "no golden weights of rnd_a";
  Tokenizer tokenizer;
  Failure failure;
  WKV_ASSERT_STATUS(WKV_OK, wkv_tokenizer_load((weights / "rwkv_vocab.txt").c_str(), tokenizer.out(), &failure),
                    failure);
  std::string text = "Hello the world, \xe4\xb8\xad\n\n and 'quotes' \"too\" \\ ";
  for (int byte = 0; byte < 256; byte++) text += static_cast<char>(byte);
  for (const char *name : {"rnd_a.F16.gguf", "fla_bf16"}) {
    Tokenizer other;
    WKV_ASSERT_STATUS(WKV_OK, wkv_tokenizer_load((weights / name).c_str(), other.out(), &failure), failure);
    EXPECT_EQ(encode(other, text), encode(tokenizer, text)) << name;
  }
  Tokenizer none;
  EXPECT_EQ(wkv_tokenizer_load((weights / "rnd_a.f16.pth").c_str(), none.out(), &failure), WKV_NOT_FOUND);
  EXPECT_NE(std::string(failure.message).find("no vocabulary"), std::string::npos) << failure.message;
  EXPECT_EQ(none.get(), nullptr);
}

TEST(Tokenizer, brings_back_a_megabyte_of_random_bytes) {
  std::mt19937_64 random(7);
  std::vector<std::string> more;
  std::map<std::string, bool> known;
  while (more.size() < 5000) {
    std::string token(2 + random() % 3, 0);
    for (char &c : token) c = static_cast<char>(random());
    if (!std::exchange(known[token], true)) more.push_back(token);
  }
  const Tokenizer tokenizer = load_vocabulary(vocabulary_file(more));
  std::string noise(1 << 20, 0), tokens_in_a_row;
  for (char &c : noise) c = static_cast<char>(random());
  while (tokens_in_a_row.size() < 1 << 20) tokens_in_a_row += more[random() % more.size()];
  for (const std::string &text : {noise, tokens_in_a_row})
    EXPECT_TRUE(decode(tokenizer, encode(tokenizer, text)) == text);
  EXPECT_LT(encode(tokenizer, tokens_in_a_row).size(), tokens_in_a_row.size() / 2);  // the long ones are used
}

TEST(Tokenizer, equals_a_naive_search_on_random_vocabularies) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 60; round++) {
    // Few letters and long tokens: many beginnings in common, many dead ends. Every third vocabulary lacks a letter.
    const int letters = 2 + static_cast<int>(random() % 20);
    const bool is_complete = round % 3 != 0;
    std::map<std::string, int32_t> naive;
    std::vector<formats::VocabularyToken> vocabulary;
    const auto add = [&](std::string token) {
      if (naive.emplace(token, static_cast<int32_t>(vocabulary.size() + 1)).second)
        vocabulary.push_back({static_cast<int32_t>(vocabulary.size() + 1), token});
    };
    const auto letter = [&](uint64_t value) { return static_cast<char>(250 + value % static_cast<uint64_t>(letters)); };
    for (int i = is_complete ? 0 : 1; i < letters; i++) add(std::string(1, letter(static_cast<uint64_t>(i))));
    for (int i = 0; i < 300; i++) {
      std::string token(1 + random() % 12, 0);
      for (char &c : token) c = letter(random() % 3 ? random() % 2 : random());
      if (is_complete || token.size() > 1) add(token);
    }
    const libwkv::Tokenizer tokenizer(vocabulary);
    for (int t = 0; t < 20; t++) {
      std::string text(random() % 200, 0);
      for (char &c : text) c = letter(random() % 3 ? random() % 2 : random());
      Ids expected;
      size_t position = 0;
      while (position < text.size()) {
        size_t length = std::min<size_t>(12, text.size() - position);
        while (length > 0 && !naive.count(text.substr(position, length))) length--;
        if (length == 0) break;
        expected.push_back(naive.at(text.substr(position, length)));
        position += length;
      }
      if (position == text.size()) {
        EXPECT_EQ(tokenizer.encode(text), expected);
        EXPECT_EQ(tokenizer.count(text), expected.size());
        continue;
      }
      try {
        tokenizer.encode(text);
        ADD_FAILURE() << "no failure";
      } catch (const Error &e) {
        EXPECT_EQ(e.status(), WKV_UNSUPPORTED);
        EXPECT_NE(std::string(e.what()).find("byte " + std::to_string(position) + " "), std::string::npos) << e.what();
      }
    }
  }
}

TEST(Tokenizer, lowest_id_encodes_where_bytes_are_the_same) {
  const libwkv::Tokenizer tokenizer({{9, "ab"}, {3, "a"}, {5, "ab"}, {4, "b"}});
  EXPECT_EQ(tokenizer.encode("aba"), (Ids{5, 3}));
  EXPECT_EQ(tokenizer.bytes_of(5), "ab");
  EXPECT_EQ(tokenizer.bytes_of(9), "ab");
  EXPECT_EQ(tokenizer.ids_end(), 10);
  EXPECT_EQ(tokenizer.tokens_count(), 4);
}

TEST(Tokenizer, end_of_text_and_gaps_have_no_bytes) {
  const libwkv::Tokenizer tokenizer({{0, "x"}, {2, "a"}, {4, ""}, {1000000000, "b"}});
  for (const int32_t id : {0, 1, 3, 4, 5, 999999999, 1000000001, INT32_MAX, -1, INT32_MIN})
    EXPECT_EQ(tokenizer.bytes_of(id), "") << id;
  EXPECT_EQ(tokenizer.bytes_of(2), "a");
  EXPECT_EQ(tokenizer.bytes_of(1000000000), "b");
  EXPECT_THROW(tokenizer.encode("x"), Error);
}

TEST(Tokenizer, refuses_impossible_vocabularies) {
  const auto status_of = [](const std::vector<formats::VocabularyToken> &vocabulary) {
    try {
      const libwkv::Tokenizer tokenizer(vocabulary);
      return WKV_OK;
    } catch (const Error &e) {
      return static_cast<decltype(WKV_OK)>(e.status());
    }
  };
  EXPECT_EQ(status_of({}), WKV_FORMAT);
  EXPECT_EQ(status_of({{0, "a"}, {3, ""}}), WKV_FORMAT);
  EXPECT_EQ(status_of({{3, "a"}, {3, "b"}}), WKV_FORMAT);
  EXPECT_EQ(status_of({{-3, "a"}}), WKV_FORMAT);
  EXPECT_EQ(status_of({{INT32_MAX, "a"}}), WKV_FORMAT);
  const size_t longest = libwkv::Tokenizer::longest_token_bytes;
  EXPECT_EQ(status_of({{1, std::string(longest, 'a')}}), WKV_OK);
  EXPECT_EQ(status_of({{1, std::string(longest + 1, 'a')}}), WKV_UNSUPPORTED);
  std::vector<formats::VocabularyToken> huge;
  for (int32_t id = 1; id <= static_cast<int32_t>(libwkv::Tokenizer::vocabulary_bytes / longest) + 1; id++)
    huge.push_back({id, std::to_string(id) + std::string(longest - std::to_string(id).size(), 'a')});
  EXPECT_EQ(status_of(huge), WKV_UNSUPPORTED);
}

TEST(Tokenizer, says_how_much_room_is_needed) {
  const Tokenizer tokenizer = small_tokenizer();
  Failure failure;
  size_t count = 99;
  Ids tokens(3, -7);
  EXPECT_EQ(wkv_tokenizer_encode(tokenizer, "abc", 3, tokens.data(), 2, &count, &failure), WKV_INVALID);
  EXPECT_EQ(count, 3u);
  EXPECT_EQ(tokens, Ids(3, -7));
  EXPECT_EQ(wkv_tokenizer_encode(tokenizer, "abc", 3, tokens.data(), 0, &count, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_tokenizer_encode(tokenizer, "abc", 3, tokens.data(), 3, &count, &failure), WKV_OK);
  EXPECT_EQ(tokens, (Ids{98, 99, 100}));
  EXPECT_EQ(wkv_tokenizer_encode(tokenizer, nullptr, 0, nullptr, 0, &count, &failure), WKV_OK);
  EXPECT_EQ(count, 0u);
  std::string text(3, '?');
  EXPECT_EQ(wkv_tokenizer_decode(tokenizer, tokens.data(), 3, text.data(), 2, &count, &failure), WKV_INVALID);
  EXPECT_EQ(count, 3u);
  EXPECT_EQ(text, "???");
  EXPECT_EQ(wkv_tokenizer_decode(tokenizer, tokens.data(), 3, text.data(), 3, &count, &failure), WKV_OK);
  EXPECT_EQ(text, "abc");
  EXPECT_EQ(wkv_tokenizer_decode(tokenizer, nullptr, 0, nullptr, 0, &count, &failure), WKV_OK);
  EXPECT_EQ(count, 0u);
}

TEST(Tokenizer, writes_nothing_when_a_byte_has_no_token) {
  const Tokenizer tokenizer = load_vocabulary("1 'a' 1\n2 'b' 1\n");
  Failure failure;
  size_t count = 99;
  Ids tokens(8, -7);
  EXPECT_EQ(wkv_tokenizer_encode(tokenizer, "abxa", 4, tokens.data(), 8, &count, &failure), WKV_UNSUPPORTED);
  EXPECT_EQ(tokens, Ids(8, -7));
  EXPECT_EQ(count, 99u);
  EXPECT_NE(std::string(failure.message).find("byte 2 (0x78)"), std::string::npos) << failure.message;
}

TEST(Tokenizer, refuses_wrong_arguments) {
  const Tokenizer tokenizer = small_tokenizer();
  Failure failure;
  size_t count = 99;
  int32_t token = 5;
  char byte = 'x';
  const auto invalid = [&](wkv_status status) {
    EXPECT_EQ(status, WKV_INVALID) << failure.message;
    EXPECT_EQ(count, 99u);
  };
  invalid(wkv_tokenizer_encode(nullptr, "a", 1, &token, 1, &count, &failure));
  invalid(wkv_tokenizer_encode(tokenizer, nullptr, 1, &token, 1, &count, &failure));
  invalid(wkv_tokenizer_encode(tokenizer, "a", SIZE_MAX, &token, 1, &count, &failure));
  invalid(wkv_tokenizer_encode(tokenizer, "a", 1, nullptr, 1, &count, &failure));
  invalid(wkv_tokenizer_encode(tokenizer, "a", 1, &token, 1, nullptr, &failure));
  invalid(wkv_tokenizer_decode(nullptr, &token, 1, &byte, 1, &count, &failure));
  invalid(wkv_tokenizer_decode(tokenizer, nullptr, 1, &byte, 1, &count, &failure));
  invalid(wkv_tokenizer_decode(tokenizer, &token, SIZE_MAX, &byte, 1, &count, &failure));
  invalid(wkv_tokenizer_decode(tokenizer, &token, SIZE_MAX / 4, &byte, 1, &count, &failure));
  invalid(wkv_tokenizer_decode(tokenizer, &token, 1, nullptr, 1, &count, &failure));
  invalid(wkv_tokenizer_decode(tokenizer, &token, 1, &byte, 1, nullptr, &failure));
  const int32_t negative[] = {5, -1};
  invalid(wkv_tokenizer_decode(tokenizer, negative, 2, &byte, 1, &count, &failure));
  EXPECT_NE(std::string(failure.message).find("tokens[1] is -1"), std::string::npos) << failure.message;

  wkv_tokenizer *made = nullptr;
  invalid(wkv_tokenizer_load(nullptr, &made, &failure));
  invalid(wkv_tokenizer_load("x", nullptr, &failure));
  invalid(wkv_tokenizer_load_memory(nullptr, 3, &made, &failure));
  invalid(wkv_tokenizer_load_memory("1 'a' 1\n", SIZE_MAX, &made, &failure));
  invalid(wkv_tokenizer_load_memory("1 'a' 1\n", 8, nullptr, &failure));
  invalid(wkv_model_get_tokenizer(nullptr, &made, &failure));
  wkv_tokenizer_info info{};
  info.struct_size = sizeof info - 1;
  invalid(wkv_tokenizer_get_info(tokenizer, &info, &failure));
  invalid(wkv_tokenizer_get_info(tokenizer, nullptr, &failure));
  info.struct_size = sizeof info;
  invalid(wkv_tokenizer_get_info(nullptr, &info, &failure));
  wkv_decoder *decoder = nullptr;
  invalid(wkv_decoder_create(nullptr, &decoder, &failure));
  invalid(wkv_decoder_create(tokenizer, nullptr, &failure));
  EXPECT_EQ(made, nullptr);
  EXPECT_EQ(decoder, nullptr);
  wkv_error small{};
  small.struct_size = 4;
  EXPECT_EQ(wkv_tokenizer_get_info(tokenizer, &info, &small), WKV_INVALID);
  wkv_tokenizer_release(nullptr);
  wkv_decoder_release(nullptr);
}

class TokenizerFile : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(directory_); }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  wkv_status load(const std::string &content) {
    const auto path = directory_ / "file";
    std::ofstream(path, std::ios::binary) << content;
    return wkv_tokenizer_load(path.c_str(), tokenizer_.out(), &failure_);
  }
  std::filesystem::path directory_ = std::filesystem::path(WKV_BINARY_DIR) / "tokenizer_file_test";
  Tokenizer tokenizer_;
  Failure failure_;
};

TEST_F(TokenizerFile, is_recognised_by_its_content) {
  EXPECT_EQ(load(vocabulary_file({"abc"})), WKV_OK) << failure_.message;
  EXPECT_EQ(encode(tokenizer_, "abcd"), (Ids{257, 'd' + 1}));
  EXPECT_EQ(load(""), WKV_FORMAT);
  EXPECT_NE(std::string(failure_.message).find("empty"), std::string::npos) << failure_.message;
  EXPECT_EQ(load("1 'a' 1\n2 'b' 7\n"), WKV_FORMAT);
  EXPECT_NE(std::string(failure_.message).find("2"), std::string::npos) << failure_.message;
  EXPECT_EQ(load("These are words.\n"), WKV_FORMAT);
  EXPECT_NE(std::string(failure_.message).find("not a vocabulary"), std::string::npos) << failure_.message;
  EXPECT_EQ(load(std::string(100, '\0')), WKV_FORMAT) << failure_.message;
  EXPECT_EQ(wkv_tokenizer_load((directory_ / "absent").c_str(), tokenizer_.out(), &failure_), WKV_NOT_FOUND);
  EXPECT_NE(wkv_tokenizer_load(directory_.c_str(), tokenizer_.out(), &failure_), WKV_OK);
  EXPECT_EQ(tokenizer_.get(), nullptr);
}

}  // namespace
}  // namespace libwkv::test
