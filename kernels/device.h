// SPDX-License-Identifier: Apache-2.0
// The door to a backend that is a library of its own and owns its memory (kernels/cuda): a sized, versioned table of
// functions, found through the one symbol that such a library exports.
//
// Plain structs and pointers only: no exception, allocation or type of the C++ library passes through. A function that
// can fail returns false and fills its DeviceFailure. Memory of the device is named by untyped pointers that only the
// backend follows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/table.h"

namespace libwkv::kernels {

struct DeviceFailure {
  int32_t status;  // as wkv_status
  char text[252];
};

struct DeviceDescription {
  char description[128];  // for people: "NVIDIA H200, 132 multiprocessors"
  char kernels[64];       // what runs there: "cuda sm_90"
  char reason[128];       // why it cannot be used; empty when it can
  uint64_t memory_bytes;
  int32_t processors, is_usable;
};

struct DeviceShape {
  int64_t layers, width, heads, head_size, ffn_width, vocab_size, rank_w, rank_a, rank_v, rank_g;
};

// The tensors of a model, with layer -1 for those that exist once.
enum class DevicePart : int32_t {
  embedding,
  ln0_weight,
  ln0_bias,
  ln_out_weight,
  ln_out_bias,
  head,  // once
  ln1_weight,
  ln1_bias,
  ln2_weight,
  ln2_bias,
  ln_x_weight,
  ln_x_bias,  // vectors [width]
  x_r,
  x_w,
  x_k,
  x_v,
  x_a,
  x_g,
  ffn_x_k,
  w0,
  a0,
  v0,
  k_k,
  k_a,
  r_k,
  receptance,
  key,
  value,
  output,
  ffn_key,
  ffn_value,  // matrices [outputs][inputs]
  w1,
  a1,
  v1,
  g1,  // [rank][width]
  w2,
  a2,
  v2,
  g2,  // [width][rank]
};

// A tensor on its way to the device: `fill` writes rows [begin, end) of it, one after another and row_bytes each, in
// the order of Order::rows and the format `format`. It is called from the loading thread alone.
struct DeviceSource {
  int64_t rows, columns;
  Format format;  // of what fill writes
  size_t row_bytes;
  bool is_transposed;  // rows are inputs and columns outputs: plain formats only
  void (*fill)(void *context, int64_t begin, int64_t end, void *to);
  void *context;
};

// What a tensor will be held in: known before it is there.
struct DeviceTensorFormat {
  DevicePart part;
  Format format;
  int64_t layer;
};

// All tensors of a model.
struct DeviceFormats {
  const DeviceTensorFormat *tensors;
  size_t count;
};

struct DeviceOptions {
  int32_t index;            // device, as describe counts
  int32_t is_half_state;    // WKV numbers in F16
  int32_t is_reproducible;  // the same bits for any batch and chunk
};

struct DeviceSnapshot {
  int64_t row;
  void *state;
};

// As libwkv::Segment: states are memory of state_allocate.
struct DeviceSegment {
  const void *from;
  void *state;
  int64_t begin, end;  // rows
  const DeviceSnapshot *snapshots;
  size_t snapshots_count;
};

// What a sampler wants of a row's scores, once biases and bans are part of it.
struct DeviceSampler {
  double temperature, top_p, min_p;  // temperature 0: the largest score
  double uniform;                    // the number drawn, in [0, 1)
  int32_t top_k;                     // 0: all
  int32_t ids_end;                   // ids from here on are never chosen
  double repetition, presence, frequency;
  const int32_t *counted_tokens;  // rising; what penalties remember
  const double *counts;
  size_t counts_count;
  const int32_t *bias_tokens;  // never falling; added to scores before everything else, a ban is -infinity
  const float *biases;
  size_t biases_count;
};

struct DeviceLogits {
  int64_t row;
  float *logits;                 // host memory [vocab_size]; NULL: not wanted
  float *device_logits;          // device memory [vocab_size]; NULL: not wanted
  const DeviceSampler *sampler;  // NULL: none
  int32_t *token;                // host memory: what the sampler chose, -1 when no token was left
};

struct DeviceBatch {
  const int32_t *tokens;
  int64_t rows;
  const DeviceSegment *segments;
  size_t segments_count;
  const DeviceLogits *logits;
  size_t logits_count;
  // Asked now and then with layers that are done; true stops the run. NULL: never.
  bool (*is_cancelled)(void *user, int64_t layers_done);
  void *user;
};

// One token of one sequence, and the choice of the next, begun before the host knows the token.
struct DeviceAheadStep {
  const void *from;              // state
  void *state;                   // apart from `from`
  const DeviceSampler *sampler;  // without counts, and the same biases as in the steps ahead, at most most_ahead_biases
  const int32_t *token;          // NULL: what the step started before chose
};
inline constexpr size_t most_ahead_biases = 4096, most_steps_ahead = 2;

enum class DeviceOutcome : int32_t { done, cancelled, failed };

struct DeviceModel;  // the backend's own

struct DeviceTable {
  uint32_t table_size, table_version;
  const char *name;  // "cuda"

