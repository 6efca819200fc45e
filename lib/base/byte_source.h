// SPDX-License-Identifier: Apache-2.0
// Bytes of a known length that are read piece by piece: a file, which may change meanwhile without harm, or memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace libwkv {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Copies bytes that lie inside size(). Throws WKV_IO when they cannot be had any more.
  virtual void read(uint64_t offset, std::span<std::byte> to) = 0;
  // Where they lie; NULL when they must be read.
  virtual const std::byte *memory() const { return nullptr; }

  uint64_t size() const { return size_; }
  const char *name() const { return name_.c_str(); }  // path, or "memory"

 protected:
  ByteSource(std::string name, uint64_t size) : name_(std::move(name)), size_(size) {}
  std::string name_;
  uint64_t size_;
};

// Borrows the bytes.
class MemorySource : public ByteSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes) : ByteSource("memory", bytes.size()), bytes_(bytes) {}
  void read(uint64_t offset, std::span<std::byte> to) override;
  const std::byte *memory() const override { return bytes_.data(); }

 private:
  std::span<const std::byte> bytes_;
};

// A regular file. Not mapped: a file that shrinks under a mapping ends the process.
class FileSource : public ByteSource {
 public:
  // Throws WKV_NOT_FOUND or WKV_IO.
  explicit FileSource(const std::string &path);
  ~FileSource() override;
  FileSource(const FileSource &) = delete;
  FileSource &operator=(const FileSource &) = delete;
  void read(uint64_t offset, std::span<std::byte> to) override;

 private:
  int file_;
};

}  // namespace libwkv
