// SPDX-License-Identifier: Apache-2.0
// torch.save files since torch 1.6: a ZIP archive of stored records, with a pickle that describes the tensors.
#include <algorithm>
#include <unordered_map>

#include "base/checked.h"
#include "formats/bytes.h"
#include "formats/torch_tensors.h"

namespace libwkv::formats {

namespace {

constexpr uint32_t local_signature = 0x04034b50, entry_signature = 0x02014b50, end_signature = 0x06054b50,
                   end64_signature = 0x06064b50, locator64_signature = 0x07064b50;
constexpr size_t local_size = 30, entry_size = 46, end_size = 22, end64_size = 56, locator64_size = 20;

struct Record {
  uint64_t header = 0;  // offset of the local header
  uint64_t size = 0;
  bool is_stored = false;
};

struct Directory {
  uint64_t offset = 0, size = 0, entries = 0;
};

class Archive {
 public:
  explicit Archive(std::shared_ptr<const Mapping> file) : file_(std::move(file)), bytes_(file_->bytes()) {
    find_directory();
    read_entries();
  }

  const std::string &name() const { return file_->name(); }
  const std::unordered_map<std::string_view, Record> &records() const { return records_; }

  std::span<const std::byte> content(const std::string &record_name) const {
    auto found = records_.find(record_name);
    if (found == records_.end())
      fail(WKV_FORMAT, "%s: record %s is missing", name().c_str(), printable(record_name).c_str());
    const Record &record = found->second;
    if (!record.is_stored)
      fail(WKV_UNSUPPORTED, "%s: record %s is compressed; torch.save stores records as they are", name().c_str(),
           printable(record_name).c_str());
    // Sizes are in the directory alone: the local header has zeros there, and its extra field pads the data.
    ByteReader local(bytes_, name(), static_cast<size_t>(record.header));
    std::span<const std::byte> header = local.take(local_size, "a record header");
    if (load<uint32_t>(header.data()) != local_signature)
      fail(WKV_FORMAT, "%s: record %s has no header", name().c_str(), printable(record_name).c_str());
    local.take(load<uint16_t>(&header[26]), "a record name");
    local.take(load<uint16_t>(&header[28]), "a record's extra field");
    size_t begin = local.position();
    if (begin > directory_.offset || record.size > directory_.offset - begin)
      fail(WKV_FORMAT, "%s: record %s of %llu bytes at byte %zu passes the directory at %llu", name().c_str(),
           printable(record_name).c_str(), static_cast<unsigned long long>(record.size), begin,
           static_cast<unsigned long long>(directory_.offset));
    return bytes_.subspan(begin, static_cast<size_t>(record.size));
  }

 private:
  [[noreturn]] void fail_archive(const char *what) const {
    fail(WKV_FORMAT, "%s: damaged or cut ZIP archive: %s", name().c_str(), what);
  }

  void find_directory() {
    if (bytes_.size() < end_size) fail_archive("too short");
    size_t lowest = bytes_.size() - std::min(bytes_.size(), end_size + 65535);
    size_t end = bytes_.size() - end_size;
    auto is_end = [&](size_t at) {
      return load<uint32_t>(&bytes_[at]) == end_signature &&
             load<uint16_t>(&bytes_[at + 20]) == bytes_.size() - at - end_size;
    };
    while (!is_end(end)) {
      if (end == lowest) fail_archive("no end record");
      end--;
    }
    if (load<uint16_t>(&bytes_[end + 4]) || load<uint16_t>(&bytes_[end + 6])) fail_archive("several disks");
    directory_ = {load<uint32_t>(&bytes_[end + 16]), load<uint32_t>(&bytes_[end + 12]),
                  load<uint16_t>(&bytes_[end + 10])};
    size_t limit = end;
    if (end >= locator64_size && load<uint32_t>(&bytes_[end - locator64_size]) == locator64_signature) {
      uint64_t at = load<uint64_t>(&bytes_[end - locator64_size + 8]);
      limit = end - locator64_size;
      if (at > limit || limit - at < end64_size || load<uint32_t>(&bytes_[at]) != end64_signature)
        fail_archive("no ZIP64 end record");
      Directory small = directory_;
      directory_ = {load<uint64_t>(&bytes_[at + 48]), load<uint64_t>(&bytes_[at + 40]),
                    load<uint64_t>(&bytes_[at + 32])};
      // A small value that is not "see ZIP64" must say the same: which of two is right cannot be known.
      if ((small.offset != 0xffffffff && small.offset != directory_.offset) ||
          (small.size != 0xffffffff && small.size != directory_.size) ||
          (small.entries != 0xffff && small.entries != directory_.entries))
        fail_archive("its two end records disagree");
      limit = static_cast<size_t>(at);
    }
    if (directory_.offset > limit || directory_.size > limit - directory_.offset)
      fail_archive("the directory passes the end of the file");
    if (directory_.entries > directory_.size / entry_size || directory_.entries > 100000)
      fail_archive("more records than the directory holds");
  }

