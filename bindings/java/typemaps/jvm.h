// SPDX-License-Identifier: Apache-2.0
// What native code knows of the virtual machine: looked up once, when the library is loaded.
#pragma once

#include <jni.h>
#include <wkv/status.h>

#include <cstring>
#include <new>

namespace wkv_java {

struct Machine {
  JavaVM *vm;
  jclass callbacks;  // dev.wkv.Callbacks, and what it has
  jmethodID failure, report;
  jclass ints, floats, longs, bytes;  // classes of arrays
  jclass int_buffer, float_buffer;
  jclass out_of_memory;
  // dev.wkv.internal.Batch
  jfieldID batch_caches, batch_samplers, batch_tokens, batch_logits, batch_flags, batch_chosen, batch_statuses;
};
inline Machine machine;

inline void raise_out_of_memory(JNIEnv *env) {
  env->ThrowNew(machine.out_of_memory, "no memory for an argument of a call");
}

/** A new byte[]; NULL with an exception pending when there is no memory. */
inline jbyteArray to_bytes(JNIEnv *env, const char *data, size_t bytes) {
  jbyteArray array = env->NewByteArray(static_cast<jsize>(bytes));
  if (array && bytes)
    env->SetByteArrayRegion(array, 0, static_cast<jsize>(bytes), reinterpret_cast<const jbyte *>(data));
  return array;
}

/** Throws what Callbacks makes of a status; an exception that a progress function threw comes out instead. */
inline void raise_status(JNIEnv *env, wkv_status status, const char *message) {
  if (env->ExceptionCheck()) return;
  jbyteArray text = to_bytes(env, message, strlen(message));
  if (!text) return;
  jobject failure = env->CallStaticObjectMethod(machine.callbacks, machine.failure, static_cast<jint>(status), text);
  if (!env->ExceptionCheck() && failure) env->Throw(static_cast<jthrowable>(failure));
}

inline jclass find_class(JNIEnv *env, const char *name) {
  jclass found = env->FindClass(name);
  return found ? static_cast<jclass>(env->NewGlobalRef(found)) : nullptr;
}

// One of them missing leaves an exception pending, with which loading fails.
inline bool look_up(JNIEnv *env) {
  Machine &m = machine;
  if (!(m.callbacks = find_class(env, "dev/wkv/Callbacks")) || !(m.ints = find_class(env, "[I")) ||
      !(m.floats = find_class(env, "[F")) || !(m.longs = find_class(env, "[J")) || !(m.bytes = find_class(env, "[B")) ||
      !(m.int_buffer = find_class(env, "java/nio/IntBuffer")) ||
      !(m.float_buffer = find_class(env, "java/nio/FloatBuffer")) ||
      !(m.out_of_memory = find_class(env, "java/lang/OutOfMemoryError")))
    return false;
  jclass batch = env->FindClass("dev/wkv/internal/Batch");
  return batch && (m.batch_caches = env->GetFieldID(batch, "caches", "[J")) &&
         (m.batch_samplers = env->GetFieldID(batch, "samplers", "[J")) &&
         (m.batch_tokens = env->GetFieldID(batch, "tokens", "[Ljava/lang/Object;")) &&
         (m.batch_logits = env->GetFieldID(batch, "logits", "[Ljava/lang/Object;")) &&
         (m.batch_flags = env->GetFieldID(batch, "flags", "[I")) &&
         (m.batch_chosen = env->GetFieldID(batch, "chosen", "[I")) &&
         (m.batch_statuses = env->GetFieldID(batch, "statuses", "[I")) &&
         (m.failure = env->GetStaticMethodID(m.callbacks, "failure", "(I[B)Ljava/lang/RuntimeException;")) &&
         (m.report = env->GetStaticMethodID(m.callbacks, "report", "(Ljava/lang/Object;JJ)Z"));
}

}  // namespace wkv_java
