// SPDX-License-Identifier: Apache-2.0
// A text long enough to be worth remembering, and questions about it.
#pragma once

#include <string>
#include <vector>

namespace examples {

// "The Clockmaker of the Salt Marsh", about 1,500 words, written for this program.
extern const char *const long_tale;
std::vector<std::string> long_tale_questions();

}  // namespace examples
