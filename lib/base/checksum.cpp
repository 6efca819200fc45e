// SPDX-License-Identifier: Apache-2.0
#include "base/checksum.h"

#include <new>
#include <type_traits>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace libwkv {
namespace {

template <class State>
auto *hash_of(State *state) {
  using Hash = std::conditional_t<std::is_const_v<State>, const XXH3_state_t, XXH3_state_t>;
  return std::launder(reinterpret_cast<Hash *>(state));
}

}  // namespace

Checksum::Checksum() noexcept {
  static_assert(sizeof state_ >= sizeof(XXH3_state_t) && alignof(XXH3_state_t) <= 64, "the state needs more room");
  XXH3_64bits_reset(new (state_) XXH3_state_t);
}

void Checksum::add(std::span<const std::byte> bytes) noexcept {
  if (!bytes.empty()) XXH3_64bits_update(hash_of(state_), bytes.data(), bytes.size());
}

uint64_t Checksum::value() const noexcept { return XXH3_64bits_digest(hash_of(state_)); }

}  // namespace libwkv
