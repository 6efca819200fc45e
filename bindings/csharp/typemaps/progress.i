// SPDX-License-Identifier: Apache-2.0
// Progress: one function of the public layer, and a number by which it knows who is watching (Watcher.cs).
%typemap(ctype) void *function, void *user "void *"
%typemap(imtype) void *function, void *user "global::System.IntPtr"
%typemap(cstype) void *function, void *user "global::System.IntPtr"
%typemap(csin) void *function, void *user "$csinput"
%typemap(in) void *function, void *user "$1 = $input;"

%define %wkv_progress(tag)
%extend tag {
  void set_progress(void *function, void *user) {
    $self->progress = reinterpret_cast<int32_t (*)(void *, uint64_t, uint64_t)>(function);
    $self->progress_user = user;
  }
}
%enddef
%wkv_progress(wkv_model_options)
%wkv_progress(wkv_step_options)
%wkv_progress(wkv_generation_options)
%wkv_progress(wkv_convert_options)
