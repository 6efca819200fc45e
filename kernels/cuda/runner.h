// SPDX-License-Identifier: Apache-2.0
// One chunk of a step after another: brings the batch to the device, picks the way through the model, keeps CUDA graphs
// of the batches that come again and again, and brings scores back.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cuda/failure.h"
#include "kernels/cuda/model.h"
#include "kernels/cuda/plain.h"

namespace libwkv::cuda {

// What a runner needs to know of its model. Everything outlives it.
struct RunnerModel {
  DeviceShape shape;
  kernels::DeviceOptions options;
  Device device;
  StateShape states;
  Weights weights;
  cudaStream_t stream;
};

// The ways through a model.
enum class Way { plain };

class Runner {
 public:
  Runner() = default;
  Runner(const Runner &) = delete;
  Runner &operator=(const Runner &) = delete;
  ~Runner();

  // All weights are there.
  bool begin(const RunnerModel &model, kernels::DeviceFailure *failure);
  static uint64_t workspace_bytes(const DeviceShape &shape, const kernels::DeviceOptions &options, Format matrices,
                                  int64_t rows, int64_t logits_rows);
  static int64_t chunk_rows(const DeviceShape &shape, const kernels::DeviceOptions &options, int64_t rows,
                            int64_t most);
  bool reserve(int64_t rows, int64_t logits_rows, kernels::DeviceFailure *failure);
  kernels::DeviceOutcome run(const kernels::DeviceBatch &batch, kernels::DeviceFailure *failure);
  const char *kernels_name() const { return "cuda"; }

 private:
  // What decides the work of a batch but for the numbers in it: batches with the same one share a graph.
  struct Kind {
    int32_t rows, segments, snapshots, logits, longest;
    bool wants_scores;
    bool operator==(const Kind &) const = default;
  };
  struct Graph {
    Kind kind;
    cudaGraphExec_t exec;
    uint64_t used;  // when it was last launched
  };
  static size_t batch_bytes(const Kind &kind);
  Kind write_batch(const kernels::DeviceBatch &batch);
  Batch device_batch(const Kind &kind) const;
  Way way_of(const Kind &kind) const;
  cudaError_t enqueue(cudaStream_t stream, const Kind &kind, const LayerHook *hook, bool *stopped);
  cudaError_t launch(const Kind &kind);
  cudaError_t deliver(const kernels::DeviceBatch &batch);
  void free_workspace();

  RunnerModel model_{};
  int64_t rows_ = 0, logits_rows_ = 0;
  char *batch_host_ = nullptr;  // pinned
  char *memory_ = nullptr;      // on the device: batch, scores, workspace of the ways
  float *scores_ = nullptr;     // on the device [logits_rows][vocab]
  void *work_ = nullptr;
  float *scores_host_ = nullptr;  // pinned, of a few rows
  int64_t scores_host_rows_ = 0;
  cudaStream_t capture_ = nullptr;  // only graphs are made with it: other threads may use the model's meanwhile
  std::vector<Graph> graphs_;
  Kind last_kind_{};
  uint64_t launches_ = 0;
};

}  // namespace libwkv::cuda
