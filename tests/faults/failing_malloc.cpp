// SPDX-License-Identifier: Apache-2.0
// malloc and its relatives, defined over glibc's own under their internal names. The dynamic linker binds every
// library of the process to these, libwkv and the C++ runtime included.
#include "failing_malloc.h"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>

#if defined(__GLIBC__) && !defined(WKV_MALLOC_IS_TAKEN)
#define WKV_DEFINES_MALLOC 1
#endif

namespace libwkv::test {
namespace {

constexpr int64_t never = -1;
struct ThreadPlan {
  int64_t countdown = never;
  bool only_one = false, has_failed = false;
};
// In the executable's own TLS block: touching it allocates nothing.
thread_local constinit ThreadPlan plan;
constinit std::atomic<int64_t> everywhere{never};
constinit std::atomic<bool> everywhere_has_failed{false};
constinit std::atomic<int64_t> live{0};

[[maybe_unused]] bool must_fail() {
  if (plan.countdown != never) {
    if (plan.countdown == 0) {
      if (plan.only_one) plan.countdown = never;
      plan.has_failed = true;
      return true;
    }
    plan.countdown--;
  }
  int64_t left = everywhere.load(std::memory_order_relaxed);
  while (left > 0 && !everywhere.compare_exchange_weak(left, left - 1)) {
  }
  if (left != 0) return false;
  everywhere_has_failed = true;
  return true;
}

}  // namespace

bool malloc_can_fail() {
#ifdef WKV_DEFINES_MALLOC
  return true;
#else
  return false;
#endif
}

int64_t live_allocations() { return live.load(); }

void fail_after(int64_t countdown, bool only_one) { plan = {countdown, only_one, false}; }

bool stop_failing() {
  plan.countdown = never;
  return plan.has_failed;
}

void fail_everywhere_after(int64_t countdown) {
  everywhere_has_failed = false;
  everywhere = countdown;
}

bool stop_failing_everywhere() {
  everywhere = never;
  return everywhere_has_failed;
}

}  // namespace libwkv::test

#ifdef WKV_DEFINES_MALLOC
extern "C" {
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static void *counted(void *memory) {
  if (memory) libwkv::test::live.fetch_add(1, std::memory_order_relaxed);
  return memory;
}
static bool refuse() {
  if (!libwkv::test::must_fail()) return false;
  errno = ENOMEM;
  return true;
}

void *malloc(size_t bytes) { return refuse() ? nullptr : counted(__libc_malloc(bytes)); }
void *calloc(size_t count, size_t bytes) { return refuse() ? nullptr : counted(__libc_calloc(count, bytes)); }
void *realloc(void *memory, size_t bytes) {
  if (refuse()) return nullptr;
  void *moved = __libc_realloc(memory, bytes);
  return memory ? moved : counted(moved);
}
void *memalign(size_t alignment, size_t bytes) {
  return refuse() ? nullptr : counted(__libc_memalign(alignment, bytes));
}
void *aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void **memory, size_t alignment, size_t bytes) {
  if (refuse()) return ENOMEM;
  void *found = counted(__libc_memalign(alignment, bytes));
  if (!found) return ENOMEM;
  *memory = found;
  return 0;
}
void free(void *memory) {
  if (memory) libwkv::test::live.fetch_sub(1, std::memory_order_relaxed);
  __libc_free(memory);
}
}
#endif
