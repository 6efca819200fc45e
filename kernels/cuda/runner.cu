// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/runner.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/upload.h"

namespace libwkv::cuda {

using kernels::DeviceOutcome;

namespace {

constexpr int64_t most_host_rows = 16;  // of scores that lie in pinned memory at once
constexpr size_t most_graphs = 64;
constexpr int32_t most_graph_rows = 1024;
constexpr int32_t longest_in_graph = 16;  // tokens of a sequence: prompts are worth no graph

// Arrays of a batch, one after another.
struct BatchPlaces {
  size_t tokens, row_segment, logits_rows, segments, snapshots, bytes;
};

BatchPlaces places(int64_t rows, int64_t segments, int64_t snapshots, int64_t logits) {
  const auto next = [](size_t at, int64_t count, size_t size) {
    return (at + static_cast<size_t>(count) * size + 15) / 16 * 16;
  };
  BatchPlaces p{};
  p.row_segment = next(p.tokens, rows, sizeof(int32_t));
  p.logits_rows = next(p.row_segment, rows, sizeof(int32_t));
  p.segments = next(p.logits_rows, logits, sizeof(int32_t));
  p.snapshots = next(p.segments, segments, sizeof(Segment));
  p.bytes = next(p.snapshots, snapshots, sizeof(Snapshot));
  return p;
}

size_t most_batch_bytes(int64_t rows, int64_t logits_rows) {
  return aligned(places(rows, rows, rows, logits_rows).bytes);
}
size_t scores_bytes(const DeviceShape &shape, int64_t logits_rows) {
  return aligned(static_cast<size_t>(logits_rows * shape.vocab_size) * sizeof(float));
}

size_t ways_bytes(const DeviceShape &shape, const kernels::DeviceOptions &, Format, int64_t rows, int64_t) {
  return aligned(plain_workspace_bytes(shape, rows));
}

}  // namespace

uint64_t Runner::workspace_bytes(const DeviceShape &shape, const kernels::DeviceOptions &options, Format matrices,
                                 int64_t rows, int64_t logits_rows) {
  return most_batch_bytes(rows, logits_rows) + scores_bytes(shape, logits_rows) +
         ways_bytes(shape, options, matrices, rows, logits_rows);
}

int64_t Runner::chunk_rows(const DeviceShape &, const kernels::DeviceOptions &, int64_t rows, int64_t most) {
  return std::min(rows, most);
}

bool Runner::begin(const RunnerModel &model, kernels::DeviceFailure *failure) {
  model_ = model;
  graphs_.reserve(most_graphs);
  return check(cudaStreamCreateWithFlags(&capture_, cudaStreamNonBlocking), "a stream", failure);
}

Runner::~Runner() {
  free_workspace();
  if (capture_) (void)cudaStreamDestroy(capture_);
}

void Runner::free_workspace() {
  for (const Graph &graph : graphs_) cudaGraphExecDestroy(graph.exec);
  graphs_.clear();
  cudaFreeHost(batch_host_);
  cudaFreeHost(scores_host_);
  cudaFree(memory_);
  batch_host_ = memory_ = nullptr;
  scores_host_ = scores_ = nullptr;
  work_ = nullptr;
  rows_ = logits_rows_ = scores_host_rows_ = 0;
}

bool Runner::reserve(int64_t rows, int64_t logits_rows, kernels::DeviceFailure *failure) {
  if (rows <= rows_ && logits_rows <= logits_rows_) return true;
  free_workspace();
  const size_t bytes = workspace_bytes(model_.shape, model_.options, Format::f32, rows, logits_rows);
  const int64_t host_rows = std::min(logits_rows, most_host_rows);
  const bool has_room =
      check(cudaMalloc(&memory_, bytes), "the workspace of a step", failure) &&
      check(cudaMemsetAsync(memory_, 0, bytes, model_.stream), "clearing the workspace", failure) &&
      check(cudaMallocHost(&batch_host_, most_batch_bytes(rows, logits_rows)), "pinned memory", failure) &&
      check(cudaMallocHost(&scores_host_, std::max<size_t>(1, scores_bytes(model_.shape, host_rows))), "pinned memory",
            failure);
  if (!has_room) {
    free_workspace();
    return false;
  }
  scores_ = reinterpret_cast<float *>(memory_ + most_batch_bytes(rows, logits_rows));
  work_ = memory_ + most_batch_bytes(rows, logits_rows) + scores_bytes(model_.shape, logits_rows);
  rows_ = rows;
  logits_rows_ = logits_rows;
  scores_host_rows_ = host_rows;
  return true;
}

size_t Runner::batch_bytes(const Kind &kind) {
  return places(kind.rows, kind.segments, kind.snapshots, kind.logits).bytes;
}

Runner::Kind Runner::write_batch(const kernels::DeviceBatch &batch) {
  Kind kind{};
  kind.rows = static_cast<int32_t>(batch.rows);
  kind.segments = static_cast<int32_t>(batch.segments_count);
  kind.logits = static_cast<int32_t>(batch.logits_count);
  for (size_t s = 0; s < batch.segments_count; s++) {
    const kernels::DeviceSegment &segment = batch.segments[s];
    kind.snapshots += static_cast<int32_t>(segment.snapshots_count);
    kind.longest = std::max(kind.longest, static_cast<int32_t>(segment.end - segment.begin));
  }
  const BatchPlaces p = places(kind.rows, kind.segments, kind.snapshots, kind.logits);
  std::memcpy(batch_host_ + p.tokens, batch.tokens, static_cast<size_t>(batch.rows) * sizeof(int32_t));
  auto *row_segment = reinterpret_cast<int32_t *>(batch_host_ + p.row_segment);
  auto *segments = reinterpret_cast<Segment *>(batch_host_ + p.segments);
  auto *snapshots = reinterpret_cast<Snapshot *>(batch_host_ + p.snapshots);
  int32_t next = 0;
  for (size_t s = 0; s < batch.segments_count; s++) {
    const kernels::DeviceSegment &segment = batch.segments[s];
    segments[s] = {static_cast<const char *>(segment.from),
                   static_cast<char *>(segment.state),
                   static_cast<int32_t>(segment.begin),
                   static_cast<int32_t>(segment.end),
                   next,
                   static_cast<int32_t>(segment.snapshots_count)};
    for (size_t i = 0; i < segment.snapshots_count; i++)
      snapshots[next++] = {static_cast<int32_t>(segment.snapshots[i].row),
                           static_cast<char *>(segment.snapshots[i].state)};
    std::fill(row_segment + segment.begin, row_segment + segment.end, static_cast<int32_t>(s));
  }
  auto *logits_rows = reinterpret_cast<int32_t *>(batch_host_ + p.logits_rows);
  for (size_t i = 0; i < batch.logits_count; i++) {
    logits_rows[i] = static_cast<int32_t>(batch.logits[i].row);
    kind.wants_scores |= batch.logits[i].logits != nullptr;
  }
  return kind;
}

Batch Runner::device_batch(const Kind &kind) const {
  const BatchPlaces p = places(kind.rows, kind.segments, kind.snapshots, kind.logits);
  return {kind.rows,
          kind.segments,
          kind.snapshots,
          kind.logits,
          kind.longest,
          reinterpret_cast<const int32_t *>(memory_ + p.tokens),
          reinterpret_cast<const int32_t *>(memory_ + p.row_segment),
          reinterpret_cast<const Segment *>(memory_ + p.segments),
          reinterpret_cast<const Snapshot *>(memory_ + p.snapshots),
          reinterpret_cast<const int32_t *>(memory_ + p.logits_rows),
          scores_};
}

Way Runner::way_of(const Kind &) const { return Way::plain; }

// Everything of a chunk that happens on the device, up to the first scores in pinned memory.
cudaError_t Runner::enqueue(cudaStream_t stream, const Kind &kind, const LayerHook *hook, bool *stopped) {
  cudaError_t error = cudaMemcpyAsync(memory_, batch_host_, batch_bytes(kind), cudaMemcpyHostToDevice, stream);
  if (error != cudaSuccess) return error;
  const Batch batch = device_batch(kind);
  switch (way_of(kind)) {
    case Way::plain:
      error = plain_forward(stream, model_.shape, model_.states, model_.weights, batch, work_, hook, stopped);
      break;
  }
  if (error != cudaSuccess || *stopped || !kind.wants_scores) return error;
  const int64_t rows = std::min<int64_t>(kind.logits, scores_host_rows_);
  return cudaMemcpyAsync(scores_host_, scores_, static_cast<size_t>(rows * model_.shape.vocab_size) * sizeof(float),
                         cudaMemcpyDeviceToHost, stream);
}

// A batch that comes for the second time in a row gets a graph: its launch costs the host a few microseconds whatever
// the number of kernels.
cudaError_t Runner::launch(const Kind &kind) {
  bool stopped = false;
  const bool is_worth_it = kind.rows <= most_graph_rows && kind.longest <= longest_in_graph;
  auto found = std::find_if(graphs_.begin(), graphs_.end(), [&](const Graph &graph) { return graph.kind == kind; });
  if (found == graphs_.end()) {
    const bool is_new = !(last_kind_ == kind);
    last_kind_ = kind;
    if (!is_worth_it || is_new) return enqueue(model_.stream, kind, nullptr, &stopped);
    if (graphs_.size() == most_graphs) {
      const auto oldest = std::min_element(graphs_.begin(), graphs_.end(),
                                           [](const Graph &a, const Graph &b) { return a.used < b.used; });
      cudaGraphExecDestroy(oldest->exec);
      graphs_.erase(oldest);
    }
    cudaError_t error = cudaStreamBeginCapture(capture_, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) return error;
    error = enqueue(capture_, kind, nullptr, &stopped);
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(capture_, &graph);
    Graph made{kind, nullptr, 0};
    if (error == cudaSuccess) error = ended;
    if (error == cudaSuccess) error = cudaGraphInstantiate(&made.exec, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    if (error != cudaSuccess) return error;
    graphs_.push_back(made);
    found = graphs_.end() - 1;
  }
  found->used = ++launches_;
  return cudaGraphLaunch(found->exec, model_.stream);
}

// Waits for the chunk and hands its scores over.
cudaError_t Runner::deliver(const kernels::DeviceBatch &batch) {
  cudaError_t error = cudaStreamSynchronize(model_.stream);
  if (error != cudaSuccess) return error;
  const size_t vocab = static_cast<size_t>(model_.shape.vocab_size), at_once = static_cast<size_t>(scores_host_rows_);
  for (size_t first = 0; first < batch.logits_count; first += at_once) {
    const size_t rows = std::min(at_once, batch.logits_count - first);
    const auto *begin = batch.logits + first;
    if (std::none_of(begin, begin + rows, [](const kernels::DeviceLogits &one) { return one.logits != nullptr; }))
      continue;
    if (first > 0) {
      error = cudaMemcpyAsync(scores_host_, scores_ + first * vocab, rows * vocab * sizeof(float),
                              cudaMemcpyDeviceToHost, model_.stream);
      if (error == cudaSuccess) error = cudaStreamSynchronize(model_.stream);
      if (error != cudaSuccess) return error;
    }
    for (size_t i = 0; i < rows; i++)
      if (begin[i].logits) std::memcpy(begin[i].logits, scores_host_ + i * vocab, vocab * sizeof(float));
  }
  return cudaSuccess;
}

DeviceOutcome Runner::run(const kernels::DeviceBatch &batch, kernels::DeviceFailure *failure) {
  const Kind kind = write_batch(batch);
  bool stopped = false;
  cudaError_t error;
  if (batch.is_cancelled) {
    // Two layers are on their way at any time: the device does not wait for the host, and a cancel not for long.
    struct Watch {
      const kernels::DeviceBatch &batch;
      cudaStream_t stream;
      cudaEvent_t done[2];
    } watch{batch, model_.stream, {}};
    for (cudaEvent_t &event : watch.done)
      if (!check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event", failure))
        return DeviceOutcome::failed;
    const LayerHook hook{[](void *user, int64_t layers_done) {
                           Watch &w = *static_cast<Watch *>(user);
                           (void)cudaEventRecord(w.done[layers_done % 2], w.stream);
                           if (layers_done > 1) (void)cudaEventSynchronize(w.done[(layers_done + 1) % 2]);
                           return w.batch.is_cancelled(w.batch.user, layers_done);
                         },
                         &watch};
    error = enqueue(model_.stream, kind, &hook, &stopped);
    for (cudaEvent_t event : watch.done) (void)cudaEventDestroy(event);
  } else {
    error = launch(kind);
  }
  if (!check(error, "a step", failure)) return DeviceOutcome::failed;
  if (stopped) {
    if (!check(cudaStreamSynchronize(model_.stream), "a step", failure)) return DeviceOutcome::failed;
    return DeviceOutcome::cancelled;
  }
  return check(deliver(batch), "a step", failure) ? DeviceOutcome::done : DeviceOutcome::failed;
}

}  // namespace libwkv::cuda
