// SPDX-License-Identifier: Apache-2.0
// A directory as the storage of a prefix store: one file an entry.
#pragma once

#include <string>
#include <vector>

#include <wkv/prefix_store.h>

namespace libwkv {

// True for names that a prefix store makes: 16 digits of the model, '-', 32 digits of the tokens.
bool is_prefix_name(const char *name) noexcept;

// Files are NAME.wkv; whatever else lies in the directory is not looked at. A file appears whole or not at all, so that
// a process that is killed leaves a temporary beside it at most, which a later one removes.
class PrefixDirectory {
 public:
  // Makes the directory when it is not there, and looks what is in it. Throws WKV_IO.
  explicit PrefixDirectory(const std::string &path);

  // The four functions on this object, which must stay where it is. Reading an entry whole makes it the most recently
  // used one, and list gives the least recently used one first.
  wkv_prefix_storage storage() noexcept;

 private:
  const std::string &file_of(const char *name) noexcept;
  void read_names(const std::string &path);

  // The path of the entry last asked for, in memory of a size for any: a look at an entry needs none, so that a lack of
  // it is never taken for the lack of an entry.
  std::string file_;
  size_t folder_length_;  // of file_: the directory and a slash
  std::vector<std::string> names_;
};

}  // namespace libwkv
