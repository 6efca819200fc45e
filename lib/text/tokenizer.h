// SPDX-License-Identifier: Apache-2.0
// Bytes to token ids by greedy longest match on a flat trie, and back. Read-only once built.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/vocabulary.h"

namespace libwkv {

class Tokenizer {
 public:
  // Limits that keep memory and the cost of one match bounded for any vocabulary; the World vocabulary has 128 and
  // half a million.
  static constexpr size_t longest_token_bytes = formats::longest_token;
  static constexpr size_t vocabulary_bytes = size_t{16} << 20;

  // An entry for id 0 (the end of text) and entries without bytes are left out. Where several ids have the same bytes,
  // the lowest encodes and all decode. Throws WKV_FORMAT for no token at all, a negative id or one given twice, and
  // WKV_UNSUPPORTED beyond the limits.
  explicit Tokenizer(const std::vector<formats::VocabularyToken> &vocabulary);

  int32_t tokens_count() const { return static_cast<int32_t>(ids_.size()); }
  int32_t ids_end() const { return ids_.back() + 1; }
  int32_t longest_bytes() const { return longest_; }

  // The bytes of a token; empty for id 0 and ids without a token.
  std::string_view bytes_of(int32_t id) const;
  // Ids in [1, end) without bytes, rising: nothing may choose them.
  std::vector<int32_t> ids_without_bytes(int32_t end) const;

  // Throw WKV_UNSUPPORTED, naming the position, where no token matches.
  size_t count(std::string_view text) const;
  std::vector<int32_t> encode(std::string_view text) const;

  // True when every single byte is a token: then encoding cannot fail.
  bool knows_every_byte() const { return knows_every_byte_; }
  // Needs knows_every_byte() and room for text.size() ids. Gives their number.
  size_t encode_to(std::string_view text, int32_t *tokens) const;

 private:
  // The children of a node are neighbours, in the order of their bytes, and their own children follow as closely as
  // they can: the beginning of a word lies in few cache lines.
  struct Node {
    uint32_t first_child;
    int32_t token;  // -1: none ends here
    uint32_t children;
    uint32_t branch;  // up to inline_most children: their bytes, the first lowest; from dense_from on: the number of
                      // their table in dense_; between: search labels_
  };
  static constexpr uint32_t inline_most = 4;
  static constexpr uint32_t dense_from = 12;  // children from which a table of 256 pays, in time and in memory

  void build_trie(std::vector<std::pair<std::string_view, int32_t>> sorted);
  const Node *child(const Node &node, uint8_t byte) const;
  // Calls sink(id) for each token.
  template <class Sink>
  void match(std::string_view text, Sink &&sink) const;

  std::vector<int32_t> ids_;       // rising
  std::vector<uint32_t> offsets_;  // of each in arena_, and the end
  std::string arena_;
  std::vector<Node> nodes_;         // [0] is the root
  std::vector<uint8_t> labels_;     // the byte that leads to each node
  std::array<int32_t, 256> first_;  // token of a single byte; -1: none
  std::vector<uint32_t> pairs_;     // [first byte][second byte] node they lead to; 0: none
  std::vector<uint32_t> dense_;     // [tables][256] node of a byte; 0: none
  int32_t longest_ = 0;
  bool knows_every_byte_ = false;
};

// Reads an RWKV vocabulary file, or the vocabulary that a model file or directory carries. Throws Error.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::string &path);
// The same for the content of a vocabulary file.
std::shared_ptr<const Tokenizer> load_tokenizer_memory(std::string_view content);

}  // namespace libwkv
