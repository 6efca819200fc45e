// SPDX-License-Identifier: Apache-2.0
// A checkpoint file as named tensors that lie in mapped memory. One vocabulary of names: the official ones.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapping.h"

namespace libwkv::formats {

enum class StoredType : int32_t { f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k };

const char *name_of(StoredType type);   // "Q4_K"
int64_t block_values(StoredType type);  // 1, 32 or 256
size_t block_bytes(StoredType type);    // bytes of block_values numbers

// A view of mapped bytes. shape and strides are in the official orientation of FORMATS.md section 1 (matrices
// [outputs, inputs], low-rank w1 [C, R], w2 [R, C], vectors [C], r_k [H, N]), whatever the file's own orientation is:
// a transposed one shows as strides. Leading dimensions of 1 are gone.
struct Tensor {
  StoredType type = StoredType::f32;
  int32_t rank = 0;
  std::array<int64_t, 2> shape{};       // [rank]
  std::array<int64_t, 2> strides{};     // in values; quantised tensors are always contiguous
  std::span<const std::byte> bytes;     // from the first value to the last one reachable; checked against the file
  std::shared_ptr<const Mapping> file;  // where the bytes are

  int64_t values() const { return rank == 2 ? shape[0] * shape[1] : shape[0]; }
  bool is_contiguous() const { return rank == 2 ? strides[1] == 1 && strides[0] == shape[1] : strides[0] == 1; }
};

// One token of an embedded vocabulary.
struct VocabularyToken {
  int32_t id;
  std::string bytes;
};

// What a header or config.json claims besides the tensors; the model room compares it with the shapes.
struct Claims {
  std::optional<int64_t> layers, width, heads, head_size, ffn_width, vocab_size;
  std::optional<int64_t> rank_w, rank_a, rank_v, rank_g;
};

struct Checkpoint {
  std::string format;  // as wkv_model_info.format
  std::map<std::string, Tensor, std::less<>> tensors;
  std::vector<std::shared_ptr<const Mapping>> files;  // every mapped file, in order
  Claims claims;
  std::vector<VocabularyToken> vocabulary;  // rising ids; empty: none found
};

// Opens a file or a directory. Detection is by content. Throws Error: WKV_NOT_FOUND, WKV_IO, WKV_FORMAT (damaged),
// WKV_UNSUPPORTED (another architecture or type; says what was found). A vocabulary inside the file, or in a file
// rwkv_vocab*.txt in the directory of a Hugging Face model, is read as well.
Checkpoint open_checkpoint(const std::string &path);
// The same for a file's content. Single-file formats.
Checkpoint open_checkpoint_memory(std::span<const std::byte> bytes);

}  // namespace libwkv::formats
