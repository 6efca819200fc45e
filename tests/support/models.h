// SPDX-License-Identifier: Apache-2.0
// Models for tests of behaviour rather than of values, and how far two ways of computing the same thing may differ.
#pragma once

#include <string>
#include <vector>

#include "support/golden.h"
#include "support/handles.h"
#include "support/random_model.h"

namespace libwkv::test {

// Three layers, three heads of 32, an odd vocabulary: nothing a power of two but what has to be.
inline constexpr Shape odd_shape{3, 96, 32, 320, 517, 24, 20, 12, 36};

// A model and the memory that it reads.
struct RandomModel {
  RandomModel(const Shape &shape, wkv_type type, const wkv_model_options &options, uint64_t seed = 1,
              double zeros = 0.5)
      : image(random_gguf(shape, type, zeros, seed, 1)) {
    Failure failure;
    EXPECT_EQ(wkv_model_load_memory(image.data(), image.size(), &options, model.out(), &failure), WKV_OK)
        << failure.message;
    if (model) info = info_of(model);
  }
  Image image;  // goes after the model
  Model model;
  wkv_model_info info{};
};

// The bound for results of one model in two orders of summation: each is within tolerance of the true value. Shares of
// the largest value, from the golden models' noise in random orders of summation (data/row_noise.json: up to 2e-6 of
// the largest logit in rows of ordinary conditioning, 1.1e-5 at worst).
inline double order_tolerance(std::span<const float> reference, Quantity quantity) {
  double share = quantity == Quantity::wkv ? 2e-6 : 1e-6;
  return 2 * 3 * share * largest_magnitude(reference);
}

inline void expect_near(const Snapshot &a, const Snapshot &b, const std::string &what) {
  EXPECT_EQ(a.position, b.position) << what;
  EXPECT_EQ(a.last_token, b.last_token) << what;
  for (wkv_state_part part = 0; part < 3; part++)
    EXPECT_LE(largest_difference(a.parts[part], b.parts[part]),
              order_tolerance(b.parts[part], part == WKV_STATE_WKV ? Quantity::wkv : Quantity::att_shift))
        << what << " part " << part;
}

inline wkv_step_item make_item(wkv_cache *cache, std::span<const int32_t> tokens, float *logits = nullptr,
                               size_t logits_count = 0, uint32_t flags = 0) {
  wkv_step_item item{};
  item.struct_size = sizeof item;
  item.flags = flags;
  item.cache = cache;
  item.tokens = tokens.data();
  item.tokens_count = tokens.size();
  item.logits = logits;
  item.logits_count = logits_count;
  return item;
}

}  // namespace libwkv::test
