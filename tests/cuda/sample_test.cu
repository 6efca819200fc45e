// SPDX-License-Identifier: Apache-2.0
// Tokens chosen on the device against those of the host's sampler, for the same scores, options and drawn numbers.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/cuda/sample.h"
#include "text/race.h"

namespace libwkv::cuda {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

void check(cudaError_t error) { ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

template <class Item>
class OnDevice {
 public:
  explicit OnDevice(size_t count) {
    if (count > 0) check(cudaMalloc(reinterpret_cast<void **>(&items_), count * sizeof(Item)));
  }
  explicit OnDevice(const std::vector<Item> &from) : OnDevice(from.size()) { write(from); }
  OnDevice(const OnDevice &) = delete;
  OnDevice &operator=(const OnDevice &) = delete;
  ~OnDevice() { cudaFree(items_); }
  void write(const std::vector<Item> &from) {
    check(cudaMemcpy(items_, from.data(), from.size() * sizeof(Item), cudaMemcpyHostToDevice));
  }
  std::vector<Item> read(size_t count) const {
    std::vector<Item> to(count);
    check(cudaMemcpy(to.data(), items_, count * sizeof(Item), cudaMemcpyDeviceToHost));
    return to;
  }
  Item *get() const { return items_; }

 private:
  Item *items_ = nullptr;
};

Device this_device() {
  Device device{};
  check(cudaGetDevice(&device.index));
  const auto get = [&](cudaDeviceAttr attribute, int *value) {
    check(cudaDeviceGetAttribute(value, attribute, device.index));
  };
  get(cudaDevAttrMultiProcessorCount, &device.processors);
  get(cudaDevAttrComputeCapabilityMajor, &device.major);
  get(cudaDevAttrComputeCapabilityMinor, &device.minor);
  get(cudaDevAttrMaxSharedMemoryPerBlockOptin, &device.shared_bytes);
  return device;
}

// One without clusters, whose way is open to every device.
Device old_device() {
  Device device = this_device();
  device.major = 8;
  device.minor = 0;
  return device;
}

// A row as both see it.
struct Case {
  SamplerOptions options;
  std::vector<SamplerState::Count> counts;
  double uniform = 0.5;
  int32_t logits_row = 0;
};

// The host draws from a generator: one whose next number is the wanted multiple of 2^-53.
Random generator_of(double uniform) {
  const auto bits = static_cast<uint64_t>(uniform * 0x1p53) << 11;
  // next() is rotl(state[1] * 5, 7) * 9
  const auto inverse = [](uint64_t odd) {
    uint64_t x = odd;
    for (int i = 0; i < 6; i++) x *= 2 - odd * x;
    return x;
  };
  Random random(0);
  random.state[1] = std::rotr(bits * inverse(9), 7) * inverse(5);
  return random;
}

int32_t on_host(const Case &one, std::span<const float> logits) {
  Random random = generator_of(one.uniform);
  try {
    return run_race(one.options, one.counts, {}, logits, random);
  } catch (const Error &) {
    return -1;
  }
}

// The rows and lists of cases on the device.
struct Uploaded {
  OnDevice<SampleRow> rows;
  OnDevice<int32_t> counted_tokens, bias_tokens;
  OnDevice<double> counts;
  OnDevice<float> biases;
  SampleLists lists() const { return {counted_tokens.get(), counts.get(), bias_tokens.get(), biases.get()}; }
};

std::unique_ptr<Uploaded> upload(const std::vector<Case> &cases) {
  std::vector<SampleRow> rows;
  std::vector<int32_t> counted_tokens{-7}, bias_tokens{-7};  // lists begin anywhere
  std::vector<double> counts{0};
  std::vector<float> biases{0};
  for (const Case &one : cases) {
    SampleRow row{};
    row.temperature = one.options.is_greedy ? 0 : one.options.temperature;
    row.top_p = one.options.top_p;
    row.min_p = one.options.min_p;
    row.uniform = one.uniform;
    row.repetition = one.options.repetition;
    row.presence = one.options.presence;
    row.frequency = one.options.frequency;
    row.top_k = one.options.top_k;
    row.ids_end = one.options.ids_end;
    row.counts_begin = static_cast<int32_t>(counted_tokens.size());
    row.counts_count = static_cast<int32_t>(one.counts.size());
    for (const auto &[token, count] : one.counts) {
      counted_tokens.push_back(token);
      counts.push_back(count);
    }
    auto list = one.options.biases;
    for (const int32_t token : one.options.banned) list.push_back({token, -infinity});
    std::stable_sort(list.begin(), list.end(), [](const auto &a, const auto &b) { return a.token < b.token; });
    row.biases_begin = static_cast<int32_t>(bias_tokens.size());
    row.biases_count = static_cast<int32_t>(list.size());
    for (const auto &[token, bias] : list) {
      bias_tokens.push_back(token);
      biases.push_back(bias);
    }
    row.logits_row = one.logits_row;
    rows.push_back(row);
  }
  return std::unique_ptr<Uploaded>(new Uploaded{OnDevice<SampleRow>(rows), OnDevice<int32_t>(counted_tokens),
                                                OnDevice<int32_t>(bias_tokens), OnDevice<double>(counts),
                                                OnDevice<float>(biases)});
}

void expect_as_host(const Device &device, const std::vector<Case> &cases, const std::vector<float> &logits,
                    int64_t vocab) {
  const size_t count = cases.size();
  const auto uploaded = upload(cases);
  const OnDevice<float> scores(logits);
  const OnDevice<int32_t> tokens(std::vector<int32_t>(count + 1, -1234567));
  const OnDevice<char> workspace(sample_workspace_bytes(device, vocab, static_cast<int64_t>(count)));
  check(sample(nullptr, device, scores.get(), vocab, uploaded->rows.get(), static_cast<int>(count), uploaded->lists(),
               tokens.get(), workspace.get()));
  check(cudaDeviceSynchronize());
  const std::vector<int32_t> chosen = tokens.read(count + 1);
  EXPECT_EQ(chosen[count], -1234567);
  const std::vector<float> after = scores.read(logits.size());
  EXPECT_EQ(std::memcmp(after.data(), logits.data(), logits.size() * sizeof(float)), 0);
  for (size_t i = 0; i < count; i++) {
    const Case &one = cases[i];
    const auto row = std::span(logits).subspan(static_cast<size_t>(one.logits_row * vocab), static_cast<size_t>(vocab));
    const int32_t expected = on_host(one, row);
    EXPECT_EQ(chosen[i], expected) << "row " << i << " of " << count << ", vocab " << vocab << ", greedy "
                                   << one.options.is_greedy << ", temperature " << one.options.temperature << ", top_k "
                                   << one.options.top_k << ", top_p " << one.options.top_p << ", min_p "
                                   << one.options.min_p << ", repetition " << one.options.repetition << ", ids_end "
                                   << one.options.ids_end << ", counts " << one.counts.size() << ", biases "
                                   << one.options.biases.size() << ", banned " << one.options.banned.size()
                                   << ", uniform " << one.uniform;
    if (::testing::Test::HasFailure()) return;
  }
}

using Generator = std::mt19937_64;

double uniform(Generator &random) { return static_cast<double>(random() >> 11) * 0x1p-53; }
template <class Item>
Item one_of(Generator &random, std::initializer_list<Item> items) {
  return items.begin()[random() % items.size()];
}

enum Kind { normal, peaked, equal, two_values, halves, few, tiny, wide, with_nan, with_infinity, kinds };

void fill(Generator &random, Kind kind, std::span<float> row) {
  std::normal_distribution<float> gauss;
  const float spread = one_of(random, {0.01f, 0.3f, 1.0f, 3.0f, 10.0f});
  for (float &score : row) {
    const float g = gauss(random);
    switch (kind) {
      case peaked:  // a trained model: a few far above a broad rest
        score = g * 2.5f - 8.0f;
        if (random() % std::max<size_t>(1, row.size() / 40) == 0) score += 8.0f + 3.0f * gauss(random);
        break;
      case equal:
        score = 0.25f;
        break;
      case two_values:
        score = g > 0.5f ? 1.0f : -0.5f;
        break;
      case halves:  // many ties
        score = std::round(g * 2.0f * 64.0f) / 64.0f;
        break;
      case few:
        score = random() % row.size() < 3 ? g : -infinity;
        break;
      case tiny:
        score = g * 1e-30f;
        break;
      case wide:
        score = g * 1e30f;
        break;
      default:
        score = g * spread;
    }
  }
  if (kind == with_nan)
    for (size_t i = 0; i < row.size(); i += 1 + random() % 9)
      row[i] = random() % 2 ? std::numeric_limits<float>::quiet_NaN() : -infinity;
  if (kind == with_infinity)
    for (size_t n = 1 + random() % 5; n > 0; n--) row[random() % row.size()] = infinity;
}

std::vector<SamplerState::Count> random_counts(Generator &random, int64_t vocab, size_t most) {
  std::vector<int32_t> tokens(most);
  for (int32_t &token : tokens) token = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab + vocab / 8 + 1));
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  std::vector<SamplerState::Count> counts;
  for (const int32_t token : tokens) counts.push_back({token, random() % 2 ? 1.0 + random() % 5 : 4 * uniform(random)});
  return counts;
}

