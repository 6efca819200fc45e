// SPDX-License-Identifier: Apache-2.0
// Strings: UTF-8 in byte[], since JNI's own strings are of another encoding. Text of a struct is a String.
%define %wkv_c_string(name)
%wkv_java_type(const char *name, jbyteArray, byte[])
%typemap(in) const char *name (wkv_java::CString string) {
  if (!string.open(jenv, $input)) return $null;
  $1 = string.data();
}
%typemap(freearg) const char *name ""
%enddef
%wkv_c_string(path)
%wkv_c_string(source_path)
%wkv_c_string(target_path)
%wkv_c_string(text)

%define %wkv_bytes_out(type, data, bytes)
%typemap(jni) type "jbyteArray"
%typemap(jtype) type "byte[]"
%typemap(jstype) type "byte[]"
%typemap(javaout) type { return $jnicall; }
%typemap(out) type { $result = wkv_java::to_bytes(jenv, data, bytes); }
%enddef
%wkv_bytes_out(wkv_text, $1.data, $1.bytes)
%wkv_bytes_out(wkv_bytes, $1.data, $1.bytes)
%wkv_bytes_out(char [ANY], $1, strnlen($1, $1_dim0))
%typemap(jstype) char [ANY] "String"
%typemap(javaout) char [ANY] { return new String($jnicall, java.nio.charset.StandardCharsets.UTF_8); }
%immutable wkv_model_info::format;
%immutable wkv_model_info::stored_types;
%immutable wkv_model_info::compute_types;
%immutable wkv_model_info::device;
%immutable wkv_model_info::kernels;
%immutable wkv_cache_info::device;
%immutable wkv_initial_state_info::warning;
%immutable wkv_device_info::name;
%immutable wkv_device_info::description;
%immutable wkv_device_info::kernels;
%immutable wkv_device_info::unusable_reason;

// What a decoder gives out is written to the first place of an array of arrays.
%wkv_java_type((const char **text, size_t *text_bytes), jobjectArray, byte[][])
%typemap(in) (const char **text, size_t *text_bytes) (const char *text, size_t bytes) {
  text = NULL;
  bytes = 0;
  $1 = const_cast<char **>(&text);
  $2 = &bytes;
}
%typemap(argout) (const char **text, size_t *text_bytes) {
  jbyteArray bytes_out = wkv_java::to_bytes(jenv, *$1, *$2);
  if (bytes_out && $input) jenv->SetObjectArrayElement($input, 0, bytes_out);
}
