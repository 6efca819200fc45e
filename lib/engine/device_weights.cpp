// SPDX-License-Identifier: Apache-2.0
#include "engine/device_weights.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "engine/cpu_weights.h"
#include "engine/repack.h"
#include "formats/blocks.h"

namespace libwkv {

using formats::StoredType;
using formats::Tensor;
using kernels::DevicePart;
using kernels::Format;

namespace {

// What the device holds a large matrix in. It computes with F16 where the file has BF16: its 8 bits of precision fit,
// and a number too large for F16 is refused when it arrives.
Format held_format(wkv_type type, StoredType stored) {
  switch (type) {
    case WKV_TYPE_F32:
      return Format::f32;
    case WKV_TYPE_F16:
    case WKV_TYPE_BF16:
      return Format::f16;
    case WKV_TYPE_Q8:
      return Format::q8;
    case WKV_TYPE_Q4:
      return Format::q4;
    default:
      return stored == StoredType::bf16 ? Format::f16 : exact_format(stored);
  }
}

class Planner {
 public:
  Planner(const formats::Checkpoint &checkpoint, const HyperParameters &hyper, wkv_type type,
          const kernels::DeviceOptions &options, const kernels::DeviceTable &table)
      : checkpoint_(checkpoint),
        hyper_(hyper),
        type_(type),
        options_(options),
        table_(table),
        shape_(device_shape(hyper)) {
    for (const auto &[name, tensor] : checkpoint.tensors) plan_.file_bytes += tensor.bytes.size();
    is_all_f32_ = type == WKV_TYPE_DEFAULT && find("blocks.0.att.receptance.weight").type == StoredType::f32;
  }

  DeviceWeightPlan take() {
    embedding();
    vector(DevicePart::ln0_weight, -1, "blocks.0.ln0.weight");
    vector(DevicePart::ln0_bias, -1, "blocks.0.ln0.bias");
    for (int64_t l = 0; l < hyper_.layers; l++) layer(l);
    vector(DevicePart::ln_out_weight, -1, "ln_out.weight");
    vector(DevicePart::ln_out_bias, -1, "ln_out.bias");
    matrix(DevicePart::head, -1, "head.weight");
    std::stable_sort(types_.begin(), types_.end(), [](auto &a, auto &b) { return a.second > b.second; });
    for (auto &[format, bytes] : types_) {
      if (!plan_.compute_types.empty()) plan_.compute_types += ", ";
      plan_.compute_types += name_of(format);
    }
    const kernels::DeviceFormats formats = plan_.all_formats();
    plan_.copies_bytes = table_.copies_bytes(&shape_, &options_, &formats);
    plan_.weight_bytes += plan_.copies_bytes;
    return std::move(plan_);
  }

 private:
  const Tensor &find(const std::string &name) const {
    const auto found = checkpoint_.tensors.find(name);
    if (found == checkpoint_.tensors.end()) fail(WKV_FORMAT, "tensor %s is missing", name.c_str());
    return found->second;
  }

  uint64_t add(DeviceTensor tensor) {
    const uint64_t bytes = table_.part_bytes(&shape_, tensor.part, tensor.format);
    plan_.weight_bytes += bytes;
    if (tensor.part != DevicePart::embedding) plan_.step_bytes += bytes;
    plan_.formats.push_back({tensor.part, tensor.format, tensor.layer});
    plan_.tensors.push_back(std::move(tensor));
    return bytes;
  }

  void vector(DevicePart part, int64_t layer, const std::string &name) {
    const Tensor &tensor = find(name);
    add({part, layer, &tensor, name, Format::f32, Format::f32, 1, tensor.values(),
         static_cast<size_t>(tensor.values()) * sizeof(float), false});
  }

