// SPDX-License-Identifier: Apache-2.0
// The C entries of tokenizer.h.
#include <wkv/tokenizer.h>

#include <algorithm>

#include "api/edge.h"
#include "api/handles.h"
#include "engine/model.h"
#include "text/decoder.h"
#include "text/tokenizer.h"

using namespace libwkv;

namespace {

std::string_view read_bytes(const void *bytes, size_t count, const char *what) {
  if (count > PTRDIFF_MAX) fail(WKV_INVALID, "%s has %zu bytes", what, count);
  if (count == 0) return {};
  return {static_cast<const char *>(api::needed(bytes, what)), count};
}

}  // namespace

extern "C" {

wkv_status wkv_tokenizer_load(const char *path, wkv_tokenizer **tokenizer, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(path, "path");
    api::needed(tokenizer, "tokenizer");
    *tokenizer = new wkv_tokenizer{load_tokenizer(path)};
    return WKV_OK;
  });
}

wkv_status wkv_tokenizer_load_memory(const void *bytes, size_t bytes_count, wkv_tokenizer **tokenizer,
                                     wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(bytes, "bytes");
    api::needed(tokenizer, "tokenizer");
    *tokenizer = new wkv_tokenizer{load_tokenizer_memory(read_bytes(bytes, bytes_count, "bytes"))};
    return WKV_OK;
  });
}

wkv_status wkv_model_get_tokenizer(wkv_model *model, wkv_tokenizer **tokenizer, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(model, "model");
    api::needed(tokenizer, "tokenizer");
    std::shared_ptr<const Tokenizer> found = model->object->tokenizer();
    if (!found) fail(WKV_NOT_FOUND, "the model carries no vocabulary");
    *tokenizer = new wkv_tokenizer{std::move(found)};
    return WKV_OK;
  });
}

wkv_status wkv_tokenizer_get_info(const wkv_tokenizer *tokenizer, wkv_tokenizer_info *info, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(tokenizer, "tokenizer");
    api::check_info(api::needed(info, "info"), "info");
    const std::shared_ptr<const Tokenizer> object = tokenizer->object;
    wkv_tokenizer_info values{};
    values.tokens = object->tokens_count();
    values.ids_end = object->ids_end();
    values.longest_bytes = object->longest_bytes();
    api::write_info(info, values);
    return WKV_OK;
  });
}

wkv_status wkv_tokenizer_encode(const wkv_tokenizer *tokenizer, const char *text, size_t text_bytes, int32_t *tokens,
                                size_t capacity, size_t *tokens_count, wkv_error *error) {
  return api::guard(error, [&] {
    const std::shared_ptr<const Tokenizer> object = api::needed(tokenizer, "tokenizer")->object;
    const std::string_view bytes = read_bytes(text, text_bytes, "text");
    if (api::is_query(tokens, capacity, tokens_count, "tokens", "tokens_count")) {
      *tokens_count = object->count(bytes);
    } else if (object->knows_every_byte() && capacity >= text_bytes) {  // cannot fail: straight into the buffer
      *tokens_count = object->encode_to(bytes, tokens);
    } else {
      const std::vector<int32_t> encoded = object->encode(bytes);
      api::check_room(encoded.size(), capacity, tokens_count);
      std::copy(encoded.begin(), encoded.end(), tokens);
      *tokens_count = encoded.size();
    }
    return WKV_OK;
  });
}

wkv_status wkv_tokenizer_decode(const wkv_tokenizer *tokenizer, const int32_t *tokens, size_t tokens_count, char *text,
                                size_t capacity, size_t *text_bytes, wkv_error *error) {
  return api::guard(error, [&] {
    const std::shared_ptr<const Tokenizer> object = api::needed(tokenizer, "tokenizer")->object;
    if (tokens_count > PTRDIFF_MAX / sizeof(int32_t)) fail(WKV_INVALID, "tokens_count is %zu", tokens_count);
    if (tokens_count > 0) api::needed(tokens, "tokens");
    const bool asks_size = api::is_query(text, capacity, text_bytes, "text", "text_bytes");
    size_t bytes = 0;
    for (size_t i = 0; i < tokens_count; i++) {
      if (tokens[i] < 0) fail(WKV_INVALID, "tokens[%zu] is %d, expected at least 0", i, tokens[i]);
      bytes += object->bytes_of(tokens[i]).size();
    }
    if (!asks_size) {
      api::check_room(bytes, capacity, text_bytes);
      for (size_t i = 0; i < tokens_count; i++) {
        const std::string_view piece = object->bytes_of(tokens[i]);
        text = std::copy(piece.begin(), piece.end(), text);
      }
    }
    *text_bytes = bytes;
    return WKV_OK;
  });
}

void wkv_tokenizer_release(wkv_tokenizer *tokenizer) { delete tokenizer; }

wkv_status wkv_decoder_create(wkv_tokenizer *tokenizer, wkv_decoder **decoder, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(tokenizer, "tokenizer");
    api::needed(decoder, "decoder");
    *decoder = new wkv_decoder{std::make_unique<Decoder>(tokenizer->object)};
    return WKV_OK;
  });
}

wkv_status wkv_decoder_push(wkv_decoder *decoder, int32_t token, const char **text, size_t *text_bytes,
                            wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(decoder, "decoder");
    api::needed(text, "text");
    api::needed(text_bytes, "text_bytes");
    const std::string &piece = decoder->object->push(token);
    *text = piece.c_str();
    *text_bytes = piece.size();
    return WKV_OK;
  });
}

wkv_status wkv_decoder_finish(wkv_decoder *decoder, const char **text, size_t *text_bytes, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(decoder, "decoder");
    api::needed(text, "text");
    api::needed(text_bytes, "text_bytes");
    const std::string &piece = decoder->object->finish();
    *text = piece.c_str();
    *text_bytes = piece.size();
    return WKV_OK;
  });
}

void wkv_decoder_release(wkv_decoder *decoder) { delete decoder; }

}  // extern "C"
