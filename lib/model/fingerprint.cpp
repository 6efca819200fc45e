// SPDX-License-Identifier: Apache-2.0
#include "model/fingerprint.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/error.h"
#include "formats/blocks.h"

namespace libwkv {
namespace {

// Rows of a matrix that are looked at, and values of each.
constexpr int64_t sampled_rows = 8, sampled_values = 32;

struct HashState {
  HashState() : state(XXH3_createState()) {
    if (!state || XXH3_64bits_reset(state) != XXH_OK) fail(WKV_OUT_OF_MEMORY, "no memory for a hash");
  }
  ~HashState() { XXH3_freeState(state); }
  void update(const void *bytes, size_t count) { XXH3_64bits_update(state, bytes, count); }
  XXH3_state_t *state;
};

}  // namespace

uint64_t fingerprint(const formats::Checkpoint &checkpoint, const HyperParameters &hyper) {
  HashState hash;
  int64_t sizes[] = {hyper.layers,     hyper.width,  hyper.heads,  hyper.head_size, hyper.ffn_width,
                     hyper.vocab_size, hyper.rank_w, hyper.rank_a, hyper.rank_v,    hyper.rank_g};
  hash.update(sizes, sizeof sizes);
  std::vector<float> row;
  for (const auto &[name, tensor] : checkpoint.tensors) {
    hash.update(name.data(), name.size());
    int64_t rows = tensor.rank == 2 ? tensor.shape[0] : 1, count = tensor.rank == 2 ? tensor.shape[1] : tensor.shape[0];
    bool is_matrix = tensor.rank == 2 && name.find(".r_k") == std::string::npos;
    row.resize(static_cast<size_t>(count));
    int64_t row_step = is_matrix ? std::max<int64_t>(1, rows / sampled_rows) : 1;
    int64_t value_step = is_matrix ? std::max<int64_t>(1, count / sampled_values) : 1;
    for (int64_t r = 0; r < rows; r += row_step) {
      formats::decode_row(tensor, r, row.data());
      for (int64_t i = 0; i < count; i += value_step) hash.update(&row[static_cast<size_t>(i)], sizeof(float));
    }
  }
  return XXH3_64bits_digest(hash.state);
}

}  // namespace libwkv
