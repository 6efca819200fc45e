// SPDX-License-Identifier: Apache-2.0
// A call through every failure of memory that it can meet.
#pragma once

#include <functional>
#include <string>

#include "faults/failing_malloc.h"
#include "support/models.h"

namespace libwkv::test {

// Runs `call` with allocation 0, 1, 2, ... failing until it succeeds untouched. `call` returns its status and must
// release what it made. `check` runs after each failure.
// all: every later allocation fails as well (the cleanup has no memory either); else only the one.
inline void fail_each(const std::string &what, bool all, const std::function<wkv_status()> &call,
                      const std::function<void(int64_t, wkv_status)> &check = {}) {
  ASSERT_EQ(call(), WKV_OK) << what << " does not work at all";  // also fills what the runtime keeps for good
  int64_t baseline = live_allocations();
  for (int64_t n = 0; n < 200000; n++) {
    fail_after(n, !all);
    wkv_status status = call();
    bool failed = stop_failing();
    int64_t live = live_allocations();
    if (!failed) {
      ASSERT_EQ(status, WKV_OK) << what;
      ASSERT_EQ(live, baseline) << what << " leaks when it succeeds";
      ASSERT_GT(n, 0) << what << " allocates nothing: the test sees nothing";
      testing::Test::RecordProperty(plain_name(what), std::to_string(n));
      return;
    }
    // an allocation that a call can do without (a cache of the C library, say) may fail unnoticed
    if (status != WKV_OK) {
      ASSERT_EQ(wkv_status_name(status), std::string("WKV_OUT_OF_MEMORY")) << what << ", allocation " << n;
    }
    ASSERT_EQ(live, baseline) << what << " leaks when allocation " << n << " fails";
    if (check) check(n, status);
    if (testing::Test::HasFatalFailure()) return;
  }
  FAIL() << what << " never succeeds";
}

}  // namespace libwkv::test
