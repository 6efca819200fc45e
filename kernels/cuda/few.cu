// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/few.h"

#include <algorithm>

#include "kernels/cuda/few_columns.cuh"
#include "kernels/cuda/few_live.cuh"
#include "kernels/cuda/few_norm.cuh"
#include "kernels/cuda/few_rows.cuh"
#include "kernels/cuda/few_time_mix.cuh"
#include "kernels/cuda/few_vector.cuh"

// A layer of one row is five kernels: norm, mixes and first products; time mix; output; norm, mix and ffn.key;
// ffn.value. Of more rows, or of other formats than f16 and q8, it is seven: norms are their own. Each is on the device
// before the one before it has ended (programmatic dependent launch) and fills its ring with weights meanwhile. Without
// atomics: where blocks share a sum, a cluster joins its parts, or the next norm does.

namespace libwkv::cuda {
namespace {

using namespace few;

constexpr int most_splits = 32;

constexpr int least_shared_bytes = 227 * 1024;  // of a block: the kernels for 16 rows take nearly all

// Two kernels share an SM, so that the second one's weights come while the first one runs.
int shared_budget(const Device &device) {
  constexpr int reserved = 1024;  // of a block, by the system
  return (device.shared_bytes + reserved) / 2 - reserved;
}

// Memory of a chunk.
struct Places {
  float *x[2], *partials, *receptance, *key, *value, *first_value, *hidden, *h;
  __half *mixed[6], *low[low_ranks], *gated, *hidden_operand;
  int32_t *counters;
  int counters_count;
  size_t bytes;
};

Places places(const DeviceShape &s, int rows, char *memory) {
  size_t next = 0;
  const auto take = [&](size_t bytes) {
    char *at = memory + next;
    next += (bytes + 255) / 256 * 256;
    return at;
  };
  const size_t wide = static_cast<size_t>(s.width) * static_cast<size_t>(rows) * sizeof(float);
  const int padded = padded_rows(rows);
  const auto operand = [&](int64_t inputs) {
    return reinterpret_cast<__half *>(take(static_cast<size_t>(operand_halves(inputs, padded)) * sizeof(__half)));
  };
  Places p{};
  for (float *&x : p.x) x = reinterpret_cast<float *>(take(wide));
  p.partials = reinterpret_cast<float *>(take(wide * most_splits));
  for (float **one : {&p.receptance, &p.key, &p.value, &p.first_value, &p.h})
    *one = reinterpret_cast<float *>(take(wide));
  for (__half *&mixed : p.mixed) mixed = operand(s.width);
  const int64_t ranks[low_ranks] = {s.rank_w, s.rank_a, s.rank_v, s.rank_g};
  for (int i = 0; i < low_ranks; i++) p.low[i] = operand(ranks[i]);
  p.gated = operand(s.width);
  p.hidden_operand = operand(s.ffn_width);  // or float [rows][ffn]: never more
  p.hidden = reinterpret_cast<float *>(p.hidden_operand);
  p.counters_count = (static_cast<int>(s.layers) * 3 + 1) * most_products;
  p.counters = reinterpret_cast<int32_t *>(take(static_cast<size_t>(p.counters_count) * sizeof(int32_t)));
  p.bytes = next;
  return p;
}

// What all launches of a step need.
struct Launcher {
  cudaStream_t stream;
  const Device &device;
  cudaError_t error = cudaSuccess;

  // Kernels share SMs with their neighbours only if all ask for the same division of the SM's memory.
  template <class Parameters>
  void launch(void (*kernel)(Parameters), int blocks, int threads, int shared_bytes, int cluster,
              const Parameters &parameters) {
    if (error != cudaSuccess) return;
    error = configure(reinterpret_cast<const void *>(kernel), shared_bytes);
    if (error != cudaSuccess) return;
    cudaLaunchAttribute attributes[2]{};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = static_cast<unsigned>(cluster);
    attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = cluster > 1 ? 2 : 1;
    error = cudaLaunchKernelEx(&config, kernel, parameters);
  }

