// SPDX-License-Identifier: Apache-2.0
// The tokenizer's tables and the longest match on them.
#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace libwkv {

Tokenizer::Tokenizer(const std::vector<formats::VocabularyToken> &vocabulary) {
  std::vector<const formats::VocabularyToken *> tokens;
  tokens.reserve(vocabulary.size());
  size_t bytes = 0;
  for (const auto &token : vocabulary) {
    if (token.id < 0 || token.id == INT32_MAX) fail(WKV_FORMAT, "vocabulary: id %d is out of range", token.id);
    if (token.id == 0 || token.bytes.empty()) continue;
    if (token.bytes.size() > longest_token_bytes)
      fail(WKV_UNSUPPORTED, "vocabulary: token %d has %zu bytes, the limit is %zu", token.id, token.bytes.size(),
           longest_token_bytes);
    bytes += token.bytes.size();
    if (bytes > vocabulary_bytes)
      fail(WKV_UNSUPPORTED, "vocabulary: the tokens have more than %zu bytes together", vocabulary_bytes);
    tokens.push_back(&token);
  }
  if (tokens.empty()) fail(WKV_FORMAT, "vocabulary: no token");
  std::sort(tokens.begin(), tokens.end(), [](auto *a, auto *b) { return a->id < b->id; });

  ids_.reserve(tokens.size());
  offsets_.reserve(tokens.size() + 1);
  arena_.reserve(bytes);
  for (const auto *token : tokens) {
    if (!ids_.empty() && ids_.back() == token->id) fail(WKV_FORMAT, "vocabulary: id %d appears twice", token->id);
    ids_.push_back(token->id);
    offsets_.push_back(static_cast<uint32_t>(arena_.size()));
    arena_ += token->bytes;
    longest_ = std::max(longest_, static_cast<int32_t>(token->bytes.size()));
  }
  offsets_.push_back(static_cast<uint32_t>(arena_.size()));

  std::vector<std::pair<std::string_view, int32_t>> sorted;
  sorted.reserve(ids_.size());
  for (size_t i = 0; i < ids_.size(); i++)
    sorted.emplace_back(std::string_view(arena_).substr(offsets_[i], offsets_[i + 1] - offsets_[i]), ids_[i]);
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end(), [](auto &a, auto &b) { return a.first == b.first; }),
               sorted.end());
  build_trie(std::move(sorted));
}

void Tokenizer::build_trie(std::vector<std::pair<std::string_view, int32_t>> sorted) {
  // A node and the tokens below it: a range of `sorted`, all of which begin with the `depth` bytes on the way to it.
  struct Open {
    uint32_t node, begin, end, depth;
  };
  std::vector<Open> open{{0, 0, static_cast<uint32_t>(sorted.size()), 0}};
  nodes_.push_back({0, -1, 0, 0});
  labels_.push_back(0);
  while (!open.empty()) {
    auto [index, begin, end, depth] = open.back();
    open.pop_back();
    const uint32_t first_child = static_cast<uint32_t>(nodes_.size());
    if (sorted[begin].first.size() == depth) nodes_[index].token = sorted[begin++].second;
    const size_t opened = open.size();
    while (begin < end) {
      const char byte = sorted[begin].first[depth];
      uint32_t next = begin + 1;
      while (next < end && sorted[next].first[depth] == byte) next++;
      open.push_back({static_cast<uint32_t>(nodes_.size()), begin, next, depth + 1});
      nodes_.push_back({0, -1, 0, 0});
      labels_.push_back(static_cast<uint8_t>(byte));
      begin = next;
    }
    std::reverse(open.begin() + static_cast<ptrdiff_t>(opened), open.end());  // the first child's children come next

    Node &node = nodes_[index];
    node.first_child = first_child;
    node.children = static_cast<uint32_t>(nodes_.size()) - first_child;
    if (node.children <= inline_most) {
      for (uint32_t c = 0; c < node.children; c++) node.branch |= uint32_t{labels_[first_child + c]} << 8 * c;
    } else if (node.children >= dense_from) {
      node.branch = static_cast<uint32_t>(dense_.size() / 256);
      dense_.resize(dense_.size() + 256);
      for (uint32_t c = 0; c < node.children; c++)
        dense_[dense_.size() - 256 + labels_[first_child + c]] = first_child + c;
    }
  }
  nodes_.shrink_to_fit();
  labels_.shrink_to_fit();
  dense_.shrink_to_fit();

  first_.fill(-1);
  pairs_.resize(65536);
  for (uint32_t c = 0; c < nodes_[0].children; c++) {
    const uint32_t index = nodes_[0].first_child + c;
    first_[labels_[index]] = nodes_[index].token;
    for (uint32_t d = 0; d < nodes_[index].children; d++) {
      const uint32_t second = nodes_[index].first_child + d;
      pairs_[size_t{labels_[index]} * 256 + labels_[second]] = second;
    }
  }
  knows_every_byte_ = std::count(first_.begin(), first_.end(), -1) == 0;
}

