// SPDX-License-Identifier: Apache-2.0
#include "formats/gguf_write.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "base/error.h"
#include "formats/blocks.h"
#include "formats/file_writer.h"
#include "formats/gguf_layout.h"
#include "formats/names.h"
#include "formats/python_literal.h"
#include "formats/readers.h"

namespace libwkv::formats {

namespace {

// One tensor of the target: rows of source tensors, one behind the other.
struct Part {
  std::string name;
  std::vector<uint64_t> ne;  // fastest first
  StoredType type = StoredType::f32;
  std::vector<const Tensor *> sources;
  bool is_transposed = false;
  uint64_t offset = 0, bytes = 0;
};

class Plan {
 public:
  Plan(const Checkpoint &checkpoint, const GgufOptions &options) : checkpoint_(checkpoint), options_(options) {
    large("emb.weight");
    vector("blocks.0.ln0.weight");
    vector("blocks.0.ln0.bias");
    for (int64_t layer = 0; layer < options.layers; layer++) add_layer(layer);
    vector("ln_out.weight");
    vector("ln_out.bias");
    large("head.weight");
    uint64_t offset = 0;
    for (Part &part : parts_) {
      uint64_t values = 1;
      for (uint64_t dimension : part.ne) values *= dimension;
      part.offset = offset;
      part.bytes = stored_bytes(part.type, values);
      offset = (offset + part.bytes + gguf_alignment - 1) / gguf_alignment * gguf_alignment;
      total_ += part.bytes;
    }
  }

  const std::vector<Part> &parts() const { return parts_; }
  uint64_t total_bytes() const { return total_; }

 private:
  const Tensor &source(const std::string &name) const { return checkpoint_.tensors.find(name)->second; }

  void add(std::string gguf_name, const Tensor &tensor, StoredType type, bool is_transposed) {
    Part part{std::move(gguf_name), {}, type, {&tensor}, is_transposed, 0, 0};
    if (tensor.rank == 1) {
      part.ne = {static_cast<uint64_t>(tensor.shape[0])};
    } else {
      uint64_t rows = static_cast<uint64_t>(tensor.shape[0]), columns = static_cast<uint64_t>(tensor.shape[1]);
      part.ne = is_transposed ? std::vector{rows, columns} : std::vector{columns, rows};
    }
    parts_.push_back(std::move(part));
  }

  void vector(const std::string &name) { add(gguf_name_of(name), source(name), StoredType::f32, false); }

  void large(const std::string &name) {
    const Tensor &tensor = source(name);
    StoredType type = options_.matrices;
    if (tensor.shape[1] % block_values(type)) type = StoredType::f16;
    add(gguf_name_of(name), tensor, type, false);
  }

  void low_rank(const std::string &gguf_name, const std::string &name, bool is_wide) {
    StoredType type = is_wide                                 ? StoredType::f32
                      : options_.matrices == StoredType::q8_0 ? StoredType::f16
                                                              : options_.matrices;
    add(gguf_name, source(name), type, true);
  }

  // Bias and two matrices of one low-rank product. source_letter: whose content they get.
  void low_rank_group(const std::string &att, char letter, char source_letter) {
    auto official = [&](const std::string &prefix, char c, int i) { return prefix + c + std::to_string(i); };
    if (letter != 'g')  // the gate has no bias
      add(gguf_name_of(official(att, letter, 0)), source(official(att, source_letter, 0)), StoredType::f32, false);
    for (int i = 1; i <= 2; i++)
      low_rank(gguf_name_of(official(att, letter, i)), official(att, source_letter, i), letter == 'w');
  }

  void add_layer(int64_t layer) {
    std::string block = "blocks." + std::to_string(layer) + ".", att = block + "att.", ffn = block + "ffn.";
    for (const char *name : {"ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias"}) vector(block + name);
    Part shifts{gguf_name_of(att + "x_rwkvag"),
                {static_cast<uint64_t>(options_.width), 1, 1, 6},
                StoredType::f32,
                {},
                false,
                0,
                0};
    for (const char *name : {"x_r", "x_w", "x_k", "x_v", "x_a", "x_g"}) shifts.sources.push_back(&source(att + name));
    parts_.push_back(std::move(shifts));
    low_rank_group(att, 'w', 'w');
    low_rank_group(att, 'a', 'a');
    // llama.cpp refuses a file without these three in layer 0, where they mean nothing: copies of the a ones, as its
    // own converter writes.
    low_rank_group(att, 'v', layer == 0 ? 'a' : 'v');
    low_rank_group(att, 'g', 'g');
    vector(att + "k_k");
    vector(att + "k_a");
    add_flat(att + "r_k");
    for (const char *name : {"receptance.weight", "key.weight", "value.weight", "output.weight"}) large(att + name);
    vector(att + "ln_x.weight");
    vector(att + "ln_x.bias");
    vector(ffn + "x_k");
    large(ffn + "key.weight");
    large(ffn + "value.weight");
  }

  void add_flat(const std::string &name) {
    vector(name);
    parts_.back().ne = {static_cast<uint64_t>(options_.width)};
  }

