// SPDX-License-Identifier: Apache-2.0
// What bindings/swig/wkv.i needs of a language: C#'s. Everything generated is internal; Wkv/ is the public layer.
%{
#include "arguments.h"
%}

// There is no lock to give up around a long call.
%define %wkv_long_call(name)
%enddef

%typemap(csclassmodifiers) SWIGTYPE, SWIGTYPE *, SWIGTYPE [], SWIGTYPE & "internal class"
%pragma(csharp) moduleclassmodifiers="internal class"
%pragma(csharp) imclassclassmodifiers="internal class"
// numbers of the headers are constants of the compiler
%csconst(1);

%include "status.i"
%include "handles.i"
%include "buffers.i"
%include "strings.i"
%include "sequences.i"
%include "progress.i"
