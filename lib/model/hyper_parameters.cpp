// SPDX-License-Identifier: Apache-2.0
#include "model/hyper_parameters.h"

#include <optional>
#include <string>

#include "base/error.h"

namespace libwkv {

namespace {

using formats::Checkpoint;
using formats::Tensor;

class Shapes {
 public:
  explicit Shapes(const Checkpoint &checkpoint) : checkpoint_(checkpoint) {}

  const Tensor &get(const std::string &name, int32_t rank) {
    auto found = checkpoint_.tensors.find(name);
    if (found == checkpoint_.tensors.end()) fail(WKV_FORMAT, "tensor %s is missing", name.c_str());
    if (found->second.rank != rank)
      fail(WKV_FORMAT, "tensor %s has %d dimensions, not %d", name.c_str(), found->second.rank, rank);
    for (int32_t i = 0; i < rank; i++)
      if (found->second.shape[i] <= 0 || found->second.shape[i] > INT32_MAX)
        fail(WKV_FORMAT, "tensor %s has a dimension of %lld", name.c_str(),
             static_cast<long long>(found->second.shape[i]));
    return found->second;
  }

  void check(const std::string &name, int64_t length) {
    const Tensor &tensor = get(name, 1);
    if (tensor.shape[0] != length)
      fail(WKV_FORMAT, "tensor %s has shape [%lld], expected [%lld]", name.c_str(),
           static_cast<long long>(tensor.shape[0]), static_cast<long long>(length));
    used_++;
  }

  void check(const std::string &name, int64_t rows, int64_t columns) {
    const Tensor &tensor = get(name, 2);
    if (tensor.shape[0] != rows || tensor.shape[1] != columns)
      fail(WKV_FORMAT, "tensor %s has shape [%lld, %lld], expected [%lld, %lld]", name.c_str(),
           static_cast<long long>(tensor.shape[0]), static_cast<long long>(tensor.shape[1]),
           static_cast<long long>(rows), static_cast<long long>(columns));
    used_++;
  }

  size_t used() const { return used_; }

 private:
  const Checkpoint &checkpoint_;
  size_t used_ = 0;
};

std::string layer_prefix(int64_t layer) { return "blocks." + std::to_string(layer) + "."; }

int64_t count_layers(const Checkpoint &checkpoint) {
  int64_t layers = 0;
  while (checkpoint.tensors.contains(layer_prefix(layers) + "ln1.weight")) layers++;
  return layers;
}

void check_layer(Shapes &shapes, const HyperParameters &h, int64_t layer) {
  const std::string block = layer_prefix(layer), att = block + "att.", ffn = block + "ffn.";
  for (const char *name : {"ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias"}) shapes.check(block + name, h.width);
  for (const char *name :
       {"x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "k_k", "k_a", "ln_x.weight", "ln_x.bias"})
    shapes.check(att + name, h.width);
  auto low_rank = [&](const char *first, const char *second, int64_t rank) {
    shapes.check(att + first, h.width, rank);
    shapes.check(att + second, rank, h.width);
  };
  low_rank("w1", "w2", h.rank_w);
  low_rank("a1", "a2", h.rank_a);
  low_rank("g1", "g2", h.rank_g);
  if (layer > 0) {
    shapes.check(att + "v0", h.width);
    low_rank("v1", "v2", h.rank_v);
  }
  shapes.check(att + "r_k", h.heads, h.head_size);
  for (const char *name : {"receptance.weight", "key.weight", "value.weight", "output.weight"})
    shapes.check(att + name, h.width, h.width);
  shapes.check(ffn + "x_k", h.width);
  shapes.check(ffn + "key.weight", h.ffn_width, h.width);
  shapes.check(ffn + "value.weight", h.width, h.ffn_width);
}

void check_claim(const std::optional<int64_t> &claim, int64_t found, const char *what) {
  if (claim && *claim != found)
    fail(WKV_FORMAT, "the file says %s %lld, its tensors have %lld", what, static_cast<long long>(*claim),
         static_cast<long long>(found));
}

}  // namespace

HyperParameters derive_hyper_parameters(const Checkpoint &checkpoint) {
  Shapes shapes(checkpoint);
  HyperParameters h;
  const Tensor &embedding = shapes.get("emb.weight", 2);
  h.vocab_size = embedding.shape[0];
  h.width = embedding.shape[1];
  h.layers = count_layers(checkpoint);
  if (h.layers == 0) fail(WKV_FORMAT, "tensor blocks.0.ln1.weight is missing");
  // Before the tensors of each layer: a claim of too many layers is then not "a tensor is missing".
  check_claim(checkpoint.claims.layers, h.layers, "layers");
  check_claim(checkpoint.claims.width, h.width, "width");
  check_claim(checkpoint.claims.vocab_size, h.vocab_size, "vocabulary");

  const Tensor &r_k = shapes.get("blocks.0.att.r_k", 2);
  h.heads = r_k.shape[0];
  h.head_size = r_k.shape[1];
  if (h.heads * h.head_size != h.width)
    fail(WKV_FORMAT, "tensor blocks.0.att.r_k has shape [%lld, %lld], whose product is not the width %lld",
         static_cast<long long>(h.heads), static_cast<long long>(h.head_size), static_cast<long long>(h.width));
  h.ffn_width = shapes.get("blocks.0.ffn.key.weight", 2).shape[0];
  h.rank_w = shapes.get("blocks.0.att.w1", 2).shape[1];
  h.rank_a = shapes.get("blocks.0.att.a1", 2).shape[1];
  h.rank_g = shapes.get("blocks.0.att.g1", 2).shape[1];
  if (h.layers > 1) h.rank_v = shapes.get("blocks.1.att.v1", 2).shape[1];
  check_claim(checkpoint.claims.heads, h.heads, "heads");
  check_claim(checkpoint.claims.head_size, h.head_size, "head size");
  check_claim(checkpoint.claims.ffn_width, h.ffn_width, "ffn width");
  check_claim(checkpoint.claims.rank_w, h.rank_w, "decay rank");
  check_claim(checkpoint.claims.rank_a, h.rank_a, "learning rate rank");
  check_claim(checkpoint.claims.rank_g, h.rank_g, "gate rank");
  if (h.layers > 1) check_claim(checkpoint.claims.rank_v, h.rank_v, "value residual rank");

  shapes.check("emb.weight", h.vocab_size, h.width);
  shapes.check("head.weight", h.vocab_size, h.width);
  for (const char *name : {"blocks.0.ln0.weight", "blocks.0.ln0.bias", "ln_out.weight", "ln_out.bias"})
    shapes.check(name, h.width);
  for (int64_t layer = 0; layer < h.layers; layer++) check_layer(shapes, h, layer);
  // All names are known, so what is left over belongs to layers that are not there.
  if (shapes.used() != checkpoint.tensors.size())
    fail(WKV_FORMAT, "%zu tensors belong to no layer from 0 to %lld", checkpoint.tensors.size() - shapes.used(),
         static_cast<long long>(h.layers - 1));
  return h;
}

}  // namespace libwkv
