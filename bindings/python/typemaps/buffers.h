// SPDX-License-Identifier: Apache-2.0
// Arguments that are memory of Python objects. Each class holds on to the object until it is destroyed, which is after
// the call.
#pragma once

#include <Python.h>

#include <climits>
#include <cstring>
#include <vector>

namespace wkv_python {

template <typename Number>
struct Format;  // which format characters are this number, and its name for people
template <>
struct Format<float> {
  static constexpr const char *codes = "f", *name = "float32";
};
template <>
struct Format<int32_t> {
  static constexpr const char *codes = "il", *name = "int32";
};
template <>
struct Format<uint64_t> {
  static constexpr const char *codes = "LQ", *name = "uint64";
};
template <>
struct Format<char> {
  static constexpr const char *codes = "", *name = "byte";  // bytes of anything
};

class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  ~Buffer() {
    if (is_open_) PyBuffer_Release(&view_);
  }

  // None is no memory at all. False with an exception set when the object will not do.
  template <typename Number>
  bool open(PyObject *object, const char *name, bool is_written) {
    if (object == Py_None) return true;
    if (!PyObject_CheckBuffer(object)) {
      PyErr_Format(PyExc_TypeError, "%s: a buffer of %s is needed, not %s", name, Format<Number>::name,
                   Py_TYPE(object)->tp_name);
      return false;
    }
    if (PyObject_GetBuffer(object, &view_, PyBUF_STRIDES | PyBUF_FORMAT) != 0) return false;
    is_open_ = true;
    if (*Format<Number>::codes && !has_format(Format<Number>::codes, sizeof(Number), Format<Number>::name, name))
      return false;
    if (!PyBuffer_IsContiguous(&view_, 'C')) {
      PyErr_Format(PyExc_ValueError, "%s: the buffer is not contiguous", name);
      return false;
    }
    if (is_written && view_.readonly) {
      PyErr_Format(PyExc_ValueError, "%s: the buffer is read-only", name);
      return false;
    }
    return true;
  }

  void *data() const { return is_open_ ? view_.buf : nullptr; }
  template <typename Number>
  size_t count() const {
    return is_open_ ? static_cast<size_t>(view_.len) / sizeof(Number) : 0;
  }

 private:
  bool has_format(const char *codes, size_t size, const char *needed, const char *name) const {
    const char *format = view_.format ? view_.format : "B";
    const uint16_t probe = 1;
    const bool is_little = *reinterpret_cast<const unsigned char *>(&probe) == 1;
    if (strchr("<>!", *format) && strchr(codes, format[1]) && *format && (*format == '<') != is_little) {
      PyErr_Format(PyExc_ValueError, "%s: the numbers are in the byte order of another machine", name);
      return false;
    }
    if (*format && strchr("@=<>!", *format)) format++;
    if (*format && !format[1] && strchr(codes, *format) && view_.itemsize == static_cast<Py_ssize_t>(size)) return true;
    PyErr_Format(PyExc_TypeError, "%s: a buffer of %s is needed, this one has format '%s'", name, needed,
                 view_.format ? view_.format : "B");
    return false;
  }

  Py_buffer view_{};
  bool is_open_ = false;
};

/** Token ids: a buffer of int32, used where it lies; or a sequence of int, or one int, copied. */
class Tokens {
 public:
  bool read(PyObject *object) {
    if (PyLong_Check(object)) return add(object) && take_copy();
    if (PyUnicode_Check(object) || PyBytes_Check(object)) {
      PyErr_Format(PyExc_TypeError, "tokens: numbers are needed, not %s: a tokenizer makes them from text",
                   Py_TYPE(object)->tp_name);
      return false;
    }
    if (object == Py_None || PyObject_CheckBuffer(object)) {
      if (!buffer_.open<int32_t>(object, "tokens", false)) return false;
      data_ = static_cast<const int32_t *>(buffer_.data());
      size_ = buffer_.count<int32_t>();
      return true;
    }
    PyObject *list = PySequence_Fast(object, "tokens: a buffer of int32 or a sequence of int is needed");
    if (!list) return false;
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(list);
    copy_.reserve(static_cast<size_t>(count));
    // a number's __index__ may change a list: its size is read again
    bool is_good = true;
    for (Py_ssize_t i = 0; is_good && i < PySequence_Fast_GET_SIZE(list); i++)
      is_good = add(PySequence_Fast_GET_ITEM(list, i));
    Py_DECREF(list);
    return is_good && take_copy();
  }
  const int32_t *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  bool add(PyObject *object) {
    Py_INCREF(object);
    PyObject *number = PyNumber_Index(object);
    Py_DECREF(object);
    if (!number) return false;
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (overflow || value < INT32_MIN || value > INT32_MAX) {
      PyErr_SetString(PyExc_ValueError, "tokens: a number is outside int32");
      return false;
    }
    copy_.push_back(static_cast<int32_t>(value));
    return true;
  }
  bool take_copy() {
    data_ = copy_.data();
    size_ = copy_.size();
    return true;
  }

  Buffer buffer_;
  std::vector<int32_t> copy_;
  const int32_t *data_ = nullptr;
  size_t size_ = 0;
};

/** Text as UTF-8: a str, or bytes as they are. */
class Text {
 public:
  bool read(PyObject *object) {
    if (PyUnicode_Check(object)) {
      Py_ssize_t size = 0;
      data_ = PyUnicode_AsUTF8AndSize(object, &size);  // kept by the str
      size_ = static_cast<size_t>(size);
      return data_ != nullptr;
    }
    if (!buffer_.open<char>(object, "text", false)) return false;
    data_ = static_cast<const char *>(buffer_.data());
    size_ = buffer_.count<char>();
    return true;
  }
  const char *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  Buffer buffer_;
  const char *data_ = nullptr;
  size_t size_ = 0;
};

/** A path: str, bytes or os.PathLike; None is NULL. */
class Path {
 public:
  Path() = default;
  Path(const Path &) = delete;
  Path &operator=(const Path &) = delete;
  ~Path() { Py_XDECREF(bytes_); }
  bool read(PyObject *object) { return object == Py_None || PyUnicode_FSConverter(object, &bytes_); }
  const char *data() const { return bytes_ ? PyBytes_AS_STRING(bytes_) : nullptr; }

 private:
  PyObject *bytes_ = nullptr;
};

}  // namespace wkv_python
