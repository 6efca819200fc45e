// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu_weights.h"

#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "engine/repack.h"
#include "formats/blocks.h"

namespace libwkv {

using formats::Tensor;
using kernels::Format;
using kernels::Matrix;
using kernels::Order;

namespace {

// Outputs that one thread packs at a time: a tile of nibbles, and enough to fill cache lines of columns.
constexpr int64_t pack_outputs = 64;

Format wanted_format(wkv_type type, formats::StoredType stored) {
  switch (type) {
    case WKV_TYPE_F32:
      return Format::f32;
    case WKV_TYPE_F16:
      return Format::f16;
    case WKV_TYPE_BF16:
      return Format::bf16;
    case WKV_TYPE_Q8:
      return Format::q8;
    case WKV_TYPE_Q4:
      return Format::q4;
    default:
      return exact_format(stored);
  }
}

}  // namespace

const char *name_of(Format format) {
  switch (format) {
    case Format::f32:
      return "F32";
    case Format::f16:
      return "F16";
    case Format::bf16:
      return "BF16";
    case Format::q8:
      return "Q8";
    case Format::q4:
      return "Q4";
    case Format::q4_affine:
      return "Q4 affine";
    case Format::q8_affine:
      return "Q8 affine";
  }
  return "?";
}

size_t matrix_bytes(Format format, Order order, int64_t outputs, int64_t inputs) {
  if (order == Order::rows) return row_bytes(format, inputs) * static_cast<size_t>(outputs);
  return column_bytes(format, outputs) * static_cast<size_t>(is_quantised(format) ? inputs / kernels::block : inputs);
}

CpuWeightStore::CpuWeightStore(const formats::Checkpoint &checkpoint, const HyperParameters &hyper,
                               wkv_type weight_type, std::shared_ptr<MemoryAccount> account, ThreadPool *pool,
                               const Progress &progress)
    : checkpoint_(checkpoint),
      hyper_(hyper),
      weight_type_(weight_type),
      account_(std::move(account)),
      pool_(pool),
      progress_(progress) {
  try {
    for (const auto &[name, tensor] : checkpoint_.tensors) total_bytes_ += tensor.bytes.size();

    weights_.ln0_weight = vector("blocks.0.ln0.weight");
    weights_.ln0_bias = vector("blocks.0.ln0.bias");
    for (int64_t l = 0; l < hyper_.layers; l++) {
      std::string prefix = "blocks." + std::to_string(l) + ".", att = prefix + "att.", ffn = prefix + "ffn.";
      CpuLayer layer{};
      layer.ln1_weight = vector(prefix + "ln1.weight");
      layer.ln1_bias = vector(prefix + "ln1.bias");
      layer.ln2_weight = vector(prefix + "ln2.weight");
      layer.ln2_bias = vector(prefix + "ln2.bias");
      layer.ln_x_weight = vector(att + "ln_x.weight");
      layer.ln_x_bias = vector(att + "ln_x.bias");
      layer.x_r = vector(att + "x_r");
      layer.x_w = vector(att + "x_w");
      layer.x_k = vector(att + "x_k");
      layer.x_v = vector(att + "x_v");
      layer.x_a = vector(att + "x_a");
      layer.x_g = vector(att + "x_g");
      layer.ffn_x_k = vector(ffn + "x_k");
      layer.w0 = vector(att + "w0");
      layer.a0 = vector(att + "a0");
      layer.k_k = vector(att + "k_k");
      layer.k_a = vector(att + "k_a");
      layer.r_k = vector(att + "r_k");
      layer.receptance = pack(att + "receptance.weight", Order::rows, Use::matrix);
      layer.key = pack(att + "key.weight", Order::rows, Use::matrix);
      layer.value = pack(att + "value.weight", Order::rows, l == 0 ? Use::protected_matrix : Use::matrix);
      layer.output = pack(att + "output.weight", Order::rows, Use::matrix);
      layer.w1 = pack_low_rank(att + "w1", Order::rows);
      layer.a1 = pack_low_rank(att + "a1", Order::rows);
      layer.g1 = pack_low_rank(att + "g1", Order::rows);
      layer.w2 = pack_low_rank(att + "w2", Order::columns);
      layer.a2 = pack_low_rank(att + "a2", Order::columns);
      layer.g2 = pack_low_rank(att + "g2", Order::columns);
      if (l > 0) {
        layer.v0 = vector(att + "v0");
        layer.v1 = pack_low_rank(att + "v1", Order::rows);
        layer.v2 = pack_low_rank(att + "v2", Order::columns);
      }
      layer.ffn_key = pack(ffn + "key.weight", Order::rows, Use::matrix);
      layer.ffn_value = pack(ffn + "value.weight", Order::columns, Use::matrix);
      weights_.layers.push_back(layer);
    }
    weights_.ln_out_weight = vector("ln_out.weight");
    weights_.ln_out_bias = vector("ln_out.bias");
    weights_.head = pack("head.weight", Order::rows, Use::output_head);

    weights_.embedding = tensor("emb.weight");
    count_mapped(weights_.embedding);
    finish(weights_.embedding, false);
    if (progress_ && done_bytes_ < total_bytes_ && progress_(total_bytes_, total_bytes_))
      fail(WKV_CANCELLED, "loading was cancelled");
  } catch (...) {
    if (account_) account_->release(MemoryKind::weights, weights_.mapped_bytes);
    throw;
  }

  weights_.weight_bytes = weights_.mapped_bytes + packed_bytes_;
  weights_.step_bytes = weights_.weight_bytes - weights_.embedding.bytes.size();
  std::stable_sort(type_bytes_.begin(), type_bytes_.end(), [](auto &a, auto &b) { return a.second > b.second; });
  for (auto &[format, bytes] : type_bytes_) {
    if (!weights_.compute_types.empty()) weights_.compute_types += ", ";
    weights_.compute_types += name_of(format);
  }
}

CpuWeightStore::~CpuWeightStore() {
  if (account_) account_->release(MemoryKind::weights, weights_.mapped_bytes);
}

const Tensor &CpuWeightStore::tensor(const std::string &name) const {
  auto found = checkpoint_.tensors.find(name);
  if (found == checkpoint_.tensors.end()) fail(WKV_FORMAT, "tensor %s is missing", name.c_str());
  return found->second;
}

std::byte *CpuWeightStore::allocate(size_t bytes) {
  packed_bytes_ += bytes;
  if (is_plan()) return nullptr;
  buffers_.reserve(buffers_.size() + 1);
  buffers_.emplace_back(account_, MemoryKind::weights, bytes);
  return buffers_.back().data();
}

void CpuWeightStore::count_mapped(const Tensor &tensor) {
  if (account_) account_->reserve(MemoryKind::weights, tensor.bytes.size());
  weights_.mapped_bytes += tensor.bytes.size();
}

// A tensor is done: its pages are given back when its numbers were copied, and the user hears of it.
void CpuWeightStore::finish(const Tensor &tensor, bool is_copied) {
  if (is_plan()) return;
  tensor.file->check_length();
  if (is_copied) tensor.file->drop(tensor.bytes);
  done_bytes_ = std::min(total_bytes_, done_bytes_ + tensor.bytes.size());
  if (progress_ && progress_(done_bytes_, total_bytes_)) fail(WKV_CANCELLED, "loading was cancelled");
}

const float *CpuWeightStore::vector(const std::string &name) {
  const Tensor &from = tensor(name);
  from.file->check_length();
  int64_t rows = from.rank == 2 ? from.shape[0] : 1, count = from.values() / std::max<int64_t>(rows, 1);
  float *to = reinterpret_cast<float *>(allocate(static_cast<size_t>(from.values()) * sizeof(float)));
  for (int64_t row = 0; to && row < rows; row++) formats::decode_row(from, row, to + row * count);
  finish(from, false);  // shares pages with its neighbours: nothing to give back
  return to;
}

Matrix CpuWeightStore::in_place(const Tensor &tensor, int64_t outputs, int64_t inputs, size_t stride, Format format,
                                Order order) {
  count_mapped(tensor);
  return {tensor.bytes.data(), outputs, inputs, stride, format, order};
}

void CpuWeightStore::count_type(const Matrix &matrix) {
  uint64_t bytes = matrix_bytes(matrix.format, matrix.order, matrix.outputs, matrix.inputs);
  for (auto &[format, total] : type_bytes_)
    if (format == matrix.format) {
      total += bytes;
      return;
    }
  type_bytes_.emplace_back(matrix.format, bytes);
}

Matrix CpuWeightStore::pack(const std::string &name, Order order, Use use) {
  const Tensor &from = tensor(name);
  from.file->check_length();
  wkv_type type = weight_type_;
  bool narrows = type == WKV_TYPE_Q8 || type == WKV_TYPE_Q4;
  if (use == Use::protected_matrix && narrows) type = WKV_TYPE_DEFAULT;
  if (use == Use::output_head && type == WKV_TYPE_Q4) type = WKV_TYPE_Q8;
  Format format = wanted_format(type, from.type);
  if (is_quantised(format) && from.shape[1] % kernels::block != 0) format = exact_format(from.type);
  bool has_nibbles = format == Format::q4 || format == Format::q4_affine;
  if (order == Order::columns && has_nibbles && from.shape[0] % pack_outputs != 0) order = Order::rows;

  Matrix matrix;
  bool is_copied = order == Order::columns || !is_same_layout(from.type, format) || from.strides[1] != 1;
  if (!is_copied) {
    size_t stride =
        formats::block_bytes(from.type) * static_cast<size_t>(from.strides[0] / formats::block_values(from.type));
    matrix = in_place(from, from.shape[0], from.shape[1], stride, format, Order::rows);
  } else if (order == Order::rows) {
    matrix = pack_rows(from, format);
  } else {
    matrix = pack_columns(from, format);
  }
  count_type(matrix);
  finish(from, is_copied);
  return matrix;
}

Matrix CpuWeightStore::pack_rows(const Tensor &from, Format format) {
  int64_t outputs = from.shape[0], inputs = from.shape[1];
  size_t stride = row_bytes(format, inputs);
  std::byte *to = allocate(stride * static_cast<size_t>(outputs));
  const Matrix matrix{to, outputs, inputs, stride, format, Order::rows};
  if (!to) return matrix;
  int64_t tiles = (outputs + pack_outputs - 1) / pack_outputs;
  std::vector<float> scratch(static_cast<size_t>(tiles > 0 ? inputs * std::min<int64_t>(tiles, pool_->threads()) : 0));
  // A job has one body a thread, each with its own scratch row, that takes tiles until none is left.
  std::atomic<int64_t> next{0};
  std::lock_guard lock(pool_->mutex());
  pool_->run(scratch.size() / static_cast<size_t>(inputs), [&](size_t worker) {
    for (int64_t tile; (tile = next.fetch_add(1)) < tiles;)
      for (int64_t row = tile * pack_outputs; row < std::min(outputs, (tile + 1) * pack_outputs); row++)
        pack_row(from, row, format, scratch.data() + worker * static_cast<size_t>(inputs),
                 to + static_cast<size_t>(row) * stride);
  });
  return matrix;
}

Matrix CpuWeightStore::pack_columns(const Tensor &from, Format format) {
  int64_t outputs = from.shape[0], inputs = from.shape[1];
  size_t row = row_bytes(format, inputs);
  std::byte *to = allocate(matrix_bytes(format, Order::columns, outputs, inputs));
  const Matrix matrix{to, outputs, inputs, column_bytes(format, outputs), format, Order::columns};
  if (!to) return matrix;
  int64_t tiles = (outputs + pack_outputs - 1) / pack_outputs;
  size_t workers = static_cast<size_t>(std::min<int64_t>(tiles, pool_->threads()));
  std::vector<float> scratch(workers * static_cast<size_t>(inputs));
  std::vector<std::byte> rows(workers * row * pack_outputs);
  // Rows that already lie in the wanted form are moved straight from the file.
  bool is_direct = is_same_layout(from.type, format) && from.is_contiguous();
  std::atomic<int64_t> next{0};
  std::lock_guard lock(pool_->mutex());
  pool_->run(workers, [&](size_t worker) {
    for (int64_t tile; (tile = next.fetch_add(1)) < tiles;) {
      int64_t begin = tile * pack_outputs, end = std::min(outputs, begin + pack_outputs);
      const std::byte *source = from.bytes.data() + static_cast<size_t>(begin) * row;
      if (!is_direct) {
        std::byte *packed = rows.data() + worker * row * pack_outputs;
        for (int64_t o = begin; o < end; o++)
          pack_row(from, o, format, scratch.data() + worker * static_cast<size_t>(inputs),
                   packed + static_cast<size_t>(o - begin) * row);
        source = packed;
      }
      rows_to_columns(format, source, begin, end, outputs, inputs, to);
    }
  });
  return matrix;
}

// Official low-rank matrices are [inputs, outputs]; files store them either way round. They stay in a plain format.
Matrix CpuWeightStore::pack_low_rank(const std::string &name, Order order) {
  const Tensor &from = tensor(name);
  from.file->check_length();
  int64_t inputs = from.shape[0], outputs = from.shape[1];
  Format format = exact_format(from.type);
  size_t value = formats::block_bytes(from.type);
  if (is_quantised(format))
    fail(WKV_UNSUPPORTED, "tensor %s: low-rank matrices of type %s", name.c_str(), formats::name_of(from.type));
  // Which axis must be contiguous: inputs within an output, or outputs within an input.
  int64_t inner = order == Order::rows ? 0 : 1, outer = 1 - inner;
  Matrix matrix;
  bool is_copied = from.strides[static_cast<size_t>(inner)] != 1;
  if (!is_copied) {
    matrix = in_place(from, outputs, inputs, value * static_cast<size_t>(from.strides[static_cast<size_t>(outer)]),
                      format, order);
  } else {
    int64_t rows = from.shape[static_cast<size_t>(outer)], count = from.shape[static_cast<size_t>(inner)];
    std::byte *to = allocate(value * static_cast<size_t>(rows * count));
    for (int64_t r = 0; to && r < rows; r++)
      for (int64_t i = 0; i < count; i++)
        std::copy_n(from.bytes.data() + value * static_cast<size_t>(r * from.strides[static_cast<size_t>(outer)] +
                                                                    i * from.strides[static_cast<size_t>(inner)]),
                    value, to + value * static_cast<size_t>(r * count + i));
    matrix = {to, outputs, inputs, value * static_cast<size_t>(count), format, order};
  }
  finish(from, is_copied);
  return matrix;
}

}  // namespace libwkv
