// SPDX-License-Identifier: Apache-2.0
// A checkpoint's tensors as the CPU kernels want them: in place in the mapped file where that is fast, else packed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <wkv/model.h>

#include "base/memory.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "kernels/table.h"
#include "model/hyper_parameters.h"

namespace libwkv {

// Vectors are float32, [width] unless said.
struct CpuLayer {
  const float *ln1_weight, *ln1_bias, *ln2_weight, *ln2_bias, *ln_x_weight, *ln_x_bias;
  const float *x_r, *x_w, *x_k, *x_v, *x_a, *x_g, *ffn_x_k;
  const float *w0, *a0, *v0, *k_k, *k_a, *r_k;  // v0: NULL in layer 0
  kernels::Matrix receptance, key, value, output;
  kernels::Matrix w1, a1, v1, g1;  // first low-rank products, Order::rows; v1, v2: no data in layer 0
  kernels::Matrix w2, a2, v2, g2;  // second ones, Order::columns
  kernels::Matrix ffn_key;
  kernels::Matrix ffn_value;  // Order::columns where its format allows: inputs that are zero are skipped
};

struct CpuWeights {
  std::vector<CpuLayer> layers;
  const float *ln0_weight, *ln0_bias, *ln_out_weight, *ln_out_bias;
  kernels::Matrix head;
  formats::Tensor embedding;  // rows are decoded one by one
  std::string compute_types;  // of the large matrices, by bytes, largest first
  uint64_t weight_bytes = 0, mapped_bytes = 0, step_bytes = 0;
};

// Packs weights and keeps their memory; or only plans it, and reads no weight: the same decisions, with matrices whose
// data is NULL unless they stay in the file. Throws Error, WKV_CANCELLED from progress included.
class CpuWeightStore {
 public:
  using Progress = std::function<bool(uint64_t done_bytes, uint64_t total_bytes)>;

  // account, pool: NULL to plan.
  CpuWeightStore(const formats::Checkpoint &checkpoint, const HyperParameters &hyper, wkv_type weight_type,
                 std::shared_ptr<MemoryAccount> account, ThreadPool *pool, const Progress &progress);
  ~CpuWeightStore();

  const CpuWeights &weights() const { return weights_; }

 private:
  enum class Use { matrix, protected_matrix, output_head };
  kernels::Matrix pack(const std::string &name, kernels::Order order, Use use);
  kernels::Matrix pack_low_rank(const std::string &name, kernels::Order order);
  kernels::Matrix pack_columns(const formats::Tensor &tensor, kernels::Format format);
  kernels::Matrix pack_rows(const formats::Tensor &tensor, kernels::Format format);
  const float *vector(const std::string &name);
  const formats::Tensor &tensor(const std::string &name) const;
  kernels::Matrix in_place(const formats::Tensor &tensor, int64_t outputs, int64_t inputs, size_t stride,
                           kernels::Format format, kernels::Order order);
  bool is_plan() const { return pool_ == nullptr; }
  std::byte *allocate(size_t bytes);  // NULL in a plan
  void count_mapped(const formats::Tensor &tensor);
  void finish(const formats::Tensor &tensor, bool is_copied);
  void count_type(const kernels::Matrix &matrix);

  const formats::Checkpoint &checkpoint_;
  const HyperParameters hyper_;
  const wkv_type weight_type_;
  const std::shared_ptr<MemoryAccount> account_;
  ThreadPool *const pool_;
  const Progress &progress_;
  uint64_t done_bytes_ = 0, total_bytes_ = 0, packed_bytes_ = 0;
  std::vector<Buffer> buffers_;
  std::vector<std::pair<kernels::Format, uint64_t>> type_bytes_;
  CpuWeights weights_;
};

// Bytes of a matrix in a format and order, and the stride between its rows (or groups of columns).
size_t matrix_bytes(kernels::Format format, kernels::Order order, int64_t outputs, int64_t inputs);
const char *name_of(kernels::Format format);

}  // namespace libwkv
