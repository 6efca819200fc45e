// SPDX-License-Identifier: Apache-2.0
// GGUF versions 2 and 3: typed key-value pairs, tensor descriptions, aligned data.
#include <bit>
#include <cmath>
#include <map>
#include <set>

#include "base/checked.h"
#include "formats/bytes.h"
#include "formats/gguf_layout.h"
#include "formats/python_literal.h"
#include "formats/readers.h"
#include "formats/vocabulary.h"

namespace libwkv::formats {

namespace {

// A model of 100 layers has 3,000 tensors and 30 keys.
constexpr uint64_t most_tensors = 100000, most_keys = 10000;

std::optional<StoredType> stored_type(uint32_t ggml_type) {
  for (size_t i = 0; i < std::size(ggml_types); i++)
    if (ggml_types[i] == ggml_type) return static_cast<StoredType>(i);
  return {};
}

struct Value {
  uint32_t type = 0;
  std::span<const std::byte> bytes;  // scalars and strings: the content; arrays: the elements
  uint32_t element_type = 0;         // arrays
  uint64_t count = 0;
};

class Header {
 public:
  explicit Header(const std::shared_ptr<const Mapping> &file) : name_(file->name()), reader_(file->bytes(), name_) {
    reader_.take(4, "the magic");
    uint32_t version = reader_.read<uint32_t>("the version");
    if (version == 0x02000000 || version == 0x03000000)
      fail(WKV_UNSUPPORTED, "%s: a big-endian GGUF file", name_.c_str());
    if (version != 2 && version != 3)
      fail(WKV_UNSUPPORTED, "%s: GGUF version %u, known are 2 and 3", name_.c_str(), version);
    tensors_ = reader_.read<uint64_t>("the number of tensors");
    uint64_t keys = reader_.read<uint64_t>("the number of keys");
    if (tensors_ > most_tensors || keys > most_keys)
      fail(WKV_FORMAT, "%s: %llu tensors and %llu keys", name_.c_str(), static_cast<unsigned long long>(tensors_),
           static_cast<unsigned long long>(keys));
    for (uint64_t i = 0; i < keys; i++) {
      std::string_view key = read_string("a key");
      if (!is_utf8(key)) fail(WKV_FORMAT, "%s: a key that is not UTF-8", name_.c_str());
      uint32_t type = reader_.read<uint32_t>("a value type");
      if (!values_.emplace(key, read_value(type, key)).second)
        fail(WKV_FORMAT, "%s: key %s is there twice", name_.c_str(), printable(key).c_str());
    }
  }

  uint64_t tensors() const { return tensors_; }
  ByteReader &reader() { return reader_; }

  std::string_view read_string(const char *what) {
    uint64_t size = reader_.read<uint64_t>(what);
    return text_of(reader_.take(size, what));
  }

  const Value *find(std::string_view key) const {
    auto found = values_.find(key);
    return found == values_.end() ? nullptr : &found->second;
  }

  std::optional<int64_t> integer(std::string_view key) const {
    const Value *value = find(key);
    if (!value) return {};
    const std::byte *at = value->bytes.data();
    switch (value->type) {
      case gguf_u8:
        return load<uint8_t>(at);
      case gguf_i8:
        return load<int8_t>(at);
      case gguf_u16:
        return load<uint16_t>(at);
      case gguf_i16:
        return load<int16_t>(at);
      case gguf_u32:
        return load<uint32_t>(at);
      case gguf_i32:
        return load<int32_t>(at);
      case gguf_i64:
        return load<int64_t>(at);
      case gguf_u64:
        if (load<uint64_t>(at) <= INT64_MAX) return load<int64_t>(at);
        [[fallthrough]];
      default:
        fail(WKV_FORMAT, "%s: key %s is not an integer that fits", name_.c_str(), printable(key).c_str());
    }
  }

  std::optional<std::string_view> text(std::string_view key) const {
    const Value *value = find(key);
    if (!value) return {};
    if (value->type != gguf_string) fail(WKV_FORMAT, "%s: key %s is not text", name_.c_str(), printable(key).c_str());
    return text_of(value->bytes);
  }

  std::optional<double> real(std::string_view key) const {
    const Value *value = find(key);
    if (!value) return {};
    if (value->type == gguf_f32) return load<float>(value->bytes.data());
    if (value->type == gguf_f64) return load<double>(value->bytes.data());
    fail(WKV_FORMAT, "%s: key %s is not a number", name_.c_str(), printable(key).c_str());
  }

  // A size that a model cannot be described without.
  int64_t size(std::string_view key) const {
    std::optional<int64_t> value = integer(key);
    if (!value) fail(WKV_FORMAT, "%s: key %s is missing", name_.c_str(), printable(key).c_str());
    if (*value <= 0 || *value > INT32_MAX)
      fail(WKV_FORMAT, "%s: %s is %lld", name_.c_str(), printable(key).c_str(), static_cast<long long>(*value));
    return *value;
  }

