// SPDX-License-Identifier: Apache-2.0
// Stop strings against a search that sees the whole text.
#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "text/stop_matcher.h"

namespace libwkv::test {
namespace {

struct Outcome {
  std::string text;
  bool is_stopped;
  bool operator==(const Outcome &) const = default;
};

Outcome naive(const std::vector<std::string> &stops, const std::string &text) {
  for (size_t end = 1; end <= text.size(); end++) {
    size_t longest = 0;
    for (const std::string &stop : stops)
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0)
        longest = std::max(longest, stop.size());
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

// The longest end of text that could be the beginning of a stop.
size_t naive_held(const std::vector<std::string> &stops, const std::string &text) {
  for (size_t length = text.size(); length > 0; length--)
    for (const std::string &stop : stops)
      if (length < stop.size() && stop.compare(0, length, text, text.size() - length, length) == 0) return length;
  return 0;
}

TEST(StopMatcher, equals_a_search_of_the_whole_text) {
  std::mt19937_64 random(3);
  int stopped = 0;
  for (int round = 0; round < 20000; round++) {
    const auto word = [&](size_t length) {
      std::string text(length, 0);
      for (char &c : text) c = static_cast<char>('a' + random() % 2);
      return text;
    };
    std::vector<std::string> stops(random() % 4);
    for (std::string &stop : stops) stop = word(1 + random() % 8);
    const std::string text = word(random() % 40);
    const StopMatcher matcher(stops);
    StopMatcher::State state = matcher.begin();
    std::string given, read;
    bool is_stopped = false;
    while (read.size() < text.size() && !is_stopped) {
      const std::string piece = text.substr(read.size(), random() % 6);
      read += piece;
      is_stopped = matcher.push(state, piece, given);
      if (is_stopped) break;
      // nothing that can go out is held back, and nothing else goes out
      ASSERT_EQ(given, read.substr(0, read.size() - naive_held(stops, read)));
    }
    if (!is_stopped) matcher.finish(state, given);
    stopped += is_stopped;
    ASSERT_EQ((Outcome{given, is_stopped}), naive(stops, text)) << text;
  }
  EXPECT_GT(stopped, 5000);
  EXPECT_LT(stopped, 19000);
}

TEST(StopMatcher, holds_back_what_may_become_a_stop) {
  const StopMatcher matcher({"\nUser:", "<end>"});
  StopMatcher::State state = matcher.begin();
  const auto push = [&](const char *text) {
    std::string out;
    const bool is_stopped = matcher.push(state, text, out);
    return out + (is_stopped ? "|" : "");
  };
  EXPECT_EQ(push("Hello\n"), "Hello");
  EXPECT_EQ(push("Us"), "");
  EXPECT_EQ(push("\nUse"), "\nUs");
  EXPECT_EQ(push("less <en"), "\nUseless ");
  EXPECT_EQ(push("d"), "");
  EXPECT_EQ(push(">tail"), "|");
}

TEST(StopMatcher, the_first_complete_stop_wins_and_the_longest_of_those) {
  std::string out;
  const StopMatcher matcher({"abcd", "bc", "abc"});
  StopMatcher::State state = matcher.begin();
  EXPECT_TRUE(matcher.push(state, "xabcd", out));
  EXPECT_EQ(out, "x");
}

TEST(StopMatcher, keeps_up_with_long_stops_that_almost_match) {
  const std::string stop = std::string(60000, 'a') + "b";
  const StopMatcher matcher({stop, stop.substr(1)});
  StopMatcher::State state = matcher.begin();
  std::string out;
  EXPECT_FALSE(matcher.push(state, std::string(2000000, 'a'), out));
  EXPECT_EQ(out.size(), 2000000u - 60000);
  EXPECT_TRUE(matcher.push(state, "b", out));
  EXPECT_EQ(out.size(), 2000000u - 60000);
}

}  // namespace
}  // namespace libwkv::test
