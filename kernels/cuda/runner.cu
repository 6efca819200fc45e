// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/runner.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/few.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/upload.h"

namespace libwkv::cuda {

using kernels::DeviceOutcome;

namespace {

constexpr int64_t most_host_rows = 16;  // of scores that lie in pinned memory at once
constexpr size_t most_graphs = 64;
constexpr int32_t most_graph_rows = 1024;
constexpr int64_t widest_streamed = 1024;  // beyond it stages as kernels of their own are faster (NOTES.md)
constexpr int64_t widest_plain = 1024;     // where the ways for few rows do not fit, these keep fp32 activations
constexpr int32_t longest_in_graph = 16;   // tokens of a sequence: prompts are worth no graph

// Arrays of a batch, one after another.
struct BatchPlaces {
  size_t tokens, row_segment, logits_rows, segments, snapshots, samples, bytes;
};

BatchPlaces places(int64_t rows, int64_t segments, int64_t snapshots, int64_t logits, int64_t samples) {
  const auto next = [](size_t at, int64_t count, size_t size) {
    return (at + static_cast<size_t>(count) * size + 15) / 16 * 16;
  };
  BatchPlaces p{};
  p.row_segment = next(p.tokens, rows, sizeof(int32_t));
  p.logits_rows = next(p.row_segment, rows, sizeof(int32_t));
  p.segments = next(p.logits_rows, logits, sizeof(int32_t));
  p.snapshots = next(p.segments, segments, sizeof(Segment));
  p.samples = next(p.snapshots, snapshots, sizeof(Snapshot));
  p.bytes = next(p.samples, samples, sizeof(SampleRow));
  return p;
}

size_t most_batch_bytes(int64_t rows, int64_t logits_rows) {
  return aligned(places(rows, rows + 1, rows, logits_rows, logits_rows).bytes);  // one sequence may be cut in two
}

// Formats alone decide, so that a plan and a model agree.
bool fits_few(const RunnerModel &m) { return !m.options.is_reproducible && few_fits(m.device, m.shape, m.weights); }
bool fits_stream(const RunnerModel &m) {
  return !m.options.is_reproducible && m.shape.width <= widest_streamed && stream_fits(m.device, m.shape, m.weights);
}
// Few rows of a small model that the way for few rows does not fit: many would round their activations.
bool takes_plain(const RunnerModel &m, bool has_few, int64_t rows) {
  return !has_few && rows <= few_rows && m.shape.width <= widest_plain;
}
bool fits_many(const RunnerModel &m) { return !m.options.is_reproducible && many_fits(m.device, m.shape, m.weights); }

// Parts of the memory for steps.
struct WorkPlaces {
  size_t scores, sampling, few, stream, shared, bytes;  // batch at 0; shared: plain or many, one at a time
};

WorkPlaces work_places(const RunnerModel &m, int64_t rows, int64_t logits_rows) {
  WorkPlaces p{};
  const bool has_many = fits_many(m), has_few = fits_few(m);
  p.scores = most_batch_bytes(rows, logits_rows);
  p.sampling = p.scores + aligned(static_cast<size_t>(logits_rows * m.shape.vocab_size) * sizeof(float));
  p.few = p.sampling + aligned(sample_workspace_bytes(m.device, m.shape.vocab_size, logits_rows));
  p.stream = p.few +
             (has_few ? aligned(few_workspace_bytes(m.shape, static_cast<int>(std::min<int64_t>(rows, few_rows)))) : 0);
  p.shared = p.stream + (fits_stream(m) ? aligned(stream_workspace_bytes(m.shape)) : 0);
  const bool is_always_few = has_few && rows <= few_rows;
  size_t shared = 0;
  if (has_many && !is_always_few) shared = many_workspace_bytes(m.device, m.shape, m.weights, rows, logits_rows);
  if (!has_many && !is_always_few) shared = plain_workspace_bytes(m.shape, rows);
  const int64_t plain_rows = std::min<int64_t>(rows, few_rows);
  if (takes_plain(m, has_few, plain_rows)) shared = std::max(shared, plain_workspace_bytes(m.shape, plain_rows));
  p.bytes = p.shared + aligned(shared);
  return p;
}

}  // namespace

uint64_t Runner::workspace_bytes(const RunnerModel &model, int64_t rows, int64_t logits_rows) {
  return work_places(model, rows, logits_rows).bytes;
}

uint64_t Runner::copies_bytes(const RunnerModel &model) {
  return fits_stream(model) ? aligned(stream_packed_bytes(model.shape)) : 0;
}

int64_t Runner::chunk_rows(int64_t rows, int64_t most) { return std::min(rows, most); }

bool Runner::begin(const RunnerModel &model, kernels::DeviceFailure *failure) {
  model_ = model;
  has_few_ = fits_few(model);
  has_stream_ = fits_stream(model);
  has_many_ = fits_many(model);
  graphs_.reserve(most_graphs);
  if (!begin_ahead(failure)) return false;
  if (!check(cudaStreamCreateWithFlags(&capture_, cudaStreamNonBlocking), "a stream", failure)) return false;
  if (has_many_ && !check(many_create(model.device, &plans_), "cuBLASLt", failure)) return false;
  if (!has_stream_) return true;
  return check(cudaMalloc(&copies_, copies_bytes(model)), "the weights", failure) &&
         check(stream_pack(model.stream, model.device, model.shape, model.weights, copies_), "the weights", failure) &&
         check(cudaStreamSynchronize(model.stream), "the weights", failure);
}

Runner::~Runner() {
  if (model_.stream) (void)cudaStreamSynchronize(model_.stream);
  free_workspace();
  for (int i = 0; i < Ahead::places; i++)
    for (cudaEvent_t event : {ahead_.is_sent[i], ahead_.is_done[i]})
      if (event) (void)cudaEventDestroy(event);
  if (ahead_.sending) (void)cudaStreamDestroy(ahead_.sending);
  (void)cudaFreeHost(ahead_.host);
  (void)cudaFree(ahead_.device);
  many_destroy(plans_);
  (void)cudaFree(copies_);
  if (capture_) (void)cudaStreamDestroy(capture_);
}

void Runner::drop_graphs() {
  if (ahead_.started > ahead_.finished) (void)cudaStreamSynchronize(model_.stream);
  for (cudaGraphExec_t &exec : ahead_.graphs) {
    if (exec) (void)cudaGraphExecDestroy(exec);
    exec = nullptr;
  }
  for (const Graph &graph : graphs_) (void)cudaGraphExecDestroy(graph.exec);
  graphs_.clear();
  last_kind_ = {};
}

void Runner::free_workspace() {
  drop_graphs();
  (void)cudaFreeHost(batch_host_);
  (void)cudaFreeHost(scores_host_);
  (void)cudaFreeHost(tokens_host_);
  (void)cudaFreeHost(lists_host_);
  (void)cudaFree(lists_device_);
  (void)cudaFree(memory_);
  batch_host_ = memory_ = lists_host_ = lists_device_ = nullptr;
  scores_host_ = nullptr;
  tokens_host_ = nullptr;
  lists_capacity_ = 0;
  rows_ = logits_rows_ = scores_host_rows_ = 0;
}

bool Runner::reserve(int64_t rows, int64_t logits_rows, kernels::DeviceFailure *failure) {
  if (rows <= rows_ && logits_rows <= logits_rows_) return true;
  free_workspace();
  const WorkPlaces p = work_places(model_, rows, logits_rows);
  const int64_t host_rows = std::min(logits_rows, most_host_rows);
  const size_t row_bytes = static_cast<size_t>(model_.shape.vocab_size) * sizeof(float);
  const bool has_room =
      check(cudaMalloc(&memory_, p.bytes), "the workspace of a step", failure) &&
      check(cudaMemsetAsync(memory_, 0, p.bytes, model_.stream), "clearing the workspace", failure) &&
      check(cudaMallocHost(&batch_host_, most_batch_bytes(rows, logits_rows)), "pinned memory", failure) &&
      check(cudaMallocHost(&scores_host_, std::max<size_t>(1, static_cast<size_t>(host_rows) * row_bytes)),
            "pinned memory", failure) &&
      check(cudaMallocHost(&tokens_host_, static_cast<size_t>(logits_rows + 1) * sizeof(int32_t)), "pinned memory",
            failure);
  if (!has_room) {
    free_workspace();
    return false;
  }
  scores_ = reinterpret_cast<float *>(memory_ + p.scores);
  sample_work_ = memory_ + p.sampling;
  few_work_ = memory_ + p.few;
  stream_work_ = memory_ + p.stream;
  work_ = memory_ + p.shared;
  rows_ = rows;
  logits_rows_ = logits_rows;
  scores_host_rows_ = host_rows;
  return true;
}

size_t Runner::batch_bytes(const Kind &kind) {
  return places(kind.rows(), kind.segments(), kind.snapshots(), kind.logits, kind.samples).bytes;
}

Runner::Kind Runner::write_batch(const kernels::DeviceBatch &batch, char *to) const {
  Kind kind{};
  kind.logits = static_cast<int32_t>(batch.logits_count);
  const auto rows = static_cast<int32_t>(batch.rows);
  kind.first.rows = static_cast<int32_t>(has_many_ && rows > few_rows
                                             ? many_first_half(model_.device, model_.shape, model_.weights, batch.rows,
                                                               static_cast<int64_t>(batch.segments_count))
                                             : 0);
  if (kind.first.rows == 0) kind.first.rows = rows;
  kind.second.rows = rows - kind.first.rows;

  // What one half has of a sequence.
  struct Piece {
    const kernels::DeviceSegment &segment;
    int32_t begin, end;
    bool goes_on;  // after what the first half has of it
    const kernels::DeviceSnapshot *snapshots;
    size_t snapshots_count;
  };
  const auto for_pieces = [&](auto &&visit) {
    for (size_t s = 0; s < batch.segments_count; s++) {
      const kernels::DeviceSegment &segment = batch.segments[s];
      const auto begin = static_cast<int32_t>(segment.begin), end = static_cast<int32_t>(segment.end);
      const int32_t cut = std::clamp(kind.first.rows, begin, end);
      size_t before = 0;
      while (before < segment.snapshots_count && segment.snapshots[before].row < cut) before++;
      if (begin < cut) visit(kind.first, 0, Piece{segment, begin, cut, false, segment.snapshots, before});
      if (cut < end)
        visit(kind.second, kind.first.rows,
              Piece{segment, cut, end, begin < cut, segment.snapshots + before, segment.snapshots_count - before});
    }
  };
  for_pieces([](Part &part, int32_t, const Piece &piece) {
    part.segments++;
    part.snapshots += static_cast<int32_t>(piece.snapshots_count);
    part.longest = std::max(part.longest, piece.end - piece.begin);
  });
  for (size_t i = 0; i < batch.logits_count; i++) kind.samples += batch.logits[i].sampler != nullptr;
  const BatchPlaces p = places(kind.rows(), kind.segments(), kind.snapshots(), kind.logits, kind.samples);
  std::memcpy(to + p.tokens, batch.tokens, static_cast<size_t>(batch.rows) * sizeof(int32_t));
  auto *row_segment = reinterpret_cast<int32_t *>(to + p.row_segment);
  auto *segments = reinterpret_cast<Segment *>(to + p.segments);
  auto *snapshots = reinterpret_cast<Snapshot *>(to + p.snapshots);
  // Rows, segments and snapshots count from the begin of their half.
  int32_t segments_count = 0, next = 0;
  for_pieces([&](const Part &part, int32_t first_row, const Piece &piece) {
    const bool is_second = &part == &kind.second;
    const int32_t first_segment = is_second ? kind.first.segments : 0,
                  first_snapshot = is_second ? kind.first.snapshots : 0;
    char *state = static_cast<char *>(piece.segment.state);
    std::fill(row_segment + piece.begin, row_segment + piece.end, segments_count - first_segment);
    segments[segments_count++] = {piece.goes_on ? state : static_cast<const char *>(piece.segment.from),
                                  state,
                                  piece.begin - first_row,
                                  piece.end - first_row,
                                  next - first_snapshot,
                                  static_cast<int32_t>(piece.snapshots_count)};
    for (size_t i = 0; i < piece.snapshots_count; i++)
      snapshots[next++] = {static_cast<int32_t>(piece.snapshots[i].row) - first_row,
                           static_cast<char *>(piece.snapshots[i].state)};
  });
  auto *logits_rows = reinterpret_cast<int32_t *>(to + p.logits_rows);
  auto *samples = reinterpret_cast<SampleRow *>(to + p.samples);
  int32_t counts = 0, biases = 0;
  for (size_t i = 0; i < batch.logits_count; i++) {
    logits_rows[i] = static_cast<int32_t>(batch.logits[i].row);
    kind.wants_scores |= batch.logits[i].logits != nullptr;
    const kernels::DeviceSampler *s = batch.logits[i].sampler;
    if (!s) continue;
    *samples++ = {s->temperature,
                  s->top_p,
                  s->min_p,
                  s->uniform,
                  s->repetition,
                  s->presence,
                  s->frequency,
                  s->top_k,
                  s->ids_end,
                  counts,
                  static_cast<int32_t>(s->counts_count),
                  biases,
                  static_cast<int32_t>(s->biases_count),
                  static_cast<int32_t>(i)};
    counts += static_cast<int32_t>(s->counts_count);
    biases += static_cast<int32_t>(s->biases_count);
  }
  return kind;
}

// Lists of samplers, where there are any. Their memory grows with them; graphs know where it is.
cudaError_t Runner::send_lists(const kernels::DeviceBatch &batch) {
  size_t counts = 0, biases = 0;
  for (size_t i = 0; i < batch.logits_count; i++)
    if (const kernels::DeviceSampler *s = batch.logits[i].sampler) {
      counts += s->counts_count;
      biases += s->biases_count;
    }
  if (counts + biases == 0) return cudaSuccess;
  // One capacity for both kinds, so that the places do not depend on the counts.
  const size_t most = std::max(counts, biases);
  if (most > lists_capacity_) {
    drop_graphs();
    (void)cudaFreeHost(lists_host_);
    (void)cudaFree(lists_device_);
    lists_host_ = lists_device_ = nullptr;
    lists_capacity_ = 0;
    const size_t capacity = std::max<size_t>(1024, 2 * most);
    cudaError_t error = cudaMallocHost(&lists_host_, capacity * 20);
    if (error == cudaSuccess) error = cudaMalloc(&lists_device_, capacity * 20);
    if (error != cudaSuccess) return error;
    lists_capacity_ = capacity;
    lists_ = {reinterpret_cast<int32_t *>(lists_device_ + capacity * 8), reinterpret_cast<double *>(lists_device_),
              reinterpret_cast<int32_t *>(lists_device_ + capacity * 12),
              reinterpret_cast<float *>(lists_device_ + capacity * 16)};
  }
  auto *count = reinterpret_cast<double *>(lists_host_);
  auto *counted = reinterpret_cast<int32_t *>(lists_host_ + lists_capacity_ * 8);
  auto *biased = reinterpret_cast<int32_t *>(lists_host_ + lists_capacity_ * 12);
  auto *bias = reinterpret_cast<float *>(lists_host_ + lists_capacity_ * 16);
  for (size_t i = 0; i < batch.logits_count; i++)
    if (const kernels::DeviceSampler *s = batch.logits[i].sampler) {
      count = std::copy_n(s->counts, s->counts_count, count);
      counted = std::copy_n(s->counted_tokens, s->counts_count, counted);
      biased = std::copy_n(s->bias_tokens, s->biases_count, biased);
      bias = std::copy_n(s->biases, s->biases_count, bias);
    }
  return cudaMemcpyAsync(lists_device_, lists_host_, lists_capacity_ * 20, cudaMemcpyHostToDevice, model_.stream);
}

// The whole, or, but for its tokens and scores, its first half.
Batch Runner::device_batch(const Kind &kind, const char *memory) const {
  const BatchPlaces p = places(kind.rows(), kind.segments(), kind.snapshots(), kind.logits, kind.samples);
  return {kind.rows(),
          kind.first.segments,
          kind.first.snapshots,
          kind.logits,
          kind.first.longest,
          reinterpret_cast<const int32_t *>(memory + p.tokens),
          reinterpret_cast<const int32_t *>(memory + p.row_segment),
          reinterpret_cast<const Segment *>(memory + p.segments),
          reinterpret_cast<const Snapshot *>(memory + p.snapshots),
          reinterpret_cast<const int32_t *>(memory + p.logits_rows),
          scores_};
}

Halves Runner::halves(const Kind &kind, const Batch &batch) const {
  Halves both{batch, batch};
  both.first.rows = kind.first.rows;
  both.second.rows = kind.second.rows;
  both.first.logits_count = both.second.logits_count = 0;
  both.second.segments_count = kind.second.segments;
  both.second.snapshots_count = kind.second.snapshots;
  both.second.longest = kind.second.longest;
  both.second.tokens += kind.first.rows;
  both.second.row_segment += kind.first.rows;
  both.second.segments += kind.first.segments;
  both.second.snapshots += kind.first.snapshots;
  return both;
}

Way Runner::way_of(const Kind &kind) const {
  if (has_stream_ && kind.rows() == 1 && kind.snapshots() == 0) return Way::stream;
  if (has_few_ && kind.rows() <= few_rows) return Way::few;
  if (takes_plain(model_, has_few_, kind.rows())) return Way::plain;
  return has_many_ ? Way::many : Way::plain;
}

// Few rows are done before anybody could cancel them: they are asked about once.
bool Runner::asks_on_the_way(const Kind &kind) const {
  const Way way = way_of(kind);
  return way == Way::plain || way == Way::many;
}

// From tokens to scores.
cudaError_t Runner::enqueue_way(cudaStream_t stream, const Kind &kind, const Batch &batch, const LayerHook *hook,
                                bool *stopped) {
  const RunnerModel &m = model_;
  switch (way_of(kind)) {
    case Way::plain:
      return plain_forward(stream, m.shape, m.states, m.weights, batch, work_, hook, stopped);
    case Way::few:
      return few_forward(stream, m.device, m.shape, m.states, m.weights, batch, few_work_);
    case Way::stream:
      return stream_forward(stream, m.device, m.shape, m.states, m.weights, copies_, batch, stream_work_);
    case Way::many:
      break;
  }
  const Halves both = halves(kind, batch);
  return many_forward(plans_, stream, m.device, m.shape, m.states, m.weights, batch,
                      kind.second.rows > 0 ? &both : nullptr, work_, hook, stopped);
}

// Everything of a chunk that happens on the device, up to chosen tokens and the first scores in pinned memory.
cudaError_t Runner::enqueue(cudaStream_t stream, const Kind &kind, const LayerHook *hook, bool *stopped) {
  const RunnerModel &m = model_;
  cudaError_t error = cudaMemcpyAsync(memory_, batch_host_, batch_bytes(kind), cudaMemcpyHostToDevice, stream);
  if (error != cudaSuccess) return error;
  error = enqueue_way(stream, kind, device_batch(kind, memory_), hook, stopped);
  if (error != cudaSuccess || *stopped) return error;
  if (kind.samples > 0) {
    const BatchPlaces p = places(kind.rows(), kind.segments(), kind.snapshots(), kind.logits, kind.samples);
    error =
        sample(stream, m.device, scores_, m.shape.vocab_size, reinterpret_cast<const SampleRow *>(memory_ + p.samples),
               kind.samples, lists_, tokens_host_, sample_work_);
    if (error != cudaSuccess) return error;
  }
  if (!kind.wants_scores) return cudaSuccess;
  const int64_t rows = std::min<int64_t>(kind.logits, scores_host_rows_);
  return cudaMemcpyAsync(scores_host_, scores_, static_cast<size_t>(rows * m.shape.vocab_size) * sizeof(float),
                         cudaMemcpyDeviceToHost, stream);
}

// A batch that comes for the second time in a row gets a graph: its launch costs the host a few microseconds whatever
// the number of kernels.
cudaError_t Runner::launch(const Kind &kind) {
  bool stopped = false;
  const bool is_worth_it =
      kind.rows() <= most_graph_rows && std::max(kind.first.longest, kind.second.longest) <= longest_in_graph;
  auto found = std::find_if(graphs_.begin(), graphs_.end(), [&](const Graph &graph) { return graph.kind == kind; });
  if (found == graphs_.end()) {
    const bool is_new = !(last_kind_ == kind);
    last_kind_ = kind;
    if (!is_worth_it || is_new) return enqueue(model_.stream, kind, nullptr, &stopped);
    if (graphs_.size() == most_graphs) {
      const auto oldest = std::min_element(graphs_.begin(), graphs_.end(),
                                           [](const Graph &a, const Graph &b) { return a.used < b.used; });
      (void)cudaGraphExecDestroy(oldest->exec);
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
    if (graph) (void)cudaGraphDestroy(graph);
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
  bool has_sent = false;
  for (size_t i = 0; i < batch.logits_count; i++)
    if (batch.logits[i].device_logits) {
      error = cudaMemcpyAsync(batch.logits[i].device_logits, scores_ + i * static_cast<size_t>(model_.shape.vocab_size),
                              static_cast<size_t>(model_.shape.vocab_size) * sizeof(float), cudaMemcpyDeviceToDevice,
                              model_.stream);
      if (error != cudaSuccess) return error;
      has_sent = true;
    }
  if (has_sent && (error = cudaStreamSynchronize(model_.stream)) != cudaSuccess) return error;
  for (size_t i = 0, chosen = 0; i < batch.logits_count; i++)
    if (batch.logits[i].sampler) *batch.logits[i].token = tokens_host_[chosen++];
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
  const Kind kind = write_batch(batch, batch_host_);
  bool stopped = false;
  if (!check(send_lists(batch), "a step", failure)) return DeviceOutcome::failed;
  cudaError_t error;
  if (batch.is_cancelled && asks_on_the_way(kind)) {
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
  if (batch.is_cancelled && !stopped && !asks_on_the_way(kind)) {
    if (!check(cudaStreamSynchronize(model_.stream), "a step", failure)) return DeviceOutcome::failed;
    stopped = batch.is_cancelled(batch.user, model_.shape.layers);
  }
  if (stopped) {
    if (!check(cudaStreamSynchronize(model_.stream), "a step", failure)) return DeviceOutcome::failed;
    return DeviceOutcome::cancelled;
  }
  return check(deliver(batch), "a step", failure) ? DeviceOutcome::done : DeviceOutcome::failed;
}

// ---- steps ahead

namespace {

// Of a step ahead: one row, one sampler.
kernels::DeviceBatch batch_ahead(const kernels::DeviceAheadStep &step, const int32_t *token,
                                 kernels::DeviceSegment *segment, kernels::DeviceLogits *logits) {
  *segment = {step.from, step.state, 0, 1, nullptr, 0};
  *logits = {0, nullptr, nullptr, step.sampler, nullptr};
  return {token, 1, segment, 1, logits, 1, nullptr, nullptr};
}

}  // namespace

bool Runner::begin_ahead(kernels::DeviceFailure *failure) {
  Ahead &a = ahead_;
  a.batch_bytes = aligned(places(1, 1, 0, 1, 1).bytes);
  // A batch for each place, biases, and tokens: on the device what each place reads; pinned what it chose, and the
  // first.
  a.tokens_at = Ahead::places * a.batch_bytes;
  a.lists_at = a.tokens_at + aligned((Ahead::places + 1) * sizeof(int32_t));
  a.bytes = a.lists_at + kernels::most_ahead_biases * (sizeof(int32_t) + sizeof(float));
  bool is_good = check(cudaMallocHost(&a.host, a.bytes), "pinned memory", failure) &&
                 check(cudaMalloc(&a.device, a.bytes), "steps ahead", failure) &&
                 check(cudaStreamCreateWithFlags(&a.sending, cudaStreamNonBlocking), "a stream", failure);
  for (int i = 0; i < Ahead::places; i++)
    for (cudaEvent_t *event : {&a.is_sent[i], &a.is_done[i]})
      is_good = is_good && check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "an event", failure);
  return is_good;
}

// The step of a place reads its token in the place's input, which the step before wrote.
cudaError_t Runner::enqueue_ahead(cudaStream_t stream, const Kind &kind, int place) {
  const Ahead &a = ahead_;
  const char *memory = a.device + static_cast<size_t>(place) * a.batch_bytes;
  auto *inputs = reinterpret_cast<int32_t *>(a.device + a.tokens_at);
  auto *chosen = reinterpret_cast<int32_t *>(a.host + a.tokens_at);
  Batch batch = device_batch(kind, memory);
  batch.tokens = inputs + place;
  bool stopped = false;
  const cudaError_t error = enqueue_way(stream, kind, batch, nullptr, &stopped);
  if (error != cudaSuccess) return error;
  const auto *biased = reinterpret_cast<const int32_t *>(a.device + a.lists_at);
  const SampleLists lists{nullptr, nullptr, biased,
                          reinterpret_cast<const float *>(biased + kernels::most_ahead_biases)};
  const size_t samples = places(1, 1, 0, 1, 1).samples;
  return sample(stream, model_.device, scores_, model_.shape.vocab_size,
                reinterpret_cast<const SampleRow *>(memory + samples), 1, lists, chosen + place, sample_work_,
                inputs + (place + 1) % Ahead::places);
}

cudaError_t Runner::launch_ahead(const kernels::DeviceAheadStep &step) {
  Ahead &a = ahead_;
  const int place = static_cast<int>(a.started % Ahead::places);
  const size_t at = static_cast<size_t>(place) * a.batch_bytes;
  kernels::DeviceSegment segment;
  kernels::DeviceLogits logits;
  const int32_t no_token = 0;
  const Kind kind = write_batch(batch_ahead(step, step.token ? step.token : &no_token, &segment, &logits), a.host + at);
  cudaError_t error = cudaMemcpyAsync(a.device + at, a.host + at, a.batch_bytes, cudaMemcpyHostToDevice, a.sending);
  if (error == cudaSuccess && step.token) {
    // Biases stay for the steps behind this one.
    const size_t count = step.sampler->biases_count;
    auto *token = reinterpret_cast<int32_t *>(a.host + a.tokens_at) + Ahead::places;
    auto *biased = reinterpret_cast<int32_t *>(a.host + a.lists_at);
    *token = *step.token;
    std::copy_n(step.sampler->bias_tokens, count, biased);
    std::copy_n(step.sampler->biases, count, reinterpret_cast<float *>(biased + kernels::most_ahead_biases));
    error = cudaMemcpyAsync(a.device + a.tokens_at + static_cast<size_t>(place) * sizeof(int32_t), token,
                            sizeof(int32_t), cudaMemcpyHostToDevice, a.sending);
    if (error == cudaSuccess && count > 0)
      error = cudaMemcpyAsync(a.device + a.lists_at, biased, a.bytes - a.lists_at, cudaMemcpyHostToDevice, a.sending);
  }
  if (error == cudaSuccess) error = cudaEventRecord(a.is_sent[place], a.sending);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(model_.stream, a.is_sent[place], 0);
  if (error == cudaSuccess && !a.graphs[place]) {
    error = cudaStreamBeginCapture(capture_, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) return error;
    error = enqueue_ahead(capture_, kind, place);
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(capture_, &graph);
    if (error == cudaSuccess) error = ended;
    if (error == cudaSuccess) error = cudaGraphInstantiate(&a.graphs[place], graph, 0);
    if (graph) (void)cudaGraphDestroy(graph);
  }
  if (error == cudaSuccess) error = cudaGraphLaunch(a.graphs[place], model_.stream);
  return error == cudaSuccess ? cudaEventRecord(a.is_done[place], model_.stream) : error;
}

bool Runner::start_ahead(const kernels::DeviceAheadStep &step, kernels::DeviceFailure *failure) {
  int32_t unwanted;
  while (step.token && ahead_.finished < ahead_.started)
    if (!finish_ahead(&unwanted, failure)) return false;
  const cudaError_t error = launch_ahead(step);
  if (error == cudaSuccess) ahead_.started++;
  return check(error, "a step ahead", failure);
}

bool Runner::finish_ahead(int32_t *token, kernels::DeviceFailure *failure) {
  const auto place = static_cast<size_t>(ahead_.finished % Ahead::places);
  ahead_.finished++;
  if (!check(cudaEventSynchronize(ahead_.is_done[place]), "a step ahead", failure)) return false;
  *token = reinterpret_cast<const int32_t *>(ahead_.host + ahead_.tokens_at)[place];
  return true;
}

}  // namespace libwkv::cuda