 private:
  Value read_value(uint32_t type, std::string_view key) {
    Value value;
    value.type = type;
    if (type == gguf_string) {
      uint64_t size = reader_.read<uint64_t>("a text");
      value.bytes = reader_.take(size, "a text");
    } else if (type == gguf_array) {
      value.element_type = reader_.read<uint32_t>("an array's type");
      value.count = reader_.read<uint64_t>("an array's length");
      if (value.element_type == gguf_array)
        fail(WKV_UNSUPPORTED, "%s: key %s is an array of arrays", name_.c_str(), printable(key).c_str());
      if (value.element_type == gguf_string) {
        size_t begin = reader_.position();
        ByteReader from = reader_;
        for (uint64_t i = 0; i < value.count; i++) read_string("a text of an array");
        value.bytes = from.take(reader_.position() - begin, "an array");
      } else {
        value.bytes =
            reader_.take(checked_multiply(value.count, scalar_size(value.element_type, key), "an array"), "an array");
      }
    } else {
      value.bytes = reader_.take(scalar_size(type, key), "a value");
    }
    return value;
  }

  uint64_t scalar_size(uint32_t type, std::string_view key) const {
    switch (type) {
      case gguf_u8:
      case gguf_i8:
      case gguf_bool:
        return 1;
      case gguf_u16:
      case gguf_i16:
        return 2;
      case gguf_u32:
      case gguf_i32:
      case gguf_f32:
        return 4;
      case gguf_u64:
      case gguf_i64:
      case gguf_f64:
        return 8;
      default:
        fail(WKV_FORMAT, "%s: key %s has value type %u", name_.c_str(), printable(key).c_str(), type);
    }
  }

