// SPDX-License-Identifier: Apache-2.0
// Numbers, and buffers of them: memory that the public layer pins until the call has returned.

// size_t is 64 bits here, whatever it is there
%typemap(ctype) size_t "unsigned long long"
%typemap(imtype) size_t "ulong"
%typemap(cstype) size_t "ulong"
%typemap(csin) size_t "$csinput"
%typemap(csout, excode=SWIGEXCODE) size_t {
    ulong result = $imcall;$excode
    return result;
  }
%typemap(in) size_t "$1 = (size_t)$input;"
%typemap(out) size_t "$result = $1;"

%define %wkv_output_number(type, name, c, cs)
%typemap(ctype) type *name "c *"
%typemap(imtype) type *name "out cs"
%typemap(cstype) type *name "out cs"
%typemap(csin) type *name "out $csinput"
%typemap(in) type *name (type number = 0) { *$input = 0; $1 = &number; }
%typemap(argout) type *name "*$input = *$1;"
%enddef
%wkv_output_number(uint64_t, position, unsigned long long, ulong)
%wkv_output_number(size_t, bytes_count, unsigned long long, ulong)
%wkv_output_number(size_t, tokens_count, unsigned long long, ulong)
%wkv_output_number(size_t, text_bytes, unsigned long long, ulong)
%wkv_output_number(size_t, known_count, unsigned long long, ulong)
%wkv_output_number(size_t, positions_count, unsigned long long, ulong)
%wkv_output_number(int32_t, token, int, int)
%wkv_output_number(int32_t, layer, int, int)
%wkv_output_number(wkv_state_part, part, int, int)

%define %wkv_buffer(type, pointer, pointer_count)
%typemap(ctype) (type pointer, size_t pointer_count) "wkv_csharp::Buffer"
%typemap(imtype) (type pointer, size_t pointer_count) "NativeBuffer"
%typemap(cstype) (type pointer, size_t pointer_count) "NativeBuffer"
%typemap(csin) (type pointer, size_t pointer_count) "$csinput"
%typemap(in) (type pointer, size_t pointer_count) { $1 = ($1_ltype)$input.data; $2 = (size_t)$input.count; }
%enddef
%wkv_buffer(const int32_t *, tokens, tokens_count)
%wkv_buffer(const float *, logits, logits_count)
%wkv_buffer(const float *, values, values_count)
%wkv_buffer(float *, logits, logits_count)
%wkv_buffer(float *, values, values_count)
%wkv_buffer(int32_t *, tokens, capacity)
%wkv_buffer(uint64_t *, positions, capacity)
%wkv_buffer(char *, text, capacity)
%wkv_buffer(const void *, bytes, bytes_count)
%wkv_buffer(void *, bytes, capacity)
%wkv_buffer(const char *, text, text_bytes)
%wkv_buffer(wkv_cache *const *, caches, caches_count)

// An array inside a struct: copied while the struct is sure to live.
%typemap(ctype) int32_t last_tokens [ANY] "void *"
%typemap(imtype) int32_t last_tokens [ANY] "global::System.IntPtr"
%typemap(cstype) int32_t last_tokens [ANY] "int[]"
%typemap(csin) int32_t last_tokens [ANY] "$csinput"
%typemap(out) int32_t last_tokens [ANY] "$result = (void *)$1;"
%typemap(csvarout, excode=SWIGEXCODE2) int32_t last_tokens [ANY] %{
    get {
      int[] numbers = new int[Native.LAST_TOKENS];
      global::System.Runtime.InteropServices.Marshal.Copy($imcall, numbers, 0, numbers.Length);$excode
      global::System.GC.KeepAlive(this);
      return numbers;
    } %}
%immutable *::last_tokens;
