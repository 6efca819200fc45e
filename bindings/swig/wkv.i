// SPDX-License-Identifier: Apache-2.0
// The interface of libwkv for other languages. Here is what does not depend on the language: which headers, which names,
// and the class map (classes.i). How a buffer, a string, a handle and a failure look is said by the language's own
// wkv_language.i, which the command line's -I chooses; bindings/README.md lists what it defines.
%module(package="wkv") native

%{
#define SWIG_FILE_WITH_INIT
#include "owned.h"
%}

%include <stdint.i>

// int32_t numbers under a name of their own; SWIG must know them before the maps.
typedef int32_t wkv_status;
typedef int32_t wkv_type;
typedef int32_t wkv_state_part;
typedef int32_t wkv_state_layout;
typedef int32_t wkv_time_state_order;
typedef int32_t wkv_reason;

%include <wkv_language.i>
%include "names.i"
%include "options.i"
%include "classes.i"

// Structs and constants, from the headers themselves; their functions are methods of the class map.
%import <wkv/export.h>
%include <wkv/status.h>
%include <wkv/version.h>
%include <wkv/device.h>
%include <wkv/model.h>
%include <wkv/initial_state.h>
%include <wkv/cache.h>
%include <wkv/blob.h>
%include <wkv/sampler.h>
%include <wkv/step.h>
%include <wkv/tokenizer.h>
%include <wkv/prefix_store.h>
%include <wkv/generation.h>
%include <wkv/session.h>
%include <wkv/convert.h>
