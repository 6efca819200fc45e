// SPDX-License-Identifier: Apache-2.0
// Strings: text is str or bytes, NUL included; a path is what the os module takes. Text that comes out is whole UTF-8.
%typemap(in) (const char *text, size_t text_bytes) (wkv_python::Text text) {
  if (!text.read($input)) SWIG_fail;
  $1 = const_cast<char *>(text.data());
  $2 = text.size();
}
%typemap(in) const char *path (wkv_python::Path path) {
  if (!path.read($input)) SWIG_fail;
  $1 = const_cast<char *>(path.data());
}
%apply const char *path { const char *source_path, const char *target_path };

%typemap(in, numinputs=0) (const char **text, size_t *text_bytes) (const char *text = NULL, size_t bytes = 0) {
  $1 = const_cast<char **>(&text);
  $2 = &bytes;
}
%typemap(argout) (const char **text, size_t *text_bytes) {
  $result = SWIG_AppendOutput($result, PyUnicode_DecodeUTF8(*$1, static_cast<Py_ssize_t>(*$2), "replace"));
}
%typemap(out) wkv_text { $result = PyUnicode_DecodeUTF8($1.data ? $1.data : "", static_cast<Py_ssize_t>($1.bytes), "replace"); }
%typemap(out) wkv_bytes { $result = PyBytes_FromStringAndSize($1.data, static_cast<Py_ssize_t>($1.bytes)); }
