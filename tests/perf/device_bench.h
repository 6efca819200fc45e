// SPDX-License-Identifier: Apache-2.0
// The benchmark of a device: one model on it, every figure beside the roof that bounds it.
#pragma once

#include "options.h"
#include "report.h"

namespace libwkv::perf {

// Throws std::runtime_error where options.device cannot be measured.
void measure_device(const Options &options, Report &report);

}  // namespace libwkv::perf
