// SPDX-License-Identifier: Apache-2.0
#include "engine/run_ahead.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "base/error.h"
#include "engine/executor.h"
#include "engine/model.h"
#include "state/cache.h"
#include "state/cache_step.h"

namespace libwkv {

uint64_t Model::start_ahead(const kernels::DeviceAheadStep &step, uint64_t chain) {
  std::lock_guard lock(*executor_);
  if (!step.token && (chain_ == 0 || chain_ != chain)) return 0;
  executor_->reserve(1, 1);
  if (step.token) chain_ = 0;
  if (!executor_->start_ahead(step)) return chain_ = 0;
  if (step.token) chain_ = ++chains_;
  return chain_;
}

bool Model::finish_ahead(uint64_t chain, int32_t *token) {
  std::lock_guard lock(*executor_);
  if (chain_ != chain) return false;
  if (executor_->finish_ahead(token)) return true;
  chain_ = 0;
  return false;
}

bool RunAhead::start(Model &model, const Cache &cache, Sampler &sampler, const SamplerLimits &limits,
                     const int32_t *token) {
  StateHold from = steps_.empty() ? cache.now().state : steps_.back().state;
  StateHold to = StateHold::make(cache.account(), cache.layout().floats, Holder::cache, false);
  const Random before = steps_.empty() ? sampler.state().random : steps_.back().draw.random();
  DeviceDraw draw(sampler, limits, before);
  if (draw.options().biases_count > kernels::most_ahead_biases) return false;
  const StatePin from_pin(from), to_pin(to);
  const kernels::DeviceAheadStep step{from_pin.memory(), to_pin.memory(), &draw.options(), token};
  const uint64_t chain = model.start_ahead(step, chain_);
  if (chain == 0) return false;
  chain_ = chain;
  steps_.push_back({std::move(from), std::move(to), before, std::move(draw)});
  return true;
}

bool RunAhead::feed_and_choose(Model &model, Cache &cache, Sampler &sampler, const SamplerLimits &limits, int32_t token,
                               bool goes_on, Sampler::Choice *choice) {
  const BusyGuard use(cache.busy(), "cache");
  const std::span<const Checkpoint> kept = cache.checkpoints();
  // Penalties remember tokens that the host has yet to see.
  if (is_given_up_ || sampler.options().has_penalties() || !cache.now().state ||
      cache.options().checkpoint_every_tokens > 0 ||
      std::any_of(kept.begin(), kept.end(), [](const Checkpoint &one) { return one.reason == Kept::verify; }))
    return drop(), false;
  if (!steps_.empty() &&
      (!steps_.front().from.is_same(cache.now().state) || !(steps_.front().before == sampler.state().random)))
    drop();
  try {
    if (steps_.empty() && !start(model, cache, sampler, limits, &token)) return false;
    if (goes_on && steps_.size() < kernels::most_steps_ahead) start(model, cache, sampler, limits, nullptr);
  } catch (const Error &) {  // no memory for a state more
    if (steps_.empty()) return false;
  }
  int32_t chosen = -1;
  if (!model.finish_ahead(chain_, &chosen)) is_given_up_ = true;
  if (chosen < 0) return drop(), false;
  *choice = {chosen, steps_.front().draw.random()};
  CacheStep::commit(cache, {&token, 1}, steps_.front().state);
  steps_.pop_front();
  return true;
}

}  // namespace libwkv
