// SPDX-License-Identifier: Apache-2.0
// A file's bytes, mapped read-only, or bytes that the caller keeps alive.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace libwkv {

class Mapping {
 public:
  // Maps a regular file. Throws WKV_NOT_FOUND or WKV_IO. An empty file gives empty bytes.
  static std::shared_ptr<const Mapping> open(const std::string &path);
  // Borrows the caller's bytes.
  static std::shared_ptr<const Mapping> borrow(std::span<const std::byte> bytes, std::string name);

  ~Mapping();
  Mapping(const Mapping &) = delete;
  Mapping &operator=(const Mapping &) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string &name() const { return name_; }  // path, or "memory"

  // Throws WKV_IO when the file has become shorter than the mapping: touching the lost pages would kill the process.
  // One system call.
  void check_length() const;

  // Tells the system that these bytes will not be read again soon: keeps resident memory low while converting.
  void drop(std::span<const std::byte> part) const;

 private:
  Mapping() = default;
  std::span<const std::byte> bytes_;
  std::string name_;
  int file_ = -1;  // kept open for check_length; -1: borrowed
};

}  // namespace libwkv
