// SPDX-License-Identifier: Apache-2.0
// Status: the one place where a failure becomes an exception. The error struct is a variable of the generated function
// with a fixed name, so that the result's map, which runs before any other output's, finds it.
%typemap(in, numinputs=0, noblock=1) wkv_error *error {
  wkv_error wkv_failure;
  wkv_failure.struct_size = sizeof wkv_failure;
  wkv_failure.message[0] = 0;
  $1 = &wkv_failure;
}
%typemap(jni) wkv_status "void"
%typemap(jtype) wkv_status "void"
%typemap(jstype) wkv_status "void"
%typemap(javaout) wkv_status { $jnicall; }
%typemap(out, noblock=1) wkv_status {
  if ($1 < 0) {
    wkv_java::raise_status(jenv, $1, wkv_failure.message);
    return $null;
  }
}
// WKV_END is news, not a failure: false.
%typemap(jni) wkv_status next "jboolean"
%typemap(jtype) wkv_status next "boolean"
%typemap(jstype) wkv_status next "boolean"
%typemap(javaout) wkv_status next { return $jnicall; }
%typemap(out, noblock=1) wkv_status next {
  if ($1 < 0) {
    wkv_java::raise_status(jenv, $1, wkv_failure.message);
    return $null;
  }
  $result = $1 == WKV_OK;
}
// as an argument: a number whose name is asked for
%apply int { wkv_status status };
