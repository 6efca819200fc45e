// SPDX-License-Identifier: Apache-2.0
#include "formats/names.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "formats/bytes.h"

namespace libwkv::formats {

namespace {

// vector [C]; matrix [outputs, inputs]; low_rank: a matrix that other formats transpose; heads: r_k [H, N];
// shifts: six vectors in one tensor, in the order r w k v a g.
enum class Kind { vector, matrix, low_rank, heads, shifts };

struct Name {
  Kind kind;
  const char *official, *fla, *gguf;  // empty: not in that format
};

constexpr Name whole_model[] = {
    {Kind::matrix, "emb.weight", "model.embeddings.weight", "token_embd.weight"},
    {Kind::matrix, "head.weight", "lm_head.weight", "output.weight"},
    {Kind::vector, "ln_out.weight", "model.norm.weight", "output_norm.weight"},
    {Kind::vector, "ln_out.bias", "model.norm.bias", "output_norm.bias"},
    {Kind::vector, "blocks.0.ln0.weight", "model.layers.0.pre_norm.weight", "token_embd_norm.weight"},
    {Kind::vector, "blocks.0.ln0.bias", "model.layers.0.pre_norm.bias", "token_embd_norm.bias"},
};

// Behind "blocks.l.", "model.layers.l." and "blk.l.".
constexpr Name layer[] = {
    {Kind::vector, "ln1.weight", "attn_norm.weight", "attn_norm.weight"},
    {Kind::vector, "ln1.bias", "attn_norm.bias", "attn_norm.bias"},
    {Kind::vector, "ln2.weight", "ffn_norm.weight", "attn_norm_2.weight"},
    {Kind::vector, "ln2.bias", "ffn_norm.bias", "attn_norm_2.bias"},
    {Kind::shifts, "att.x_rwkvag", "attn.x_x", "time_mix_lerp_fused.weight"},
    {Kind::vector, "att.x_r", "attn.x_r", ""},
    {Kind::vector, "att.x_w", "attn.x_w", ""},
    {Kind::vector, "att.x_k", "attn.x_k", ""},
    {Kind::vector, "att.x_v", "attn.x_v", ""},
    {Kind::vector, "att.x_a", "attn.x_a", ""},
    {Kind::vector, "att.x_g", "attn.x_g", ""},
    {Kind::vector, "att.w0", "attn.w_lora.lora.2.bias", "time_mix_w0.weight"},
    {Kind::low_rank, "att.w1", "attn.w_lora.lora.0.weight", "time_mix_w1.weight"},
    {Kind::low_rank, "att.w2", "attn.w_lora.lora.2.weight", "time_mix_w2.weight"},
    {Kind::vector, "att.a0", "attn.a_lora.lora.2.bias", "time_mix_a0.weight"},
    {Kind::low_rank, "att.a1", "attn.a_lora.lora.0.weight", "time_mix_a1.weight"},
    {Kind::low_rank, "att.a2", "attn.a_lora.lora.2.weight", "time_mix_a2.weight"},
    {Kind::vector, "att.v0", "attn.v_lora.lora.2.bias", "time_mix_v0.weight"},
    {Kind::low_rank, "att.v1", "attn.v_lora.lora.0.weight", "time_mix_v1.weight"},
    {Kind::low_rank, "att.v2", "attn.v_lora.lora.2.weight", "time_mix_v2.weight"},
    {Kind::low_rank, "att.g1", "attn.g_lora.lora.0.weight", "time_mix_g1.weight"},
    {Kind::low_rank, "att.g2", "attn.g_lora.lora.2.weight", "time_mix_g2.weight"},
    {Kind::vector, "att.k_k", "attn.k_k", "time_mix_k_k.weight"},
    {Kind::vector, "att.k_a", "attn.k_a", "time_mix_k_a.weight"},
    {Kind::heads, "att.r_k", "attn.r_k", "time_mix_r_k.weight"},
    {Kind::matrix, "att.receptance.weight", "attn.r_proj.weight", "time_mix_receptance.weight"},
    {Kind::matrix, "att.key.weight", "attn.k_proj.weight", "time_mix_key.weight"},
    {Kind::matrix, "att.value.weight", "attn.v_proj.weight", "time_mix_value.weight"},
    {Kind::matrix, "att.output.weight", "attn.o_proj.weight", "time_mix_output.weight"},
    {Kind::vector, "att.ln_x.weight", "attn.g_norm.weight", "time_mix_ln.weight"},
    {Kind::vector, "att.ln_x.bias", "attn.g_norm.bias", "time_mix_ln.bias"},
    {Kind::vector, "ffn.x_k", "ffn.x_k", "channel_mix_lerp_k.weight"},
    {Kind::matrix, "ffn.key.weight", "ffn.key.weight", "channel_mix_key.weight"},
    {Kind::matrix, "ffn.value.weight", "ffn.value.weight", "channel_mix_value.weight"},
};

constexpr const char *shift_names[] = {"att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"};

enum class Style { official, fla, gguf };

struct Found {
  const Name *name = nullptr;  // NULL: no tensor of RWKV-7
  Style style = Style::official;
  int32_t layer = -1;
};

const char *name_in(const Name &name, Style style) {
  return style == Style::official ? name.official : style == Style::fla ? name.fla : name.gguf;
}

Found find_name(std::string_view name) {
  constexpr std::pair<Style, std::string_view> prefixes[] = {
      {Style::official, "blocks."}, {Style::fla, "model.layers."}, {Style::gguf, "blk."}};
  for (const Name &candidate : whole_model)
    for (Style style : {Style::official, Style::fla, Style::gguf})
      if (name == name_in(candidate, style)) return {&candidate, style, -1};
  for (auto [style, prefix] : prefixes) {
    int32_t number = 0;
    std::string_view rest;
    if (!split_layer(name, prefix, number, rest)) continue;
    for (const Name &candidate : layer)
      if (rest == name_in(candidate, style)) return {&candidate, style, number};
  }
  return {};
}

// What the names say about a model that is not RWKV-7; NULL when they say nothing.
const char *other_architecture(std::string_view name) {
  auto has = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
  if (has("ffn.s_emb") || has("ffn.s0") || has("ffn.s1") || has("ffn.s2")) return "RWKV-7a (DeepEmbed)";
  if (has(".qkv.") || has(".qkv_")) return "RWKV-7b (attention beside the state)";
  if (has("time_maa") || has("att.time_decay_w")) return "RWKV-6";
  if (has("att.time_faaaa") || has("att.gate.")) return "RWKV-5";
  if (has("time_first") || has("time_mix_k") || has("time_mix_r") || has("time_decay")) return "RWKV-4";
  if (has("time_state")) return "a tuned initial state";
  if (has("rosa")) return "a hybrid of RWKV-7 with ROSA";
  if (has("self_attn") || has("attn_q.") || has("q_proj")) return "a model with attention layers";
  return nullptr;
}

void refuse_other_architectures(const RawCheckpoint &raw) {
  // Newer architectures keep names of older ones, so the newest that shows decides.
  constexpr std::string_view newest_first[] = {"RWKV-7a (DeepEmbed)", "RWKV-7b (attention beside the state)", "RWKV-6",
                                               "RWKV-5", "RWKV-4"};
  const char *found = nullptr;
  const RawTensor *witness = nullptr;
  size_t rank = std::size(newest_first) + 1;
  for (const RawTensor &tensor : raw.tensors) {
    if (find_name(tensor.name).name) continue;
    const char *other = other_architecture(tensor.name);
    size_t place = other ? static_cast<size_t>(std::find(std::begin(newest_first), std::end(newest_first), other) -
                                               std::begin(newest_first))
                         : rank;
    if (place < rank) {
      rank = place;
      found = other;
      witness = &tensor;
    } else if (!witness) {
      witness = &tensor;
    }
  }
  if (found) fail(WKV_UNSUPPORTED, "%s, not RWKV-7: it has a tensor %s", found, printable(witness->name).c_str());
  if (witness) fail(WKV_UNSUPPORTED, "RWKV-7 has no tensor %s", printable(witness->name).c_str());
}

[[noreturn]] void fail_shape(const RawTensor &tensor, const char *expected) {
  std::string shape;
  for (int64_t dimension : tensor.shape) shape.append(shape.empty() ? "" : ", ").append(std::to_string(dimension));
  fail(WKV_FORMAT, "tensor %s has shape [%s], not %s", printable(tensor.name).c_str(), shape.c_str(), expected);
}

// Dimensions and strides without ones (vectors), or without the leading ones that a matrix does not need.
struct Axes {
  std::vector<int64_t> shape, strides;
};
Axes axes_of(const RawTensor &tensor, bool only_leading) {
  Axes axes{tensor.shape, tensor.strides};
  if (axes.strides.empty()) {
    int64_t stride = 1;
    axes.strides.resize(axes.shape.size());
    for (size_t i = axes.shape.size(); i-- > 0; stride *= axes.shape[i]) axes.strides[i] = stride;
  }
  auto drop = [&](size_t i) {
    axes.shape.erase(axes.shape.begin() + static_cast<ptrdiff_t>(i));
    axes.strides.erase(axes.strides.begin() + static_cast<ptrdiff_t>(i));
  };
  if (only_leading) {
    while (axes.shape.size() > 2 && axes.shape[0] == 1) drop(0);
  } else {
    for (size_t i = axes.shape.size(); i-- > 0;)
      if (axes.shape[i] == 1) drop(i);
  }
  return axes;
}

Tensor view(const RawTensor &raw) {
  Tensor tensor;
  tensor.type = raw.type;
  tensor.bytes = raw.bytes;
  tensor.file = raw.file;
  return tensor;
}

Tensor vector_view(const RawTensor &raw) {
  Axes axes = axes_of(raw, false);
  if (axes.shape.size() > 1) fail_shape(raw, "one vector");
  Tensor tensor = view(raw);
  tensor.rank = 1;
  tensor.shape[0] = axes.shape.empty() ? 1 : axes.shape[0];
  tensor.strides[0] = axes.shape.empty() ? 1 : axes.strides[0];
  return tensor;
}

Tensor matrix_view(const RawTensor &raw) {
  Axes axes = axes_of(raw, true);
  if (axes.shape.size() != 2) fail_shape(raw, "a matrix");
  Tensor tensor = view(raw);
  tensor.rank = 2;
  tensor.shape = {axes.shape[0], axes.shape[1]};
  tensor.strides = {axes.strides[0], axes.strides[1]};
  // A single row or column may come with any stride there: give the plain one.
  if (tensor.shape[1] == 1) tensor.strides[1] = 1;
  if (tensor.shape[0] == 1) tensor.strides[0] = tensor.shape[1];
  return tensor;
}

Tensor transposed(const RawTensor &raw) {
  if (block_values(raw.type) > 1)
    fail(WKV_UNSUPPORTED, "tensor %s is a low-rank matrix stored as %s", printable(raw.name).c_str(),
         name_of(raw.type));
  Tensor tensor = matrix_view(raw);
  std::swap(tensor.shape[0], tensor.shape[1]);
  std::swap(tensor.strides[0], tensor.strides[1]);
  return tensor;
}

// width: of the model when known, else 0.
Tensor low_rank_view(const RawTensor &raw, Style style, LowRank stored, bool is_first, int64_t width) {
  if (style != Style::official || stored == LowRank::transposed) return transposed(raw);
  Tensor tensor = matrix_view(raw);
  // Converters to safetensors with official names exist with and without the transposition.
  int at = is_first ? 0 : 1;
  if (stored == LowRank::by_shape && tensor.shape[at] != width && tensor.shape[1 - at] == width) return transposed(raw);
  return tensor;
}

Tensor heads_view(const RawTensor &raw, const Claims &claims) {
  if (raw.shape.size() > 1) return matrix_view(raw);
  Tensor tensor = vector_view(raw);
  if (!claims.head_size || tensor.shape[0] % *claims.head_size)
    fail(WKV_FORMAT, "tensor %s has %lld values, no multiple of the head size %lld", printable(raw.name).c_str(),
         static_cast<long long>(tensor.shape[0]), static_cast<long long>(claims.head_size.value_or(0)));
  int64_t stride = tensor.strides[0];
  tensor.rank = 2;
  tensor.shape = {tensor.shape[0] / *claims.head_size, *claims.head_size};
  tensor.strides = {stride * *claims.head_size, stride};
  return tensor;
}

// Six vectors [C] of a tensor [6, C], with ones in any place.
std::array<Tensor, 6> split_shifts(const RawTensor &raw) {
  Axes axes = axes_of(raw, false);
  if (axes.shape.size() == 1 && axes.shape[0] == 6) {  // a width of 1
    axes.shape.push_back(1);
    axes.strides.push_back(1);
  }
  if (axes.shape.size() != 2 || axes.shape[0] != 6) fail_shape(raw, "six vectors");
  if (block_values(raw.type) > 1)
    fail(WKV_UNSUPPORTED, "tensor %s is stored as %s", printable(raw.name).c_str(), name_of(raw.type));
  std::array<Tensor, 6> parts;
  size_t size = block_bytes(raw.type);
  for (int64_t i = 0; i < 6; i++) {
    Tensor &part = parts[static_cast<size_t>(i)] = view(raw);
    part.rank = 1;
    part.shape[0] = axes.shape[1];
    part.strides[0] = axes.strides[1];
    part.bytes = raw.bytes.subspan(static_cast<size_t>(i * axes.strides[0]) * size,
                                   static_cast<size_t>((axes.shape[1] - 1) * axes.strides[1] + 1) * size);
  }
  return parts;
}

int64_t find_width(const RawCheckpoint &raw) {
  for (const RawTensor &tensor : raw.tensors)
    if (tensor.name == "emb.weight" && !tensor.shape.empty()) return tensor.shape.back();
  return 0;
}

}  // namespace

Checkpoint name_tensors(RawCheckpoint raw) {
  refuse_other_architectures(raw);
  Checkpoint out;
  auto add = [&](std::string name, Tensor tensor) {
    if (block_values(tensor.type) > 1 && !tensor.is_contiguous())
      fail(WKV_UNSUPPORTED, "tensor %s is stored as %s with strides", name.c_str(), name_of(tensor.type));
    auto [place, is_new] = out.tensors.emplace(std::move(name), std::move(tensor));
    if (!is_new) fail(WKV_FORMAT, "tensor %s is there twice", place->first.c_str());
  };
  int64_t width = find_width(raw);
  for (const RawTensor &tensor : raw.tensors) {
    Found found = find_name(tensor.name);
    std::string_view suffix = found.name->official;
    std::string prefix = found.layer < 0 ? "" : "blocks." + std::to_string(found.layer) + ".";
    if (found.layer == 0 && (suffix == "att.v0" || suffix == "att.v1" || suffix == "att.v2")) continue;
    switch (found.name->kind) {
      case Kind::vector:
        add(prefix + found.name->official, vector_view(tensor));
        break;
      case Kind::matrix:
        add(prefix + found.name->official, matrix_view(tensor));
        break;
      case Kind::low_rank:
        add(prefix + found.name->official,
            low_rank_view(tensor, found.style, raw.low_rank, suffix.ends_with('1'), width));
        break;
      case Kind::heads:
        add(prefix + found.name->official, heads_view(tensor, raw.claims));
        break;
      case Kind::shifts: {
        std::array<Tensor, 6> parts = split_shifts(tensor);
        for (size_t i = 0; i < parts.size(); i++) add(prefix + shift_names[i], std::move(parts[i]));
        break;
      }
    }
  }
  if (raw.is_head_tied && out.tensors.contains("emb.weight") && !out.tensors.contains("head.weight"))
    add("head.weight", out.tensors.find("emb.weight")->second);
  out.format = std::move(raw.format);
  out.files = std::move(raw.files);
  out.claims = raw.claims;
  out.vocabulary = std::move(raw.vocabulary);
  return out;
}

bool split_layer(std::string_view name, std::string_view prefix, int32_t &number, std::string_view &rest) {
  if (!name.starts_with(prefix)) return false;
  name.remove_prefix(prefix.size());
  auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), number);
  size_t digits = static_cast<size_t>(end - name.data());
  if (problem != std::errc() || number < 0 || digits > 6 || (digits > 1 && name[0] == '0') || digits >= name.size() ||
      name[digits] != '.')
    return false;
  rest = name.substr(digits + 1);
  return true;
}

std::string gguf_name_of(std::string_view official_name) {
  Found found = find_name(official_name);
  if (!found.name || found.style != Style::official || !*found.name->gguf) return {};
  return found.layer < 0 ? found.name->gguf : "blk." + std::to_string(found.layer) + "." + found.name->gguf;
}

}  // namespace libwkv::formats
