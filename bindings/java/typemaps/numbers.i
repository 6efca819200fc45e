// SPDX-License-Identifier: Apache-2.0
// Numbers: an unsigned one is an int or a long, of as many bits. Arrays are arrays of Java or direct buffers (memory.h),
// both Object here: the layer above has the types.
%apply int { uint32_t, unsigned int };
%apply long long { uint64_t, unsigned long long };

%define %wkv_memory(type, pattern, name)
%wkv_java_type(%arg(pattern), jobject, Object)
%typemap(in) pattern (wkv_java::Memory<type> memory) {
  if (!memory.open(jenv, $input, name)) return $null;
  $1 = memory.data();
  $2 = memory.size();
}
%enddef
%define %wkv_memory_out(type, pattern, name)
%wkv_memory(type, %arg(pattern), name)
%typemap(argout) pattern { memory$argnum.commit(jenv); }
%enddef
%wkv_memory(int32_t, %arg((const int32_t *tokens, size_t tokens_count)), "tokens")
%wkv_memory(float, %arg((const float *logits, size_t logits_count)), "logits")
%wkv_memory(float, %arg((const float *values, size_t values_count)), "values")
%wkv_memory(char, %arg((const void *bytes, size_t bytes_count)), "bytes")
%wkv_memory(char, %arg((const char *text, size_t text_bytes)), "text")
%wkv_memory_out(float, %arg((float *logits, size_t logits_count)), "logits")
%wkv_memory_out(float, %arg((float *values, size_t values_count)), "values")
%wkv_memory_out(int32_t, %arg((int32_t *tokens, size_t capacity)), "tokens")
%wkv_memory_out(uint64_t, %arg((uint64_t *positions, size_t capacity)), "positions")
%wkv_memory_out(char, %arg((char *text, size_t capacity)), "text")
%wkv_memory_out(char, %arg((void *bytes, size_t capacity)), "bytes")

%wkv_java_type(int32_t [ANY], jintArray, int[])
%typemap(javaout) int32_t [ANY] { return $jnicall; }
%typemap(out) int32_t [ANY] {
  $result = jenv->NewIntArray($1_dim0);
  if ($result) jenv->SetIntArrayRegion($result, 0, $1_dim0, $1);
}
%immutable wkv_cache_info::last_tokens;
%immutable wkv_blob_info::last_tokens;
