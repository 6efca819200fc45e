// SPDX-License-Identifier: Apache-2.0
// What each sampling option does, alone and together: against a plain implementation, and by hand.
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "support/handles.h"
#include "text/plain_sampler.h"
#include "text/portable_math.h"
#include "text/race.h"

namespace libwkv::test {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();

// Options for the library and for the plain implementation, from one description.
struct Setting {
  PlainOptions plain;
  std::vector<int32_t> accepted;  // fed one by one; plain.counts says what is left of them
  double penalty_decay = 0;

  Sampler create() const {
    wkv_sampler_options o{};
    o.struct_size = sizeof o;
    o.temperature = static_cast<float>(plain.temperature);
    o.top_k = static_cast<int32_t>(plain.top_k);
    o.top_p = static_cast<float>(plain.top_p);
    o.min_p = static_cast<float>(plain.min_p);
    o.typical_p = static_cast<float>(plain.typical_p);
    o.repetition = static_cast<float>(plain.repetition);
    o.presence = static_cast<float>(plain.presence);
    o.frequency = static_cast<float>(plain.frequency);
    o.penalty_decay = static_cast<float>(penalty_decay);
    o.ids_end = static_cast<int32_t>(plain.ids_end);
    std::vector<wkv_token_bias> biases;
    for (const auto &[token, bias] : plain.biases) biases.push_back({token, static_cast<float>(bias)});
    const std::vector<int32_t> banned(plain.banned.begin(), plain.banned.end());
    const std::vector<int32_t> exempt(plain.exempt.begin(), plain.exempt.end());
    o.biases = biases.data();
    o.biases_count = biases.size();
    o.banned_tokens = banned.data();
    o.banned_tokens_count = banned.size();
    o.exempt_tokens = exempt.data();
    o.exempt_tokens_count = exempt.size();
    Sampler sampler;
    Failure failure;
    EXPECT_EQ(wkv_sampler_create(&o, sampler.out(), &failure), WKV_OK) << failure.message;
    for (const int32_t token : accepted) EXPECT_EQ(wkv_sampler_accept(sampler, token, nullptr), WKV_OK);
    return sampler;
  }
};

Logits probabilities_of(wkv_sampler *sampler, const Logits &logits) {
  Logits result(logits.size(), -1);
  Failure failure;
  EXPECT_EQ(wkv_sampler_get_probabilities(sampler, logits.data(), logits.size(), result.data(), &failure), WKV_OK)
      << failure.message;
  return result;
}

void expect_as_plain(const Setting &setting, const Logits &logits, const char *what) {
  const Logits got = probabilities_of(setting.create(), logits);
  const std::vector<double> expected = plain_probabilities(setting.plain, logits);
  size_t wrong = 0;
  for (size_t i = 0; i < logits.size(); i++)
    if (!(std::fabs(static_cast<double>(got[i]) - expected[i]) <= 1e-7 + 1e-6 * expected[i]) ||
        (got[i] > 0) != (static_cast<float>(expected[i]) > 0)) {
      if (wrong++ == 0) ADD_FAILURE() << what << ": token " << i << " has " << got[i] << ", expected " << expected[i];
    }
  EXPECT_EQ(wrong, 0u) << what;
}

Logits random_logits(size_t count, double scale, std::mt19937_64 &random) {
  Logits logits(count);
  for (float &logit : logits) {
    double sum = 0;  // roughly normal
    for (int i = 0; i < 12; i++) sum += static_cast<double>(random() >> 11) * 0x1p-53;
    logit = static_cast<float>((sum - 6) * scale);
  }
  return logits;
}

float exactly(double value) { return static_cast<float>(value); }  // options are floats: both sides round alike

TEST(SamplerOptions, each_one_alone_equals_the_plain_way) {
  std::mt19937_64 random(5);
  for (const size_t count : {1u, 2u, 7u, 50u, 1000u, 5000u})
    for (const double scale : {0.01, 1.0, 5.0, 40.0}) {
      const Logits logits = random_logits(count, scale, random);
      const auto check = [&](const char *what, auto change) {
        Setting setting;
        change(setting);
        expect_as_plain(setting, logits, what);
      };
      check("nothing", [](Setting &) {});
      for (const float temperature : {0.05f, 0.7f, 1.5f, 50.0f})
        check("temperature", [&](Setting &s) { s.plain.temperature = temperature; });
      for (const size_t top_k : {1u, 2u, 40u, 900u, 4999u, 5000u, 1000000u})
        check("top_k", [&](Setting &s) { s.plain.top_k = top_k; });
      for (const float share : {1e-6f, 0.1f, 0.5f, 0.9f, 0.999f}) {
        check("top_p", [&](Setting &s) { s.plain.top_p = share; });
        check("min_p", [&](Setting &s) { s.plain.min_p = share; });
        check("typical_p", [&](Setting &s) { s.plain.typical_p = share; });
      }
      check("ids_end", [&](Setting &s) { s.plain.ids_end = count / 2 + 1; });
      if (count < 7) continue;
      check("biases", [](Setting &s) { s.plain.biases = {{0, 2.5}, {3, -4}, {6, -INFINITY}, {1000000, 3}}; });
      check("banned", [](Setting &s) { s.plain.banned = {0, 5, 1000000}; });
      const auto penalties = [](Setting &s) {
        s.accepted = {1, 2, 2, 5, 1000000};
        s.plain.counts = {{1, 1}, {2, 2}, {5, 1}};
        s.plain.exempt = {5};
      };
      for (const float penalty : {-1.5f, 0.3f, 2.0f}) {
        check("presence", [&](Setting &s) { penalties(s), s.plain.presence = penalty; });
        check("frequency", [&](Setting &s) { penalties(s), s.plain.frequency = penalty; });
      }
      for (const float repetition : {0.5f, 1.3f})
        check("repetition", [&](Setting &s) { penalties(s), s.plain.repetition = repetition; });
    }
}

TEST(SamplerOptions, all_together_equal_the_plain_way) {
  std::mt19937_64 random(6);
  const auto uniform = [&](double low, double high) {
    return static_cast<double>(exactly(low + (high - low) * static_cast<double>(random() >> 11) * 0x1p-53));
  };
  for (int round = 0; round < 400; round++) {
    Setting s;
    if (random() % 2) s.plain.temperature = uniform(0.3, 2);
    if (random() % 2) s.plain.top_k = 1 + random() % 300;
    if (random() % 2) s.plain.typical_p = uniform(0.3, 1);
    if (random() % 2) s.plain.top_p = uniform(0.3, 1);
    if (random() % 2) s.plain.min_p = uniform(0, 0.2);
    if (random() % 2) s.plain.repetition = uniform(0.8, 1.5);
    if (random() % 2) s.plain.presence = uniform(-1, 1);
    if (random() % 2) s.plain.frequency = uniform(-1, 1);
    for (int i = 0; i < 20; i++) s.plain.biases[static_cast<int32_t>(random() % 600)] = uniform(-3, 3);
    for (int i = 0; i < 20; i++) s.plain.banned.insert(static_cast<int32_t>(random() % 600));
    for (int i = 0; i < 5; i++) s.plain.exempt.insert(static_cast<int32_t>(random() % 600));
    for (int i = 0; i < 200; i++) s.accepted.push_back(static_cast<int32_t>(random() % 600));
    for (const int32_t token : s.accepted) s.plain.counts[token]++;
    expect_as_plain(s, random_logits(500, 3, random), "all");
  }
}

TEST(SamplerOptions, a_whole_vocabulary_equals_the_plain_way) {
  std::mt19937_64 random(8);
  for (const double scale : {1.0, 4.0}) {
    const Logits logits = random_logits(65536, scale, random);
    Setting nucleus, typical, narrow;
    nucleus.plain.top_p = static_cast<double>(0.8f);
    narrow.plain.top_k = 50;
    narrow.plain.min_p = static_cast<double>(0.05f);
    expect_as_plain(nucleus, logits, "top_p");
    expect_as_plain(narrow, logits, "top_k and min_p");
    typical.plain.typical_p = static_cast<double>(0.01f);
    expect_as_plain(typical, logits, "typical_p");
  }
}

TEST(SamplerOptions, counts_fade_with_every_accepted_token) {
  Setting s;
  s.penalty_decay = 0.5;
  s.plain.presence = 1;
  s.plain.frequency = 4;
  const Logits logits = {0, 0, 0, 0, 0, 0, 0, 0};
  // After 1, 2, 1, 3 the counts are: token 1: ((1 * .5) * .5 + 1) * .5 = .625; token 2: .25; token 3: 1.
  s.accepted = {1, 2, 1, 3};
  s.plain.counts = {{1, 0.625}, {2, 0.25}, {3, 1}};
  expect_as_plain(s, logits, "faded");
  // After nine more the first counts are .5^9 of that: .625 is 0.00122 and stays, .25 is 0.00049 and is forgotten, so
  // that its presence penalty goes too; 1 is 0.00195.
  const int32_t others[] = {4, 5, 4, 5, 4, 5, 4, 5, 4};
  s.accepted.insert(s.accepted.end(), std::begin(others), std::end(others));
  double four = 0, five = 0;
  for (const int32_t token : others) {
    four = four * 0.5 + (token == 4);
    five = five * 0.5 + (token == 5);
  }
  s.plain.counts = {{1, 0.625 / 512}, {3, 1.0 / 512}, {4, four}, {5, five}};
  expect_as_plain(s, logits, "forgotten");
}

TEST(SamplerOptions, sampling_accepts_what_it_returns) {
  wkv_sampler_options o{};
  o.struct_size = sizeof o;
  o.is_greedy = 1;
  o.presence = 1.0f;
  Sampler sampler;
  ASSERT_EQ(wkv_sampler_create(&o, sampler.out(), nullptr), WKV_OK);
  const Logits logits = {0.0f, 2.5f, 2.0f, 1.0f};
  std::vector<int32_t> tokens;
  for (int i = 0; i < 5; i++) {
    int32_t token = -1;
    ASSERT_EQ(wkv_sampler_sample(sampler, logits.data(), logits.size(), &token, nullptr), WKV_OK);
    tokens.push_back(token);
  }
  // 2.5, 2; then 1.5, 1, 1 (lowest id of the equals comes first), and token 1 again
  EXPECT_EQ(tokens, (std::vector<int32_t>{1, 2, 1, 1, 1}));
}

TEST(SamplerOptions, repetition_has_the_formula_of_hugging_face) {
  Setting s;
  s.plain.repetition = 2;
  s.accepted = {0, 1};
  const Logits logits = {2.0f, -1.0f, 0.5f};
  const Logits got = probabilities_of(s.create(), logits);
  const double a = std::exp(1.0), b = std::exp(-2.0), c = std::exp(0.5);  // 2 / 2, -1 * 2, untouched
  EXPECT_NEAR(got[0], a / (a + b + c), 1e-7);
  EXPECT_NEAR(got[1], b / (a + b + c), 1e-7);
  EXPECT_NEAR(got[2], c / (a + b + c), 1e-7);
}

TEST(SamplerOptions, come_in_their_order) {
  // Probabilities .5 .25 .125 .125 before cuts.
  const Logits logits = {static_cast<float>(std::log(4)), static_cast<float>(std::log(2)), 0, 0};
  const auto check = [&](const char *what, auto change, Logits expected) {
    Setting s;
    change(s);
    const Logits got = probabilities_of(s.create(), logits);
    for (size_t i = 0; i < 4; i++) EXPECT_NEAR(got[i], expected[i], 1e-6) << what << ", token " << i;
  };
  // top_p after top_k: .5 of .75 is above .6, so one token is enough; of the whole it would be .5, and two were kept
  check("top_k, top_p", [](Setting &s) { s.plain.top_k = 2, s.plain.top_p = 0.6; }, {1, 0, 0, 0});
  check("top_p", [](Setting &s) { s.plain.top_p = 0.6; }, {2.f / 3, 1.f / 3, 0, 0});
  // min_p looks at what top_p left; its bound is relative, so only what survived both stays
  check("top_p, min_p", [](Setting &s) { s.plain.top_p = 0.8, s.plain.min_p = 0.4; }, {2.f / 3, 1.f / 3, 0, 0});
  // temperature before top_p: at .5 the probabilities are 16 4 1 1 of 22, and the first has .727
  check("temperature, top_p", [](Setting &s) { s.plain.temperature = 0.5, s.plain.top_p = 0.7; }, {1, 0, 0, 0});
  // The mean information is 1.75 bits: token 1 (2 bits) is nearest, then 0 (1 bit), then 2 and 3 (3 bits). Up to .2
  // token 1 suffices, and the likeliest stays in any case; then top_p .6 of 2/3 1/3 keeps token 0 alone.
  check("typical", [](Setting &s) { s.plain.typical_p = 0.2; }, {2.f / 3, 1.f / 3, 0, 0});
  check("typical, top_p", [](Setting &s) { s.plain.typical_p = 0.2, s.plain.top_p = 0.6; }, {1, 0, 0, 0});
  // typical after top_k: of 2/3 1/3 the mean is .918 bits, and token 0 (.585) is nearer than token 1 (1.585)
  check("top_k, typical", [](Setting &s) { s.plain.top_k = 2, s.plain.typical_p = 0.2; }, {1, 0, 0, 0});
  // bias before repetition: -0.7 + 1.7 is positive, and so is divided
  Setting s;
  s.plain.biases = {{1, 1.7}};
  s.plain.repetition = 2;
  s.accepted = {1};
  const Logits got = probabilities_of(s.create(), {0, -0.7f});
  EXPECT_NEAR(got[1] / got[0], std::exp(0.5), 1e-6);
  // presence after repetition: 3 / 2 - 1, where (3 - 1) / 2 would be 1
  s.plain.biases.clear();
  s.plain.presence = 1;
  const Logits later = probabilities_of(s.create(), {0, 3});
  EXPECT_NEAR(later[1] / later[0], std::exp(0.5), 1e-6);
}

TEST(SamplerOptions, equal_scores_go_by_rising_id) {
  Setting s;
  s.plain.top_k = 3;
  const Logits same(70000, 1.0f);
  const Logits got = probabilities_of(s.create(), same);
  for (size_t i = 0; i < same.size(); i++) ASSERT_FLOAT_EQ(got[i], i < 3 ? 1.f / 3 : 0.f) << i;
  s.plain.top_k = 0;
  s.plain.top_p = 0.5;
  const Logits half = probabilities_of(s.create(), same);
  for (size_t i = 0; i < same.size(); i++) ASSERT_EQ(half[i] > 0, i < 35000) << i;
}

TEST(SamplerOptions, infinite_scores_share_everything) {
  Setting s;
  EXPECT_EQ(probabilities_of(s.create(), {1, inf, nan, -inf, inf}), (Logits{0, 0.5f, 0, 0, 0.5f}));
  s.plain.biases = {{1, -INFINITY}};
  EXPECT_EQ(probabilities_of(s.create(), {1, inf, nan, -inf, inf}), (Logits{0, 0, 0, 0, 1}));
  s.plain.biases = {{0, INFINITY}, {3, INFINITY}};  // who is out stays out
  EXPECT_EQ(probabilities_of(s.create(), {1, 3, nan, -inf, 2}), (Logits{1, 0, 0, 0, 0}));
}

TEST(SamplerOptions, extremes_stay_in_range) {
  for (const float temperature : {1e-38f, 3e38f}) {
    Setting s;
    s.plain.temperature = temperature;
    const Logits got = probabilities_of(s.create(), {3e38f, -3e38f, 2.9e38f});
    double sum = 0;
    for (const float p : got) {
      EXPECT_TRUE(p >= 0 && p <= 1) << p;
      sum += static_cast<double>(p);
    }
    EXPECT_NEAR(sum, 1, 1e-6);
    if (temperature < 1) {
      EXPECT_EQ(got, (Logits{1, 0, 0}));
    }
  }
}

TEST(SamplerOptions, probabilities_may_replace_the_logits) {
  std::mt19937_64 random(9);
  const Logits logits = random_logits(300, 2, random);
  for (const bool is_greedy : {false, true}) {
    wkv_sampler_options o{};
    o.struct_size = sizeof o;
    o.is_greedy = is_greedy;
    o.top_p = 0.7f;
    Sampler sampler;
    ASSERT_EQ(wkv_sampler_create(&o, sampler.out(), nullptr), WKV_OK);
    Logits inside = logits;
    const Logits apart = probabilities_of(sampler, logits);
    ASSERT_EQ(wkv_sampler_get_probabilities(sampler, inside.data(), inside.size(), inside.data(), nullptr), WKV_OK);
    EXPECT_EQ(inside, apart);
    if (is_greedy) {
      EXPECT_EQ(std::count(apart.begin(), apart.end(), 1.0f), 1);
      EXPECT_EQ(std::count(apart.begin(), apart.end(), 0.0f), 299);
    }
  }
}

TEST(PortableMath, agrees_with_the_c_library) {
  double worst_exp = 0, worst_log = 0;
  for (int i = 0; i <= 700000; i++) {
    const double x = -i * 0.001 - 1e-7;
    worst_exp = std::max(worst_exp, std::fabs(portable_exp(x) / std::exp(x) - 1));
    const double y = std::exp(i * 0.001 - 350) * (1 + i * 1e-6);
    worst_log = std::max(worst_log, std::fabs(portable_log(y) - std::log(y)) / std::max(std::fabs(std::log(y)), 1e-3));
  }
  EXPECT_LT(worst_exp, 5e-16);
  EXPECT_LT(worst_log, 5e-16);
  EXPECT_EQ(portable_exp(0), 1);
  EXPECT_EQ(portable_exp(-0.0), 1);
  EXPECT_EQ(portable_log(1), 0);
  for (const double x : {-710.0, -1e300, static_cast<double>(-inf), static_cast<double>(nan)})
    EXPECT_EQ(portable_exp(x), 0) << x;
  EXPECT_GT(portable_exp(-708.0), 0);
}

}  // namespace
}  // namespace libwkv::test