Case random_case(Generator &random, int64_t vocab) {
  Case one;
  SamplerOptions &options = one.options;
  const auto often = [&](int percent) { return random() % 100 < static_cast<uint64_t>(percent); };
  const auto token = [&] { return static_cast<int32_t>(random() % static_cast<uint64_t>(vocab + vocab / 8 + 1)); };
  // Closer to 1, the host may choose tokens so far behind that the device leaves them out.
  one.uniform = one_of(random, {0.0, 1 - 1e-7, uniform(random), uniform(random), uniform(random), uniform(random)});
  options.is_greedy = often(15);
  if (often(60))
    options.temperature = static_cast<double>(one_of(random, {0.1f, 0.5f, 0.8f, 1.3f, 2.0f, 50.0f, 1e-3f}));
  if (often(30)) options.top_k = one_of(random, {1, 2, 40, 300, 5000, 65535, 1 << 30});
  if (often(50)) options.top_p = static_cast<double>(one_of(random, {0.01f, 0.3f, 0.8f, 0.95f, 0.999f, 1e-9f}));
  if (often(30)) options.min_p = static_cast<double>(one_of(random, {1e-30f, 0.001f, 0.05f, 0.5f, 0.99f}));
  if (often(15)) options.ids_end = 1 + token();
  if (often(35)) {
    if (often(60)) options.repetition = static_cast<double>(one_of(random, {1.1f, 2.0f, 0.7f}));
    if (often(60)) options.presence = static_cast<double>(one_of(random, {0.2f, -1.0f, 3.0f}));
    if (often(60)) options.frequency = static_cast<double>(one_of(random, {0.1f, 0.5f, -0.3f}));
  }
  if (often(40)) one.counts = random_counts(random, vocab, one_of<size_t>(random, {1, 5, 300, 4000}));
  if (often(25))
    for (size_t n = one_of<size_t>(random, {1, 4, 200, 3000}); n > 0; n--)
      options.biases.push_back({token(), one_of(random, {-infinity, 2.5f, -3.3f, 0.1f, often(1) ? infinity : 1.0f})});
  if (often(20))
    for (size_t n = one_of<size_t>(random, {1, 4, 200, 3000}); n > 0; n--) options.banned.push_back(token());
  return one;
}

