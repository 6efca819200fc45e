// SPDX-License-Identifier: Apache-2.0
// Long prompts with a progress bar.
#pragma once

#include <vector>

#include <wkv/wkv.hpp>

namespace examples {

// Feeds tokens chunk by chunk; stops between chunks after Ctrl-C. Returns the number fed.
size_t feed(const wkv::Model &model, wkv::Cache &cache, const std::vector<int32_t> &tokens);

}  // namespace examples
