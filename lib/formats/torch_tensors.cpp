// SPDX-License-Identifier: Apache-2.0
#include "formats/torch_tensors.h"

#include "base/checked.h"
#include "formats/bytes.h"

namespace libwkv::formats {

using Kind = PickleValue::Kind;

uint64_t storage_bytes(const PickleStorage &storage, const std::string &file_name) {
  if (!storage.type)
    fail(WKV_UNSUPPORTED, "%s: a tensor is stored as %s; weights are FloatStorage, HalfStorage or BFloat16Storage",
         file_name.c_str(), printable(storage.type_name).c_str());
  return checked_multiply(static_cast<uint64_t>(storage.values), block_bytes(*storage.type), file_name.c_str());
}

namespace {

RawTensor make_tensor(const std::string &name, const PickleTensor &tensor, const PickleStorage &storage,
                      std::span<const std::byte> storage_content) {
  RawTensor raw;
  raw.name = name;
  raw.type = *storage.type;
  raw.shape = tensor.shape;
  raw.strides = tensor.strides;
  uint64_t values = count_values(tensor.shape, name);
  // Also keeps repeated values (zero strides) from standing for more numbers than the file has.
  if (values > static_cast<uint64_t>(storage.values))
    fail(WKV_FORMAT, "tensor %s has %llu values, its storage %lld", printable(name).c_str(),
         static_cast<unsigned long long>(values), static_cast<long long>(storage.values));
  if (tensor.offset < 0)
    fail(WKV_FORMAT, "tensor %s begins at value %lld", printable(name).c_str(), static_cast<long long>(tensor.offset));
  uint64_t last = 0;
  for (size_t i = 0; i < tensor.shape.size(); i++) {
    if (tensor.strides[i] < 0)
      fail(WKV_FORMAT, "tensor %s has stride %lld", printable(name).c_str(), static_cast<long long>(tensor.strides[i]));
    last = checked_add(last,
                       checked_multiply(static_cast<uint64_t>(tensor.shape[i] - 1),
                                        static_cast<uint64_t>(tensor.strides[i]), "tensor strides"),
                       "tensor strides");
  }
  uint64_t end = checked_add(static_cast<uint64_t>(tensor.offset), checked_add(last, 1, "tensor strides"), "tensor");
  if (end > static_cast<uint64_t>(storage.values))
    fail(WKV_FORMAT, "tensor %s reaches value %llu of a storage of %lld", printable(name).c_str(),
         static_cast<unsigned long long>(end), static_cast<long long>(storage.values));
  size_t size = block_bytes(raw.type);
  raw.bytes = storage_content.subspan(static_cast<size_t>(tensor.offset) * size, static_cast<size_t>(last + 1) * size);
  return raw;
}

}  // namespace

std::vector<RawTensor> collect_tensors(
    const Unpickler &pickle, const PickleValue &root, const std::shared_ptr<const Mapping> &file,
    const std::function<std::span<const std::byte>(const PickleStorage &)> &find_storage) {
  const std::string &file_name = file->name();
  if (root.kind != Kind::dict) fail(WKV_FORMAT, "%s: the pickle holds no dict of tensors", file_name.c_str());
  PickleValue dict = root;
  if (const PickleValue *inner = pickle.find(root, "state_dict"); inner && inner->kind == Kind::dict) dict = *inner;
  const std::vector<PickleValue> &entries = pickle.dict(dict);
  std::vector<RawTensor> tensors;
  tensors.reserve(entries.size() / 2);
  for (size_t i = 0; i < entries.size(); i += 2) {
    if (entries[i].kind != Kind::text) fail(WKV_FORMAT, "%s: a tensor whose name is no text", file_name.c_str());
    std::string name(pickle.text(entries[i]));
    if (entries[i + 1].kind != Kind::tensor)
      fail(WKV_FORMAT, "%s: entry %s is not a tensor", file_name.c_str(), printable(name).c_str());
    const PickleTensor &tensor = pickle.tensor(entries[i + 1]);
    const PickleStorage &storage = pickle.storages()[tensor.storage];
    storage_bytes(storage, file_name);  // the type first: its message says more
    RawTensor raw = make_tensor(name, tensor, storage, find_storage(storage));
    raw.file = file;
    tensors.push_back(std::move(raw));
  }
  return tensors;
}

}  // namespace libwkv::formats
