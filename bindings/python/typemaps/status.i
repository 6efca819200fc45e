// SPDX-License-Identifier: Apache-2.0
// Status: the one place where a failure becomes an exception. The error struct is a variable of the generated function
// with a fixed name, so that the result's map, which runs before any other output's, finds it.
%typemap(in, numinputs=0, noblock=1) wkv_error *error {
  wkv_error wkv_failure;
  wkv_failure.struct_size = sizeof wkv_failure;
  wkv_failure.message[0] = 0;
  $1 = &wkv_failure;
}
%typemap(out, noblock=1) wkv_status {
  if ($1 < 0) {
    wkv_python::raise_status($1, wkv_failure.message);
    SWIG_fail;
  }
  $result = SWIG_Py_Void();
}
// WKV_END is news, not a failure: None. Else what the piece, the call's second argument, says: one call a token.
%typemap(out, noblock=1) wkv_status next {
  if ($1 < 0) {
    wkv_python::raise_status($1, wkv_failure.message);
    SWIG_fail;
  }
  $result = $1 == WKV_OK ? wkv_python::contents(*arg2) : SWIG_Py_Void();
}
