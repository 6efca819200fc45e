// SPDX-License-Identifier: Apache-2.0
// The recurrence of every kernel set that this machine can run, against the formula in double precision over a thousand
// tokens, and against itself cut in other ways.
//
// Bound: the error of y and of the state stays below (16 + head size / 2) * 2^-24 of the largest magnitude seen: a step
// rounds each number a few times and adds head-size products, and the decay forgets what older steps did wrong.
#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "random_matrix.h"

namespace libwkv::kernels {
namespace {

// Vectors as a model makes them: decay in (0.545, 1), removal a unit vector, rate that times a number in (0, 1).
struct Sequence {
  int64_t tokens, size, stride;
  GuardedFloats receptance, decay, key, value, removal, rate;

  Sequence(int64_t token_count, int64_t head_size, int64_t gap)
      : tokens(token_count),
        size(head_size),
        stride(head_size + gap),
        receptance(floats()),
        decay(floats()),
        key(floats()),
        value(floats()),
        removal(floats()),
        rate(floats()) {
    Maker make(static_cast<uint32_t>(head_size));
    for (int64_t t = 0; t < tokens; t++) {
      double squares = 0;
      for (int64_t i = 0; i < size; i++) {
        const size_t at = static_cast<size_t>(t * stride + i);
        receptance[at] = make.normal();
        key[at] = make.normal();
        value[at] = make.normal();
        removal[at] = make.normal();
        squares += removal[at] * removal[at];
        decay[at] = std::exp(-0.60653066f / (1 + std::exp(3 + make.normal())));
      }
      for (int64_t i = 0; i < size; i++) {
        const size_t at = static_cast<size_t>(t * stride + i);
        const float kk = removal[at] / static_cast<float>(std::sqrt(squares));
        removal[at] = -kk;
        rate[at] = kk / (1 + std::exp(-make.normal()));
      }
    }
  }
  size_t floats() const { return static_cast<size_t>((tokens - 1) * stride + size); }
  size_t numbers() const { return static_cast<size_t>(size * size); }
};

struct Outcome {
  GuardedFloats state, y;
  explicit Outcome(const Sequence &s) : state(s.numbers()), y(s.floats()) {
    Maker make(3);
    for (size_t i = 0; i < state.size(); i++) state[i] = make.normal();
  }
};

void advance(const Table &table, Sequence &s, int64_t first, int64_t count, Outcome &outcome) {
  const int64_t at = first * s.stride;
  table.wkv(count, s.stride, s.receptance.data() + at, s.decay.data() + at, s.key.data() + at, s.value.data() + at,
            s.removal.data() + at, s.rate.data() + at, outcome.state.data(), outcome.y.data() + at, s.size);
}

bool are_same(GuardedFloats &a, GuardedFloats &b) { return std::memcmp(a.data(), b.data(), a.size() * 4) == 0; }

constexpr int64_t head_sizes[] = {1, 2, 3, 7, 8, 16, 48, 63, 64, 65, 128};

TEST(Recurrence, follows_the_formula_for_a_thousand_tokens) {
  for (int64_t n : head_sizes) {
    Sequence s(1000, n, 0);
    Outcome start(s);
    std::vector<double> state(start.state.data(), start.state.data() + n * n), y(s.floats());
    double largest_state = 0, largest_y = 0;
    for (int64_t t = 0; t < s.tokens; t++) {
      const auto number = [&](GuardedFloats &vector, int64_t i) {
        return static_cast<double>(vector[static_cast<size_t>(t * s.stride + i)]);
      };
      for (int64_t j = 0; j < n; j++) {
        double sa = 0, sum = 0;
        for (int64_t i = 0; i < n; i++) sa += state[static_cast<size_t>(i * n + j)] * number(s.removal, i);
        for (int64_t i = 0; i < n; i++) {
          double &number_ij = state[static_cast<size_t>(i * n + j)];
          number_ij = number_ij * number(s.decay, i) + sa * number(s.rate, i) + number(s.key, i) * number(s.value, j);
          largest_state = std::max(largest_state, std::abs(number_ij));
          sum += number_ij * number(s.receptance, i);
        }
        y[static_cast<size_t>(t * s.stride + j)] = sum;
        largest_y = std::max(largest_y, std::abs(sum));
      }
    }
    const double bound = (16 + static_cast<double>(n) / 2) * 0x1p-24;
    for (const Table *table : usable_tables()) {
      Outcome outcome(s);
      advance(*table, s, 0, s.tokens, outcome);
      double worst_state = 0, worst_y = 0;
      for (size_t i = 0; i < state.size(); i++)
        worst_state = std::max(worst_state, std::abs(outcome.state[i] - state[i]));
      for (size_t i = 0; i < y.size(); i++) worst_y = std::max(worst_y, std::abs(outcome.y[i] - y[i]));
      EXPECT_LE(worst_state, bound * largest_state) << table->name << ", head size " << n;
      EXPECT_LE(worst_y, bound * largest_y) << table->name << ", head size " << n;
    }
  }
}

TEST(Recurrence, has_the_same_bits_however_tokens_are_cut) {
  for (int64_t n : head_sizes) {
    Sequence s(70, n, 5);
    for (const Table *table : usable_tables()) {
      Outcome whole(s);
      advance(*table, s, 0, s.tokens, whole);
      for (int64_t step : {1, 2, 15, 16, 17, 33, 69}) {
        Outcome cut(s);
        for (int64_t t = 0; t < s.tokens; t += step) advance(*table, s, t, std::min(step, s.tokens - t), cut);
        EXPECT_TRUE(are_same(whole.state, cut.state)) << table->name << ", head size " << n << ", by " << step;
        EXPECT_TRUE(are_same(whole.y, cut.y)) << table->name << ", head size " << n << ", by " << step;
      }
    }
  }
}

// The chains of sums are the same for any number of lanes. (The scalar set sums in double precision.)
TEST(Recurrence, simd_sets_agree_in_every_bit) {
  for (int64_t n : head_sizes) {
    Sequence s(40, n, 1);
    std::unique_ptr<Outcome> first;
    for (const Table *table : usable_tables()) {
      if (table->name == std::string("scalar")) continue;
      auto outcome = std::make_unique<Outcome>(s);
      advance(*table, s, 0, s.tokens, *outcome);
      if (first) {
        EXPECT_TRUE(are_same(first->state, outcome->state)) << table->name << ", head size " << n;
        EXPECT_TRUE(are_same(first->y, outcome->y)) << table->name << ", head size " << n;
      } else {
        first = std::move(outcome);
      }
    }
  }
}

TEST(Recurrence, leaves_gaps_between_tokens_alone) {
  Sequence s(20, 65, 7);
  for (const Table *table : usable_tables()) {
    Outcome outcome(s);
    for (size_t i = 0; i < outcome.y.size(); i++) outcome.y[i] = 99;
    advance(*table, s, 0, s.tokens, outcome);
    for (int64_t t = 0; t + 1 < s.tokens; t++) {
      for (int64_t i = s.size; i < s.stride; i++) EXPECT_EQ(outcome.y[static_cast<size_t>(t * s.stride + i)], 99.0f);
    }
  }
}

}  // namespace
}  // namespace libwkv::kernels
