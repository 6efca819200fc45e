// SPDX-License-Identifier: Apache-2.0
#include "state/prefix_store.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/byte_source.h"
#include "base/byte_stream.h"
#include "base/error.h"

namespace libwkv {
namespace {

// Names that a host's list may give: one that never ends must not hang the store.
constexpr size_t names_max = size_t{1} << 22;

uint64_t state_bytes(const HyperParameters &hyper) { return StateLayout(hyper).bytes(); }

}  // namespace

struct PrefixStore::Entry {
  TokenTrie::Node *node = nullptr;
  size_t tokens_count = 0;
  bool is_in_memory = false, is_stored = false;
  Moment moment;              // in memory
  Name name{};                // stored
  uint64_t stored_bytes = 0;  // stored
  Order::iterator memory_place, stored_place;
};

PrefixStore::PrefixStore(const HyperParameters &hyper, uint64_t fingerprint, std::shared_ptr<MemoryAccount> account,
                         PrefixStoreOptions options)
    : model_(hyper, fingerprint),
      state_bytes_(state_bytes(hyper)),
      account_(std::move(account)),
      options_(std::move(options)) {
  if (!options_.directory.empty()) {
    directory_ = std::make_unique<PrefixDirectory>(options_.directory);
    storage_ = directory_->storage();
  } else {
    storage_ = options_.storage;
  }
}

std::shared_ptr<PrefixStore> PrefixStore::make(const HyperParameters &hyper, uint64_t fingerprint,
                                               std::shared_ptr<MemoryAccount> account, PrefixStoreOptions options) {
  std::shared_ptr<PrefixStore> store(new PrefixStore(hyper, fingerprint, std::move(account), std::move(options)));
  store->read_index();
  store->account_->add_reclaimer(store);
  return store;
}

PrefixStore::~PrefixStore() {
  while (!in_memory_.empty()) let_go(in_memory_.back());
  while (!stored_.empty()) mark_not_stored(stored_.back());
}

void PrefixStore::check(const Cache &cache, std::span<const int32_t> tokens) const {
  if (cache.account() != account_) fail(WKV_MISMATCH, "the cache belongs to another model than the store");
  if (cache.options().initial) fail(WKV_INVALID, "the cache starts from an initial state, entries of the store do not");
  for (int32_t token : tokens)
    if (!is_known_token(token)) fail(WKV_INVALID, "token %d is outside vocabulary %d", token, model_.vocab_size);
}

PrefixStore::Name PrefixStore::name_of(std::span<const int32_t> tokens) const {
  // of the ids as little-endian bytes, so that machines of both orders find each other's entries
  std::vector<int32_t> turned;
  if constexpr (std::endian::native != std::endian::little) {
    for (int32_t token : tokens) turned.push_back(byte_stream::little_endian(token));
    tokens = turned;
  }
  const XXH128_hash_t hash = XXH3_128bits(tokens.data(), tokens.size_bytes());
  Name name{};
  std::snprintf(name.data(), name.size(), "%016llx-%016llx%016llx", static_cast<unsigned long long>(model_.fingerprint),
                static_cast<unsigned long long>(hash.high64), static_cast<unsigned long long>(hash.low64));
  return name;
}

PrefixStore::Entry *PrefixStore::find_entry(std::span<const int32_t> tokens) const noexcept {
  return static_cast<Entry *>(entries_.find(tokens));
}

PrefixStore::Entry *PrefixStore::find_longest(std::span<const int32_t> tokens) const noexcept {
  return static_cast<Entry *>(entries_.find_longest(tokens));
}

PrefixStore::Entry *PrefixStore::add_entry(std::span<const int32_t> tokens) {
  auto entry = std::make_unique<Entry>();
  Order places{entry.get(), entry.get()};
  entry->memory_place = places.begin();
  entry->stored_place = std::next(places.begin());
  entry->tokens_count = tokens.size();
  entry->node = entries_.insert(tokens, entry.get());
  unused_.splice(unused_.begin(), places);
  return entry.release();
}

void PrefixStore::remove_unheld(Entry *entry) noexcept {
  if (entry->is_in_memory || entry->is_stored) return;
  entries_.remove(entry->node);
  unused_.erase(entry->memory_place);
  unused_.erase(entry->stored_place);
  delete entry;
}

void PrefixStore::touch(Entry *entry) noexcept {
  if (entry->is_in_memory) in_memory_.splice(in_memory_.begin(), in_memory_, entry->memory_place);
  if (entry->is_stored) stored_.splice(stored_.begin(), stored_, entry->stored_place);
}

void PrefixStore::hold(Entry *entry, Moment moment) noexcept {
  entry->moment = std::move(moment);
  entry->moment.state = entry->moment.state.as(Holder::store);
  entry->is_in_memory = true;
  in_memory_.splice(in_memory_.begin(), unused_, entry->memory_place);
  counts_.entries++;
  counts_.entries_bytes += state_bytes_;
  // the new one is the last to go, and fits
  for (; counts_.entries_bytes > options_.memory_bytes_max; counts_.evictions++) let_go(in_memory_.back());
}

void PrefixStore::let_go(Entry *entry) noexcept {
  entry->moment = {};
  entry->is_in_memory = false;
  unused_.splice(unused_.begin(), in_memory_, entry->memory_place);
  counts_.entries--;
  counts_.entries_bytes -= state_bytes_;
  remove_unheld(entry);
}

void PrefixStore::mark_stored(Entry *entry, const Name &name, uint64_t bytes) noexcept {
  entry->is_stored = true;
  entry->name = name;
  entry->stored_bytes = bytes;
  stored_.splice(stored_.begin(), unused_, entry->stored_place);
  counts_.stored_entries++;
  counts_.stored_bytes += bytes;
}

void PrefixStore::mark_not_stored(Entry *entry) noexcept {
  entry->is_stored = false;
  unused_.splice(unused_.begin(), stored_, entry->stored_place);
  counts_.stored_entries--;
  counts_.stored_bytes -= entry->stored_bytes;
  remove_unheld(entry);
}

Moment PrefixStore::use(Entry *entry) noexcept {
  touch(entry);
  counts_.hits++;
  counts_.reused_tokens += entry->tokens_count;
  return entry->moment;
}

size_t PrefixStore::find(std::span<const int32_t> tokens, Cache &cache) {
  check(cache, tokens);
  if (tokens.empty()) fail(WKV_INVALID, "tokens_count is 0");
  const std::span<const int32_t> wanted = tokens.first(tokens.size() - 1);
  Moment moment;
  {
    std::lock_guard lock(mutex_);
    counts_.finds++;
    Entry *entry = find_longest(wanted);
    if (!entry) return 0;
    if (entry->is_in_memory) moment = use(entry);
  }
  if (moment.position == 0) {
    std::lock_guard turn(storage_turn_);
    moment = find_stored(wanted);
  }
  const size_t known = static_cast<size_t>(moment.position);
  if (known > 0) cache.replace(std::move(moment));
  return known;
}

Moment PrefixStore::find_stored(std::span<const int32_t> tokens) {
  for (;;) {
    Name name;
    size_t count;
    {
      std::lock_guard lock(mutex_);
      Entry *entry = find_longest(tokens);
      if (!entry) return {};
      if (entry->is_in_memory) return use(entry);
      name = entry->name;
      count = entry->tokens_count;
    }
    Moment moment;
    const Read outcome = read(name, tokens.first(count), moment);
    if (outcome == Read::damaged) storage_.evict(storage_.user, name.data());
    std::lock_guard lock(mutex_);
    Entry *entry = find_entry(tokens.first(count));  // it is there: stored ones go in a turn of the storage alone
    if (outcome == Read::done) {
      counts_.stored_hits++;
      if (!entry->is_in_memory && state_bytes_ <= options_.memory_bytes_max) hold(entry, moment);
      use(entry);
      return moment;
    }
    if (outcome == Read::damaged) counts_.storage_failures++;
    mark_not_stored(entry);
  }
}

// Throws WKV_OUT_OF_MEMORY alone.
PrefixStore::Read PrefixStore::read(const Name &name, std::span<const int32_t> tokens, Moment &moment) {
  size_t bytes = 0, again = 0;
  if (storage_.get(storage_.user, name.data(), nullptr, 0, &bytes) != 0) return Read::missing;
  // no more than the largest blob that could be right
  if (bytes > state_bytes_ + tokens.size_bytes() + 2 * blob_header_bytes_max) return Read::damaged;
  const Buffer buffer(account_, MemoryKind::workspace, bytes, false);
  if (storage_.get(storage_.user, name.data(), buffer.data(), bytes, &again) != 0) return Read::missing;
  if (again != bytes) return Read::damaged;
  try {
    MemorySource source({buffer.data(), bytes});
    BlobContent content = read_blob(source, model_, account_, Holder::cache);
    if (!std::equal(content.tokens.begin(), content.tokens.end(), tokens.begin(), tokens.end())) return Read::damaged;
    moment = std::move(content.moment);
    return Read::done;
  } catch (const Error &error) {
    if (error.status() == WKV_OUT_OF_MEMORY) throw;
    // of a later version that uses the same directory: not ours to evict
    return error.status() == WKV_UNSUPPORTED ? Read::missing : Read::damaged;
  }
}

void PrefixStore::put(std::span<const int32_t> tokens, const Cache &cache) {
  check(cache, tokens);
  const Moment &now = cache.now();
  if (tokens.size() != now.position)
    fail(WKV_INVALID, "tokens_count is %zu, the cache's position %llu", tokens.size(),
         static_cast<unsigned long long>(now.position));
  const std::span<const int32_t> last = now.last_tokens.all();
  if (last.size() > tokens.size() ||
      !std::equal(last.begin(), last.end(), tokens.end() - static_cast<ptrdiff_t>(last.size())))
    fail(WKV_INVALID, "the last %zu tokens are not those that the cache has read", last.size());
  if (tokens.size() < options_.min_tokens) return;
  const bool fits = state_bytes_ <= options_.memory_bytes_max;
  {
    std::lock_guard lock(mutex_);
    Entry *entry = find_entry(tokens);
    if (entry) touch(entry);
    if (fits && !(entry && entry->is_in_memory)) {
      if (!entry) {
        entry = add_entry(tokens);
        counts_.puts++;
      }
      hold(entry, now);
    }
    if (!storage_.put || (entry && entry->is_stored)) return;
  }
  std::lock_guard turn(storage_turn_);
  write(tokens, now);
}

// Whatever fails here costs the stored entry alone: that in memory is there already.
void PrefixStore::write(std::span<const int32_t> tokens, const Moment &moment) {
  {
    std::lock_guard lock(mutex_);
    const Entry *entry = find_entry(tokens);
    if (entry && entry->is_stored) return;  // by another thread meanwhile
  }
  const Name name = name_of(tokens);
  bool is_kept = false;
  try {
    BlobWriter writer(model_, {.moment = moment, .state_type = options_.save_type, .tokens = tokens});
    const size_t bytes = static_cast<size_t>(writer.bytes());
    if (options_.storage_bytes_max && bytes > options_.storage_bytes_max) return;
    const Buffer buffer(account_, MemoryKind::workspace, bytes, false);
    writer.write({buffer.data(), bytes});
    make_room(bytes);
    is_kept = storage_.put(storage_.user, name.data(), buffer.data(), bytes) == 0;
    if (is_kept) {
      std::lock_guard lock(mutex_);
      Entry *entry = find_entry(tokens);
      if (!entry) {
        entry = add_entry(tokens);
        counts_.puts++;
      }
      mark_stored(entry, name, bytes);
      return;
    }
  } catch (const std::exception &) {
    if (is_kept) storage_.evict(storage_.user, name.data());
  }
  std::lock_guard lock(mutex_);
  counts_.storage_failures++;
}

void PrefixStore::make_room(uint64_t bytes) {
  if (options_.storage_bytes_max == 0) return;
  for (;;) {
    Entry *oldest;
    {
      std::lock_guard lock(mutex_);
      if (counts_.stored_bytes + bytes <= options_.storage_bytes_max || stored_.empty()) return;
      oldest = stored_.back();
    }
    evict_stored(oldest);
  }
}

void PrefixStore::evict_stored(Entry *entry) {
  Name name;
  {
    std::lock_guard lock(mutex_);
    name = entry->name;
    mark_not_stored(entry);
  }
  storage_.evict(storage_.user, name.data());
}

// What the directory or storage has from earlier: entries that are found by the tokens that stand in them.
void PrefixStore::read_index() {
  if (!storage_.list) return;
  const std::string ours = std::string(name_of({}).data()).substr(0, 17);  // the model's digits and the dash
  for (size_t index = 0; index < names_max; index++) {
    Name name{};
    if (storage_.list(storage_.user, index, name.data(), name.size()) != 0) break;
    name.back() = 0;
    // what other models or other programs keep there is theirs
    if (!is_prefix_name(name.data()) || !std::string_view(name.data()).starts_with(ours)) continue;
    if (read_index_entry(name)) continue;
    storage_.evict(storage_.user, name.data());
    counts_.storage_failures++;
  }
  make_room(0);
}

bool PrefixStore::read_index_entry(const Name &name) {
  std::vector<std::byte> beginning(blob_header_bytes_max);
  size_t bytes = 0;
  if (storage_.get(storage_.user, name.data(), beginning.data(), beginning.size(), &bytes) != 0) return true;
  try {
    beginning.resize(std::min(beginning.size(), bytes));
    const BlobHeader header = read_blob_header(beginning, "entry");
    header.expect_model(model_, "entry");
    const BlobHeader::Section *section = header.find(BlobSection::tokens);
    if (header.bytes != bytes || !section || section->offset > bytes || section->bytes > bytes - section->offset)
      return false;
    const size_t end = static_cast<size_t>(section->offset + section->bytes);
    if (end > beginning.size()) {
      beginning.resize(end);
      size_t again = 0;
      if (storage_.get(storage_.user, name.data(), beginning.data(), end, &again) != 0) return true;
      if (again != bytes) return false;
    }
    MemorySource source(beginning);
    const std::vector<int32_t> tokens = read_blob_tokens(source, header);
    if (tokens.empty() || tokens.size() != header.position || name != name_of(tokens)) return false;
    if (!std::all_of(tokens.begin(), tokens.end(), [&](int32_t token) { return is_known_token(token); })) return false;
    if (!find_entry(tokens)) mark_stored(add_entry(tokens), name, bytes);
    return true;
  } catch (const Error &error) {
    if (error.status() == WKV_OUT_OF_MEMORY) throw;
    return error.status() == WKV_UNSUPPORTED;  // of a later version: left alone
  }
}

void PrefixStore::clear() {
  std::lock_guard turn(storage_turn_);
  {
    std::lock_guard lock(mutex_);
    while (!in_memory_.empty()) let_go(in_memory_.back());
  }
  for (;;) {
    Entry *entry;
    {
      std::lock_guard lock(mutex_);
      if (stored_.empty()) return;
      entry = stored_.back();
    }
    evict_stored(entry);
  }
}

wkv_prefix_store_info PrefixStore::info() const {
  std::lock_guard lock(mutex_);
  return counts_;
}

// First a state that nobody else holds, as the others free nothing yet; those go too, since a cache that holds its
// state alone can step in place.
bool PrefixStore::give_up_one() noexcept {
  std::lock_guard lock(mutex_);
  if (in_memory_.empty()) return false;
  auto alone = std::find_if(in_memory_.rbegin(), in_memory_.rend(),
                            [](const Entry *entry) { return entry->moment.state.is_only(); });
  let_go(alone != in_memory_.rend() ? *alone : in_memory_.back());
  counts_.evictions++;
  return true;
}

}  // namespace libwkv
