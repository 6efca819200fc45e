// SPDX-License-Identifier: Apache-2.0
// Progress: a Python callable behind the progress functions of options. No directors: one plain function calls it.
%ignore wkv_python::Progress::report;
%include "progress.h"

%define %wkv_progress(tag)
%extend tag {
  // The object must live as long as the options, and as the generation that is made from them.
  void set_progress(wkv_python::Progress *watcher) {
    $self->progress = watcher ? wkv_python::Progress::report : NULL;
    $self->progress_user = watcher;
  }
}
%enddef
%wkv_progress(wkv_model_options)
%wkv_progress(wkv_step_options)
%wkv_progress(wkv_generation_options)
%wkv_progress(wkv_convert_options)
