// SPDX-License-Identifier: Apache-2.0
// The pool runs every chunk of every job exactly once, whatever the number of threads and cores.
#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

using libwkv::ThreadPool;

TEST(thread_pool, runs_every_chunk_once) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    std::lock_guard lock(pool.mutex());
    for (size_t chunks : {0, 1, 2, 7, 64, 1000}) {
      std::vector<int> runs(chunks, 0);  // plain ints: a chunk run twice at once is a race that TSan sees
      pool.run(chunks, [&](size_t chunk) { runs[chunk]++; });
      for (size_t i = 0; i < chunks; i++)
        ASSERT_EQ(runs[i], 1) << threads << " threads, chunk " << i << " of " << chunks;
    }
  }
}

TEST(thread_pool, takes_the_largest_number_of_chunks) {
  ThreadPool pool(2);
  std::lock_guard lock(pool.mutex());
  std::vector<uint8_t> runs(ThreadPool::max_chunks, 0);
  pool.run(runs.size(), [&](size_t chunk) { runs[chunk]++; });
  EXPECT_EQ(std::accumulate(runs.begin(), runs.end(), size_t{0}), runs.size());
}

TEST(thread_pool, jobs_in_a_row_see_each_others_results) {
  ThreadPool pool(4);
  std::lock_guard lock(pool.mutex());
  std::vector<int64_t> values(16, 0), next(16, 0);
  for (int job = 0; job < 3000; job++) {  // each chunk reads what another thread may have written in the job before
    pool.run(values.size(), [&](size_t chunk) { next[chunk] = values[(chunk + 1) % 16] + 1; });
    values.swap(next);
  }
  for (int64_t value : values) EXPECT_EQ(value, 3000);
}

TEST(thread_pool, wakes_sleeping_workers) {
  ThreadPool pool(3);
  std::lock_guard lock(pool.mutex());
  for (int job = 0; job < 5; job++) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // longer than idle workers stay awake
    std::atomic<int> runs{0};
    pool.run(100, [&](size_t) { runs++; });
    EXPECT_EQ(runs, 100);
  }
}

TEST(thread_pool, is_shared_by_callers_in_turn) {
  ThreadPool pool(2);
  std::vector<std::thread> callers;
  std::atomic<int> total{0};
  for (int c = 0; c < 4; c++)
    callers.emplace_back([&] {
      for (int job = 0; job < 200; job++) {
        std::lock_guard lock(pool.mutex());
        pool.run(10, [&](size_t) { total++; });
      }
    });
  for (std::thread &caller : callers) caller.join();
  EXPECT_EQ(total, 4 * 200 * 10);
}
