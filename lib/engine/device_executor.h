// SPDX-License-Identifier: Apache-2.0
// A model on a device of a plugin: weights, states and steps live there, only tokens and scores travel.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/thread_pool.h"
#include "engine/device_weights.h"
#include "engine/executor.h"
#include "formats/checkpoint.h"
#include "model/hyper_parameters.h"

namespace libwkv {

struct DeviceModelOptions {
  int index = 0;    // of the device
  int threads = 0;  // that pack weights while loading
  wkv_type weight_type = WKV_TYPE_DEFAULT;
  bool has_half_state = false;
  bool is_reproducible = false;
  uint64_t parking_limit_bytes = 0;
};

// The plugin's model, kept by whoever holds memory of it.
class DeviceHandle {
 public:
  DeviceHandle(const kernels::DeviceTable &table, const kernels::DeviceShape &shape,
               const kernels::DeviceOptions &options, uint64_t weights_bytes);  // throws
  ~DeviceHandle() { table_.destroy(model_); }
  DeviceHandle(const DeviceHandle &) = delete;
  DeviceHandle &operator=(const DeviceHandle &) = delete;
  const kernels::DeviceTable &table() const { return table_; }
  kernels::DeviceModel *model() const { return model_; }

 private:
  const kernels::DeviceTable &table_;
  kernels::DeviceModel *model_;
};

class DeviceExecutor final : public Executor {
 public:
  // States of the account are made on the device from then on.
  DeviceExecutor(const formats::Checkpoint &checkpoint, const HyperParameters &hyper, const DeviceModelOptions &options,
                 std::shared_ptr<MemoryAccount> account,
                 const std::function<bool(uint64_t done_bytes, uint64_t total_bytes)> &progress);
  ~DeviceExecutor() override;

  ExecutorInfo info() const override;
  int64_t chunk_rows(int64_t rows, int64_t most) const override;
  void reserve(int64_t rows, int64_t logits_rows) override;
  RunOutcome run(const Batch &batch, const LayerWatch *watch) noexcept override;
  const char *fault() const noexcept override { return failure_.text; }
  bool is_on_device() const override { return true; }
  StateTensor state_tensor(const StateHold &hold, int64_t layer, wkv_state_part part) override;
  void *queue() override { return table_.queue(handle_->model()); }
  bool start_ahead(const kernels::DeviceAheadStep &step) noexcept override {
    return table_.start_ahead(handle_->model(), &step, &failure_);
  }
  bool finish_ahead(int32_t *token) noexcept override {
    return table_.finish_ahead(handle_->model(), token, &failure_);
  }
  void lock() override { mutex_.lock(); }
  void unlock() override { mutex_.unlock(); }
  void parallel(size_t count, void (*body)(void *context, size_t index), void *context) noexcept override;

 private:
  const DeviceModelOptions options_;
  const kernels::DeviceTable &table_;
  const kernels::DeviceShape shape_;
  const kernels::DeviceOptions device_options_;
  const std::shared_ptr<MemoryAccount> account_;
  std::mutex mutex_;
  ThreadPool pool_;
  std::string compute_types_, kernels_;
  std::vector<kernels::DeviceTensorFormat> formats_;
  uint64_t weight_bytes_ = 0, step_bytes_ = 0, workspace_bytes_ = 0;
  std::shared_ptr<DeviceHandle> handle_;
  int64_t rows_ = 0, logits_rows_ = 0;  // that there is room for
  std::vector<kernels::DeviceSegment> segments_;
  std::vector<kernels::DeviceLogits> logits_;
  kernels::DeviceFailure failure_{};
};

}  // namespace libwkv
