// SPDX-License-Identifier: Apache-2.0
#include "engine/device_executor.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/error.h"
#include "base/state_memory.h"
#include "engine/cpu_executor.h"
#include "engine/plugin.h"

namespace libwkv {

using kernels::DeviceFailure;

namespace {

// More threads than this do not make the copies to pinned memory faster, and samplers are few.
constexpr int most_threads = 16;

class DeviceStates final : public StateMemory {
 public:
  DeviceStates(std::shared_ptr<DeviceHandle> handle, size_t bytes) : handle_(std::move(handle)), bytes_(bytes) {}

  size_t bytes() const override { return bytes_; }
  void *allocate() override {
    DeviceFailure failure{};
    void *state = table().state_allocate(model(), &failure);
    if (!state) fail_device(failure);
    return state;
  }
  void release(void *state) noexcept override { table().state_free(model(), state); }
  void zero(void *state) override {
    DeviceFailure failure{};
    if (!table().state_zero(model(), state, &failure)) fail_device(failure);
  }
  void copy(const void *from, void *to) override {
    DeviceFailure failure{};
    if (!table().state_copy(model(), from, to, &failure)) fail_device(failure);
  }
  void read(const void *state, size_t first, std::span<float> values) override {
    DeviceFailure failure{};
    if (!table().state_read(model(), state, first, values.size(), values.data(), &failure)) fail_device(failure);
  }
  void write(void *state, size_t first, std::span<const float> values) override {
    DeviceFailure failure{};
    if (!table().state_write(model(), state, first, values.size(), values.data(), &failure)) fail_device(failure);
  }
  void *park(void *state) override {
    DeviceFailure failure{};
    void *parked = table().state_park(model(), state, &failure);
    if (!parked) fail_device(failure);
    return parked;
  }
  void *unpark(void *parked) override {
    DeviceFailure failure{};
    void *state = table().state_unpark(model(), parked, &failure);
    if (!state) fail_device(failure);
    return state;
  }
  void release_parked(void *parked) noexcept override { table().parked_free(model(), parked); }