  const Checkpoint &checkpoint_;
  const GgufOptions &options_;
  std::vector<Part> parts_;
  uint64_t total_ = 0;
};

// Keys and values, counted as they are added.
class Keys {
 public:
  void text(std::string_view key, std::string_view value) {
    begin(key, gguf_string);
    put_text(value);
  }
  void number(std::string_view key, int64_t value) {
    begin(key, gguf_u32);
    put(static_cast<uint32_t>(value));
  }
  void real(std::string_view key, float value) {
    begin(key, gguf_f32);
    put(value);
  }
  void texts(std::string_view key, const std::vector<std::string> &values) {
    begin_array(key, gguf_string, values.size());
    for (const std::string &value : values) put_text(value);
  }
  void numbers(std::string_view key, const std::vector<int32_t> &values) {
    begin_array(key, gguf_i32, values.size());
    for (int32_t value : values) put(value);
  }

  template <class T>
  void put(T value) {
    const std::byte *bytes = reinterpret_cast<const std::byte *>(&value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof value);
  }
  void put_text(std::string_view value) {
    put(static_cast<uint64_t>(value.size()));
    const std::byte *bytes = reinterpret_cast<const std::byte *>(value.data());
    bytes_.insert(bytes_.end(), bytes, bytes + value.size());
  }

  uint64_t count() const { return count_; }
  const std::vector<std::byte> &bytes() const { return bytes_; }

 private:
  void begin(std::string_view key, uint32_t type) {
    count_++;
    put_text(key);
    put(type);
  }
  void begin_array(std::string_view key, uint32_t type, size_t size) {
    begin(key, gguf_array);
    put(type);
    put(static_cast<uint64_t>(size));
  }

  std::vector<std::byte> bytes_;
  uint64_t count_ = 0;
};

int64_t file_type(StoredType matrices) {
  switch (matrices) {
    case StoredType::f32:
      return 0;
    case StoredType::f16:
      return 1;
    case StoredType::q8_0:
      return 7;
    case StoredType::bf16:
      return 32;
    default:
      fail(WKV_UNSUPPORTED, "GGUF is written as F32, F16, BF16 or Q8_0, not as %s", name_of(matrices));
  }
}

void put_vocabulary(Keys &keys, const std::vector<VocabularyToken> &vocabulary, int64_t vocab_size) {
  if (vocabulary.empty()) {
    // llama.cpp needs to be told that there is none, and then how many ids there are
    keys.text("tokenizer.ggml.model", "no_vocab");
    keys.number("rwkv7.vocab_size", vocab_size);
    return;
  }
  if (vocabulary.back().id >= vocab_size)
    fail(WKV_INVALID, "the vocabulary has id %d, the model %lld ids", vocabulary.back().id,
         static_cast<long long>(vocab_size));
  std::vector<std::string> texts(static_cast<size_t>(vocab_size));
  std::vector<int32_t> types(texts.size(), token_unused);
  for (size_t i = 0; i < texts.size(); i++) texts[i] = "[PAD" + std::to_string(i) + "]";
  texts[0] = "<s>";
  types[0] = token_control;
  int32_t end_of_turn = -1;
  for (const VocabularyToken &token : vocabulary) {
    texts[static_cast<size_t>(token.id)] = write_python_bytes(token.bytes);
    types[static_cast<size_t>(token.id)] = token_normal;
    if (token.bytes == "\n\n") end_of_turn = token.id;
  }
  keys.text("tokenizer.ggml.model", "rwkv");
  keys.texts("tokenizer.ggml.tokens", texts);
  keys.numbers("tokenizer.ggml.token_type", types);
  keys.text("tokenizer.chat_template", "rwkv-world");
  if (end_of_turn >= 0) keys.number("tokenizer.ggml.eot_token_id", end_of_turn);
}

Keys make_keys(const std::vector<VocabularyToken> &vocabulary, const GgufOptions &options) {
  Keys keys;
  keys.text("general.architecture", "rwkv7");
  keys.text("general.type", "model");
  if (!options.name.empty()) keys.text("general.name", options.name);
  keys.number("rwkv7.context_length", 1048576);  // any length; this is what other converters write
  keys.number("rwkv7.embedding_length", options.width);
  keys.number("rwkv7.block_count", options.layers);
  keys.number("rwkv7.feed_forward_length", options.ffn_width);
  keys.real("rwkv7.attention.layer_norm_epsilon", 1e-5f);
  keys.number("rwkv7.wkv.head_size", options.head_size);
  keys.number("rwkv7.attention.decay_lora_rank", options.rank_w);
  keys.number("rwkv7.attention.iclr_lora_rank", options.rank_a);
  keys.number("rwkv7.attention.value_residual_mix_lora_rank", options.layers > 1 ? options.rank_v : options.rank_a);
  keys.number("rwkv7.attention.gate_lora_rank", options.rank_g);
  keys.number("rwkv7.attention.head_count", 0);  // llama.cpp asks for it and reads wkv.head_size
  keys.number("general.file_type", file_type(options.matrices));
  if (options.matrices == StoredType::q8_0) keys.number("general.quantization_version", 2);
  put_vocabulary(keys, vocabulary, options.vocab_size);
  return keys;
}

// Largest magnitude that a type holds without becoming infinite.
float largest_value(StoredType type) {
  constexpr float largest_half = 65504.0f;
  switch (type) {
    case StoredType::f16:
      return 65519.996f;  // rounds down to largest_half
    case StoredType::q8_0:
      return largest_half * 127;
    case StoredType::bf16:
      return 3.3961775e38f;
    default:
      return std::numeric_limits<float>::infinity();
  }
}

class PartWriter {
 public:
  PartWriter(FileWriter &file, const GgufOptions &options, uint64_t total)
      : file_(file), options_(options), total_(total) {}

