// SPDX-License-Identifier: Apache-2.0
// Sequences of objects: the items of a batch step, and arrays of caches.
%typemap(in) (wkv_step_item *items, size_t items_count) (wkv_python::Items items) {
  if (!items.read($input, $descriptor(wkv_cache *), $descriptor(wkv_sampler *))) SWIG_fail;
  $1 = items.data();
  $2 = items.size();
}
// A failed batch says which items were at fault. The items are the second argument of both calls, and SWIG numbers the
// variables of arguments.
%typemap(out, noblock=1) wkv_status wkv_model::step, wkv_status wkv_model::step_watched {
  if ($1 < 0) {
    PyObject *faults = items2.faults();
    if (faults) wkv_python::raise_status($1, wkv_failure.message, faults);
    Py_XDECREF(faults);
    SWIG_fail;
  }
  $result = SWIG_Py_Void();
}
// The chosen tokens, None for items without a sampler.
%typemap(argout) (wkv_step_item *items, size_t items_count) {
  $result = SWIG_AppendOutput($result, items$argnum.next_tokens());
}

%typemap(in) (wkv_cache *const *caches, size_t caches_count) (wkv_python::Handles<wkv_cache> caches) {
  if (!caches.read($input, $descriptor(wkv_cache *))) SWIG_fail;
  $1 = caches.data();
  $2 = caches.size();
}
%typemap(in) (const size_t *indices, wkv_cache **copies, size_t copies_count)
    (wkv_python::Indices indices, std::vector<wkv_cache *> copies) {
  if (!indices.read($input)) SWIG_fail;
  copies.resize(indices.size());
  $1 = indices.data();
  $2 = copies.data();
  $3 = copies.size();
}
%typemap(argout) (const size_t *indices, wkv_cache **copies, size_t copies_count) {
  PyObject *list = PyList_New(static_cast<Py_ssize_t>($3));
  for (size_t i = 0; list && i < $3; i++)
    PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i),
                    SWIG_NewPointerObj(SWIG_as_voidptr($2[i]), $descriptor(wkv_cache *), SWIG_POINTER_OWN));
  $result = SWIG_AppendOutput($result, list);
}
// A pair: the caches, and the index of each one's source.
%typemap(in) (wkv_cache *const *caches, const size_t *sources, size_t caches_count) (wkv_python::Order order) {
  if (!order.read($input, $descriptor(wkv_cache *))) SWIG_fail;
  $1 = order.caches.data();
  $2 = order.sources.data();
  $3 = order.caches.size();
}

%typemap(out) int32_t [ANY] {
  $result = PyTuple_New($1_dim0);
  for (int i = 0; $result && i < $1_dim0; i++) PyTuple_SET_ITEM($result, i, PyLong_FromLong($1[i]));
}
