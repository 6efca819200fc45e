// SPDX-License-Identifier: Apache-2.0
// A generation: feeds a cache, samples, and gives tokens and text out one piece at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <wkv/generation.h>

#include "base/busy.h"
#include "text/decoder.h"
#include "text/stop_matcher.h"

namespace libwkv {

class Cache;
class Model;
class Sampler;

class Generation {
 public:
  // Checks and copies the options. sampler: NULL is greedy; tokenizer: NULL is the model's own, if it has one.
  // options.tokenizer is not looked at.
  Generation(std::shared_ptr<Model> model, std::shared_ptr<Cache> cache, std::shared_ptr<Sampler> sampler,
             std::shared_ptr<const Tokenizer> tokenizer, const wkv_generation_options &options);

  // False when the generation had ended before. Writes every field of piece but struct_size. What throws leaves the
  // piece alone, and the next call goes on from where this one came to.
  bool next(wkv_generation_piece &piece);

 private:
  bool is_stop(int32_t token) const;
  void feed();
  void write_probabilities(int32_t token);

  std::shared_ptr<Model> model_;
  std::shared_ptr<Cache> cache_;
  std::shared_ptr<Sampler> sampler_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  BusyFlag busy_;

  int64_t max_tokens_;
  std::vector<int32_t> stop_tokens_;
  StopMatcher stops_;
  std::vector<int32_t> without_bytes_;  // ids below the tokenizer's end that may not be chosen
  bool wants_probabilities_, accepts_prompt_;
  size_t alternatives_count_;

  std::vector<int32_t> prompt_;
  size_t prompt_accepted_ = 0;  // tokens of it that the sampler has seen
  bool is_prompt_fed_ = false;
  int32_t pending_ = -1;  // the chosen token that the cache has not read
  std::vector<float> logits_;
  bool has_logits_ = false;  // logits_ are those after everything chosen so far

  Utf8Stream utf8_;
  StopMatcher::State held_;
  int64_t generated_ = 0;
  wkv_reason reason_ = WKV_REASON_NONE;

  // What the last piece points to.
  std::string text_;
  float log_probability_ = 0;
  std::vector<wkv_token_probability> alternatives_;
};

}  // namespace libwkv