  // Devices of this process, usable or not. 0 with a reason when the driver cannot be used. Thread-safe.
  int32_t (*count)(char *reason, size_t capacity);
  void (*describe)(int32_t index, DeviceDescription *description);

  // Bytes on the device, known before anything is there. What a tensor takes when it is held in `format`:
  uint64_t (*part_bytes)(const DeviceShape *shape, DevicePart part, Format format);
  // of copies of weights in another order;
  uint64_t (*copies_bytes)(const DeviceShape *shape, const DeviceOptions *options, const DeviceFormats *formats);
  // of one state;
  uint64_t (*state_bytes)(const DeviceShape *shape, bool is_half);
  // of steps of at most `rows` rows with logits_rows wanted ones.
  uint64_t (*workspace_bytes)(const DeviceShape *shape, const DeviceOptions *options, const DeviceFormats *formats,
                              int64_t rows, int64_t logits_rows);
  // Rows that go through the layers together when a step has `rows`: at most `most`.
  int64_t (*chunk_rows)(const DeviceShape *shape, const DeviceOptions *options, int64_t rows, int64_t most);

  // A model with room for weights_bytes of tensors, without the copies, none of them there yet. NULL on failure.
  DeviceModel *(*create)(const DeviceShape *shape, const DeviceOptions *options, uint64_t weights_bytes,
                         DeviceFailure *failure);
  void (*destroy)(DeviceModel *model);  // NULL is fine
  // Brings a tensor to the device and holds it in `format` there. Every part but v0, v1 and v2 of layer 0 exactly once.
  bool (*load)(DeviceModel *model, DevicePart part, int64_t layer, const DeviceSource *source, Format format,
               DeviceFailure *failure);
  // All tensors are there: steps may come.
  bool (*finish_load)(DeviceModel *model, DeviceFailure *failure);
  void (*name_kernels)(const DeviceModel *model, char *text, size_t capacity);

  // States. Thread-safe; each call comes after the steps before it. first and count are in floats of StateLayout.
  void *(*state_allocate)(DeviceModel *model, DeviceFailure *failure);
  void (*state_free)(DeviceModel *model, void *state);
  bool (*state_zero)(DeviceModel *model, void *state, DeviceFailure *failure);
  bool (*state_copy)(DeviceModel *model, const void *from, void *to, DeviceFailure *failure);
  bool (*state_read)(DeviceModel *model, const void *state, size_t first, size_t count, float *values,
                     DeviceFailure *failure);
  bool (*state_write)(DeviceModel *model, void *state, size_t first, size_t count, const float *values,
                      DeviceFailure *failure);

  // Moves a state to pinned memory of the host and back: each frees what it was given, unless it fails.
  void *(*state_park)(DeviceModel *model, void *state, DeviceFailure *failure);
  void *(*state_unpark)(DeviceModel *model, void *parked, DeviceFailure *failure);
  void (*parked_free)(DeviceModel *model, void *parked);

  // Where float `first` of a state lies, and the stream of all work (cudaStream_t).
  void *(*state_place)(DeviceModel *model, void *state, size_t first);
  void *(*queue)(DeviceModel *model);

  // Makes room for steps; on failure the old room is still there or is made again when it is next needed.
  bool (*reserve)(DeviceModel *model, int64_t rows, int64_t logits_rows, DeviceFailure *failure);
  // One chunk of a step, from tokens to scores. After `reserve` it fails only with the device. One call at a time.
  DeviceOutcome (*run)(DeviceModel *model, const DeviceBatch *batch, DeviceFailure *failure);

  // Begins a step and returns, with room for one row reserved. One with a token drops the steps that are on their way;
  // one without comes behind them, of which there are fewer than most_steps_ahead. Other work of the model may come
  // between.
  bool (*start_ahead)(DeviceModel *model, const DeviceAheadStep *step, DeviceFailure *failure);
  // Waits for the first that is on its way: what it chose, -1 when no token was left.
  bool (*finish_ahead)(DeviceModel *model, int32_t *token, DeviceFailure *failure);
};

inline constexpr uint32_t device_table_version = 2;
inline constexpr char device_symbol[] = "wkv_device_table";
using DeviceTableFunction = const DeviceTable *(*)();

}  // namespace libwkv::kernels
