// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/many.h"

#include <algorithm>
#include <memory>
#include <new>

#include "kernels/cuda/group_products.h"
#include "kernels/cuda/many_rows.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/time_mix.h"

namespace libwkv::cuda {

struct ManyPlans {
  Products *products = nullptr;
  cudaStream_t side = nullptr;  // for what may run beside the stream of a call
  cudaEvent_t forked = nullptr, joined = nullptr;
  bool has_groups = false;  // group_products_fit

  ~ManyPlans() {
    products_destroy(products);
    if (side != nullptr) cudaStreamDestroy(side);
    if (forked != nullptr) cudaEventDestroy(forked);
    if (joined != nullptr) cudaEventDestroy(joined);
  }
};

namespace {

// Outputs of ffn.key times this are squared, so that 65504, the largest half, stands for an output of 2047 and not of
// 256. Small ones lose nothing that counts: half is exact to 4e-6 there.
constexpr float ffn_scale = 0.125f;

// ---- workspace

enum Mix { mix_r, mix_k, mix_v, mix_w, mix_a, mix_g };
enum Low { low_w, low_a, low_g, low_v };  // v last: layer 0 has none
constexpr int mixes_count = 6, lows_count = 4;
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
  void *product_workspace, *time_mix_workspace;

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

Room make_room(const Device &device, const DeviceShape &shape, int64_t rows, bool is_half, void *base) {
  const size_t number = is_half ? sizeof(__half) : sizeof(float);
  const auto wide = static_cast<size_t>(rows * shape.width);
  Room room{};
  room.base = static_cast<char *>(base);
  room.x = room.take_floats(rows * shape.width);
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
  room.time_mix_workspace = room.take(time_mix_workspace_bytes(device, shape, rows));
  return room;
}

bool is_half_model(const Weights &weights) { return weights.layers[0].receptance.format != Format::f32; }

// ---- products

bool needs_expansion(const Matrix &matrix, bool is_half) {
  return matrix.format != (is_half ? Format::f16 : Format::f32);
}

struct Run {
  const ManyPlans &plans;
  cudaStream_t stream;
  const Device &device;
  const DeviceShape &shape;
  bool is_half, has_groups;
  int64_t rows;
  const Room &room;
};

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
    const cudaError_t error = product(run.plans.products, run.stream, slice, run.room.product_workspace);
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
    return product(run.plans.products, run.stream, calls.receptance_key_value[0], run.room.product_workspace);
  }
  for (int i = 0; i < 3; ++i) {
    const cudaError_t error = multiply(run, *matrices[i], calls.receptance_key_value[i]);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// Groups of low-rank pairs are for so few rows that cuBLASLt, one product at a time, leaves most of the device idle.
// Microseconds of a layer, group / cuBLASLt, H200: width 2048, 128 rows 13 / 39, 960 rows 43 / 54; width 4096, 128 rows
// 21 / 49, 320 rows 47 / 61, 960 rows 104 / 89, 2048 rows 225 / 120.
constexpr int64_t most_grouped_numbers = 2'500'000;  // rows * width

// Up to here the groups run beside r, k, v: a step of 32 rows took 1846 us one after the other and 1691 beside (width
// 2048), 5316 and 5052 (width 4096); with 960 rows there was no difference.
constexpr int64_t most_forked_rows = 512;

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

cudaError_t multiply_low_rank_groups(const Run &run, cudaStream_t stream, const Layer &layer) {
  constexpr GroupActivation activations[lows_count] = {GroupActivation::tanh, GroupActivation::none,
                                                       GroupActivation::sigmoid, GroupActivation::none};
  const LayerProducts calls = layer_products(run, layer);
  const int count = low_rank_pairs(layer);
  GroupProduct first[lows_count], second[lows_count];
  for (int i = 0; i < count; ++i) {
    first[i] = group_product(calls.low_first[i], activations[i]);
    second[i] = group_product(calls.low_second[i]);
  }
  const cudaError_t error = group_products(stream, run.device, first, count, run.rows, false);
  return error == cudaSuccess ? group_products(stream, run.device, second, count, run.rows, true) : error;
}

template <class Number>
cudaError_t multiply_low_rank(const Run &run, const Layer &layer) {
  const LayerProducts calls = layer_products(run, layer);
  for (int i = 0; i < low_rank_pairs(layer); ++i) {
    cudaError_t error = multiply(run, low_first(layer, i), calls.low_first[i]);
    const int64_t numbers = run.rows * calls.low_first[i].y_stride;
    auto *hidden = reinterpret_cast<Number *>(run.room.low_hidden[i]);
    if (error == cudaSuccess && i == low_w) {
      error = activate(run.stream, hidden, numbers, Activation::tanh, 1.0f);
    }
    if (error == cudaSuccess && i == low_g) {
      error = activate(run.stream, hidden, numbers, Activation::sigmoid, 1.0f);
    }
    if (error == cudaSuccess) error = multiply(run, low_second(layer, i), calls.low_second[i]);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// All products of the mixed rows. Groups of low-rank pairs wait for memory most of their time.
template <class Number>
cudaError_t multiply_mixed(const Run &run, const Layer &layer) {
  if (!is_low_rank_grouped(run, layer)) {
    const cudaError_t error = multiply_receptance_key_value(run, layer);
    return error == cudaSuccess ? multiply_low_rank<Number>(run, layer) : error;
  }
  if (run.rows > most_forked_rows) {
    const cudaError_t error = multiply_receptance_key_value(run, layer);
    return error == cudaSuccess ? multiply_low_rank_groups(run, run.stream, layer) : error;
  }
  const ManyPlans &plans = run.plans;
  cudaError_t error = cudaEventRecord(plans.forked, run.stream);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(plans.side, plans.forked, 0);
  if (error == cudaSuccess) error = multiply_low_rank_groups(run, plans.side, layer);
  if (error == cudaSuccess) error = cudaEventRecord(plans.joined, plans.side);
  if (error != cudaSuccess) return error;
  error = multiply_receptance_key_value(run, layer);
  const cudaError_t joined = cudaStreamWaitEvent(run.stream, plans.joined, 0);
  return error == cudaSuccess ? joined : error;
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
  const ShiftAndMix<Number, mixes_count> six{
      room.x,
      layer.ln1_weight,
      layer.ln1_bias,
      states.att_shift(index),
      {layer.x_r, layer.x_k, layer.x_v, layer.x_w, layer.x_a, layer.x_g},
      {numbers(room.mixed[mix_r]), numbers(room.mixed[mix_k]), numbers(room.mixed[mix_v]), numbers(room.mixed[mix_w]),
       numbers(room.mixed[mix_a]), numbers(room.mixed[mix_g])},
      run.shape.width};
  cudaError_t error = shift_and_mix(run.stream, run.device, batch, six);
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
  if (error == cudaSuccess) error = multiply(run, layer.output, calls.output);
  const ShiftAndMix<Number, 1> one{room.x,          layer.ln2_weight,          layer.ln2_bias, states.ffn_shift(index),
                                   {layer.ffn_x_k}, {numbers(room.ffn_mixed)}, run.shape.width};
  if (error == cudaSuccess) error = shift_and_mix(run.stream, run.device, batch, one);
  if (error == cudaSuccess) error = multiply_ffn_key<Number>(run, layer);
  if (error == cudaSuccess) error = multiply(run, layer.ffn_value, calls.ffn_value);
  return error;
}

template <class Number>
cudaError_t enqueue_forward(const Run &run, const StateShape &states, const Weights &weights, const Batch &batch,
                            const LayerHook *hook, bool *stopped) {
  const int64_t width = run.shape.width;
  const Room &room = run.room;
  cudaError_t error = embed(run.stream, batch, weights, room.x);
  for (int64_t layer = 0; layer < run.shape.layers && error == cudaSuccess; ++layer) {
    error = enqueue_layer<Number>(run, states, weights.layers[layer], layer, batch);
    if (error == cudaSuccess && hook != nullptr && hook->is_stopped(hook->user, layer + 1)) {
      *stopped = true;
      return cudaSuccess;
    }
  }
  if (error != cudaSuccess || batch.logits_count == 0) return error;
  error = gather_norm(run.stream, batch, room.x, weights.ln_out_weight, weights.ln_out_bias, width,
                      reinterpret_cast<Number *>(room.scores_input));
  return error == cudaSuccess ? multiply_head(run, weights, batch) : error;
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
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&made->side, cudaStreamNonBlocking);
  if (error == cudaSuccess) error = cudaEventCreateWithFlags(&made->forked, cudaEventDisableTiming);
  if (error == cudaSuccess) error = cudaEventCreateWithFlags(&made->joined, cudaEventDisableTiming);
  if (error == cudaSuccess) *plans = made.release();
  return error;
}

void many_destroy(ManyPlans *plans) { delete plans; }

size_t many_workspace_bytes(const Device &device, const DeviceShape &shape, Format largest, int64_t rows,
                            int64_t logits_rows) {
  return make_room(device, shape, std::max(rows, logits_rows), largest != Format::f32, nullptr).bytes;
}

cudaError_t many_forward(ManyPlans *plans, cudaStream_t stream, const Device &device, const DeviceShape &shape,
                         const StateShape &states, const Weights &weights, const Batch &batch, void *workspace,
                         const LayerHook *hook, bool *stopped) {
  const bool is_half = is_half_model(weights);
  const Room room = make_room(device, shape, batch.rows, is_half, workspace);
  const Run run{*plans, stream, device, shape, is_half, plans->has_groups, batch.rows, room};
  return is_half ? enqueue_forward<__half>(run, states, weights, batch, hook, stopped)
                 : enqueue_forward<float>(run, states, weights, batch, hook, stopped);
}

}  // namespace libwkv::cuda
