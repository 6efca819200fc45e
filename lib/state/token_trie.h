// SPDX-License-Identifier: Apache-2.0
// Sequences of token ids with a value each: a radix tree, whose edges carry as many ids as lie between two branches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace libwkv {

class TokenTrie {
 public:
  // The end of a sequence that has a value. Stays where it is until that sequence is removed.
  struct Node;

  TokenTrie() = default;
  TokenTrie(const TokenTrie &) = delete;
  TokenTrie &operator=(const TokenTrie &) = delete;
  ~TokenTrie() { clear(); }

  // The value of exactly these tokens; NULL: they have none.
  void *find(std::span<const int32_t> tokens) const noexcept;
  // The value of the longest beginning of these tokens that has one, all of them included; NULL: none has.
  void *find_longest(std::span<const int32_t> tokens) const noexcept;
  // Gives tokens, which are not none and have no value, one that is not NULL. What throws has changed nothing.
  Node *insert(std::span<const int32_t> tokens, void *value);
  void remove(Node *node) noexcept;
  void clear() noexcept;

  // Nodes without the root: at most twice the sequences.
  size_t nodes() const noexcept { return nodes_; }

 private:
  struct Match;
  Match match(std::span<const int32_t> tokens) const noexcept;
  void join_with_child(Node *node) noexcept;

  Node *root_ = nullptr;  // made by the first insert
  size_t nodes_ = 0;
};

}  // namespace libwkv
