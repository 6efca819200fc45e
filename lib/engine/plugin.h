// SPDX-License-Identifier: Apache-2.0
// Backends that are libraries of their own (kernels/device.h), found when somebody first asks for a device.
#pragma once

#include <string>

#include "kernels/device.h"

namespace libwkv {

struct Plugin {
  const kernels::DeviceTable *table = nullptr;  // NULL: fault says why
  std::string fault;                            // one line
  int32_t devices = 0;                          // usable or not; 0 with a fault when the driver cannot be used
};

// libwkv_cuda: the file or folder that WKV_CUDA_PATH names and no other; without it beside libwkv, then where the
// system looks for libraries. Loaded once and never unloaded. Thread-safe; never throws.
const Plugin &cuda_plugin();

// Device of a model option: -1 is the CPU, else a CUDA device that can be used. Throws WKV_NOT_FOUND and WKV_DEVICE
// with the reason, WKV_INVALID for a name that is none.
int resolve_device(const std::string &name);

}  // namespace libwkv
