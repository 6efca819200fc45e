// SPDX-License-Identifier: Apache-2.0
// Products with few vectors, of every kernel set that this machine can run, against sums in double precision and
// against the scalar set: all formats, both orders, odd shapes, ranges, zeros, and memory that ends at a guard page.
//
// Bound: |y - exact| <= (4 + inputs / 32) * 2^-23 * sum_i m_i |x_i| + 1e-37, where m_i is the magnitude that a kernel
// may add up for the weight: |w_i|, and for formats with an offset |scale * q_i| + |offset| (q4: offset = -8 scale).
// The term of `inputs` is the longest chain of additions; the constant term covers denormal products.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/random_matrix.h"

namespace libwkv::kernels {
namespace {

struct Expected {
  double value, bound;
};

Expected expected(const TestMatrix &m, int64_t o, int64_t begin, int64_t end, const float *x) {
  double sum = 0, magnitude = 0;
  for (int64_t i = begin; i < end; i++) {
    const size_t at = static_cast<size_t>(o * m.matrix.inputs + i);
    sum += m.weights[at] * x[i];
    magnitude += m.magnitudes[at] * std::abs(static_cast<double>(x[i]));
  }
  return {sum, (4 + static_cast<double>(end - begin) / 32) * 0x1p-23 * magnitude + 1e-37};
}

const Table &scalar() { return *usable_tables().back(); }

constexpr float untouched = 12345.0f;

// y of all vectors with guards around; a stride that is larger than needed.
struct Result {
  int64_t stride;
  GuardedFloats y;
  Result(int64_t outputs, int32_t vectors)
      : stride(outputs + 3), y(static_cast<size_t>((vectors - 1) * stride + outputs), untouched) {}
};

using Inputs = std::vector<std::vector<float>>;

void check(const std::string &what, const TestMatrix &m, Result &result, Result &of_scalar, const Inputs &x,
           int64_t input_begin, int64_t input_end, int64_t begin, int64_t end) {
  for (size_t v = 0; v < x.size(); v++) {
    for (int64_t o = 0; o < m.matrix.outputs; o++) {
      const size_t at = v * static_cast<size_t>(result.stride) + static_cast<size_t>(o);
      if (o < begin || o >= end) {
        ASSERT_EQ(result.y[at], untouched) << what << ": output " << o << " is outside of the range";
        continue;
      }
      const Expected e = expected(m, o, input_begin, input_end, x[v].data());
      ASSERT_LE(std::abs(result.y[at] - e.value), e.bound)
          << what << ": output " << o << " of vector " << v << " is " << result.y[at] << " instead of " << e.value;
      ASSERT_LE(std::abs(result.y[at] - of_scalar.y[at]), 2 * e.bound)
          << what << ": output " << o << " of vector " << v;
    }
  }
}

void multiply_rows(const Table &table, const Matrix &w, const Inputs &x, int64_t begin, int64_t end, Result &result) {
  const size_t floats = table.prepared_floats(w.format, w.inputs);
  GuardedFloats prepared(floats * x.size(), std::numeric_limits<float>::quiet_NaN());
  for (size_t v = 0; v < x.size(); v++) {
    GuardedFloats guarded(x[v].size());
    std::memcpy(guarded.data(), x[v].data(), x[v].size() * sizeof(float));
    table.prepare(w.format, w.inputs, guarded.data(), prepared.data() + v * floats);
  }
  table.multiply_rows(&w, begin, end, prepared.data(), static_cast<int32_t>(x.size()), result.y.data(), result.stride);
}

void multiply_columns(const Table &table, const Matrix &w, const Inputs &x, int64_t input_begin, int64_t input_end,
                      int64_t begin, int64_t end, Result &result) {
  const size_t stride = static_cast<size_t>(w.inputs) + 5;
  GuardedFloats guarded((x.size() - 1) * stride + static_cast<size_t>(w.inputs));
  for (size_t v = 0; v < x.size(); v++)
    std::memcpy(guarded.data() + v * stride, x[v].data(), x[v].size() * sizeof(float));
  table.multiply_columns(&w, input_begin, input_end, begin, end, guarded.data(), static_cast<int64_t>(stride),
                         static_cast<int32_t>(x.size()), result.y.data(), result.stride);
}

struct Shape {
  int64_t outputs, inputs;
};
constexpr Shape wide_shapes[] = {{331, 64}, {12, 9}, {9, 12}, {1, 1}, {64, 64}, {5, 257}, {33, 1030}, {70, 33}};

// Random cases of one format: shapes that are usual, odd or tiny, every number of vectors.
template <class Case>
void for_cases(Format format, Order order, const Case &run) {
  Maker make(77u + static_cast<uint32_t>(format));
  for (int32_t n = 0; n < 48; n++) {
    Shape shape{make.between(1, 150), make.between(1, 400)};
    if (is_wide(format)) {
      if (n < 16) shape = wide_shapes[n / 2];
    } else {
      shape.inputs = block * (n < 8 ? n + 1 : make.between(1, 33));  // every remainder of a group of blocks
      if (order == Order::columns && is_nibbles(format)) shape.outputs = 64 * make.between(1, 4);
    }
    const int32_t vectors = 1 + n % max_vectors;
    TestMatrix m = make.matrix(format, order, shape.outputs, shape.inputs, static_cast<size_t>(n % 3),
                               n % 2 ? static_cast<size_t>(make.between(1, 63)) : 0);
    run(make, m, vectors,
        std::string(format_names[static_cast<int>(format)]) + " " + std::to_string(shape.outputs) + " x " +
            std::to_string(shape.inputs) + ", " + std::to_string(vectors) + " vectors");
  }
}

class Products : public testing::TestWithParam<Format> {};

TEST_P(Products, rows_are_exact_within_the_bound) {
  for_cases(GetParam(), Order::rows, [](Maker &make, TestMatrix &m, int32_t vectors, const std::string &what) {
    Inputs x;
    for (int32_t v = 0; v < vectors; v++) x.push_back(make.vector(m.matrix.inputs, 0.1));
    int64_t begin = make.between(0, m.matrix.outputs - 1), end = make.between(begin, m.matrix.outputs);
    if (vectors % 2) begin = 0, end = m.matrix.outputs;
    Result reference(m.matrix.outputs, vectors);
    multiply_rows(scalar(), m.matrix, x, begin, end, reference);
    for (const Table *table : usable_tables()) {
      Result result(m.matrix.outputs, vectors);
      multiply_rows(*table, m.matrix, x, begin, end, result);
      check(std::string(table->name) + ", " + what, m, result, reference, x, 0, m.matrix.inputs, begin, end);
    }
  });
}

TEST_P(Products, columns_are_exact_within_the_bound) {
  const Format format = GetParam();
  for_cases(format, Order::columns, [format](Maker &make, TestMatrix &m, int32_t vectors, const std::string &what) {
    constexpr double zeros[] = {0, 0.5, 0.88, 1};
    const int64_t input_step = is_wide(format) ? 1 : block, output_step = is_nibbles(format) ? 64 : 1;
    Inputs x;
    for (int32_t v = 0; v < vectors; v++) x.push_back(make.vector(m.matrix.inputs, zeros[make.between(0, 3)]));
    int64_t input_begin = make.between(0, (m.matrix.inputs - 1) / input_step), input_end = m.matrix.inputs;
    if (make.between(0, 1)) input_end = make.between(input_begin, m.matrix.inputs / input_step) * input_step;
    input_begin *= input_step;
    int64_t begin = make.between(0, (m.matrix.outputs - 1) / output_step);
    int64_t end = make.between(begin, m.matrix.outputs / output_step) * output_step;
    begin *= output_step;
    if (vectors % 2) begin = input_begin = 0, end = m.matrix.outputs, input_end = m.matrix.inputs;
    Result reference(m.matrix.outputs, vectors);
    multiply_columns(scalar(), m.matrix, x, input_begin, input_end, begin, end, reference);
    for (const Table *table : usable_tables()) {
      Result result(m.matrix.outputs, vectors);
      multiply_columns(*table, m.matrix, x, input_begin, input_end, begin, end, result);
      check(std::string(table->name) + ", " + what, m, result, reference, x, input_begin, input_end, begin, end);
    }
  });
}

// A width of real models, and more inputs than any list inside a kernel holds.
TEST_P(Products, long_inputs_stay_within_the_bound) {
  const Format format = GetParam();
  Maker make(5);
  const int64_t inputs = 4096 + 192, outputs = 64;
  const Inputs x = {make.vector(inputs, 0.3), make.vector(inputs, 0.9)};
  const TestMatrix rows = make.matrix(format, Order::rows, outputs, inputs, 0, 0);
  const TestMatrix columns = make.matrix(format, Order::columns, outputs, inputs, 0, 0);
  Result of_rows(outputs, 2), of_columns(outputs, 2);
  multiply_rows(scalar(), rows.matrix, x, 0, outputs, of_rows);
  multiply_columns(scalar(), columns.matrix, x, 0, inputs, 0, outputs, of_columns);
  for (const Table *table : usable_tables()) {
    Result result(outputs, 2);
    multiply_rows(*table, rows.matrix, x, 0, outputs, result);
    check(table->name, rows, result, of_rows, x, 0, inputs, 0, outputs);
    multiply_columns(*table, columns.matrix, x, 0, inputs, 0, outputs, result);
    check(table->name, columns, result, of_columns, x, 0, inputs, 0, outputs);
  }
}

// Where every vector has a zero the weights may be anything, even NaN: nothing of them arrives.
TEST_P(Products, columns_of_zeros_are_not_read) {
  const Format format = GetParam();
  Maker make(9);
  const int64_t inputs = 320, outputs = 64;
  for (int32_t vectors = 1; vectors <= 3; vectors++) {
    TestMatrix m = make.matrix(format, Order::columns, outputs, inputs, 0, 0);
    Inputs x;
    for (int32_t v = 0; v < vectors; v++) x.push_back(make.vector(inputs, 0));
    for (int64_t i = 0; i < inputs; i++) {  // whole groups of 32 for all, since a scale is not of one input
      if (i / block % 3 == 0) continue;
      for (int32_t v = 0; v < vectors; v++) x[static_cast<size_t>(v)][static_cast<size_t>(i)] = v % 2 ? 0.0f : -0.0f;
      if (is_wide(format) || i % block == 0)
        std::memset(m.bytes->data() + static_cast<size_t>(is_wide(format) ? i : i / block) * m.matrix.stride, 0xff,
                    m.matrix.stride);
      for (int64_t o = 0; o < outputs; o++) m.weights[static_cast<size_t>(o * inputs + i)] = 0;
    }
    Result reference(outputs, vectors);
    multiply_columns(scalar(), m.matrix, x, 0, inputs, 0, outputs, reference);
    for (const Table *table : usable_tables()) {
      Result result(outputs, vectors);
      multiply_columns(*table, m.matrix, x, 0, inputs, 0, outputs, result);
      check(table->name, m, result, reference, x, 0, inputs, 0, outputs);
    }
  }
}

// However a product is cut in ranges and whatever vectors come along, a sum has the same bits.
TEST_P(Products, rows_have_the_same_bits_in_any_company) {
  Maker make(21);
  const TestMatrix m = make.matrix(GetParam(), Order::rows, 23, 352, 0, 0);
  Inputs x;
  for (int32_t v = 0; v < max_vectors; v++) x.push_back(make.vector(352, 0.1));
  for (const Table *table : usable_tables()) {
    Result alone(23, 1);
    multiply_rows(*table, m.matrix, {x[0]}, 0, 23, alone);
    for (int32_t vectors = 1; vectors <= max_vectors; vectors++) {
      for (int64_t begin = 0; begin < 4; begin++) {
        Result result(23, vectors);
        multiply_rows(*table, m.matrix, Inputs(x.begin(), x.begin() + vectors), begin, 23, result);
        for (size_t o = static_cast<size_t>(begin); o < 23; o++)
          ASSERT_EQ(std::bit_cast<uint32_t>(result.y[o]), std::bit_cast<uint32_t>(alone.y[o]))
              << table->name << ": output " << o << " with " << vectors << " vectors from " << begin;
      }
    }
  }
}

TEST_P(Products, denormal_and_signed_zero_inputs) {
  const Format format = GetParam();
  Maker make(31);
  Inputs x = {make.vector(96, 0.2), make.vector(96, 0.2)};
  for (size_t i = 0; i < 96; i++) {
    if (i % 3 == 0) x[0][i] = std::numeric_limits<float>::denorm_min() * static_cast<float>(i);
    x[1][i] = i % 2 ? 0.0f : -0.0f;
  }
  for (Order order : {Order::rows, Order::columns}) {
    const TestMatrix m = make.matrix(format, order, 64, 96, 0, 0);
    for (const Table *table : usable_tables()) {
      Result result(64, 2), reference(64, 2);
      if (order == Order::rows) {
        multiply_rows(scalar(), m.matrix, x, 0, 64, reference);
        multiply_rows(*table, m.matrix, x, 0, 64, result);
      } else {
        multiply_columns(scalar(), m.matrix, x, 0, 96, 0, 64, reference);
        multiply_columns(*table, m.matrix, x, 0, 96, 0, 64, result);
      }
      check(table->name, m, result, reference, x, 0, 96, 0, 64);
    }
  }
}

// A value that is not finite is not swallowed on the way.
TEST_P(Products, infinite_and_nan_inputs_arrive) {
  Maker make(41);
  for (float value : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    Inputs x = {make.vector(128, 0), make.vector(128, 0)};
    x[1][77] = value;
    for (Order order : {Order::rows, Order::columns}) {
      const TestMatrix m = make.matrix(GetParam(), order, 64, 128, 0, 0);
      for (const Table *table : usable_tables()) {
        Result result(64, 2);
        if (order == Order::rows)
          multiply_rows(*table, m.matrix, x, 0, 64, result);
        else
          multiply_columns(*table, m.matrix, x, 0, 128, 0, 64, result);
        for (size_t o = 0; o < 64; o++) {
          ASSERT_TRUE(std::isfinite(result.y[o])) << table->name;
          if (m.weights[o * 128 + 77] == 0 && !std::isnan(value)) continue;
          ASSERT_FALSE(std::isfinite(result.y[static_cast<size_t>(result.stride) + o]))
              << table->name << ": output " << o;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(formats, Products, testing::ValuesIn(all_formats), [](const auto &parameter) {
  return std::string(format_names[static_cast<int>(parameter.param)]);
});

TEST(Tables, are_complete_and_of_this_version) {
  for (const Table *const *table = tables(); *table; table++) {
    EXPECT_EQ((*table)->table_size, sizeof(Table));
    EXPECT_EQ((*table)->table_version, kernel_table_version);
    EXPECT_TRUE((*table)->is_usable && (*table)->prepared_floats && (*table)->prepare && (*table)->multiply_rows &&
                (*table)->multiply_columns && (*table)->multiply_scratch_floats && (*table)->multiply &&
                (*table)->wkv && (*table)->layer_norm && (*table)->token_shift && (*table)->activate && (*table)->add &&
                (*table)->time_mix_inputs && (*table)->time_mix_outputs)
        << (*table)->name;
  }
  EXPECT_STREQ(scalar().name, "scalar");
}

}  // namespace
}  // namespace libwkv::kernels
