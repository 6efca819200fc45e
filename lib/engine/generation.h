// SPDX-License-Identifier: Apache-2.0
// A generation: feeds a cache, samples, and gives tokens and text out one piece at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <wkv/generation.h>

#include "base/busy.h"
#include "engine/run_ahead.h"
#include "engine/stop_trail.h"
#include "text/decoder.h"
#include "text/sampler.h"
#include "text/stop_matcher.h"

namespace libwkv {

class ByteReader;
class ByteWriter;
class Cache;
class Model;
class PrefixStore;

class Generation {
 public:
  // Checks and copies the options. sampler: NULL is greedy; tokenizer: NULL is the model's own, if it has one; store:
  // NULL is none. The handles in options are not looked at.
  Generation(std::shared_ptr<Model> model, std::shared_ptr<Cache> cache, std::shared_ptr<Sampler> sampler,
             std::shared_ptr<const Tokenizer> tokenizer, std::shared_ptr<PrefixStore> store,
             const wkv_generation_options &options);

  // False when the generation had ended before. Writes every field of piece but struct_size. What throws leaves the
  // piece alone, and the next call goes on from where this one came to.
  bool next(wkv_generation_piece &piece);

  // Everything but the parts below, a prefix store and a progress function. Expects the caller to hold busy() and the
  // busy flag of the cache.
  void save(ByteWriter &out) const;
  // What was saved goes on with parts that are as they were. Throws WKV_FORMAT for bytes that no generation wrote, and
  // WKV_NOT_FOUND when it had a tokenizer or sampler and there is none now.
  static std::shared_ptr<Generation> restore(ByteReader &in, std::shared_ptr<Model> model, std::shared_ptr<Cache> cache,
                                             std::shared_ptr<Sampler> sampler,
                                             std::shared_ptr<const Tokenizer> tokenizer);

  BusyFlag &busy() const { return busy_; }
  const std::shared_ptr<Model> &model() const { return model_; }
  const std::shared_ptr<Cache> &cache() const { return cache_; }
  // NULL when none was given.
  std::shared_ptr<Sampler> sampler() const { return has_sampler_ ? sampler_ : nullptr; }

 private:
  Generation(std::shared_ptr<Model> model, std::shared_ptr<Cache> cache, std::shared_ptr<Sampler> sampler,
             std::shared_ptr<const Tokenizer> tokenizer);
  struct Turn {
    wkv_reason reason = WKV_REASON_NONE;
    Utf8Stream utf8 = {};
    StopMatcher::State held = {};
    std::string text = {}, unread = {};
    uint64_t given = 0;
    StopTrail trail = {};
    bool is_taken_back = false;
    std::optional<Moment> target = {};  // where the cache goes back to
    size_t unread_tokens = 1;           // chosen tokens that the cache will not have read
  };
  void prepare();
  Turn take(int32_t token) const;
  bool is_stop(int32_t token) const;
  bool takes_stops_back() const { return stops_.size() > 0 && !keeps_stop_string_; }
  std::string_view bytes_of(int32_t token) const { return tokenizer_ ? tokenizer_->bytes_of(token) : ""; }
  void step(Cache &cache, std::span<const int32_t> tokens, float *logits, size_t tokens_before);
  void feed();
  SamplerLimits limits() const;
  Sampler::Choice choose();
  Sampler::Choice feed_and_choose();
  void keep(const Sampler::Choice &choice) noexcept;
  void feed_through_store();
  void follow(StopTrail &trail, StopTrail::Entry entry, uint64_t given) const;
  Moment moment_before(size_t index) const;
  void put_into_store(size_t chosen_read) noexcept;
  void write_probabilities(int32_t token);
  void restore_trail(ByteReader &in);

  std::shared_ptr<Model> model_;
  std::shared_ptr<Cache> cache_;
  std::shared_ptr<Sampler> sampler_;
  bool has_sampler_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<PrefixStore> store_;
  mutable BusyFlag busy_;

  int64_t max_tokens_ = 0;
  std::vector<int32_t> stop_tokens_;  // rising
  StopMatcher stops_;
  std::vector<int32_t> without_bytes_;  // ids below the tokenizer's end that may not be chosen
  bool wants_probabilities_ = false, accepts_prompt_ = false, keeps_stop_string_ = false;
  size_t alternatives_count_ = 0;
  int32_t (*progress_)(void *user, uint64_t done_tokens, uint64_t total_tokens) = nullptr;
  void *progress_user_ = nullptr;

  std::vector<int32_t> prompt_;  // of a restored generation: empty when nothing needs it any more
  int64_t prompt_count_ = 0;
  int64_t reused_ = 0;          // tokens of it that came from the store
  size_t prompt_accepted_ = 0;  // tokens of it that the sampler has seen
  bool is_prompt_fed_ = false;
  std::vector<int32_t> chosen_;  // with a store: every token chosen
  int32_t pending_ = -1;         // the chosen token that the cache has not read
  std::vector<float> logits_;
  bool has_logits_ = false;  // logits_ are those after everything chosen so far
  RunAhead ahead_;

  Utf8Stream utf8_;
  StopMatcher::State held_;
  uint64_t given_ = 0;  // bytes of text given out
  StopTrail trail_;
  int64_t generated_ = 0;
  wkv_reason reason_ = WKV_REASON_NONE;

  // What the last piece points to.
  std::string text_, unread_;
  float log_probability_ = 0;
  std::vector<wkv_token_probability> alternatives_;
};

}  // namespace libwkv
