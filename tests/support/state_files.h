// SPDX-License-Identifier: Apache-2.0
// Small .pth (zip and legacy) and .safetensors files, as state tuning leaves them.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace libwkv::test {

enum class StateType { f32, f16, bf16 };

struct StateTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;  // in the order of the file; exactly representable in `type`
  StateType type = StateType::f32;
  std::vector<int64_t> strides = {};  // .pth alone; empty: contiguous
};

namespace state_files {

template <class T>
void put(std::string &out, T value) {
  out.append(reinterpret_cast<const char *>(&value), sizeof value);
}

inline std::string data_of(const StateTensor &tensor) {
  std::string out;
  for (float value : tensor.values) {
    uint32_t bits = std::bit_cast<uint32_t>(value);
    if (tensor.type == StateType::f32) {
      put(out, bits);
    } else if (tensor.type == StateType::bf16) {
      put(out, static_cast<uint16_t>(bits >> 16));
    } else {  // normal halves and zeros; infinities and NaNs stay what they are
      uint32_t exponent = bits >> 23 & 255u, half = bits >> 16 & 0x8000u;
      if (exponent == 255)
        half |= 0x7c00u | (bits >> 13 & 0x3ffu);
      else if (exponent > 112)
        half |= (exponent - 112) << 10 | (bits >> 13 & 0x3ffu);
      put(out, static_cast<uint16_t>(half));
    }
  }
  return out;
}

inline std::string text(std::string_view value) {
  std::string out = "X";
  put(out, static_cast<uint32_t>(value.size()));
  return out.append(value);
}

inline std::string number(int64_t value) {
  std::string out = "J";
  put(out, static_cast<int32_t>(value));
  return out;
}

inline std::string tuple(const std::vector<int64_t> &values) {
  std::string out = "(";
  for (int64_t value : values) out += number(value);
  return out + "t";
}

// The pickle of {name: tensor}.
inline std::string pickle(const std::vector<StateTensor> &tensors, bool is_legacy) {
  std::string out = "\x80\x02}(";
  for (size_t i = 0; i < tensors.size(); i++) {
    const StateTensor &tensor = tensors[i];
    std::vector<int64_t> strides = tensor.strides;
    if (strides.empty()) {
      strides.resize(tensor.shape.size());
      int64_t stride = 1;
      for (size_t d = tensor.shape.size(); d-- > 0; stride *= tensor.shape[d]) strides[d] = stride;
    }
    const char *types[] = {"FloatStorage", "HalfStorage", "BFloat16Storage"};
    out += text(tensor.name) + "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\n" +
           types[static_cast<int>(tensor.type)] + "\n" + text(std::to_string(i)) + text("cpu") +
           number(static_cast<int64_t>(tensor.values.size())) + (is_legacy ? "N" : "") + "tQ" + number(0) +
           tuple(tensor.shape) + tuple(strides) + "\x89" + "ccollections\nOrderedDict\n)RtR";
  }
  return out + "u.";
}

}  // namespace state_files

// torch.save since 1.6: a ZIP archive of stored records.
inline std::string make_pth(const std::vector<StateTensor> &tensors) {
  using namespace state_files;
  std::vector<std::pair<std::string, std::string>> records = {{"state/data.pkl", pickle(tensors, false)}};
  for (size_t i = 0; i < tensors.size(); i++)
    records.emplace_back(std::string("state/data/") + std::to_string(i), data_of(tensors[i]));
  std::string out, directory;
  for (const auto &[name, content] : records) {
    uint32_t at = static_cast<uint32_t>(out.size()), size = static_cast<uint32_t>(content.size());
    std::string shared;  // what both headers have: version to extract .. extra length
    put<uint16_t>(shared, 0);
    put<uint16_t>(shared, 0);  // flags
    put<uint16_t>(shared, 0);  // stored
    put<uint32_t>(shared, 0);  // time
    put<uint32_t>(shared, 0);  // checksum
    put<uint32_t>(shared, size);
    put<uint32_t>(shared, size);
    put<uint16_t>(shared, static_cast<uint16_t>(name.size()));
    put<uint16_t>(shared, 0);
    put<uint32_t>(out, 0x04034b50);
    out += shared + name + content;
    put<uint32_t>(directory, 0x02014b50);
    put<uint16_t>(directory, 0);
    directory += shared;
    directory.append(10, '\0');  // comment length, disk, attributes
    put<uint32_t>(directory, at);
    directory += name;
  }
  uint32_t begin = static_cast<uint32_t>(out.size());
  out += directory;
  put<uint32_t>(out, 0x06054b50);
  put<uint32_t>(out, 0);
  put<uint16_t>(out, static_cast<uint16_t>(records.size()));
  put<uint16_t>(out, static_cast<uint16_t>(records.size()));
  put<uint32_t>(out, static_cast<uint32_t>(directory.size()));
  put<uint32_t>(out, begin);
  put<uint16_t>(out, 0);
  return out;
}

// torch.save before 1.6: pickles in a row, then the storages.
inline std::string make_legacy_pth(const std::vector<StateTensor> &tensors) {
  using namespace state_files;
  std::string out("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  out += "\x80\x02" + number(1001) + ".";
  out += "\x80\x02}(" + text("little_endian") + "\x88u.";
  out += pickle(tensors, true);
  out += "\x80\x02](";
  for (size_t i = 0; i < tensors.size(); i++) out += text(std::to_string(i));
  out += "e.";
  for (const StateTensor &tensor : tensors) {
    put(out, static_cast<uint64_t>(tensor.values.size()));
    out += data_of(tensor);
  }
  return out;
}

inline std::string make_safetensors(const std::vector<StateTensor> &tensors) {
  using namespace state_files;
  std::string header = "{", data;
  for (const StateTensor &tensor : tensors) {
    const char *types[] = {"F32", "F16", "BF16"};
    std::string shape;
    for (int64_t dimension : tensor.shape) shape += std::string(shape.empty() ? "" : ",") + std::to_string(dimension);
    std::string content = data_of(tensor);
    if (header.size() > 1) header += ",";
    header += "\"" + tensor.name + "\":{\"dtype\":\"" + types[static_cast<int>(tensor.type)] + "\",\"shape\":[" +
              shape + "],\"data_offsets\":[" + std::to_string(data.size()) + "," +
              std::to_string(data.size() + content.size()) + "]}";
    data += content;
  }
  header += "}";
  std::string out;
  put(out, static_cast<uint64_t>(header.size()));
  return out + header + data;
}

}  // namespace libwkv::test
