// SPDX-License-Identifier: Apache-2.0
// Exclusive use of an object by one call: misuse becomes WKV_BUSY instead of a data race.
#pragma once

#include <atomic>

#include "base/error.h"

namespace libwkv {

class BusyFlag {
 public:
  bool try_acquire() { return !taken_.exchange(true, std::memory_order_acquire); }
  void release() { taken_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> taken_{false};
};

// Holds a flag for a scope. Throws WKV_BUSY when another call has it.
class BusyGuard {
 public:
  BusyGuard(BusyFlag &flag, const char *what) : flag_(flag) {
    if (!flag.try_acquire()) fail(WKV_BUSY, "the %s is in use by another call", what);
  }
  ~BusyGuard() { flag_.release(); }
  BusyGuard(const BusyGuard &) = delete;
  BusyGuard &operator=(const BusyGuard &) = delete;

 private:
  BusyFlag &flag_;
};

}  // namespace libwkv
