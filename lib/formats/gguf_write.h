// SPDX-License-Identifier: Apache-2.0
// Writing a checkpoint as GGUF version 3, so that llama.cpp reads it as well.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "formats/checkpoint.h"

namespace libwkv::formats {

struct GgufOptions {
  StoredType matrices = StoredType::f16;  // f32, f16, bf16 or q8_0: the large matrices
  std::string name;                       // general.name; empty: none
  // Sizes of the model, checked against its tensors before.
  int64_t layers = 0, width = 0, head_size = 0, ffn_width = 0, vocab_size = 0;
  int64_t rank_w = 0, rank_a = 0, rank_v = 0, rank_g = 0;
  // Called at least once a tensor with bytes of tensor data written and in all. false cancels.
  std::function<bool(uint64_t done_bytes, uint64_t total_bytes)> progress;
};

// Vectors, and the decay's low-rank matrices, become F32; other low-rank matrices F32, F16 or BF16 as the large ones
// do, F16 beside Q8_0. A Q8_0 matrix whose rows are no multiple of 32 becomes F16. Reads the checkpoint tensor by
// tensor and gives the pages back. Throws WKV_CANCELLED, WKV_IO, WKV_UNSUPPORTED for a finite value that the type
// cannot hold, WKV_INVALID for a vocabulary with ids outside the model's; the target is then as it was.
void write_gguf(const Checkpoint &checkpoint, const std::vector<VocabularyToken> &vocabulary,
                const GgufOptions &options, const std::string &target);

}  // namespace libwkv::formats
