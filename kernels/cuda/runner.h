// SPDX-License-Identifier: Apache-2.0
// One chunk of a step after another: brings the batch to the device, picks the way through the model, keeps CUDA graphs
// of the batches that come again and again, and brings scores or chosen tokens back.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cuda/failure.h"
#include "kernels/cuda/many.h"
#include "kernels/cuda/model.h"
#include "kernels/cuda/plain.h"
#include "kernels/cuda/sample.h"

namespace libwkv::cuda {

// What a runner needs to know of its model. Everything outlives it.
struct RunnerModel {
  DeviceShape shape;
  kernels::DeviceOptions options;
  Device device;
  StateShape states;
  Weights weights;  // before the tensors are there: with their shapes and formats alone
  cudaStream_t stream;
};

// The ways through a model.
enum class Way { plain, few, stream, many };

class Runner {
 public:
  Runner() = default;
  Runner(const Runner &) = delete;
  Runner &operator=(const Runner &) = delete;
  ~Runner();

  // These need no memory behind the weights, and ask no device.
  static uint64_t workspace_bytes(const RunnerModel &model, int64_t rows, int64_t logits_rows);
  static uint64_t copies_bytes(const RunnerModel &model);
  static int64_t chunk_rows(int64_t rows, int64_t most);

  // All weights are there.
  bool begin(const RunnerModel &model, kernels::DeviceFailure *failure);
  bool reserve(int64_t rows, int64_t logits_rows, kernels::DeviceFailure *failure);
  kernels::DeviceOutcome run(const kernels::DeviceBatch &batch, kernels::DeviceFailure *failure);
  bool start_ahead(const kernels::DeviceAheadStep &step, kernels::DeviceFailure *failure);
  bool finish_ahead(int32_t *token, kernels::DeviceFailure *failure);

 private:
  // What decides the work of a batch but for the numbers in it: batches with the same one share a graph.
  struct Part {
    int32_t rows, segments, snapshots, longest;
    bool operator==(const Part &) const = default;
  };
  struct Kind {
    Part first, second;  // second: of a batch in two halves, a sequence that is cut counting twice
    int32_t logits, samples;
    bool wants_scores;
    int32_t rows() const { return first.rows + second.rows; }
    int32_t segments() const { return first.segments + second.segments; }
    int32_t snapshots() const { return first.snapshots + second.snapshots; }
    bool operator==(const Kind &) const = default;
  };
  struct Graph {
    Kind kind;
    cudaGraphExec_t exec;
    uint64_t used;  // when it was last launched
  };
  // Steps that are on their way, in two places by turns. What one needs is sent on a stream of its own while the one
  // ahead runs, so that the model's stream goes from step to step.
  struct Ahead {
    static constexpr int places = static_cast<int>(kernels::most_steps_ahead);
    char *host = nullptr, *device = nullptr;  // one piece each, of `bytes`
    size_t batch_bytes = 0, tokens_at = 0, lists_at = 0, bytes = 0;
    cudaStream_t sending = nullptr;
    cudaEvent_t is_sent[places] = {}, is_done[places] = {};
    cudaGraphExec_t graphs[places] = {};
    uint64_t started = 0, finished = 0;
  };
  static size_t batch_bytes(const Kind &kind);
  Kind write_batch(const kernels::DeviceBatch &batch, char *to) const;
  bool begin_ahead(kernels::DeviceFailure *failure);
  cudaError_t enqueue_way(cudaStream_t stream, const Kind &kind, const Batch &batch, const LayerHook *hook,
                          bool *stopped);
  cudaError_t enqueue_ahead(cudaStream_t stream, const Kind &kind, int place);
  cudaError_t launch_ahead(const kernels::DeviceAheadStep &step);
  cudaError_t send_lists(const kernels::DeviceBatch &batch);
  Batch device_batch(const Kind &kind, const char *memory) const;
  Halves halves(const Kind &kind, const Batch &batch) const;
  Way way_of(const Kind &kind) const;
  bool asks_on_the_way(const Kind &kind) const;
  cudaError_t enqueue(cudaStream_t stream, const Kind &kind, const LayerHook *hook, bool *stopped);
  cudaError_t launch(const Kind &kind);
  cudaError_t deliver(const kernels::DeviceBatch &batch);
  void drop_graphs();
  void free_workspace();

  RunnerModel model_{};
  bool has_few_ = false, has_stream_ = false, has_many_ = false;
  void *copies_ = nullptr;  // on the device: weights in the order of the stream way
  ManyPlans *plans_ = nullptr;

  int64_t rows_ = 0, logits_rows_ = 0;
  char *batch_host_ = nullptr;  // pinned
  char *memory_ = nullptr;      // on the device: all of the following
  float *scores_ = nullptr;     // [logits_rows][vocab]
  void *sample_work_ = nullptr, *few_work_ = nullptr, *stream_work_ = nullptr, *work_ = nullptr;
  float *scores_host_ = nullptr;  // pinned, of a few rows
  int64_t scores_host_rows_ = 0;
  int32_t *tokens_host_ = nullptr;  // pinned: chosen ones [logits_rows], written by the device
  char *lists_host_ = nullptr, *lists_device_ = nullptr;
  size_t lists_capacity_ = 0;
  SampleLists lists_{};

  cudaStream_t capture_ = nullptr;  // only graphs are made with it: other threads may use the model's meanwhile
  std::vector<Graph> graphs_;
  Kind last_kind_{};
  uint64_t launches_ = 0;
  Ahead ahead_;
};

}  // namespace libwkv::cuda
