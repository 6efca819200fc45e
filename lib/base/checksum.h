// SPDX-License-Identifier: Apache-2.0
// XXH3-64 of bytes that come in pieces. Lives on the stack and takes no memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace libwkv {

class Checksum {
 public:
  Checksum() noexcept;
  void add(std::span<const std::byte> bytes) noexcept;
  uint64_t value() const noexcept;

 private:
  alignas(64) std::byte state_[576];
};

inline uint64_t checksum_of(std::span<const std::byte> bytes) noexcept {
  Checksum checksum;
  checksum.add(bytes);
  return checksum.value();
}

}  // namespace libwkv
