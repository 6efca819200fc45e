// SPDX-License-Identifier: Apache-2.0
// Elementwise kernels of every set that this machine can run against the formulas in double precision. Bounds are
// stated at each test; memory ends at guard pages.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "random_matrix.h"

namespace libwkv::kernels {
namespace {

constexpr int64_t counts[] = {1, 2, 3, 7, 8, 15, 63, 64, 65, 331, 1000};
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

GuardedFloats random_floats(Maker &make, int64_t count, float scale = 1, float shift = 0) {
  GuardedFloats values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); i++) values[i] = make.normal() * scale + shift;
  return values;
}
std::vector<float> copy(GuardedFloats &values) { return {values.data(), values.data() + values.size()}; }

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double decay(double x) { return std::exp(-std::exp(-0.5) * sigmoid(x)); }

// Distance in units of the last place of the exact value, which are no smaller than those of the least normal number.
double ulps(float value, double exact) {
  const int exponent = std::max(std::ilogb(static_cast<float>(exact)), -126);
  return std::abs(value - exact) / std::ldexp(1.0, exponent - 23);
}

// Floats of both signs and all magnitudes from 1e-30 to beyond saturation, and dense where the functions bend.
std::vector<float> arguments() {
  std::vector<float> x;
  for (double magnitude = 1e-30; magnitude < 200; magnitude *= 1.01) x.push_back(static_cast<float>(magnitude));
  for (int i = 1; i < 200000; i++) x.push_back(static_cast<float>(i) * 1e-4f + 1e-6f);
  const size_t half = x.size();
  for (size_t i = 0; i < half; i++) x.push_back(-x[i]);
  return x;
}

void activate(const Table &table, Activation activation, std::vector<float> &x) {
  table.activate(activation, static_cast<int64_t>(x.size()), x.data());
}

// tanh: 3 units in the last place for every argument.
TEST(Activate, tanh_is_accurate_everywhere) {
  for (const Table *table : usable_tables()) {
    const std::vector<float> x = arguments();
    std::vector<float> y = x;
    activate(*table, Activation::tanh, y);
    double worst = 0;
    for (size_t i = 0; i < x.size(); i++) worst = std::max(worst, ulps(y[i], std::tanh(static_cast<double>(x[i]))));
    EXPECT_LE(worst, 3) << table->name;
    EXPECT_GT(worst, 0) << table->name;
  }
}

// sigmoid: 3 units in the last place; 1.3e-38 where that is more.
TEST(Activate, sigmoid_is_accurate_everywhere) {
  for (const Table *table : usable_tables()) {
    const std::vector<float> x = arguments();
    std::vector<float> y = x;
    activate(*table, Activation::sigmoid, y);
    double worst = 0;
    for (size_t i = 0; i < x.size(); i++) {
      const double exact = sigmoid(x[i]);
      if (std::abs(y[i] - exact) > 1.3e-38) worst = std::max(worst, ulps(y[i], exact));
    }
    EXPECT_LE(worst, 3) << table->name;
    EXPECT_GT(worst, 0) << table->name;
  }
}

TEST(Activate, relu_squared_is_exact) {
  for (const Table *table : usable_tables()) {
    std::vector<float> x = arguments(), y = x;
    activate(*table, Activation::relu_squared, y);
    for (size_t i = 0; i < x.size(); i++) ASSERT_EQ(y[i], x[i] > 0 ? x[i] * x[i] : 0.0f) << table->name << ", " << x[i];
  }
}

