// SPDX-License-Identifier: Apache-2.0
// The story model of examples/models, inside the program: it works from any directory.
#pragma once

#include <cstddef>

namespace examples {

extern "C" {
extern const unsigned char story_model_begin[];
extern const unsigned char story_model_end[];
}

inline size_t story_model_size() { return static_cast<size_t>(story_model_end - story_model_begin); }

}  // namespace examples
