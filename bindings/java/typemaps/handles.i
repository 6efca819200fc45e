// SPDX-License-Identifier: Apache-2.0
// Proxies: closed by hand, since who counts their users is above (Counted), and no finalizers.
%typemap(javafinalize) SWIGTYPE ""
%typemap(javainterfaces) SWIGTYPE "AutoCloseable"
%typemap(javadestruct, methodname="close", methodmodifiers="@Override public synchronized") SWIGTYPE {
    if (swigCPtr != 0 && swigCMemOwn) {
      swigCMemOwn = false;
      $jnicall;
    }
    swigCPtr = 0;
  }
%typemap(javabody) SWIGTYPE %{
  private transient long swigCPtr;
  private transient boolean swigCMemOwn;

  public $javaclassname(long cPtr, boolean cMemoryOwn) {
    swigCMemOwn = cMemoryOwn;
    swigCPtr = cPtr;
  }

  public static long getCPtr($javaclassname object) {
    return object == null ? 0 : object.swigCPtr;
  }
%}

// An output handle or number is written to the first place of an array.
%define %wkv_output(type, name, array, java, write, cast)
%typemap(jni) type *name "array"
%typemap(jtype) type *name "java[]"
%typemap(jstype) type *name "java[]"
%typemap(javain) type *name "$javainput"
%typemap(in) type *name (type made) {
  made = 0;
  $1 = &made;
}
%typemap(argout) type *name {
  if ($input) {
    const cast number = (cast)*$1;
    jenv->write($input, 0, 1, &number);
  }
}
%enddef
%wkv_output(wkv_model *, model, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(wkv_initial_state *, state, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(wkv_cache *, cache, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(wkv_cache *, copy, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(wkv_sampler *, sampler, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(wkv_tokenizer *, tokenizer, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(wkv_decoder *, decoder, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(wkv_prefix_store *, store, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(wkv_generation *, generation, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(uint64_t, position, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(size_t, bytes_count, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(size_t, tokens_count, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(size_t, text_bytes, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(size_t, known_count, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(size_t, positions_count, jlongArray, long, SetLongArrayRegion, jlong)
%wkv_output(int32_t, token, jintArray, int, SetIntArrayRegion, jint)
%wkv_output(int32_t, layer, jintArray, int, SetIntArrayRegion, jint)
%wkv_output(wkv_state_part, part, jintArray, int, SetIntArrayRegion, jint)

// Arrays of caches are arrays of handles: who made them holds the caches during the call.
%define %wkv_java_type(pattern, jni_type, java_type)
%typemap(jni) pattern "jni_type"
%typemap(jtype) pattern "java_type"
%typemap(jstype) pattern "java_type"
%typemap(javain) pattern "$javainput"
%enddef
%wkv_java_type((wkv_cache *const *caches, size_t caches_count), jlongArray, long[])
%typemap(in) (wkv_cache *const *caches, size_t caches_count) (wkv_java::Memory<uint64_t> memory) {
  if (!memory.open(jenv, $input, "caches")) return $null;
  $1 = reinterpret_cast<wkv_cache **>(memory.data());
  $2 = memory.size();
}
// Indices go in, and the copies that they choose come out in their places. (A local name must not be inside a string as
// well: SWIG then numbers some of its uses only.)
%wkv_java_type((const size_t *indices, wkv_cache **copies, size_t copies_count), jlongArray, long[])
%typemap(in) (const size_t *indices, wkv_cache **copies, size_t copies_count)
    (wkv_java::Memory<uint64_t> chosen, wkv_java::Memory<uint64_t> places) {
  if (!chosen.open(jenv, $input, "indices") || !places.open(jenv, $input, "indices")) return $null;
  $1 = reinterpret_cast<size_t *>(chosen.data());
  $2 = reinterpret_cast<wkv_cache **>(places.data());
  $3 = places.size();
}
%typemap(argout) (const size_t *indices, wkv_cache **copies, size_t copies_count) { places$argnum.commit(jenv); }
// Handles, and behind them as many indices of sources.
%wkv_java_type((wkv_cache *const *caches, const size_t *sources, size_t caches_count), jlongArray, long[])
%typemap(in) (wkv_cache *const *caches, const size_t *sources, size_t caches_count) (wkv_java::Memory<uint64_t> memory) {
  if (!memory.open(jenv, $input, "caches")) return $null;
  $3 = memory.size() / 2;
  $1 = reinterpret_cast<wkv_cache **>(memory.data());
  $2 = reinterpret_cast<size_t *>(memory.data()) + $3;
}
%{
static_assert(sizeof(void *) == sizeof(uint64_t) && sizeof(size_t) == sizeof(uint64_t), "handles are longs in Java");
%}

%wkv_java_type((wkv_step_item *items, size_t items_count), jobject, Batch)
%typemap(in) (wkv_step_item *items, size_t items_count) (wkv_java::Items items) {
  if (!items.read(jenv, $input)) return $null;
  $1 = items.data();
  $2 = items.size();
}
%typemap(argout) (wkv_step_item *items, size_t items_count) { items$argnum.commit(); }
// A failed batch says which items were at fault. They are the second argument of both calls: SWIG numbers its variables.
%typemap(out, noblock=1) wkv_status wkv_model::step, wkv_status wkv_model::step_watched {
  if ($1 < 0) {
    if (!jenv->ExceptionCheck()) items2.commit_statuses();
    wkv_java::raise_status(jenv, $1, wkv_failure.message);
    return $null;
  }
}
