// SPDX-License-Identifier: Apache-2.0
// A callable that watches a long call, and may end it.
#pragma once

namespace wkv_python {

/** callable(done, total): a true result cancels, an exception cancels and comes out of the call. None: nothing is
 * called, but signals are looked at, so that Ctrl-C ends a long call. */
class Progress {
 public:
  explicit Progress(PyObject *callable) : callable_(callable) { Py_XINCREF(callable_); }
  ~Progress() { Py_XDECREF(callable_); }
  Progress(const Progress &) = delete;
  Progress &operator=(const Progress &) = delete;

  static int32_t report(void *user, uint64_t done, uint64_t total);

 private:
  PyObject *callable_;
};

}  // namespace wkv_python

#ifndef SWIG
namespace wkv_python {

// The caller has given the interpreter's lock up.
inline int32_t Progress::report(void *user, uint64_t done, uint64_t total) {
  PyGILState_STATE lock = PyGILState_Ensure();
  PyObject *callable = static_cast<Progress *>(user)->callable_;
  int is_cancelled = PyErr_CheckSignals() != 0;
  if (!is_cancelled && callable != Py_None) {
    PyObject *answer = PyObject_CallFunction(callable, "KK", static_cast<unsigned long long>(done),
                                             static_cast<unsigned long long>(total));
    is_cancelled = answer ? PyObject_IsTrue(answer) : 1;  // -1, an exception, cancels too
    Py_XDECREF(answer);
  }
  if (PyErr_Occurred()) {
    drop_waiting();
    PyErr_Fetch(&waiting.type, &waiting.value, &waiting.trace);
    is_cancelled = 1;
  }
  PyGILState_Release(lock);
  return is_cancelled;
}

}  // namespace wkv_python
#endif
