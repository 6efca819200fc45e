// SPDX-License-Identifier: Apache-2.0
// A piece of a generation as Python objects.
#pragma once

#include <Python.h>

#include <wkv/generation.h>

namespace wkv_python {

/** (text, token, reason, log_probability, alternatives) of a piece. */
inline PyObject *contents(const wkv_generation_piece &piece) {
  PyObject *alternatives = PyTuple_New(piece.alternatives_count);
  for (int32_t i = 0; alternatives && i < piece.alternatives_count; i++) {
    const wkv_token_probability &one = piece.alternatives[i];
    PyObject *pair = Py_BuildValue("if", static_cast<int>(one.token), one.log_probability);
    if (pair)
      PyTuple_SET_ITEM(alternatives, i, pair);
    else
      Py_CLEAR(alternatives);
  }
  PyObject *text = PyUnicode_DecodeUTF8(piece.text, static_cast<Py_ssize_t>(piece.text_bytes), "replace");
  return Py_BuildValue("NiifN", text, static_cast<int>(piece.token), static_cast<int>(piece.reason),
                       piece.log_probability, alternatives);  // NULL when one of these is
}

}  // namespace wkv_python
