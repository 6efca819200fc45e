// SPDX-License-Identifier: Apache-2.0
#include "formats/file_writer.h"

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

namespace libwkv::formats {

namespace {

constexpr size_t buffer_size = size_t{1} << 20;

std::string folder_of(const std::string &path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

void FileWriter::fail_io(const char *what) const {
  fail(errno == ENOENT || errno == ENOTDIR ? WKV_NOT_FOUND : WKV_IO, "%s: cannot %s: %s", target_.c_str(), what,
       std::strerror(errno));
}

FileWriter::FileWriter(std::string target) : target_(std::move(target)) {
  struct stat info;
  if (stat(target_.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
    fail(WKV_IO, "%s: exists and is not a regular file", target_.c_str());
  buffer_.reserve(buffer_size);
  static std::atomic<uint32_t> counter{0};
  // O_EXCL: a name that is taken, by a leftover or another writer, is never written to.
  for (int attempt = 0; attempt < 100; attempt++) {
    std::string name = target_ + ".tmp-" + std::to_string(getpid()) + "-" + std::to_string(counter++);
    file_ = open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file_ >= 0) {
      temporary_ = std::move(name);
      return;
    }
    if (errno != EEXIST) break;
  }
  fail_io("create a file beside it");
}

FileWriter::~FileWriter() {
  if (file_ >= 0) close(file_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void FileWriter::write_through(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    ssize_t count = ::write(file_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_io("write");
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void FileWriter::flush() {
  write_through(buffer_);
  buffer_.clear();
}

void FileWriter::write(std::span<const std::byte> bytes) {
  position_ += bytes.size();
  if (bytes.size() > buffer_size - buffer_.size()) flush();
  if (bytes.size() >= buffer_size)
    write_through(bytes);
  else
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

void FileWriter::commit() {
  flush();
  if (fsync(file_) != 0) fail_io("write");
  int file = file_;
  file_ = -1;
  if (close(file) != 0) fail_io("write");
  if (rename(temporary_.c_str(), target_.c_str()) != 0) fail_io("rename the new file to it");
  temporary_.clear();
  // The new name is in the folder, which must reach the disk too; not every file system can be asked, and the file is
  // there in any case.
  int folder = open(folder_of(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  fsync(folder);
  close(folder);
}

}  // namespace libwkv::formats