TEST(Activate, special_numbers) {
  struct Case {
    Activation activation;
    float x, y;
  };
  const Case cases[] = {{Activation::tanh, infinity, 1},
                        {Activation::tanh, -infinity, -1},
                        {Activation::tanh, 0, 0},
                        {Activation::tanh, 1e-40f, 1e-40f},
                        {Activation::tanh, 30, 1},
                        {Activation::tanh, -1e30f, -1},
                        {Activation::sigmoid, infinity, 1},
                        {Activation::sigmoid, 0, 0.5f},
                        {Activation::sigmoid, 1e30f, 1},
                        {Activation::relu_squared, infinity, infinity},
                        {Activation::relu_squared, -infinity, 0}};
  for (const Table *table : usable_tables()) {
    for (size_t count : {size_t{1}, size_t{16}, size_t{21}}) {  // whole vectors and the rest
      for (const Case &c : cases) {
        std::vector<float> x(count, c.x);
        activate(*table, c.activation, x);
        for (float y : x) EXPECT_EQ(y, c.y) << table->name << ", argument " << c.x;
      }
      for (Activation activation : {Activation::tanh, Activation::sigmoid, Activation::relu_squared}) {
        std::vector<float> x(count, nan);
        activate(*table, activation, x);
        for (float y : x) EXPECT_TRUE(std::isnan(y)) << table->name;
      }
      for (float low : {-infinity, -1e30f, -104.0f}) {
        std::vector<float> x(count, low);
        activate(*table, Activation::sigmoid, x);
        for (float y : x) EXPECT_TRUE(y >= 0 && y < 1.3e-38f) << table->name << " gives " << y;
      }
    }
  }
}

TEST(Activate, touches_count_numbers) {
  Maker make(1);
  for (int64_t count : counts) {
    for (const Table *table : usable_tables()) {
      for (Activation activation : {Activation::tanh, Activation::sigmoid, Activation::relu_squared}) {
        GuardedFloats x = random_floats(make, count + 1);
        const std::vector<float> before = copy(x);
        table->activate(activation, count, x.data() + 1);
        EXPECT_EQ(x[0], before[0]);
        const float last = x[static_cast<size_t>(count)];
        table->activate(activation, count, x.data());
        EXPECT_EQ(x[static_cast<size_t>(count)], last) << table->name << ", " << count;
        EXPECT_NE(x[0], before[0]) << table->name << ", " << count;
      }
    }
  }
}

// 2^-21 of (largest |x| / deviation + 2) * largest |weight| + largest |bias|: the mean of large numbers is rounded.
TEST(LayerNorm, follows_the_formula) {
  Maker make(2);
  for (int64_t count : counts) {
    for (float shift : {0.0f, 1000.0f}) {
      GuardedFloats x = random_floats(make, count, 1, shift), weight = random_floats(make, count);
      GuardedFloats bias = random_floats(make, count);
      double mean = 0, variance = 0, largest_x = 0, largest_weight = 0, largest_bias = 0;
      for (size_t i = 0; i < x.size(); i++) mean += x[i];
      mean /= static_cast<double>(count);
      for (size_t i = 0; i < x.size(); i++) {
        variance += (x[i] - mean) * (x[i] - mean) / static_cast<double>(count);
        largest_x = std::max(largest_x, std::abs(static_cast<double>(x[i])));
        largest_weight = std::max(largest_weight, std::abs(static_cast<double>(weight[i])));
        largest_bias = std::max(largest_bias, std::abs(static_cast<double>(bias[i])));
      }
      const double deviation = std::sqrt(variance + 1e-5f);
      const double bound = 0x1p-21 * ((largest_x / deviation + 2) * largest_weight + largest_bias);
      for (const Table *table : usable_tables()) {
        GuardedFloats y(x.size());
        table->layer_norm(count, x.data(), weight.data(), bias.data(), 1e-5f, y.data());
        for (size_t i = 0; i < x.size(); i++) {
          ASSERT_LE(std::abs(y[i] - ((x[i] - mean) / deviation * weight[i] + bias[i])), bound)
              << table->name << ", " << count << " numbers around " << shift;
        }
        GuardedFloats in_place(x.size());
        std::copy(x.data(), x.data() + count, in_place.data());
        table->layer_norm(count, in_place.data(), weight.data(), bias.data(), 1e-5f, in_place.data());
        EXPECT_EQ(copy(in_place), copy(y)) << table->name;
      }
    }
  }
}

TEST(LayerNorm, of_equal_numbers_is_the_bias) {
  for (const Table *table : usable_tables()) {
    std::vector<float> x(100, 3.0f), weight(100, 2.0f), bias(100, 0.25f);
    table->layer_norm(100, x.data(), weight.data(), bias.data(), 1e-5f, x.data());
    for (float y : x) EXPECT_EQ(y, 0.25f) << table->name;
  }
}

