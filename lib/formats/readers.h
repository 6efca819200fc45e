// SPDX-License-Identifier: Apache-2.0
// What the readers of single formats give: tensors under the file's own names and in its own orientation, with every
// view checked against the file. names.h turns them into a Checkpoint.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/checkpoint.h"

namespace libwkv::formats {

struct RawTensor {
  std::string name;
  StoredType type = StoredType::f32;
  std::vector<int64_t> shape;        // row-major, slowest first
  std::vector<int64_t> strides;      // in values; empty: contiguous
  std::span<const std::byte> bytes;  // from the first value to the last one reachable
  std::shared_ptr<const Mapping> file;
};

// How low-rank matrices under official names are stored.
enum class LowRank { official, transposed, by_shape };

struct RawCheckpoint {
  std::string format;
  std::vector<RawTensor> tensors;
  std::vector<std::shared_ptr<const Mapping>> files;
  Claims claims;
  std::vector<VocabularyToken> vocabulary;
  LowRank low_rank = LowRank::official;
  bool is_head_tied = false;  // the head may be absent: it is the embedding
};

// Bytes of `values` contiguous numbers, values being a whole number of blocks.
uint64_t stored_bytes(StoredType type, uint64_t values);
// Product of a shape from a file. Throws WKV_FORMAT for a zero or negative dimension, or overflow.
uint64_t count_values(std::span<const int64_t> shape, const std::string &tensor_name);

// Throws WKV_FORMAT when the file is what git-lfs leaves in place of a file that it did not download.
void refuse_git_lfs_pointer(const Mapping &file);

// Opens one file and gives its tensors as they are, whatever they are called. Throws Error as open_checkpoint does.
RawCheckpoint open_raw(const std::string &path);

// The readers. Each throws Error as open_checkpoint does.
RawCheckpoint read_pth(std::shared_ptr<const Mapping> file);
RawCheckpoint read_pth_legacy(std::shared_ptr<const Mapping> file);
RawCheckpoint read_safetensors(std::shared_ptr<const Mapping> file);
RawCheckpoint read_hugging_face_directory(const std::string &path);
RawCheckpoint read_gguf(std::shared_ptr<const Mapping> file);
RawCheckpoint read_rwkvcpp(std::shared_ptr<const Mapping> file);

}  // namespace libwkv::formats
