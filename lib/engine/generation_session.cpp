// SPDX-License-Identifier: Apache-2.0
// A generation as bytes, for sessions: README.md has the layout. What follows from other fields is not saved but made
// again (match counts, the decoder inside a character), so that it cannot contradict them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/byte_stream.h"
#include "base/error.h"
#include "engine/generation.h"
#include "engine/generation_limits.h"
#include "engine/model.h"
#include "state/cache.h"
#include "text/sampler.h"

namespace libwkv {
namespace {

using namespace generation_limits;

constexpr uint32_t layout_version = 1;
constexpr int64_t most_tokens = int64_t{1} << 53;  // of any count: far from overflow, and exact in every language

enum Flag : uint32_t {
  wants_probabilities = 1,
  accepts_prompt = 2,
  keeps_stop_string = 4,
  is_prompt_fed = 8,
  has_logits = 16,
  has_tokenizer = 32,
  has_sampler = 64,
  known_flags = 127
};
enum StateKind : uint32_t { zero_state = 0, state_of_cache = 1, own_state = 2 };

[[noreturn]] void refuse(const char *field, int64_t value) {
  fail(WKV_FORMAT, "a saved generation has %s %lld", field, static_cast<long long>(value));
}
int64_t read_count(ByteReader &in, const char *field, int64_t most = most_tokens) {
  const int64_t count = in.read<int64_t>();
  if (count < 0 || count > most) refuse(field, count);
  return count;
}

std::vector<int32_t> read_tokens(ByteReader &in, const char *field, int64_t vocab_size, size_t most) {
  std::vector<int32_t> tokens = in.read_list<int32_t>();
  if (tokens.size() > most) refuse(field, static_cast<int64_t>(tokens.size()));
  for (const int32_t token : tokens)
    if (token < 0 || token >= vocab_size) refuse(field, token);
  return tokens;
}

Utf8Stream read_unfinished_character(ByteReader &in) {
  const std::string_view bytes = in.read_text();
  Utf8Stream stream;
  std::string text;
  if (bytes.size() < 4) stream.push(bytes, text);
  if (stream.pending() != bytes)
    fail(WKV_FORMAT, "a saved generation has an unfinished character of %zu bytes that is none", bytes.size());
  return stream;
}

void write_state(ByteWriter &out, const Cache &cache) {
  const StateLayout &layout = cache.layout();
  std::vector<float> values;
  for (size_t layer = 0; layer < layout.layers; layer++)
    for (const wkv_state_part part : {WKV_STATE_ATT_SHIFT, WKV_STATE_FFN_SHIFT, WKV_STATE_WKV}) {
      values.resize(cache.part_values(part));
      cache.read_state(static_cast<int64_t>(layer), part, values);
      for (const float value : values) {
        if (!std::isfinite(value))
          fail(WKV_INVALID, "layer %zu of a kept state has a number that is not finite", layer);
        out.write(value);
      }
    }
}

float read_finite(ByteReader &in) {
  const float value = in.read<float>();
  if (!std::isfinite(value)) fail(WKV_FORMAT, "a saved generation has a state with a number that is not finite");
  return value;
}

StateHold read_state(ByteReader &in, const Cache &cache) {
  const StateLayout &layout = cache.layout();
  if (in.left() < layout.bytes()) in.read_bytes(layout.bytes());  // fails: before the memory is taken
  StateHold state = StateHold::make(cache.account(), layout.floats, Holder::checkpoint, false);
  const size_t size = layout.head_size;
  StateDraft draft(state, layout.floats);
  for (size_t layer = 0; layer < layout.layers; layer++) {
    float *floats = draft.floats() + layer * layout.layer_floats;
    for (size_t i = 0; i < 2 * layout.width; i++) *floats++ = read_finite(in);
    for (size_t head = 0; head < layout.heads; head++, floats += size * size)
      for (size_t value = 0; value < size; value++)
        for (size_t key = 0; key < size; key++) floats[key * size + value] = read_finite(in);
  }
  draft.finish();
  return state;
}

}  // namespace

void Generation::save(ByteWriter &out) const {
  const bool needs_prompt = !is_prompt_fed_ || (accepts_prompt_ && prompt_accepted_ < prompt_.size());
  out.write(layout_version);
  uint32_t flags = 0;
  const auto set = [&](Flag flag, bool is_set) { flags |= is_set ? uint32_t{flag} : 0; };
  set(wants_probabilities, wants_probabilities_);
  set(accepts_prompt, accepts_prompt_);
  set(keeps_stop_string, keeps_stop_string_);
  set(is_prompt_fed, is_prompt_fed_);
  set(has_logits, has_logits_);
  set(has_tokenizer, tokenizer_ != nullptr);
  set(has_sampler, has_sampler_);
  out.write(flags);
  out.write(static_cast<uint32_t>(alternatives_count_));
  out.write(reason_);
  out.write(pending_);
  out.write(max_tokens_);
  out.write(generated_);
  out.write(prompt_count_);
  out.write(reused_);
  out.write(static_cast<int64_t>(needs_prompt ? prompt_accepted_ : 0));
  out.write_list(needs_prompt ? prompt_ : std::vector<int32_t>());
  out.write_list(stop_tokens_);
  out.write(static_cast<uint64_t>(stops_.size()));
  for (size_t i = 0; i < stops_.size(); i++) out.write_text(stops_[i]);
  out.write_text(utf8_.pending());
  out.write_text(held_.held);
  out.write(static_cast<int64_t>(given_));
  out.write_text(unread_);

  const std::vector<StopTrail::Entry> &entries = trail_.entries();
  out.write(static_cast<uint64_t>(entries.size()));
  for (const StopTrail::Entry &entry : entries) out.write(entry.token);
  if (!entries.empty()) {
    const Moment &moment = *entries[0].moment;
    out.write(static_cast<int64_t>(entries[0].begin));
    out.write_text(entries[0].before.pending());
    out.write(static_cast<int64_t>(moment.position));
    out.write_list(moment.last_tokens.all());
    if (!moment.state) {
      out.write(static_cast<uint32_t>(zero_state));
    } else if (moment.state.is_same(cache_->now().state)) {
      out.write(static_cast<uint32_t>(state_of_cache));
    } else {
      out.write(static_cast<uint32_t>(own_state));
      Cache view(model_->hyper_parameters(), cache_->account(), {.initial = moment.state});
      view.replace(moment);
      write_state(out, view);
    }
  }
  if (has_logits_)
    for (const float logit : logits_) out.write(logit);
}

std::shared_ptr<Generation> Generation::restore(ByteReader &in, std::shared_ptr<Model> model,
                                                std::shared_ptr<Cache> cache, std::shared_ptr<Sampler> sampler,
                                                std::shared_ptr<const Tokenizer> tokenizer) {
  std::shared_ptr<Generation> made(
      new Generation(std::move(model), std::move(cache), std::move(sampler), std::move(tokenizer)));
  Generation &g = *made;
  const int64_t vocab_size = g.model_->hyper_parameters().vocab_size;
  const uint32_t version = in.read<uint32_t>();
  if (version != layout_version)
    fail(WKV_UNSUPPORTED, "a saved generation has layout %u, this version knows %u", version, layout_version);
  const uint32_t flags = in.read<uint32_t>();
  if (flags & ~uint32_t{known_flags}) refuse("flags", flags);
  if ((flags & has_tokenizer) && !g.tokenizer_)
    fail(WKV_NOT_FOUND, "a saved generation needs a tokenizer, and the model has none");
  if (!(flags & has_tokenizer)) g.tokenizer_ = nullptr;
  if ((flags & has_sampler) && !g.has_sampler_) fail(WKV_NOT_FOUND, "a saved generation needs its sampler");
  if (!(flags & has_sampler)) {
    g.sampler_ = nullptr;
    g.has_sampler_ = false;
  }
  g.wants_probabilities_ = flags & wants_probabilities;
  g.accepts_prompt_ = flags & accepts_prompt;
  g.keeps_stop_string_ = flags & keeps_stop_string;
  g.is_prompt_fed_ = flags & is_prompt_fed;
  g.has_logits_ = flags & has_logits;
  const uint32_t alternatives = in.read<uint32_t>();
  if (alternatives > static_cast<uint32_t>(most_alternatives) || (alternatives > 0 && !g.wants_probabilities_))
    refuse("alternatives_count", alternatives);
  g.alternatives_count_ = alternatives;
  g.reason_ = in.read<int32_t>();
  if (g.reason_ < WKV_REASON_NONE || g.reason_ > WKV_REASON_STOP_STRING) refuse("reason", g.reason_);
  g.pending_ = in.read<int32_t>();
  if (g.pending_ < -1 || g.pending_ >= vocab_size) refuse("pending token", g.pending_);
  g.max_tokens_ = read_count(in, "max_tokens", std::numeric_limits<int32_t>::max());
  if (g.max_tokens_ == 0) refuse("max_tokens", 0);
  g.generated_ = read_count(in, "tokens_generated", g.max_tokens_);
  g.prompt_count_ = read_count(in, "prompt_tokens");
  g.reused_ = read_count(in, "reused_tokens", g.prompt_count_);
  const int64_t accepted = read_count(in, "accepted tokens");
  g.prompt_ = read_tokens(in, "prompt token", vocab_size, most_prompt_tokens);
  if (!g.prompt_.empty() && static_cast<int64_t>(g.prompt_.size()) != g.prompt_count_)
    refuse("prompt_tokens", g.prompt_count_);
  if (accepted > static_cast<int64_t>(g.prompt_.size())) refuse("accepted tokens", accepted);
  g.prompt_accepted_ = static_cast<size_t>(accepted);
  // One of three: before the prompt, after a choice, and between the scores and the choice.
  const bool goes_on = g.reason_ == WKV_REASON_NONE, has_pending = g.pending_ >= 0;
  const bool has_begun = g.generated_ > 0;
  if (!g.is_prompt_fed_ ? g.prompt_.empty() || has_pending || g.has_logits_ || has_begun || !goes_on
                        : goes_on && (g.has_logits_ == has_pending || (has_pending && !has_begun)))
    refuse("flags that contradict each other:", flags);
  if (!goes_on && (g.has_logits_ || !has_begun || (!has_pending && g.reason_ != WKV_REASON_STOP_STRING)))
    refuse("reason", g.reason_);
  if (goes_on && g.generated_ >= g.max_tokens_) refuse("tokens_generated", g.generated_);

  g.stop_tokens_ = read_tokens(in, "stop token", vocab_size, most_stop_tokens + 1);
  if (!std::is_sorted(g.stop_tokens_.begin(), g.stop_tokens_.end())) refuse("stop tokens out of order:", 0);
  const uint64_t stops_count = in.read<uint64_t>();
  if (stops_count > most_stop_strings || (stops_count > 0 && !g.tokenizer_))
    refuse("stop_strings_count", static_cast<int64_t>(stops_count));
  std::vector<std::string> stops;
  for (uint64_t i = 0; i < stops_count; i++) {
    const std::string_view text = in.read_text();
    if (text.empty() || text.size() > longest_stop_bytes || !is_utf8(text))
      fail(WKV_FORMAT, "a saved generation has a stop string %llu that is empty, too long or not UTF-8",
           static_cast<unsigned long long>(i));
    stops.emplace_back(text);
  }
  g.stops_ = StopMatcher(std::move(stops));
  g.prepare();

  g.utf8_ = read_unfinished_character(in);
  const std::string_view held = in.read_text();
  std::string given;
  if (g.stops_.push(g.held_, held, given) || !given.empty() || g.held_.held != held)
    fail(WKV_FORMAT, "a saved generation holds back %zu bytes that begin no stop string", held.size());
  g.given_ = static_cast<uint64_t>(read_count(in, "bytes of text"));
  g.unread_ = in.read_text();
  g.restore_trail(in);
  if (g.has_logits_)
    for (float &logit : g.logits_) logit = in.read<float>();
  return made;
}

void Generation::restore_trail(ByteReader &in) {
  const uint64_t count = in.read<uint64_t>();
  if (count > in.left() / sizeof(int32_t)) refuse("tokens with held text:", static_cast<int64_t>(count));
  if (count == 0) {
    if (takes_stops_back() && reason_ == WKV_REASON_NONE && (!held_.held.empty() || !utf8_.pending().empty()))
      fail(WKV_FORMAT, "a saved generation holds text back without the tokens it came from");
    return;
  }
  if (!takes_stops_back() || reason_ != WKV_REASON_NONE || static_cast<uint64_t>(generated_) < count)
    refuse("tokens with held text:", static_cast<int64_t>(count));
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t &token : tokens) {
    token = in.read<int32_t>();
    if (token < 0 || token >= model_->hyper_parameters().vocab_size) refuse("token with held text:", token);
  }
  const uint64_t begin = static_cast<uint64_t>(read_count(in, "beginning of held text"));
  const Utf8Stream before = read_unfinished_character(in);
  Moment moment;
  moment.position = static_cast<uint64_t>(read_count(in, "position"));
  const std::vector<int32_t> last_tokens =
      read_tokens(in, "last token", model_->hyper_parameters().vocab_size, WKV_LAST_TOKENS);
  if (last_tokens.size() > moment.position) refuse("position", static_cast<int64_t>(moment.position));
  moment.last_tokens.push(last_tokens);
  switch (const uint32_t kind = in.read<uint32_t>()) {
    case zero_state:
      break;
    case state_of_cache:
      moment.state = cache_->now().state.as(Holder::checkpoint);
      break;
    case own_state:
      moment.state = read_state(in, *cache_);
      break;
    default:
      refuse("a state of the kind", kind);
  }

  // The tokens' text, from the first on, must come to where the text is.
  Utf8Stream utf8 = before;
  uint64_t decoded = begin;
  for (const int32_t token : tokens) {
    const Utf8Stream utf8_before = utf8;
    const uint64_t decoded_before = decoded;
    std::string text;
    utf8.push(bytes_of(token), text);
    decoded += text.size();
    StopTrail::Entry entry = StopTrail::entry(token, utf8_before, decoded_before, utf8, decoded);
    if (trail_.empty()) entry.moment = std::move(moment);
    trail_.push(std::move(entry));
  }
  if (begin > given_ || decoded != given_ + held_.held.size() || utf8.pending() != utf8_.pending() ||
      trail_.find(given_) == trail_.entries().size())
    fail(WKV_FORMAT, "a saved generation holds text back that does not come from its tokens");
}

}  // namespace libwkv
