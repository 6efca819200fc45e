// SPDX-License-Identifier: Apache-2.0
// The C entries of device.h.
#include <wkv/device.h>

#include "api/edge.h"
#include "base/processor.h"
#include "engine/cpu_executor.h"

using namespace libwkv;

extern "C" {

size_t wkv_device_count(void) { return 1; }

wkv_status wkv_device_get_info(size_t index, wkv_device_info *info, wkv_error *error) {
  return api::guard(error, [&] {
    api::check_info(info, "info");
    if (index >= wkv_device_count())
      fail(WKV_INVALID, "device %zu is outside the %zu known ones", index, wkv_device_count());
    std::string kernels;
    for (const std::string &name : usable_kernels()) kernels += (kernels.empty() ? "" : ",") + name;
    wkv_device_info values{};
    values.is_usable = 1;
    values.memory_bytes = physical_memory_bytes();
    values.cores = usable_cores();
    api::write_text(values.name, "cpu");
    api::write_text(
        values.description,
        (processor_name() + ", " + std::to_string(values.cores) + (values.cores == 1 ? " core" : " cores")).c_str());
    api::write_text(values.kernels, kernels.c_str());
    api::write_info(info, values);
    return WKV_OK;
  });
}

}  // extern "C"
