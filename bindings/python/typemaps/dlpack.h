// SPDX-License-Identifier: Apache-2.0
// State tensors for other libraries: DLPack capsules that own what they point to.
#pragma once

#include <Python.h>

#include <wkv/interop.h>

#include <algorithm>
#include <memory>
#include <type_traits>

namespace wkv_python {

// The binary form that DLPack's specification gives a tensor, and what a capsule holds: before 1.0, and since.
struct DlpackTensor {
  void *data;
  int32_t device_type, device_index, dimensions;
  uint8_t type_code, type_bits;
  uint16_t type_lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};
struct DlpackOld {
  DlpackTensor tensor;
  void *context;
  void (*deleter)(DlpackOld *);
  static constexpr const char *name = "dltensor";
};
struct DlpackVersioned {
  uint32_t major = 1, minor = 0;
  void *context;
  void (*deleter)(DlpackVersioned *);
  uint64_t flags;  // 1: read-only, 2: a copy
  DlpackTensor tensor;
  static constexpr const char *name = "dltensor_versioned";
};

/** A tensor together with what keeps its memory: a buffer, or a Python object. */
template <typename Form>
struct DlpackBox {
  Form form{};
  int64_t shape[4]{}, strides[4]{};
  Py_buffer view{};
  PyObject *owner = nullptr;

  ~DlpackBox() {
    PyBuffer_Release(&view);  // does nothing to one that was never filled
    Py_XDECREF(owner);
  }

  DlpackBox(uint32_t flags) {
    if constexpr (std::is_same_v<Form, DlpackVersioned>) form.flags = flags;  // the old form has none
  }
  void point(void *data, int32_t device_type, int32_t device_index, int32_t type_bits, int32_t dimensions) {
    form.tensor = {data, device_type, device_index, dimensions, 2, static_cast<uint8_t>(type_bits),
                   1,    shape,       strides,      0};
  }

  // A consumer may let go in any thread. A process that has ended Python keeps the memory.
  static void release(Form *form) {
    if (!Py_IsInitialized()) return;
    PyGILState_STATE lock = PyGILState_Ensure();
    delete static_cast<DlpackBox *>(form->context);
    PyGILState_Release(lock);
  }

  // Who takes the tensor renames the capsule, and releases it: then nothing is left to do here.
  static void forget(PyObject *capsule) {
    if (!PyCapsule_IsValid(capsule, Form::name)) return;
    auto *form = static_cast<Form *>(PyCapsule_GetPointer(capsule, Form::name));
    form->deleter(form);
  }

  static PyObject *wrap(std::unique_ptr<DlpackBox> box) {
    box->form.context = box.get();
    box->form.deleter = release;
    PyObject *capsule = PyCapsule_New(&box->form, Form::name, forget);
    if (capsule) box.release();
    return capsule;
  }
};

template <typename Form>
PyObject *make_host_capsule(PyObject *values, PyObject *shape, uint32_t flags) {
  auto box = std::make_unique<DlpackBox<Form>>(flags);
  if (PyObject_GetBuffer(values, &box->view, PyBUF_CONTIG) != 0) return nullptr;
  const Py_ssize_t dimensions = PyTuple_GET_SIZE(shape);
  int64_t step = 1;
  bool is_good = dimensions <= 4;
  for (Py_ssize_t i = dimensions - 1; is_good && i >= 0; i--) {
    box->shape[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape, i));
    if (PyErr_Occurred()) return nullptr;
    is_good = box->shape[i] >= 0 && box->shape[i] <= box->view.len;
    box->strides[i] = step;
    step *= box->shape[i];
  }
  if (!is_good || step * static_cast<int64_t>(sizeof(float)) != box->view.len) {
    PyErr_SetString(PyExc_ValueError, "the buffer and the shape differ in size");
    return nullptr;
  }
  box->point(box->view.buf, 1, 0, 32, static_cast<int32_t>(dimensions));
  return DlpackBox<Form>::wrap(std::move(box));
}

template <typename Form>
PyObject *make_device_capsule(PyObject *owner, const wkv_device_tensor &place, uint32_t flags) {
  auto box = std::make_unique<DlpackBox<Form>>(flags);
  std::copy_n(place.shape, 4, box->shape);
  std::copy_n(place.strides, 4, box->strides);
  // in the order of wkv_cache_read_state: a head is [value][key] there, and lies transposed on the device
  if (place.dimensions == 3) std::swap(box->strides[1], box->strides[2]);
  Py_INCREF(owner);
  box->owner = owner;
  box->point(place.data, place.device_type, place.device_index, place.type_bits, place.dimensions);
  return DlpackBox<Form>::wrap(std::move(box));
}

/** Floats of a Python object: contiguous, of this shape. The consumer may write to them. */
inline PyObject *host_capsule(PyObject *values, PyObject *shape, bool is_versioned, uint32_t flags) {
  if (!PyTuple_Check(shape)) {
    PyErr_SetString(PyExc_TypeError, "a shape is a tuple");
    return nullptr;
  }
  return is_versioned ? make_host_capsule<DlpackVersioned>(values, shape, flags)
                      : make_host_capsule<DlpackOld>(values, shape, flags);
}

/** A part of the state of a cache on a GPU, where it lies. The owner is the cache's proxy, and nobody else may use that
 * cache while the capsule lives. */
inline wkv_status device_capsule(PyObject *owner, wkv_cache *cache, int32_t layer, wkv_state_part part,
                                 bool is_versioned, uint32_t flags, PyObject **capsule, wkv_error *error) {
  wkv_device_tensor place{};
  place.struct_size = sizeof place;
  const wkv_status status = wkv_cache_get_tensor(cache, layer, part, &place, error);
  if (status == WKV_OK)
    *capsule = is_versioned ? make_device_capsule<DlpackVersioned>(owner, place, flags)
                            : make_device_capsule<DlpackOld>(owner, place, flags);
  return status;
}

}  // namespace wkv_python
