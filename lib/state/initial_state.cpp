// SPDX-License-Identifier: Apache-2.0
#include "state/initial_state.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "formats/blocks.h"
#include "formats/bytes.h"
#include "formats/names.h"
#include "formats/readers.h"

namespace libwkv {
namespace {

using formats::RawCheckpoint;
using formats::RawTensor;

// A mark of RWKV-6 in a text of lower case: "v6" in "rwkv-v6.0-world", but neither in "v60m" nor in "conv6".
bool has_version(std::string_view text, std::string_view version) {
  for (size_t at = text.find(version); at != text.npos; at = text.find(version, at + 1)) {
    size_t end = at + version.size();
    bool begins = at == 0 || !std::isalnum(static_cast<unsigned char>(text[at - 1]));
    bool ends = end == text.size() || !std::isdigit(static_cast<unsigned char>(text[end]));
    if (begins && ends) return true;
  }
  return false;
}

// Files of state tuning carry nothing that tells the architecture, but their names often do, and whole checkpoints have
// tensors that RWKV-7 has not.
std::string find_warning(const std::string &path, const RawCheckpoint &file) {
  std::string name = path.substr(path.find_last_of('/') + 1);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const char *version : {"x060", "v6", "rwkv6", "rwkv-6", "rwkv_6"})
    if (has_version(name, version))
      return std::string("the file's name has \"") + version + "\": it may be a state of RWKV-6";
  for (const RawTensor &tensor : file.tensors)
    for (const char *part : {".att.time_maa_", ".att.time_decay", ".att.time_faaaa", ".ffn.time_maa_"})
      if (tensor.name.find(part) != std::string::npos)
        return "the file has " + formats::printable(tensor.name) + ", a tensor of RWKV-6";
  return {};
}

std::string show_shape(const RawTensor &tensor) {
  std::string shape;
  for (int64_t dimension : tensor.shape) shape.append(shape.empty() ? "" : ", ").append(std::to_string(dimension));
  return shape;
}

// The time_state of each layer.
std::vector<const RawTensor *> find_layers(const RawCheckpoint &file, const StateLayout &layout,
                                           const std::string &path) {
  std::vector<const RawTensor *> layers(layout.layers);
  size_t found = 0;
  for (const RawTensor &tensor : file.tensors) {
    int32_t layer = 0;
    std::string_view rest;
    if (!formats::split_layer(tensor.name, "blocks.", layer, rest) || rest != "att.time_state") continue;
    if (static_cast<size_t>(layer) >= layout.layers)
      fail(WKV_MISMATCH, "%s: a state for layer %d, the model has %zu layers", path.c_str(), layer, layout.layers);
    const RawTensor *&place = layers[static_cast<size_t>(layer)];
    if (place) fail(WKV_FORMAT, "%s: the state of layer %d is there twice", path.c_str(), layer);
    place = &tensor;
    found++;
    const std::vector<int64_t> expected{static_cast<int64_t>(layout.heads), static_cast<int64_t>(layout.head_size),
                                        static_cast<int64_t>(layout.head_size)};
    if (tensor.shape != expected)
      fail(WKV_MISMATCH, "%s: the state of layer %d has shape [%s], the model's have [%zu, %zu, %zu]", path.c_str(),
           layer, show_shape(tensor).c_str(), layout.heads, layout.head_size, layout.head_size);
    if (formats::block_values(tensor.type) > 1)
      fail(WKV_FORMAT, "%s: the state of layer %d is stored as %s", path.c_str(), layer, formats::name_of(tensor.type));
  }
  if (found == 0) fail(WKV_NOT_FOUND, "%s: no tensor blocks.0.att.time_state in it", path.c_str());
  for (size_t layer = 0; layer < layers.size(); layer++)
    if (!layers[layer])
      fail(WKV_MISMATCH, "%s: no state for layer %zu, the model has %zu layers", path.c_str(), layer, layout.layers);
  return layers;
}

// [H][N][N] from the file to [H][N key][N value].
void read_layer(const RawTensor &tensor, const StateLayout &layout, wkv_time_state_order order, float *to) {
  const int64_t size = static_cast<int64_t>(layout.head_size);
  int64_t head_stride = size * size, row_stride = size, stride = 1;
  if (!tensor.strides.empty()) {
    head_stride = tensor.strides[0];
    row_stride = tensor.strides[1];
    stride = tensor.strides[2];
  }
  if (order == WKV_TIME_STATE_VALUE_FIRST) std::swap(row_stride, stride);
  const int64_t value_bytes = static_cast<int64_t>(formats::block_bytes(tensor.type));
  for (int64_t head = 0; head < static_cast<int64_t>(layout.heads); head++)
    for (int64_t key = 0; key < size; key++)
      for (int64_t value = 0; value < size; value++, to++)
        formats::decode(tensor.type,
                        tensor.bytes.data() + value_bytes * (head * head_stride + key * row_stride + value * stride), 1,
                        to);
}

}  // namespace

InitialState::InitialState(const HyperParameters &hyper, std::shared_ptr<MemoryAccount> account,
                           const std::string &path, wkv_time_state_order order)
    : account_(std::move(account)) {
  if (order != WKV_TIME_STATE_KEY_FIRST && order != WKV_TIME_STATE_VALUE_FIRST)
    fail(WKV_INVALID, "order %d does not exist", order);
  const RawCheckpoint file = formats::open_raw(path);
  const StateLayout layout(hyper);
  const std::vector<const RawTensor *> layers = find_layers(file, layout, path);
  warning_ = find_warning(path, file);

  bytes_ = layout.bytes();
  state_ = StateHold::make(account_, layout.floats, Holder::checkpoint, true);
  const size_t count = layout.heads * layout.head_size * layout.head_size;
  std::vector<float> wkv(count);
  for (size_t layer = 0; layer < layers.size(); layer++) {
    layers[layer]->file->check_length();
    read_layer(*layers[layer], layout, order, wkv.data());
    if (!std::all_of(wkv.begin(), wkv.end(), [](float value) { return std::isfinite(value); }))
      fail(WKV_FORMAT, "%s: the state of layer %zu has a value that is not a finite number", path.c_str(), layer);
    state_.write(layout.wkv(static_cast<int64_t>(layer)), wkv);
  }
}

}  // namespace libwkv
