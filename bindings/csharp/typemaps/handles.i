// SPDX-License-Identifier: Apache-2.0
// Handles: the runtime counts a SafeHandle for as long as a call that was given it runs, so closing it on another
// thread waits for the last user. A handle has a finalizer of its own, and proxies need none.
%typemap(imtype, out="global::System.IntPtr") SWIGTYPE * "NativeHandle"
%typemap(csin) SWIGTYPE * "$csclassname.getCPtr($csinput)"
%typemap(csbody) SWIGTYPE %{
  internal readonly NativeHandle swigCPtr;

  [global::System.Runtime.InteropServices.DllImport("wkv_csharp", EntryPoint="CSharp_WkvfInterop_delete_$csclassname___")]
  private static extern void Release(global::System.IntPtr pointer);
  private static readonly global::System.Action<global::System.IntPtr> release = Release;

  internal $csclassname(global::System.IntPtr pointer, bool isOwner)
      : this(new NativeHandle(pointer, isOwner ? release : null)) {
  }

  internal $csclassname(NativeHandle handle) {
    swigCPtr = handle;
    global::System.GC.SuppressFinalize(this);
  }

  internal static NativeHandle getCPtr($csclassname it) {
    return it == null ? NativeHandle.Null : it.swigCPtr;
  }
%}
%typemap(csdisposing, methodname="Dispose", methodmodifiers="protected", parameters="bool disposing") SWIGTYPE
  "{ if (disposing) swigCPtr.Dispose(); }"
%typemap(csdispose) SWIGTYPE "public void Dispose() { Dispose(true); }"

// An output handle is the caller's, who puts it into a proxy at once.
%define %wkv_output_handle(tag, name)
%typemap(ctype) tag **name "void **"
%typemap(imtype) tag **name "out global::System.IntPtr"
%typemap(cstype) tag **name "out global::System.IntPtr"
%typemap(csin) tag **name "out $csinput"
%typemap(in) tag **name (tag *made = NULL) { *$input = NULL; $1 = &made; }
%typemap(argout) tag **name "*$input = *$1;"
%enddef
%wkv_output_handle(wkv_model, model)
%wkv_output_handle(wkv_initial_state, state)
%wkv_output_handle(wkv_cache, cache)
%wkv_output_handle(wkv_cache, copy)
%wkv_output_handle(wkv_sampler, sampler)
%wkv_output_handle(wkv_tokenizer, tokenizer)
%wkv_output_handle(wkv_decoder, decoder)
%wkv_output_handle(wkv_prefix_store, store)
%wkv_output_handle(wkv_generation, generation)

// A handle that a session gives up.
%typemap(cstype, out="global::System.IntPtr") wkv_cache *take_cache, wkv_sampler *take_sampler,
  wkv_generation *take_generation "$csclassname"
%typemap(csout, excode=SWIGEXCODE) wkv_cache *take_cache, wkv_sampler *take_sampler, wkv_generation *take_generation {
    global::System.IntPtr taken = $imcall;$excode
    return taken;
  }