// Two roundings: 2^-23 of |current| + |previous - current| * |mix|, and one of the difference.
TEST(TokenShift, follows_the_formula) {
  Maker make(4);
  for (int64_t count : counts) {
    GuardedFloats current = random_floats(make, count), previous = random_floats(make, count);
    GuardedFloats mix = random_floats(make, count);
    for (const Table *table : usable_tables()) {
      GuardedFloats y(current.size());
      table->token_shift(count, current.data(), previous.data(), mix.data(), y.data());
      for (size_t i = 0; i < y.size(); i++) {
        const double now = current[i], difference = static_cast<double>(previous[i]) - now;
        ASSERT_LE(std::abs(y[i] - (now + difference * mix[i])),
                  0x1p-23 * (std::abs(now) + std::abs(difference * mix[i])))
            << table->name << ", " << count;
      }
    }
  }
}

TEST(Add, is_exact) {
  Maker make(6);
  for (int64_t count : counts) {
    GuardedFloats x = random_floats(make, count), y = random_floats(make, count);
    for (const Table *table : usable_tables()) {
      GuardedFloats sum(x.size());
      std::copy(x.data(), x.data() + count, sum.data());
      table->add(count, sum.data(), y.data());
      for (size_t i = 0; i < sum.size(); i++) ASSERT_EQ(sum[i], x[i] + y[i]) << table->name << ", " << count;
    }
  }
}

// ---- the time mix

struct MixInputs {
  GuardedFloats decay, key, value, rate, removal, value_mix, first_value, w0, a0, v0, k_k, k_a;
  MixInputs(Maker &make, int64_t width, float key_scale)
      : decay(random_floats(make, width, 3)),
        key(random_floats(make, width, key_scale)),
        value(random_floats(make, width)),
        rate(random_floats(make, width, 3)),
        removal(random_floats(make, width)),
        value_mix(random_floats(make, width, 3)),
        first_value(random_floats(make, width)),
        w0(random_floats(make, width)),
        a0(random_floats(make, width)),
        v0(random_floats(make, width)),
        k_k(random_floats(make, width)),
        k_a(random_floats(make, width)) {}
  TimeMixInputs io(int64_t head_size, bool is_first_layer) {
    return {decay.data(),
            key.data(),
            value.data(),
            rate.data(),
            removal.data(),
            is_first_layer ? nullptr : value_mix.data(),
            is_first_layer ? nullptr : first_value.data(),
            w0.data(),
            a0.data(),
            is_first_layer ? nullptr : v0.data(),
            k_k.data(),
            k_a.data(),
            head_size};
  }
};

