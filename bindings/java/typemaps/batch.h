// SPDX-License-Identifier: Apache-2.0
// Items of a batch step, from a dev.wkv.internal.Batch.
#pragma once

#include <wkv/step.h>

#include <deque>
#include <vector>

#include "memory.h"

namespace wkv_java {

class Items {
 public:
  bool read(JNIEnv *env, jobject batch) {
    env_ = env;
    if (!batch) {
      raise_status(env, WKV_INVALID, "a batch is needed");
      return false;
    }
    try {
      return fill(batch);
    } catch (const std::bad_alloc &) {
      raise_out_of_memory(env);
      return false;
    }
  }
  wkv_step_item *data() { return items_.data(); }
  size_t size() const { return items_.size(); }
  void commit() const {
    for (const Memory<float> &one : logits_) one.commit(env_);
    chosen_.commit(env_);
  }
  /** After a failure: each item's own status. */
  void commit_statuses() {
    for (size_t i = 0; i < items_.size(); i++) statuses_.data()[i] = items_[i].status;
    statuses_.commit(env_);
  }

 private:
  template <typename Array>
  Array field(jobject batch, jfieldID id) {
    return static_cast<Array>(env_->GetObjectField(batch, id));
  }

  // The arrays of a Batch have one length: it makes them.
  bool fill(jobject batch) {
    const Machine &m = machine;
    Memory<uint64_t> caches, samplers;
    Memory<int32_t> flags;
    if (!caches.open(env_, field<jobject>(batch, m.batch_caches), "caches") ||
        !samplers.open(env_, field<jobject>(batch, m.batch_samplers), "samplers") ||
        !flags.open(env_, field<jobject>(batch, m.batch_flags), "flags") ||
        !chosen_.open(env_, field<jobject>(batch, m.batch_chosen), "chosen") ||
        !statuses_.open(env_, field<jobject>(batch, m.batch_statuses), "statuses"))
      return false;
    const jobjectArray tokens = field<jobjectArray>(batch, m.batch_tokens);
    const jobjectArray logits = field<jobjectArray>(batch, m.batch_logits);
    items_.resize(caches.size());
    // arrays that are written stay referred to until the end
    if (env_->EnsureLocalCapacity(static_cast<jint>(items_.size()) + 16) != 0) return false;
    for (size_t i = 0; i < items_.size(); i++) {
      tokens_.emplace_back();
      logits_.emplace_back();
      jobject given = env_->GetObjectArrayElement(tokens, static_cast<jsize>(i));
      if (!tokens_.back().open(env_, given, "tokens")) return false;
      env_->DeleteLocalRef(given);
      given = env_->GetObjectArrayElement(logits, static_cast<jsize>(i));
      if (!logits_.back().open(env_, given, "logits")) return false;
      wkv_step_item &item = items_[i];
      item.struct_size = sizeof item;
      item.flags = static_cast<uint32_t>(flags.data()[i]);
      item.cache = reinterpret_cast<wkv_cache *>(caches.data()[i]);
      item.tokens = tokens_.back().data();
      item.tokens_count = tokens_.back().size();
      item.logits = logits_.back().data();
      item.logits_count = logits_.back().size();
      item.sampler = reinterpret_cast<wkv_sampler *>(samplers.data()[i]);
      chosen_.data()[i] = -1;
      item.next_token = item.sampler ? chosen_.data() + i : nullptr;
    }
    return true;
  }

  JNIEnv *env_ = nullptr;
  std::vector<wkv_step_item> items_;
  std::deque<Memory<int32_t>> tokens_;  // never move what they hold
  std::deque<Memory<float>> logits_;
  Memory<int32_t> chosen_, statuses_;
};

}  // namespace wkv_java