void expect_as_host_on_random(const Device &device, int64_t vocab, int count, int rounds, uint64_t seed) {
  Generator random(seed);
  for (int round = 0; round < rounds && !::testing::Test::HasFailure(); round++) {
    std::vector<float> logits(static_cast<size_t>(vocab * count));
    std::vector<Case> cases;
    for (int i = 0; i < count; i++) {
      fill(random, static_cast<Kind>(random() % kinds),
           std::span(logits).subspan(static_cast<size_t>(i * vocab), static_cast<size_t>(vocab)));
      cases.push_back(random_case(random, vocab));
      cases.back().logits_row = i;
    }
    std::shuffle(cases.begin(), cases.end(), random);
    if (count > 2) cases[1].logits_row = cases[0].logits_row;  // rows may share scores
    expect_as_host(device, cases, logits, vocab);
  }
}

TEST(sample, chooses_what_the_host_chooses_in_small_vocabularies) {
  for (const int64_t vocab : {1, 2, 7, 31, 100, 1000})
    for (const int count : {1, 3, 64}) expect_as_host_on_random(this_device(), vocab, count, 2000 / count, 11 + count);
}

TEST(sample, chooses_what_the_host_chooses_in_large_vocabularies) {
  for (const int64_t vocab : {5001, 65536, 65537})
    for (const int count : {1, 3, 64}) expect_as_host_on_random(this_device(), vocab, count, 192 / count, 21 + count);
}

