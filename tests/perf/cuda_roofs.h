// SPDX-License-Identifier: Apache-2.0
// The roofs of a CUDA device: plain kernels, the driver's copies, cuBLASLt.
#pragma once

#include "device_roofs.h"

namespace libwkv::perf {

// Throws std::runtime_error without such a device.
std::unique_ptr<DeviceRoofs> cuda_roofs(int index);

}  // namespace libwkv::perf