 private:
  const kernels::DeviceTable &table() const { return handle_->table(); }
  kernels::DeviceModel *model() const { return handle_->model(); }
  const std::shared_ptr<DeviceHandle> handle_;
  const size_t bytes_;
};

}  // namespace

DeviceHandle::DeviceHandle(const kernels::DeviceTable &table, const kernels::DeviceShape &shape,
                           const kernels::DeviceOptions &options, uint64_t weights_bytes)
    : table_(table) {
  DeviceFailure failure{};
  model_ = table.create(&shape, &options, weights_bytes, &failure);
  if (!model_) fail_device(failure);
}

DeviceExecutor::DeviceExecutor(const formats::Checkpoint &checkpoint, const HyperParameters &hyper,
                               const DeviceModelOptions &options, std::shared_ptr<MemoryAccount> account,
                               const std::function<bool(uint64_t done_bytes, uint64_t total_bytes)> &progress)
    : options_(options),
      table_(*cuda_plugin().table),
      shape_(device_shape(hyper)),
      device_options_{options.index, options.has_half_state, options.is_reproducible},
      account_(std::move(account)),
      pool_(std::min(resolve_threads(options.threads), most_threads)) {
  const DeviceWeightPlan plan = plan_device_weights(checkpoint, hyper, options.weight_type, device_options_, table_);
  account_->reserve(MemoryKind::weights, plan.weight_bytes);
  weight_bytes_ = plan.weight_bytes;
  step_bytes_ = plan.step_bytes;
  compute_types_ = plan.compute_types;
  formats_ = plan.formats;
  try {
    handle_ = std::make_shared<DeviceHandle>(table_, shape_, device_options_, plan.weight_bytes - plan.copies_bytes);
    load_device_weights(plan, table_, handle_->model(), pool_, progress);
    char names[64] = "";
    table_.name_kernels(handle_->model(), names, sizeof names);
    kernels_ = names;
    auto states = std::make_shared<DeviceStates>(handle_, table_.state_bytes(&shape_, options.has_half_state));
    states->set_parking_limit(options.parking_limit_bytes);
    account_->keep_states_in(std::move(states));
  } catch (...) {
    account_->release(MemoryKind::weights, weight_bytes_);
    throw;
  }
}

// The plugin's model may live on in states that somebody holds, but nothing steps with it any more.
DeviceExecutor::~DeviceExecutor() {
  account_->release(MemoryKind::weights, weight_bytes_);
  account_->release(MemoryKind::workspace, workspace_bytes_);
}

ExecutorInfo DeviceExecutor::info() const {
  return {"cuda:" + std::to_string(options_.index),
          kernels_,
          compute_types_,
          pool_.threads(),
          weight_bytes_,
          0,
          step_bytes_};
}

int64_t DeviceExecutor::chunk_rows(int64_t rows, int64_t most) const {
  return table_.chunk_rows(&shape_, &device_options_, rows, most);
}

void DeviceExecutor::reserve(int64_t rows, int64_t logits_rows) {
  if (rows <= rows_ && logits_rows <= logits_rows_) return;
  rows = std::max(rows, rows_);
  logits_rows = std::max(logits_rows, logits_rows_);
  segments_.reserve(static_cast<size_t>(rows));
  logits_.reserve(static_cast<size_t>(logits_rows));
  const kernels::DeviceFormats formats{formats_.data(), formats_.size()};
  const uint64_t bytes = table_.workspace_bytes(&shape_, &device_options_, &formats, rows, logits_rows);
  // Nothing in a workspace outlives a step, so the old one goes first: both together would pass what was planned.
  account_->release(MemoryKind::workspace, workspace_bytes_);
  const uint64_t old_bytes = std::exchange(workspace_bytes_, 0);
  try {
    account_->reserve(MemoryKind::workspace, bytes);
  } catch (...) {
    account_->reserve(MemoryKind::workspace, old_bytes);
    workspace_bytes_ = old_bytes;
    throw;
  }
  workspace_bytes_ = bytes;
  DeviceFailure failure{};
  if (!table_.reserve(handle_->model(), rows, logits_rows, &failure)) {
    rows_ = logits_rows_ = 0;  // the plugin has none now: the next step asks again
    account_->release(MemoryKind::workspace, std::exchange(workspace_bytes_, 0));
    fail_device(failure);
  }
  rows_ = rows;
  logits_rows_ = logits_rows;
}

RunOutcome DeviceExecutor::run(const Batch &batch, const LayerWatch *watch) noexcept {
  segments_.clear();
  for (const Segment &segment : batch.segments)
    segments_.push_back(
        {segment.from, segment.state, segment.begin, segment.end, segment.snapshots.data(), segment.snapshots.size()});
  logits_.clear();
  for (const LogitsRow &one : batch.logits)
    logits_.push_back({one.row, one.logits, one.device_logits, one.sampler, one.token});
  const kernels::DeviceBatch whole{batch.tokens.data(),
                                   static_cast<int64_t>(batch.tokens.size()),
                                   segments_.data(),
                                   segments_.size(),
                                   logits_.data(),
                                   logits_.size(),
                                   watch ? watch->is_cancelled : nullptr,
                                   watch ? watch->user : nullptr};
  switch (table_.run(handle_->model(), &whole, &failure_)) {
    case kernels::DeviceOutcome::done:
      return RunOutcome::done;
    case kernels::DeviceOutcome::cancelled:
      return RunOutcome::cancelled;
    default:
      return RunOutcome::failed;
  }
}

StateTensor DeviceExecutor::state_tensor(const StateHold &hold, int64_t layer, wkv_state_part part) {
  const StatePin pin(hold);
  const size_t width = static_cast<size_t>(shape_.width);
  const size_t layer_floats = 2 * width + static_cast<size_t>(shape_.heads * shape_.head_size * shape_.head_size);
  const size_t first = static_cast<size_t>(layer) * layer_floats + (part == WKV_STATE_ATT_SHIFT   ? 0
                                                                    : part == WKV_STATE_FFN_SHIFT ? width
                                                                                                  : 2 * width);
  return {table_.state_place(handle_->model(), pin.memory(), first), options_.index,
          options_.has_half_state && part == WKV_STATE_WKV};
}

void DeviceExecutor::parallel(size_t count, void (*body)(void *context, size_t index), void *context) noexcept {
  std::lock_guard lock(pool_.mutex());
  std::atomic<size_t> next{0};
  pool_.run(std::min<size_t>(count, static_cast<size_t>(pool_.threads())), [&](size_t) {
    for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(context, i);
  });
}

}  // namespace libwkv
