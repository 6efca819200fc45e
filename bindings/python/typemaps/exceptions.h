// SPDX-License-Identifier: Apache-2.0
// A failed status as a Python exception.
#pragma once

#include <Python.h>

#include <wkv/status.h>

namespace wkv_python {

// An exception that a callable raised while it watched a call: it comes out of the call in place of WKV_CANCELLED.
struct Waiting {
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
};
inline thread_local Waiting waiting;

inline void drop_waiting() {
  Py_CLEAR(waiting.type);
  Py_CLEAR(waiting.value);
  Py_CLEAR(waiting.trace);
}

// wkv.errors has the classes; it makes the exception. items: (index, status) of each item of a batch that was at fault;
// a borrowed list, or NULL.
inline void raise_status(wkv_status status, const char *message, PyObject *items = nullptr) {
  if (status == WKV_CANCELLED && waiting.type) {
    PyErr_Restore(waiting.type, waiting.value, waiting.trace);
    waiting = Waiting();
    return;
  }
  PyObject *module = PyImport_ImportModule("wkv.errors");
  if (!module) return;
  // the message of a system call may hold a file name that is not UTF-8
  PyObject *text = PyUnicode_DecodeUTF8(message, static_cast<Py_ssize_t>(strlen(message)), "backslashreplace");
  PyObject *error =
      text ? PyObject_CallMethod(module, "from_status", "iOO", static_cast<int>(status), text, items ? items : Py_None)
           : nullptr;
  if (error) PyErr_SetObject(reinterpret_cast<PyObject *>(Py_TYPE(error)), error);
  Py_XDECREF(error);
  Py_XDECREF(text);
  Py_DECREF(module);
}

}  // namespace wkv_python
