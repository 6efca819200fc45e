// SPDX-License-Identifier: Apache-2.0
// The sizes of a model, read off its tensors' shapes.
#pragma once

#include <cstdint>

#include "formats/checkpoint.h"

namespace libwkv {

struct HyperParameters {
  int64_t layers = 0, width = 0, heads = 0, head_size = 0, ffn_width = 0, vocab_size = 0;
  int64_t rank_w = 0, rank_a = 0, rank_v = 0, rank_g = 0;
};

// Derives all sizes, checks that every tensor the model needs is there with the right shape (any rank may differ from
// model to model, not from layer to layer), and that the file's own claims agree. Throws Error WKV_FORMAT naming the
// tensor, its shape and the expected one.
HyperParameters derive_hyper_parameters(const formats::Checkpoint &checkpoint);

}  // namespace libwkv
