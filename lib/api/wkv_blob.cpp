// SPDX-License-Identifier: Apache-2.0
// The C entries of blob.h.
#include <wkv/blob.h>

#include "api/edge.h"
#include "api/handles.h"
#include "api/save.h"
#include "engine/model.h"
#include "engine/session.h"

using namespace libwkv;

namespace {

// A cache alone, as a session.
SessionParts parts_of(const wkv_cache *cache) {
  api::needed(cache, "cache");
  SessionParts parts;
  parts.cache = cache->object;
  parts.model = cache->model;
  return parts;
}

void write_blob_info(wkv_blob_info *info, const BlobHeader &header) {
  wkv_blob_info values{};
  values.format_version = header.format_version;
  values.fingerprint = header.model.fingerprint;
  values.position = header.position;
  values.bytes = header.bytes;
  values.layers = header.model.layers;
  values.width = header.model.width;
  values.heads = header.model.heads;
  values.head_size = header.model.head_size;
  values.vocab_size = header.model.vocab_size;
  values.state_type = header.state_type;
  std::copy(header.last_tokens.ids.begin(), header.last_tokens.ids.end(), values.last_tokens);
  values.last_tokens_count = static_cast<int32_t>(header.last_tokens.count);
  const auto has = [&](BlobSection kind) { return header.find(kind) ? 1 : 0; };
  values.has_sampler = has(BlobSection::sampler);
  values.has_generation = has(BlobSection::generation);
  values.has_logits = has(BlobSection::logits);
  values.has_tokens = has(BlobSection::tokens);
  api::write_info(info, values);
}

wkv_status make_cache(wkv_model *model, ByteSource &&source, wkv_cache **cache) {
  std::shared_ptr<Model> owner = model->object;
  auto handle = std::make_unique<wkv_cache>();
  handle->object = load_cache(*owner, source);
  handle->model = std::move(owner);
  *cache = handle.release();
  return WKV_OK;
}

}  // namespace

extern "C" {

wkv_status wkv_cache_save(wkv_cache *cache, const char *path, wkv_error *error) {
  return wkv_cache_save_as(cache, path, nullptr, error);
}

wkv_status wkv_cache_save_as(wkv_cache *cache, const char *path, const wkv_save_options *options, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(path, "path");
    SessionWriter(parts_of(cache), api::read_state_type(options)).blob().save(path);
    return WKV_OK;
  });
}

wkv_status wkv_cache_load(wkv_model *model, const char *path, wkv_cache **cache, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(model, "model");
    api::needed(path, "path");
    api::needed(cache, "cache");
    return make_cache(model, FileSource(path), cache);
  });
}

wkv_status wkv_cache_serialize(wkv_cache *cache, void *bytes, size_t capacity, size_t *bytes_count, wkv_error *error) {
  return wkv_cache_serialize_as(cache, nullptr, bytes, capacity, bytes_count, error);
}

wkv_status wkv_cache_serialize_as(wkv_cache *cache, const wkv_save_options *options, void *bytes, size_t capacity,
                                  size_t *bytes_count, wkv_error *error) {
  return api::guard(error, [&] {
    api::is_query(bytes, capacity, bytes_count, "bytes", "bytes_count");
    SessionWriter session(parts_of(cache), api::read_state_type(options));
    api::write_blob(session.blob(), bytes, capacity, bytes_count);
    return WKV_OK;
  });
}

wkv_status wkv_cache_deserialize(wkv_model *model, const void *bytes, size_t bytes_count, wkv_cache **cache,
                                 wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(model, "model");
    api::needed(cache, "cache");
    return make_cache(model, MemorySource(api::read_bytes(bytes, bytes_count)), cache);
  });
}

wkv_status wkv_cache_read_header(const char *path, wkv_blob_info *info, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(path, "path");
    api::check_info(info, "info");
    FileSource source(path);
    write_blob_info(info, read_blob_header(source));
    return WKV_OK;
  });
}

wkv_status wkv_cache_read_header_memory(const void *bytes, size_t bytes_count, wkv_blob_info *info, wkv_error *error) {
  return api::guard(error, [&] {
    api::check_info(info, "info");
    write_blob_info(info, read_blob_header(api::read_bytes(bytes, bytes_count), "memory"));
    return WKV_OK;
  });
}

}  // extern "C"