TEST(sample, chooses_what_the_host_chooses_without_clusters) {
  for (const int64_t vocab : {1, 7, 100, 1000})
    for (const int count : {1, 3, 64}) expect_as_host_on_random(old_device(), vocab, count, 500 / count, 31 + count);
  for (const int64_t vocab : {65536, 65537})
    for (const int count : {3, 64}) expect_as_host_on_random(old_device(), vocab, count, 96 / count, 41 + count);
}

TEST(sample, chooses_what_the_host_chooses_beyond_the_memory_of_a_cluster) {
  expect_as_host_on_random(this_device(), 600000, 3, 3, 51);
}

TEST(sample, takes_the_lowest_id_among_equals_when_greedy) {
  constexpr int64_t vocab = 65536;
  std::vector<float> logits(2 * vocab, -1.0f);
  for (const int64_t id : {40000, 9000, 8191, 8192, 65535}) logits[static_cast<size_t>(id)] = 3.0f;
  for (const int64_t id : {65535, 65532, 33}) logits[static_cast<size_t>(vocab + id)] = 0.0f;
  logits[vocab + 33] = -0.0f;
  std::vector<Case> cases(2);
  for (Case &one : cases) one.options.is_greedy = true;
  cases[1].logits_row = 1;
  expect_as_host(this_device(), cases, logits, vocab);
  expect_as_host(old_device(), cases, logits, vocab);
}

TEST(sample, says_when_no_token_is_left) {
  constexpr int64_t vocab = 3000;
  std::vector<float> logits(2 * vocab, std::numeric_limits<float>::quiet_NaN());
  std::fill(logits.begin() + vocab, logits.end(), 1.0f);
  std::vector<Case> cases(4);
  for (size_t i = 0; i < 4; i++) {
    cases[i].options.is_greedy = i % 2;
    cases[i].logits_row = static_cast<int32_t>(i / 2);
    if (i < 2) continue;
    for (int32_t token = 0; token < vocab; token++) cases[i].options.banned.push_back(token);
  }
  expect_as_host(this_device(), cases, logits, vocab);
  cases[2].options.banned.erase(cases[2].options.banned.begin() + 2345);  // one is left
  cases[3].options.banned.erase(cases[3].options.banned.begin() + 17);
  expect_as_host(this_device(), cases, logits, vocab);
}

