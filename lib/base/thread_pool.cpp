// SPDX-License-Identifier: Apache-2.0
#include "base/thread_pool.h"

#include <chrono>
#include <system_error>

#include <sched.h>

#include "base/error.h"

namespace libwkv {
namespace {

inline void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// Spins of a waiting thread before it yields its core on every further look. About 10 microseconds.
constexpr int spins_before_yield = 300;
// Yields of an idle worker before it sleeps: it stays awake from one token to the next.
constexpr auto idle_before_sleep = std::chrono::microseconds(200);

constexpr uint64_t next_of(uint64_t ticket) { return ticket & 0xffff; }
constexpr uint64_t chunks_of(uint64_t ticket) { return ticket >> 16 & 0xffff; }

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    workers_.reserve(static_cast<size_t>(threads) - 1);
    for (int i = 1; i < threads; i++) workers_.emplace_back([this] { work(); });
  } catch (const std::system_error &) {
    size_t started = workers_.size() + 1;
    stop();
    fail(WKV_OUT_OF_MEMORY, "the system gave %zu of %d threads", started, threads);
  } catch (...) {
    stop();
    throw;
  }
}

void ThreadPool::stop() {
  stop_.store(true);
  wake_.fetch_add(1);
  wake_.notify_all();
  for (std::thread &worker : workers_) worker.join();
  workers_.clear();
}

bool ThreadPool::claim_and_run() {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (next_of(ticket) < chunks_of(ticket)) {
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    function_(context_, next_of(ticket));
    done_.fetch_add(1, std::memory_order_acq_rel);
    return true;
  }
  return false;
}

void ThreadPool::run_chunks(size_t chunks, Function function, const void *context) {
  if (workers_.empty() || chunks <= 1) {
    for (size_t chunk = 0; chunk < chunks; chunk++) function(context, chunk);
    return;
  }
  function_ = function;
  context_ = context;
  done_.store(0, std::memory_order_relaxed);
  uint64_t epoch = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store(epoch << 32 | static_cast<uint64_t>(chunks) << 16);
  if (sleepers_.load() > 0) {
    wake_.fetch_add(1);
    wake_.notify_all();
  }
  while (claim_and_run()) {
  }
  for (int spins = 0; done_.load(std::memory_order_acquire) != chunks; spins++) {
    if (spins < spins_before_yield)
      pause_briefly();
    else
      sched_yield();
  }
}

void ThreadPool::work() {
  while (!stop_.load(std::memory_order_relaxed)) {
    if (claim_and_run()) continue;
    auto idle_since = std::chrono::steady_clock::now();
    uint32_t wake = wake_.load();
    bool found = false;
    for (int spins = 0; !found; spins++) {
      uint64_t ticket = ticket_.load(std::memory_order_relaxed);
      found = next_of(ticket) < chunks_of(ticket) || stop_.load(std::memory_order_relaxed);
      if (found || spins < spins_before_yield) {
        pause_briefly();
        continue;
      }
      if (std::chrono::steady_clock::now() - idle_since > idle_before_sleep) break;
      sched_yield();
    }
    if (found) continue;
    // Announce the sleep first, then look once more: the publisher stores the ticket first, then looks for sleepers.
    sleepers_.fetch_add(1);
    uint64_t ticket = ticket_.load();
    if (next_of(ticket) >= chunks_of(ticket) && !stop_.load()) wake_.wait(wake);
    sleepers_.fetch_sub(1);
  }
}

}  // namespace libwkv
