// SPDX-License-Identifier: Apache-2.0
// Buffers: anything with the buffer protocol, exported until the call has returned (SWIG's own maps give it back before
// the call, and look at neither format nor order). Objects of the C++ classes are variables of the generated function:
// their destructors run on every way out.
%typemap(in) (const int32_t *tokens, size_t tokens_count) (wkv_python::Tokens tokens) {
  if (!tokens.read($input)) SWIG_fail;
  $1 = const_cast<int32_t *>(tokens.data());
  $2 = tokens.size();
}

%define %wkv_buffer_in(type, pointer, pointer_count)
%typemap(in) (const type *pointer, size_t pointer_count) (wkv_python::Buffer buffer) {
  if (!buffer.open<type>($input, #pointer, false)) SWIG_fail;
  $1 = static_cast<type *>(buffer.data());
  $2 = buffer.count<type>();
}
%enddef
%define %wkv_buffer_out(type, pointer, pointer_count)
%typemap(in) (type *pointer, size_t pointer_count) (wkv_python::Buffer buffer) {
  if (!buffer.open<type>($input, #pointer, true)) SWIG_fail;
  $1 = static_cast<type *>(buffer.data());
  $2 = buffer.count<type>();
}
%enddef
%wkv_buffer_in(float, logits, logits_count)
%wkv_buffer_in(float, values, values_count)
%wkv_buffer_out(float, logits, logits_count)
%wkv_buffer_out(float, values, values_count)
%wkv_buffer_out(int32_t, tokens, capacity)
%wkv_buffer_out(uint64_t, positions, capacity)
%wkv_buffer_out(char, text, capacity)

%typemap(in) (const void *bytes, size_t bytes_count) (wkv_python::Buffer buffer) {
  if (!buffer.open<char>($input, "bytes", false)) SWIG_fail;
  $1 = buffer.data();
  $2 = buffer.count<char>();
}
%typemap(in) (void *bytes, size_t capacity) (wkv_python::Buffer buffer) {
  if (!buffer.open<char>($input, "bytes", true)) SWIG_fail;
  $1 = buffer.data();
  $2 = buffer.count<char>();
}
