// SPDX-License-Identifier: Apache-2.0
// A backend: runs a ragged batch of tokens through a whole model. One class a device; coarse, so that a backend may
// fuse as it likes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <wkv/cache.h>

#include "kernels/device.h"
#include "state/state.h"

namespace libwkv {

// A state that is wanted on the way: that after a row.
using RowState = kernels::DeviceSnapshot;

// Consecutive rows of a batch that belong to one sequence. States are memory of StateHold.
struct Segment {
  const void *from;                     // before the first row
  void *state;                          // where the one after the last row goes: from itself, or memory apart from it
  int64_t begin, end;                   // rows
  std::span<const RowState> snapshots;  // rising rows in [begin, end - 1)
};

// A row whose scores are wanted, or a token chosen from them where they are.
struct LogitsRow {
  int64_t row;
  float *logits;                   // [vocab_size]; NULL: not wanted on the host
  float *device_logits = nullptr;  // the same in the device's memory
  const kernels::DeviceSampler *sampler = nullptr;
  int32_t *token = nullptr;  // with a sampler: -1 when no token is left to choose from
};

struct Batch {
  std::span<const int32_t> tokens;    // one a row, checked
  std::span<const Segment> segments;  // in order, covering all rows, each with its own state
  std::span<const LogitsRow> logits;  // rising rows
};

// Asked after each layer of a batch; true stops the run there.
struct LayerWatch {
  bool (*is_cancelled)(void *user, int64_t layers_done);
  void *user;
};

// A part of a state in a device's memory.
struct StateTensor {
  void *data = nullptr;
  int32_t device = 0;
  bool is_half = false;
};

enum class RunOutcome { done, cancelled, failed };

// What wkv_model_info says about a backend's weights.
struct ExecutorInfo {
  std::string device, kernels, compute_types;
  int threads = 1;
  uint64_t weight_bytes = 0, mapped_bytes = 0, step_bytes = 0;
};

class Executor {
 public:
  virtual ~Executor() = default;
  virtual ExecutorInfo info() const = 0;
  // Rows that should go through the layers together when a step has `rows` of them: at most `most`.
  virtual int64_t chunk_rows(int64_t rows, int64_t most) const = 0;
  // Makes room for batches of up to `rows` rows with `logits_rows` wanted ones. Throws WKV_OUT_OF_MEMORY and changes
  // nothing. After it, run cannot fail but by the loss of a device.
  virtual void reserve(int64_t rows, int64_t logits_rows) = 0;
  // When the watch (NULL: none) stopped it, or the device failed, every segment's `state` has any content.
  virtual RunOutcome run(const Batch &batch, const LayerWatch *watch) noexcept = 0;
  // Why run failed.
  virtual const char *fault() const noexcept { return ""; }
  // States are a device's memory, scores may stay there, and rows of a batch may have a sampler.
  virtual bool is_on_device() const { return false; }
  // Where the numbers of a part of a state lie in the device's memory, and the queue that all work goes through. Only
  // asked of those on a device.
  virtual StateTensor state_tensor(const StateHold &, int64_t, wkv_state_part) { return {}; }
  virtual void *queue() { return nullptr; }
  // Steps of a device that are begun before their token is known on the host, as kernels::DeviceTable says. False: the
  // device failed, and nothing is on its way.
  virtual bool start_ahead(const kernels::DeviceAheadStep &) noexcept { return false; }
  virtual bool finish_ahead(int32_t *) noexcept { return false; }
  // Held from reserve to the last run of a step: steps of one model take turns.
  virtual void lock() = 0;
  virtual void unlock() = 0;
  // body(i) for i in [0, count) on the backend's host threads, under the lock. body must not throw.
  virtual void parallel(size_t count, void (*body)(void *context, size_t index), void *context) noexcept = 0;
};

}  // namespace libwkv
