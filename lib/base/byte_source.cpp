// SPDX-License-Identifier: Apache-2.0
#include "base/byte_source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

namespace libwkv {

void MemorySource::read(uint64_t offset, std::span<std::byte> to) {
  if (!to.empty()) std::memcpy(to.data(), bytes_.data() + offset, to.size());
}

FileSource::FileSource(const std::string &path) : ByteSource(path, 0) {
  // O_NONBLOCK: opening a named pipe must not wait for a writer; it has no effect on regular files.
  file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file_ < 0)
    fail(errno == ENOENT || errno == ENOTDIR ? WKV_NOT_FOUND : WKV_IO, "%s: %s", name(), std::strerror(errno));
  struct stat info;
  const char *fault = fstat(file_, &info) != 0 ? std::strerror(errno)
                      : !S_ISREG(info.st_mode) ? "not a regular file"
                                               : nullptr;
  if (fault) {
    close(file_);
    fail(WKV_IO, "%s: %s", name(), fault);
  }
  size_ = static_cast<uint64_t>(info.st_size);
}

FileSource::~FileSource() { close(file_); }

void FileSource::read(uint64_t offset, std::span<std::byte> to) {
  while (!to.empty()) {
    // Linux reads at most 2^31 - 4096 bytes a call
    const ssize_t count =
        pread(file_, to.data(), std::min<size_t>(to.size(), size_t{1} << 30), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(WKV_IO, "%s: %s", name(), std::strerror(errno));
    if (count == 0) fail(WKV_IO, "%s: the file shrank while it was read", name());
    to = to.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
}

}  // namespace libwkv
