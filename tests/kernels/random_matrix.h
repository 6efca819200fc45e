// SPDX-License-Identifier: Apache-2.0
// What the kernel tests share: memory that ends at a guard page, and random matrices in every format and order with
// their exact values beside them.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <utility>
#include <vector>

#include "../../kernels/table.h"
#include "base/float_types.h"

namespace libwkv::kernels {

inline constexpr Format all_formats[] = {Format::f32, Format::f16,       Format::bf16,     Format::q8,
                                         Format::q4,  Format::q4_affine, Format::q8_affine};
inline constexpr const char *format_names[] = {"f32", "f16", "bf16", "q8", "q4", "q4_affine", "q8_affine"};

inline bool is_wide(Format format) { return format == Format::f32 || format == Format::f16 || format == Format::bf16; }
inline bool is_nibbles(Format format) { return format == Format::q4 || format == Format::q4_affine; }

// Bytes that end exactly where reading further is a fault.
class GuardedBytes {
 public:
  explicit GuardedBytes(size_t bytes) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t pages = (bytes + page - 1) / page * page;
    mapped_bytes_ = pages + page;
    mapped_ = static_cast<std::byte *>(
        mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (mapped_ == MAP_FAILED) throw std::bad_alloc();
    mprotect(mapped_ + pages, page, PROT_NONE);
    data_ = mapped_ + pages - bytes;
  }
  GuardedBytes(GuardedBytes &&other) noexcept
      : mapped_(std::exchange(other.mapped_, nullptr)), data_(other.data_), mapped_bytes_(other.mapped_bytes_) {}
  GuardedBytes &operator=(GuardedBytes &&) = delete;
  ~GuardedBytes() {
    if (mapped_) munmap(mapped_, mapped_bytes_);
  }
  std::byte *data() { return data_; }

 private:
  std::byte *mapped_, *data_;
  size_t mapped_bytes_;
};

class GuardedFloats {
 public:
  explicit GuardedFloats(size_t count, float value = 0) : bytes_(count * sizeof(float)), count_(count) {
    for (size_t i = 0; i < count; i++) data()[i] = value;
  }
  float *data() { return reinterpret_cast<float *>(bytes_.data()); }
  float &operator[](size_t i) { return data()[i]; }
  size_t size() const { return count_; }

 private:
  GuardedBytes bytes_;
  size_t count_;
};

template <class T>
void put(std::byte *&at, T value) {
  std::memcpy(at, &value, sizeof value);
  at += sizeof value;
}

// A random matrix in one format and order, with its exact values beside it.
struct TestMatrix {
  Matrix matrix{};
  std::unique_ptr<GuardedBytes> bytes;
  std::vector<double> weights;     // [outputs][inputs]
  std::vector<double> magnitudes;  // m of the bound
};

struct Block {
  float scale[2], offset;
  int q[32];
};

class Maker {
 public:
  explicit Maker(uint32_t seed) : random_(seed) {}

  int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }
  float normal() { return std::normal_distribution<float>()(random_); }

  // padding: bytes between rows; shift: bytes behind the data, so that it has another alignment.
  TestMatrix matrix(Format format, Order order, int64_t outputs, int64_t inputs, size_t padding, size_t shift) {
    TestMatrix m;
    m.weights.resize(static_cast<size_t>(outputs * inputs));
    m.magnitudes.resize(m.weights.size());
    const int64_t lines = order == Order::rows ? outputs : is_wide(format) ? inputs : inputs / block;
    const size_t line_bytes = bytes_of_line(format, order, outputs, inputs), stride = line_bytes + padding;
    const size_t total = static_cast<size_t>(lines - 1) * stride + line_bytes + shift;
    m.bytes = std::make_unique<GuardedBytes>(total);
    m.matrix = {m.bytes->data(), outputs, inputs, stride, format, order};
    for (int64_t line = 0; line < lines; line++) {
      std::byte *at = m.bytes->data() + static_cast<size_t>(line) * stride;
      if (is_wide(format))
        wide_line(m, line, at);
      else if (order == Order::rows)
        block_line(m, line, at);
      else
        block_column(m, line, at);
    }
    return m;
  }

  std::vector<float> vector(int64_t count, double zeros) {
    std::vector<float> x(static_cast<size_t>(count));
    std::bernoulli_distribution is_zero(zeros);
    for (float &value : x) value = is_zero(random_) ? (between(0, 1) ? 0.0f : -0.0f) : normal();
    return x;
  }

 private:
  static size_t bytes_of_line(Format format, Order order, int64_t outputs, int64_t inputs) {
    const int64_t along = order == Order::rows ? inputs : outputs;
    if (is_wide(format)) return static_cast<size_t>(along) * (format == Format::f32 ? 4 : 2);
    constexpr int64_t block_bytes[] = {0, 0, 0, 34, 18, 24, 44};
    const int64_t bytes = block_bytes[static_cast<int>(format)];
    return static_cast<size_t>(order == Order::rows ? inputs / block * bytes : outputs * bytes);
  }