  void matrix(DevicePart part, int64_t layer, const std::string &name) {
    const Tensor &tensor = find(name);
    wkv_type type = type_;
    // As on the CPU: the value projection that all layers mix in stays wide, and the head never has 4 bits.
    if (part == DevicePart::value && layer == 0 && (type == WKV_TYPE_Q8 || type == WKV_TYPE_Q4))
      type = WKV_TYPE_DEFAULT;
    if (part == DevicePart::head && type == WKV_TYPE_Q4) type = WKV_TYPE_Q8;
    Format format = held_format(type, tensor.type);
    if (is_quantised(format) && tensor.shape[1] % kernels::block != 0)
      format = held_format(WKV_TYPE_DEFAULT, tensor.type);
    const uint64_t bytes = add(sent(part, layer, tensor, name, format));
    const auto found = std::find_if(types_.begin(), types_.end(), [&](auto &one) { return one.first == format; });
    if (found == types_.end())
      types_.emplace_back(format, bytes);
    else
      found->second += bytes;
  }

  // Plain numbers travel as they are stored and become what the device holds there; blocks are rearranged here, and
  // numbers that shall have BF16's precision get it.
  DeviceTensor sent(DevicePart part, int64_t layer, const Tensor &tensor, const std::string &name,
                    Format format) const {
    const Format stored = exact_format(tensor.type);
    const bool is_rounded = type_ == WKV_TYPE_BF16 && format == Format::f16;
    const Format source = is_rounded ? Format::bf16 : is_quantised(stored) ? format : stored;
    return {part,
            layer,
            &tensor,
            name,
            source,
            format,
            tensor.shape[0],
            tensor.shape[1],
            row_bytes(source, tensor.shape[1]),
            false};
  }

  // Rows are looked up, never multiplied: any plain type is held as it is, and blocks as the numbers they stand for.
  void embedding() {
    const Tensor &tensor = find("emb.weight");
    const Format stored = exact_format(tensor.type);
    add(sent(DevicePart::embedding, -1, tensor, "emb.weight", is_quantised(stored) ? Format::f32 : stored));
  }

  // Official low-rank matrices are [inputs, outputs]; files store them either way round.
  void low_rank(DevicePart part, int64_t layer, const std::string &name) {
    const Tensor &tensor = find(name);
    const Format stored = exact_format(tensor.type);
    if (is_quantised(stored))
      fail(WKV_UNSUPPORTED, "tensor %s: low-rank matrices of type %s", name.c_str(), formats::name_of(tensor.type));
    const bool is_wide = type_ == WKV_TYPE_F32 || (stored == Format::f32 && (is_all_f32_ || !fits_f16(tensor)));
    const bool is_transposed = tensor.strides[1] == 1 || tensor.strides[0] != 1;
    const int64_t rows = tensor.shape[is_transposed ? 0 : 1], columns = tensor.shape[is_transposed ? 1 : 0];
    add({part, layer, &tensor, name, stored, is_wide ? Format::f32 : Format::f16, rows, columns,
         row_bytes(stored, columns), is_transposed});
  }

  void layer(int64_t l) {
    const std::string prefix = "blocks." + std::to_string(l) + ".", att = prefix + "att.", ffn = prefix + "ffn.";
    vector(DevicePart::ln1_weight, l, prefix + "ln1.weight");
    vector(DevicePart::ln1_bias, l, prefix + "ln1.bias");
    vector(DevicePart::ln2_weight, l, prefix + "ln2.weight");
    vector(DevicePart::ln2_bias, l, prefix + "ln2.bias");
    vector(DevicePart::ln_x_weight, l, att + "ln_x.weight");
    vector(DevicePart::ln_x_bias, l, att + "ln_x.bias");
    vector(DevicePart::x_r, l, att + "x_r");
    vector(DevicePart::x_w, l, att + "x_w");
    vector(DevicePart::x_k, l, att + "x_k");
    vector(DevicePart::x_v, l, att + "x_v");
    vector(DevicePart::x_a, l, att + "x_a");
    vector(DevicePart::x_g, l, att + "x_g");
    vector(DevicePart::ffn_x_k, l, ffn + "x_k");
    vector(DevicePart::w0, l, att + "w0");
    vector(DevicePart::a0, l, att + "a0");
    vector(DevicePart::k_k, l, att + "k_k");
    vector(DevicePart::k_a, l, att + "k_a");
    vector(DevicePart::r_k, l, att + "r_k");
    matrix(DevicePart::receptance, l, att + "receptance.weight");
    matrix(DevicePart::key, l, att + "key.weight");
    matrix(DevicePart::value, l, att + "value.weight");
    matrix(DevicePart::output, l, att + "output.weight");
    low_rank(DevicePart::w1, l, att + "w1");
    low_rank(DevicePart::a1, l, att + "a1");
    low_rank(DevicePart::g1, l, att + "g1");
    low_rank(DevicePart::w2, l, att + "w2");
    low_rank(DevicePart::a2, l, att + "a2");
    low_rank(DevicePart::g2, l, att + "g2");
    if (l > 0) {
      vector(DevicePart::v0, l, att + "v0");
      low_rank(DevicePart::v1, l, att + "v1");
      low_rank(DevicePart::v2, l, att + "v2");
    }
    matrix(DevicePart::ffn_key, l, ffn + "key.weight");
    matrix(DevicePart::ffn_value, l, ffn + "value.weight");
  }

