// SPDX-License-Identifier: Apache-2.0
// Arguments that are sequences of objects.
#pragma once

#include <wkv/step.h>

#include <deque>
#include <vector>

#include "buffers.h"

namespace wkv_python {

/** Handles of one class. The sequence, an argument of the call, keeps its proxies; a copy of it does where it is a
 * list, which another thread might change. */
template <typename Handle>
class Handles {
 public:
  Handles() = default;
  Handles(const Handles &) = delete;
  Handles &operator=(const Handles &) = delete;
  ~Handles() { Py_XDECREF(kept_); }
  bool read(PyObject *object, swig_type_info *type) {
    kept_ = PySequence_Tuple(object);
    if (!kept_) return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kept_); i++) {
      void *handle = nullptr;
      if (!SWIG_IsOK(SWIG_ConvertPtr(PyTuple_GET_ITEM(kept_, i), &handle, type, 0))) {
        PyErr_Format(PyExc_TypeError, "a sequence of handles is needed, item %zd is %s", i,
                     Py_TYPE(PyTuple_GET_ITEM(kept_, i))->tp_name);
        return false;
      }
      handles_.push_back(static_cast<Handle *>(handle));
    }
    return true;
  }
  Handle **data() { return handles_.data(); }
  size_t size() const { return handles_.size(); }

 private:
  PyObject *kept_ = nullptr;
  std::vector<Handle *> handles_;
};

class Indices {
 public:
  bool read(PyObject *object) {
    PyObject *list = PySequence_Tuple(object);
    if (!list) return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(list); i++) {
      const Py_ssize_t index = PyNumber_AsSsize_t(PyTuple_GET_ITEM(list, i), PyExc_IndexError);
      if (index < 0) {
        if (!PyErr_Occurred()) PyErr_Format(PyExc_IndexError, "index %zd is negative", index);
        Py_DECREF(list);
        return false;
      }
      indices_.push_back(static_cast<size_t>(index));
    }
    Py_DECREF(list);
    return true;
  }
  size_t *data() { return indices_.data(); }
  size_t size() const { return indices_.size(); }

 private:
  std::vector<size_t> indices_;
};

/** A tuple (caches, sources) of one length. */
struct Order {
  Handles<wkv_cache> caches;
  Indices sources;

  bool read(PyObject *object, swig_type_info *type) {
    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) != 2) {
      PyErr_SetString(PyExc_TypeError, "a tuple (caches, sources) is needed");
      return false;
    }
    if (!caches.read(PyTuple_GET_ITEM(object, 0), type) || !sources.read(PyTuple_GET_ITEM(object, 1))) return false;
    if (caches.size() == sources.size()) return true;
    PyErr_Format(PyExc_ValueError, "%zu caches and %zu sources", caches.size(), sources.size());
    return false;
  }
};

/** Items of a batch step: a sequence of tuples (cache, tokens, logits or None, sampler or None, flags). */
class Items {
 public:
  Items() = default;
  Items(const Items &) = delete;
  Items &operator=(const Items &) = delete;
  ~Items() { Py_XDECREF(kept_); }
  bool read(PyObject *object, swig_type_info *cache_type, swig_type_info *sampler_type) {
    kept_ = PySequence_Tuple(object);
    if (!kept_) return false;
    const size_t count = static_cast<size_t>(PyTuple_GET_SIZE(kept_));
    items_.resize(count);
    chosen_.resize(count, -1);
    for (size_t i = 0; i < count; i++) {
      PyObject *parts = PyTuple_GET_ITEM(kept_, static_cast<Py_ssize_t>(i));
      if (!PyTuple_Check(parts) || PyTuple_GET_SIZE(parts) != 5) {
        PyErr_SetString(PyExc_TypeError, "an item is a tuple (cache, tokens, logits, sampler, flags)");
        return false;
      }
      void *cache = nullptr, *sampler = nullptr;
      if (!SWIG_IsOK(SWIG_ConvertPtr(PyTuple_GET_ITEM(parts, 0), &cache, cache_type, 0)) ||
          !SWIG_IsOK(SWIG_ConvertPtr(PyTuple_GET_ITEM(parts, 3), &sampler, sampler_type, 0))) {
        PyErr_Format(PyExc_TypeError, "item %zu: a cache and a sampler or None are needed", i);
        return false;
      }
      tokens_.emplace_back();
      logits_.emplace_back();
      if (!tokens_.back().read(PyTuple_GET_ITEM(parts, 1)) ||
          !logits_.back().open<float>(PyTuple_GET_ITEM(parts, 2), "logits", true))
        return false;
      const unsigned long flags = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(parts, 4));
      if (flags == static_cast<unsigned long>(-1) && PyErr_Occurred()) return false;
      if (flags & WKV_STEP_DEVICE_LOGITS) {
        PyErr_SetString(PyExc_ValueError, "a buffer is memory of the host: logits cannot stay on the device");
        return false;
      }
      wkv_step_item &item = items_[i];
      item.struct_size = sizeof item;
      item.flags = static_cast<uint32_t>(flags);
      item.cache = static_cast<wkv_cache *>(cache);
      item.tokens = tokens_.back().data();
      item.tokens_count = tokens_.back().size();
      item.logits = static_cast<float *>(logits_.back().data());
      item.logits_count = logits_.back().count<float>();
      item.sampler = static_cast<wkv_sampler *>(sampler);
      item.next_token = sampler ? &chosen_[i] : nullptr;
    }
    return true;
  }
  wkv_step_item *data() { return items_.data(); }
  size_t size() const { return items_.size(); }
  // (index, status) of those that the library found at fault
  PyObject *faults() const {
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < items_.size(); i++) {
      if (items_[i].status == WKV_OK) continue;
      PyObject *fault = Py_BuildValue("ni", static_cast<Py_ssize_t>(i), static_cast<int>(items_[i].status));
      if (!fault || PyList_Append(list, fault) != 0) Py_CLEAR(list);
      Py_XDECREF(fault);
    }
    return list;
  }
  PyObject *next_tokens() const {
    PyObject *list = PyList_New(static_cast<Py_ssize_t>(items_.size()));
    for (size_t i = 0; list && i < items_.size(); i++) {
      PyObject *token = items_[i].sampler ? PyLong_FromLong(chosen_[i]) : Py_BuildValue("");
      PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), token);
    }
    return list;
  }

 private:
  PyObject *kept_ = nullptr;
  std::vector<wkv_step_item> items_;
  std::vector<int32_t> chosen_;
  std::deque<Tokens> tokens_;  // never moves what it holds
  std::deque<Buffer> logits_;
};

}  // namespace wkv_python
