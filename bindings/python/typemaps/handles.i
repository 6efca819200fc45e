// SPDX-License-Identifier: Apache-2.0
// Handles: an output handle becomes the result, owned by its proxy. The proxy is an argument of every call on it, so it
// and the handle live until the last call has returned, whatever other threads let go of meanwhile.
%define %wkv_output_handle(tag, name)
%typemap(in, numinputs=0) tag **name (tag *made = NULL) "$1 = &made;"
%typemap(argout) tag **name {
  $result = SWIG_AppendOutput($result, SWIG_NewPointerObj(SWIG_as_voidptr(*$1), $descriptor(tag *), SWIG_POINTER_OWN));
}
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

// Output numbers.
%define %wkv_output_number(type, name, convert)
%typemap(in, numinputs=0) type *name (type number = 0) "$1 = &number;"
%typemap(argout) type *name { $result = SWIG_AppendOutput($result, convert(*$1)); }
%enddef
%wkv_output_number(uint64_t, position, PyLong_FromUnsignedLongLong)
%wkv_output_number(size_t, bytes_count, PyLong_FromSize_t)
%wkv_output_number(size_t, tokens_count, PyLong_FromSize_t)
%wkv_output_number(size_t, text_bytes, PyLong_FromSize_t)
%wkv_output_number(size_t, known_count, PyLong_FromSize_t)
%wkv_output_number(size_t, positions_count, PyLong_FromSize_t)
%wkv_output_number(int32_t, token, PyLong_FromLong)
%wkv_output_number(int32_t, layer, PyLong_FromLong)
%wkv_output_number(wkv_state_part, part, PyLong_FromLong)
