// SPDX-License-Identifier: Apache-2.0
// A generation's steps on a device, begun before the host knows their token: the device goes from one to the next by
// itself, and only tokens come back.
#pragma once

#include <cstdint>
#include <deque>

#include "engine/device_draw.h"
#include "state/state.h"
#include "text/sampler.h"

namespace libwkv {

class Cache;
class Model;

class RunAhead {
 public:
  // Feeds a token and chooses the next, as a step with this sampler would, and begins the step behind it if the
  // generation goes on. The cache has read the token then; the sampler stays as it is until the caller commits the
  // choice. False: this cannot be done ahead, and nothing has changed; an ordinary step can. Expects the caller to hold
  // the sampler. What is on its way notices when cache or sampler are not where it left them, and is dropped.
  bool feed_and_choose(Model &model, Cache &cache, Sampler &sampler, const SamplerLimits &limits, int32_t token,
                       bool goes_on, Sampler::Choice *choice);
  void drop() { steps_.clear(); }

 private:
  // Steps write into states of their own, so that one that is dropped leaves nothing behind. Whatever else happens to
  // these states comes later on the device, so that they need not stay where they are.
  struct Step {
    StateHold from, state;
    Random before;  // the sampler's, and in draw the one after
    DeviceDraw draw;
  };
  bool start(Model &model, const Cache &cache, Sampler &sampler, const SamplerLimits &limits, const int32_t *token);

  std::deque<Step> steps_;  // on their way
  uint64_t chain_ = 0;
  bool is_given_up_ = false;  // somebody else runs ahead on this model: both would wait for steps that are dropped
};

}  // namespace libwkv