  // 64-bit values stand in extra field 1, in this order, for each value that does not fit its 32 bits.
  void read_extra64(std::span<const std::byte> extra, uint64_t &size, uint64_t &packed, uint64_t &header) const {
    ByteReader fields(extra, name());
    while (fields.left() >= 4) {
      uint16_t id = fields.read<uint16_t>("an extra field"), length = fields.read<uint16_t>("an extra field");
      std::span<const std::byte> field = fields.take(length, "an extra field");
      if (id != 1) continue;
      ByteReader values(field, name());
      for (uint64_t *value : {&size, &packed, &header})
        if (*value == 0xffffffff) *value = values.read<uint64_t>("a ZIP64 field");
      return;
    }
  }

  void read_entries() {
    ByteReader reader(bytes_.subspan(static_cast<size_t>(directory_.offset), static_cast<size_t>(directory_.size)),
                      name());
    for (uint64_t i = 0; i < directory_.entries; i++) {
      std::span<const std::byte> entry = reader.take(entry_size, "a directory entry");
      if (load<uint32_t>(entry.data()) != entry_signature) fail_archive("no directory entry where one must be");
      uint16_t flags = load<uint16_t>(&entry[8]), method = load<uint16_t>(&entry[10]);
      uint64_t packed = load<uint32_t>(&entry[20]), size = load<uint32_t>(&entry[24]),
               header = load<uint32_t>(&entry[42]);
      std::string_view record_name = text_of(reader.take(load<uint16_t>(&entry[28]), "a record name"));
      read_extra64(reader.take(load<uint16_t>(&entry[30]), "an extra field"), size, packed, header);
      reader.take(load<uint16_t>(&entry[32]), "a comment");
      if (header > directory_.offset) fail_archive("a record begins behind the directory");
      bool is_stored = method == 0 && packed == size && !(flags & 1);
      if (!records_.emplace(record_name, Record{header, size, is_stored}).second)
        fail(WKV_FORMAT, "%s: two records are named %s", name().c_str(), printable(record_name).c_str());
    }
  }

  std::shared_ptr<const Mapping> file_;
  std::span<const std::byte> bytes_;
  Directory directory_;
  std::unordered_map<std::string_view, Record> records_;
};

// The archive's one folder, which torch names as it likes.
std::string find_prefix(const Archive &archive) {
  constexpr std::string_view pickle_name = "/data.pkl";
  std::string_view prefix;
  for (const auto &[name, record] : archive.records()) {
    if (!name.ends_with(pickle_name)) continue;
    std::string_view folder = name.substr(0, name.size() - pickle_name.size());
    if (folder.empty() || folder.find('/') != std::string_view::npos) continue;
    if (!prefix.empty()) fail(WKV_FORMAT, "%s: two pickles in one archive", archive.name().c_str());
    prefix = folder;
  }
  if (prefix.empty())
    fail(WKV_FORMAT, "%s: a ZIP archive without data.pkl, not a torch.save file", archive.name().c_str());
  return std::string(prefix);
}

}  // namespace

RawCheckpoint read_pth(std::shared_ptr<const Mapping> file) {
  Archive archive(file);
  std::string prefix = find_prefix(archive);
  if (archive.records().contains(prefix + "/byteorder")) {
    std::string_view order = text_of(archive.content(prefix + "/byteorder"));
    if (order != "little") fail(WKV_UNSUPPORTED, "%s: byte order %s", file->name().c_str(), printable(order).c_str());
  }
  std::span<const std::byte> content = archive.content(prefix + "/data.pkl");
  if (content.size() > longest_pickle)
    fail(WKV_UNSUPPORTED, "%s: a pickle of %zu bytes, at most %zu are read", file->name().c_str(), content.size(),
         longest_pickle);
  Unpickler pickle(content, file->name());
  PickleValue root = pickle.run();

  RawCheckpoint raw;
  raw.format = "pth";
  raw.tensors = collect_tensors(pickle, root, file, [&](const PickleStorage &storage) {
    std::span<const std::byte> record = archive.content(prefix + "/data/" + std::string(storage.key));
    uint64_t expected = storage_bytes(storage, file->name());
    if (record.size() != expected)
      fail(WKV_FORMAT, "%s: storage %s has %zu bytes, %llu are needed", file->name().c_str(),
           printable(storage.key).c_str(), record.size(), static_cast<unsigned long long>(expected));
    return record;
  });
  raw.files.push_back(std::move(file));
  return raw;
}

}  // namespace libwkv::formats