  const std::string &name_;
  ByteReader reader_;
  uint64_t tensors_ = 0;
  std::map<std::string_view, Value> values_;
};

std::vector<VocabularyToken> read_vocabulary(const Header &header, const std::string &name) {
  const Value *tokens = header.find("tokenizer.ggml.tokens"), *types = header.find("tokenizer.ggml.token_type");
  if (header.text("tokenizer.ggml.model").value_or("") != "rwkv" || !tokens) return {};
  if (tokens->type != gguf_array || tokens->element_type != gguf_string)
    fail(WKV_FORMAT, "%s: tokenizer.ggml.tokens is no array of texts", name.c_str());
  if (tokens->count > static_cast<uint64_t>(largest_token_id) + 1)
    fail(WKV_UNSUPPORTED, "%s: a vocabulary of %llu tokens", name.c_str(),
         static_cast<unsigned long long>(tokens->count));
  if (types && (types->type != gguf_array || (types->element_type != gguf_i32 && types->element_type != gguf_u32) ||
                types->count != tokens->count))
    fail(WKV_FORMAT, "%s: tokenizer.ggml.token_type does not fit the tokens", name.c_str());
  std::vector<VocabularyToken> vocabulary;
  std::set<std::string_view> seen;
  ByteReader reader(tokens->bytes, name);
  for (uint64_t i = 0; i < tokens->count; i++) {
    std::string_view text = text_of(reader.take(reader.read<uint64_t>("a token"), "a token"));
    // Normal and user-defined tokens have bytes; control, unknown and unused ones have a name.
    int32_t type = types ? load<int32_t>(&types->bytes[i * 4]) : token_normal;
    if (i == 0 || (type != token_normal && type != token_user_defined)) continue;
    VocabularyToken token{static_cast<int32_t>(i), {}};
    const char *problem = read_python_bytes(text, token.bytes);
    if (!problem && token.bytes.empty()) problem = "it is empty";
    if (!problem && token.bytes.size() > longest_token) problem = "it is too long";
    if (!problem && !seen.insert(text).second) problem = "it is there twice";
    if (problem)
      fail(WKV_FORMAT, "%s: token %llu of the vocabulary: %s", name.c_str(), static_cast<unsigned long long>(i),
           problem);
    vocabulary.push_back(std::move(token));
  }
  return vocabulary;
}

void check_architecture(const Header &header, const std::string &name) {
  std::optional<std::string_view> architecture = header.text("general.architecture");
  if (!architecture) fail(WKV_FORMAT, "%s: key general.architecture is missing", name.c_str());
  if (*architecture == "arwkv7")
    fail(WKV_UNSUPPORTED, "%s: ARWKV-7 (arwkv7, attention layers converted to RWKV), not RWKV-7", name.c_str());
  if (*architecture != "rwkv7")
    fail(WKV_UNSUPPORTED, "%s: architecture %s, not rwkv7", name.c_str(), printable(*architecture).c_str());
  if (header.integer("split.count").value_or(1) > 1)
    fail(WKV_UNSUPPORTED, "%s: one of several files of a split model", name.c_str());
  int64_t shifts = header.integer("rwkv7.token_shift_count").value_or(2);
  if (shifts != 2)
    fail(WKV_UNSUPPORTED, "%s: token_shift_count %lld, RWKV-7 has 2", name.c_str(), static_cast<long long>(shifts));
  double epsilon = header.real("rwkv7.attention.layer_norm_epsilon").value_or(1e-5);
  if (!(std::fabs(epsilon - 1e-5) < 1e-8))
    fail(WKV_UNSUPPORTED, "%s: layer norm epsilon %g, RWKV-7 has 1e-05", name.c_str(), epsilon);
}

RawTensor read_tensor(Header &header, const std::string &name, uint64_t &offset) {
  RawTensor tensor;
  std::string_view tensor_name = header.read_string("a tensor's name");
  if (!is_utf8(tensor_name)) fail(WKV_FORMAT, "%s: a tensor name that is not UTF-8", name.c_str());
  tensor.name = tensor_name;
  std::string shown = printable(tensor_name);
  ByteReader &reader = header.reader();
  uint32_t dimensions = reader.read<uint32_t>("a tensor's rank");
  if (dimensions < 1 || dimensions > 4)
    fail(WKV_FORMAT, "%s: tensor %s has %u dimensions", name.c_str(), shown.c_str(), dimensions);
  tensor.shape.resize(dimensions);
  for (uint32_t i = dimensions; i-- > 0;) {  // fastest first in the file
    uint64_t dimension = reader.read<uint64_t>("a tensor's shape");
    if (dimension > INT64_MAX)
      fail(WKV_FORMAT, "%s: tensor %s has a dimension of %llu", name.c_str(), shown.c_str(),
           static_cast<unsigned long long>(dimension));
    tensor.shape[i] = static_cast<int64_t>(dimension);
  }
  uint32_t type = reader.read<uint32_t>("a tensor's type");
  offset = reader.read<uint64_t>("a tensor's offset");
  std::optional<StoredType> known = stored_type(type);
  if (!known)
    fail(WKV_UNSUPPORTED,
         "%s: tensor %s has ggml type %u; known are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K",
         name.c_str(), shown.c_str(), type);
  tensor.type = *known;
  count_values(tensor.shape, tensor.name);
  if (tensor.shape.back() % block_values(tensor.type))
    fail(WKV_FORMAT, "%s: tensor %s has rows of %lld values, not a whole number of %s blocks", name.c_str(),
         shown.c_str(), static_cast<long long>(tensor.shape.back()), name_of(tensor.type));
  return tensor;
}

}  // namespace

RawCheckpoint read_gguf(std::shared_ptr<const Mapping> file) {
  const std::string &name = file->name();
  Header header(file);
  check_architecture(header, name);

  RawCheckpoint raw;
  raw.format = "gguf";
  raw.claims.width = header.size("rwkv7.embedding_length");
  raw.claims.layers = header.size("rwkv7.block_count");
  raw.claims.ffn_width = header.size("rwkv7.feed_forward_length");
  raw.claims.head_size = header.size("rwkv7.wkv.head_size");
  raw.claims.rank_w = header.integer("rwkv7.attention.decay_lora_rank");
  raw.claims.rank_a = header.integer("rwkv7.attention.iclr_lora_rank");
  raw.claims.rank_v = header.integer("rwkv7.attention.value_residual_mix_lora_rank");
  raw.claims.rank_g = header.integer("rwkv7.attention.gate_lora_rank");
  raw.claims.vocab_size = header.integer("rwkv7.vocab_size");

  std::optional<int64_t> stated = header.integer("general.alignment");
  if (stated && (*stated <= 0 || *stated > (1 << 24) || !std::has_single_bit(static_cast<uint64_t>(*stated))))
    fail(WKV_FORMAT, "%s: general.alignment is %lld", name.c_str(), static_cast<long long>(*stated));
  uint64_t alignment = static_cast<uint64_t>(stated.value_or(gguf_alignment));

  std::vector<uint64_t> offsets;
  for (uint64_t i = 0; i < header.tensors(); i++) {
    uint64_t offset = 0;
    raw.tensors.push_back(read_tensor(header, name, offset));
    offsets.push_back(offset);
  }
  std::span<const std::byte> bytes = file->bytes();
  uint64_t begin = (header.reader().position() + alignment - 1) / alignment * alignment;
  uint64_t size = begin < bytes.size() ? bytes.size() - begin : 0;
  for (size_t i = 0; i < raw.tensors.size(); i++) {
    RawTensor &tensor = raw.tensors[i];
    uint64_t length = stored_bytes(tensor.type, count_values(tensor.shape, tensor.name));
    if (offsets[i] % alignment || offsets[i] > size || length > size - offsets[i])
      fail(WKV_FORMAT, "%s: tensor %s of %llu bytes at offset %llu is not aligned or passes the end of the file",
           name.c_str(), printable(tensor.name).c_str(), static_cast<unsigned long long>(length),
           static_cast<unsigned long long>(offsets[i]));
    tensor.bytes = bytes.subspan(static_cast<size_t>(begin + offsets[i]), static_cast<size_t>(length));
    tensor.file = file;
  }
  raw.vocabulary = read_vocabulary(header, name);
  raw.files.push_back(std::move(file));
  return raw;
}

}  // namespace libwkv::formats
