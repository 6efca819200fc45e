// SPDX-License-Identifier: Apache-2.0
// Arguments that are numbers in Java's memory: a direct buffer, used where it lies, or an array, which is copied, since
// the collector may move it.
#pragma once

#include <cstdio>
#include <memory>

#include "jvm.h"

namespace wkv_java {

template <typename Number>
struct Kind;  // the classes that hold such numbers, and how an array of them is copied
template <>
struct Kind<int32_t> {
  using Array = jintArray;
  static constexpr const char *name = "an int[] or a direct IntBuffer";
  static jclass array() { return machine.ints; }
  static jclass buffer() { return machine.int_buffer; }
  static void read(JNIEnv *env, Array array, jsize n, int32_t *to) { env->GetIntArrayRegion(array, 0, n, to); }
  static void write(JNIEnv *env, Array array, jsize n, const int32_t *from) {
    env->SetIntArrayRegion(array, 0, n, from);
  }
};
template <>
struct Kind<float> {
  using Array = jfloatArray;
  static constexpr const char *name = "a float[] or a direct FloatBuffer";
  static jclass array() { return machine.floats; }
  static jclass buffer() { return machine.float_buffer; }
  static void read(JNIEnv *env, Array array, jsize n, float *to) { env->GetFloatArrayRegion(array, 0, n, to); }
  static void write(JNIEnv *env, Array array, jsize n, const float *from) {
    env->SetFloatArrayRegion(array, 0, n, from);
  }
};
template <>
struct Kind<uint64_t> {
  using Array = jlongArray;
  static constexpr const char *name = "a long[]";
  static jclass array() { return machine.longs; }
  static jclass buffer() { return nullptr; }
  static void read(JNIEnv *env, Array array, jsize n, uint64_t *to) {
    env->GetLongArrayRegion(array, 0, n, reinterpret_cast<jlong *>(to));
  }
  static void write(JNIEnv *env, Array array, jsize n, const uint64_t *from) {
    env->SetLongArrayRegion(array, 0, n, reinterpret_cast<const jlong *>(from));
  }
};
template <>
struct Kind<char> {
  using Array = jbyteArray;
  static constexpr const char *name = "a byte[]";
  static jclass array() { return machine.bytes; }
  static jclass buffer() { return nullptr; }
  static void read(JNIEnv *env, Array array, jsize n, char *to) {
    env->GetByteArrayRegion(array, 0, n, reinterpret_cast<jbyte *>(to));
  }
  static void write(JNIEnv *env, Array array, jsize n, const char *from) {
    env->SetByteArrayRegion(array, 0, n, reinterpret_cast<const jbyte *>(from));
  }
};

template <typename Number>
class Memory {
 public:
  Memory() = default;
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;

  /** null is no memory at all. False with an exception pending when the object will not do. What is written reaches an
   * array with commit, so that a failed call leaves it alone; it is read before, since a call need not fill it. */
  bool open(JNIEnv *env, jobject object, const char *name) {
    if (!object) return true;
    if (env->IsInstanceOf(object, Kind<Number>::array())) {
      array_ = static_cast<typename Kind<Number>::Array>(object);
      size_ = static_cast<size_t>(env->GetArrayLength(array_));
      data_ = few_;
      if (size_ > few) {
        many_.reset(new (std::nothrow) Number[size_]);
        data_ = many_.get();
      }
      if (!data_) {
        raise_out_of_memory(env);
        return false;
      }
      Kind<Number>::read(env, array_, static_cast<jsize>(size_), data_);
      return true;
    }
    if (Kind<Number>::buffer() && env->IsInstanceOf(object, Kind<Number>::buffer())) {
      data_ = static_cast<Number *>(env->GetDirectBufferAddress(object));
      const jlong capacity = env->GetDirectBufferCapacity(object);
      if (reinterpret_cast<uintptr_t>(data_) % alignof(Number) != 0) return refuse(env, name, "aligned memory");
      if (data_ && capacity >= 0) {
        size_ = static_cast<size_t>(capacity);
        return true;
      }
    }
    return refuse(env, name, Kind<Number>::name);
  }
  void commit(JNIEnv *env) const {
    if (array_ && size_) Kind<Number>::write(env, array_, static_cast<jsize>(size_), data_);
  }
  Number *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  static bool refuse(JNIEnv *env, const char *name, const char *needed) {
    char message[128];
    snprintf(message, sizeof message, "%s: %s is needed", name, needed);
    raise_status(env, WKV_INVALID, message);
    return false;
  }

  static constexpr size_t few = 16;
  typename Kind<Number>::Array array_ = nullptr;
  Number *data_ = nullptr;
  size_t size_ = 0;
  Number few_[few];
  std::unique_ptr<Number[]> many_;
};

/** byte[] as a C string; null is NULL. The layer above refuses NUL inside. */
class CString {
 public:
  bool open(JNIEnv *env, jbyteArray array) {
    if (!array) return true;
    const jsize size = env->GetArrayLength(array);
    data_.reset(new (std::nothrow) char[static_cast<size_t>(size) + 1]);
    if (!data_) {
      raise_out_of_memory(env);
      return false;
    }
    env->GetByteArrayRegion(array, 0, size, reinterpret_cast<jbyte *>(data_.get()));
    data_[static_cast<size_t>(size)] = 0;
    return true;
  }
  char *data() const { return data_.get(); }

 private:
  std::unique_ptr<char[]> data_;
};

}  // namespace wkv_java
