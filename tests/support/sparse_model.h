// SPDX-License-Identifier: Apache-2.0
// A GGUF file of any shape and matrix type whose weights are a hole: it costs a header, whatever its size, and all its
// numbers are zero until a test writes some.
#pragma once

#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <stdexcept>
#include <string>

#include "support/random_model.h"

namespace libwkv::test {

// A type of GGUF by its number, and its blocks.
struct GgufType {
  const char *name;
  uint32_t number;
  int64_t block_values;
  size_t block_bytes;
};
inline constexpr GgufType gguf_types[] = {{"F32", 0, 1, 4},       {"F16", 1, 1, 2},       {"Q4_0", 2, 32, 18},
                                          {"Q4_1", 3, 32, 20},    {"Q5_0", 6, 32, 22},    {"Q5_1", 7, 32, 24},
                                          {"Q8_0", 8, 32, 34},    {"Q4_K", 12, 256, 144}, {"Q5_K", 13, 256, 176},
                                          {"Q6_K", 14, 256, 210}, {"BF16", 30, 1, 2}};

inline const GgufType &gguf_type(std::string_view name) {
  for (const GgufType &type : gguf_types)
    if (name == type.name) return type;
  throw std::runtime_error("no such type");
}

class SparseModel {
 public:
  // type: of the large matrices; the others are F32 and F16.
  SparseModel(const std::filesystem::path &path, const Shape &shape, std::string_view type) : path_(path) {
    using namespace random_model;
    constexpr uint64_t alignment = 32;
    const GgufType &wanted = gguf_type(type);
    std::vector<Tensor> tensors = tensors_of(shape, WKV_TYPE_Q8, 0);
    Header header = metadata(shape, tensors.size());
    auto round_up = [](uint64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; };
    uint64_t data_bytes = 0;
    for (const Tensor &tensor : tensors) {
      bool is_large = tensor.type == GgmlType::q8_0;
      const GgufType &own = is_large ? wanted : gguf_type(tensor.type == GgmlType::f32 ? "F32" : "F16");
      header.text(tensor.name);
      header.put<uint32_t>(static_cast<uint32_t>(tensor.extents.size()));
      for (int64_t extent : tensor.extents) header.put<uint64_t>(static_cast<uint64_t>(extent));
      header.put<uint32_t>(own.number);
      header.put<uint64_t>(data_bytes);
      places_[tensor.name] = data_bytes;
      data_bytes += round_up(static_cast<uint64_t>(tensor.inputs / own.block_values) * own.block_bytes *
                             static_cast<uint64_t>(tensor.rows));
    }
    data_begin_ = round_up(header.bytes.size());
    std::ofstream out(path_, std::ios::binary);
    out.write(header.bytes.data(), static_cast<std::streamsize>(header.bytes.size()));
    out.close();
    if (!out) throw std::runtime_error("cannot write " + path_.string());
    std::filesystem::resize_file(path_, data_begin_ + data_bytes);
  }

  // Sets the first numbers of an F32 tensor.
  void write(const std::string &tensor, std::span<const float> values) {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(data_begin_ + places_.at(tensor)));
    file.write(reinterpret_cast<const char *>(values.data()), static_cast<std::streamsize>(values.size_bytes()));
    if (!file.flush()) throw std::runtime_error("cannot write to " + path_.string());
  }

  const std::filesystem::path &path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::map<std::string, uint64_t> places_;
  uint64_t data_begin_ = 0;
};

}  // namespace libwkv::test