  static cudaError_t configure(const void *kernel, int shared_bytes) {
    cudaError_t result =
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
    if (result == cudaSuccess && shared_bytes > 0)
      result = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    return result;
  }
};

Product product_of(const Matrix &matrix, const __half *operand, void *out) {
  Product product{};
  product.values = static_cast<const char *>(matrix.values);
  product.scales = static_cast<const char *>(matrix.scales);
  product.operand = operand;
  product.out = out;
  product.out_stride = matrix.outputs;
  product.outputs = static_cast<int32_t>(matrix.outputs);
  product.format = matrix.format;
  return product;
}

RowProducts row_products(int64_t inputs, int rows) {
  RowProducts p{};
  p.inputs = static_cast<int32_t>(inputs);
  p.rows = rows;
  p.padded = padded_rows(rows);
  p.in_scale = p.out_scale = 1;
  return p;
}

void add(RowProducts &p, const Product &product) {
  Product &added = p.products[p.count++];
  added = product;
  added.first = p.outputs;
  added.units = p.inputs / unit_inputs(product.format);
  p.outputs += product.outputs;
}

template <Format format, int tiles, int output_tiles, int slots>
void launch_rows_as(Launcher &launcher, RowProducts &p) {
  // Tiles of even size share a block's outputs.
  const int blocks = launcher.device.processors;
  const int share = (p.outputs + blocks - 1) / blocks, most = output_tiles * 16, count = (share + most - 1) / most;
  p.tile = (share + count - 1) / count;
  int operand = 0;
  for (int i = 0; i < p.count; i++) {
    p.operand_at = std::max(p.operand_at, slot_operand_at(p.products[i].format, output_tiles));
    operand = std::max(operand, unit_inputs(p.products[i].format) * p.padded * 4);
  }
  p.slot_bytes = (p.operand_at + operand + 127) / 128 * 128;
  launcher.launch(multiply_rows<format, tiles, output_tiles, slots>, blocks, product_threads,
                  row_sums_bytes<tiles, output_tiles> + slots * p.slot_bytes * product_warps, 1, p);
}

// Slots: as many as let two kernels and the small ones between them share an SM, up to eight rows. (One more, that
// filled the SM to the last byte, kept norms waiting: 3 % slower.)
template <Format format>
void launch_rows_in(Launcher &launcher, RowProducts &p) {
  constexpr int slots_of_one = format == Format::q8 ? 4 : 5, slots_of_four = slots_of_one - 1;
  if (p.padded == 1) return launch_rows_as<format, 1, 1, slots_of_one>(launcher, p);
  if (p.padded <= 4) return launch_rows_as<format, 1, 1, slots_of_four>(launcher, p);
  if (p.padded == 8) return launch_rows_as<format, 2, 2, 2>(launcher, p);
  return launch_rows_as<format, 4, 2, 2>(launcher, p);
}

void launch_rows(Launcher &launcher, RowProducts &p) {
  Format format = Format::f16;
  for (int i = 0; i < p.count; i++)
    if (p.products[i].format != Format::f16) format = p.products[i].format;
  switch (format) {
    case Format::q8:
      return launch_rows_in<Format::q8>(launcher, p);
    case Format::q4:
      return launch_rows_in<Format::q4>(launcher, p);
    default:
      return launch_rows_in<Format::f16>(launcher, p);
  }
}

int column_splits(const Device &device, int64_t width) {
  return static_cast<int>(std::clamp<int64_t>(device.processors / (width / strip), 1, most_splits));
}

template <Format format>
void launch_columns_in(Launcher &launcher, ColumnProduct &p) {
  const bool skips_zeros = p.padded <= 4;
  const int values = group * column_pitch(format), scales = format == Format::f16 ? 0 : strip * 2;
  p.scales_at = values;
  p.operand_at = values + scales;
  p.slot_bytes = p.operand_at + (skips_zeros ? 0 : p.padded * 128);
  const int groups = (p.inputs / group + p.splits - 1) / p.splits;
  p.ring_at = (column_barriers_bytes + (skips_zeros ? list_bytes(groups, p.padded) : 0) + 127) / 128 * 128;
  p.slots = std::clamp((shared_budget(launcher.device) - p.ring_at) / p.slot_bytes, 2, most_slots);
  const auto kernel = skips_zeros     ? multiply_columns<format, 1>
                      : p.padded <= 8 ? multiply_columns<format, 2>
                                      : multiply_columns<format, 4>;
  launcher.launch(kernel, p.outputs / strip * p.splits, product_threads, p.ring_at + p.slots * p.slot_bytes, 1, p);
}

template <Format format>
void launch_live_as(Launcher &launcher, const LiveProduct &p) {
  launcher.launch(multiply_live<format>, live_blocks, live_threads, LivePlaces(format, p.outputs, p.inputs).bytes, 1,
                  p);
}
void launch_live(Launcher &launcher, const LiveProduct &p, Format format) {
  format == Format::f16 ? launch_live_as<Format::f16>(launcher, p) : launch_live_as<Format::q8>(launcher, p);
}

LiveProduct live_product_of(const Matrix &matrix, const float *hidden, float *partials) {
  LiveProduct product{};
  product.values = static_cast<const char *>(matrix.values);
  product.scales = static_cast<const char *>(matrix.scales);
  product.hidden = hidden;
  product.partials = partials;
  product.outputs = static_cast<int32_t>(matrix.outputs);
  product.inputs = static_cast<int32_t>(matrix.inputs);
  product.splits = live_splits(product.outputs);
  return product;
}

VectorProduct vector_product_of(const Matrix &matrix, void *out) {
  VectorProduct product{};
  product.values = static_cast<const char *>(matrix.values);
  product.scales = static_cast<const char *>(matrix.scales);
  product.out = out;
  product.outputs = static_cast<int32_t>(matrix.outputs);
  product.format = matrix.format;
  return product;
}

void launch_vector(Launcher &launcher, VectorProducts &p) {
  while (vector_f16_pieces * 256 << p.row_warps_bits < p.inputs) p.row_warps_bits++;
  bool is_q8 = false;
  for (int i = 0; i < p.count; i++) {
    VectorProduct &product = p.products[i];
    const int bytes = vector_row_bytes(product.format, p.inputs) + vector_scales_bytes(product.format, p.inputs);
    const int rows = vector_tile_rows(product.format, p.row_warps_bits);
    product.tiles = (product.outputs + rows - 1) / rows;
    product.blocks = 1;
    p.slot_bytes = std::max(p.slot_bytes, (rows * bytes + 127) / 128 * 128);
    if (product.format == Format::q8) is_q8 = true;
  }
  p.ring_at = (vector_operand_at + p.inputs * 4 + 127) / 128 * 128;
  p.slots = std::clamp((shared_budget(launcher.device) - p.ring_at) / p.slot_bytes, 2, most_vector_slots);
  // Each block works for one product; the next block is for whichever would take longest.
  const int blocks = std::max<int>(launcher.device.processors, p.count);
  for (int given = p.count; given < blocks; given++) {
    VectorProduct *slowest = p.products;
    for (int i = 1; i < p.count; i++)
      if (p.products[i].tiles * slowest->blocks > slowest->tiles * p.products[i].blocks) slowest = &p.products[i];
    slowest->blocks++;
  }
  int block = 0, most = 0;  // tiles of a block
  for (int i = 0; i < p.count; i++) {
    VectorProduct &product = p.products[i];
    product.first_block = block;
    block += product.blocks;
    // The last eighth is for whoever is early, where there is more than fits the rings.
    product.dealt = product.tiles - product.tiles / 8;
    if (product.dealt < product.blocks * p.slots) product.dealt = product.tiles;
    most = std::max(most, (product.dealt + product.blocks - 1) / product.blocks);
  }
  p.slots = std::clamp(p.slots, 2, std::max(most, 2));
  launcher.launch(is_q8 ? multiply_vector<Format::q8> : multiply_vector<Format::f16>, blocks, vector_threads + 32,
                  p.ring_at + p.slots * p.slot_bytes, 1, p);
}

template <class Number>
void launch_time_mix_with(Launcher &launcher, const TimeMix &p) {
  const int blocks = p.width / half_head, bytes = time_mix_shared_bytes(p.rank, p.rows);
  switch (column_tiles(p.padded)) {
    case 1:
      return launcher.launch(mix_time<Number, 1, 8>, blocks, 256, bytes, 2, p);
    case 2:
      return launcher.launch(mix_time<Number, 2, 16>, blocks, 512, bytes, 2, p);
    default:
      return launcher.launch(mix_time<Number, 4, 16>, blocks, 512, bytes, 2, p);
  }
}

void launch_time_mix(Launcher &launcher, const TimeMix &p, bool is_half) {
  if (is_half)
    launch_time_mix_with<__half>(launcher, p);
  else
    launch_time_mix_with<float>(launcher, p);
}

bool is_whole(const Matrix &m, bool can_be_columns) {
  const bool is_format = m.format == Format::f16 || m.format == Format::q8 || m.format == Format::q4;
  return is_format && (m.order == Order::rows || (can_be_columns && m.format != Format::q4));
}
bool is_vector_format(const Matrix &m) { return m.format == Format::f16 || m.format == Format::q8; }
bool is_low(const Matrix &m, int64_t rank) {
  return m.format == Format::f16 && m.order == Order::rows && rank > 0 && rank % 32 == 0;
}

}  // namespace

bool few_fits(const Device &device, const DeviceShape &s, const Weights &weights) {
  const int32_t ranks[low_ranks] = {static_cast<int32_t>(s.rank_w), static_cast<int32_t>(s.rank_a),
                                    static_cast<int32_t>(s.rank_v), static_cast<int32_t>(s.rank_g)};
  if (device.major < 9 || device.shared_bytes < least_shared_bytes || s.head_size != head_size ||
      s.heads * s.head_size != s.width)
    return false;
  if (s.width % 256 != 0 || s.width > most_vector_width || s.ffn_width % 256 != 0) return false;
  if (time_mix_shared_bytes(ranks, few_rows) > device.shared_bytes) return false;
  if (weights.embedding.format != Format::f32 && weights.embedding.format != Format::f16 &&
      weights.embedding.format != Format::bf16)
    return false;
  if (!is_whole(weights.head, false)) return false;
  for (int64_t l = 0; l < s.layers; l++) {
    const Layer &layer = weights.layers[l];
    if (!is_whole(layer.receptance, false) || !is_whole(layer.key, false) || !is_whole(layer.value, false) ||
        !is_whole(layer.output, false) || !is_whole(layer.ffn_key, false) || !is_whole(layer.ffn_value, true))
      return false;
    // One launch multiplies with these three: one format besides f16.
    Format quantised = Format::f16;
    for (const Matrix *m : {&layer.receptance, &layer.key, &layer.value}) {
      if (m->format == Format::f16) continue;
      if (quantised != Format::f16 && m->format != quantised) return false;
      quantised = m->format;
    }
    if (!is_low(layer.w1, s.rank_w) || !is_low(layer.w2, s.rank_w) || !is_low(layer.a1, s.rank_a) ||
        !is_low(layer.a2, s.rank_a) || !is_low(layer.g1, s.rank_g) || !is_low(layer.g2, s.rank_g))
      return false;
    if (l > 0 && (!is_low(layer.v1, s.rank_v) || !is_low(layer.v2, s.rank_v))) return false;
  }
  return true;
}

namespace {

TimeMix time_mix_of(const DeviceShape &s, const StateShape &states, const Layer &layer, const Batch &batch,
                    const Places &at, int64_t l) {
  TimeMix mix{};
  mix.batch = batch;
  mix.receptance = at.receptance;
  mix.key = at.key;
  mix.value = l == 0 ? at.first_value : at.value;
  mix.first_value = l == 0 ? nullptr : at.first_value;
  const Matrix *second[low_ranks] = {&layer.w2, &layer.a2, &layer.v2, &layer.g2};
  for (int i = 0; i < low_ranks; i++) {
    if (l == 0 && i == low_value) continue;
    mix.low[i] = at.low[i];
    mix.second[i] = static_cast<const __half *>(second[i]->values);
    mix.rank[i] = static_cast<int32_t>(second[i]->inputs);
  }
  mix.w0 = layer.w0;
  mix.a0 = layer.a0;
  mix.v0 = layer.v0;
  mix.k_k = layer.k_k;
  mix.k_a = layer.k_a;
  mix.r_k = layer.r_k;
  mix.ln_x_weight = layer.ln_x_weight;
  mix.ln_x_bias = layer.ln_x_bias;
  mix.out = at.gated;
  mix.wkv_at = states.wkv(l);
  mix.width = static_cast<int32_t>(s.width);
  mix.rows = batch.rows;
  mix.padded = padded_rows(batch.rows);
  return mix;
}

// Of a model that few_fits: whether one row goes the way of five kernels a layer.
bool has_vector_way(const Device &device, const DeviceShape &s, const Weights &weights) {
  if (!is_vector_format(weights.head)) return false;
  for (int64_t l = 0; l < s.layers; l++) {
    const Layer &layer = weights.layers[l];
    for (const Matrix *m : {&layer.receptance, &layer.key, &layer.value, &layer.output, &layer.ffn_key})
      if (!is_vector_format(*m)) return false;
    if (layer.ffn_value.order != Order::columns || s.ffn_width > most_live_inputs) return false;
    const int width = static_cast<int>(s.width), ffn_width = static_cast<int>(s.ffn_width);
    if (LivePlaces(layer.ffn_value.format, width, ffn_width).bytes > device.shared_bytes) return false;
  }
  return true;
}

// Everything behind the embedding, for one row.
void vector_forward(Launcher &launcher, const DeviceShape &s, const StateShape &states, const Weights &weights,
                    const Batch &batch, const Places &at) {
  int32_t *counter = at.counters;
  VectorProducts vectors{};
  const auto begin = [&](const float *x) {
    vectors = {};
    vectors.inputs = static_cast<int32_t>(s.width);
    vectors.x = x;
    vectors.taken = counter;
    counter += most_products;
  };
  const auto normalise = [&](const float *weight, const float *bias) {
    vectors.weight = weight;
    vectors.bias = bias;
  };
  const auto shift = [&](size_t shift_at) {
    vectors.segment = batch.segments;
    vectors.shift_at = shift_at;
    vectors.h = at.h;
  };
  const auto product = [&](const Matrix &matrix, void *out, const float *mix) -> VectorProduct & {
    VectorProduct &added = vectors.products[vectors.count++];
    added = vector_product_of(matrix, out);
    added.mix = mix;
    return added;
  };
  // The residual stream is x[0] before the first layer, x[1] and the parts of ffn.value's product before the others.
  const auto begin_with_partials = [&] {
    begin(at.x[1]);
    vectors.partials = at.partials;
    vectors.partials_count = live_splits(static_cast<int>(s.width));
  };
  for (int64_t l = 0; l < s.layers; l++) {
    const Layer &layer = weights.layers[l];
    if (l == 0) {
      begin(at.x[0]);
    } else {
      begin_with_partials();
      vectors.x_out = at.x[0];
    }
    normalise(layer.ln1_weight, layer.ln1_bias);
    shift(states.att_shift(l));
    const Matrix *first[low_ranks] = {&layer.w1, &layer.a1, &layer.v1, &layer.g1};
    const float *mixes[low_ranks] = {layer.x_w, layer.x_a, layer.x_v, layer.x_g};
    for (int i = 0; i < low_ranks; i++) {
      if (l == 0 && i == low_value) continue;
      VectorProduct &low = product(*first[i], at.low[i], mixes[i]);
      low.is_operand = true;
      if (i == low_decay) low.activation = Activation::tanh;
      if (i == low_gate) low.activation = Activation::sigmoid;
    }
    product(layer.receptance, at.receptance, layer.x_r);
    product(layer.key, at.key, layer.x_k);
    product(layer.value, l == 0 ? at.first_value : at.value, layer.x_v);
    launch_vector(launcher, vectors);

    TimeMix mix = time_mix_of(s, states, layer, batch, at, l);
    mix.plain_out = reinterpret_cast<float *>(at.gated);
    mix.h = at.h;
    mix.shift_at = states.att_shift(l);
    launch_time_mix(launcher, mix, states.is_half);

    begin(reinterpret_cast<const float *>(at.gated));
    product(layer.output, at.x[1], nullptr).added = at.x[0];
    launch_vector(launcher, vectors);

    begin(at.x[1]);
    normalise(layer.ln2_weight, layer.ln2_bias);
    shift(states.ffn_shift(l));
    product(layer.ffn_key, at.hidden, layer.ffn_x_k).activation = Activation::squared_relu;
    launch_vector(launcher, vectors);

    LiveProduct down = live_product_of(layer.ffn_value, at.hidden, at.partials);
    down.h = at.h;
    down.segment = batch.segments;
    down.shift_at = states.ffn_shift(l);
    launch_live(launcher, down, layer.ffn_value.format);
  }
  if (batch.logits_count == 0) return;
  begin_with_partials();
  normalise(weights.ln_out_weight, weights.ln_out_bias);
  product(weights.head, batch.logits, nullptr);
  launch_vector(launcher, vectors);
}

}  // namespace

size_t few_workspace_bytes(const DeviceShape &shape, int rows) { return places(shape, rows, nullptr).bytes; }

cudaError_t few_forward(cudaStream_t stream, const Device &device, const DeviceShape &s, const StateShape &states,
                        const Weights &weights, const Batch &batch, void *workspace) {
  const int rows = batch.rows, padded = padded_rows(rows);
  const int width = static_cast<int>(s.width);
  const Places at = places(s, rows, static_cast<char *>(workspace));
  Launcher launcher{stream, device};

  cudaError_t error = Launcher::configure(reinterpret_cast<const void *>(embed), 0);
  if (error != cudaSuccess) return error;
  embed<<<static_cast<unsigned>(rows), norm_threads, 0, stream>>>(
      batch.tokens, weights.embedding, weights.ln0_weight, weights.ln0_bias, at.x[0], at.counters, at.counters_count);
  error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  if (rows == 1 && has_vector_way(device, s, weights)) {
    vector_forward(launcher, s, states, weights, batch, at);
    return launcher.error;
  }

  int now = 0, partials = 0;  // the residual stream is x[now] and this many partial sums
  Norm norm{};
  norm.batch = batch;
  norm.partials = at.partials;
  norm.width = width;
  norm.rows = rows;
  norm.padded = padded;
  const auto launch_norm = [&] {
    norm.x = at.x[now];
    norm.x_out = at.x[now ^ 1];
    norm.partials_count = partials;
    launcher.launch(norm_and_mix, rows * norm_cluster, norm_threads, 0, norm_cluster, norm);
    now ^= 1;
  };
  for (int64_t l = 0; l < s.layers; l++) {
    const Layer &layer = weights.layers[l];
    const float *mixes[6] = {layer.x_r, layer.x_w, layer.x_k, layer.x_v, layer.x_a, layer.x_g};
    for (int i = 0; i < 6; i++) {
      norm.mix[i] = mixes[i];
      norm.operand[i] = at.mixed[i];
    }
    norm.mixes = 6;
    norm.weight = layer.ln1_weight;
    norm.bias = layer.ln1_bias;
    norm.shift_at = states.att_shift(l);
    launch_norm();

    RowProducts in = row_products(s.width, rows);
    float *value = l == 0 ? at.first_value : at.value;
    add(in, product_of(layer.receptance, at.mixed[0], at.receptance));
    add(in, product_of(layer.key, at.mixed[2], at.key));
    add(in, product_of(layer.value, at.mixed[3], value));
    const Matrix *first[low_ranks] = {&layer.w1, &layer.a1, &layer.v1, &layer.g1};
    const int mix_of[low_ranks] = {1, 4, 3, 5};
    for (int i = 0; i < low_ranks; i++) {
      if (l == 0 && i == low_value) continue;
      Product product = product_of(*first[i], at.mixed[mix_of[i]], at.low[i]);
      product.is_operand = true;
      if (i == low_decay) product.activation = Activation::tanh;
      if (i == low_gate) product.activation = Activation::sigmoid;
      add(in, product);
    }
    launch_rows(launcher, in);

    launch_time_mix(launcher, time_mix_of(s, states, layer, batch, at, l), states.is_half);

    RowProducts out = row_products(s.width, rows);
    add(out, product_of(layer.output, at.gated, at.partials));
    launch_rows(launcher, out);
    partials = 1;

    norm.mix[0] = layer.ffn_x_k;
    norm.mixes = 1;
    norm.weight = layer.ln2_weight;
    norm.bias = layer.ln2_bias;
    norm.shift_at = states.ffn_shift(l);
    launch_norm();

    // Up to four rows the second product wants to see zeros; beyond that an input is rarely zero in all of them.
    const bool is_by_columns = layer.ffn_value.order == Order::columns, skips_zeros = is_by_columns && padded <= 4;
    RowProducts key = row_products(s.width, rows);
    Product hidden =
        product_of(layer.ffn_key, at.mixed[0], skips_zeros ? static_cast<void *>(at.hidden) : at.hidden_operand);
    hidden.activation = Activation::squared_relu;
    hidden.is_operand = !skips_zeros;
    key.out_order = is_by_columns ? InputOrder::native : InputOrder::consecutive;
    key.out_scale = 1 / hidden_scale;
    add(key, hidden);
    launch_rows(launcher, key);

    if (is_by_columns) {
      ColumnProduct down{};
      down.values = static_cast<const char *>(layer.ffn_value.values);
      down.scales = static_cast<const char *>(layer.ffn_value.scales);
      down.hidden = at.hidden;
      down.partials = at.partials;
      down.outputs = width;
      down.inputs = static_cast<int32_t>(s.ffn_width);
      down.rows = rows;
      down.padded = padded;
      down.splits = partials = column_splits(device, s.width);
      if (layer.ffn_value.format == Format::f16)
        launch_columns_in<Format::f16>(launcher, down);
      else
        launch_columns_in<Format::q8>(launcher, down);
    } else {
      RowProducts down = row_products(s.ffn_width, rows);
      down.in_scale = hidden_scale;
      add(down, product_of(layer.ffn_value, at.hidden_operand, at.partials));
      launch_rows(launcher, down);
      partials = 1;
    }
  }
  if (batch.logits_count == 0) return launcher.error;

  norm.weight = weights.ln_out_weight;
  norm.bias = weights.ln_out_bias;
  norm.mixes = 0;
  norm.is_last = true;
  norm.padded = padded_rows(batch.logits_count);
  norm.operand[0] = at.mixed[0];
  norm.x = at.x[now];
  norm.partials_count = partials;
  launcher.launch(norm_and_mix, batch.logits_count * norm_cluster, norm_threads, 0, norm_cluster, norm);
  RowProducts head = row_products(s.width, batch.logits_count);
  add(head, product_of(weights.head, at.mixed[0], batch.logits));
  launch_rows(launcher, head);
  return launcher.error;
}

}  // namespace libwkv::cuda
