// SPDX-License-Identifier: Apache-2.0
#include "common/feed.h"

#include <algorithm>

#include "common/terminal.h"

namespace examples {

size_t feed(const wkv::Model &model, wkv::Cache &cache, const std::vector<int32_t> &tokens) {
  const size_t chunk = static_cast<size_t>(model.info().chunk_tokens);
  ProgressBar bar("reading", ProgressBar::Unit::tokens);
  size_t done = 0;
  while (done < tokens.size() && !interrupted()) {
    const size_t count = std::min(chunk, tokens.size() - done);
    cache.feed({tokens.data() + done, count});
    done += count;
    bar.update(done, tokens.size());
  }
  return done;
}

}  // namespace examples
