// SPDX-License-Identifier: Apache-2.0
// What this machine is, for people and for defaults.
#pragma once

#include <cstdint>
#include <string>

namespace libwkv {

int usable_cores();            // cores the scheduler lets this process use
std::string processor_name();  // "AMD EPYC"; "unknown processor" when the system does not tell
uint64_t physical_memory_bytes();

}  // namespace libwkv
