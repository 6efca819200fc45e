// SPDX-License-Identifier: Apache-2.0
#include "engine/session.h"

#include <utility>

#include "base/byte_stream.h"
#include "engine/generation.h"
#include "engine/model.h"
#include "text/sampler_bytes.h"

namespace libwkv {
namespace {

struct LoadedCache {
  std::shared_ptr<Cache> cache;
  BlobContent rest;
};

LoadedCache read_cache(const Model &model, ByteSource &source) {
  LoadedCache loaded;
  // The blob is read into the memory that a new cache has, so that no state is held twice.
  const auto make_room = [&] {
    loaded.cache = model.create_cache();
    return loaded.cache->now().state;
  };
  loaded.rest = read_blob(source, identity_of(model), make_room);
  Moment moment = std::move(loaded.rest.moment);
  if (!loaded.cache) moment.state = make_room();
  loaded.cache->replace(std::move(moment));
  return loaded;
}

}  // namespace

ModelIdentity identity_of(const Model &model) { return {model.hyper_parameters(), model.info().fingerprint}; }

SessionWriter::SessionWriter(const SessionParts &parts, wkv_type state_type) : parts_(parts) {
  if (parts_.generation) {
    const Generation &generation = *parts_.generation;
    if (parts_.cache && parts_.cache != generation.cache()) fail(WKV_INVALID, "the cache is not the generation's");
    if (parts_.sampler && parts_.sampler != generation.sampler())
      fail(WKV_INVALID, "the sampler is not the generation's");
    parts_.model = generation.model();
    parts_.cache = generation.cache();
    parts_.sampler = generation.sampler();
    generation_busy_.emplace(generation.busy(), "generation");
  }
  if (!parts_.cache) fail(WKV_INVALID, "a session needs a cache or a generation");
  cache_busy_.emplace(parts_.cache->busy(), "cache");
  if (parts_.sampler) {
    sampler_busy_.emplace(parts_.sampler->busy(), "sampler");
    ByteWriter writer;
    write_sampler(writer, *parts_.sampler);
    sampler_ = writer.take();
  }
  if (parts_.generation) {
    ByteWriter writer;
    parts_.generation->save(writer);
    generation_ = writer.take();
  }
  blob_.emplace(identity_of(*parts_.model), BlobParts{.moment = parts_.cache->now(),
                                                      .state_type = state_type,
                                                      .sampler = sampler_,
                                                      .generation = generation_,
                                                      .logits = parts_.logits});
}

std::shared_ptr<Cache> load_cache(const Model &model, ByteSource &source) { return read_cache(model, source).cache; }

LoadedSession load_session(const std::shared_ptr<Model> &model, ByteSource &source,
                           std::shared_ptr<const Tokenizer> tokenizer) {
  auto [cache, rest] = read_cache(*model, source);
  LoadedSession session{std::move(cache), nullptr, nullptr, std::move(rest.logits)};
  if (!rest.sampler.empty()) {
    ByteReader reader(rest.sampler, "the sampler of the session");
    session.sampler = read_sampler(reader);
    reader.expect_end();
  }
  if (!rest.generation.empty()) {
    ByteReader reader(rest.generation, "the generation of the session");
    session.generation = Generation::restore(reader, model, session.cache, session.sampler, std::move(tokenizer));
    reader.expect_end();
  }
  return session;
}

}  // namespace libwkv
