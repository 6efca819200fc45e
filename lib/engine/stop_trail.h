// SPDX-License-Identifier: Apache-2.0
// The way back to before a stop string: the tokens whose text may turn out to belong to one, and states before them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "state/cache.h"
#include "text/decoder.h"

namespace libwkv {

// Offsets count the bytes of decoded text since the generation began. A token's text begins where its first byte leads
// to: at a character of its own, or at the one that an earlier token began and it goes on with.
class StopTrail {
 public:
  // One chosen token.
  struct Entry {
    int32_t token;
    Utf8Stream before;  // the decoder before it
    uint64_t begin;     // text decoded before it
    uint64_t end;  // text up to here contains bytes of it; one more than decoded when its last character is unfinished
    std::optional<Moment> moment;  // the cache before it was fed; its state is held as a checkpoint
  };
  // States kept at most. Longer stop strings cost steps on the way back instead of memory.
  static constexpr size_t most_moments = 4;

  // An entry without a moment. before, begin: the decoder and the decoded text in front of the token; after, decoded:
  // behind it.
  static Entry entry(int32_t token, const Utf8Stream &before, uint64_t begin, const Utf8Stream &after,
                     uint64_t decoded);

  bool empty() const { return entries_.empty(); }
  const std::vector<Entry> &entries() const { return entries_; }

  // True when the next entry should have a moment.
  bool wants_moment() const;
  // The first entry since the trail was empty has a moment.
  void push(Entry entry) { entries_.push_back(std::move(entry)); }
  // The text before `given` cannot belong to a stop any more.
  void drop_until(uint64_t given);
  void clear() { entries_.clear(); }

  // The first entry that has a byte of the text from `stop` on; entries().size(): none has.
  size_t find(uint64_t stop) const;
  // The last entry up to `index` that has a moment.
  size_t moment_before(size_t index) const;

 private:
  std::vector<Entry> entries_;  // tokens that follow each other, up to the last one chosen; the first has a moment
};

// The bytes of an entry's token that come before the text from `stop` on.
std::string_view bytes_before(const StopTrail::Entry &entry, std::string_view token_bytes, uint64_t stop);

}  // namespace libwkv
