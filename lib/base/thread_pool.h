// SPDX-License-Identifier: Apache-2.0
// Worker threads that share the chunks of one job after another, with almost no cost between jobs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace libwkv {

// Threads claim chunks one by one, so a thread that lost its core holds up one chunk and not its share of the job.
// Waiting spins briefly, then yields, then sleeps: a neighbour that takes a core never costs more than that core.
class ThreadPool {
 public:
  // threads includes the calling one: threads - 1 are started. Throws WKV_OUT_OF_MEMORY when the system has no more.
  explicit ThreadPool(int threads);
  ~ThreadPool() { stop(); }
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Held by whoever runs jobs: one job at a time.
  std::mutex &mutex() { return mutex_; }

  static constexpr size_t max_chunks = 65535;

  // Calls body(chunk) for every chunk in [0, chunks) on all threads and returns when all are done. The caller holds
  // mutex(). body must not throw.
  template <class Body>
  void run(size_t chunks, const Body &body) {
    run_chunks(
        chunks, [](const void *context, size_t chunk) { (*static_cast<const Body *>(context))(chunk); }, &body);
  }

 private:
  using Function = void (*)(const void *context, size_t chunk);
  void run_chunks(size_t chunks, Function function, const void *context);
  bool claim_and_run();
  void work();
  void stop();

  // epoch << 32 | chunks << 16 | next: one word, so that a claim cannot mix two jobs.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
  alignas(64) std::atomic<uint32_t> sleepers_{0};
  std::atomic<uint32_t> wake_{0};
  std::atomic<bool> stop_{false};
  Function function_ = nullptr;  // written before the ticket is published, read after a claim
  const void *context_ = nullptr;
  std::mutex mutex_;
  std::vector<std::thread> workers_;
};

}  // namespace libwkv
