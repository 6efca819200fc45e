// SPDX-License-Identifier: Apache-2.0
// Ground truth: golden cases (NAME.json and NAME.bin), where they lie, and the tolerances that follow from the noise
// of a plain float32 run. A full set beside the checkout is used when it is there, else the committed subset.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace libwkv::test {

inline std::filesystem::path shared_directory() {
  const char *chosen = std::getenv("WKV_SHARED_DIR");
  return chosen ? chosen : WKV_SHARED_DIR;
}

// The directory of a golden model (weights/ and golden/ below it); empty when this checkout does not have it.
inline std::filesystem::path golden_directory(const std::string &model) {
  for (const std::filesystem::path &root :
       {shared_directory() / "golden", std::filesystem::path(WKV_SOURCE_DIR) / "tests/data"})
    if (std::filesystem::is_directory(root / model / "golden")) return root / model;
  return {};
}

inline std::vector<std::byte> read_file(const std::filesystem::path &path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  std::vector<std::byte> bytes(std::filesystem::file_size(path));
  file.read(reinterpret_cast<char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file) throw std::runtime_error("cannot read all of " + path.string());
  return bytes;
}

class GoldenCase {
 public:
  GoldenCase(const std::string &model, const std::string &name) : name_(model + "/" + name) {
    std::filesystem::path base = golden_directory(model) / "golden";
    meta_ = nlohmann::json::parse(std::ifstream(base / (name + ".json")));
    bytes_ = read_file(base / meta_.at("bin").get<std::string>());
    if (bytes_.size() != meta_.at("bytes").get<size_t>()) throw std::runtime_error(name_ + ": wrong size");
  }

  const std::string &name() const { return name_; }
  const nlohmann::json &meta() const { return meta_; }
  bool has(const std::string &array) const { return find(array) != nullptr; }
  std::vector<size_t> shape(const std::string &array) const { return need(array).at("shape"); }
  std::vector<float> floats(const std::string &array) const { return values<float>(array, "f32"); }
  std::vector<int32_t> integers(const std::string &array) const { return values<int32_t>(array, "i32"); }

 private:
  const nlohmann::json *find(const std::string &array) const {
    for (const nlohmann::json &entry : meta_.at("arrays"))
      if (entry.at("name") == array) return &entry;
    return nullptr;
  }
  const nlohmann::json &need(const std::string &array) const {
    const nlohmann::json *entry = find(array);
    if (!entry) throw std::runtime_error(name_ + " has no array " + array);
    return *entry;
  }
  template <class T>
  std::vector<T> values(const std::string &array, const char *type) const {
    const nlohmann::json &entry = need(array);
    if (entry.at("dtype") != type) throw std::runtime_error(name_ + "." + array + " is not " + type);
    size_t count = 1, offset = entry.at("offset");
    for (size_t extent : entry.at("shape")) count *= extent;
    if (offset + count * sizeof(T) > bytes_.size()) throw std::runtime_error(name_ + "." + array + " passes the end");
    std::vector<T> result(count);
    std::memcpy(result.data(), bytes_.data() + offset, count * sizeof(T));
    return result;
  }

  std::string name_;
  nlohmann::json meta_;
  std::vector<std::byte> bytes_;
};

inline double largest_magnitude(std::span<const float> values) {
  double largest = 0;
  for (float value : values) largest = std::max(largest, std::fabs(static_cast<double>(value)));
  return largest;
}

enum class Quantity { logits, wkv, shift };

// How far a right float32 engine may be from `golden`: four times what a plain float32 run of the reference was off in
// this case, plus two units in the last place of the case's largest value (that run is one sample of its noise, and
// the golden values themselves are rounded to float32).
inline double tolerance(const std::string &case_name, Quantity quantity, std::span<const float> golden) {
  static const nlohmann::json noise = [] {
    std::filesystem::path path = shared_directory() / "golden/fp32_noise.json";
    if (!std::filesystem::exists(path)) path = std::filesystem::path(WKV_SOURCE_DIR) / "tests/data/fp32_noise.json";
    return nlohmann::json::parse(std::ifstream(path)).at("cases");
  }();
  const char *key = quantity == Quantity::logits ? "logits" : quantity == Quantity::wkv ? "wkv" : "shift";
  return 4 * noise.at(case_name).at(key).get<double>() + 0x1p-22 * largest_magnitude(golden);
}

}  // namespace libwkv::test
