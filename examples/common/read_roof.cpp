// SPDX-License-Identifier: Apache-2.0
#include "common/read_roof.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "common/terminal.h"

namespace examples {
namespace {

constexpr size_t streams = 4, words = 8;  // 8 words of 8 bytes: one cache line a stream and round

// Four streams, because one alone does not keep enough cache lines on their way.
uint64_t read_part(const uint64_t *data, size_t count) {
  const size_t stride = count / streams / words * words;
  uint64_t sums[words] = {};
  for (size_t i = 0; i < stride; i += words)
    for (size_t s = 0; s < streams; s++)
      for (size_t w = 0; w < words; w++) sums[w] += data[s * stride + i + w];
  uint64_t sum = 0;
  for (uint64_t part : sums) sum += part;
  return sum;
}

}  // namespace

double measure_read_roof(int threads, size_t bytes) {
  bytes = std::clamp<size_t>(bytes, size_t{4} << 20, size_t{512} << 20);
  const size_t part = bytes / sizeof(uint64_t) / static_cast<size_t>(threads) / (streams * words) * (streams * words);
  std::vector<uint64_t> data(part * static_cast<size_t>(threads), 1);
  const size_t repeats = std::max<size_t>(1, (size_t{64} << 20) / bytes);  // a pass long enough to time
  std::atomic<uint64_t> sink{0};
  double best = 0;
  for (Clock total; total.seconds() < 0.5;) {
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> workers;
    for (int t = 0; t < threads; t++)
      workers.emplace_back([&, t] {
        ready++;
        while (!go) std::this_thread::yield();
        for (size_t r = 0; r < repeats; r++) {
          sink += read_part(data.data() + part * static_cast<size_t>(t), part);
          __asm__ volatile("" ::: "memory");  // the next pass has to read again
        }
      });
    while (ready < threads) std::this_thread::yield();
    Clock clock;
    go = true;
    for (std::thread &worker : workers) worker.join();
    best = std::max(best, static_cast<double>(data.size() * sizeof(uint64_t) * repeats) / clock.seconds());
  }
  return best;
}

}  // namespace examples
