// SPDX-License-Identifier: Apache-2.0
// A sampler as bytes: options, penalties' memory and random generator. lib/state/README.md has the layout.
#pragma once

#include <memory>

#include "base/byte_stream.h"
#include "text/sampler.h"

namespace libwkv {

// Expects the caller to hold busy().
void write_sampler(ByteWriter &writer, const Sampler &sampler);

// Throws WKV_FORMAT for what no sampler can be, WKV_UNSUPPORTED for a later layout.
std::shared_ptr<Sampler> read_sampler(ByteReader &reader);

}  // namespace libwkv
