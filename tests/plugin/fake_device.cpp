// SPDX-License-Identifier: Apache-2.0
#include "tests/plugin/fake_device.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "kernels/device.h"

namespace libwkv::kernels {

struct DeviceModel {
  DeviceShape shape;
  int64_t floats;  // of a state
  bool has_workspace = false;
  std::deque<int32_t> ahead;  // what steps that are on their way have chosen
  int32_t ahead_token = 0;    // the last one of them
};

namespace {

test::FakeDevice fake;

bool fails(std::atomic<int64_t> &countdown) { return countdown > 0 && --countdown == 0; }

bool refuse(DeviceFailure *failure, int32_t status, const char *text) {
  failure->status = status;
  std::snprintf(failure->text, sizeof failure->text, "%s", text);
  return false;
}

int64_t floats_of(const DeviceShape &s) { return s.layers * (2 * s.width + s.heads * s.head_size * s.head_size); }

int32_t count(char *, size_t) { return 2; }

void describe(int32_t index, DeviceDescription *out) {
  *out = {};
  std::snprintf(out->description, sizeof out->description, "a device that is none, number %d", index);
  std::snprintf(out->kernels, sizeof out->kernels, "fake");
  out->memory_bytes = 1 << 30;
  out->processors = 7;
  out->is_usable = index == 0;
  if (index != 0) std::snprintf(out->reason, sizeof out->reason, "it is the second one");
}

uint64_t part_bytes(const DeviceShape *, DevicePart, Format) { return 1000; }
uint64_t copies_bytes(const DeviceShape *, const DeviceOptions *, const DeviceFormats *) { return 500; }
uint64_t state_bytes(const DeviceShape *shape, bool) { return static_cast<uint64_t>(floats_of(*shape)) * 4; }
uint64_t workspace_bytes(const DeviceShape *, const DeviceOptions *, const DeviceFormats *, int64_t rows,
                         int64_t logits_rows) {
  return static_cast<uint64_t>(rows * 100 + logits_rows * 10);
}
int64_t chunk_rows(const DeviceShape *, const DeviceOptions *, int64_t rows, int64_t most) {
  return std::min(rows, most);
}

DeviceModel *create(const DeviceShape *shape, const DeviceOptions *, uint64_t, DeviceFailure *) {
  fake.models++;
  fake.parts = 0;
  return new DeviceModel{*shape, floats_of(*shape), false, {}, 0};
}

void destroy(DeviceModel *model) {
  if (!model) return;
  fake.models--;
  fake.workspaces -= model->has_workspace;
  delete model;
}

bool load(DeviceModel *, DevicePart, int64_t, const DeviceSource *source, Format, DeviceFailure *failure) {
  if (fails(fake.fail_load)) return refuse(failure, -10, "the device is gone");
  // In two goes, as a device with a small buffer would ask, with a guard behind them.
  std::vector<unsigned char> rows(static_cast<size_t>(source->rows) * source->row_bytes + 1, 0xab);
  const int64_t half = source->rows / 2;
  if (half > 0) source->fill(source->context, 0, half, rows.data());
  source->fill(source->context, half, source->rows, rows.data() + static_cast<size_t>(half) * source->row_bytes);
  if (rows.back() != 0xab) return refuse(failure, -11, "a tensor was longer than it said");
  fake.parts++;
  return true;
}

bool finish_load(DeviceModel *, DeviceFailure *) { return true; }
void name_kernels(const DeviceModel *, char *text, size_t capacity) { std::snprintf(text, capacity, "fake"); }

void *state_allocate(DeviceModel *model, DeviceFailure *failure) {
  if (fails(fake.fail_state)) {
    refuse(failure, -6, "no device memory for a state");
    return nullptr;
  }
  fake.states++;
  float *state = static_cast<float *>(std::malloc(static_cast<size_t>(model->floats) * 4));
  std::fill_n(state, model->floats, std::nanf(""));  // any content
  return state;
}
void state_free(DeviceModel *, void *state) {
  fake.states--;
  std::free(state);
}
bool state_zero(DeviceModel *model, void *state, DeviceFailure *) {
  std::memset(state, 0, static_cast<size_t>(model->floats) * 4);
  return true;
}
bool state_copy(DeviceModel *model, const void *from, void *to, DeviceFailure *) {
  std::memcpy(to, from, static_cast<size_t>(model->floats) * 4);
  return true;
}
bool state_read(DeviceModel *, const void *state, size_t first, size_t numbers, float *values, DeviceFailure *) {
  std::memcpy(values, static_cast<const float *>(state) + first, numbers * 4);
  return true;
}
bool state_write(DeviceModel *, void *state, size_t first, size_t numbers, const float *values, DeviceFailure *) {
  std::memcpy(static_cast<float *>(state) + first, values, numbers * 4);
  return true;
}
void *state_park(DeviceModel *, void *state, DeviceFailure *failure) {
  if (fails(fake.fail_park)) {
    refuse(failure, -6, "no pinned memory for a state");
    return nullptr;
  }
  fake.states--;
  fake.parked++;
  return state;
}
void *state_unpark(DeviceModel *, void *parked, DeviceFailure *failure) {
  if (fails(fake.fail_state)) {
    refuse(failure, -6, "no device memory for a state");
    return nullptr;
  }
  fake.states++;
  fake.parked--;
  return parked;
}
void parked_free(DeviceModel *, void *parked) {
  fake.parked--;
  std::free(parked);
}
void *state_place(DeviceModel *, void *state, size_t first) { return static_cast<float *>(state) + first; }
void *queue(DeviceModel *model) { return model; }

bool reserve(DeviceModel *model, int64_t, int64_t, DeviceFailure *failure) {
  fake.workspaces -= model->has_workspace;
  model->has_workspace = false;
  if (fails(fake.fail_reserve)) return refuse(failure, -6, "no device memory for the workspace of a step");
  model->has_workspace = true;
  fake.workspaces++;
  return true;
}

DeviceOutcome run(DeviceModel *model, const DeviceBatch *batch, DeviceFailure *failure) {
  fake.runs++;
  const bool is_lost = fails(fake.fail_run);
  std::vector<float> firsts(static_cast<size_t>(batch->rows));
  for (size_t s = 0; s < batch->segments_count; s++) {
    const DeviceSegment &segment = batch->segments[s];
    float *state = static_cast<float *>(segment.state);
    if (segment.from != segment.state) std::memcpy(state, segment.from, static_cast<size_t>(model->floats) * 4);
    size_t snapshot = 0;
    for (int64_t row = segment.begin; row < segment.end; row++) {
      for (int64_t i = 0; i < model->floats; i++)
        state[i] = state[i] / 2 + static_cast<float>(batch->tokens[row] + 1) * test::weight_of(i);
      firsts[static_cast<size_t>(row)] = state[0];
      if (snapshot < segment.snapshots_count && segment.snapshots[snapshot].row == row)
        std::memcpy(segment.snapshots[snapshot++].state, state, static_cast<size_t>(model->floats) * 4);
    }
  }
  for (int64_t layer = 1; batch->is_cancelled && layer <= model->shape.layers; layer++)
    if (batch->is_cancelled(batch->user, layer)) return DeviceOutcome::cancelled;
  if (is_lost) {
    refuse(failure, -10, "the device is gone");
    return DeviceOutcome::failed;
  }
  const int32_t vocab = static_cast<int32_t>(model->shape.vocab_size);
  for (size_t i = 0; i < batch->logits_count; i++) {
    const DeviceLogits &one = batch->logits[i];
    const int32_t best = test::best_of(firsts[static_cast<size_t>(one.row)], vocab);
    for (float *to : {one.logits, one.device_logits})
      if (to)
        for (int32_t id = 0; id < vocab; id++) to[id] = id == best ? 10.0f : 0.0f;
    if (one.sampler) {
      fake.samples++;
      *one.token = fake.is_out_of_tokens ? -1 : best;
    }
  }
  return DeviceOutcome::done;
}

// The work is done at once, and only its outcome comes later.
bool start_ahead(DeviceModel *model, const DeviceAheadStep *step, DeviceFailure *failure) {
  if (step->token) model->ahead.clear();
  const int32_t token = step->token ? *step->token : std::max(model->ahead_token, 0);
  int32_t chosen = -1;
  const DeviceSegment segment{step->from, step->state, 0, 1, nullptr, 0};
  const DeviceLogits logits{0, nullptr, nullptr, step->sampler, &chosen};
  const DeviceBatch batch{&token, 1, &segment, 1, &logits, 1, nullptr, nullptr};
  if (run(model, &batch, failure) != DeviceOutcome::done) return false;
  fake.ahead++;
  model->ahead_token = chosen;
  model->ahead.push_back(chosen);
  return true;
}

bool finish_ahead(DeviceModel *model, int32_t *token, DeviceFailure *failure) {
  if (fails(fake.fail_finish)) {
    model->ahead.clear();
    return refuse(failure, -10, "the device is gone");
  }
  *token = model->ahead.front();
  model->ahead.pop_front();
  return true;
}

constexpr DeviceTable table{
    sizeof(DeviceTable), device_table_version, "fake",      count,       describe,   part_bytes, copies_bytes,
    state_bytes,         workspace_bytes,      chunk_rows,  create,      destroy,    load,       finish_load,
    name_kernels,        state_allocate,       state_free,  state_zero,  state_copy, state_read, state_write,
    state_park,          state_unpark,         parked_free, state_place, queue,      reserve,    run,
    start_ahead,         finish_ahead};

}  // namespace
}  // namespace libwkv::kernels

extern "C" {
__attribute__((visibility("default"))) const libwkv::kernels::DeviceTable *wkv_device_table() {
  return &libwkv::kernels::table;
}
__attribute__((visibility("default"))) libwkv::test::FakeDevice *fake_device() { return &libwkv::kernels::fake; }
}
