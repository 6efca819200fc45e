// SPDX-License-Identifier: Apache-2.0
// The loop of generation, turned inside out: each call does one round of feed, choose, tell.
#include "engine/generation.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "engine/model.h"
#include "state/cache.h"
#include "text/portable_math.h"
#include "text/sampler.h"

namespace libwkv {
namespace {

constexpr size_t most_stop_tokens = 65536, most_stop_strings = 1024, longest_stop_bytes = 65536;
constexpr size_t most_prompt_tokens = size_t{1} << 30;
constexpr int32_t most_alternatives = 20;

int32_t read_switch(const char *field, int32_t value) {
  if (value != 0 && value != 1) fail(WKV_INVALID, "%s is %d, expected 0 or 1", field, value);
  return value;
}

void check_list(const char *field, const void *items, size_t count, size_t most) {
  if (count > most) fail(WKV_INVALID, "%s_count is %zu, at most %zu", field, count, most);
  if (count > 0 && !items) fail(WKV_INVALID, "%s is NULL, %s_count is %zu", field, field, count);
}

void check_token(const char *field, int32_t token, int64_t vocab_size) {
  if (token < 0 || token >= vocab_size)
    fail(WKV_INVALID, "%s: token %d is outside vocabulary %lld", field, token, static_cast<long long>(vocab_size));
}

std::vector<std::string> read_stop_strings(const wkv_generation_options &options) {
  check_list("stop_strings", options.stop_strings, options.stop_strings_count, most_stop_strings);
  std::vector<std::string> stops;
  for (size_t i = 0; i < options.stop_strings_count; i++) {
    const char *text = options.stop_strings[i];
    if (!text) fail(WKV_INVALID, "stop_strings[%zu] is NULL", i);
    const size_t bytes = strnlen(text, longest_stop_bytes + 1);
    if (bytes == 0) fail(WKV_INVALID, "stop_strings[%zu] is empty", i);
    if (bytes > longest_stop_bytes)
      fail(WKV_INVALID, "stop_strings[%zu] has more than %zu bytes", i, longest_stop_bytes);
    stops.emplace_back(text, bytes);
    // Others could cut the text inside a character, and never match the decoded text anyway.
    if (!is_utf8(stops.back())) fail(WKV_INVALID, "stop_strings[%zu] is not UTF-8", i);
  }
  return stops;
}

// The natural logarithm of the sum of e^logit; +-infinity as the largest logit.
double log_sum(std::span<const float> logits) {
  double highest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (const float logit : logits)
    highest = static_cast<double>(logit) > highest ? static_cast<double>(logit) : highest;
  if (std::isinf(highest)) return highest;
  for (const float logit : logits) sum += portable_exp(static_cast<double>(logit) - highest);
  return highest + portable_log(sum);
}

}  // namespace

Generation::Generation(std::shared_ptr<Model> model, std::shared_ptr<Cache> cache, std::shared_ptr<Sampler> sampler,
                       std::shared_ptr<const Tokenizer> tokenizer, const wkv_generation_options &options)
    : model_(std::move(model)),
      cache_(std::move(cache)),
      sampler_(std::move(sampler)),
      tokenizer_(tokenizer ? std::move(tokenizer) : model_->tokenizer()) {
  const int64_t vocab_size = model_->hyper_parameters().vocab_size;
  if (options.max_tokens < 0) fail(WKV_INVALID, "max_tokens is %d, expected at least 0", options.max_tokens);
  max_tokens_ = options.max_tokens > 0 ? options.max_tokens : 256;
  if (options.alternatives_count < 0 || options.alternatives_count > most_alternatives)
    fail(WKV_INVALID, "alternatives_count is %d, expected [0, %d]", options.alternatives_count, most_alternatives);
  alternatives_count_ = static_cast<size_t>(options.alternatives_count);
  wants_probabilities_ =
      read_switch("wants_log_probability", options.wants_log_probability) != 0 || alternatives_count_ > 0;
  accepts_prompt_ = read_switch("accepts_prompt", options.accepts_prompt) != 0;

  check_list("stop_tokens", options.stop_tokens, options.stop_tokens_count, most_stop_tokens);
  stop_tokens_.assign(options.stop_tokens, options.stop_tokens + options.stop_tokens_count);
  for (const int32_t token : stop_tokens_) check_token("stop_tokens", token, vocab_size);
  if (!read_switch("keeps_end_token", options.keeps_end_token)) stop_tokens_.push_back(0);
  std::sort(stop_tokens_.begin(), stop_tokens_.end());

  check_list("prompt_tokens", options.prompt_tokens, options.prompt_tokens_count, most_prompt_tokens);
  for (size_t i = 0; i < options.prompt_tokens_count; i++)
    check_token("prompt_tokens", options.prompt_tokens[i], vocab_size);
  if (options.prompt_bytes > PTRDIFF_MAX) fail(WKV_INVALID, "prompt_bytes is %zu", options.prompt_bytes);
  if (options.prompt_bytes > 0 && !options.prompt)
    fail(WKV_INVALID, "prompt is NULL, prompt_bytes is %zu", options.prompt_bytes);
  std::vector<std::string> stops = read_stop_strings(options);
  if (!tokenizer_ && (options.prompt_bytes > 0 || !stops.empty()))
    fail(WKV_NOT_FOUND, "%s needs a tokenizer, and the model has none",
         options.prompt_bytes > 0 ? "a prompt as text" : "a stop string");
  stops_ = StopMatcher(std::move(stops));
  held_ = stops_.begin();

  prompt_.assign(options.prompt_tokens, options.prompt_tokens + options.prompt_tokens_count);
  if (options.prompt_bytes > 0) {
    const std::vector<int32_t> encoded = tokenizer_->encode({options.prompt, options.prompt_bytes});
    for (const int32_t token : encoded) check_token("prompt", token, vocab_size);
    prompt_.insert(prompt_.end(), encoded.begin(), encoded.end());
  }
  if (prompt_.empty()) fail(WKV_INVALID, "nothing to feed: neither a prompt nor prompt_tokens");

  if (!sampler_) {
    SamplerOptions greedy;
    greedy.is_greedy = true;
    sampler_ = std::make_shared<Sampler>(std::move(greedy), 0);
  }
  if (tokenizer_)
    without_bytes_ =
        tokenizer_->ids_without_bytes(static_cast<int32_t>(std::min<int64_t>(tokenizer_->ids_end(), vocab_size)));
  logits_.resize(static_cast<size_t>(vocab_size));
  alternatives_.reserve(alternatives_count_ + 1);
}

bool Generation::is_stop(int32_t token) const {
  return std::binary_search(stop_tokens_.begin(), stop_tokens_.end(), token);
}

// Brings logits_ up to date with what was chosen.
void Generation::feed() {
  if (!has_logits_) {
    StepItem item;
    item.cache = cache_.get();
    item.tokens = is_prompt_fed_ ? std::span<const int32_t>(&pending_, 1) : std::span<const int32_t>(prompt_);
    item.logits = logits_.data();
    item.logits_count = logits_.size();
    model_->step({&item, 1});
    is_prompt_fed_ = true;
    pending_ = -1;
    has_logits_ = true;
  }
  for (; accepts_prompt_ && prompt_accepted_ < prompt_.size(); prompt_accepted_++)
    sampler_->accept(prompt_[prompt_accepted_]);
}

void Generation::write_probabilities(int32_t token) {
  const double total = log_sum(logits_);
  const auto log_probability = [&](float logit) {
    if (!std::isinf(total)) return static_cast<float>(static_cast<double>(logit) - total);
    // Infinite scores share everything.
    const auto winners = std::count(logits_.begin(), logits_.end(), std::numeric_limits<float>::infinity());
    if (!(total > 0 && static_cast<double>(logit) == total)) return -std::numeric_limits<float>::infinity();
    return static_cast<float>(-portable_log(static_cast<double>(winners)));
  };
  log_probability_ = log_probability(logits_[static_cast<size_t>(token)]);
  alternatives_.clear();
  if (alternatives_count_ == 0) return;
  // Few are wanted: keep them sorted while passing, with the raw score for the moment.
  for (size_t i = 0; i < logits_.size(); i++) {
    const float logit = logits_[i];
    if (std::isnan(logit)) continue;
    if (alternatives_.size() == alternatives_count_ && !(logit > alternatives_.back().log_probability)) continue;
    const auto place = std::upper_bound(alternatives_.begin(), alternatives_.end(), logit,
                                        [](float score, const auto &entry) { return score > entry.log_probability; });
    alternatives_.insert(place, {static_cast<int32_t>(i), logit});
    if (alternatives_.size() > alternatives_count_) alternatives_.pop_back();
  }
  for (auto &entry : alternatives_) entry.log_probability = log_probability(entry.log_probability);
}

bool Generation::next(wkv_generation_piece &piece) {
  const BusyGuard use(busy_, "generation");
  const bool goes_on = reason_ == WKV_REASON_NONE;
  int32_t token = -1;
  if (goes_on) {
    const BusyGuard sampler_use(sampler_->busy(), "sampler");
    feed();
    const Sampler::Choice choice =
        sampler_->choose(logits_, {.ids_end = tokenizer_ ? tokenizer_->ids_end() : 0, .banned = without_bytes_});
    token = choice.token;
    if (wants_probabilities_) write_probabilities(token);

    // Text is made on copies: until it is complete, memory may fail.
    wkv_reason reason = WKV_REASON_NONE;
    Utf8Stream utf8 = utf8_;
    StopMatcher::State held = held_;
    std::string decoded, text;
    const bool is_stop_token = is_stop(token);
    if (tokenizer_ && !is_stop_token) utf8.push(tokenizer_->bytes_of(token), decoded);
    if (stops_.push(held, decoded, text))
      reason = WKV_REASON_STOP_STRING;
    else if (is_stop_token)
      reason = WKV_REASON_STOP_TOKEN;
    else if (generated_ + 1 >= max_tokens_)
      reason = WKV_REASON_MAX_TOKENS;
    if (reason == WKV_REASON_STOP_TOKEN || reason == WKV_REASON_MAX_TOKENS) {
      decoded.clear();
      utf8.finish(decoded);
      if (stops_.push(held, decoded, text))
        reason = WKV_REASON_STOP_STRING;
      else
        stops_.finish(held, text);
    }

    sampler_->commit(choice);
    pending_ = token;
    has_logits_ = false;
    generated_++;
    utf8_ = utf8;
    held_ = std::move(held);
    text_ = std::move(text);
    reason_ = reason;
  } else {
    text_.clear();
    log_probability_ = 0;
    alternatives_.clear();
  }

  piece.token = token;
  piece.text = text_.c_str();
  piece.text_bytes = text_.size();
  piece.reason = reason_;
  piece.pending_token = reason_ == WKV_REASON_NONE ? -1 : pending_;
  piece.log_probability = log_probability_;
  piece.alternatives_count = static_cast<int32_t>(alternatives_.size());
  piece.alternatives = alternatives_.empty() ? nullptr : alternatives_.data();
  piece.tokens_generated = generated_;
  piece.prompt_tokens = static_cast<int64_t>(prompt_.size());
  return goes_on;
}

}  // namespace libwkv
