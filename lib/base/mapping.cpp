// SPDX-License-Identifier: Apache-2.0
#include "base/mapping.h"

#include <cerrno>
#include <cstdint>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

namespace libwkv {

std::shared_ptr<const Mapping> Mapping::open(const std::string &path) {
  std::shared_ptr<Mapping> mapping(new Mapping);
  mapping->name_ = path;
  // O_NONBLOCK: opening a named pipe must not wait for a writer; it has no effect on regular files.
  int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0)
    fail(errno == ENOENT || errno == ENOTDIR ? WKV_NOT_FOUND : WKV_IO, "%s: %s", path.c_str(), std::strerror(errno));
  mapping->file_ = file;
  struct stat info;
  if (fstat(file, &info) != 0) fail(WKV_IO, "%s: %s", path.c_str(), std::strerror(errno));
  if (!S_ISREG(info.st_mode)) fail(WKV_IO, "%s: not a regular file", path.c_str());
  size_t size = static_cast<size_t>(info.st_size);
  if (size == 0) return mapping;
  void *address = mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
  if (address == MAP_FAILED)
    fail(errno == ENOMEM ? WKV_OUT_OF_MEMORY : WKV_IO, "%s: cannot map %zu bytes: %s", path.c_str(), size,
         std::strerror(errno));
  mapping->bytes_ = {static_cast<const std::byte *>(address), size};
  return mapping;
}

std::shared_ptr<const Mapping> Mapping::borrow(std::span<const std::byte> bytes, std::string name) {
  std::shared_ptr<Mapping> mapping(new Mapping);
  mapping->bytes_ = bytes;
  mapping->name_ = std::move(name);
  return mapping;
}

Mapping::~Mapping() {
  if (file_ < 0) return;
  if (!bytes_.empty()) munmap(const_cast<std::byte *>(bytes_.data()), bytes_.size());
  close(file_);
}

void Mapping::check_length() const {
  if (file_ < 0) return;
  struct stat info;
  if (fstat(file_, &info) != 0) fail(WKV_IO, "%s: %s", name_.c_str(), std::strerror(errno));
  if (static_cast<uint64_t>(info.st_size) < bytes_.size())
    fail(WKV_IO, "%s: the file shrank from %zu to %lld bytes while in use", name_.c_str(), bytes_.size(),
         static_cast<long long>(info.st_size));
}

void Mapping::drop(std::span<const std::byte> part) const {
  if (file_ < 0 || part.empty()) return;
  uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  uintptr_t begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  uintptr_t end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  if (begin < end) madvise(reinterpret_cast<void *>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace libwkv
