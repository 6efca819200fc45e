// SPDX-License-Identifier: Apache-2.0
// Interruption and progress: one plain function behind the progress functions of options. No directors.
%ignore wkv_java::Watch::report;
%include "watch.h"

%define %wkv_watched(tag)
%extend tag {
  // The watch must live as long as the options, and as the generation made from them.
  void set_watch(wkv_java::Watch *watch) {
    $self->progress = wkv_java::Watch::report;
    $self->progress_user = watch;
  }
}
%enddef
%wkv_watched(wkv_model_options)
%wkv_watched(wkv_step_options)
%wkv_watched(wkv_generation_options)
%wkv_watched(wkv_convert_options)
