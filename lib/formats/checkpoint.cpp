// SPDX-License-Identifier: Apache-2.0
// Opening a checkpoint: which format it is, by content.
#include "formats/checkpoint.h"

#include <algorithm>
#include <filesystem>

#include "formats/bytes.h"
#include "formats/names.h"

namespace libwkv::formats {

namespace {

RawCheckpoint read_file(std::shared_ptr<const Mapping> file) {
  std::string_view content = text_of(file->bytes());
  const std::string &name = file->name();
  auto begins = [&](std::string_view magic) { return content.starts_with(magic); };
  if (content.empty()) fail(WKV_FORMAT, "%s: an empty file", name.c_str());
  if (begins("GGUF")) return read_gguf(std::move(file));
  if (begins("PK\3\4")) return read_pth(std::move(file));
  if (begins("\x80")) return read_pth_legacy(std::move(file));
  if (begins("fmgg")) return read_rwkvcpp(std::move(file));
  refuse_git_lfs_pointer(*file);
  if (content.size() > 8 && content[8] == '{') return read_safetensors(std::move(file));
  fail(WKV_FORMAT, "%s: %zu bytes that begin with \"%s\": no known checkpoint format", name.c_str(), content.size(),
       printable(content.substr(0, 8)).c_str());
}

Checkpoint finish(RawCheckpoint raw) {
  Checkpoint checkpoint = name_tensors(std::move(raw));
  // A vocabulary may be larger than the model's: what the model cannot take must not come out of the tokenizer.
  if (auto embedding = checkpoint.tensors.find("emb.weight"); embedding != checkpoint.tensors.end())
    std::erase_if(checkpoint.vocabulary,
                  [&](const VocabularyToken &token) { return token.id >= embedding->second.shape[0]; });
  return checkpoint;
}

}  // namespace

Checkpoint open_checkpoint(const std::string &path) {
  std::error_code problem;
  if (std::filesystem::is_directory(path, problem)) return finish(read_hugging_face_directory(path));
  return finish(read_file(Mapping::open(path)));
}

RawCheckpoint open_raw(const std::string &path) { return read_file(Mapping::open(path)); }

Checkpoint open_checkpoint_memory(std::span<const std::byte> bytes) {
  return finish(read_file(Mapping::borrow(bytes, "memory")));
}

}  // namespace libwkv::formats
