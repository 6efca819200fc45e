// SPDX-License-Identifier: Apache-2.0
// The C entries of session.h.
#include <wkv/session.h>

#include <algorithm>
#include <memory>

#include "api/edge.h"
#include "api/handles.h"
#include "api/save.h"
#include "engine/model.h"
#include "engine/session.h"

using namespace libwkv;

namespace {

wkv_session read_session(const wkv_session *session) {
  return api::read_options(api::needed(session, "session"), "session");
}

SessionParts parts_of(const wkv_session &session) {
  SessionParts parts;
  if (session.cache) {
    parts.cache = session.cache->object;
    parts.model = session.cache->model;
  }
  if (session.sampler) parts.sampler = session.sampler->object;
  if (session.generation) parts.generation = session.generation->object;
  if (session.logits) {
    if (session.logits_count == 0) fail(WKV_INVALID, "session.logits_count is 0");
    parts.logits = {session.logits, session.logits_count};
  } else if (session.logits_count > 0) {
    fail(WKV_INVALID, "session.logits is NULL, session.logits_count is %zu", session.logits_count);
  }
  return parts;
}

// Checks what the caller asks for before the source is opened.
wkv_session read_request(const wkv_model *model, const wkv_session *session) {
  const wkv_session request = read_session(session);
  const size_t vocab_size = static_cast<size_t>(api::needed(model, "model")->object->hyper_parameters().vocab_size);
  if (request.logits && request.logits_count < vocab_size)
    fail(WKV_INVALID, "session.logits_count is %zu, expected at least %zu", request.logits_count, vocab_size);
  return request;
}

wkv_status load(wkv_model *model, ByteSource &&source, const wkv_session &request, wkv_session *session) {
  const std::shared_ptr<Model> owner = model->object;
  LoadedSession loaded =
      load_session(owner, source, request.tokenizer ? request.tokenizer->object : owner->tokenizer());
  auto cache = std::make_unique<wkv_cache>(wkv_cache{std::move(loaded.cache), owner});
  std::unique_ptr<wkv_sampler> sampler;
  if (loaded.sampler) sampler = std::make_unique<wkv_sampler>(wkv_sampler{std::move(loaded.sampler)});
  std::unique_ptr<wkv_generation> generation;
  if (loaded.generation) generation = std::make_unique<wkv_generation>(wkv_generation{std::move(loaded.generation)});
  if (request.logits) std::copy(loaded.logits.begin(), loaded.logits.end(), request.logits);
  session->has_logits = loaded.logits.empty() ? 0 : 1;
  session->cache = cache.release();
  session->sampler = sampler.release();
  session->generation = generation.release();
  return WKV_OK;
}

}  // namespace

extern "C" {

wkv_status wkv_session_save(const wkv_session *session, const char *path, const wkv_save_options *options,
                            wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(path, "path");
    const SessionParts parts = parts_of(read_session(session));
    SessionWriter(parts, api::read_state_type(options)).blob().save(path);
    return WKV_OK;
  });
}

wkv_status wkv_session_load(wkv_model *model, const char *path, wkv_session *session, wkv_error *error) {
  return api::guard(error, [&] {
    const wkv_session request = read_request(model, session);
    return load(model, FileSource(api::needed(path, "path")), request, session);
  });
}

wkv_status wkv_session_serialize(const wkv_session *session, const wkv_save_options *options, void *bytes,
                                 size_t capacity, size_t *bytes_count, wkv_error *error) {
  return api::guard(error, [&] {
    api::is_query(bytes, capacity, bytes_count, "bytes", "bytes_count");
    const SessionParts parts = parts_of(read_session(session));
    SessionWriter writer(parts, api::read_state_type(options));
    api::write_blob(writer.blob(), bytes, capacity, bytes_count);
    return WKV_OK;
  });
}

wkv_status wkv_session_deserialize(wkv_model *model, const void *bytes, size_t bytes_count, wkv_session *session,
                                   wkv_error *error) {
  return api::guard(error, [&] {
    const wkv_session request = read_request(model, session);
    return load(model, MemorySource(api::read_bytes(bytes, bytes_count)), request, session);
  });
}

}  // extern "C"
