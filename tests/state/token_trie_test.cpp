// SPDX-License-Identifier: Apache-2.0
// The tree of token sequences against a plain map, through thousands of inserts, removals and look-ups.
#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "state/token_trie.h"
#include "support/handles.h"

namespace libwkv::test {
namespace {

using Sequence = std::vector<int32_t>;

std::array<int, 4000> values;
void *value(size_t i) { return &values.at(i); }

TEST(TokenTrie, of_nothing_finds_nothing) {
  TokenTrie trie;
  EXPECT_EQ(trie.find(Sequence{1, 2}), nullptr);
  EXPECT_EQ(trie.find_longest(Sequence{1, 2}), nullptr);
  EXPECT_EQ(trie.find({}), nullptr);
  EXPECT_EQ(trie.nodes(), 0u);
  trie.clear();
}

TEST(TokenTrie, finds_exact_sequences_and_the_longest_beginning) {
  TokenTrie trie;
  trie.insert(Sequence{1, 2, 3, 4}, value(0));
  trie.insert(Sequence{1, 2}, value(1));           // inside the edge of the first
  trie.insert(Sequence{1, 2, 3, 4, 5}, value(2));  // behind its end
  trie.insert(Sequence{1, 2, 9}, value(3));        // beside it
  trie.insert(Sequence{-7, 2147483647}, value(4));
  EXPECT_EQ(trie.find(Sequence{1, 2, 3, 4}), value(0));
  EXPECT_EQ(trie.find(Sequence{1, 2}), value(1));
  EXPECT_EQ(trie.find(Sequence{1, 2, 3, 4, 5}), value(2));
  EXPECT_EQ(trie.find(Sequence{1, 2, 9}), value(3));
  EXPECT_EQ(trie.find(Sequence{-7, 2147483647}), value(4));
  for (const Sequence &absent : {Sequence{1}, Sequence{1, 2, 3}, Sequence{2}, Sequence{1, 2, 3, 4, 5, 6}, Sequence{-7}})
    EXPECT_EQ(trie.find(absent), nullptr);
  EXPECT_EQ(trie.find_longest(Sequence{1, 2, 3, 5}), value(1));
  EXPECT_EQ(trie.find_longest(Sequence{1, 2, 3, 4}), value(0));
  EXPECT_EQ(trie.find_longest(Sequence{1, 2, 3, 4, 5, 6, 7}), value(2));
  EXPECT_EQ(trie.find_longest(Sequence{1, 2, 9, 9}), value(3));
  EXPECT_EQ(trie.find_longest(Sequence{1}), nullptr);
  EXPECT_EQ(trie.find_longest(Sequence{5, 1, 2}), nullptr);
}

TEST(TokenTrie, keeps_one_copy_of_what_sequences_share) {
  TokenTrie trie;
  Sequence history(10000);
  for (size_t i = 0; i < history.size(); i++) history[i] = static_cast<int32_t>(i * 7919 % 65536);
  for (size_t turn = 1; turn <= 100; turn++) trie.insert(std::span(history).first(turn * 100), value(turn));
  EXPECT_EQ(trie.nodes(), 100u);
  for (size_t turn = 1; turn <= 100; turn++)
    EXPECT_EQ(trie.find_longest(std::span(history).first(turn * 100 + (turn < 100 ? 99 : 0))), value(turn));
}

TEST(TokenTrie, of_deep_chains_goes_without_recursion) {
  TokenTrie trie;
  constexpr size_t depth = 200000;
  Sequence tokens(depth, 3);
  // from the long end: each cuts the edge of the one before, which is one id long then
  for (size_t length = depth; length > depth - 1000; length--) trie.insert(std::span(tokens).first(length), value(0));
  Sequence zigzag;
  for (size_t i = 0; i < 3000; i++) {
    zigzag.push_back(static_cast<int32_t>(i));
    trie.insert(zigzag, value(1));
  }
  EXPECT_EQ(trie.find_longest(tokens), value(0));
  EXPECT_EQ(trie.find_longest(zigzag), value(1));
}

// The same through a plain map. Few ids and nested lengths, so that edges are cut and joined all the time.
TEST(TokenTrie, agrees_with_a_map) {
  for (uint64_t seed = 1; seed <= 6; seed++) {
    TokenTrie trie;
    std::map<Sequence, std::pair<void *, TokenTrie::Node *>> model;
    uint64_t state = seed;
    auto random = [&](uint64_t below) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      return (state >> 33) % below;
    };
    auto longest = [&](const Sequence &tokens) -> void * {
      for (size_t length = tokens.size(); length > 0; length--) {
        auto found = model.find(Sequence(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(length)));
        if (found != model.end()) return found->second.first;
      }
      return nullptr;
    };
    for (size_t round = 0; round < 4000; round++) {
      Sequence tokens;
      if (!model.empty() && random(3)) {  // like one that is there: cut, longer, or branching off
        auto place = model.begin();
        std::advance(place, static_cast<ptrdiff_t>(random(model.size())));
        tokens = place->first;
        tokens.resize(1 + random(tokens.size()));
      }
      for (uint64_t more = tokens.empty() + random(seed % 2 ? 4 : 30); more > 0; more--)
        tokens.push_back(static_cast<int32_t>(random(3)));
      ASSERT_EQ(trie.find_longest(tokens), longest(tokens)) << "seed " << seed << ", round " << round;
      auto known = model.find(tokens);
      ASSERT_EQ(trie.find(tokens), known == model.end() ? nullptr : known->second.first);
      if (known == model.end()) {
        model[tokens] = {value(round), trie.insert(tokens, value(round))};
      } else if (random(2)) {
        trie.remove(known->second.second);
        model.erase(known);
      }
      if (random(5) == 0 && !model.empty()) {
        auto place = model.begin();
        std::advance(place, static_cast<ptrdiff_t>(random(model.size())));
        trie.remove(place->second.second);
        model.erase(place);
      }
      ASSERT_LE(trie.nodes(), 2 * model.size());
    }
    for (const auto &[tokens, entry] : model) ASSERT_EQ(trie.find(tokens), entry.first);
    while (!model.empty()) {
      trie.remove(model.begin()->second.second);
      model.erase(model.begin());
    }
    EXPECT_EQ(trie.nodes(), 0u) << "something is left behind";
  }
}

}  // namespace
}  // namespace libwkv::test
