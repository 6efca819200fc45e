// SPDX-License-Identifier: Apache-2.0
// Draws: their distribution, that they repeat, and that a failure changes nothing.
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "api/handles.h"
#include "support/handles.h"
#include "text/plain_sampler.h"
#include "text/random.h"
#include "text/sampler.h"

namespace libwkv::test {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();

wkv_sampler_options with_seed(uint64_t seed) {
  wkv_sampler_options o{};
  o.struct_size = sizeof o;
  o.seed = seed;
  return o;
}

Sampler create(const wkv_sampler_options &options) {
  Sampler sampler;
  Failure failure;
  EXPECT_EQ(wkv_sampler_create(&options, sampler.out(), &failure), WKV_OK) << failure.message;
  return sampler;
}

int32_t sample(wkv_sampler *sampler, const Logits &logits) {
  int32_t token = -1;
  Failure failure;
  EXPECT_EQ(wkv_sampler_sample(sampler, logits.data(), logits.size(), &token, &failure), WKV_OK) << failure.message;
  return token;
}

std::vector<int32_t> samples(wkv_sampler *sampler, const Logits &logits, size_t count) {
  std::vector<int32_t> tokens;
  while (tokens.size() < count) tokens.push_back(sample(sampler, logits));
  return tokens;
}

// Exact in float on every platform.
Logits stepped_logits(size_t count) {
  Logits logits(count);
  uint32_t state = 12345;
  for (float &logit : logits) {
    state = state * 1664525u + 1013904223u;
    logit = static_cast<float>(state >> 20) / 512.0f - 4.0f;
  }
  return logits;
}

TEST(Random, gives_the_published_sequences) {
  Random random(0);
  random.state = {1, 2, 3, 4};
  for (const uint64_t expected : {uint64_t{11520}, uint64_t{0}, uint64_t{1509978240}, uint64_t{1215971899390074240},
                                  uint64_t{1216172134540287360}, uint64_t{607988272756665600}})
    EXPECT_EQ(random.next(), expected);
  // splitmix64 from 1234567
  EXPECT_EQ(Random(1234567).state, (std::array<uint64_t, 4>{6457827717110365317u, 3203168211198807973u,
                                                            9817491932198370423u, 4593380528125082431u}));
  random.state = {0, uint64_t{1} << 63, 0, 0};
  for (int i = 0; i < 1000; i++) {
    const double u = random.uniform();
    EXPECT_TRUE(u >= 0 && u < 1) << u;
  }
}

struct Distribution {
  const char *name;
  float temperature = 0, top_p = 0, min_p = 0, typical_p = 0;
  int32_t top_k = 0;
};

class SamplerDistribution : public testing::TestWithParam<Distribution> {};

// 200000 draws against the plain implementation's probabilities, chi-square at significance 1e-4 (z = 3.72); the seeds
// are fixed, so the outcome is too.
TEST_P(SamplerDistribution, is_the_one_described) {
  Logits logits(40);
  for (size_t i = 0; i < logits.size(); i++) logits[i] = 2.0f * std::sin(static_cast<float>(i * i));
  wkv_sampler_options o = with_seed(77);
  o.temperature = GetParam().temperature;
  o.top_p = GetParam().top_p;
  o.min_p = GetParam().min_p;
  o.typical_p = GetParam().typical_p;
  o.top_k = GetParam().top_k;
  PlainOptions plain;
  if (o.temperature > 0) plain.temperature = static_cast<double>(o.temperature);
  plain.top_k = static_cast<size_t>(o.top_k);
  if (o.top_p > 0) plain.top_p = static_cast<double>(o.top_p);
  if (o.typical_p > 0) plain.typical_p = static_cast<double>(o.typical_p);
  plain.min_p = static_cast<double>(o.min_p);
  const std::vector<double> expected = plain_probabilities(plain, logits);
  const Sampler sampler = create(o);
  std::vector<uint64_t> draws(logits.size());
  for (int i = 0; i < 200000; i++) draws[static_cast<size_t>(sample(sampler, logits))]++;
  EXPECT_LT(chi_square_z(draws, expected), 3.72);
  if (std::string(GetParam().name) != "plain") return;
  // The test would notice a temperature that is 3 % off.
  plain.temperature = 1.03;
  EXPECT_GT(chi_square_z(draws, plain_probabilities(plain, logits)), 3.72);
}

INSTANTIATE_TEST_SUITE_P(Options, SamplerDistribution,
                         testing::Values(Distribution{"plain"}, Distribution{"cool", 0.6f}, Distribution{"hot", 3},
                                         Distribution{"top_k", 0, 0, 0, 0, 7}, Distribution{"top_p", 0, 0.8f},
                                         Distribution{"min_p", 0, 0, 0.1f}, Distribution{"typical", 0, 0, 0, 0.5f},
                                         Distribution{"all", 1.5f, 0.9f, 0.05f, 0.95f, 30}),
                         [](const auto &instance) { return std::string(instance.param.name); });

TEST(Sampler, many_tokens_in_one_bucket_are_drawn_evenly) {
  const Logits same(2000, -3.0f);
  const Sampler sampler = create(with_seed(4));
  std::vector<uint64_t> draws(same.size());
  for (int i = 0; i < 40000; i++) draws[static_cast<size_t>(sample(sampler, same))]++;
  EXPECT_LT(chi_square_z(draws, std::vector<double>(same.size(), 1.0 / 2000)), 3.72);
}

// The promise: these numbers never change, on any platform.
TEST(Sampler, gives_the_recorded_tokens) {
  const Logits logits = stepped_logits(3000);
  wkv_sampler_options o = with_seed(2024);
  EXPECT_EQ(samples(create(o), logits, 12),
            (std::vector<int32_t>{1146, 645, 2605, 2244, 1708, 1134, 1511, 866, 1003, 1464, 2467, 2303}));
  o.temperature = 0.7f;
  o.top_p = 0.6f;
  EXPECT_EQ(samples(create(o), logits, 12),
            (std::vector<int32_t>{2016, 1963, 426, 198, 2269, 124, 2766, 1499, 1302, 1495, 2487, 1149}));
  o.top_k = 100;
  o.typical_p = 0.9f;
  o.min_p = 0.2f;
  o.repetition = 1.2f;
  o.presence = 0.5f;
  o.frequency = 0.25f;
  o.penalty_decay = 0.99f;
  EXPECT_EQ(samples(create(o), logits, 12),
            (std::vector<int32_t>{1191, 1465, 1533, 2263, 1608, 470, 198, 1547, 665, 2016, 2165, 2732}));
  o.is_greedy = 1;
  EXPECT_EQ(samples(create(o), logits, 12),
            (std::vector<int32_t>{116, 1612, 1191, 1399, 707, 1533, 2424, 1495, 2016, 1367, 2263, 426}));
}

TEST(Sampler, repeats_with_the_same_seed_and_only_then) {
  const Logits logits = stepped_logits(1000);
  const Sampler a = create(with_seed(0)), b = create(with_seed(0)), c = create(with_seed(1));
  Sampler by_default;
  ASSERT_EQ(wkv_sampler_create(nullptr, by_default.out(), nullptr), WKV_OK);
  const auto first = samples(a, logits, 50);
  EXPECT_EQ(samples(b, logits, 50), first);
  EXPECT_EQ(samples(by_default, logits, 50), first);
  EXPECT_NE(samples(c, logits, 50), first);
  EXPECT_NE(samples(a, logits, 50), first);
  ASSERT_EQ(wkv_sampler_reset(a, 0, nullptr), WKV_OK);
  EXPECT_EQ(samples(a, logits, 50), first);
  ASSERT_EQ(wkv_sampler_reset(a, 1, nullptr), WKV_OK);
  EXPECT_NE(samples(a, logits, 50), first);
}

TEST(Sampler, reset_forgets_accepted_tokens) {
  wkv_sampler_options o = with_seed(3);
  o.presence = 100;
  o.is_greedy = 1;
  const Sampler sampler = create(o);
  const Logits logits = {1, 2, 3};
  EXPECT_EQ(samples(sampler, logits, 3), (std::vector<int32_t>{2, 1, 0}));
  ASSERT_EQ(wkv_sampler_reset(sampler, 3, nullptr), WKV_OK);
  EXPECT_EQ(samples(sampler, logits, 3), (std::vector<int32_t>{2, 1, 0}));
}

TEST(Sampler, greedy_takes_the_highest_and_the_lowest_id_of_equals) {
  wkv_sampler_options o = with_seed(0);
  o.is_greedy = 1;
  const Sampler plain = create(o);
  const wkv_token_bias far_away = {1 << 30, 1};  // makes the sampler work on a copy
  o.biases = &far_away;
  o.biases_count = 1;
  const Sampler edited = create(o);
  for (const size_t count : {1u, 5u, 16u, 17u, 1023u, 1024u, 1025u, 5000u})
    for (size_t best = 0; best < count; best += count < 20 ? 1 : 97) {
      Logits logits(count, -5.0f);
      logits[best] = -1.0f;
      logits[count - 1] = -1.0f;
      if (best > 0) logits[best - 1] = nan;
      EXPECT_EQ(sample(plain, logits), static_cast<int32_t>(best));
      EXPECT_EQ(sample(edited, logits), static_cast<int32_t>(best));
    }
  EXPECT_EQ(sample(plain, {nan, -inf, -3e38f, nan}), 2);
  EXPECT_EQ(sample(plain, {nan, 5, inf, inf}), 2);
}

TEST(Sampler, never_chooses_what_is_out_of_the_race) {
  wkv_sampler_options o = with_seed(6);
  const int32_t banned[] = {1, 2, 900};
  const wkv_token_bias biases[] = {{3, -inf}};
  o.banned_tokens = banned;
  o.banned_tokens_count = 3;
  o.biases = biases;
  o.biases_count = 1;
  o.ids_end = 6;
  for (const int32_t is_greedy : {0, 1}) {
    o.is_greedy = is_greedy;
    const Sampler sampler = create(o);
    for (int i = 0; i < 300; i++) {
      const int32_t token = sample(sampler, {0, 50, 50, 50, nan, 0.5f, 60, 70});
      EXPECT_TRUE(token == 0 || token == 5) << token;
    }
  }
  o.ids_end = 1;  // id 0, the end of text, stays in
  EXPECT_EQ(sample(create(o), {0, 0, 0, 0, 0, 0, 0, 0}), 0);
}

TEST(Sampler, a_failure_changes_nothing) {
  const Logits logits = stepped_logits(100), empty(100, nan), minus(100, -inf);
  wkv_sampler_options o = with_seed(9);
  o.presence = 0.5f;
  for (const int32_t is_greedy : {0, 1}) {
    o.is_greedy = is_greedy;
    const Sampler sampler = create(o), twin = create(o);
    for (int i = 0; i < 20; i++) {
      int32_t token = -5;
      Failure failure;
      EXPECT_EQ(wkv_sampler_sample(sampler, empty.data(), 100, &token, &failure), WKV_INVALID);
      EXPECT_NE(std::string(failure.message).find("no token is left"), std::string::npos);
      EXPECT_EQ(wkv_sampler_sample(sampler, minus.data(), 100, &token, &failure), WKV_INVALID);
      EXPECT_EQ(wkv_sampler_sample(sampler, logits.data(), 0, &token, &failure), WKV_INVALID);
      EXPECT_EQ(wkv_sampler_accept(sampler, -1, &failure), WKV_INVALID);
      Logits untouched(100, 7);
      EXPECT_EQ(wkv_sampler_get_probabilities(sampler, empty.data(), 100, untouched.data(), &failure), WKV_INVALID);
      EXPECT_EQ(untouched, Logits(100, 7));
      EXPECT_EQ(token, -5);
      Logits ignored(100);
      EXPECT_EQ(wkv_sampler_get_probabilities(sampler, logits.data(), 100, ignored.data(), &failure), WKV_OK);
      EXPECT_EQ(sample(sampler, logits), sample(twin, logits));
    }
  }
}

TEST(Sampler, choosing_is_not_yet_accepting) {
  wkv_sampler_options o = with_seed(9);
  o.frequency = 0.5f;
  const Logits logits = stepped_logits(100);
  libwkv::Sampler sampler(read_sampler_options(o), 9), twin(read_sampler_options(o), 9);
  for (int i = 0; i < 50; i++) {
    const auto choice = sampler.choose(logits);
    EXPECT_EQ(sampler.choose(logits).token, choice.token);
    sampler.commit(choice);
    EXPECT_EQ(twin.sample(logits), choice.token);
  }
}

TEST(Sampler, limits_of_one_call_hold_for_that_call) {
  libwkv::Sampler sampler(SamplerOptions{}, 1);
  Logits logits(10, 0.0f);
  const std::vector<int32_t> banned = {0, 1, 2, 4, 100};
  for (int i = 0; i < 50; i++) {
    const auto choice = sampler.choose(logits, {.ids_end = 5, .banned = banned});
    sampler.commit(choice);
    EXPECT_EQ(choice.token, 3);
  }
  std::set<int32_t> seen;
  for (int i = 0; i < 500; i++) seen.insert(sampler.sample(logits));
  EXPECT_EQ(seen.size(), 10u);
}

TEST(Sampler, is_used_by_one_call_at_a_time) {
  const Sampler sampler = create(with_seed(0));
  const Logits logits = {1, 2};
  Logits probabilities(2);
  int32_t token = -1;
  Failure failure;
  ASSERT_TRUE(sampler.get()->object->busy().try_acquire());
  EXPECT_EQ(wkv_sampler_sample(sampler, logits.data(), 2, &token, &failure), WKV_BUSY);
  EXPECT_EQ(wkv_sampler_accept(sampler, 1, &failure), WKV_BUSY);
  EXPECT_EQ(wkv_sampler_get_probabilities(sampler, logits.data(), 2, probabilities.data(), &failure), WKV_BUSY);
  EXPECT_EQ(wkv_sampler_reset(sampler, 1, &failure), WKV_BUSY);
  EXPECT_EQ(token, -1);
  sampler.get()->object->busy().release();
  EXPECT_EQ(wkv_sampler_sample(sampler, logits.data(), 2, &token, &failure), WKV_OK) << failure.message;
}

TEST(Sampler, refuses_options_out_of_range) {
  const auto refuses = [](const char *field, auto change) {
    wkv_sampler_options o = with_seed(0);
    change(o);
    wkv_sampler *sampler = nullptr;
    Failure failure;
    EXPECT_EQ(wkv_sampler_create(&o, &sampler, &failure), WKV_INVALID) << field;
    EXPECT_EQ(sampler, nullptr);
    EXPECT_NE(std::string(failure.message).find(field), std::string::npos) << failure.message;
  };
  for (const float bad : {-0.1f, nan, inf, -inf}) {
    refuses("temperature", [&](auto &o) { o.temperature = bad; });
    refuses("repetition", [&](auto &o) { o.repetition = bad; });
    refuses("top_p", [&](auto &o) { o.top_p = bad; });
    refuses("min_p", [&](auto &o) { o.min_p = bad; });
    refuses("typical_p", [&](auto &o) { o.typical_p = bad; });
    refuses("penalty_decay", [&](auto &o) { o.penalty_decay = bad; });
    if (bad == -0.1f) continue;
    refuses("presence", [&](auto &o) { o.presence = bad; });
    refuses("frequency", [&](auto &o) { o.frequency = bad; });
  }
  refuses("top_p", [](auto &o) { o.top_p = 1.01f; });
  refuses("min_p", [](auto &o) { o.min_p = 1.0f; });
  refuses("typical_p", [](auto &o) { o.typical_p = 1.01f; });
  refuses("penalty_decay", [](auto &o) { o.penalty_decay = 1.01f; });
  refuses("top_k", [](auto &o) { o.top_k = -1; });
  refuses("ids_end", [](auto &o) { o.ids_end = -1; });
  refuses("is_greedy", [](auto &o) { o.is_greedy = 2; });
  static const int32_t negative = -4;
  static const wkv_token_bias negative_bias = {-4, 0}, nan_bias = {4, nan};
  for (const size_t count : {size_t{1}, SIZE_MAX}) {
    refuses("biases", [&](auto &o) { o.biases_count = count; });
    refuses("banned_tokens", [&](auto &o) { o.banned_tokens_count = count; });
    refuses("exempt_tokens", [&](auto &o) { o.exempt_tokens_count = count; });
  }
  refuses("biases_count", [](auto &o) { o.biases = &nan_bias, o.biases_count = SIZE_MAX; });
  refuses("banned_tokens", [](auto &o) { o.banned_tokens = &negative, o.banned_tokens_count = 1; });
  refuses("exempt_tokens", [](auto &o) { o.exempt_tokens = &negative, o.exempt_tokens_count = 1; });
  refuses("-4", [](auto &o) { o.biases = &negative_bias, o.biases_count = 1; });
  refuses("token 4", [](auto &o) { o.biases = &nan_bias, o.biases_count = 1; });
  refuses("struct_size", [](auto &o) { o.struct_size = 8; });
  refuses("struct_size", [](auto &o) { o.struct_size = 0; });
}

TEST(Sampler, reads_larger_structs_of_later_versions) {
  struct Later {
    wkv_sampler_options options;
    uint64_t more;
  } later{};
  later.options.struct_size = sizeof later;
  wkv_sampler *sampler = nullptr;
  EXPECT_EQ(wkv_sampler_create(&later.options, &sampler, nullptr), WKV_OK);
  wkv_sampler_release(sampler);
  sampler = nullptr;
  later.more = 1;
  EXPECT_EQ(wkv_sampler_create(&later.options, &sampler, nullptr), WKV_UNSUPPORTED);
  EXPECT_EQ(sampler, nullptr);
}

TEST(Sampler, refuses_wrong_arguments) {
  const Sampler sampler = create(with_seed(0));
  const Logits logits = {1, 2};
  Logits probabilities(2);
  int32_t token = -1;
  Failure failure;
  EXPECT_EQ(wkv_sampler_create(nullptr, nullptr, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_sample(nullptr, logits.data(), 2, &token, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_sample(sampler, nullptr, 2, &token, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_sample(sampler, logits.data(), 0, &token, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_sample(sampler, logits.data(), SIZE_MAX, &token, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_sample(sampler, logits.data(), 2, nullptr, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_accept(nullptr, 1, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_accept(sampler, -1, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_accept(sampler, INT32_MIN, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_accept(sampler, INT32_MAX, &failure), WKV_OK);
  EXPECT_EQ(wkv_sampler_get_probabilities(nullptr, logits.data(), 2, probabilities.data(), &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_get_probabilities(sampler, nullptr, 2, probabilities.data(), &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_get_probabilities(sampler, logits.data(), 0, probabilities.data(), &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_get_probabilities(sampler, logits.data(), SIZE_MAX, probabilities.data(), &failure),
            WKV_INVALID);
  EXPECT_EQ(wkv_sampler_get_probabilities(sampler, logits.data(), 2, nullptr, &failure), WKV_INVALID);
  EXPECT_EQ(wkv_sampler_reset(nullptr, 1, &failure), WKV_INVALID);
  EXPECT_EQ(token, -1);
  wkv_sampler_release(nullptr);
}

}  // namespace
}  // namespace libwkv::test
