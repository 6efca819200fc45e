// SPDX-License-Identifier: Apache-2.0
// torch.save files before torch 1.6: pickles in a row (magic, protocol, system, tensors, storage keys), then the
// storages, each behind its number of values.
#include <algorithm>
#include <array>
#include <unordered_map>

#include "base/checked.h"
#include "formats/bytes.h"
#include "formats/torch_tensors.h"

namespace libwkv::formats {

namespace {

using Kind = PickleValue::Kind;

// PROTO 2, LONG1 of 10 bytes, STOP
constexpr std::array<uint8_t, 15> magic = {0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c, 0x46,
                                           0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

struct Place {
  uint64_t values = 0;
  std::span<const std::byte> bytes;
};

std::unordered_map<std::string_view, Place> find_storages(const Unpickler &pickle, const PickleValue &keys,
                                                          ByteReader &reader, const std::string &file_name) {
  std::unordered_map<std::string_view, const PickleStorage *> described;
  for (const PickleStorage &storage : pickle.storages()) described.emplace(storage.key, &storage);
  std::unordered_map<std::string_view, Place> places;
  for (const PickleValue &key : pickle.list(keys)) {
    if (key.kind != Kind::text) fail(WKV_FORMAT, "%s: a storage key that is no text", file_name.c_str());
    auto found = described.find(pickle.text(key));
    if (found == described.end())
      fail(WKV_FORMAT, "%s: storage %s belongs to no tensor", file_name.c_str(), printable(pickle.text(key)).c_str());
    const PickleStorage &storage = *found->second;
    uint64_t values = reader.read<uint64_t>("the size of a storage");
    if (values != static_cast<uint64_t>(storage.values))
      fail(WKV_FORMAT, "%s: storage %s has %llu values, its tensor says %lld", file_name.c_str(),
           printable(storage.key).c_str(), static_cast<unsigned long long>(values),
           static_cast<long long>(storage.values));
    Place place{values, reader.take(storage_bytes(storage, file_name), "a storage")};
    if (!places.emplace(storage.key, place).second)
      fail(WKV_FORMAT, "%s: storage %s stands there twice", file_name.c_str(), printable(storage.key).c_str());
  }
  return places;
}

}  // namespace

RawCheckpoint read_pth_legacy(std::shared_ptr<const Mapping> file) {
  std::span<const std::byte> bytes = file->bytes();
  const std::string &file_name = file->name();
  if (bytes.size() < magic.size() || std::memcmp(bytes.data(), magic.data(), magic.size()) != 0)
    fail(WKV_FORMAT, "%s: a pickle, but not one of torch.save", file_name.c_str());

  // One machine for all, as the keys of the last pickle are compared with the tensors of the one before.
  Unpickler pickle(bytes.first(std::min(bytes.size(), longest_pickle)), file_name);
  pickle.run();
  PickleValue protocol = pickle.run();
  if (protocol.kind != Kind::integer || protocol.number != 1001)
    fail(WKV_UNSUPPORTED, "%s: torch.save protocol %lld, known is 1001", file_name.c_str(),
         static_cast<long long>(protocol.number));
  PickleValue system = pickle.run();
  if (system.kind != Kind::dict) fail(WKV_FORMAT, "%s: no system information", file_name.c_str());
  const PickleValue *little = pickle.find(system, "little_endian");
  if (little && !(little->kind == Kind::boolean && little->number == 1))
    fail(WKV_UNSUPPORTED, "%s: byte order big", file_name.c_str());
  PickleValue root = pickle.run();
  PickleValue keys = pickle.run();
  if (keys.kind != Kind::list) fail(WKV_FORMAT, "%s: no list of storages", file_name.c_str());

  ByteReader reader(bytes, file_name, pickle.position());
  std::unordered_map<std::string_view, Place> places = find_storages(pickle, keys, reader, file_name);

  RawCheckpoint raw;
  raw.format = "pth legacy";
  raw.tensors = collect_tensors(pickle, root, file, [&](const PickleStorage &storage) {
    auto found = places.find(storage.key);
    if (found == places.end() || found->second.bytes.size() != storage_bytes(storage, file_name))
      fail(WKV_FORMAT, "%s: storage %s is missing or has another size", file_name.c_str(),
           printable(storage.key).c_str());
    return found->second.bytes;
  });
  raw.files.push_back(std::move(file));
  return raw;
}

}  // namespace libwkv::formats
