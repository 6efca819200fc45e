// SPDX-License-Identifier: Apache-2.0
// A checkpoint's tensors on their way to a device: what goes there, in which format, and the bytes of it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <wkv/model.h>

#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "kernels/device.h"
#include "model/hyper_parameters.h"

namespace libwkv {

struct DeviceTensor {
  kernels::DevicePart part;
  int64_t layer;  // -1 for what exists once
  const formats::Tensor *tensor;
  std::string name;
  kernels::Format source;  // what the host sends
  kernels::Format format;  // what the device holds
  int64_t rows, columns;   // of what is sent
  size_t row_bytes;
  bool is_transposed;  // rows sent are inputs
};

struct DeviceWeightPlan {
  std::vector<DeviceTensor> tensors;
  std::string compute_types;                         // of the large matrices, by bytes, largest first
  std::vector<kernels::DeviceTensorFormat> formats;  // of tensors
  uint64_t weight_bytes = 0, step_bytes = 0, file_bytes = 0;
  uint64_t copies_bytes = 0;  // part of weight_bytes: weights that lie there in another order once more

  kernels::DeviceFormats all_formats() const { return {formats.data(), formats.size()}; }
};

kernels::DeviceShape device_shape(const HyperParameters &hyper);

// The plan alone reads no weight. Throws WKV_FORMAT and WKV_UNSUPPORTED naming the tensor.
DeviceWeightPlan plan_device_weights(const formats::Checkpoint &checkpoint, const HyperParameters &hyper,
                                     wkv_type weight_type, const kernels::DeviceOptions &options,
                                     const kernels::DeviceTable &table);

// Sends every tensor. progress, if any: true cancels. Throws Error, WKV_CANCELLED included.
void load_device_weights(const DeviceWeightPlan &plan, const kernels::DeviceTable &table, kernels::DeviceModel *model,
                         ThreadPool &pool,
                         const std::function<bool(uint64_t done_bytes, uint64_t total_bytes)> &progress);

// Throws the failure as Error.
[[noreturn]] void fail_device(const kernels::DeviceFailure &failure);

}  // namespace libwkv
