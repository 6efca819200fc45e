// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/many.h"

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <new>

#include "kernels/cuda/group_products.h"
#include "kernels/cuda/many_rows.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/time_mix.h"

namespace libwkv::cuda {

constexpr int lows_count = 4;  // low-rank pairs of a layer

// Streams for low-rank pairs beside the stream of a part.
struct Sides {
  cudaStream_t streams[lows_count] = {};
  cudaEvent_t forked = nullptr, joined[lows_count] = {};
};

struct ManyPlans {
  Products *products = nullptr;
  Sides sides[2];  // of the whole or the first half, and of the second
  cudaStream_t second_half = nullptr;
  cudaEvent_t forked = nullptr, joined = nullptr;
  cudaEvent_t has_mixed = nullptr, has_shifted = nullptr;  // the first half, in the layer that the second is at
  bool has_groups = false;                                 // group_products_fit

  ManyPlans() = default;
  ManyPlans(const ManyPlans &) = delete;
  ManyPlans &operator=(const ManyPlans &) = delete;
  ~ManyPlans() {
    products_destroy(products);
    for_all([](cudaStream_t &stream) { return stream != nullptr ? cudaStreamDestroy(stream) : cudaSuccess; },
            [](cudaEvent_t &event) { return event != nullptr ? cudaEventDestroy(event) : cudaSuccess; });
  }

  // The first error; goes on all the same.
  template <class OfStream, class OfEvent>
  cudaError_t for_all(OfStream of_stream, OfEvent of_event) {
    cudaError_t first = cudaSuccess;
    const auto note = [&](cudaError_t error) {
      if (first == cudaSuccess) first = error;
    };
    note(of_stream(second_half));
    for (cudaEvent_t *event : {&forked, &joined, &has_mixed, &has_shifted}) note(of_event(*event));
    for (Sides &side : sides) {
      note(of_event(side.forked));
      for (cudaStream_t &stream : side.streams) note(of_stream(stream));
      for (cudaEvent_t &event : side.joined) note(of_event(event));
    }
    return first;
  }
};

namespace {

// Outputs of ffn.key times this are squared, so that 65504, the largest half, stands for an output of 2047 and not of
// 256. Small ones lose nothing that counts: half is exact to 4e-6 there.
constexpr float ffn_scale = 0.125f;

// What cuBLASLt may use for a product, and for one of a low-rank pair.
constexpr size_t product_workspace_bytes = size_t{32} << 20, low_workspace_bytes = size_t{8} << 20;

// ---- workspace

enum Mix { mix_r, mix_k, mix_v, mix_w, mix_a, mix_g };
enum Low { low_w, low_a, low_g, low_v };  // v last: layer 0 has none
constexpr int mixes_count = 6;
constexpr Mix mix_of_low[lows_count] = {mix_w, mix_a, mix_g, mix_v};

struct Room {
  char *base;  // NULL: only `bytes` counts
  size_t bytes = 0;

  // [rows][width] each, in the numbers of activations, but for float *.
  float *x, *first_value;
  char *mixed[mixes_count];         // one after another
  float *receptance, *key, *value;  // one after another
  float *low[lows_count];
  char *gated, *ffn_mixed, *ffn_hidden, *scores_input;  // these lie where something else is not needed any more
  char *low_hidden[lows_count];
  char *expanded;
  int64_t expanded_numbers;
  void *product_workspace, *low_workspaces[lows_count], *time_mix_workspace;

