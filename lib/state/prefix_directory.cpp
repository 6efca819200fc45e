// SPDX-License-Identifier: Apache-2.0
#include "state/prefix_directory.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "formats/file_writer.h"

namespace libwkv {
namespace {

constexpr std::string_view suffix = ".wkv", temporary_mark = ".tmp-";
constexpr size_t model_digits = 16, tokens_digits = 32, name_length = model_digits + 1 + tokens_digits;

// A temporary of a process that is gone may still be of one on another machine that shares the directory: only an old
// one is removed.
constexpr time_t leftover_seconds = 3600;

struct CloseFolder {
  void operator()(DIR *folder) const { closedir(folder); }
};

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;
  int number() const { return number_; }

 private:
  int number_;
};

bool is_name(std::string_view name) noexcept {
  if (name.size() != name_length || name[model_digits] != '-') return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == '-'; }) &&
         std::count(name.begin(), name.end(), '-') == 1;
}

// A C callback: whatever is thrown is a failure of this entry alone.
template <class Body>
int32_t attempt(Body &&body) noexcept {
  try {
    return body() ? 0 : 1;
  } catch (...) {
    return 1;
  }
}

// file is what FileWriter calls a temporary, TARGET.tmp-PROCESS-NUMBER, of a target that would be ours.
void remove_leftover(int folder, const std::string &file) {
  const size_t mark = file.find(temporary_mark);
  if (mark != name_length + suffix.size() || !is_name(std::string_view(file).substr(0, name_length)) ||
      std::string_view(file).substr(name_length, suffix.size()) != suffix)
    return;
  const char *begin = file.data() + mark + temporary_mark.size();
  pid_t process = 0;
  auto [end, code] = std::from_chars(begin, file.data() + file.size(), process);
  if (code != std::errc() || *end != '-' || process <= 0) return;
  if (kill(process, 0) == 0 || errno != ESRCH) return;
  struct stat info;
  if (fstatat(folder, file.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode)) return;
  if (std::time(nullptr) - info.st_mtime > leftover_seconds) unlinkat(folder, file.c_str(), 0);
}

}  // namespace

bool is_prefix_name(const char *name) noexcept { return is_name(name); }

PrefixDirectory::PrefixDirectory(const std::string &path) : file_(path + "/"), folder_length_(file_.size()) {
  file_.reserve(folder_length_ + WKV_PREFIX_NAME_BYTES + suffix.size());
  std::error_code code;
  // what cannot be made may be there all the same, on a disk that cannot be written
  std::filesystem::create_directories(path, code);
  read_names(path);
}

const std::string &PrefixDirectory::file_of(const char *name) noexcept {
  file_.resize(folder_length_);
  return file_.append(name, strnlen(name, WKV_PREFIX_NAME_BYTES)).append(suffix);
}

void PrefixDirectory::read_names(const std::string &path) {
  struct Found {
    std::string name;
    struct timespec time;
  };
  std::vector<Found> found;
  std::unique_ptr<DIR, CloseFolder> folder(opendir(path.c_str()));
  if (!folder)
    fail(errno == ENOMEM ? WKV_OUT_OF_MEMORY : WKV_IO, "%s: cannot open the directory: %s", path.c_str(),
         std::strerror(errno));
  while (const dirent *entry = readdir(folder.get())) {
    std::string file = entry->d_name;
    if (file.size() != name_length + suffix.size()) {
      remove_leftover(dirfd(folder.get()), file);
      continue;
    }
    std::string name = file.substr(0, name_length);
    struct stat info;
    if (!file.ends_with(suffix) || !is_name(name)) continue;
    if (fstatat(dirfd(folder.get()), file.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode)) continue;
    found.push_back({std::move(name), info.st_mtim});
  }
  std::sort(found.begin(), found.end(), [](const Found &a, const Found &b) {
    if (a.time.tv_sec != b.time.tv_sec) return a.time.tv_sec < b.time.tv_sec;
    if (a.time.tv_nsec != b.time.tv_nsec) return a.time.tv_nsec < b.time.tv_nsec;
    return a.name < b.name;
  });
  names_.reserve(found.size());
  for (Found &entry : found) names_.push_back(std::move(entry.name));
}

wkv_prefix_storage PrefixDirectory::storage() noexcept {
  wkv_prefix_storage functions{};
  functions.struct_size = sizeof functions;
  functions.user = this;
  functions.put = [](void *user, const char *name, const void *bytes, size_t bytes_count) {
    return attempt([&] {
      formats::FileWriter writer(static_cast<PrefixDirectory *>(user)->file_of(name));
      writer.write({static_cast<const std::byte *>(bytes), bytes_count});
      writer.commit();
      return true;
    });
  };
  functions.get = [](void *user, const char *name, void *bytes, size_t capacity, size_t *bytes_count) {
    return attempt([&] {
      // not a link, and nothing that waits for a writer
      const std::string &path = static_cast<PrefixDirectory *>(user)->file_of(name);
      Descriptor file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
      struct stat info;
      if (file.number() < 0 || fstat(file.number(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
      const size_t size = static_cast<size_t>(info.st_size), wanted = std::min(capacity, size);
      for (size_t done = 0; done < wanted;) {
        const ssize_t part = read(file.number(), static_cast<std::byte *>(bytes) + done, wanted - done);
        if (part < 0 && errno == EINTR) continue;
        if (part <= 0) return false;  // an error, or cut meanwhile
        done += static_cast<size_t>(part);
      }
      if (wanted == size) futimens(file.number(), nullptr);
      *bytes_count = size;
      return true;
    });
  };
  functions.evict = [](void *user, const char *name) {
    attempt([&] { return unlink(static_cast<PrefixDirectory *>(user)->file_of(name).c_str()) == 0; });
  };
  functions.list = [](void *user, size_t index, char *name, size_t capacity) {
    return attempt([&] {
      PrefixDirectory &self = *static_cast<PrefixDirectory *>(user);
      if (index >= self.names_.size() || self.names_[index].size() >= capacity) return false;
      std::memcpy(name, self.names_[index].c_str(), self.names_[index].size() + 1);
      return true;
    });
  };
  return functions;
}

}  // namespace libwkv