  void set(TestMatrix &m, int64_t o, int64_t i, double weight, double magnitude) {
    const size_t at = static_cast<size_t>(o * m.matrix.inputs + i);
    m.weights[at] = weight;
    m.magnitudes[at] = magnitude;
  }

  void wide_line(TestMatrix &m, int64_t line, std::byte *at) {
    const bool rows = m.matrix.order == Order::rows;
    for (int64_t i = 0; i < (rows ? m.matrix.inputs : m.matrix.outputs); i++) {
      float value = normal();
      if (between(0, 30) == 0) value *= 0x1p-16f;  // denormal in f16
      if (between(0, 60) == 0) value = -0.0f;
      if (m.matrix.format == Format::f32) {
        if (between(0, 60) == 0) value = 0x1p-130f;
        put(at, value);
      } else if (m.matrix.format == Format::f16) {
        const uint16_t bits = f16_from_float(value);
        value = float_from_f16(bits);
        put(at, bits);
      } else {
        const uint16_t bits = bf16_from_float(value);
        value = float_from_bf16(bits);
        put(at, bits);
      }
      if (rows)
        set(m, line, i, value, std::abs(value));
      else
        set(m, i, line, value, std::abs(value));
    }
  }

  Block make_block(Format format) {
    Block b;
    for (float &scale : b.scale) {
      scale = normal() * 0.1f;
      if (format == Format::q8 || format == Format::q4) {
        if (between(0, 20) == 0) scale *= 0x1p-14f;
        scale = float_from_f16(f16_from_float(scale));
      }
    }
    b.offset = format == Format::q4_affine || format == Format::q8_affine ? normal() : 0;
    for (int &q : b.q) q = static_cast<int>(is_nibbles(format) ? between(0, 15) : between(-128, 127));
    return b;
  }
  void set_block(TestMatrix &m, int64_t o, int64_t i, const Block &b) {
    for (int j = 0; j < 32; j++) {
      double scale = b.scale[0], offset = b.offset;
      if (m.matrix.format == Format::q4) offset = -8 * scale;
      if (m.matrix.format == Format::q8_affine) scale = b.scale[j / 16];
      set(m, o, i + j, scale * b.q[j] + offset, std::abs(scale * b.q[j]) + std::abs(offset));
    }
  }

  void block_line(TestMatrix &m, int64_t o, std::byte *at) {
    const Format format = m.matrix.format;
    for (int64_t i = 0; i < m.matrix.inputs; i += block) {
      const Block b = make_block(format);
      set_block(m, o, i, b);
      if (format == Format::q8 || format == Format::q4) {
        put(at, f16_from_float(b.scale[0]));
      } else {
        put(at, b.scale[0]);
        if (format == Format::q8_affine) put(at, b.scale[1]);
        put(at, b.offset);
      }
      if (is_nibbles(format))
        for (int j = 0; j < 16; j++) put(at, static_cast<uint8_t>(b.q[j] | b.q[j + 16] << 4));
      else
        for (int q : b.q) put(at, static_cast<int8_t>(q));
    }
  }

  void block_column(TestMatrix &m, int64_t group, std::byte *at) {
    const Format format = m.matrix.format;
    const size_t outputs = static_cast<size_t>(m.matrix.outputs);
    std::vector<Block> blocks(outputs);
    for (size_t o = 0; o < outputs; o++) {
      blocks[o] = make_block(format);
      set_block(m, static_cast<int64_t>(o), group * block, blocks[o]);
    }
    if (format == Format::q8 || format == Format::q4) {
      for (const Block &b : blocks) put(at, f16_from_float(b.scale[0]));
    } else {
      for (const Block &b : blocks) put(at, b.scale[0]);
      if (format == Format::q8_affine)
        for (const Block &b : blocks) put(at, b.scale[1]);
      for (const Block &b : blocks) put(at, b.offset);
    }
    for (int j = 0; j < 32; j++) {
      if (is_nibbles(format)) {
        for (size_t tile = 0; tile < outputs; tile += 64)
          for (size_t o = tile; o < tile + 32; o++)
            put(at, static_cast<uint8_t>(blocks[o].q[j] | blocks[o + 32].q[j] << 4));
      } else {
        for (const Block &b : blocks) put(at, static_cast<int8_t>(b.q[j]));
      }
    }
  }

  std::mt19937 random_;
};

inline std::vector<const Table *> usable_tables() {
  std::vector<const Table *> usable;
  for (const Table *const *table = tables(); *table; table++) {
    if ((*table)->is_usable()) usable.push_back(*table);
  }
  return usable;
}

}  // namespace libwkv::kernels
