// SPDX-License-Identifier: Apache-2.0
// A checkpoint with random weights of any shape, made in memory as a GGUF image: fast enough for billions of numbers,
// the same for the same seed, and with activations of ordinary size.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include <wkv/model.h>

namespace libwkv::test {

struct Shape {
  int64_t layers, width, head_size, ffn_width, vocab_size;
  int64_t rank_w, rank_a, rank_v, rank_g;
};

// The released sizes, and "tiny" for tests.
inline Shape shape_named(const std::string &name) {
  if (name == "tiny") return {2, 128, 64, 512, 1000, 32, 32, 16, 32};
  if (name == "0.1B") return {12, 768, 64, 3072, 65536, 64, 64, 32, 128};
  if (name == "0.4B") return {24, 1024, 64, 4096, 65536, 64, 64, 32, 128};
  if (name == "1.5B") return {24, 2048, 64, 8192, 65536, 96, 96, 64, 256};
  if (name == "2.9B") return {32, 2560, 64, 10240, 65536, 96, 96, 64, 320};
  if (name == "7.2B") return {32, 4096, 64, 16384, 65536, 128, 128, 96, 480};
  throw std::runtime_error("no shape is called " + name);
}

// Anonymous memory on huge pages where the system has them, or the content of an open file, which gets this size.
class Image {
 public:
  explicit Image(size_t bytes, int file = -1) : size_(bytes) {
    if (file >= 0 && ftruncate(file, static_cast<off_t>(bytes)) != 0) throw std::bad_alloc();
    void *memory =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    data_ = static_cast<std::byte *>(memory);
  }
  Image(Image &&other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Image &operator=(Image &&) = delete;
  ~Image() {
    if (data_) munmap(data_, size_);
  }
  std::byte *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte *data_ = nullptr;
  size_t size_ = 0;
};

// Types of the low-rank matrices: as in GGUF files that people have, where those of the decay are F32; or all the wide
// type, as in .pth files.
enum class LowRank { as_in_gguf, wide };

namespace random_model {

// Numbers of the GGUF format.
enum class GgmlType : uint32_t { f32 = 0, f16 = 1, q4_0 = 2, q8_0 = 8, bf16 = 30 };

inline size_t row_bytes(GgmlType type, int64_t inputs) {
  size_t n = static_cast<size_t>(inputs);
  switch (type) {
    case GgmlType::f32:
      return n * 4;
    case GgmlType::q8_0:
      return n / 32 * 34;
    case GgmlType::q4_0:
      return n / 32 * 18;
    default:
      return n * 2;
  }
}

enum class Fill {
  constant,   // `a` everywhere
  uniform,    // in [a, b)
  spread,     // mean 0, standard deviation about `a`
  one_signed  // each row of one sign: mean magnitude about `a`, and a row is negative with probability `b`
};

struct Tensor {
  std::string name;
  GgmlType type;
  int64_t inputs, rows;          // ne[0], and the product of the others
  std::vector<int64_t> extents;  // as written
  Fill fill;
  double a, b;
  size_t offset = 0;
};

// Sixteen xorshift generators side by side: the compiler turns each step into vector instructions.
struct Random {
  static constexpr size_t lanes = 16;
  std::array<uint32_t, lanes> state;

