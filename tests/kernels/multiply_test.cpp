// SPDX-License-Identifier: Apache-2.0
// Products with many tokens, of every kernel set that this machine can run: the bits of chains of fused multiply-adds
// over blocks of inputs, however the work is cut, on memory that ends at guard pages.
//
// The chains themselves are compared with sums in double precision: |y - exact| <= inputs * 2^-24 * sum_i m_i |x_i|
// (one rounding a step) + the same once more for the rounding of affine weights, m_i as random_matrix.h has it.
#include <algorithm>
#include <bit>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "random_matrix.h"

namespace libwkv::kernels {
namespace {

constexpr float untouched = 12345.0f;

struct Shape {
  int64_t outputs, inputs;
};
// Every size of {1, 2, 3, 7, 63, 64, 65, 331, 1000} on both sides, and a block of inputs with a rest.
constexpr Shape shapes[] = {{1, 1},    {2, 3},    {3, 2},     {7, 7},     {63, 64},  {64, 63}, {65, 65},  {331, 7},
                            {64, 331}, {65, 256}, {63, 1000}, {1000, 63}, {331, 65}, {1, 513}, {130, 257}};
constexpr int64_t token_counts[] = {1, 2, 5, 6, 7, 13, 64, 65};
constexpr int64_t most_tokens = 65;

struct Activations {
  int64_t inputs, stride;
  GuardedFloats values;
  Activations(Maker &make, int64_t tokens, int64_t width)
      : inputs(width), stride(width + 3), values(static_cast<size_t>((tokens - 1) * stride + width)) {
    const std::vector<float> random = make.vector(static_cast<int64_t>(values.size()), 0.1);
    std::copy(random.begin(), random.end(), values.data());
  }
  const float *token(int64_t t) { return values.data() + t * stride; }
};

struct Product {
  int64_t outputs, stride;
  GuardedFloats values;
  Product(int64_t tokens, int64_t count)
      : outputs(count), stride(count + 5), values(static_cast<size_t>((tokens - 1) * stride + count), untouched) {}
  float &at(int64_t t, int64_t o) { return values[static_cast<size_t>(t * stride + o)]; }
};

void multiply(const Table &table, const Matrix &w, int64_t begin, int64_t end, Activations &x, int64_t first_token,
              int64_t tokens, Product &y) {
  const size_t floats = (table.multiply_scratch_floats() + 15) / 16 * 16;  // the guard page comes right behind
  GuardedFloats scratch(floats, std::numeric_limits<float>::quiet_NaN());
  table.multiply(&w, begin, end, x.token(first_token), x.stride, tokens, y.values.data(), y.stride, scratch.data());
}

// What the table promises, in the plainest words.
float chains(const TestMatrix &m, int64_t o, const float *x) {
  float total = 0;
  for (int64_t first = 0; first < m.matrix.inputs; first += kernels::sum_block) {
    float sum = 0;
    for (int64_t i = first; i < std::min(first + kernels::sum_block, m.matrix.inputs); i++) {
      sum = std::fma(static_cast<float>(m.weights[static_cast<size_t>(o * m.matrix.inputs + i)]), x[i], sum);
    }
    total = first == 0 ? sum : total + sum;
  }
  return total;
}

bool same_bits(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }

template <class Case>
void for_matrices(Format format, const Case &run) {
  Maker make(5u + static_cast<uint32_t>(format));
  for (Order order : {Order::rows, Order::columns}) {
    for (const Shape &shape : shapes) {
      Shape fitting = shape;
      if (!is_wide(format)) fitting.inputs = (shape.inputs + block - 1) / block * block;
      if (is_nibbles(format) && order == Order::columns) fitting.outputs = (shape.outputs + 63) / 64 * 64;
      const TestMatrix m =
          make.matrix(format, order, fitting.outputs, fitting.inputs, static_cast<size_t>(make.between(0, 3)),
                      static_cast<size_t>(make.between(0, 63)));
      run(make, m,
          std::string(order == Order::rows ? "rows " : "columns ") + std::to_string(fitting.outputs) + " x " +
              std::to_string(fitting.inputs));
    }
  }
}

class Multiply : public testing::TestWithParam<Format> {};

TEST_P(Multiply, every_output_is_the_same_chains_for_any_number_of_tokens) {
  for_matrices(GetParam(), [](Maker &make, const TestMatrix &m, const std::string &what) {
    Activations x(make, most_tokens, m.matrix.inputs);
    Product expected(most_tokens, m.matrix.outputs);
    for (int64_t t = 0; t < most_tokens; t++) {
      for (int64_t o = 0; o < m.matrix.outputs; o++) {
        expected.at(t, o) = chains(m, o, x.token(t));
        double exact = 0, magnitude = 0;
        for (int64_t i = 0; i < m.matrix.inputs; i++) {
          const size_t at = static_cast<size_t>(o * m.matrix.inputs + i);
          exact += m.weights[at] * x.token(t)[i];
          magnitude += m.magnitudes[at] * std::abs(static_cast<double>(x.token(t)[i]));
        }
        ASSERT_LE(std::abs(expected.at(t, o) - exact),
                  static_cast<double>(m.matrix.inputs + 1) * 0x1p-24 * magnitude + 1e-37);
      }
    }
    for (const Table *table : usable_tables()) {
      for (int64_t tokens : token_counts) {
        Product y(tokens, m.matrix.outputs);
        multiply(*table, m.matrix, 0, m.matrix.outputs, x, 0, tokens, y);
        for (int64_t t = 0; t < tokens; t++) {
          for (int64_t o = 0; o < m.matrix.outputs; o++) {
            ASSERT_TRUE(same_bits(y.at(t, o), expected.at(t, o)))
                << table->name << ", " << what << ", " << tokens << " tokens: output " << o << " of token " << t
                << " is " << y.at(t, o) << " instead of " << expected.at(t, o);
          }
        }
      }
    }
  });
}

TEST_P(Multiply, cuts_of_outputs_and_tokens_give_the_same_bits_and_touch_nothing_else) {
  for_matrices(GetParam(), [](Maker &make, const TestMatrix &m, const std::string &what) {
    const int64_t outputs = m.matrix.outputs;
    Activations x(make, most_tokens, m.matrix.inputs);
    for (const Table *table : usable_tables()) {
      Product whole(most_tokens, outputs);
      multiply(*table, m.matrix, 0, outputs, x, 0, most_tokens, whole);
      for (int n = 0; n < 6; n++) {
        const int64_t begin = 64 * make.between(0, (outputs - 1) / 64), end = make.between(begin + 1, outputs);
        const int64_t first = make.between(0, most_tokens - 1), tokens = make.between(1, most_tokens - first);
        Product part(tokens, outputs);
        multiply(*table, m.matrix, begin, end, x, first, tokens, part);
        for (int64_t t = 0; t < tokens; t++) {
          for (int64_t o = 0; o < outputs; o++) {
            const float expected = o < begin || o >= end ? untouched : whole.at(first + t, o);
            ASSERT_TRUE(same_bits(part.at(t, o), expected))
                << table->name << ", " << what << ", outputs [" << begin << ", " << end << "), " << tokens
                << " tokens from " << first << ": output " << o << " of token " << first + t;
          }
        }
      }
    }
  });
}

TEST_P(Multiply, nan_of_one_token_stays_there) {
  const Format format = GetParam();
  Maker make(50u + static_cast<uint32_t>(format));
  const TestMatrix m = make.matrix(format, Order::rows, 70, 320, 0, 1);
  Activations x(make, 20, 320);
  x.values[static_cast<size_t>(9 * x.stride + 5)] = std::numeric_limits<float>::quiet_NaN();
  for (const Table *table : usable_tables()) {
    Product y(20, 70);
    multiply(*table, m.matrix, 0, 70, x, 0, 20, y);
    for (int64_t t = 0; t < 20; t++) {
      for (int64_t o = 0; o < 70; o++) ASSERT_EQ(std::isnan(y.at(t, o)), t == 9) << table->name << ", token " << t;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(formats, Multiply, testing::ValuesIn(all_formats), [](const auto &parameter) {
  return std::string(format_names[static_cast<int>(parameter.param)]);
});

// More tokens, outputs and inputs than any block of the loops holds.
TEST(MultiplyBlocks, thousands_of_tokens_are_as_one) {
  constexpr int64_t tokens = 2100, outputs = 200, inputs = 600;
  Maker make(9);
  const TestMatrix m = make.matrix(Format::f16, Order::rows, outputs, inputs, 2, 3);
  Activations x(make, tokens, inputs);
  for (const Table *table : usable_tables()) {
    if (table->name == std::string("scalar")) continue;  // has no blocks, and is slow
    Product y(tokens, outputs);
    multiply(*table, m.matrix, 0, outputs, x, 0, tokens, y);
    for (int64_t t : {0, 1, 500, 1023, 1024, 1025, 2047, 2048, 2099}) {
      for (int64_t o = 0; o < outputs; o++) ASSERT_TRUE(same_bits(y.at(t, o), chains(m, o, x.token(t)))) << table->name;
    }
  }
}

}  // namespace
}  // namespace libwkv::kernels
