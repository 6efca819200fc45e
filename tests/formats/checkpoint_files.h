// SPDX-License-Identifier: Apache-2.0
// Checkpoint files for tests: where they are, how to make some, and how to compare what is read.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/blocks.h"
#include "formats/checkpoint.h"
#include "model/hyper_parameters.h"

namespace libwkv::tests {

namespace fs = std::filesystem;
using formats::Checkpoint;
using formats::StoredType;
using formats::Tensor;

inline fs::path data_folder() { return fs::path(WKV_SOURCE_DIR) / "tests/data/rnd_a/weights"; }
inline fs::path shared_folder() { return WKV_SHARED_DIR; }

// In a test: skips it, visibly, when the ground truth beside the checkout is missing.
#define WKV_NEED_SHARED()                                                    \
  if (!libwkv::tests::fs::exists(libwkv::tests::shared_folder() / "golden")) \
  GTEST_SKIP() << "no ground truth in " << libwkv::tests::shared_folder()

// A folder that is gone with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    static std::atomic<int> counter{0};
    path_ = fs::temp_directory_path() / ("wkv-test-" + std::to_string(getpid()) + "-" + std::to_string(counter++));
    fs::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder &) = delete;
  TemporaryFolder &operator=(const TemporaryFolder &) = delete;

  const fs::path &path() const { return path_; }
  fs::path operator/(const std::string &name) const { return path_ / name; }

 private:
  fs::path path_;
};

inline std::string read_file(const fs::path &path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_file(const fs::path &path, std::string_view content) {
  std::ofstream out(path, std::ios::binary);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  ASSERT_TRUE(out.flush()) << path;
}

inline std::span<const std::byte> bytes_of(std::string_view content) {
  return {reinterpret_cast<const std::byte *>(content.data()), content.size()};
}

inline std::vector<float> values_of(const Tensor &tensor) {
  int64_t rows = tensor.rank == 2 ? tensor.shape[0] : 1, columns = tensor.rank == 2 ? tensor.shape[1] : tensor.shape[0];
  std::vector<float> values(static_cast<size_t>(rows * columns));
  for (int64_t row = 0; row < rows; row++) formats::decode_row(tensor, row, values.data() + row * columns);
  return values;
}

// Everything that loading does: open, derive sizes, read every number.
inline double load_all(const Checkpoint &checkpoint) {
  derive_hyper_parameters(checkpoint);
  double sum = 0;
  for (const auto &[name, tensor] : checkpoint.tensors)
    for (float value : values_of(tensor)) sum += value;
  return sum;
}

// The status with which a call fails; WKV_OK when it does not. The message goes to `message`.
inline wkv_status status_of(const std::function<void()> &call, std::string *message = nullptr) {
  try {
    call();
    return WKV_OK;
  } catch (const Error &error) {
    if (message) *message = error.what();
    return error.status();
  }
}

inline wkv_status open_status(const fs::path &path, std::string *message = nullptr) {
  return status_of([&] { load_all(formats::open_checkpoint(path.string())); }, message);
}

inline void expect_same_model(const Checkpoint &found, const Checkpoint &expected, const std::string &what) {
  EXPECT_EQ(found.tensors.size(), expected.tensors.size()) << what;
  for (const auto &[name, tensor] : expected.tensors) {
    auto other = found.tensors.find(name);
    ASSERT_NE(other, found.tensors.end()) << what << " " << name;
    ASSERT_EQ(other->second.rank, tensor.rank) << what << " " << name;
    ASSERT_EQ(other->second.shape, tensor.shape) << what << " " << name;
    EXPECT_EQ(values_of(other->second), values_of(tensor)) << what << " " << name;
  }
}

// A model of any shape as named tensors in memory, to be written in formats that no committed file has.
struct PlainTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

inline std::vector<PlainTensor> plain_tensors(const Checkpoint &checkpoint) {
  std::vector<PlainTensor> tensors;
  for (const auto &[name, tensor] : checkpoint.tensors) {
    std::vector<int64_t> shape(tensor.shape.begin(), tensor.shape.begin() + tensor.rank);
    tensors.push_back({name, shape, values_of(tensor)});
  }
  return tensors;
}

inline void transpose(PlainTensor &tensor) {
  int64_t rows = tensor.shape[0], columns = tensor.shape[1];
  std::vector<float> values(tensor.values.size());
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++)
      values[static_cast<size_t>(c * rows + r)] = tensor.values[static_cast<size_t>(r * columns + c)];
  tensor.values = std::move(values);
  std::swap(tensor.shape[0], tensor.shape[1]);
}

inline bool is_low_rank(const std::string &name) {
  static constexpr std::string_view endings[] = {"att.w1", "att.w2", "att.a1", "att.a2",
                                                 "att.v1", "att.v2", "att.g1", "att.g2"};
  for (std::string_view ending : endings)
    if (name.ends_with(ending)) return true;
  return false;
}

template <class T>
void append_number(std::string &out, T value) {
  out.append(reinterpret_cast<const char *>(&value), sizeof value);
}

inline std::string make_safetensors(const std::vector<PlainTensor> &tensors) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const PlainTensor &tensor : tensors) {
    size_t begin = data.size();
    for (float value : tensor.values) append_number(data, value);
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump(), out;
  append_number(out, static_cast<uint64_t>(text.size()));
  return out + text + data;
}

// rwkv.cpp's own way: the six shifts in one tensor, low-rank matrices transposed, everything F32.
inline std::string make_rwkvcpp(std::vector<PlainTensor> tensors, int32_t layers) {
  std::string out;
  auto find = [&](const std::string &name) -> PlainTensor & {
    for (PlainTensor &tensor : tensors)
      if (tensor.name == name) return tensor;
    throw std::runtime_error(name);
  };
  PlainTensor embedding = find("emb.weight");
  for (int32_t number :
       {0x67676d66, 100, static_cast<int32_t>(embedding.shape[0]), static_cast<int32_t>(embedding.shape[1]), layers, 0})
    append_number(out, number);
  for (int32_t layer = 0; layer < layers; layer++) {
    std::string att = "blocks." + std::to_string(layer) + ".att.";
    PlainTensor fused{att + "x_rwkvag", {6, 1, embedding.shape[1]}, {}};
    for (char c : std::string("rwkvag")) {
      PlainTensor &part = find(att + "x_" + c);
      fused.values.insert(fused.values.end(), part.values.begin(), part.values.end());
      part.values.clear();
    }
    tensors.push_back(std::move(fused));
  }
  for (PlainTensor &tensor : tensors) {
    if (tensor.values.empty()) continue;
    if (is_low_rank(tensor.name)) transpose(tensor);
    append_number(out, static_cast<int32_t>(tensor.shape.size()));
    append_number(out, static_cast<int32_t>(tensor.name.size()));
    append_number(out, int32_t{0});
    for (size_t i = tensor.shape.size(); i-- > 0;) append_number(out, static_cast<int32_t>(tensor.shape[i]));
    out += tensor.name;
    for (float value : tensor.values) append_number(out, value);
  }
  return out;
}

}  // namespace libwkv::tests
