// SPDX-License-Identifier: Apache-2.0
// The C entries of device.h.
#include <wkv/device.h>

#include <algorithm>

#include "api/edge.h"
#include "base/processor.h"
#include "engine/cpu_executor.h"
#include "engine/plugin.h"

using namespace libwkv;

namespace {

void describe_cpu(wkv_device_info &values) {
  std::string kernels;
  for (const std::string &name : usable_kernels()) kernels += (kernels.empty() ? "" : ",") + name;
  values.is_usable = 1;
  values.memory_bytes = physical_memory_bytes();
  values.cores = usable_cores();
  api::write_text(values.name, "cpu");
  api::write_text(
      values.description,
      (processor_name() + ", " + std::to_string(values.cores) + (values.cores == 1 ? " core" : " cores")).c_str());
  api::write_text(values.kernels, kernels.c_str());
}

// Without a plugin or driver there still is device cuda:0, which says what is missing.
void describe_cuda(int32_t index, wkv_device_info &values) {
  api::write_text(values.name, ("cuda:" + std::to_string(index)).c_str());
  const Plugin &plugin = cuda_plugin();
  if (index >= plugin.devices) return api::write_text(values.unusable_reason, plugin.fault.c_str());
  kernels::DeviceDescription description;
  plugin.table->describe(index, &description);
  values.is_usable = description.is_usable;
  values.memory_bytes = description.memory_bytes;
  values.cores = description.processors;
  api::write_text(values.description, description.description);
  api::write_text(values.kernels, description.kernels);
  api::write_text(values.unusable_reason, description.reason);
}

}  // namespace

extern "C" {

size_t wkv_device_count(void) { return 1 + static_cast<size_t>(std::max(cuda_plugin().devices, 1)); }

wkv_status wkv_device_get_info(size_t index, wkv_device_info *info, wkv_error *error) {
  return api::guard(error, [&] {
    api::check_info(info, "info");
    if (index >= wkv_device_count())
      fail(WKV_INVALID, "device %zu is outside the %zu known ones", index, wkv_device_count());
    wkv_device_info values{};
    if (index == 0)
      describe_cpu(values);
    else
      describe_cuda(static_cast<int32_t>(index) - 1, values);
    api::write_info(info, values);
    return WKV_OK;
  });
}

}  // extern "C"