TEST(sample, never_gets_beyond_the_last_token_kept) {
  constexpr int64_t vocab = 65536;
  Generator random(65);
  std::vector<float> logits(vocab);
  fill(random, halves, logits);
  std::vector<Case> cases(8);
  for (Case &one : cases) one.uniform = 1 - 0x1p-53;
  cases[1].options.top_p = 0.5;
  cases[2].options.top_p = 0.0625;
  cases[3].options.top_k = 40;
  cases[4].options.top_k = 20000;
  cases[5].options.min_p = 0.25;
  cases[6].options.min_p = 0.25;
  cases[6].options.top_p = 0.375;
  cases[7].options.top_k = 1;
  expect_as_host(this_device(), cases, logits, vocab);
  expect_as_host(old_device(), cases, logits, vocab);
}

// Numbers drawn close to where the host's choice changes fall on the same side of it.
TEST(sample, has_the_same_borders_between_tokens) {
  constexpr int64_t vocab = 2000;
  constexpr double margin = 1e-12;
  Generator random(61);
  std::vector<float> logits(vocab);
  for (const Kind kind : {normal, peaked, halves, equal}) {
    fill(random, kind, logits);
    std::vector<Case> cases;
    for (int i = 0; i < 40; i++) {
      Case one = random_case(random, vocab);
      one.options.is_greedy = false;
      one.options.biases.clear();
      double low = 0, high = 1 - 0x1p-53;
      const auto choice = [&](double drawn) {
        one.uniform = drawn;
        return on_host(one, logits);
      };
      const double start = uniform(random);
      const int32_t token = choice(start);
      if (token == choice(high)) continue;
      for (low = start; high - low > margin / 16;) {
        const double middle = low + (high - low) / 2;
        (choice(middle) == token ? low : high) = middle;
      }
      for (const double drawn : {low - margin, high + margin}) {
        if (drawn < 0 || drawn >= 1) continue;
        one.uniform = drawn;
        cases.push_back(one);
      }
    }
    ASSERT_GT(cases.size(), 10u);
    expect_as_host(this_device(), cases, logits, vocab);
  }
}

// In a graph, behind a copy that brings the rows: each replay reads them anew.
TEST(sample, can_be_replayed_in_a_graph) {
  constexpr int64_t vocab = 65536;
  constexpr int count = 5;
  Generator random(71);
  std::vector<float> logits(vocab * count);
  std::vector<Case> cases(count);
  for (int i = 0; i < count; i++) {
    fill(random, normal, std::span(logits).subspan(static_cast<size_t>(i * vocab), vocab));
    cases[static_cast<size_t>(i)].logits_row = i;
  }
  const Device device = this_device();
  const OnDevice<float> scores(logits);
  const OnDevice<int32_t> tokens(count);
  const OnDevice<SampleRow> rows(count);
  SampleRow *pinned = nullptr;
  check(cudaMallocHost(reinterpret_cast<void **>(&pinned), count * sizeof(SampleRow)));
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  check(cudaStreamCreate(&stream));
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  check(cudaMemcpyAsync(rows.get(), pinned, count * sizeof(SampleRow), cudaMemcpyHostToDevice, stream));
  for (int i = 0; i < 2; i++)  // the second behind a kernel
    check(sample(stream, device, scores.get(), vocab, rows.get(), count, {}, tokens.get(), nullptr));
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&replay, graph, 0));
  for (int round = 0; round < 20; round++) {
    for (Case &one : cases) {
      one.uniform = uniform(random);
      one.options.top_p = round % 2 ? 1.0 : 0.7;
    }
    const std::vector<SampleRow> wanted = upload(cases)->rows.read(count);
    std::copy(wanted.begin(), wanted.end(), pinned);
    check(cudaGraphLaunch(replay, stream));
    check(cudaStreamSynchronize(stream));
    const std::vector<int32_t> chosen = tokens.read(count);
    for (size_t i = 0; i < count; i++)
      EXPECT_EQ(chosen[i], on_host(cases[i], std::span(logits).subspan(i * vocab, vocab))) << round;
  }
  check(cudaGraphExecDestroy(replay));
  check(cudaGraphDestroy(graph));
  check(cudaStreamDestroy(stream));
  check(cudaFreeHost(pinned));
}

}  // namespace
}  // namespace libwkv::cuda