  void write(const Part &part) {
    for (const Tensor *source : part.sources) {
      source->file->check_length();
      if (part.is_transposed)
        write_rows(part, transposed(*source));
      else
        write_rows(part, *source);
      source->file->drop(source->bytes);
    }
  }

 private:
  static constexpr int64_t chunk_values = 1 << 18;
  static constexpr size_t drop_bytes = size_t{16} << 20;

  static Tensor transposed(Tensor tensor) {
    std::swap(tensor.shape[0], tensor.shape[1]);
    std::swap(tensor.strides[0], tensor.strides[1]);
    return tensor;
  }

  void write_rows(const Part &part, const Tensor &tensor) {
    int64_t rows = tensor.rank == 2 ? tensor.shape[0] : 1,
            columns = tensor.rank == 2 ? tensor.shape[1] : tensor.shape[0];
    int64_t at_once = std::clamp<int64_t>(chunk_values / columns, 1, rows);
    values_.resize(static_cast<size_t>(at_once * columns));
    encoded_.resize(static_cast<size_t>(stored_bytes(part.type, values_.size())));
    size_t dropped = 0;
    for (int64_t row = 0; row < rows; row += at_once) {
      int64_t count = std::min(at_once, rows - row);
      for (int64_t i = 0; i < count; i++) decode_row(tensor, row + i, values_.data() + i * columns);
      encode_checked(part, count * columns);
      // A large tensor is given back on the way: the source may be larger than memory.
      size_t read = tensor.is_contiguous()
                        ? static_cast<size_t>(row + count) * (tensor.bytes.size() / static_cast<size_t>(rows))
                        : 0;
      if (read - dropped >= drop_bytes) {
        tensor.file->drop(tensor.bytes.subspan(dropped, read - dropped));
        dropped = read;
      }
    }
  }

  void encode_checked(const Part &part, int64_t values) {
    float limit = largest_value(part.type);
    bool overflows = false;
    for (int64_t i = 0; i < values; i++) {
      float magnitude = std::fabs(values_[static_cast<size_t>(i)]);
      overflows |= magnitude > limit && magnitude <= std::numeric_limits<float>::max();
    }
    if (overflows)
      fail(WKV_UNSUPPORTED, "tensor %s has a value that %s cannot hold", part.name.c_str(), name_of(part.type));
    encode(part.type, values_.data(), values, encoded_.data());
    size_t bytes = static_cast<size_t>(stored_bytes(part.type, static_cast<uint64_t>(values)));
    file_.write(std::span(encoded_).first(bytes));
    done_ += bytes;
    if (options_.progress && !options_.progress(done_, total_))
      fail(WKV_CANCELLED, "cancelled at %llu of %llu bytes", static_cast<unsigned long long>(done_),
           static_cast<unsigned long long>(total_));
  }

  FileWriter &file_;
  const GgufOptions &options_;
  uint64_t total_, done_ = 0;
  std::vector<float> values_;
  std::vector<std::byte> encoded_;
};

void pad(FileWriter &file) {
  constexpr std::byte zeros[gguf_alignment]{};
  uint64_t over = file.position() % gguf_alignment;
  if (over) file.write(std::span(zeros).first(static_cast<size_t>(gguf_alignment - over)));
}

}  // namespace

void write_gguf(const Checkpoint &checkpoint, const std::vector<VocabularyToken> &vocabulary,
                const GgufOptions &options, const std::string &target) {
  Keys keys = make_keys(vocabulary, options);
  Plan plan(checkpoint, options);
  Keys header;
  header.put(uint32_t{0x46554747});  // "GGUF"
  header.put(uint32_t{3});
  header.put(static_cast<uint64_t>(plan.parts().size()));
  header.put(keys.count());
  Keys infos;
  for (const Part &part : plan.parts()) {
    infos.put_text(part.name);
    infos.put(static_cast<uint32_t>(part.ne.size()));
    for (uint64_t dimension : part.ne) infos.put(dimension);
    infos.put(ggml_types[static_cast<size_t>(part.type)]);
    infos.put(part.offset);
  }

  FileWriter file(target);
  file.write(header.bytes());
  file.write(keys.bytes());
  file.write(infos.bytes());
  pad(file);
  PartWriter writer(file, options, plan.total_bytes());
  for (const Part &part : plan.parts()) {
    writer.write(part);
    pad(file);
  }
  file.commit();
}

}  // namespace libwkv::formats
