// SPDX-License-Identifier: Apache-2.0
// A file that appears whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace libwkv::formats {

// Writes to a new file beside the target and renames it over the target in commit(). Without commit the target is left
// alone and the new file removed; a process that is killed meanwhile leaves it there, as TARGET.tmp-NUMBER-NUMBER. All
// failures are WKV_IO, but for a folder that does not exist: WKV_NOT_FOUND.
class FileWriter {
 public:
  explicit FileWriter(std::string target);
  ~FileWriter();
  FileWriter(const FileWriter &) = delete;
  FileWriter &operator=(const FileWriter &) = delete;

  void write(std::span<const std::byte> bytes);
  uint64_t position() const { return position_; }
  // Everything is on the disk when this returns.
  void commit();

 private:
  void flush();
  void write_through(std::span<const std::byte> bytes);
  [[noreturn]] void fail_io(const char *what) const;

  std::string target_, temporary_;
  int file_ = -1;
  uint64_t position_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace libwkv::formats