// 2^-20 of the largest magnitude of each result's terms, (head size + 16) * 2^-24 of a unit vector's for kk.
TEST(TimeMix, inputs_follow_the_formulas) {
  constexpr int64_t heads = 3;
  for (int64_t n : {1, 3, 8, 48, 64, 65}) {
    for (float key_scale : {1.0f, 1e-20f, 0.0f}) {
      for (bool is_first_layer : {false, true}) {
        for (const Table *table : usable_tables()) {
          Maker make(static_cast<uint32_t>(n)), again(static_cast<uint32_t>(n));
          MixInputs before(make, heads * n, key_scale), after(again, heads * n, key_scale);
          const TimeMixInputs io = after.io(n, is_first_layer);
          table->time_mix_inputs(&io, 1, 3);
          const std::string what = std::string(table->name) + ", head size " + std::to_string(n);
          for (int64_t h = 0; h < heads; h++) {
            double squares = 0;
            for (int64_t i = h * n; i < (h + 1) * n; i++) {
              const size_t at = static_cast<size_t>(i);
              squares += std::pow(static_cast<double>(before.key[at]) * before.k_k[at], 2);
            }
            const double norm = std::max(std::sqrt(squares), 1e-12);
            for (int64_t i = h * n; i < (h + 1) * n; i++) {
              const size_t at = static_cast<size_t>(i);
              const double k = before.key[at], v = before.value[at];
              const double kk = k * before.k_k[at] / norm,
                           a = sigmoid(static_cast<double>(before.a0[at]) + before.rate[at]);
              const double mix = sigmoid(static_cast<double>(before.v0[at]) + before.value_mix[at]);
              if (h == 0) {  // outside of the range
                ASSERT_EQ(after.key[at], before.key[at]) << what;
                ASSERT_EQ(after.removal[at], before.removal[at]) << what;
                continue;
              }
              const double bound = 0x1p-20, unit = static_cast<double>(n + 16) * 0x1p-24;
              ASSERT_NEAR(after.removal[at], -kk, unit * std::abs(kk)) << what;
              ASSERT_NEAR(after.rate[at], kk * a, 2 * unit * std::abs(kk * a)) << what;
              ASSERT_NEAR(after.key[at], k * (1 + (a - 1) * before.k_a[at]),
                          bound * std::abs(k) * (1 + std::abs(static_cast<double>(before.k_a[at]))))
                  << what;
              ASSERT_NEAR(after.decay[at], decay(static_cast<double>(before.w0[at]) + before.decay[at]), 0x1p-22)
                  << what;
              if (is_first_layer) {
                ASSERT_EQ(after.value[at], before.value[at]) << what;
              } else {
                const double first = before.first_value[at];
                ASSERT_NEAR(after.value[at], v + (first - v) * mix, bound * (std::abs(v) + std::abs(first))) << what;
              }
            }
          }
        }
      }
    }
  }
}

// 2^-20 of the sum of magnitudes before the gate, times the gate.
TEST(TimeMix, outputs_follow_the_formula) {
  constexpr int64_t heads = 3;
  for (int64_t n : {1, 3, 8, 48, 64, 65}) {
    for (const Table *table : usable_tables()) {
      Maker make(static_cast<uint32_t>(n) + 70);
      const int64_t width = heads * n;
      GuardedFloats wkv = random_floats(make, width, 1, 2), r = random_floats(make, width),
                    k = random_floats(make, width);
      GuardedFloats v = random_floats(make, width), gate = random_floats(make, width), r_k = random_floats(make, width);
      GuardedFloats weight = random_floats(make, width), bias = random_floats(make, width);
      GuardedFloats out(static_cast<size_t>(width), 77.0f);
      const TimeMixOutputs io = {wkv.data(),    r.data(),    k.data(),   v.data(),   gate.data(),
                                 weight.data(), bias.data(), r_k.data(), out.data(), n};
      table->time_mix_outputs(&io, 0, 2);
      for (int64_t h = 0; h < heads; h++) {
        double mean = 0, variance = 0, bonus = 0, terms = 0, largest = 0;
        for (int64_t i = h * n; i < (h + 1) * n; i++) {
          const size_t at = static_cast<size_t>(i);
          mean += wkv[at] / static_cast<double>(n);
          largest = std::max(largest, std::abs(static_cast<double>(wkv[at])));
          const double product = static_cast<double>(r[at]) * k[at] * r_k[at];
          bonus += product;
          terms += std::abs(product);
        }
        for (int64_t i = h * n; i < (h + 1) * n; i++) {
          variance += std::pow(wkv[static_cast<size_t>(i)] - mean, 2) / static_cast<double>(n);
        }
        const double deviation = std::sqrt(variance + 64e-5);
        for (int64_t i = h * n; i < (h + 1) * n; i++) {
          const size_t at = static_cast<size_t>(i);
          if (h == 2) {
            ASSERT_EQ(out[at], 77.0f) << table->name;
            continue;
          }
          const double exact = ((wkv[at] - mean) / deviation * weight[at] + bias[at] + bonus * v[at]) * gate[at];
          const double size =
              (largest / deviation + 2) * std::abs(weight[at]) + std::abs(bias[at]) + terms * std::abs(v[at]);
          ASSERT_NEAR(out[at], exact, 0x1p-20 * size * std::abs(gate[at])) << table->name << ", head size " << n;
        }
      }
    }
  }
}

}  // namespace
}  // namespace libwkv::kernels
