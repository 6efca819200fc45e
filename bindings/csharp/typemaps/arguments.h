// SPDX-License-Identifier: Apache-2.0
// Arguments as the managed side passes them. Wkv/Interop/NativeStructs.cs has the same structs; all memory is pinned
// there until the call has returned.
#pragma once

#include <wkv/wkv.h>

#include <cstdio>
#include <new>
#include <vector>

namespace wkv_csharp {

struct Buffer {
  void *data;
  unsigned long long count;
};

/** An item of a batch step. */
struct Item {
  Buffer tokens, logits;
  wkv_cache *cache;
  wkv_sampler *sampler;
  uint32_t flags;
  int32_t next_token;
  wkv_status status;
};

/** An index, and the handle that it belongs to or leads to. */
struct Choice {
  unsigned long long index;
  wkv_cache *cache;
};

/** What a piece of a generation holds, read by one call. Text stays where it is. */
struct Piece {
  Buffer text, unread;
  long long tokens_generated, prompt_tokens, reused_tokens;
  int32_t token, reason, pending_token, alternatives_count;
  float log_probability;

  void read(const wkv_generation_piece &piece) {
    text = {const_cast<char *>(piece.text), piece.text_bytes};
    unread = {const_cast<char *>(piece.unread_text), piece.unread_bytes};
    tokens_generated = piece.tokens_generated;
    prompt_tokens = piece.prompt_tokens;
    reused_tokens = piece.reused_tokens;
    token = piece.token;
    reason = piece.reason;
    pending_token = piece.pending_token;
    alternatives_count = piece.alternatives_count;
    log_probability = piece.log_probability;
  }
};

/** The text of the last failure on this thread: it is asked for by the frame that made the call. */
inline thread_local wkv_error failure;

inline wkv_status no_memory() {
  std::snprintf(failure.message, sizeof failure.message, "%s", "out of memory");
  return WKV_OUT_OF_MEMORY;
}

class Items {
 public:
  bool read(Buffer buffer) noexcept try {
    source_ = static_cast<Item *>(buffer.data);
    items_.resize(static_cast<size_t>(buffer.count));
    for (size_t i = 0; i < items_.size(); i++) {
      wkv_step_item &item = items_[i];
      item.struct_size = sizeof item;
      item.flags = source_[i].flags;
      item.cache = source_[i].cache;
      item.tokens = static_cast<const int32_t *>(source_[i].tokens.data);
      item.tokens_count = static_cast<size_t>(source_[i].tokens.count);
      item.logits = static_cast<float *>(source_[i].logits.data);
      item.logits_count = static_cast<size_t>(source_[i].logits.count);
      item.sampler = source_[i].sampler;
      item.next_token = item.sampler ? &source_[i].next_token : nullptr;
    }
    return true;
  } catch (const std::bad_alloc &) {
    return false;
  }
  void give_back() {
    for (size_t i = 0; i < items_.size(); i++) source_[i].status = items_[i].status;
  }
  wkv_step_item *data() { return items_.data(); }
  size_t size() const { return items_.size(); }

 private:
  Item *source_ = nullptr;
  std::vector<wkv_step_item> items_;
};

/** Indices and caches, apart, as the library takes them. */
class Choices {
 public:
  bool read(Buffer buffer) noexcept try {
    choices_ = static_cast<Choice *>(buffer.data);
    for (size_t i = 0; i < static_cast<size_t>(buffer.count); i++) {
      indices_.push_back(static_cast<size_t>(choices_[i].index));
      caches_.push_back(choices_[i].cache);
    }
    return true;
  } catch (const std::bad_alloc &) {
    return false;
  }
  void give_back() {
    for (size_t i = 0; i < caches_.size(); i++) choices_[i].cache = caches_[i];
  }
  size_t *indices() { return indices_.data(); }
  wkv_cache **caches() { return caches_.data(); }
  size_t size() const { return indices_.size(); }

 private:
  Choice *choices_ = nullptr;
  std::vector<size_t> indices_;
  std::vector<wkv_cache *> caches_;
};

}  // namespace wkv_csharp
