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

// A file with exactly the golden weights of a model, one that the committed subset has too where there is one.
inline std::filesystem::path exact_weights(const std::string &model) {
  std::filesystem::path weights = golden_directory(model) / "weights";
  std::filesystem::path wide = weights / (model + ".F32.gguf");
  return std::filesystem::exists(wide) ? wide : weights / (model + ".bf16.pth");
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

enum class Quantity { logits, att_shift, ffn_shift, wkv };

inline nlohmann::json read_noise(const std::filesystem::path &path) {
  return nlohmann::json::parse(std::ifstream(path)).at("cases");
}

// What twelve plain float32 runs of a case, each in its own order of summation, were off at most: by row, since early
// tokens are often the worst conditioned (support/row_noise.py says why and how). Empty: not measured.
inline const nlohmann::json &row_noise(const std::string &case_name) {
  static const nlohmann::json noise = read_noise(std::filesystem::path(WKV_SOURCE_DIR) / "tests/data/row_noise.json");
  static const nlohmann::json none;
  return noise.contains(case_name) ? noise.at(case_name) : none;
}

// Two units in the last place of the largest golden value: those values are rounded to float32 themselves.
inline double rounding(std::span<const float> golden) { return 0x1p-22 * largest_magnitude(golden); }

// How far a right float32 engine may be from the last logits or the state of a case: four times what the one run in
// fp32_noise.json was off, or three times the worst of twelve runs where they were measured.
inline double tolerance(const std::string &case_name, Quantity quantity, std::span<const float> golden) {
  static const nlohmann::json noise = [] {
    std::filesystem::path path = shared_directory() / "golden/fp32_noise.json";
    if (!std::filesystem::exists(path)) path = std::filesystem::path(WKV_SOURCE_DIR) / "tests/data/fp32_noise.json";
    return read_noise(path);
  }();
  const char *keys[] = {"logits", "shift", "shift", "wkv"}, *row_keys[] = {"", "att_shift", "ffn_shift", "wkv"};
  double allowed = 4 * noise.at(case_name).at(keys[static_cast<int>(quantity)]).get<double>();
  const nlohmann::json &rows = row_noise(case_name);
  if (quantity != Quantity::logits && rows.contains(row_keys[static_cast<int>(quantity)]))
    allowed = std::max(allowed, 3 * rows.at(row_keys[static_cast<int>(quantity)]).get<double>());
  return allowed + rounding(golden);
}

// The same for the logits of one row.
inline double row_tolerance(const std::string &case_name, size_t row, std::span<const float> golden) {
  const nlohmann::json &rows = row_noise(case_name);
  if (rows.is_null()) throw std::runtime_error("no row noise was measured for " + case_name);
  return 3 * rows.at("rows").at(row).get<double>() + rounding(golden);
}

}  // namespace libwkv::test
