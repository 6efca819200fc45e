// SPDX-License-Identifier: Apache-2.0
// What bindings/swig/wkv.i needs of a language: Java's. Classes made from it are those of dev.wkv.internal; the layer by
// hand above them (src/dev/wkv) checks, counts handles and turns text into bytes.
%{
#include "batch.h"
#include "memory.h"
#include "watch.h"

extern "C" JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *vm, void *) {
  void *env = nullptr;
  if (vm->GetEnv(&env, JNI_VERSION_10) != JNI_OK) return JNI_ERR;
  wkv_java::machine.vm = vm;
  return wkv_java::look_up(static_cast<JNIEnv *>(env)) ? JNI_VERSION_10 : JNI_ERR;
}
%}

// The library is found before the first native method.
%pragma(java) jniclasscode=%{
  static {
    Loader.load();
  }
%}

// The virtual machine has no lock that a long call would hold.
%define %wkv_long_call(name)
%enddef

// No C++ exception may reach the virtual machine; there are none but for memory, where options are kept.
%exception {
  try {
    $action
  } catch (const std::bad_alloc &) {
    wkv_java::raise_out_of_memory(jenv);
    return $null;
  }
}

// an argument of a macro that has commas
#define %arg(x...) x

%include "status.i"
%include "handles.i"
%include "numbers.i"
%include "strings.i"
%include "watch.i"
