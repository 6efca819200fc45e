// SPDX-License-Identifier: Apache-2.0
// The C entries of sampler.h.
#include <wkv/sampler.h>

#include "api/edge.h"
#include "api/handles.h"
#include "api/in_use.h"
#include "text/sampler.h"

using namespace libwkv;

namespace {

using InUse = api::InUse<Sampler>;

std::span<const float> read_logits(const float *logits, size_t logits_count) {
  api::needed(logits, "logits");
  if (logits_count < 1 || logits_count > INT32_MAX)
    fail(WKV_INVALID, "logits_count is %zu, expected [1, %d]", logits_count, INT32_MAX);
  return {logits, logits_count};
}

}  // namespace

extern "C" {

wkv_status wkv_sampler_create(const wkv_sampler_options *options, wkv_sampler **sampler, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(sampler, "sampler");
    const wkv_sampler_options values = api::read_options(options, "options");
    *sampler = new wkv_sampler{std::make_shared<Sampler>(read_sampler_options(values), values.seed)};
    return WKV_OK;
  });
}

wkv_status wkv_sampler_sample(wkv_sampler *sampler, const float *logits, size_t logits_count, int32_t *token,
                              wkv_error *error) {
  return api::guard(error, [&] {
    const InUse use(sampler, "sampler");
    const std::span<const float> scores = read_logits(logits, logits_count);
    api::needed(token, "token");
    *token = use->sample(scores);
    return WKV_OK;
  });
}

wkv_status wkv_sampler_accept(wkv_sampler *sampler, int32_t token, wkv_error *error) {
  return api::guard(error, [&] {
    const InUse use(sampler, "sampler");
    use->accept(token);
    return WKV_OK;
  });
}

wkv_status wkv_sampler_get_probabilities(wkv_sampler *sampler, const float *logits, size_t logits_count,
                                         float *probabilities, wkv_error *error) {
  return api::guard(error, [&] {
    const InUse use(sampler, "sampler");
    const std::span<const float> scores = read_logits(logits, logits_count);
    api::needed(probabilities, "probabilities");
    use->get_probabilities(scores, {probabilities, logits_count});
    return WKV_OK;
  });
}

wkv_status wkv_sampler_reset(wkv_sampler *sampler, uint64_t seed, wkv_error *error) {
  return api::guard(error, [&] {
    const InUse use(sampler, "sampler");
    use->reset(seed);
    return WKV_OK;
  });
}

void wkv_sampler_release(wkv_sampler *sampler) { delete sampler; }

}  // extern "C"
