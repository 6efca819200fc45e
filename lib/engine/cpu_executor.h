// SPDX-License-Identifier: Apache-2.0
// The CPU backend. Two ways through a layer, over the same kernels table: few rows stream the weights once (decode),
// many rows are matrix products (prefill, large batches).
#pragma once

#include <memory>

#include "base/memory.h"
#include "base/thread_pool.h"
#include "engine/cpu_weights.h"
#include "engine/cpu_workspace.h"
#include "engine/executor.h"
#include "kernels/table.h"
#include "model/hyper_parameters.h"
#include "state/cache.h"

namespace libwkv {

struct CpuOptions {
  int threads = 0;      // 0: one a usable core
  std::string kernels;  // empty: the best usable
  wkv_type weight_type = WKV_TYPE_DEFAULT;
  bool is_reproducible = false;
};

// Threads that a model loaded with `threads` runs on.
int resolve_threads(int threads);
// The best usable kernel set, or the one named. Throws WKV_NOT_FOUND naming the choices.
const kernels::Table &select_kernels(const std::string &name);
// Names of the kernel sets that this machine can use, best first.
std::vector<std::string> usable_kernels();

class CpuExecutor final : public Executor {
 public:
  CpuExecutor(const formats::Checkpoint &checkpoint, const HyperParameters &hyper, const CpuOptions &options,
              std::shared_ptr<MemoryAccount> account, const CpuWeightStore::Progress &progress);

  ExecutorInfo info() const override;
  int64_t chunk_rows(int64_t rows, int64_t most) const override;
  void reserve(int64_t rows, int64_t logits_rows) override;
  RunOutcome run(const Batch &batch, const LayerWatch *watch) noexcept override;
  void lock() override { pool_.mutex().lock(); }
  void unlock() override { pool_.mutex().unlock(); }
  void parallel(size_t count, void (*body)(void *context, size_t index), void *context) noexcept override;

 private:
  using Workspace = CpuWorkspace;
  // One matrix and the rows it multiplies.
  struct Product {
    const kernels::Matrix *matrix;
    const float *input;  // few rows: prepared; many rows: [rows][input_stride]
    int64_t input_stride;
    float *output;
    int64_t output_stride;
    bool squares = false;  // relu^2 on the result
  };

  void embed(const Batch &batch);
  bool run_few(const Batch &batch, const LayerWatch *watch);
  bool run_many(const Batch &batch, const LayerWatch *watch);
  void time_mix_few(const CpuLayer &layer, const Batch &batch, bool is_first_layer);
  void ffn_value_few(const CpuLayer &layer, int64_t rows);
  void logits(const Batch &batch);
  void save_shift(const Batch &batch, size_t offset);
  void recur(const Segment &segment, int64_t head, size_t wkv_offset);
  const float *previous_row(const Batch &batch, int64_t row, size_t segment, size_t shift) const;

  void multiply_few(const Product *products, size_t count, int64_t rows);
  void multiply_many(const Product *products, size_t count, int64_t rows);
  template <class Body>
  void each_row(int64_t rows, const Body &body);
  template <class Body>
  void each_task(size_t tasks, const Body &body);
  void prepare(const kernels::Matrix &matrix, const float *input, int64_t input_stride, int64_t rows, float *prepared);
  kernels::TimeMixInputs mix_inputs(const CpuLayer &layer, int64_t row, bool is_first_layer) const;
  kernels::TimeMixOutputs mix_outputs(const CpuLayer &layer, int64_t row) const;

  float *row(float *base, int64_t index) const { return base + index * width_stride_; }

  const HyperParameters hyper_;
  const StateLayout layout_;
  const kernels::Table &table_;
  const std::shared_ptr<MemoryAccount> account_;
  ThreadPool pool_;
  CpuWeightStore store_;
  const int64_t few_rows_;  // most rows that take the streaming way
  const CpuWorkspaceSizes sizes_;
  const int64_t width_stride_, ffn_stride_, rank_stride_;
  const size_t prepared_floats_, scratch_floats_;
  Workspace work_;
};

}  // namespace libwkv
