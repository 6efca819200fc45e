// SPDX-License-Identifier: Apache-2.0
// Where a tokenizer comes from: a vocabulary file, or a model that carries one.
#include <filesystem>

#include "base/error.h"
#include "base/mapping.h"
#include "formats/vocabulary.h"
#include "text/tokenizer.h"

namespace libwkv {
namespace {

// Does the content begin as a vocabulary does: an id, a space, and a Python literal?
bool looks_like_vocabulary(std::string_view content) {
  size_t i = 0;
  while (i < content.size() && i < 16 && content[i] >= '0' && content[i] <= '9') i++;
  if (i == 0 || i >= content.size() || content[i] != ' ') return false;
  const char next = i + 1 < content.size() ? content[i + 1] : 0;
  return next == '\'' || next == '"' || next == 'b' || next == 'u' || next == ' ';
}

std::shared_ptr<const Tokenizer> from_checkpoint(const std::string &path) {
  const formats::Checkpoint checkpoint = formats::open_checkpoint(path);
  if (checkpoint.vocabulary.empty()) fail(WKV_NOT_FOUND, "%s: the model carries no vocabulary", path.c_str());
  return std::make_shared<const Tokenizer>(checkpoint.vocabulary);
}

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer(const std::string &path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return from_checkpoint(path);
  const auto file = Mapping::open(path);
  const std::string_view content(reinterpret_cast<const char *>(file->bytes().data()), file->bytes().size());
  if (content.empty()) fail(WKV_FORMAT, "%s: the file is empty", path.c_str());
  if (looks_like_vocabulary(content))
    return std::make_shared<const Tokenizer>(formats::parse_vocabulary(content, path));
  try {
    return from_checkpoint(path);
  } catch (const Error &e) {
    if (e.status() != WKV_FORMAT) throw;
    fail(WKV_FORMAT, "not a vocabulary (line 1 does not begin with an id and a literal), and as a model: %s", e.what());
  }
}

std::shared_ptr<const Tokenizer> load_tokenizer_memory(std::string_view content) {
  return std::make_shared<const Tokenizer>(formats::parse_vocabulary(content, "memory"));
}

}  // namespace libwkv
