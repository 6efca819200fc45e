// SPDX-License-Identifier: Apache-2.0
// A whole state in the float32 layouts of other engines.
#pragma once

#include <cstdint>
#include <span>

#include "state/cache.h"

namespace libwkv {

// These expect the caller to hold cache.busy(). What throws has changed nothing: WKV_INVALID for a layout that does not
// exist, for too few (export) or not the exact number of values (import), and for one that is not finite.
void export_state(const Cache &cache, wkv_state_layout layout, std::span<float> values);
// Throws WKV_OUT_OF_MEMORY as well.
void import_state(Cache &cache, wkv_state_layout layout, std::span<const float> values, uint64_t position);

// The first place of a number that is not finite; layer -1: there is none.
struct BadPart {
  int32_t layer = -1;
  wkv_state_part part = WKV_STATE_ATT_SHIFT;
};
BadPart check_state(const Cache &cache);

}  // namespace libwkv