  explicit Random(uint64_t seed) {
    for (uint32_t &lane : state) {
      seed += 0x9e3779b97f4a7c15u;
      uint64_t mixed = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9u;
      mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
      lane = static_cast<uint32_t>(mixed >> 32) | 1u;
    }
  }
  void next() {
    for (uint32_t &lane : state) {
      lane ^= lane << 13;
      lane ^= lane >> 17;
      lane ^= lane << 5;
    }
  }
  // (bits & keep) | set over 32-bit words
  void fill(std::byte *target, size_t bytes, uint32_t keep, uint32_t set) {
    for (; bytes;) {
      next();
      std::array<uint32_t, lanes> words;
      for (size_t i = 0; i < lanes; i++) words[i] = (state[i] & keep) | set;
      size_t part = std::min(bytes, sizeof words);
      std::memcpy(target, words.data(), part);
      target += part;
      bytes -= part;
    }
  }
  double unit() {
    next();
    return state[0] * 0x1p-32;
  }
};

inline uint16_t half_bits(double value) {  // rounded towards zero; below 65536
  const uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(value));
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const double size = std::abs(value);
  if (size < 0x1p-14) return static_cast<uint16_t>(sign | static_cast<uint16_t>(size * 0x1p24));
  return static_cast<uint16_t>(sign | (((bits >> 23 & 255u) - 112u) << 10) | (bits >> 13 & 0x3ffu));
}

// Random magnitudes in [2^e, 2^(e+1)), whose root mean square is near `size`, with random or given signs: a mask and
// an exponent, no arithmetic. sign: 0 random, else 1 or -1.
inline void fill_row(const Tensor &tensor, std::byte *row, double size, int sign, Random &random) {
  size_t bytes = row_bytes(tensor.type, tensor.inputs);
  int exponent = static_cast<int>(std::floor(std::log2(size / 1.2)));
  uint32_t sign_bit = sign < 0 ? 1u : 0u;
  switch (tensor.type) {
    case GgmlType::f32:
      random.fill(row, bytes, sign ? 0x007fffffu : 0x807fffffu,
                  static_cast<uint32_t>(exponent + 127) << 23 | sign_bit << 31);
      break;
    case GgmlType::f16: {
      uint32_t set = static_cast<uint32_t>(exponent + 15) << 10 | sign_bit << 15;
      random.fill(row, bytes, sign ? 0x03ff03ffu : 0x83ff83ffu, set << 16 | set);
      break;
    }
    case GgmlType::bf16: {
      uint32_t set = static_cast<uint32_t>(exponent + 127) << 7 | sign_bit << 15;
      random.fill(row, bytes, sign ? 0x007f007fu : 0x807f807fu, set << 16 | set);
      break;
    }
    case GgmlType::q8_0: {  // q uniform in [-128, 127], or in [0, 127] times the sign of the scale
      random.fill(row, bytes, sign ? 0x7f7f7f7fu : ~0u, 0);
      uint16_t scale = half_bits(sign ? sign * size / 64 : size / 74);
      for (size_t block = 0; block < bytes; block += 34) std::memcpy(row + block, &scale, 2);
      break;
    }
    case GgmlType::q4_0: {  // q - 8 uniform in [-8, 7], or in [0, 7] times the sign of the scale
      random.fill(row, bytes, ~0u, sign ? 0x88888888u : 0);
      uint16_t scale = half_bits(sign ? sign * size / 3.5 : size / 4.6);
      for (size_t block = 0; block < bytes; block += 18) std::memcpy(row + block, &scale, 2);
      break;
    }
  }
}

inline void fill_rows(const Tensor &tensor, std::byte *data, int64_t begin, int64_t end, uint64_t seed) {
  Random random(seed ^ static_cast<uint64_t>(begin) * 0xd1342543de82ef95u);
  size_t stride = row_bytes(tensor.type, tensor.inputs);
  for (int64_t r = begin; r < end; r++) {
    std::byte *row = data + static_cast<size_t>(r) * stride;
    if (tensor.fill == Fill::spread) {
      fill_row(tensor, row, tensor.a, 0, random);
    } else if (tensor.fill == Fill::one_signed) {
      fill_row(tensor, row, tensor.a, random.unit() < tensor.b ? -1 : 1, random);
    } else {
      for (int64_t i = 0; i < tensor.inputs; i++) {
        float value = static_cast<float>(
            tensor.fill == Fill::constant ? tensor.a : tensor.a + (tensor.b - tensor.a) * random.unit());
        std::memcpy(row + static_cast<size_t>(i) * sizeof value, &value, sizeof value);
      }
    }
  }
}

struct Header {
  std::string bytes;
  template <class T>
  void put(T value) {
    bytes.append(reinterpret_cast<const char *>(&value), sizeof value);
  }
  void text(std::string_view value) {
    put<uint64_t>(value.size());
    bytes.append(value);
  }
  void key_text(std::string_view key, std::string_view value) {
    text(key);
    put<uint32_t>(8);
    text(value);
  }
  void key_number(std::string_view key, int64_t value) {
    text(key);
    put<uint32_t>(4);
    put<uint32_t>(static_cast<uint32_t>(value));
  }
};

// zeros: the share of ffn.key outputs that are negative, whatever the input. The inputs of ffn.key are nearly constant
// (a small scale around a bias in ln2), so that the sign of a row's weights decides.
inline std::vector<Tensor> tensors_of(const Shape &s, wkv_type type, double zeros,
                                      LowRank low_ranks = LowRank::as_in_gguf) {
  GgmlType wide = type == WKV_TYPE_F32 ? GgmlType::f32 : type == WKV_TYPE_BF16 ? GgmlType::bf16 : GgmlType::f16;
  GgmlType matrix = type == WKV_TYPE_Q8 ? GgmlType::q8_0 : type == WKV_TYPE_Q4 ? GgmlType::q4_0 : wide;
  std::vector<Tensor> list;
  auto vector = [&](std::string name, Fill fill, double a, double b = 0) {
    list.push_back({std::move(name), GgmlType::f32, s.width, 1, {s.width}, fill, a, b});
  };
  auto product = [&](std::string name, GgmlType t, int64_t outputs, int64_t inputs, double gain) {
    list.push_back({std::move(name),
                    t,
                    inputs,
                    outputs,
                    {inputs, outputs},
                    Fill::spread,
                    gain / std::sqrt(static_cast<double>(inputs)),
                    0});
  };
  list.push_back({"token_embd.weight", matrix, s.width, s.vocab_size, {s.width, s.vocab_size}, Fill::spread, 0.5, 0});
  vector("token_embd_norm.weight", Fill::constant, 1);
  vector("token_embd_norm.bias", Fill::constant, 0);
  for (int64_t layer = 0; layer < s.layers; layer++) {
    std::string blk = std::string("blk.") + std::to_string(layer) + ".";
    vector(blk + "attn_norm.weight", Fill::uniform, 0.8, 1.2);
    vector(blk + "attn_norm.bias", Fill::uniform, -0.1, 0.1);
    vector(blk + "attn_norm_2.weight", Fill::constant, 0x1p-5);
    vector(blk + "attn_norm_2.bias", Fill::constant, 0x1p-5);
    list.push_back(
        {blk + "time_mix_lerp_fused.weight", GgmlType::f32, s.width, 6, {s.width, 1, 1, 6}, Fill::uniform, 0, 1});
    vector(blk + "time_mix_w0.weight", Fill::uniform, -4, 1);
    vector(blk + "time_mix_a0.weight", Fill::uniform, -1, 1);
    vector(blk + "time_mix_k_k.weight", Fill::uniform, 0.6, 1);
    vector(blk + "time_mix_k_a.weight", Fill::uniform, 0.5, 1);
    vector(blk + "time_mix_r_k.weight", Fill::uniform, -0.1, 0.1);
    vector(blk + "time_mix_ln.weight", Fill::uniform, 0.8, 1.2);
    vector(blk + "time_mix_ln.bias", Fill::uniform, -0.1, 0.1);
    auto low_rank = [&](const char *name, GgmlType t, int64_t rank) {
      product(blk + "time_mix_" + name + "1.weight", t, rank, s.width, 1);
      product(blk + "time_mix_" + name + "2.weight", t, s.width, rank, 0.5);
    };
    low_rank("w", low_ranks == LowRank::wide ? wide : GgmlType::f32, s.rank_w);
    low_rank("a", wide, s.rank_a);
    low_rank("g", wide, s.rank_g);
    if (layer) {
      vector(blk + "time_mix_v0.weight", Fill::uniform, -1, 1);
      low_rank("v", wide, s.rank_v);
    }
    for (const char *name : {"receptance", "key", "value"})
      product(blk + "time_mix_" + name + ".weight", matrix, s.width, s.width, 1);
    product(blk + "time_mix_output.weight", matrix, s.width, s.width, 0.4);
    vector(blk + "channel_mix_lerp_k.weight", Fill::uniform, 0, 1);
    list.push_back({blk + "channel_mix_key.weight",
                    matrix,
                    s.width,
                    s.ffn_width,
                    {s.width, s.ffn_width},
                    Fill::one_signed,
                    48.0 / static_cast<double>(s.width),
                    zeros});
    product(blk + "channel_mix_value.weight", matrix, s.width, s.ffn_width, 0.2);
  }
  vector("output_norm.weight", Fill::constant, 1);
  vector("output_norm.bias", Fill::constant, 0);
  product("output.weight", matrix, s.vocab_size, s.width, 1.5);
  return list;
}

// The beginning of a GGUF file up to its list of tensors.
inline Header metadata(const Shape &shape, size_t tensors_count) {
  Header header;
  header.bytes = "GGUF";
  header.put<uint32_t>(3);
  header.put<uint64_t>(tensors_count);
  header.put<uint64_t>(10);
  header.key_text("general.architecture", "rwkv7");
  header.key_number("rwkv7.embedding_length", shape.width);
  header.key_number("rwkv7.block_count", shape.layers);
  header.key_number("rwkv7.feed_forward_length", shape.ffn_width);
  header.key_number("rwkv7.wkv.head_size", shape.head_size);
  header.key_number("rwkv7.attention.head_count", 0);
  header.key_number("rwkv7.attention.decay_lora_rank", shape.rank_w);
  header.key_number("rwkv7.attention.iclr_lora_rank", shape.rank_a);
  header.key_number("rwkv7.attention.value_residual_mix_lora_rank", shape.rank_v);
  header.key_number("rwkv7.attention.gate_lora_rank", shape.rank_g);
  return header;
}

}  // namespace random_model

// The GGUF image. type: F32, F16, BF16, Q8 or Q4 for the matrices; low-rank matrices and vectors stay wide, as in
// files that people have. zeros: the share of zeros after the squared ReLU. file: an open one that gets the image.
inline Image random_gguf(const Shape &shape, wkv_type type, double zeros, uint64_t seed, int threads,
                         LowRank low_ranks = LowRank::as_in_gguf, int file = -1) {
  using namespace random_model;
  constexpr size_t alignment = 32;
  std::vector<Tensor> tensors = tensors_of(shape, type, zeros, low_ranks);
  auto round_up = [](size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; };
  Header header = metadata(shape, tensors.size());
  size_t data_bytes = 0;
  for (Tensor &tensor : tensors) {
    tensor.offset = data_bytes;
    header.text(tensor.name);
    header.put<uint32_t>(static_cast<uint32_t>(tensor.extents.size()));
    for (int64_t extent : tensor.extents) header.put<uint64_t>(static_cast<uint64_t>(extent));
    header.put<uint32_t>(static_cast<uint32_t>(tensor.type));
    header.put<uint64_t>(tensor.offset);
    data_bytes += round_up(row_bytes(tensor.type, tensor.inputs) * static_cast<size_t>(tensor.rows));
  }
  size_t data_begin = round_up(header.bytes.size());
  Image image(data_begin + data_bytes, file);
  std::memcpy(image.data(), header.bytes.data(), header.bytes.size());

  struct Task {
    size_t tensor;
    int64_t begin, end;
  };
  std::vector<Task> tasks;
  for (size_t t = 0; t < tensors.size(); t++) {
    // rows of one task do not depend on the number of threads, so neither do the weights
    int64_t rows =
        std::max<int64_t>(1, (int64_t{4} << 20) / static_cast<int64_t>(row_bytes(tensors[t].type, tensors[t].inputs)));
    for (int64_t begin = 0; begin < tensors[t].rows; begin += rows)
      tasks.push_back({t, begin, std::min(begin + rows, tensors[t].rows)});
  }
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < tasks.size();) {
      const Tensor &tensor = tensors[tasks[i].tensor];
      fill_rows(tensor, image.data() + data_begin + tensor.offset, tasks[i].begin, tasks[i].end,
                seed * 1000003 + tasks[i].tensor);
    }
  };
  std::vector<std::jthread> workers;
  for (int i = 1; i < threads; i++) workers.emplace_back(work);
  work();
  workers.clear();
  return image;
}

}  // namespace libwkv::test
