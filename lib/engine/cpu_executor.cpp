// SPDX-License-Identifier: Apache-2.0
// Shared parts of both ways: kernel selection, workspace, products, embedding and logits.
#include "engine/cpu_executor.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "base/error.h"
#include "base/processor.h"
#include "formats/blocks.h"

namespace libwkv {

using kernels::Matrix;
using kernels::max_vectors;

namespace {

constexpr int64_t smallest_piece = 32 << 10;  // numbers that a thread claims at least in a streaming product
constexpr int64_t most_pieces = 256;          // of one job, roughly
constexpr int64_t product_outputs = 128;      // outputs a thread claims at a time in a matrix product

}  // namespace

const kernels::Table &select_kernels(const std::string &name) {
  const kernels::Table *const *tables = kernels::tables();
  for (size_t i = 0; tables[i]; i++) {
    const kernels::Table &table = *tables[i];
    if (table.table_size != sizeof(kernels::Table) || table.table_version != kernels::kernel_table_version)
      fail(WKV_INTERNAL, "kernel set %s has another table layout", table.name);
    if (name.empty() ? table.is_usable() : name == table.name) {
      if (!table.is_usable()) fail(WKV_NOT_FOUND, "this processor cannot run the kernel set %s", table.name);
      return table;
    }
  }
  std::string names;
  for (const std::string &usable : usable_kernels()) names.append(names.empty() ? "" : ", ").append(usable);
  fail(WKV_NOT_FOUND, "no kernel set is named '%s'; this machine has %s", name.c_str(), names.c_str());
}

std::vector<std::string> usable_kernels() {
  std::vector<std::string> names;
  for (const kernels::Table *const *table = kernels::tables(); *table; table++)
    if ((*table)->is_usable()) names.emplace_back((*table)->name);
  return names;
}

int resolve_threads(int threads) { return threads ? threads : std::min(usable_cores(), 256); }

CpuExecutor::CpuExecutor(const formats::Checkpoint &checkpoint, const HyperParameters &hyper, const CpuOptions &options,
                         std::shared_ptr<MemoryAccount> account, const CpuWeightStore::Progress &progress)
    : hyper_(hyper),
      layout_(hyper),
      table_(select_kernels(options.kernels)),
      account_(std::move(account)),
      pool_(resolve_threads(options.threads)),
      store_(checkpoint, hyper, options.weight_type, account_, &pool_, progress),
      few_rows_(options.is_reproducible ? 0 : kernels::max_vectors),
      sizes_(hyper, store_.weights(), table_, pool_.threads()),
      width_stride_(sizes_.width_stride),
      ffn_stride_(sizes_.ffn_stride),
      rank_stride_(sizes_.rank_stride),
      prepared_floats_(sizes_.prepared_floats),
      scratch_floats_(sizes_.scratch_floats) {}

ExecutorInfo CpuExecutor::info() const {
  const CpuWeights &weights = store_.weights();
  return {"cpu",
          table_.name,
          weights.compute_types,
          pool_.threads(),
          weights.weight_bytes,
          weights.mapped_bytes,
          weights.step_bytes};
}

int64_t CpuExecutor::chunk_rows(int64_t rows, int64_t most) const { return rows_together(rows, most, few_rows_ == 0); }

void CpuExecutor::reserve(int64_t rows, int64_t logits_rows) {
  logits_rows = held_logits(logits_rows);
  if (rows <= work_.rows && logits_rows <= work_.logits_rows) return;
  rows = std::max(rows, work_.rows);
  logits_rows = std::max(logits_rows, work_.logits_rows);

  // Nothing in a workspace outlives a step, so the old one goes first: both together would pass what was planned.
  const int64_t old_rows = work_.rows, old_logits_rows = work_.logits_rows;
  work_ = Workspace();
  auto make = [&](int64_t wanted_rows, int64_t wanted_logits_rows) {
    Workspace next;
    next.rows = wanted_rows;
    next.logits_rows = wanted_logits_rows;
    next.memory = Buffer(account_, MemoryKind::workspace, next.lay_out(sizes_, nullptr));
    next.lay_out(sizes_, next.memory.as<float>());
    work_ = std::move(next);
  };
  try {
    make(rows, logits_rows);
  } catch (...) {
    try {
      if (old_rows > 0) make(old_rows, old_logits_rows);  // the steps that fitted shall go on fitting
    } catch (...) {
      // the next step asks again
    }
    throw;
  }
}

void CpuExecutor::parallel(size_t count, void (*body)(void *context, size_t index), void *context) noexcept {
  each_task(count, [&](size_t index, size_t) { body(context, index); });
}

RunOutcome CpuExecutor::run(const Batch &batch, const LayerWatch *watch) noexcept {
  embed(batch);
  const bool is_few = static_cast<int64_t>(batch.tokens.size()) <= few_rows_;
  if (!(is_few ? run_few(batch, watch) : run_many(batch, watch))) return RunOutcome::cancelled;
  if (!batch.logits.empty()) logits(batch);
  return RunOutcome::done;
}

// One body a thread that takes tasks until none is left: it knows its place in the scratch memory, and a thread
// without a core takes nothing.
template <class Body>
void CpuExecutor::each_task(size_t tasks, const Body &body) {
  std::atomic<size_t> next{0};
  pool_.run(std::min<size_t>(tasks, static_cast<size_t>(pool_.threads())), [&](size_t worker) {
    for (size_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) body(task, worker);
  });
}

template <class Body>
void CpuExecutor::each_row(int64_t rows, const Body &body) {
  constexpr int64_t rows_a_task = 8;
  each_task(static_cast<size_t>((rows + rows_a_task - 1) / rows_a_task), [&](size_t task, size_t) {
    int64_t begin = static_cast<int64_t>(task) * rows_a_task, end = std::min(rows, begin + rows_a_task);
    for (int64_t r = begin; r < end; r++) body(r);
  });
}

void CpuExecutor::embed(const Batch &batch) {
  const CpuWeights &weights = store_.weights();
  auto one = [&](int64_t r) {
    float *x = row(work_.x, r);
    formats::decode_row(weights.embedding, batch.tokens[static_cast<size_t>(r)], x);
    table_.layer_norm(hyper_.width, x, weights.ln0_weight, weights.ln0_bias, 1e-5f, x);
  };
  int64_t rows = static_cast<int64_t>(batch.tokens.size());
  if (rows == 1)
    one(0);
  else
    each_row(rows, one);
}

const float *CpuExecutor::previous_row(const Batch &batch, int64_t r, size_t segment, size_t shift) const {
  return r == batch.segments[segment].begin ? static_cast<const float *>(batch.segments[segment].from) + shift
                                            : row(work_.h, r - 1);
}

void CpuExecutor::save_shift(const Batch &batch, size_t offset) {
  const size_t bytes = static_cast<size_t>(hyper_.width) * sizeof(float);
  for (const Segment &segment : batch.segments) {
    for (const RowState &snapshot : segment.snapshots)
      std::memcpy(static_cast<float *>(snapshot.state) + offset, row(work_.h, snapshot.row), bytes);
    std::memcpy(static_cast<float *>(segment.state) + offset, row(work_.h, segment.end - 1), bytes);
  }
}

// One head of a sequence through its rows. A state that is not stepped in place is copied here, where it is read
// anyway.
void CpuExecutor::recur(const Segment &segment, int64_t head, size_t wkv_offset) {
  const Workspace &w = work_;
  const int64_t size = hyper_.head_size;
  const size_t offset = wkv_offset + static_cast<size_t>(head * size * size);
  const size_t bytes = static_cast<size_t>(size * size) * sizeof(float);
  float *state = static_cast<float *>(segment.state) + offset;
  if (segment.from != segment.state) std::memcpy(state, static_cast<const float *>(segment.from) + offset, bytes);
  int64_t done = segment.begin;
  auto advance = [&](int64_t end) {
    const int64_t at = done * width_stride_ + head * size;
    table_.wkv(end - done, width_stride_, w.receptance + at, w.decay + at, w.key + at, w.value + at, w.removal + at,
               w.rate + at, state, w.wkv + at, size);
    done = end;
  };
  for (const RowState &snapshot : segment.snapshots) {
    advance(snapshot.row + 1);
    std::memcpy(static_cast<float *>(snapshot.state) + offset, state, bytes);
  }
  advance(segment.end);
}

kernels::TimeMixInputs CpuExecutor::mix_inputs(const CpuLayer &layer, int64_t r, bool is_first_layer) const {
  return {row(work_.decay, r),
          row(work_.key, r),
          row(work_.value, r),
          row(work_.rate, r),
          row(work_.removal, r),
          is_first_layer ? nullptr : row(work_.value_mix, r),
          is_first_layer ? nullptr : row(work_.first_value, r),
          layer.w0,
          layer.a0,
          layer.v0,
          layer.k_k,
          layer.k_a,
          hyper_.head_size};
}

kernels::TimeMixOutputs CpuExecutor::mix_outputs(const CpuLayer &layer, int64_t r) const {
  return {row(work_.wkv, r), row(work_.receptance, r), row(work_.key, r), row(work_.value, r), row(work_.gate, r),
          layer.ln_x_weight, layer.ln_x_bias,          layer.r_k,         row(work_.out, r),   hyper_.head_size};
}

void CpuExecutor::prepare(const Matrix &matrix, const float *input, int64_t input_stride, int64_t rows,
                          float *prepared) {
  size_t floats = table_.prepared_floats(matrix.format, matrix.inputs);
  for (int64_t r = 0; r < rows; r++)
    table_.prepare(matrix.format, matrix.inputs, input + r * input_stride, prepared + static_cast<size_t>(r) * floats);
}

void CpuExecutor::multiply_few(const Product *products, size_t count, int64_t rows) {
  // Long runs of memory are read fastest, and short ones leave nobody waiting at the end: pieces shrink with what is
  // left of the job.
  struct Piece {
    const Product *product;
    int64_t begin, end;
  };
  std::array<Piece, 3 * most_pieces> pieces;  // rounding to 8 rows may halve a piece
  size_t used = 0;
  int64_t left = 0;
  for (size_t p = 0; p < count; p++) left += products[p].matrix->inputs * products[p].matrix->outputs;
  int64_t smallest = std::max(smallest_piece, left / most_pieces);
  for (size_t p = 0; p < count; p++) {
    const Matrix &matrix = *products[p].matrix;
    for (int64_t begin = 0, end; begin < matrix.outputs; begin = end) {
      int64_t numbers = std::max(smallest, left / (2 * pool_.threads()));
      end = std::min(matrix.outputs, begin + std::max<int64_t>(8, numbers / matrix.inputs / 8 * 8));
      left -= (end - begin) * matrix.inputs;
      pieces[used++] = {&products[p], begin, end};
    }
  }
  pool_.run(used, [&](size_t chunk) {
    auto [product, begin, end] = pieces[chunk];
    table_.multiply_rows(product->matrix, begin, end, product->input, static_cast<int32_t>(rows), product->output,
                         product->output_stride);
    if (product->squares)
      for (int64_t r = 0; r < rows; r++)
        table_.activate(kernels::Activation::relu_squared, end - begin,
                        product->output + r * product->output_stride + begin);
  });
}

void CpuExecutor::multiply_many(const Product *products, size_t count, int64_t rows) {
  size_t tasks = 0;
  auto tasks_of = [](const Product &product) {
    return static_cast<size_t>((product.matrix->outputs + product_outputs - 1) / product_outputs);
  };
  for (size_t p = 0; p < count; p++) tasks += tasks_of(products[p]);
  each_task(tasks, [&](size_t task, size_t worker) {
    size_t p = 0;
    while (task >= tasks_of(products[p])) task -= tasks_of(products[p++]);
    const Product &product = products[p];
    int64_t begin = static_cast<int64_t>(task) * product_outputs,
            end = std::min(product.matrix->outputs, begin + product_outputs);
    table_.multiply(product.matrix, begin, end, product.input, product.input_stride, rows, product.output,
                    product.output_stride, work_.scratch + worker * scratch_floats_);
    if (product.squares)
      for (int64_t r = 0; r < rows; r++)
        table_.activate(kernels::Activation::relu_squared, end - begin,
                        product.output + r * product.output_stride + begin);
  });
}

void CpuExecutor::logits(const Batch &batch) {
  const CpuWeights &weights = store_.weights();
  size_t wanted = batch.logits.size();
  for (size_t first = 0; first < wanted; first += logits_group) {
    int64_t rows = static_cast<int64_t>(std::min<size_t>(wanted - first, logits_group));
    for (int64_t r = 0; r < rows; r++)  // wanted rows move to the front: rising, so none is overwritten before its turn
      table_.layer_norm(hyper_.width, row(work_.x, batch.logits[first + static_cast<size_t>(r)].row),
                        weights.ln_out_weight, weights.ln_out_bias, 1e-5f, row(work_.h, r));
    float *target = wanted == 1 ? batch.logits[0].logits : work_.logits;
    Product product{&weights.head, work_.h, width_stride_, target, hyper_.vocab_size};
    if (rows <= few_rows_) {
      product.input = work_.prepared[0];
      prepare(weights.head, work_.h, width_stride_, rows, work_.prepared[0]);
      multiply_few(&product, 1, rows);
    } else {
      multiply_many(&product, 1, rows);
    }
    if (wanted > 1)
      for (int64_t r = 0; r < rows; r++)
        std::memcpy(batch.logits[first + static_cast<size_t>(r)].logits, target + r * hyper_.vocab_size,
                    static_cast<size_t>(hyper_.vocab_size) * sizeof(float));
  }
}

// ---- few rows: every weight is read once, by all threads

bool CpuExecutor::run_few(const Batch &batch, const LayerWatch *watch) {
  int64_t rows = static_cast<int64_t>(batch.tokens.size()), width = hyper_.width;
  Workspace &w = work_;
  const CpuWeights &weights = store_.weights();
  for (int64_t l = 0; l < hyper_.layers; l++) {
    const CpuLayer &layer = weights.layers[static_cast<size_t>(l)];
    bool is_first_layer = l == 0;

    for (int64_t r = 0; r < rows; r++)
      table_.layer_norm(width, row(w.x, r), layer.ln1_weight, layer.ln1_bias, 1e-5f, row(w.h, r));
    const float *mixes[6] = {layer.x_r, layer.x_w, layer.x_k, layer.x_v, layer.x_a, layer.x_g};
    for (size_t s = 0; s < batch.segments.size(); s++)
      for (int64_t r = batch.segments[s].begin; r < batch.segments[s].end; r++)
        for (int m = 0; m < 6; m++)
          table_.token_shift(width, row(w.h, r), previous_row(batch, r, s, layout_.att_shift(l)), mixes[m],
                             row(w.mixed[m], r));
    save_shift(batch, layout_.att_shift(l));

    Product products[7] = {{&layer.receptance, w.mixed[0], 0, w.receptance, width_stride_},
                           {&layer.key, w.mixed[2], 0, w.key, width_stride_},
                           {&layer.value, w.mixed[3], 0, w.value, width_stride_},
                           {&layer.w1, w.mixed[1], 0, w.low_w, rank_stride_},
                           {&layer.a1, w.mixed[4], 0, w.low_a, rank_stride_},
                           {&layer.g1, w.mixed[5], 0, w.low_g, rank_stride_},
                           {&layer.v1, w.mixed[3], 0, w.low_v, rank_stride_}};
    size_t count = is_first_layer ? 6 : 7;
    for (size_t p = 0; p < count; p++) {
      prepare(*products[p].matrix, products[p].input, width_stride_, rows, w.prepared[p]);
      products[p].input = w.prepared[p];
    }
    multiply_few(products, count, rows);
    for (int64_t r = 0; r < rows; r++) {
      table_.activate(kernels::Activation::tanh, hyper_.rank_w, w.low_w + r * rank_stride_);
      table_.activate(kernels::Activation::sigmoid, hyper_.rank_g, w.low_g + r * rank_stride_);
    }
    time_mix_few(layer, batch, is_first_layer);

    prepare(layer.output, w.out, width_stride_, rows, w.prepared[0]);
    Product output{&layer.output, w.prepared[0], 0, w.product, width_stride_};
    multiply_few(&output, 1, rows);
    for (int64_t r = 0; r < rows; r++) {
      table_.add(width, row(w.x, r), row(w.product, r));
      table_.layer_norm(width, row(w.x, r), layer.ln2_weight, layer.ln2_bias, 1e-5f, row(w.h, r));
    }
    for (size_t s = 0; s < batch.segments.size(); s++)
      for (int64_t r = batch.segments[s].begin; r < batch.segments[s].end; r++)
        table_.token_shift(width, row(w.h, r), previous_row(batch, r, s, layout_.ffn_shift(l)), layer.ffn_x_k,
                           row(w.mixed[0], r));
    save_shift(batch, layout_.ffn_shift(l));

    prepare(layer.ffn_key, w.mixed[0], width_stride_, rows, w.prepared[0]);
    Product key{&layer.ffn_key, w.prepared[0], 0, w.ffn, ffn_stride_, true};
    multiply_few(&key, 1, rows);
    ffn_value_few(layer, rows);
    if (watch && watch->is_cancelled(watch->user, l + 1)) return false;
  }
  return true;
}

// Second low-rank products, recurrence and group norm: one job, since a head needs no other. Threads take neighbouring
// heads together, so that the products read longer runs of memory.
void CpuExecutor::time_mix_few(const CpuLayer &layer, const Batch &batch, bool is_first_layer) {
  Workspace &w = work_;
  int64_t rows = static_cast<int64_t>(batch.tokens.size()), size = hyper_.head_size;
  size_t wkv_offset = layout_.wkv(&layer - store_.weights().layers.data());
  int64_t groups = std::min<int64_t>(hyper_.heads, pool_.threads() > 1 ? 2 * pool_.threads() : 1);
  pool_.run(static_cast<size_t>(groups), [&](size_t chunk) {
    int64_t group = static_cast<int64_t>(chunk), first = hyper_.heads * group / groups,
            last = hyper_.heads * (group + 1) / groups;
    int64_t begin = first * size, end = last * size;
    auto second = [&](const Matrix &matrix, const float *low, float *out) {
      table_.multiply_columns(&matrix, 0, matrix.inputs, begin, end, low, rank_stride_, static_cast<int32_t>(rows), out,
                              width_stride_);
    };
    second(layer.w2, w.low_w, w.decay);
    second(layer.a2, w.low_a, w.rate);
    second(layer.g2, w.low_g, w.gate);
    if (!is_first_layer) second(layer.v2, w.low_v, w.value_mix);
    for (int64_t r = 0; r < rows; r++) {
      if (is_first_layer)
        std::memcpy(row(w.first_value, r) + begin, row(w.value, r) + begin,
                    static_cast<size_t>(end - begin) * sizeof(float));
      kernels::TimeMixInputs io = mix_inputs(layer, r, is_first_layer);
      table_.time_mix_inputs(&io, first, last);
    }
    for (const Segment &segment : batch.segments)
      for (int64_t head = first; head < last; head++) recur(segment, head, wkv_offset);
    for (int64_t r = 0; r < rows; r++) {
      kernels::TimeMixOutputs io = mix_outputs(layer, r);
      table_.time_mix_outputs(&io, first, last);
    }
  });
}

// x += ffn.value * ffn, without reading the columns that meet a zero.
void CpuExecutor::ffn_value_few(const CpuLayer &layer, int64_t rows) {
  Workspace &w = work_;
  const Matrix &value = layer.ffn_value;
  if (value.order == kernels::Order::rows) {
    prepare(value, w.ffn, ffn_stride_, rows, w.prepared[0]);
    Product product{&value, w.prepared[0], 0, w.product, width_stride_};
    multiply_few(&product, 1, rows);
    for (int64_t r = 0; r < rows; r++) table_.add(hyper_.width, row(w.x, r), row(w.product, r));
    return;
  }
  // Parts of the inputs are fixed, so that sums do not depend on the number of threads; more threads share outputs.
  int64_t groups = (value.inputs + kernels::block - 1) / kernels::block, parts = std::min(ffn_parts, groups);
  int64_t tiles = (value.outputs + 63) / 64, cuts = std::min<int64_t>(tiles, (4 * pool_.threads() + parts - 1) / parts);
  pool_.run(static_cast<size_t>(parts * cuts), [&](size_t chunk) {
    int64_t part = static_cast<int64_t>(chunk) / cuts, cut = static_cast<int64_t>(chunk) % cuts;
    int64_t begin = groups * part / parts * kernels::block,
            end = std::min(value.inputs, groups * (part + 1) / parts * kernels::block);
    int64_t output_begin = tiles * cut / cuts * 64, output_end = std::min(value.outputs, tiles * (cut + 1) / cuts * 64);
    table_.multiply_columns(&value, begin, end, output_begin, output_end, w.ffn, ffn_stride_,
                            static_cast<int32_t>(rows), w.partial + part * max_vectors * width_stride_, width_stride_);
  });
  for (int64_t p = 0; p < parts; p++)
    for (int64_t r = 0; r < rows; r++)
      table_.add(hyper_.width, row(w.x, r), w.partial + (p * max_vectors + r) * width_stride_);
}

// ---- many rows: products of matrices, everything else by rows or by heads

bool CpuExecutor::run_many(const Batch &batch, const LayerWatch *watch) {
  int64_t rows = static_cast<int64_t>(batch.tokens.size()), width = hyper_.width;
  Workspace &w = work_;
  const CpuWeights &weights = store_.weights();
  std::span<const Segment> segments = batch.segments;
  auto segment_of = [&](int64_t r) {
    return static_cast<size_t>(std::upper_bound(segments.begin(), segments.end(), r,
                                                [](int64_t value, const Segment &s) { return value < s.begin; }) -
                               segments.begin()) -
           1;
  };
  for (int64_t l = 0; l < hyper_.layers; l++) {
    const CpuLayer &layer = weights.layers[static_cast<size_t>(l)];
    bool is_first_layer = l == 0;

    each_row(rows, [&](int64_t r) {
      table_.layer_norm(width, row(w.x, r), layer.ln1_weight, layer.ln1_bias, 1e-5f, row(w.h, r));
    });
    const float *mixes[6] = {layer.x_r, layer.x_w, layer.x_k, layer.x_v, layer.x_a, layer.x_g};
    each_row(rows, [&](int64_t r) {
      const float *previous = previous_row(batch, r, segment_of(r), layout_.att_shift(l));
      for (int m = 0; m < 6; m++) table_.token_shift(width, row(w.h, r), previous, mixes[m], row(w.mixed[m], r));
    });
    save_shift(batch, layout_.att_shift(l));

    Product first[7] = {{&layer.receptance, w.mixed[0], width_stride_, w.receptance, width_stride_},
                        {&layer.key, w.mixed[2], width_stride_, w.key, width_stride_},
                        {&layer.value, w.mixed[3], width_stride_, w.value, width_stride_},
                        {&layer.w1, w.mixed[1], width_stride_, w.low_w, rank_stride_},
                        {&layer.a1, w.mixed[4], width_stride_, w.low_a, rank_stride_},
                        {&layer.g1, w.mixed[5], width_stride_, w.low_g, rank_stride_},
                        {&layer.v1, w.mixed[3], width_stride_, w.low_v, rank_stride_}};
    multiply_many(first, is_first_layer ? 6 : 7, rows);
    each_row(rows, [&](int64_t r) {
      table_.activate(kernels::Activation::tanh, hyper_.rank_w, w.low_w + r * rank_stride_);
      table_.activate(kernels::Activation::sigmoid, hyper_.rank_g, w.low_g + r * rank_stride_);
    });
    Product second[4] = {{&layer.w2, w.low_w, rank_stride_, w.decay, width_stride_},
                         {&layer.a2, w.low_a, rank_stride_, w.rate, width_stride_},
                         {&layer.g2, w.low_g, rank_stride_, w.gate, width_stride_},
                         {&layer.v2, w.low_v, rank_stride_, w.value_mix, width_stride_}};
    multiply_many(second, is_first_layer ? 3 : 4, rows);

    each_row(rows, [&](int64_t r) {
      if (is_first_layer)
        std::memcpy(row(w.first_value, r), row(w.value, r), static_cast<size_t>(width) * sizeof(float));
      kernels::TimeMixInputs io = mix_inputs(layer, r, is_first_layer);
      table_.time_mix_inputs(&io, 0, hyper_.heads);
    });
    each_task(segments.size() * static_cast<size_t>(hyper_.heads), [&](size_t task, size_t) {
      recur(segments[task / static_cast<size_t>(hyper_.heads)], static_cast<int64_t>(task) % hyper_.heads,
            layout_.wkv(l));
    });
    each_row(rows, [&](int64_t r) {
      kernels::TimeMixOutputs io = mix_outputs(layer, r);
      table_.time_mix_outputs(&io, 0, hyper_.heads);
    });

    Product output{&layer.output, w.out, width_stride_, w.product, width_stride_};
    multiply_many(&output, 1, rows);
    each_row(rows, [&](int64_t r) {
      table_.add(width, row(w.x, r), row(w.product, r));
      table_.layer_norm(width, row(w.x, r), layer.ln2_weight, layer.ln2_bias, 1e-5f, row(w.h, r));
    });
    each_row(rows, [&](int64_t r) {
      table_.token_shift(width, row(w.h, r), previous_row(batch, r, segment_of(r), layout_.ffn_shift(l)), layer.ffn_x_k,
                         row(w.mixed[0], r));
    });
    save_shift(batch, layout_.ffn_shift(l));

    Product key{&layer.ffn_key, w.mixed[0], width_stride_, w.ffn, ffn_stride_, true};
    multiply_many(&key, 1, rows);
    Product value{&layer.ffn_value, w.ffn, ffn_stride_, w.product, width_stride_};
    multiply_many(&value, 1, rows);
    each_row(rows, [&](int64_t r) { table_.add(width, row(w.x, r), row(w.product, r)); });
    if (watch && watch->is_cancelled(watch->user, l + 1)) return false;
  }
  return true;
}

}  // namespace libwkv
