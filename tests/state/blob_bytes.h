// SPDX-License-Identifier: Apache-2.0
// Blobs in the hands of tests: made, changed, signed again, and read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "base/checksum.h"
#include "support/models.h"
#include "support/temporary_directory.h"

namespace libwkv::test {

using Bytes = std::vector<std::byte>;

// Small enough to try every bit of a blob; the vocabulary has room for that of text/generation_support.h's rough one.
inline constexpr Shape small_shape{2, 32, 16, 64, 330, 8, 8, 8, 8};

// Places in a header, as lib/state/README.md has them.
namespace at {
inline constexpr size_t byte_order = 8, version = 12, bytes = 16, header_bytes = 24, sections = 28, fingerprint = 32,
                        position = 40, layers = 48, width = 52, heads = 56, head_size = 60, vocab_size = 64,
                        state_type = 68, last_tokens_count = 72, reserved = 76, last_tokens = 80, more_reserved = 144,
                        table = 160;
inline constexpr size_t entry_bytes = 32, kind = 0, flags = 4, offset = 8, section_bytes = 16, checksum = 24;
}  // namespace at

template <class Number>
Number get(const Bytes &bytes, size_t offset) {
  Number number;
  std::memcpy(&number, bytes.data() + offset, sizeof number);
  return number;
}
template <class Number>
void put(Bytes &bytes, size_t offset, Number number) {
  std::memcpy(bytes.data() + offset, &number, sizeof number);
}

// What a writer of such a header would have signed it with.
inline void sign_header(Bytes &bytes) {
  const size_t end = get<uint32_t>(bytes, at::header_bytes) - 8;
  put(bytes, end, checksum_of(std::span(bytes).first(end)));
}
inline size_t entry_of(size_t section) { return at::table + section * at::entry_bytes; }
inline void sign_section(Bytes &bytes, size_t section) {
  const size_t entry = entry_of(section);
  const std::span content = std::span(bytes).subspan(get<uint64_t>(bytes, entry + at::offset),
                                                     get<uint64_t>(bytes, entry + at::section_bytes));
  put(bytes, entry + at::checksum, checksum_of(content));
  sign_header(bytes);
}

inline wkv_save_options save_options(wkv_type type) {
  wkv_save_options options{};
  options.struct_size = sizeof options;
  options.state_type = type;
  return options;
}

inline Bytes serialize(wkv_cache *cache, wkv_type type = WKV_TYPE_DEFAULT) {
  const wkv_save_options options = save_options(type);
  size_t size = 0, written = 0;
  Failure failure;
  EXPECT_EQ(wkv_cache_serialize_as(cache, &options, nullptr, 0, &size, &failure), WKV_OK) << failure.message;
  Bytes bytes(size, std::byte{0xee});
  EXPECT_EQ(wkv_cache_serialize_as(cache, &options, bytes.data(), size, &written, &failure), WKV_OK) << failure.message;
  EXPECT_EQ(written, size);
  return bytes;
}

inline Bytes serialize(const wkv_session &session) {
  size_t size = 0, written = 0;
  Failure failure;
  EXPECT_EQ(wkv_session_serialize(&session, nullptr, nullptr, 0, &size, &failure), WKV_OK) << failure.message;
  Bytes bytes(size);
  EXPECT_EQ(wkv_session_serialize(&session, nullptr, bytes.data(), size, &written, &failure), WKV_OK)
      << failure.message;
  return bytes;
}

inline Cache deserialize(wkv_model *model, const Bytes &bytes) {
  Cache cache;
  Failure failure;
  EXPECT_EQ(wkv_cache_deserialize(model, bytes.data(), bytes.size(), cache.out(), &failure), WKV_OK) << failure.message;
  return cache;
}

struct BlobInfo : wkv_blob_info {
  BlobInfo() : wkv_blob_info{} { struct_size = sizeof(wkv_blob_info); }
};

struct Session : wkv_session {
  Session() : wkv_session{} { struct_size = sizeof(wkv_session); }
};

// The handles of a loaded session, which release themselves.
struct SessionHandles {
  explicit SessionHandles(const wkv_session &session)
      : cache(session.cache), sampler(session.sampler), generation(session.generation) {}
  Cache cache;
  Sampler sampler;
  Generation generation;
};

inline void write_file(const std::filesystem::path &path, std::span<const std::byte> bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

// A folder that goes away with the test.
class Folder : public TemporaryDirectory {
 public:
  std::string operator/(const char *name) const { return path() / name; }
  size_t files() const { return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path()), {})); }
};

}  // namespace libwkv::test
