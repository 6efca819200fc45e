// SPDX-License-Identifier: Apache-2.0
// Model directories of Hugging Face and flash-linear-attention: config.json, safetensors files, and perhaps a
// vocabulary.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <new>
#include <set>

#include <dirent.h>

#include "formats/bytes.h"
#include "formats/json.h"
#include "formats/readers.h"
#include "formats/vocabulary.h"

namespace libwkv::formats {

namespace {

constexpr size_t most_shards = 1000;

std::string in_folder(const std::string &folder, const std::string &name) {
  return folder.ends_with('/') ? folder + name : folder + "/" + name;
}

JsonObject read_json(const std::string &path) {
  std::shared_ptr<const Mapping> file = Mapping::open(path);
  return parse_json_object(text_of(file->bytes()), path);
}

std::optional<int64_t> find_size(const JsonObject &config, const char *key, const std::string &path) {
  const JsonValue *value = find(config, key);
  if (!value) return {};
  std::optional<int64_t> size = as_integer(*value);
  if (!size || *size <= 0 || *size > INT32_MAX)
    fail(WKV_FORMAT, "%s: %s is %s", path.c_str(), key, printable(to_text(*value)).c_str());
  return size;
}

void check_architecture(const JsonObject &config, const std::string &path) {
  const JsonValue *type = find(config, "model_type"), *classes = find(config, "architectures");
  const std::string *found = type ? get_if<std::string>(*type) : nullptr;
  const JsonArray *names = classes ? get_if<JsonArray>(*classes) : nullptr;
  if (!found && names && !names->empty()) found = get_if<std::string>(names->front());
  if (!found) fail(WKV_FORMAT, "%s: neither model_type nor architectures is given", path.c_str());
  if (*found != "rwkv7" && *found != "RWKV7ForCausalLM")
    fail(WKV_UNSUPPORTED, "%s: model type %s, not rwkv7", path.c_str(), printable(*found).c_str());
  if (find(config, "attn"))
    fail(WKV_UNSUPPORTED, "%s: a hybrid of RWKV-7 with attention layers (attn is set)", path.c_str());
  if (const JsonValue *before = find(config, "norm_first"); before && !is_true(*before))
    fail(WKV_UNSUPPORTED, "%s: norm_first is false: no norm behind the embedding", path.c_str());
  if (const JsonValue *epsilon = find(config, "norm_eps");
      epsilon && !(std::fabs(as_number(*epsilon).value_or(0) - 1e-5) < 1e-8))
    fail(WKV_UNSUPPORTED, "%s: norm_eps is %s, RWKV-7 has 1e-05", path.c_str(), printable(to_text(*epsilon)).c_str());
  if (const JsonValue *activation = find(config, "hidden_act"); activation && !is_text(*activation, "sqrelu"))
    fail(WKV_UNSUPPORTED, "%s: hidden_act is %s, RWKV-7 has sqrelu", path.c_str(),
         printable(to_text(*activation)).c_str());
}

Claims read_claims(const JsonObject &config, const std::string &path) {
  Claims claims;
  claims.width = find_size(config, "hidden_size", path);
  claims.layers = find_size(config, "num_hidden_layers", path);
  claims.ffn_width = find_size(config, "intermediate_size", path);
  claims.vocab_size = find_size(config, "vocab_size", path);
  claims.head_size = find_size(config, "head_dim", path);
  // With head_dim given, num_heads follows from it, and some files carry a stale one.
  if (!claims.head_size) claims.heads = find_size(config, "num_heads", path);
  claims.rank_w = find_size(config, "decay_low_rank_dim", path);
  claims.rank_a = find_size(config, "a_low_rank_dim", path);
  claims.rank_v = find_size(config, "v_low_rank_dim", path);
  claims.rank_g = find_size(config, "gate_low_rank_dim", path);
  return claims;
}

// A name that stays in the folder, whatever the system thinks of separators.
void check_shard_name(const std::string &name, const std::string &path) {
  constexpr std::string_view extension = ".safetensors";
  bool is_plain = name.size() > extension.size() && name.ends_with(extension) && name.find('/') == std::string::npos &&
                  name.find('\\') == std::string::npos && name.find('\0') == std::string::npos && name.size() < 256;
  if (!is_plain)
    fail(WKV_FORMAT, "%s: %s is not the name of a .safetensors file in the folder", path.c_str(),
         printable(name).c_str());
}

void add_shards(const std::string &folder, const std::string &index_path, RawCheckpoint &raw) {
  JsonObject index = read_json(index_path);
  const JsonValue *map = find(index, "weight_map");
  const JsonObject *weights = map ? get_if<JsonObject>(*map) : nullptr;
  if (!weights) fail(WKV_FORMAT, "%s: weight_map is no object", index_path.c_str());
  std::map<std::string, std::vector<std::string>> tensors_of;  // by file
  for (const auto &[tensor, shard] : *weights) {
    const std::string *name = get_if<std::string>(shard);
    if (!name) fail(WKV_FORMAT, "%s: the file of %s is no text", index_path.c_str(), printable(tensor).c_str());
    check_shard_name(*name, index_path);
    tensors_of[*name].push_back(tensor);
  }
  if (tensors_of.size() > most_shards) fail(WKV_UNSUPPORTED, "%s: %zu files", index_path.c_str(), tensors_of.size());
  for (const auto &[name, wanted] : tensors_of) {
    RawCheckpoint shard = read_safetensors(Mapping::open(in_folder(folder, name)));
    std::set<std::string_view> present;
    for (const RawTensor &tensor : shard.tensors) present.insert(tensor.name);
    for (const std::string &tensor : wanted)
      if (!present.contains(tensor))
        fail(WKV_FORMAT, "%s: tensor %s is not in %s", index_path.c_str(), printable(tensor).c_str(),
             printable(name).c_str());
    std::move(shard.tensors.begin(), shard.tensors.end(), std::back_inserter(raw.tensors));
    raw.files.push_back(shard.files.front());
  }
}

bool exists(const std::string &path) {
  std::error_code problem;
  return std::filesystem::exists(path, problem);
}

struct CloseFolder {
  void operator()(DIR *folder) const { closedir(folder); }
};

// The one file whose name begins and ends so; empty when there is none, or several, or the folder lets none be listed.
// std::filesystem would end the process where listing finds no memory.
std::string find_only(const std::string &folder, std::string_view begin, std::string_view end) {
  std::unique_ptr<DIR, CloseFolder> open(opendir(folder.c_str()));
  if (!open && errno == ENOMEM) throw std::bad_alloc();
  std::string only;
  while (const dirent *entry = open ? readdir(open.get()) : nullptr) {
    std::string_view name = entry->d_name;
    if (!name.starts_with(begin) || !name.ends_with(end) || name.size() < begin.size() + end.size()) continue;
    if (!only.empty()) return {};
    only = name;
  }
  return only;
}

}  // namespace

RawCheckpoint read_hugging_face_directory(const std::string &path) {
  std::string config_path = in_folder(path, "config.json");
  if (!exists(config_path)) fail(WKV_NOT_FOUND, "%s: a folder without config.json", path.c_str());
  JsonObject config = read_json(config_path);
  check_architecture(config, config_path);

  RawCheckpoint raw;
  raw.claims = read_claims(config, config_path);
  raw.format = "safetensors";
  raw.low_rank = LowRank::by_shape;
  if (const JsonValue *tied = find(config, "tie_word_embeddings")) raw.is_head_tied = is_true(*tied);

  std::string index = in_folder(path, "model.safetensors.index.json"), single = in_folder(path, "model.safetensors");
  if (exists(index)) {
    add_shards(path, index, raw);
  } else {
    if (!exists(single)) {
      std::string only = find_only(path, "", ".safetensors");
      if (only.empty())
        fail(WKV_NOT_FOUND, "%s: neither model.safetensors nor its index is in the folder", path.c_str());
      single = in_folder(path, only);
    }
    RawCheckpoint one = read_safetensors(Mapping::open(single));
    raw.tensors = std::move(one.tensors);
    raw.files = std::move(one.files);
  }

  std::string vocabulary = find_only(path, "rwkv_vocab", ".txt");
  if (!vocabulary.empty()) raw.vocabulary = load_vocabulary(in_folder(path, vocabulary));
  return raw;
}

}  // namespace libwkv::formats
