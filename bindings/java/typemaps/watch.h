// SPDX-License-Identifier: Apache-2.0
// What watches a long call, and may end it: the calling thread's interruption, and a dev.wkv.Progress where there is
// one.
#pragma once

namespace wkv_java {

class Watch {
 public:
  explicit Watch(jobject progress);
  ~Watch();
  Watch(const Watch &) = delete;
  Watch &operator=(const Watch &) = delete;

  static int32_t report(void *user, uint64_t done, uint64_t total);

 private:
  jobject progress_;
};

}  // namespace wkv_java

#ifndef SWIG
#include "jvm.h"

namespace wkv_java {

// NULL on a thread that Java does not know; progress functions are called by the thread that made the call.
inline JNIEnv *environment() {
  void *env = nullptr;
  return machine.vm->GetEnv(&env, JNI_VERSION_10) == JNI_OK ? static_cast<JNIEnv *>(env) : nullptr;
}

inline Watch::Watch(jobject progress) : progress_(environment()->NewGlobalRef(progress)) {}
inline Watch::~Watch() {
  if (JNIEnv *env = environment()) env->DeleteGlobalRef(progress_);
}

inline int32_t Watch::report(void *user, uint64_t done, uint64_t total) {
  JNIEnv *env = environment();
  if (!env) return 0;
  if (env->ExceptionCheck()) return 1;
  jobject progress = static_cast<Watch *>(user)->progress_;  // NULL: the interruption alone
  const jboolean is_cancelled = env->CallStaticBooleanMethod(machine.callbacks, machine.report, progress,
                                                             static_cast<jlong>(done), static_cast<jlong>(total));
  return env->ExceptionCheck() || is_cancelled;
}

}  // namespace wkv_java
#endif
