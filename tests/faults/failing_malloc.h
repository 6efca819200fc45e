// SPDX-License-Identifier: Apache-2.0
// An allocator that fails when told to, and counts what is live.
#pragma once

#include <cstdint>

namespace libwkv::test {

// False under a sanitizer or another C library than glibc: then nothing ever fails here.
bool malloc_can_fail();

// Counts every allocation and release of this process, whichever thread makes it.
int64_t live_allocations();

// From now on the calling thread's allocation number `countdown` (0: the next one) and all that follow, until
// stop_failing, return NULL. `only_one`: that one alone.
void fail_after(int64_t countdown, bool only_one);
// Returns whether any allocation was made to fail.
bool stop_failing();

// The same for allocations of every thread.
void fail_everywhere_after(int64_t countdown);
bool stop_failing_everywhere();

}  // namespace libwkv::test
