// SPDX-License-Identifier: Apache-2.0
// States of sequences that were read before, found by their token ids: in memory, and behind it in a directory or in
// whatever the host has.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include <wkv/prefix_store.h>

#include "base/memory.h"
#include "state/blob.h"
#include "state/cache.h"
#include "state/prefix_directory.h"
#include "state/token_trie.h"

namespace libwkv {

// wkv_prefix_store_options with defaults filled in.
struct PrefixStoreOptions {
  size_t min_tokens = 16;
  uint64_t memory_bytes_max = uint64_t{256} << 20;
  std::string directory{};         // empty: none
  wkv_prefix_storage storage{};    // put is NULL: none
  uint64_t storage_bytes_max = 0;  // 0: no limit
  wkv_type save_type = WKV_TYPE_F32;
};

// Thread-safe. Two locks: mutex_ guards what the store knows and is held for no longer than a look at it; storage_turn_
// is held through calls of the storage, and taken first where both are. Memory of the account is only asked for without
// mutex_, so that giving up entries, which such a request may lead to, never waits for itself.
class PrefixStore final : public Reclaimer {
 public:
  // account belongs to the model: its identity tells whose a cache is, and it asks this store to give entries up.
  static std::shared_ptr<PrefixStore> make(const HyperParameters &hyper, uint64_t fingerprint,
                                           std::shared_ptr<MemoryAccount> account, PrefixStoreOptions options);
  ~PrefixStore();

  // These expect the caller to hold cache.busy(). What throws has changed neither cache nor entries.
  // The tokens that cache has read now: the longest beginning of tokens, not all of them, that the store has; 0: none.
  size_t find(std::span<const int32_t> tokens, Cache &cache);
  void put(std::span<const int32_t> tokens, const Cache &cache);

  void clear();
  wkv_prefix_store_info info() const;
  const std::shared_ptr<MemoryAccount> &account() const { return account_; }

  bool give_up_one() noexcept override;

 private:
  struct Entry;
  using Order = std::list<Entry *>;  // most recently used first
  using Name = std::array<char, WKV_PREFIX_NAME_BYTES>;

  PrefixStore(const HyperParameters &hyper, uint64_t fingerprint, std::shared_ptr<MemoryAccount> account,
              PrefixStoreOptions options);
  void check(const Cache &cache, std::span<const int32_t> tokens) const;
  bool is_known_token(int32_t token) const { return token >= 0 && token < model_.vocab_size; }
  Name name_of(std::span<const int32_t> tokens) const;

  // With mutex_.
  Entry *find_entry(std::span<const int32_t> tokens) const noexcept;
  Entry *find_longest(std::span<const int32_t> tokens) const noexcept;
  Entry *add_entry(std::span<const int32_t> tokens);  // in neither memory nor storage yet
  void remove_unheld(Entry *entry) noexcept;          // unless it is in memory or storage
  void touch(Entry *entry) noexcept;
  void hold(Entry *entry, Moment moment) noexcept;
  void let_go(Entry *entry) noexcept;  // of memory; the entry may be gone then
  void mark_stored(Entry *entry, const Name &name, uint64_t bytes) noexcept;
  void mark_not_stored(Entry *entry) noexcept;  // the entry may be gone then
  Moment use(Entry *entry) noexcept;            // of one in memory: a hit

  // With storage_turn_, without mutex_.
  Moment find_stored(std::span<const int32_t> tokens);
  enum class Read { done, missing, damaged };
  Read read(const Name &name, std::span<const int32_t> tokens, Moment &moment);
  void write(std::span<const int32_t> tokens, const Moment &moment);
  void make_room(uint64_t bytes);
  void evict_stored(Entry *entry);
  void read_index();
  bool read_index_entry(const Name &name);  // false: damaged

  const ModelIdentity model_;
  const uint64_t state_bytes_;
  const std::shared_ptr<MemoryAccount> account_;
  const PrefixStoreOptions options_;
  std::unique_ptr<PrefixDirectory> directory_;
  wkv_prefix_storage storage_{};

  std::mutex storage_turn_;
  mutable std::mutex mutex_;
  TokenTrie entries_;
  Order in_memory_, stored_;
  Order unused_;  // places of entries that are not in one of the two: moving there and back needs no memory
  wkv_prefix_store_info counts_{};
};

}  // namespace libwkv
