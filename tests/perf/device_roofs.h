// SPDX-License-Identifier: Apache-2.0
// What a device can do at best, measured beside the library: the roofs of device_bench.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace libwkv::perf {

enum class Numbers { f16, bf16, f32 };  // of a matrix product; sums are always float32

class DeviceRoofs {
 public:
  virtual ~DeviceRoofs() = default;
  virtual std::string description() const = 0;

  // GB/s (10^9). 0: there is no such roof.
  virtual double read_bandwidth() = 0;       // of the device's memory
  virtual double copy_bandwidth() = 0;       // within it, bytes read and bytes written
  virtual double to_device_bandwidth() = 0;  // from pinned memory of the host
  virtual double to_host_bandwidth() = 0;
  // GFLOP/s of [outputs][inputs] times [inputs][columns], a multiply-add is 2.
  virtual double product(Numbers numbers, int64_t outputs, int64_t inputs, int64_t columns) = 0;
};

}  // namespace libwkv::perf
