// SPDX-License-Identifier: Apache-2.0
// rwkv.cpp's format: six header integers, then tensors one behind the other, dimensions reversed, nothing aligned.
#include "formats/bytes.h"
#include "formats/readers.h"

namespace libwkv::formats {

namespace {

std::optional<StoredType> stored_type(int32_t type) {
  switch (type) {
    case 0:
      return StoredType::f32;
    case 1:
      return StoredType::f16;
    case 2:
      return StoredType::q4_0;
    case 3:
      return StoredType::q4_1;
    case 7:
      return StoredType::q5_0;
    case 8:
      return StoredType::q5_1;
    case 9:
      return StoredType::q8_0;
    default:
      return {};
  }
}

constexpr size_t most_tensors = 100000;

}  // namespace

RawCheckpoint read_rwkvcpp(std::shared_ptr<const Mapping> file) {
  const std::string &name = file->name();
  ByteReader reader(file->bytes(), name);
  reader.take(4, "the magic");
  int32_t version = reader.read<int32_t>("the version");
  if (version != 100 && version != 101)
    fail(WKV_UNSUPPORTED, "%s: rwkv.cpp file version %d, known are 100 and 101", name.c_str(), version);
  int32_t sizes[4];
  for (int32_t &size : sizes) size = reader.read<int32_t>("the header");
  for (int i = 0; i < 3; i++)
    if (sizes[i] <= 0)
      fail(WKV_FORMAT, "%s: the header says %d words, width %d, %d layers", name.c_str(), sizes[0], sizes[1], sizes[2]);
  if (!stored_type(sizes[3])) fail(WKV_UNSUPPORTED, "%s: rwkv.cpp data type %d", name.c_str(), sizes[3]);

  RawCheckpoint raw;
  raw.format = "rwkv.cpp";
  raw.low_rank = LowRank::transposed;
  raw.claims.vocab_size = sizes[0];
  raw.claims.width = sizes[1];
  raw.claims.layers = sizes[2];
  while (reader.left()) {
    if (raw.tensors.size() == most_tensors) fail(WKV_FORMAT, "%s: more than %zu tensors", name.c_str(), most_tensors);
    int32_t dimensions = reader.read<int32_t>("a tensor's rank"),
            key_size = reader.read<int32_t>("a tensor's name length"), type = reader.read<int32_t>("a tensor's type");
    if (dimensions < 1 || dimensions > 3)
      fail(WKV_FORMAT, "%s: tensor %zu has %d dimensions", name.c_str(), raw.tensors.size(), dimensions);
    if (key_size <= 0)
      fail(WKV_FORMAT, "%s: tensor %zu has a name of %d bytes", name.c_str(), raw.tensors.size(), key_size);
    std::optional<StoredType> known = stored_type(type);
    if (!known)
      fail(WKV_UNSUPPORTED, "%s: tensor %zu has rwkv.cpp data type %d", name.c_str(), raw.tensors.size(), type);
    RawTensor tensor;
    tensor.type = *known;
    tensor.shape.resize(static_cast<size_t>(dimensions));
    for (size_t i = tensor.shape.size(); i-- > 0;) tensor.shape[i] = reader.read<int32_t>("a tensor's shape");
    tensor.name = text_of(reader.take(static_cast<uint64_t>(key_size), "a tensor's name"));
    uint64_t values = count_values(tensor.shape, tensor.name);
    if (tensor.shape.back() % block_values(tensor.type))
      fail(WKV_FORMAT, "%s: tensor %s has rows of %lld values, not a whole number of %s blocks", name.c_str(),
           printable(tensor.name).c_str(), static_cast<long long>(tensor.shape.back()), name_of(tensor.type));
    tensor.bytes = reader.take(stored_bytes(tensor.type, values), "a tensor's data");
    tensor.file = file;
    raw.tensors.push_back(std::move(tensor));
  }
  raw.files.push_back(std::move(file));
  return raw;
}

}  // namespace libwkv::formats
