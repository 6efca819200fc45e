// SPDX-License-Identifier: Apache-2.0
// What all readers need: names and sizes of the storage types, and git-lfs pointers told apart.
#include "base/checked.h"
#include "formats/bytes.h"
#include "formats/readers.h"

namespace libwkv::formats {

namespace {

struct TypeInfo {
  const char *name;
  int64_t values;
  size_t bytes;
};
constexpr TypeInfo types[] = {{"F32", 1, 4},      {"F16", 1, 2},      {"BF16", 1, 2},    {"Q8_0", 32, 34},
                              {"Q4_0", 32, 18},   {"Q4_1", 32, 20},   {"Q5_0", 32, 22},  {"Q5_1", 32, 24},
                              {"Q4_K", 256, 144}, {"Q5_K", 256, 176}, {"Q6_K", 256, 210}};

const TypeInfo &info(StoredType type) { return types[static_cast<size_t>(type)]; }

}  // namespace

const char *name_of(StoredType type) { return info(type).name; }
int64_t block_values(StoredType type) { return info(type).values; }
size_t block_bytes(StoredType type) { return info(type).bytes; }

uint64_t stored_bytes(StoredType type, uint64_t values) {
  return checked_multiply(values / static_cast<uint64_t>(block_values(type)), block_bytes(type), "a tensor's bytes");
}

uint64_t count_values(std::span<const int64_t> shape, const std::string &tensor_name) {
  uint64_t values = 1;
  for (int64_t dimension : shape) {
    if (dimension <= 0)
      fail(WKV_FORMAT, "tensor %s has a dimension of %lld", printable(tensor_name).c_str(),
           static_cast<long long>(dimension));
    values = checked_multiply(values, static_cast<uint64_t>(dimension), "a tensor's shape");
  }
  if (values >> 62) fail(WKV_FORMAT, "tensor %s has too many values", printable(tensor_name).c_str());
  return values;
}

void refuse_git_lfs_pointer(const Mapping &file) {
  if (text_of(file.bytes()).starts_with("version https://git-lfs"))
    fail(WKV_FORMAT, "%s: a git-lfs pointer; the file that it stands for was not downloaded", file.name().c_str());
}

}  // namespace libwkv::formats
