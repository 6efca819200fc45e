// SPDX-License-Identifier: Apache-2.0
// What a model will need, before it is loaded.
#pragma once

#include <wkv/model.h>

#include "engine/model.h"
#include "formats/checkpoint.h"

namespace libwkv {

// Answers what `asked` asks, from shapes alone: no weight is read. Throws Error as loading does for a file or options
// that cannot be loaded; memory_limit_bytes is not looked at.
wkv_memory_plan plan_memory(const formats::Checkpoint &checkpoint, const LoadOptions &options,
                            const wkv_memory_plan &asked);

}  // namespace libwkv
