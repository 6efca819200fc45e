// SPDX-License-Identifier: Apache-2.0
// safetensors: a JSON header with offsets, then the data, without holes.
#include <algorithm>

#include "formats/bytes.h"
#include "formats/json.h"
#include "formats/readers.h"

namespace libwkv::formats {

namespace {

StoredType read_type(const JsonObject &entry, const std::string &shown) {
  const JsonValue *found = find(entry, "dtype");
  const std::string *name = found ? get_if<std::string>(*found) : nullptr;
  if (!name) fail(WKV_FORMAT, "tensor %s has no dtype", shown.c_str());
  for (StoredType type : {StoredType::f32, StoredType::f16, StoredType::bf16})
    if (*name == name_of(type)) return type;
  fail(WKV_UNSUPPORTED, "tensor %s is stored as %s; known are F32, F16, BF16", shown.c_str(), printable(*name).c_str());
}

// An array of non-negative integers below 2^63.
std::vector<int64_t> read_numbers(const JsonObject &entry, const char *key, const std::string &shown) {
  const JsonValue *found = find(entry, key);
  const JsonArray *array = found ? get_if<JsonArray>(*found) : nullptr;
  if (!array || array->size() > 8) fail(WKV_FORMAT, "tensor %s: %s is no short array", shown.c_str(), key);
  std::vector<int64_t> numbers;
  for (const JsonValue &item : *array) {
    std::optional<int64_t> number = as_integer(item);
    if (!number || *number < 0)
      fail(WKV_FORMAT, "tensor %s: %s holds %s", shown.c_str(), key, printable(to_text(item)).c_str());
    numbers.push_back(*number);
  }
  return numbers;
}

}  // namespace

RawCheckpoint read_safetensors(std::shared_ptr<const Mapping> file) {
  const std::string &file_name = file->name();
  refuse_git_lfs_pointer(*file);
  ByteReader reader(file->bytes(), file_name);
  uint64_t header_size = reader.read<uint64_t>("the header length");
  JsonObject header = parse_json_object(text_of(reader.take(header_size, "the header")), file_name);
  std::span<const std::byte> data = file->bytes().subspan(reader.position());

  RawCheckpoint raw;
  raw.format = "safetensors";
  raw.low_rank = LowRank::by_shape;
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (const auto &[name, value] : header) {
    if (name == "__metadata__") continue;
    std::string shown = printable(name);
    const JsonObject *entry = get_if<JsonObject>(value);
    if (!entry) fail(WKV_FORMAT, "%s: tensor %s is not described", file_name.c_str(), shown.c_str());
    RawTensor tensor;
    tensor.name = name;
    tensor.type = read_type(*entry, shown);
    tensor.shape = read_numbers(*entry, "shape", shown);
    std::vector<int64_t> range = read_numbers(*entry, "data_offsets", shown);
    if (range.size() != 2 || range[0] > range[1] || static_cast<uint64_t>(range[1]) > data.size())
      fail(WKV_FORMAT, "%s: the offsets of tensor %s are not within the %zu bytes of data", file_name.c_str(),
           shown.c_str(), data.size());
    uint64_t size = static_cast<uint64_t>(range[1] - range[0]);
    uint64_t expected = stored_bytes(tensor.type, count_values(tensor.shape, name));
    if (size != expected)
      fail(WKV_FORMAT, "%s: tensor %s has %llu bytes, its shape needs %llu", file_name.c_str(), shown.c_str(),
           static_cast<unsigned long long>(size), static_cast<unsigned long long>(expected));
    tensor.bytes = data.subspan(static_cast<size_t>(range[0]), static_cast<size_t>(size));
    tensor.file = file;
    ranges.emplace_back(range[0], range[1]);
    raw.tensors.push_back(std::move(tensor));
  }
  std::sort(ranges.begin(), ranges.end());
  int64_t end = 0;
  for (const auto &[begin, next] : ranges) {
    if (begin != end)
      fail(WKV_FORMAT, "%s: tensors overlap or leave a hole at byte %lld of the data", file_name.c_str(),
           static_cast<long long>(end));
    end = next;
  }
  if (static_cast<uint64_t>(end) != data.size())
    fail(WKV_FORMAT, "%s: %zu bytes of data, the tensors have %lld", file_name.c_str(), data.size(),
         static_cast<long long>(end));
  raw.files.push_back(std::move(file));
  return raw;
}

}  // namespace libwkv::formats
