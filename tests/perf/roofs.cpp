// SPDX-License-Identifier: Apache-2.0
#include "roofs.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#define TARGET(features) __attribute__((target(features)))
#endif

namespace libwkv::perf {
namespace {

// Keeps what the loops compute from being thrown away.
std::atomic<uint64_t> sink;

constexpr size_t group = 256;  // bytes of one stream read in a row

// Reads `streams` streams of `bytes` each, which lie one behind the other, side by side.
using Reader = uint64_t (*)(const std::byte *memory, size_t streams, size_t bytes, size_t prefetch);

#if defined(__x86_64__)
template <size_t streams>
TARGET("avx2")
uint64_t read_avx2_streams(const std::byte *memory, size_t bytes, size_t prefetch) {
  __m256i sums[4] = {};
  for (size_t at = 0; at < bytes; at += group)
    for (size_t s = 0; s < streams; s++) {
      const std::byte *p = memory + s * bytes + at;
      if (prefetch)
        for (size_t line = 0; line < group; line += 64)
          _mm_prefetch(reinterpret_cast<const char *>(p) + prefetch + line, _MM_HINT_T0);
      for (size_t i = 0; i < group / 32; i++)
        sums[i % 4] = _mm256_add_epi64(sums[i % 4], _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p + i * 32)));
    }
  __m256i sum = _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
  uint64_t words[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(words), sum);
  return words[0] + words[1] + words[2] + words[3];
}

template <size_t streams>
TARGET("avx512f")
uint64_t read_avx512_streams(const std::byte *memory, size_t bytes, size_t prefetch) {
  __m512i sums[4] = {};
  for (size_t at = 0; at < bytes; at += group)
    for (size_t s = 0; s < streams; s++) {
      const std::byte *p = memory + s * bytes + at;
      if (prefetch)
        for (size_t line = 0; line < group; line += 64)
          _mm_prefetch(reinterpret_cast<const char *>(p) + prefetch + line, _MM_HINT_T0);
      for (size_t i = 0; i < group / 64; i++)
        sums[i % 4] = _mm512_add_epi64(sums[i % 4], _mm512_loadu_si512(p + i * 64));
    }
  uint64_t words[8], total = 0;
  _mm512_storeu_si512(words, _mm512_add_epi64(_mm512_add_epi64(sums[0], sums[1]), _mm512_add_epi64(sums[2], sums[3])));
  for (uint64_t word : words) total += word;
  return total;
}

uint64_t read_avx2(const std::byte *memory, size_t streams, size_t bytes, size_t prefetch) {
  switch (streams) {
    case 1:
      return read_avx2_streams<1>(memory, bytes, prefetch);
    case 2:
      return read_avx2_streams<2>(memory, bytes, prefetch);
    case 4:
      return read_avx2_streams<4>(memory, bytes, prefetch);
    default:
      return read_avx2_streams<8>(memory, bytes, prefetch);
  }
}
uint64_t read_avx512(const std::byte *memory, size_t streams, size_t bytes, size_t prefetch) {
  switch (streams) {
    case 1:
      return read_avx512_streams<1>(memory, bytes, prefetch);
    case 2:
      return read_avx512_streams<2>(memory, bytes, prefetch);
    case 4:
      return read_avx512_streams<4>(memory, bytes, prefetch);
    default:
      return read_avx512_streams<8>(memory, bytes, prefetch);
  }
}

constexpr int fma_chains = 12;  // latency 4 or 5 times two units, with room to spare

TARGET("avx2,fma") float multiply_add_avx2(int64_t rounds) {
  __m256 sums[fma_chains];
  for (int i = 0; i < fma_chains; i++) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (int64_t round = 0; round < rounds; round++)
    for (int i = 0; i < fma_chains; i++) sums[i] = _mm256_fmadd_ps(sums[i], a, b);
  for (int i = 1; i < fma_chains; i++) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  return _mm256_cvtss_f32(sums[0]);
}

TARGET("avx512f") float multiply_add_avx512(int64_t rounds) {
  __m512 sums[fma_chains];
  for (int i = 0; i < fma_chains; i++) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (int64_t round = 0; round < rounds; round++)
    for (int i = 0; i < fma_chains; i++) sums[i] = _mm512_fmadd_ps(sums[i], a, b);
  for (int i = 1; i < fma_chains; i++) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}
