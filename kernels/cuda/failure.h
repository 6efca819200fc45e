// SPDX-License-Identifier: Apache-2.0
// CUDA errors as failures of the device table.
#pragma once

#include <cstdarg>
#include <cstdio>

#include <cuda_runtime.h>

#include "kernels/device.h"

namespace libwkv::cuda {

// Numbers of wkv_status, which this library does not include.
inline constexpr int32_t status_unsupported = -5, status_out_of_memory = -6, status_device = -10, status_internal = -11;

inline bool fail(kernels::DeviceFailure *failure, int32_t status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
inline bool fail(kernels::DeviceFailure *failure, int32_t status, const char *format, ...) {
  failure->status = status;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(failure->text, sizeof failure->text, format, arguments);
  va_end(arguments);
  return false;
}

// True when there is no error. Running out of memory is no fault of the device.
inline bool check(cudaError_t error, const char *what, kernels::DeviceFailure *failure) {
  if (error == cudaSuccess) return true;
  (void)cudaGetLastError();  // the next call shall not take it for its own
  if (error == cudaErrorMemoryAllocation) {
    return fail(failure, status_out_of_memory, "no device memory for %s", what);
  }
  return fail(failure, status_device, "%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

}  // namespace libwkv::cuda
