// SPDX-License-Identifier: Apache-2.0
// Status: the one place where a failure becomes an exception. True is WKV_OK; WKV_END is news, not a failure: false.
%typemap(in, numinputs=0) wkv_error *error {
  wkv_csharp::failure.struct_size = sizeof wkv_csharp::failure;
  wkv_csharp::failure.message[0] = 0;
  $1 = &wkv_csharp::failure;
}
%typemap(cstype, out="bool") wkv_status "int"
%typemap(csout, excode=SWIGEXCODE) wkv_status {
    int status = $imcall;$excode
    if (status < 0) throw Failure.From(status, Utf8.Text(NativePINVOKE.failure_text()));
    return status == 0;
  }
%pragma(csharp) imclasscode=%{
  [global::System.Runtime.InteropServices.DllImport("wkv_csharp", EntryPoint="wkv_csharp_failure_text")]
  internal static extern global::System.IntPtr failure_text();
%}
%insert("wrapper") %{
extern "C" SWIGEXPORT const char *SWIGSTDCALL wkv_csharp_failure_text() { return wkv_csharp::failure.message; }
%}

// Of all that is called, copies of text and arrays for options alone can throw, for want of memory.
%exception {
  try {
    $action
  } catch (const std::bad_alloc &) {
    SWIG_CSharpSetPendingException(SWIG_CSharpOutOfMemoryException, "out of memory");
    return $null;
  }
}
