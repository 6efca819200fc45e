// SPDX-License-Identifier: Apache-2.0
// The loop of generation, turned inside out: each call does one round of feed, choose, tell.
#include "engine/generation.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "base/error.h"
#include "engine/generation_limits.h"
#include "engine/model.h"
#include "state/cache.h"
#include "state/prefix_store.h"
#include "text/portable_math.h"
#include "text/sampler.h"

namespace libwkv {
namespace {

using namespace generation_limits;

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

bool is_zero(const Cache &cache) {
  if (!cache.now().state) return true;
  const StateView view(cache.now().state, cache.layout().floats);
  return std::all_of(view.floats(), view.floats() + cache.layout().floats, [](float value) { return value == 0; });
}

}  // namespace

Generation::Generation(std::shared_ptr<Model> model, std::shared_ptr<Cache> cache, std::shared_ptr<Sampler> sampler,
                       std::shared_ptr<const Tokenizer> tokenizer)
    : model_(std::move(model)),
      cache_(std::move(cache)),
      sampler_(std::move(sampler)),
      has_sampler_(sampler_ != nullptr),
      tokenizer_(tokenizer ? std::move(tokenizer) : model_->tokenizer()) {}

Generation::Generation(std::shared_ptr<Model> model, std::shared_ptr<Cache> cache, std::shared_ptr<Sampler> sampler,
                       std::shared_ptr<const Tokenizer> tokenizer, std::shared_ptr<PrefixStore> store,
                       const wkv_generation_options &options)
    : Generation(std::move(model), std::move(cache), std::move(sampler), std::move(tokenizer)) {
  store_ = std::move(store);
  const int64_t vocab_size = model_->hyper_parameters().vocab_size;
  if (options.max_tokens < 0) fail(WKV_INVALID, "max_tokens is %d, expected at least 0", options.max_tokens);
  max_tokens_ = options.max_tokens > 0 ? options.max_tokens : 256;
  if (options.alternatives_count < 0 || options.alternatives_count > most_alternatives)
    fail(WKV_INVALID, "alternatives_count is %d, expected [0, %d]", options.alternatives_count, most_alternatives);
  alternatives_count_ = static_cast<size_t>(options.alternatives_count);
  wants_probabilities_ =
      read_switch("wants_log_probability", options.wants_log_probability) != 0 || alternatives_count_ > 0;
  accepts_prompt_ = read_switch("accepts_prompt", options.accepts_prompt) != 0;
  keeps_stop_string_ = read_switch("keeps_stop_string", options.keeps_stop_string) != 0;
  if (options.reserved != 0) fail(WKV_UNSUPPORTED, "reserved is %d, expected 0", options.reserved);
  progress_ = options.progress;
  progress_user_ = options.progress_user;

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

  prompt_.assign(options.prompt_tokens, options.prompt_tokens + options.prompt_tokens_count);
  if (options.prompt_bytes > 0) {
    const std::vector<int32_t> encoded = tokenizer_->encode({options.prompt, options.prompt_bytes});
    for (const int32_t token : encoded) check_token("prompt", token, vocab_size);
    prompt_.insert(prompt_.end(), encoded.begin(), encoded.end());
  }
  if (prompt_.empty()) fail(WKV_INVALID, "nothing to feed: neither a prompt nor prompt_tokens");
  prompt_count_ = static_cast<int64_t>(prompt_.size());
  prepare();
}

// What follows from the options.
void Generation::prepare() {
  const int64_t vocab_size = model_->hyper_parameters().vocab_size;
  held_ = stops_.begin();
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

// One step of the prompt or of a chosen token. logits: NULL or vocab_size. tokens_before: how much of the prompt is
// done.
void Generation::step(Cache &cache, std::span<const int32_t> tokens, float *logits, size_t tokens_before) {
  StepItem item;
  item.cache = &cache;
  item.tokens = tokens;
  item.logits = logits;
  item.logits_count = logits ? logits_.size() : 0;
  struct Progress {
    const Generation *generation;
    uint64_t before, total;
  } progress{this, tokens_before, prompt_.size()};
  StepWatch watch;
  if (progress_ && !is_prompt_fed_) {
    watch.progress = [](void *user, uint64_t done_tokens, uint64_t) {
      const Progress &p = *static_cast<Progress *>(user);
      return p.generation->progress_(p.generation->progress_user_, p.before + done_tokens, p.total);
    };
    watch.user = &progress;
  }
  model_->step({&item, 1}, watch);
}

// Brings logits_ up to date with what was chosen.
void Generation::feed() {
  if (!has_logits_) {
    if (is_prompt_fed_)
      step(*cache_, {&pending_, 1}, logits_.data(), 0);
    else if (store_)
      feed_through_store();
    else
      step(*cache_, prompt_, logits_.data(), 0);
    is_prompt_fed_ = true;
    pending_ = -1;
    has_logits_ = true;
  }
  for (; accepts_prompt_ && prompt_accepted_ < prompt_.size(); prompt_accepted_++)
    sampler_->accept(prompt_[prompt_accepted_]);
}

Sampler::Choice Generation::choose() {
  feed();
  return sampler_->choose(logits_, limits());
}

SamplerLimits Generation::limits() const {
  return {.ids_end = tokenizer_ ? tokenizer_->ids_end() : 0, .banned = without_bytes_};
}

// A round of a chosen token on a model that chooses where the scores are: only the next token travels.
Sampler::Choice Generation::feed_and_choose() {
  const SamplerLimits limits = this->limits();
  Sampler::Choice choice{-1, sampler_->state().random};
  const bool goes_on = generated_ + 1 < max_tokens_;
  if (ahead_.feed_and_choose(*model_, *cache_, *sampler_, limits, pending_, goes_on, &choice)) {
    pending_ = -1;
    return choice;
  }
  int32_t unused = -1;
  StepItem item;
  item.cache = cache_.get();
  item.tokens = {&pending_, 1};
  item.sampler = sampler_.get();
  item.next_token = &unused;
  item.limits = &limits;
  item.choice = &choice;
  model_->step({&item, 1});
  pending_ = -1;
  return choice;
}

// For the call after one that failed between choosing and telling: scores from which every sampler chooses the same
// again, with the same draw.
void Generation::keep(const Sampler::Choice &choice) noexcept {
  if (has_logits_) return;
  std::fill(logits_.begin(), logits_.end(), -std::numeric_limits<float>::infinity());
  logits_[static_cast<size_t>(choice.token)] = 0;
  has_logits_ = true;
}

// Feeds the prompt but for its beginning that the store has, and keeps it there up to the last token, so that the same
// prompt costs one token. All of it happens to a copy: the cache changes at once, or not at all.
void Generation::feed_through_store() {
  const BusyGuard use(cache_->busy(), "cache");
  if (cache_->now().position != 0)
    fail(WKV_INVALID, "a prefix store needs a cache at position 0, it is at %llu",
         static_cast<unsigned long long>(cache_->now().position));
  if (cache_->options().initial) fail(WKV_INVALID, "a prefix store needs a cache without an initial state");
  if (!cache_->checkpoints().empty()) fail(WKV_INVALID, "a prefix store needs a cache without checkpoints");
  const std::shared_ptr<Cache> work = cache_->copy();
  const std::span<const int32_t> prompt = prompt_;
  const size_t last = prompt.size() - 1;
  const size_t known = store_->find(prompt, *work);
  if (known == 0 && !is_zero(*cache_)) fail(WKV_INVALID, "a prefix store needs a cache whose state is all zero");
  if (known < last) {
    step(*work, prompt.subspan(known, last - known), nullptr, known);
    try {
      store_->put(prompt.first(last), *work);
    } catch (...) {  // a store that cannot keep more is no reason not to go on
    }
  }
  step(*work, prompt.subspan(last), logits_.data(), last);
  cache_->assign(*work);
  reused_ = static_cast<int64_t>(known);
}

// Adds a chosen token, before it is fed, when some of its text is not given out yet.
void Generation::follow(StopTrail &trail, StopTrail::Entry entry, uint64_t given) const {
  trail.drop_until(given);
  if (entry.end <= given) return;
  if (trail.empty() || trail.wants_moment()) {
    const BusyGuard use(cache_->busy(), "cache");
    entry.moment = cache_->now();
    entry.moment->state = entry.moment->state.as(Holder::checkpoint);
  }
  trail.push(std::move(entry));
}

// The cache before a token of the trail. The tokens since the last moment are fed again, one by one as they were, so
// that the numbers are the same.
Moment Generation::moment_before(size_t index) const {
  const std::vector<StopTrail::Entry> &entries = trail_.entries();
  size_t i = trail_.moment_before(index);
  if (i == index) return *entries[i].moment;
  Cache work(model_->hyper_parameters(), cache_->account(), {.initial = entries[i].moment->state});
  work.replace(*entries[i].moment);
  for (; i < index; i++) {
    StepItem item;
    item.cache = &work;
    item.tokens = {&entries[i].token, 1};
    model_->step({&item, 1});
  }
  return work.now();
}

// Keeps the cache's state under the prompt and the first chosen tokens, which is what it has read, unless somebody else
// has used it.
void Generation::put_into_store(size_t chosen_read) noexcept {
  try {
    std::vector<int32_t> tokens;
    tokens.reserve(prompt_.size() + chosen_read);
    tokens.assign(prompt_.begin(), prompt_.end());
    tokens.insert(tokens.end(), chosen_.begin(), chosen_.begin() + static_cast<ptrdiff_t>(chosen_read));
    const BusyGuard use(cache_->busy(), "cache");
    store_->put(tokens, *cache_);
  } catch (...) {  // the generation has ended well; only the next one will cost more
  }
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

// What a chosen token does, worked out before any of it happens: memory and steps may fail until then.
Generation::Turn Generation::take(int32_t token) const {
  Turn turn{.reason = WKV_REASON_NONE, .utf8 = utf8_, .held = held_};
  std::string decoded;
  const uint64_t decoded_before = given_ + held_.held.size();
  const bool is_stop_token = is_stop(token);
  const std::string_view bytes = is_stop_token ? std::string_view() : bytes_of(token);
  turn.utf8.push(bytes, decoded);
  StopTrail::Entry entry = StopTrail::entry(token, utf8_, decoded_before, turn.utf8, decoded_before + decoded.size());
  if (stops_.push(turn.held, decoded, turn.text))
    turn.reason = WKV_REASON_STOP_STRING;
  else if (is_stop_token)
    turn.reason = WKV_REASON_STOP_TOKEN;
  else if (generated_ + 1 >= max_tokens_)
    turn.reason = WKV_REASON_MAX_TOKENS;
  if (turn.reason == WKV_REASON_STOP_TOKEN || turn.reason == WKV_REASON_MAX_TOKENS) {
    decoded.clear();
    turn.utf8.finish(decoded);
    if (stops_.push(turn.held, decoded, turn.text))
      turn.reason = WKV_REASON_STOP_STRING;
    else
      stops_.finish(turn.held, turn.text);
  }
  turn.given = given_ + turn.text.size();
  if (!takes_stops_back()) return turn;

  if (turn.reason == WKV_REASON_NONE) {
    turn.trail = trail_;
    follow(turn.trail, std::move(entry), turn.given);
  } else if (turn.reason == WKV_REASON_STOP_STRING) {
    turn.is_taken_back = true;
    const std::vector<StopTrail::Entry> &entries = trail_.entries();
    const size_t first = trail_.find(turn.given);
    if (first < entries.size()) {
      turn.target = moment_before(first);
      turn.unread_tokens += entries.size() - first;
      turn.unread = bytes_before(entries[first], bytes_of(entries[first].token), turn.given);
    } else {
      turn.unread = bytes_before(entry, bytes, turn.given);
    }
  }
  return turn;
}

bool Generation::next(wkv_generation_piece &piece) {
  const BusyGuard use(busy_, "generation");
  const bool goes_on = reason_ == WKV_REASON_NONE;
  int32_t token = -1;
  if (goes_on) {
    const BusyGuard sampler_use(sampler_->busy(), "sampler");
    const bool only_token_travels =
        is_prompt_fed_ && !has_logits_ && !wants_probabilities_ && model_->chooses_on_device(*sampler_);
    const Sampler::Choice choice = only_token_travels ? feed_and_choose() : choose();
    token = choice.token;
    Turn turn;
    try {
      if (wants_probabilities_) write_probabilities(token);
      turn = take(token);
      if (store_ && chosen_.size() == chosen_.capacity()) chosen_.reserve(std::max<size_t>(256, 2 * chosen_.size()));
      if (turn.target) {
        const BusyGuard cache_use(cache_->busy(), "cache");
        cache_->go_back(std::move(*turn.target));
      }
    } catch (...) {
      keep(choice);
      throw;
    }
    // From here on nothing fails.
    sampler_->commit(choice);
    pending_ = turn.is_taken_back ? -1 : token;
    has_logits_ = false;
    generated_++;
    utf8_ = turn.utf8;
    held_ = std::move(turn.held);
    given_ = turn.given;
    trail_ = std::move(turn.trail);
    text_ = std::move(turn.text);
    unread_ = std::move(turn.unread);
    reason_ = turn.reason;
    if (reason_ != WKV_REASON_NONE) ahead_.drop();
    if (store_) {
      chosen_.push_back(token);
      if (reason_ != WKV_REASON_NONE) put_into_store(chosen_.size() - turn.unread_tokens);
    }
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
  piece.prompt_tokens = prompt_count_;
  piece.reused_tokens = reused_;
  piece.unread_text = unread_.c_str();
  piece.unread_bytes = unread_.size();
  return goes_on;
}

}  // namespace libwkv
