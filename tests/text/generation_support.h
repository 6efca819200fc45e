// SPDX-License-Identifier: Apache-2.0
// What tests of generation share: a vocabulary, options and samplers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "support/models.h"
#include "text/vocabulary.h"

namespace libwkv::test {

inline constexpr int32_t gap_begin = 300, gap_end = 310, tokens_end = 400;  // ids of the vocabulary; the model has 517

inline std::string vocabulary() {
  std::string file = vocabulary_file({});
  for (int32_t id = 257; id < tokens_end; id++)
    if (id < gap_begin || id >= gap_end) file += vocabulary_line(id, "w" + std::to_string(id) + " ");
  return file;
}

struct Piece : wkv_generation_piece {
  Piece() : wkv_generation_piece{} { struct_size = sizeof(wkv_generation_piece); }
};

inline wkv_generation_options generation_options(const wkv_tokenizer *tokenizer, const char *prompt,
                                                 int32_t max_tokens) {
  wkv_generation_options o{};
  o.struct_size = sizeof o;
  o.max_tokens = max_tokens;
  o.tokenizer = const_cast<wkv_tokenizer *>(tokenizer);
  o.prompt = prompt;
  o.prompt_bytes = prompt ? std::string(prompt).size() : 0;
  return o;
}

inline wkv_sampler_options sampler_options(uint64_t seed) {
  wkv_sampler_options o{};
  o.struct_size = sizeof o;
  o.seed = seed;
  return o;
}

inline Sampler create_sampler(const wkv_sampler_options &options) {
  Sampler sampler;
  Failure failure;
  EXPECT_EQ(wkv_sampler_create(&options, sampler.out(), &failure), WKV_OK) << failure.message;
  return sampler;
}

// Always this token.
inline Sampler forced(int32_t token) {
  wkv_sampler_options o = sampler_options(0);
  const wkv_token_bias bias = {token, 1e6f};
  o.is_greedy = 1;
  o.biases = &bias;
  o.biases_count = 1;
  return create_sampler(o);
}

// Tokens that begin, go on with and end characters, or do none of that, and texts that overlap.
inline const std::vector<std::string> &rough_tokens() {
  static const std::vector<std::string> tokens = {"\xe2\x82", "\xac\xe2", "a\xe2",    "\x82\xac b", "\xe2\x82\xac",
                                                  "\xf0\x9f", "\x98\x80", "\xff\xff", "aa",         "ab",
                                                  "b\n",      "\n\n",     "a b"};
  return tokens;
}
inline std::string rough_vocabulary() { return vocabulary_file(rough_tokens()); }

// Chooses among these tokens and a few single bytes alone, all of them about as often.
inline Sampler rough_sampler(uint64_t seed, float presence = 0) {
  std::vector<wkv_token_bias> biases;
  for (size_t i = 0; i < rough_tokens().size(); i++) biases.push_back({static_cast<int32_t>(257 + i), 1000});
  for (const char byte : std::string("a\n ")) biases.push_back({byte + 1, 1000});
  wkv_sampler_options o = sampler_options(seed);
  o.temperature = 2;
  o.presence = presence;
  o.frequency = presence / 4;
  o.penalty_decay = presence != 0 ? 0.9f : 0;
  o.biases = biases.data();
  o.biases_count = biases.size();
  return create_sampler(o);
}

}  // namespace libwkv::test
