// SPDX-License-Identifier: Apache-2.0
// Memory behind the structs that other languages make. Each lies at the beginning of a box that also owns the text and
// the arrays its pointers go to.
#pragma once

#include <wkv/wkv.h>

#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

/** Text of a piece, always whole UTF-8 characters; and bytes that need not be. */
struct wkv_text {
  const char *data;
  size_t bytes;
};
struct wkv_bytes {
  const char *data;
  size_t bytes;
};

namespace wkv_bind {

struct Owned {
  std::map<int, std::string> texts;
  std::map<int, std::vector<int32_t>> arrays;
  std::vector<float> floats;
  std::vector<wkv_token_bias> biases;
  std::deque<std::string> strings;  // never moves what it holds
  std::vector<const char *> string_pointers;

  const char *keep(int slot, const char *text) { return text ? (texts[slot] = text).c_str() : nullptr; }
  const char *keep(int slot, const char *text, size_t bytes) {
    return text ? (texts[slot] = std::string(text, bytes)).data() : nullptr;
  }
  const int32_t *keep(int slot, const int32_t *tokens, size_t count) {
    arrays[slot].assign(tokens, tokens + count);
    return count ? arrays[slot].data() : nullptr;
  }
  float *keep_floats(const float *values, size_t count) {
    if (values)
      floats.assign(values, values + count);
    else
      floats.assign(count, 0.0f);
    return count ? floats.data() : nullptr;
  }
  const char *const *add_string(const char *text) {
    strings.emplace_back(text ? text : "");
    string_pointers.push_back(strings.back().c_str());
    return string_pointers.data();
  }
};

template <typename Struct>
struct Box {
  Struct value;
  Owned owned;
};

template <typename Struct>
Struct *make() {
  auto *box = new Box<Struct>();  // all zero: all defaults
  box->value.struct_size = sizeof(Struct);
  return &box->value;
}

// value is the first member of a standard-layout class, so its address is the box's
template <typename Struct>
Owned &own(Struct *value) {
  return reinterpret_cast<Box<Struct> *>(value)->owned;
}

template <typename Struct>
void dispose(Struct *value) {
  delete reinterpret_cast<Box<Struct> *>(value);
}

template <>
inline void dispose(wkv_session *session) {
  wkv_generation_release(session->generation);
  wkv_sampler_release(session->sampler);
  wkv_cache_release(session->cache);
  delete reinterpret_cast<Box<wkv_session> *>(session);
}

inline bool read_logits(const wkv_session &session, float *values, size_t values_count) {
  if (!session.has_logits || !session.logits || !values || values_count != session.logits_count) return false;
  std::memcpy(values, session.logits, values_count * sizeof *values);
  return true;
}

/** A misuse that is noticed before the library is called. */
inline wkv_status fail(wkv_error *error, const char *message) {
  error->status = WKV_INVALID;
  std::snprintf(error->message, sizeof error->message, "%s", message);
  return WKV_INVALID;
}

}  // namespace wkv_bind
