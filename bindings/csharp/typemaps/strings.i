// SPDX-License-Identifier: Apache-2.0
// Strings: UTF-8 on every system. One that ends with NUL must not contain it (Utf8.cs).
%typemap(imtype, out="global::System.IntPtr") const char *, char [ANY] "byte[]"
%typemap(cstype) const char *, char [ANY] "string"
%typemap(csin) const char * "Utf8.Bytes($csinput)"
%typemap(in) const char * "$1 = ($1_ltype)$input;"
%typemap(out) const char *, char [ANY] "$result = (char *)$1;"
%typemap(csout, excode=SWIGEXCODE) const char * {
    string text = Utf8.Text($imcall);$excode
    return text;
  }
%typemap(csvarout, excode=SWIGEXCODE2) const char *, char [ANY] %{
    get {
      string text = Utf8.Text($imcall);$excode
      global::System.GC.KeepAlive(this);
      return text;
    } %}
%immutable *::name;
%immutable *::description;
%immutable *::kernels;
%immutable *::unusable_reason;
%immutable *::device;
%immutable *::format;
%immutable *::stored_types;
%immutable *::compute_types;
%immutable *::warning;

// Text and bytes that come out with their length: to be copied before the object that has them is used again.
%typemap(ctype) (const char **text, size_t *text_bytes) "wkv_csharp::Buffer *"
%typemap(imtype) (const char **text, size_t *text_bytes) "out NativeBuffer"
%typemap(cstype) (const char **text, size_t *text_bytes) "out NativeBuffer"
%typemap(csin) (const char **text, size_t *text_bytes) "out $csinput"
%typemap(in) (const char **text, size_t *text_bytes) (const char *text = NULL, size_t bytes = 0) {
  $1 = ($1_ltype)&text;
  $2 = &bytes;
}
%typemap(argout) (const char **text, size_t *text_bytes) {
  $input->data = (void *)*$1;
  $input->count = *$2;
}
%typemap(ctype) wkv_text, wkv_bytes "wkv_csharp::Buffer"
%typemap(imtype) wkv_text, wkv_bytes "NativeBuffer"
%typemap(cstype) wkv_text, wkv_bytes "NativeBuffer"
%typemap(out, null="wkv_csharp::Buffer()") wkv_text, wkv_bytes {
  $result.data = (void *)$1.data;
  $result.count = $1.bytes;
}
%typemap(csout, excode=SWIGEXCODE) wkv_text, wkv_bytes {
    NativeBuffer bytes = $imcall;$excode
    return bytes;
  }
