// SPDX-License-Identifier: Apache-2.0
// What bindings/swig/wkv.i needs of a language: Python's.
%{
#include "exceptions.h"
#include "buffers.h"
#include "progress.h"
#include "sequences.h"
#include "pieces.h"
#include "dlpack.h"
%}

// The interpreter's lock is given up around these calls alone.
%define %wkv_long_call(name)
%exception name {
  Py_BEGIN_ALLOW_THREADS
  $action
  Py_END_ALLOW_THREADS
}
%enddef

%include "status.i"
%include "handles.i"
%include "buffers.i"
%include "strings.i"
%include "sequences.i"
%include "progress.i"
%include "dlpack.i"