  char *take(size_t size) {
    char *memory = base == nullptr ? nullptr : base + bytes;
    bytes += (size + 255) / 256 * 256;
    return memory;
  }
  float *take_floats(int64_t count) {
    return reinterpret_cast<float *>(take(static_cast<size_t>(count) * sizeof(float)));
  }
};

void rank_sizes(const DeviceShape &shape, int64_t (&ranks)[lows_count]) {
  ranks[low_w] = shape.rank_w;
  ranks[low_a] = shape.rank_a;
  ranks[low_g] = shape.rank_g;
  ranks[low_v] = shape.rank_v;
}

// Numbers from row to row of what is between the products of a low-rank pair: `activate` takes them by eight.
int64_t hidden_stride(int64_t rank) { return (rank + row_columns - 1) / row_columns * row_columns; }

// is_part: of a half, whose x lies in the memory of the whole batch's.
Room make_room(const Device &device, const DeviceShape &shape, int64_t rows, bool is_half, void *base,
               bool is_part = false, float *x = nullptr) {
  const size_t number = is_half ? sizeof(__half) : sizeof(float);
  const auto wide = static_cast<size_t>(rows * shape.width);
  Room room{};
  room.base = static_cast<char *>(base);
  room.x = is_part ? x : room.take_floats(rows * shape.width);
  room.first_value = room.take_floats(rows * shape.width);
  char *mixed = room.take(mixes_count * wide * number);
  for (int i = 0; i < mixes_count; ++i) room.mixed[i] = mixed + static_cast<size_t>(i) * wide * number;
  room.receptance = room.take_floats(3 * rows * shape.width);
  room.key = room.receptance + wide;
  room.value = room.key + wide;
  const size_t low_bytes = lows_count * wide * sizeof(float);
  const size_t ffn_bytes = static_cast<size_t>(rows * shape.ffn_width) * number;
  char *low = room.take(std::max(low_bytes, ffn_bytes));
  for (int i = 0; i < lows_count; ++i) room.low[i] = reinterpret_cast<float *>(low) + static_cast<size_t>(i) * wide;
  room.ffn_hidden = low;
  room.ffn_mixed = room.scores_input = room.mixed[0];
  room.gated = room.mixed[1];
  int64_t ranks[lows_count];
  rank_sizes(shape, ranks);
  for (int i = 0; i < lows_count; ++i) {
    room.low_hidden[i] = room.take(static_cast<size_t>(rows * hidden_stride(ranks[i])) * number);
  }
  room.expanded_numbers = shape.width * std::max(shape.width, shape.ffn_width);
  room.expanded = room.take(static_cast<size_t>(room.expanded_numbers) * number);
  room.product_workspace = room.take(product_workspace_bytes);
  for (void *&workspace : room.low_workspaces) workspace = room.take(low_workspace_bytes);
  room.time_mix_workspace = room.take(time_mix_workspace_bytes(device, shape, rows));
  return room;
}

// Two halves: x of the whole batch, and what each half needs besides.
struct HalfRooms {
  Room first, second;
  size_t bytes;
};
HalfRooms make_half_rooms(const Device &device, const DeviceShape &shape, int64_t first_rows, int64_t second_rows,
                          void *base) {
  Room whole{};
  whole.base = static_cast<char *>(base);
  const auto at = [&] { return whole.base == nullptr ? nullptr : whole.base + whole.bytes; };
  float *x = whole.take_floats((first_rows + second_rows) * shape.width);
  HalfRooms rooms{};
  rooms.first = make_room(device, shape, first_rows, true, at(), true, x);
  whole.bytes += rooms.first.bytes;
  rooms.second = make_room(device, shape, second_rows, true, at(), true, x + first_rows * shape.width);
  rooms.bytes = whole.bytes + rooms.second.bytes;
  return rooms;
}

bool is_half_model(const Weights &weights) { return weights.layers[0].receptance.format != Format::f32; }

// ---- products

bool needs_expansion(const Matrix &matrix, bool is_half) {
  return matrix.format != (is_half ? Format::f16 : Format::f32);
}

enum class Part { whole, first_half, second_half };

struct Run {
  const ManyPlans &plans;
  cudaStream_t stream;
  const Device &device;
  const DeviceShape &shape;
  bool is_half, has_groups;
  int64_t rows;
  const Room &room;
  Part part;
};

cudaError_t tell_second_half(const Run &run, cudaEvent_t event) {
  return run.part == Part::first_half ? cudaEventRecord(event, run.stream) : cudaSuccess;
}
cudaError_t wait_for_first_half(const Run &run, cudaEvent_t event) {
  return run.part == Part::second_half ? cudaStreamWaitEvent(run.stream, event, 0) : cudaSuccess;
}

Product describe(const Run &run, const Matrix &matrix, const void *x, void *y) {
  Product call{};
  call.weights = needs_expansion(matrix, run.is_half) ? run.room.expanded : matrix.values;
  call.order = matrix.order;
  call.is_half = run.is_half;
  call.rows = run.rows;
  call.outputs = matrix.outputs;
  call.inputs = matrix.inputs;
  call.x = x;
  call.y = y;
  call.x_stride = matrix.inputs;
  call.y_stride = matrix.outputs;
  call.scale = 1.0f;
  call.batch = 1;
  call.workspace = run.room.product_workspace;
  call.workspace_bytes = product_workspace_bytes;
  return call;
}

struct LayerProducts {
  Product receptance_key_value[3];
  int32_t receptance_key_value_count;  // 1: all three as one batch
  Product output, ffn_key, ffn_value;
  Product low_first[lows_count], low_second[lows_count];
};

const Matrix &low_first(const Layer &layer, int low) {
  const Matrix *matrices[] = {&layer.w1, &layer.a1, &layer.g1, &layer.v1};
  return *matrices[low];
}
const Matrix &low_second(const Layer &layer, int low) {
  const Matrix *matrices[] = {&layer.w2, &layer.a2, &layer.g2, &layer.v2};
  return *matrices[low];
}

// Whether three matrices lie as one batch: at equal distances, or all to be expanded one after another.
bool are_batch(const Run &run, const Layer &layer) {
  const Matrix &r = layer.receptance, &k = layer.key, &v = layer.value;
  const bool expands = needs_expansion(r, run.is_half);
  if (needs_expansion(k, run.is_half) != expands || needs_expansion(v, run.is_half) != expands) return false;
  if (expands) return 3 * r.outputs * r.inputs <= run.room.expanded_numbers;
  const auto *first = static_cast<const char *>(r.values), *second = static_cast<const char *>(k.values);
  return second > first && static_cast<const char *>(v.values) - second == second - first;
}

LayerProducts layer_products(const Run &run, const Layer &layer) {
  const Room &room = run.room;
  LayerProducts calls{};
  Product(&rkv)[3] = calls.receptance_key_value;
  rkv[0] = describe(run, layer.receptance, room.mixed[mix_r], room.receptance);
  rkv[1] = describe(run, layer.key, room.mixed[mix_k], room.key);
  rkv[2] = describe(run, layer.value, room.mixed[mix_v], room.value);
  calls.receptance_key_value_count = 3;
  if (are_batch(run, layer)) {
    const ptrdiff_t distance =
        static_cast<const char *>(layer.key.values) - static_cast<const char *>(layer.receptance.values);
    const int64_t matrix_numbers = layer.receptance.outputs * layer.receptance.inputs;
    calls.receptance_key_value_count = 1;
    rkv[0].batch = 3;
    rkv[0].weights_batch_stride = needs_expansion(layer.receptance, run.is_half)
                                      ? matrix_numbers
                                      : distance / static_cast<ptrdiff_t>(run.is_half ? sizeof(__half) : sizeof(float));
    rkv[0].x_batch_stride = rkv[0].y_batch_stride = run.rows * run.shape.width;
  }
  calls.output = describe(run, layer.output, room.gated, room.x);
  calls.output.adds = true;
  calls.ffn_key = describe(run, layer.ffn_key, room.ffn_mixed, room.ffn_hidden);
  calls.ffn_key.is_half_output = run.is_half;
  calls.ffn_value = describe(run, layer.ffn_value, room.ffn_hidden, room.x);
  calls.ffn_value.adds = true;
  if (run.is_half) calls.ffn_value.scale = 1.0f / (ffn_scale * ffn_scale);
  for (int i = 0; i < lows_count; ++i) {
    const Matrix &first = low_first(layer, i), &second = low_second(layer, i);
    if (first.values == nullptr) continue;
    calls.low_first[i] = describe(run, first, room.mixed[mix_of_low[i]], room.low_hidden[i]);
    calls.low_first[i].is_half_output = run.is_half;
    calls.low_first[i].y_stride = hidden_stride(first.outputs);
    calls.low_second[i] = describe(run, second, room.low_hidden[i], room.low[i]);
    calls.low_second[i].x_stride = hidden_stride(first.outputs);
    for (Product *call : {&calls.low_first[i], &calls.low_second[i]}) {
      call->workspace = room.low_workspaces[i];
      call->workspace_bytes = low_workspace_bytes;
    }
  }
  return calls;
}

GroupProduct group_product(const Product &call, GroupActivation activation = GroupActivation::none) {
  return {static_cast<const __half *>(call.weights),
          static_cast<int32_t>(call.outputs),
          static_cast<int32_t>(call.inputs),
          static_cast<const __half *>(call.x),
          call.y,
          activation,
          call.is_half_output};
}

cudaError_t multiply(const Run &run, const Matrix &matrix, const Product &call) {
  if (needs_expansion(matrix, run.is_half)) {
    const cudaError_t error = expand(run.stream, matrix, run.is_half, run.room.expanded);
    if (error != cudaSuccess) return error;
  }
  // Rows go in slices whose x stays in the second-level cache: ffn.value of width 4096, its weights in columns, took
  // 400 to 418 us with 2048 rows and 173 to 192 us with 1024 (H200).
  constexpr int64_t most_slice_numbers = int64_t{1} << 24;
  const int64_t most_rows = std::max<int64_t>(1, most_slice_numbers / call.inputs);
  const int64_t slices = (call.rows + most_rows - 1) / most_rows, slice_rows = (call.rows + slices - 1) / slices;
  const size_t x_bytes = static_cast<size_t>(call.x_stride) * (call.is_half ? sizeof(__half) : sizeof(float));
  const size_t y_bytes = static_cast<size_t>(call.y_stride) * (call.is_half_output ? sizeof(__half) : sizeof(float));
  for (int64_t first = 0; first < call.rows; first += slice_rows) {
    Product slice = call;
    slice.rows = std::min(slice_rows, call.rows - first);
    slice.x = static_cast<const char *>(call.x) + static_cast<size_t>(first) * x_bytes;
    slice.y = static_cast<char *>(call.y) + static_cast<size_t>(first) * y_bytes;
    const cudaError_t error = product(run.plans.products, run.stream, slice);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t multiply_receptance_key_value(const Run &run, const Layer &layer) {
  const LayerProducts calls = layer_products(run, layer);
  const Matrix *matrices[3] = {&layer.receptance, &layer.key, &layer.value};
  if (calls.receptance_key_value_count == 1) {
    if (needs_expansion(layer.receptance, run.is_half)) {
      const int64_t numbers = layer.receptance.outputs * layer.receptance.inputs;
      const size_t bytes = static_cast<size_t>(numbers) * (run.is_half ? sizeof(__half) : sizeof(float));
      for (int i = 0; i < 3; ++i) {
        const cudaError_t error =
            expand(run.stream, *matrices[i], run.is_half, run.room.expanded + static_cast<size_t>(i) * bytes);
        if (error != cudaSuccess) return error;
      }
    }
    return product(run.plans.products, run.stream, calls.receptance_key_value[0]);
  }
  for (int i = 0; i < 3; ++i) {
    const cudaError_t error = multiply(run, *matrices[i], calls.receptance_key_value[i]);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// Groups of low-rank pairs are for so few rows that cuBLASLt leaves most of the device idle. Steps of 320 rows, groups
// up to here / up to 2.5 M: width 2048 4449 / 4598 us, width 4096 13.2 ms both; of 128 rows, width 2048, groups /
// products on streams of their own: 2727 / 2796 us (H200).
constexpr int64_t most_grouped_numbers = 1'200'000;  // rows * width

bool is_low_rank_grouped(const Run &run, const Layer &layer) {
  if (!run.is_half || !run.has_groups || run.rows * run.shape.width > most_grouped_numbers) return false;
  for (int i = 0; i < lows_count; ++i) {
    for (const Matrix *matrix : {&low_first(layer, i), &low_second(layer, i)}) {
      if (matrix->values != nullptr && matrix->format != Format::f16) return false;
    }
  }
  return true;
}

int low_rank_pairs(const Layer &layer) { return layer.v1.values == nullptr ? lows_count - 1 : lows_count; }

cudaError_t multiply_low_rank_groups(const Run &run, const Layer &layer) {
  constexpr GroupActivation activations[lows_count] = {GroupActivation::tanh, GroupActivation::none,
                                                       GroupActivation::sigmoid, GroupActivation::none};
  const LayerProducts calls = layer_products(run, layer);
  const int count = low_rank_pairs(layer);
  GroupProduct first[lows_count], second[lows_count];
  for (int i = 0; i < count; ++i) {
    first[i] = group_product(calls.low_first[i], activations[i]);
    second[i] = group_product(calls.low_second[i]);
  }
  const cudaError_t error = group_products(run.stream, run.device, first, count, run.rows, false);
  return error == cudaSuccess ? group_products(run.stream, run.device, second, count, run.rows, true) : error;
}

template <class Number>
cudaError_t multiply_low_rank_pair(const Run &run, const Layer &layer, int pair) {
  const LayerProducts calls = layer_products(run, layer);
  cudaError_t error = multiply(run, low_first(layer, pair), calls.low_first[pair]);
  const int64_t numbers = run.rows * calls.low_first[pair].y_stride;
  auto *hidden = reinterpret_cast<Number *>(run.room.low_hidden[pair]);
  if (error == cudaSuccess && pair == low_w) error = activate(run.stream, hidden, numbers, Activation::tanh, 1.0f);
  if (error == cudaSuccess && pair == low_g) error = activate(run.stream, hidden, numbers, Activation::sigmoid, 1.0f);
  return error == cudaSuccess ? multiply(run, low_second(layer, pair), calls.low_second[pair]) : error;
}

// On side streams first to `end`, what `enqueue` puts there, and beside it r, k and v.
template <class Enqueue>
cudaError_t multiply_beside(const Run &run, const Layer &layer, int sides_count, Enqueue enqueue) {
  const Sides &sides = run.plans.sides[run.part == Part::second_half];
  cudaError_t error = cudaEventRecord(sides.forked, run.stream);
  for (int i = 0; i < sides_count && error == cudaSuccess; ++i) {
    error = cudaStreamWaitEvent(sides.streams[i], sides.forked, 0);
    Run side = run;
    side.stream = sides.streams[i];
    if (error == cudaSuccess) error = enqueue(side, i);
    const cudaError_t recorded = cudaEventRecord(sides.joined[i], sides.streams[i]);
    if (error == cudaSuccess) error = recorded;
  }
  if (error == cudaSuccess) error = multiply_receptance_key_value(run, layer);
  for (int i = 0; i < sides_count && error == cudaSuccess; ++i) {
    error = cudaStreamWaitEvent(run.stream, sides.joined[i], 0);
  }
  return error;
}

// All products of the mixed rows. Low-rank pairs leave most of the device idle, or wait for memory most of their time.
template <class Number>
cudaError_t multiply_mixed(const Run &run, const Layer &layer) {
  if (is_low_rank_grouped(run, layer)) {
    return multiply_beside(run, layer, 1, [&](const Run &side, int) { return multiply_low_rank_groups(side, layer); });
  }
  const int pairs = low_rank_pairs(layer);
  bool expands = false;  // into the memory that r, k and v use
  for (int i = 0; i < pairs; ++i) {
    expands = expands || needs_expansion(low_first(layer, i), run.is_half) ||
              needs_expansion(low_second(layer, i), run.is_half);
  }
  if (!expands) {
    return multiply_beside(run, layer, pairs, [&](const Run &side, int pair) {
      return multiply_low_rank_pair<Number>(side, layer, pair);
    });
  }
  cudaError_t error = multiply_receptance_key_value(run, layer);
  for (int i = 0; i < pairs && error == cudaSuccess; ++i) error = multiply_low_rank_pair<Number>(run, layer, i);
  return error;
}

// ffn_hidden = relu(Wkey x)^2, scaled.
template <class Number>
cudaError_t multiply_ffn_key(const Run &run, const Layer &layer) {
  const Product call = layer_products(run, layer).ffn_key;
  const float scale = run.is_half ? ffn_scale : 1.0f;
  const cudaError_t error = multiply(run, layer.ffn_key, call);
  if (error != cudaSuccess) return error;
  return activate(run.stream, static_cast<Number *>(call.y), run.rows * run.shape.ffn_width, Activation::squared_relu,
                  scale);
}

Product head_product(const Run &run, const Weights &weights, int64_t logits_count, float *logits) {
  Product call = describe(run, weights.head, run.room.scores_input, logits);
  call.rows = logits_count;
  return call;
}

// A head that has to be expanded goes in slices that fit.
cudaError_t multiply_head(const Run &run, const Weights &weights, const Batch &batch) {
  const Matrix &head = weights.head;
  const Product whole = head_product(run, weights, batch.logits_count, batch.logits);
  if (!needs_expansion(head, run.is_half)) return multiply(run, head, whole);
  const int64_t slice = run.room.expanded_numbers / head.inputs;
  const size_t numbers = static_cast<size_t>(head.inputs);
  for (int64_t first = 0; first < head.outputs; first += slice) {
    Matrix part = head;
    part.outputs = std::min(slice, head.outputs - first);
    const size_t before = static_cast<size_t>(first) * numbers;
    size_t values = before, scales = 0;
    switch (head.format) {
      case Format::f32:
        values = before * 4;
        break;
      case Format::f16:
        values = before * 2;
        break;
      case Format::q4_affine:
        values = before / 2;
        scales = before / 32 * sizeof(float2);
        break;
      case Format::q8_affine:
        scales = before / 32 * sizeof(float4);
        break;
      default:
        if (head.format == Format::q4) values = before / 2;
        scales = before / 32 * sizeof(__half);
    }
    part.values = static_cast<const char *>(head.values) + values;
    if (head.scales != nullptr) part.scales = static_cast<const char *>(head.scales) + scales;
    Product call = whole;
    call.outputs = part.outputs;
    call.y = batch.logits + first;
    const cudaError_t error = multiply(run, part, call);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// ---- the layers

template <class Number>
cudaError_t enqueue_layer(const Run &run, const StateShape &states, const Layer &layer, int64_t index,
                          const Batch &batch) {
  const Room &room = run.room;
  const LayerProducts calls = layer_products(run, layer);
  const auto numbers = [](char *memory) { return reinterpret_cast<Number *>(memory); };
  const bool is_early = run.part != Part::second_half;  // that one waits for another stream besides
  const ShiftAndMix<Number, mixes_count> six{
      room.x,
      layer.ln1_weight,
      layer.ln1_bias,
      states.att_shift(index),
      {layer.x_r, layer.x_k, layer.x_v, layer.x_w, layer.x_a, layer.x_g},
      {numbers(room.mixed[mix_r]), numbers(room.mixed[mix_k]), numbers(room.mixed[mix_v]), numbers(room.mixed[mix_w]),
       numbers(room.mixed[mix_a]), numbers(room.mixed[mix_g])},
      run.shape.width,
      is_early};
  // What the first half leaves in states of this layer has to be there.
  cudaError_t error = wait_for_first_half(run, run.plans.has_mixed);
  if (error == cudaSuccess) error = shift_and_mix(run.stream, run.device, batch, six);
  if (error == cudaSuccess) error = multiply_mixed<Number>(run, layer);
  TimeMixRows mix{};
  mix.receptance = room.receptance;
  mix.key = room.key;
  mix.value = room.value;
  mix.w = room.low[low_w];
  mix.a = room.low[low_a];
  mix.v = index == 0 ? nullptr : room.low[low_v];
  mix.g = room.low[low_g];
  mix.first_value = room.first_value;
  if (run.is_half) {
    mix.out_half = reinterpret_cast<__half *>(room.gated);
  } else {
    mix.out = reinterpret_cast<float *>(room.gated);
  }
  if (error == cudaSuccess) {
    error = time_mix(run.stream, run.device, run.shape, states, layer, index, batch, mix, room.time_mix_workspace,
                     run.is_half ? TimeMixWay::automatic : TimeMixWay::serial);
  }
  if (error == cudaSuccess) error = tell_second_half(run, run.plans.has_mixed);
  if (error == cudaSuccess) error = multiply(run, layer.output, calls.output);
  const ShiftAndMix<Number, 1> one{room.x,          layer.ln2_weight,          layer.ln2_bias,  states.ffn_shift(index),
                                   {layer.ffn_x_k}, {numbers(room.ffn_mixed)}, run.shape.width, is_early};
  if (error == cudaSuccess) error = wait_for_first_half(run, run.plans.has_shifted);
  if (error == cudaSuccess) error = shift_and_mix(run.stream, run.device, batch, one);
  if (error == cudaSuccess) error = tell_second_half(run, run.plans.has_shifted);
  if (error == cudaSuccess) error = multiply_ffn_key<Number>(run, layer);
  if (error == cudaSuccess) error = multiply(run, layer.ffn_value, calls.ffn_value);
  return error;
}

struct PartOfBatch {
  const Run &run;
  const Batch &batch;
};

// One layer after another, each of all parts.
template <class Number>
cudaError_t enqueue_layers(std::initializer_list<PartOfBatch> parts, const StateShape &states, const Weights &weights,
                           int64_t layers, const LayerHook *hook, bool *stopped) {
  for (int64_t layer = 0; layer < layers && !*stopped; ++layer) {
    for (const PartOfBatch &part : parts) {
      const cudaError_t error = enqueue_layer<Number>(part.run, states, weights.layers[layer], layer, part.batch);
      if (error != cudaSuccess) return error;
    }
    if (hook != nullptr) *stopped = hook->is_stopped(hook->user, layer + 1);
  }
  return cudaSuccess;
}

cudaError_t enqueue_halves(const Run &first, const Run &second, const StateShape &states, const Weights &weights,
                           const Halves &halves, const LayerHook *hook, bool *stopped) {
  const ManyPlans &plans = first.plans;
  cudaError_t error = cudaEventRecord(plans.forked, first.stream);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(second.stream, plans.forked, 0);
  if (error != cudaSuccess) return error;
  error = enqueue_layers<__half>({{first, halves.first}, {second, halves.second}}, states, weights, first.shape.layers,
                                 hook, stopped);
  // Whatever happened: nothing of the second half runs on when the stream of the call is done.
  const cudaError_t recorded = cudaEventRecord(plans.joined, second.stream);
  const cudaError_t joined = cudaStreamWaitEvent(first.stream, plans.joined, 0);
  return error != cudaSuccess ? error : recorded != cudaSuccess ? recorded : joined;
}

// The scores that are wanted, from x of the whole batch.
template <class Number>
cudaError_t enqueue_scores(const Run &run, const Weights &weights, const Batch &batch) {
  if (batch.logits_count == 0) return cudaSuccess;
  const cudaError_t error = gather_norm(run.stream, batch, run.room.x, weights.ln_out_weight, weights.ln_out_bias,
                                        run.shape.width, reinterpret_cast<Number *>(run.room.scores_input));
  return error == cudaSuccess ? multiply_head(run, weights, batch) : error;
}

template <class Number>
cudaError_t enqueue_forward(const Run &run, const StateShape &states, const Weights &weights, const Batch &batch,
                            const LayerHook *hook, bool *stopped) {
  cudaError_t error = embed(run.stream, batch, weights, run.room.x);
  if (error == cudaSuccess) {
    error = enqueue_layers<Number>({{run, batch}}, states, weights, run.shape.layers, hook, stopped);
  }
  return error == cudaSuccess && !*stopped ? enqueue_scores<Number>(run, weights, batch) : error;
}

}  // namespace

bool many_fits(const Device &, const DeviceShape &shape, const Weights &weights) {
  if (shape.layers < 1 || shape.width % 64 != 0 || shape.width > most_row_width) return false;
  if (shape.ffn_width % row_columns != 0) return false;
  if (is_half_model(weights)) {
    for (int64_t rank : {shape.rank_w, shape.rank_a, shape.rank_v, shape.rank_g}) {
      if (rank % row_columns != 0) return false;  // rows of the second low-rank matrices would not be aligned
    }
  }
  const Matrix &embedding = weights.embedding;
  const bool is_plain_embedding =
      embedding.format == Format::f32 || embedding.format == Format::f16 || embedding.format == Format::bf16;
  if (!is_plain_embedding || embedding.order != Order::rows) return false;
  if (!can_expand(weights.head) || weights.head.order != Order::rows) return false;
  for (int64_t l = 0; l < shape.layers; ++l) {
    const Layer &layer = weights.layers[l];
    for (const Matrix *matrix : {&layer.receptance, &layer.key, &layer.value, &layer.output, &layer.ffn_key}) {
      if (!can_expand(*matrix) || matrix->order != Order::rows) return false;
    }
    if (!can_expand(layer.ffn_value)) return false;
    for (int i = 0; i < lows_count; ++i) {
      for (const Matrix *matrix : {&low_first(layer, i), &low_second(layer, i)}) {
        if (matrix->values != nullptr && (!can_expand(*matrix) || matrix->order != Order::rows)) return false;
      }
    }
  }
  return true;
}

cudaError_t many_create(const Device &device, ManyPlans **plans) {
  auto made = std::unique_ptr<ManyPlans>(new (std::nothrow) ManyPlans);
  if (made == nullptr) return cudaErrorMemoryAllocation;
  made->has_groups = group_products_fit(device);
  cudaError_t error = products_create(&made->products);
  if (error == cudaSuccess) {
    error =
        made->for_all([](cudaStream_t &stream) { return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); },
                      [](cudaEvent_t &event) { return cudaEventCreateWithFlags(&event, cudaEventDisableTiming); });
  }
  if (error == cudaSuccess) *plans = made.release();
  return error;
}

void many_destroy(ManyPlans *plans) { delete plans; }

int64_t many_first_half(const Device &device, const DeviceShape &shape, const Weights &weights, int64_t rows,
                        int64_t segments_count) {
  // Tokens/s of a prompt of 2048 or more, whole / in halves, H200: width 2048 128000 / 142000, width 4096 39300 /
  // 40400. Halves of 256 rows are slower, and so are halves of 960 single tokens.
  constexpr int64_t least_rows = 1024;
  if (rows < least_rows || shape.heads * segments_count > 2 * device.processors || !is_half_model(weights)) return 0;
  // Both halves would expand narrower matrices.
  for (int64_t l = 0; l < shape.layers; ++l) {
    const Layer &layer = weights.layers[l];
    for (const Matrix *matrix :
         {&layer.receptance, &layer.key, &layer.value, &layer.output, &layer.ffn_key, &layer.ffn_value})
      if (needs_expansion(*matrix, true)) return 0;
  }
  return (rows / 2 + 15) / 16 * 16;
}

size_t many_workspace_bytes(const Device &device, const DeviceShape &shape, const Weights &weights, int64_t rows,
                            int64_t logits_rows) {
  const bool is_half = is_half_model(weights);
  const size_t whole = make_room(device, shape, std::max(rows, logits_rows), is_half, nullptr).bytes;
  const int64_t first = many_first_half(device, shape, weights, rows, 1);
  return first == 0 ? whole : std::max(whole, make_half_rooms(device, shape, first, rows - first, nullptr).bytes);
}

cudaError_t many_forward(ManyPlans *plans, cudaStream_t stream, const Device &device, const DeviceShape &shape,
                         const StateShape &states, const Weights &weights, const Batch &batch, const Halves *halves,
                         void *workspace, const LayerHook *hook, bool *stopped) {
  const bool is_half = is_half_model(weights);
  const auto run_of = [&](cudaStream_t run_stream, int64_t rows, const Room &room, Part part) {
    return Run{*plans, run_stream, device, shape, is_half, plans->has_groups, rows, room, part};
  };
  if (halves == nullptr) {
    const Room room = make_room(device, shape, batch.rows, is_half, workspace);
    const Run run = run_of(stream, batch.rows, room, Part::whole);
    return is_half ? enqueue_forward<__half>(run, states, weights, batch, hook, stopped)
                   : enqueue_forward<float>(run, states, weights, batch, hook, stopped);
  }
  const HalfRooms rooms = make_half_rooms(device, shape, halves->first.rows, halves->second.rows, workspace);
  const Run first = run_of(stream, halves->first.rows, rooms.first, Part::first_half),
            second = run_of(plans->second_half, halves->second.rows, rooms.second, Part::second_half);
  cudaError_t error = embed(stream, batch, weights, rooms.first.x);
  if (error == cudaSuccess) error = enqueue_halves(first, second, states, weights, *halves, hook, stopped);
  return error == cudaSuccess && !*stopped ? enqueue_scores<__half>(first, weights, batch) : error;
}

}  // namespace libwkv::cuda
