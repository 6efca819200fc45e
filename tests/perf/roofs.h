// SPDX-License-Identifier: Apache-2.0
// What the machine can do at best, measured with plain loops: bytes read a second, multiply-adds a second.
#pragma once

#include <cstddef>

#include "support/random_model.h"

namespace libwkv::perf {

class Roofs {
 public:
  explicit Roofs(size_t read_bytes);

  // Best of 1, 2, 4 and 8 sequential streams a thread, with and without prefetching, in GB/s (10^9).
  double read_bandwidth(int threads);
  // The same with 1 stream a thread alone: what other projects call the bandwidth.
  double last_one_stream() const { return one_stream_; }
  // Independent float32 fused multiply-adds in registers, in GFLOP/s (a multiply-add is 2).
  double fma_peak(int threads) const;

 private:
  test::Image memory_;
  double one_stream_ = 0;
};

}  // namespace libwkv::perf