inline const Tokenizer::Node *Tokenizer::child(const Node &node, uint8_t byte) const {
  if (node.children >= dense_from) {
    const uint32_t index = dense_[size_t{node.branch} * 256 + byte];
    return index ? &nodes_[index] : nullptr;
  }
  if (node.children <= inline_most) {
    for (uint32_t c = 0; c < node.children; c++)
      if ((node.branch >> 8 * c & 255) == byte) return &nodes_[node.first_child + c];
    return nullptr;
  }
  const uint8_t *label = labels_.data() + node.first_child;
  for (uint32_t c = 0; c < node.children; c++)
    if (label[c] == byte) return &nodes_[node.first_child + c];
  return nullptr;
}

template <class Sink>
void Tokenizer::match(std::string_view text, Sink &&sink) const {
  size_t position = 0;
  while (position < text.size()) {
    const uint8_t first = static_cast<uint8_t>(text[position]);
    int32_t best = first_[first];
    size_t end = position + 1;
    if (end < text.size()) {
      const uint32_t pair = pairs_[size_t{first} * 256 + static_cast<uint8_t>(text[end])];
      const Node *node = pair ? &nodes_[pair] : nullptr;
      for (size_t i = position + 2; node; i++) {
        if (node->token >= 0) {
          best = node->token;
          end = i;
        }
        if (i == text.size()) break;
        node = child(*node, static_cast<uint8_t>(text[i]));
      }
    }
    if (best < 0)
      fail(WKV_UNSUPPORTED, "no token of the vocabulary matches at byte %zu (0x%02x)", position,
           static_cast<unsigned>(static_cast<uint8_t>(text[position])));
    sink(best);
    position = end;
  }
}

std::vector<int32_t> Tokenizer::ids_without_bytes(int32_t end) const {
  std::vector<int32_t> ids;
  for (int32_t id = 1; id < end; id++)
    if (bytes_of(id).empty()) ids.push_back(id);
  return ids;
}

size_t Tokenizer::count(std::string_view text) const {
  size_t count = 0;
  match(text, [&](int32_t) { count++; });
  return count;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> tokens;
  tokens.reserve(text.size() / 3 + 16);
  match(text, [&](int32_t id) { tokens.push_back(id); });
  return tokens;
}

size_t Tokenizer::encode_to(std::string_view text, int32_t *tokens) const {
  int32_t *end = tokens;
  match(text, [&](int32_t id) { *end++ = id; });
  return static_cast<size_t>(end - tokens);
}

std::string_view Tokenizer::bytes_of(int32_t id) const {
  if (id < ids_.front() || id > ids_.back()) return {};
  // Real vocabularies have no gaps: the first guess is right.
  size_t index = static_cast<size_t>(id - ids_.front());
  if (index >= ids_.size() || ids_[index] != id) {
    index = static_cast<size_t>(std::lower_bound(ids_.begin(), ids_.end(), id) - ids_.begin());
    if (ids_[index] != id) return {};
  }
  return std::string_view(arena_).substr(offsets_[index], offsets_[index + 1] - offsets_[index]);
}

}  // namespace libwkv
