// SPDX-License-Identifier: Apache-2.0
// How fast this machine reads memory: the roof of decoding, which reads every weight once a token.
#pragma once

#include <cstddef>

namespace examples {

// Bytes per second that `threads` threads read together from a buffer of about `bytes`, each through several streams;
// the best of several passes within about half a second. A buffer that fits the caches measures the caches, as a
// model of that size would.
double measure_read_roof(int threads, size_t bytes);

}  // namespace examples