  // Files often have low-rank matrices as F32 beside narrower ones, though their numbers came from 16 bits. Those lose
  // at most 2^-25 as F16, far below what fp32 sums lose; others stay as they are. Needs the numbers themselves.
  static bool fits_f16(const Tensor &tensor) {
    tensor.file->check_length();
    const int64_t count = tensor.shape[1];
    std::vector<float> row(static_cast<size_t>(count)), again(row.size());
    std::vector<std::byte> halves(row.size() * 2);
    for (int64_t r = 0; r < tensor.shape[0]; r++) {
      formats::decode_row(tensor, r, row.data());
      formats::encode(StoredType::f16, row.data(), count, halves.data());
      formats::decode(StoredType::f16, halves.data(), count, again.data());
      for (size_t i = 0; i < row.size(); i++)
        if (!(std::fabs(row[i] - again[i]) <= 0x1p-25f)) return false;
    }
    return true;
  }

  const formats::Checkpoint &checkpoint_;
  const HyperParameters &hyper_;
  const wkv_type type_;
  const kernels::DeviceOptions &options_;
  const kernels::DeviceTable &table_;
  const kernels::DeviceShape shape_;
  bool is_all_f32_ = false;
  DeviceWeightPlan plan_;
  std::vector<std::pair<Format, uint64_t>> types_;
};

// Rows of one tensor, as the device asks for them: copied or packed by all threads.
class Sender {
 public:
  Sender(const DeviceTensor &what, ThreadPool &pool) : what_(what), pool_(pool) {
    const Tensor &tensor = *what.tensor;
    is_plain_ = !is_quantised(exact_format(tensor.type)) && what.source == exact_format(tensor.type);
    is_vector_ = tensor.rank == 1 || what.part == DevicePart::r_k;
    const int outer = is_low_rank() && !what.is_transposed ? 1 : 0;
    if (tensor.rank == 2) {
      row_stride_ = tensor.strides[static_cast<size_t>(outer)];
      column_stride_ = tensor.strides[static_cast<size_t>(1 - outer)];
    }
    if (!is_vector_ && !is_plain_)
      scratch_.resize(static_cast<size_t>(pool.threads()) * static_cast<size_t>(what.columns));
  }

  kernels::DeviceSource source() {
    return {what_.rows,
            what_.columns,
            what_.source,
            what_.row_bytes,
            what_.is_transposed,
            [](void *context, int64_t begin, int64_t end, void *to) {
              static_cast<Sender *>(context)->fill(begin, end, static_cast<std::byte *>(to));
            },
            this};
  }

 private:
  bool is_low_rank() const { return what_.part >= DevicePart::w1; }

