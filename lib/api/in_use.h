// SPDX-License-Identifier: Apache-2.0
// A reference to a handle's object for a whole call, and exclusive use of it.
#pragma once

#include <memory>

#include "api/edge.h"
#include "base/busy.h"

namespace libwkv::api {

template <class Object>
struct InUse {
  template <class Handle>
  InUse(const Handle *handle, const char *what) : object(needed(handle, what)->object), guard(object->busy(), what) {}
  Object *operator->() const { return object.get(); }
  Object &operator*() const { return *object; }

  std::shared_ptr<Object> object;
  BusyGuard guard;
};

}  // namespace libwkv::api