#endif

// Whatever vectors the compiler's baseline has.
uint64_t read_plain(const std::byte *memory, size_t streams, size_t bytes, size_t) {
  uint64_t sums[group / 8] = {};
  for (size_t at = 0; at < bytes; at += group)
    for (size_t s = 0; s < streams; s++) {
      uint64_t words[group / 8];
      std::memcpy(words, memory + s * bytes + at, group);
      for (size_t i = 0; i < group / 8; i++) sums[i] += words[i];
    }
  uint64_t sum = 0;
  for (uint64_t one : sums) sum += one;
  return sum;
}

constexpr int plain_lanes = 48;  // twelve chains of four
float multiply_add_plain(int64_t rounds) {
  float sums[plain_lanes];
  for (int i = 0; i < plain_lanes; i++) sums[i] = static_cast<float>(i);
  for (int64_t round = 0; round < rounds; round++)
    for (float &sum : sums) sum = sum * 0.999f + 0.001f;
  float sum = 0;
  for (float one : sums) sum += one;
  return sum;
}

// Seconds from a common start until every thread is done.
template <class Body>
double timed(int threads, const Body &body) {
  using Clock = std::chrono::steady_clock;
  std::vector<Clock::time_point> begins(static_cast<size_t>(threads)), ends(begins);
  std::barrier start(threads);
  {
    std::vector<std::jthread> running;
    for (int t = 1; t <= threads; t++) {
      auto work = [&, t = static_cast<size_t>(t - 1)] {
        start.arrive_and_wait();
        begins[t] = Clock::now();
        body(static_cast<int>(t));
        ends[t] = Clock::now();
      };
      if (t < threads)
        running.emplace_back(work);
      else
        work();
    }
  }
  return std::chrono::duration<double>(*std::max_element(ends.begin(), ends.end()) -
                                       *std::min_element(begins.begin(), begins.end()))
      .count();
}

}  // namespace

Roofs::Roofs(size_t read_bytes) : memory_(read_bytes + (size_t{1} << 20)) {
  std::memset(memory_.data(), 1, memory_.size());  // pages that were never written would all be one
}

double Roofs::read_bandwidth(int threads) {
  Reader reader = read_plain;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f"))
    reader = read_avx512;
  else if (__builtin_cpu_supports("avx2"))
    reader = read_avx2;
#endif
  size_t readable = memory_.size() - (size_t{1} << 20);
  double best = 0;
  one_stream_ = 0;
  for (size_t prefetch : {size_t{0}, size_t{1024}})
    for (size_t streams : {1, 2, 4, 8}) {
      if (prefetch && reader == read_plain) continue;
      // an odd number of lines apart, so that streams do not share cache sets
      size_t stream_bytes = readable / static_cast<size_t>(threads) / streams / group * group;
      if (stream_bytes < group) continue;
      double seconds = timed(threads, [&](int t) {
        sink +=
            reader(memory_.data() + static_cast<size_t>(t) * streams * stream_bytes, streams, stream_bytes, prefetch);
      });
      double rate = static_cast<double>(stream_bytes * streams * static_cast<size_t>(threads)) / seconds * 1e-9;
      best = std::max(best, rate);
      if (streams == 1) one_stream_ = std::max(one_stream_, rate);
    }
  return best;
}

double Roofs::fma_peak(int threads) const {
  struct Way {
    float (*run)(int64_t rounds);
    double flop_a_round;
  };
  std::vector<Way> ways;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) ways.push_back({multiply_add_avx512, fma_chains * 16 * 2.0});
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    ways.push_back({multiply_add_avx2, fma_chains * 8 * 2.0});
#endif
  if (ways.empty()) ways.push_back({multiply_add_plain, plain_lanes * 2.0});
  double best = 0;
  for (const Way &way : ways) {
    int64_t rounds = static_cast<int64_t>(2e9 / way.flop_a_round);  // a few hundredths of a second
    for (int i = 0; i < 2; i++) {
      double seconds = timed(threads, [&](int) { sink += static_cast<uint64_t>(way.run(rounds)); });
      best = std::max(best, way.flop_a_round * static_cast<double>(rounds) * threads / seconds * 1e-9);
    }
  }
  return best;
}

}  // namespace libwkv::perf
