// SPDX-License-Identifier: Apache-2.0
// The opaque structs of the C ABI: each holds shared references, so that objects outlive their handles while others
// need them. An entry copies the references it works with before it starts, so a release meanwhile is harmless.
#pragma once

#include <memory>

namespace libwkv {
class Cache;
class Decoder;
class Generation;
class InitialState;
class Model;
class PrefixStore;
class Sampler;
class Tokenizer;
}  // namespace libwkv

struct wkv_model {
  std::shared_ptr<libwkv::Model> object;
};
struct wkv_cache {
  std::shared_ptr<libwkv::Cache> object;
  std::shared_ptr<libwkv::Model> model;
};
struct wkv_initial_state {
  std::shared_ptr<const libwkv::InitialState> object;
  std::shared_ptr<libwkv::Model> model;
};
struct wkv_prefix_store {
  std::shared_ptr<libwkv::PrefixStore> object;
  std::shared_ptr<libwkv::Model> model;
};
struct wkv_tokenizer {
  std::shared_ptr<const libwkv::Tokenizer> object;
};
struct wkv_decoder {
  std::unique_ptr<libwkv::Decoder> object;
};
struct wkv_sampler {
  std::shared_ptr<libwkv::Sampler> object;
};
struct wkv_generation {
  std::shared_ptr<libwkv::Generation> object;
};
