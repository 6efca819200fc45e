// SPDX-License-Identifier: Apache-2.0
#include "engine/plugin.h"

#include <charconv>
#include <cstdlib>
#include <filesystem>

#include <dlfcn.h>

#include "base/error.h"

namespace libwkv {
namespace {

using kernels::DeviceTable;

constexpr const char *file_name = "libwkv_cuda.so";

// The folder of the library or program that this code is part of.
std::filesystem::path own_folder() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<const void *>(&cuda_plugin), &info) || !info.dli_fname) return {};
  return std::filesystem::path(info.dli_fname).parent_path();
}

std::string one_line(const char *text) {
  std::string line = text ? text : "unknown";
  for (char &c : line)
    if (c == '\n') c = ' ';
  return line;
}

// The plugin brings hundreds of megabytes of libraries along, which a machine without a GPU need not load.
bool has_driver(std::string &fault) {
  void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!driver) fault = "no NVIDIA driver: " + one_line(dlerror());
  return driver != nullptr;  // kept open: the plugin uses it
}

void *open_library(const char *named, std::string &fault) {
  const auto open = [&](const std::string &path) {
    void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) fault = one_line(dlerror());
    return library;
  };
  std::error_code error;
  if (named && *named) {
    std::filesystem::path path(named);
    if (std::filesystem::is_directory(path, error)) path /= file_name;
    return open(path.string());
  }
  const std::filesystem::path beside = own_folder() / file_name;
  if (std::filesystem::exists(beside, error)) return open(beside.string());
  return open(file_name);
}

Plugin load() {
  Plugin plugin;
  const char *named = std::getenv("WKV_CUDA_PATH");
  if (!(named && *named) && !has_driver(plugin.fault)) return plugin;
  void *library = open_library(named, plugin.fault);
  if (!library) return plugin;
  const auto function = reinterpret_cast<kernels::DeviceTableFunction>(dlsym(library, kernels::device_symbol));
  const DeviceTable *table = function ? function() : nullptr;
  if (!table || table->table_size != sizeof(DeviceTable) || table->table_version != kernels::device_table_version) {
    plugin.fault = std::string(file_name) + " belongs to another version of libwkv";
    return plugin;
  }
  plugin.table = table;
  char reason[256] = "";
  plugin.devices = table->count(reason, sizeof reason);
  plugin.fault = reason;
  return plugin;
}

std::string reason_of(const Plugin &plugin, int index) {
  kernels::DeviceDescription description{};
  plugin.table->describe(index, &description);
  return description.is_usable ? "" : description.reason;
}

}  // namespace

const Plugin &cuda_plugin() {
  static const Plugin plugin = [] {
    try {
      return load();
    } catch (...) {
      return Plugin{nullptr, "no memory to load it", 0};
    }
  }();
  return plugin;
}

int resolve_device(const std::string &name) {
  if (name == "cpu") return -1;
  const bool is_auto = name.empty() || name == "auto";
  int wanted = -1;
  if (!is_auto && name != "cuda") {
    const bool is_cuda = name.starts_with("cuda:");
    const auto [end, error] = std::from_chars(name.data() + (is_cuda ? 5 : 0), name.data() + name.size(), wanted);
    if (!is_cuda || error != std::errc() || end != name.data() + name.size() || wanted < 0)
      fail(WKV_NOT_FOUND, "device '%s' does not exist; devices are cpu, cuda, cuda:0, cuda:1 and so on", name.c_str());
  }
  const Plugin &plugin = cuda_plugin();
  if (plugin.devices == 0) {
    if (is_auto) return -1;
    fail(WKV_NOT_FOUND, "device '%s' is not present: %s", name.c_str(), plugin.fault.c_str());
  }
  if (wanted >= plugin.devices)
    fail(WKV_NOT_FOUND, "device '%s' is not present: there are %d CUDA devices", name.c_str(), plugin.devices);
  if (wanted >= 0) {
    const std::string reason = reason_of(plugin, wanted);
    if (!reason.empty()) fail(WKV_DEVICE, "device '%s' cannot be used: %s", name.c_str(), reason.c_str());
    return wanted;
  }
  for (int index = 0; index < plugin.devices; index++)
    if (reason_of(plugin, index).empty()) return index;
  if (is_auto) return -1;
  fail(WKV_DEVICE, "device 'cuda' cannot be used: %s", reason_of(plugin, 0).c_str());
}

}  // namespace libwkv
