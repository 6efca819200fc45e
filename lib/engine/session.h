// SPDX-License-Identifier: Apache-2.0
// Everything a conversation needs to go on, as one blob.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/busy.h"
#include "base/byte_source.h"
#include "state/blob.h"

namespace libwkv {

class Generation;
class Model;
class Sampler;
class Tokenizer;

// What a session is made of; NULL and empty: none.
struct SessionParts {
  std::shared_ptr<Model> model;
  std::shared_ptr<Cache> cache;
  std::shared_ptr<Sampler> sampler;
  std::shared_ptr<Generation> generation;
  std::span<const float> logits = {};
};

// Holds all parts, exclusively, while they are written.
class SessionWriter {
 public:
  // Throws WKV_INVALID when parts do not belong together, WKV_BUSY.
  SessionWriter(const SessionParts &parts, wkv_type state_type);
  SessionWriter(const SessionWriter &) = delete;
  SessionWriter &operator=(const SessionWriter &) = delete;

  BlobWriter &blob() { return *blob_; }

 private:
  SessionParts parts_;
  std::optional<BusyGuard> generation_busy_, cache_busy_, sampler_busy_;
  std::vector<std::byte> sampler_, generation_;
  std::optional<BlobWriter> blob_;
};

struct LoadedSession {
  std::shared_ptr<Cache> cache;
  std::shared_ptr<Sampler> sampler;        // NULL: it had none
  std::shared_ptr<Generation> generation;  // NULL: it had none
  std::vector<float> logits;               // empty: it had none
};

ModelIdentity identity_of(const Model &model);

// The cache of a blob; whatever else is in it is checked and left.
std::shared_ptr<Cache> load_cache(const Model &model, ByteSource &source);

// tokenizer: of the generation; NULL: the model's own.
LoadedSession load_session(const std::shared_ptr<Model> &model, ByteSource &source,
                           std::shared_ptr<const Tokenizer> tokenizer);

}  // namespace libwkv
