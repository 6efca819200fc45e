// SPDX-License-Identifier: Apache-2.0
// DLPack: the one use of wkv_cache_get_tensor that a language without pointers has. Python alone has this protocol, so
// it is here and not in the class map. Declared by hand: the structs of dlpack.h are no concern of SWIG's.
%typemap(in, numinputs=0) PyObject **capsule (PyObject *made = NULL) "$1 = &made;"
%typemap(argout) PyObject **capsule {
  Py_XDECREF($result);
  $result = *$1;  // NULL with an exception set when Python has no memory
}
namespace wkv_python {
PyObject *host_capsule(PyObject *values, PyObject *shape, bool is_versioned, uint32_t flags);
wkv_status device_capsule(PyObject *owner, wkv_cache *cache, int32_t layer, wkv_state_part part, bool is_versioned,
                          uint32_t flags, PyObject **capsule, wkv_error *error);
}