  void fill(int64_t begin, int64_t end, std::byte *to) {
    const Tensor &tensor = *what_.tensor;
    if (is_vector_) {
      float *values = reinterpret_cast<float *>(to);
      const int64_t rows = tensor.rank == 2 ? tensor.shape[0] : 1, count = tensor.values() / std::max<int64_t>(rows, 1);
      for (int64_t row = 0; row < rows; row++) formats::decode_row(tensor, row, values + row * count);
      return;
    }
    // Pieces of a few hundred KiB keep every thread busy and small tensors cheap.
    const int64_t piece =
        std::max<int64_t>(1, static_cast<int64_t>((size_t{512} << 10) / std::max<size_t>(what_.row_bytes, 1)));
    const int64_t pieces = (end - begin + piece - 1) / piece;
    std::atomic<int64_t> next{0};
    std::lock_guard lock(pool_.mutex());
    pool_.run(static_cast<size_t>(std::min<int64_t>(pieces, pool_.threads())), [&](size_t worker) {
      for (int64_t i; (i = next.fetch_add(1)) < pieces;)
        fill_rows(begin + i * piece, std::min(end, begin + (i + 1) * piece),
                  to + static_cast<size_t>(i * piece) * what_.row_bytes, worker);
    });
  }

  void fill_rows(int64_t begin, int64_t end, std::byte *to, size_t worker) {
    const Tensor &tensor = *what_.tensor;
    if (!is_plain_) {
      float *scratch = scratch_.data() + worker * static_cast<size_t>(what_.columns);
      for (int64_t row = begin; row < end; row++, to += what_.row_bytes)
        pack_row(tensor, row, what_.source, scratch, to);
      return;
    }
    const size_t size = formats::block_bytes(tensor.type);
    const std::byte *from = tensor.bytes.data() + static_cast<size_t>(begin * row_stride_) * size;
    if (column_stride_ == 1 && row_stride_ == what_.columns) {
      std::memcpy(to, from, static_cast<size_t>(end - begin) * what_.row_bytes);
      return;
    }
    for (int64_t row = begin; row < end;
         row++, from += static_cast<size_t>(row_stride_) * size, to += what_.row_bytes) {
      if (column_stride_ == 1) {
        std::memcpy(to, from, what_.row_bytes);
        continue;
      }
      for (int64_t i = 0; i < what_.columns; i++)
        std::memcpy(to + static_cast<size_t>(i) * size, from + static_cast<size_t>(i * column_stride_) * size, size);
    }
  }

  const DeviceTensor &what_;
  ThreadPool &pool_;
  bool is_plain_, is_vector_;
  int64_t row_stride_ = 1, column_stride_ = 1;
  std::vector<float> scratch_;
};

}  // namespace

kernels::DeviceShape device_shape(const HyperParameters &hyper) {
  return {hyper.layers,     hyper.width,  hyper.heads,  hyper.head_size, hyper.ffn_width,
          hyper.vocab_size, hyper.rank_w, hyper.rank_a, hyper.rank_v,    hyper.rank_g};
}

DeviceWeightPlan plan_device_weights(const formats::Checkpoint &checkpoint, const HyperParameters &hyper,
                                     wkv_type weight_type, const kernels::DeviceOptions &options,
                                     const kernels::DeviceTable &table) {
  return Planner(checkpoint, hyper, weight_type, options, table).take();
}

void fail_device(const kernels::DeviceFailure &failure) { fail(failure.status, "%s", failure.text); }

void load_device_weights(const DeviceWeightPlan &plan, const kernels::DeviceTable &table, kernels::DeviceModel *model,
                         ThreadPool &pool,
                         const std::function<bool(uint64_t done_bytes, uint64_t total_bytes)> &progress) {
  uint64_t done = 0;
  kernels::DeviceFailure failure{};
  for (const DeviceTensor &one : plan.tensors) {
    one.tensor->file->check_length();
    Sender sender(one, pool);
    const kernels::DeviceSource source = sender.source();
    if (!table.load(model, one.part, one.layer, &source, one.format, &failure)) {
      if (failure.status == WKV_UNSUPPORTED) fail(WKV_UNSUPPORTED, "tensor %s: %s", one.name.c_str(), failure.text);
      fail_device(failure);
    }
    one.tensor->file->check_length();
    done = std::min(plan.file_bytes, done + one.tensor->bytes.size());
    if (progress && progress(done, plan.file_bytes)) fail(WKV_CANCELLED, "loading was cancelled");
  }
  if (!table.finish_load(model, &failure)) fail_device(failure);
  if (progress && done < plan.file_bytes && progress(plan.file_bytes, plan.file_bytes))
    fail(WKV_CANCELLED, "loading was cancelled");
}

}  // namespace libwkv
