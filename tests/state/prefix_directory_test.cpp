// SPDX-License-Identifier: Apache-2.0
// The prefix store's slow place: entries that survive the process, in a directory that anybody may have touched, or
// behind the host's own functions.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "formats/file_writer.h"
#include "state/prefix_directory.h"
#include "support/models.h"
#include "support/prefix_stores.h"
#include "support/temporary_directory.h"

namespace libwkv::test {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_in(const fs::path &folder) {
  std::vector<fs::path> files;
  for (const auto &entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

void write_file(const fs::path &path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

void set_age(const fs::path &path, std::chrono::seconds age) {
  fs::last_write_time(path, fs::file_time_type::clock::now() - age);
}

std::vector<int32_t> sequence(uint64_t seed, size_t length = 20) {
  return random_tokens(length, Sequences::vocab_size, seed);
}

std::vector<int32_t> longer(std::vector<int32_t> tokens) {
  tokens.push_back(0);
  return tokens;
}

// Stores in one directory, one after the other.
class PrefixDirectories : public testing::Test {
 protected:
  PrefixStoreOptions options() const {
    PrefixStoreOptions options;
    options.min_tokens = 1;
    options.directory = directory.path() / "store";
    return options;
  }
  std::shared_ptr<libwkv::PrefixStore> open() const { return sequences.store(options()); }
  fs::path folder() const { return directory.path() / "store"; }

  TemporaryDirectory directory;
  Sequences sequences;
};

TEST_F(PrefixDirectories, give_back_after_a_restart_what_was_put) {
  // longer than what is read of a header at first
  const std::vector<int32_t> history = sequence(1, 5000);
  {
    auto store = open();
    for (size_t length : {20, 3000, 4000}) sequences.put(*store, std::span(history).first(length));
    sequences.put(*store, sequence(2));
    EXPECT_EQ(store->info().stored_entries, 4u);
    EXPECT_EQ(store->info().storage_failures, 0u);
  }
  EXPECT_EQ(files_in(folder()).size(), 4u);
  auto store = open();
  EXPECT_EQ(store->info().entries, 0u);
  EXPECT_EQ(store->info().stored_entries, 4u);
  EXPECT_EQ(sequences.find(*store, history), 4000u);
  EXPECT_EQ(sequences.find(*store, std::span(history).first(4000)), 3000u);
  EXPECT_EQ(sequences.find(*store, longer(sequence(2))), 20u);
  EXPECT_EQ(sequences.find(*store, history), 4000u) << "from memory now";
  const wkv_prefix_store_info info = store->info();
  EXPECT_EQ(info.entries, 3u);
  EXPECT_EQ(info.hits, 4u);
  EXPECT_EQ(info.stored_hits, 3u);
  EXPECT_EQ(info.puts + info.storage_failures, 0u);
  uint64_t bytes = 0;
  for (const fs::path &file : files_in(folder())) bytes += fs::file_size(file);
  EXPECT_EQ(info.stored_bytes, bytes);
}

TEST_F(PrefixDirectories, keep_what_memory_gives_up) {
  PrefixStoreOptions options = this->options();
  options.memory_bytes_max = 2 * sequences.state_bytes();
  auto store = sequences.store(options);
  for (uint64_t i = 0; i < 10; i++) sequences.put(*store, sequence(i));
  EXPECT_EQ(store->info().entries, 2u);
  EXPECT_EQ(store->info().stored_entries, 10u);
  for (uint64_t i = 0; i < 10; i++) EXPECT_EQ(sequences.find(*store, longer(sequence(i))), 20u);
  EXPECT_EQ(store->info().entries, 2u);
}

TEST_F(PrefixDirectories, serve_a_store_without_memory) {
  PrefixStoreOptions options = this->options();
  options.memory_bytes_max = 1;
  auto store = sequences.store(options);
  sequences.put(*store, sequence(1));
  sequences.put(*store, sequence(1));
  EXPECT_EQ(store->info().puts, 1u);
  EXPECT_EQ(store->info().entries, 0u);
  EXPECT_EQ(store->info().stored_entries, 1u);
  for (int i = 0; i < 3; i++) EXPECT_EQ(sequences.find(*store, longer(sequence(1))), 20u);
  EXPECT_EQ(store->info().stored_hits, 3u);
}

TEST_F(PrefixDirectories, write_an_entry_once) {
  auto store = open();
  sequences.put(*store, sequence(1));
  const fs::path file = files_in(folder()).at(0);
  set_age(file, std::chrono::hours(1));
  const auto time = fs::last_write_time(file);
  for (int i = 0; i < 3; i++) sequences.put(*store, sequence(1));
  EXPECT_EQ(fs::last_write_time(file), time);
}

TEST_F(PrefixDirectories, are_forgotten_by_clear_but_for_the_files_of_others) {
  auto store = open();
  auto other = sequences.store(options(), 0x9999);
  for (uint64_t i = 0; i < 5; i++) sequences.put(*store, sequence(i));
  sequences.put(*other, sequence(1));
  write_file(folder() / "README.txt", {});
  EXPECT_EQ(files_in(folder()).size(), 7u);
  store->clear();
  EXPECT_EQ(files_in(folder()).size(), 2u);
  const wkv_prefix_store_info info = store->info();
  EXPECT_EQ(info.entries + info.entries_bytes + info.stored_entries + info.stored_bytes, 0u);
  EXPECT_EQ(sequences.find(*store, longer(sequence(1))), 0u);
  EXPECT_EQ(sequences.find(*other, longer(sequence(1))), 20u);
}

TEST_F(PrefixDirectories, are_shared_by_models) {
  {
    auto store = open();
    auto other = sequences.store(options(), 0x9999);
    sequences.put(*store, sequence(1));
    sequences.put(*other, sequence(1));
    sequences.put(*other, sequence(2));
  }
  auto store = open();
  auto other = sequences.store(options(), 0x9999);
  EXPECT_EQ(store->info().stored_entries, 1u);
  EXPECT_EQ(other->info().stored_entries, 2u);
  EXPECT_EQ(sequences.find(*store, longer(sequence(2))), 0u);
  EXPECT_EQ(sequences.find(*other, longer(sequence(2))), 20u);
  EXPECT_EQ(store->info().storage_failures + other->info().storage_failures, 0u);
}

TEST_F(PrefixDirectories, keep_within_their_budget_and_lose_the_oldest) {
  uint64_t blob;
  {
    auto store = open();
    for (uint64_t i = 0; i < 6; i++) sequences.put(*store, sequence(i));
    blob = store->info().stored_bytes / 6;
    store->clear();
  }
  PrefixStoreOptions options = this->options();
  options.storage_bytes_max = 4 * blob + blob / 2;
  options.memory_bytes_max = 1;
  {
    auto store = sequences.store(options);
    for (uint64_t i = 0; i < 4; i++) sequences.put(*store, sequence(i));
    EXPECT_EQ(sequences.find(*store, longer(sequence(0))), 20u);  // used now: 1 is the oldest
    sequences.put(*store, sequence(4));
    EXPECT_EQ(store->info().stored_entries, 4u);
    EXPECT_LE(store->info().stored_bytes, options.storage_bytes_max);
    EXPECT_EQ(files_in(folder()).size(), 4u);
    EXPECT_EQ(sequences.find(*store, longer(sequence(1))), 0u);
    for (uint64_t i : {0, 2, 3, 4}) EXPECT_EQ(sequences.find(*store, longer(sequence(i))), 20u);
    store->clear();
    for (uint64_t i = 0; i < 4; i++) {
      sequences.put(*store, sequence(i));
      for (const fs::path &file : files_in(folder())) {  // the one just written is the newest
        if (fs::last_write_time(file) > fs::file_time_type::clock::now() - std::chrono::minutes(1))
          set_age(file, std::chrono::hours(i == 2 ? 9 : 5 - i));
      }
    }
  }
  // after a restart files tell their order: 2, 0, 1, 3
  options.storage_bytes_max = 2 * blob + blob / 2;
  auto store = sequences.store(options);
  EXPECT_EQ(store->info().stored_entries, 2u);
  EXPECT_EQ(files_in(folder()).size(), 2u);
  EXPECT_EQ(sequences.find(*store, longer(sequence(2))), 0u);
  EXPECT_EQ(sequences.find(*store, longer(sequence(0))), 0u);
  EXPECT_EQ(sequences.find(*store, longer(sequence(1))), 20u);
  // a budget that holds no blob at all
  options.storage_bytes_max = 10;
  auto none = sequences.store(options);
  EXPECT_EQ(none->info().stored_entries, 0u);
  sequences.put(*none, sequence(1));
  EXPECT_EQ(none->info().stored_entries, 0u);
  EXPECT_EQ(none->info().storage_failures, 0u);
}

// A hit makes a file young, so that the order survives.
TEST_F(PrefixDirectories, remember_when_an_entry_was_used) {
  sequences.hyper.layers = 16;  // entries larger than what is read of each at the start
  { sequences.put(*open(), sequence(1)); }
  const fs::path file = files_in(folder()).at(0);
  set_age(file, std::chrono::hours(10));
  auto store = open();
  EXPECT_LT(fs::last_write_time(file), fs::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_EQ(sequences.find(*store, longer(sequence(1))), 20u);
  EXPECT_GT(fs::last_write_time(file), fs::file_time_type::clock::now() - std::chrono::hours(1));
}

// Whatever is done to a file before the store is made: it is found whole, or evicted and counted; never a wrong state.
TEST_F(PrefixDirectories, survive_damaged_files) {
  const std::vector<int32_t> tokens = sequence(1, 30);
  {
    auto store = open();
    sequences.put(*store, std::span(tokens).first(10));
    sequences.put(*store, std::span(tokens).first(20));
  }
  std::map<fs::path, std::vector<std::byte>> contents;
  for (const fs::path &file : files_in(folder())) contents[file] = read_file(file);
  auto check = [&](const std::string &what) {
    auto store = open();
    const size_t known = sequences.find(*store, tokens);  // checks the state as well
    const wkv_prefix_store_info info = store->info();
    EXPECT_EQ(info.storage_failures, 1u) << what;
    EXPECT_EQ(info.stored_entries, 1u) << what;
    EXPECT_TRUE(known == 10 || known == 20) << what;
    EXPECT_EQ(files_in(folder()).size(), 1u) << what << ": the damaged file is still there";
  };
  for (const auto &[file, bytes] : contents) {
    const bool is_long = bytes.size() > contents.begin()->second.size() ||
                         std::any_of(contents.begin(), contents.end(),
                                     [&](const auto &other) { return other.second.size() < bytes.size(); });
    auto restore = [&] {
      for (const auto &[path, content] : contents) write_file(path, content);
    };
    for (size_t length = 0; length < bytes.size(); length += length < 300 ? 7 : 97) {
      restore();
      write_file(file, std::span(bytes).first(length));
      check("cut at " + std::to_string(length));
    }
    restore();
    std::vector<std::byte> more = bytes;
    more.push_back(std::byte{0});
    write_file(file, more);
    check("a byte more");
    // damage in the state of the shorter entry is not met while the longer one is found
    const size_t end = is_long ? bytes.size() : 200;
    for (size_t at = 0; at < end; at += at < 300 ? 1 : 41) {
      restore();
      std::vector<std::byte> flipped = bytes;
      flipped[at] ^= std::byte{0x10};
      write_file(file, flipped);
      auto store = open();
      const size_t known = sequences.find(*store, tokens);
      EXPECT_TRUE(known == 10 || known == 20) << "flipped " << at;
      // a later version's blob is refused and left alone: then nothing is counted
      EXPECT_LE(store->info().storage_failures, 1u) << "flipped " << at;
      if (HasFailure()) return;
    }
  }
}

TEST_F(PrefixDirectories, survive_damage_while_a_store_uses_them) {
  const std::vector<int32_t> tokens = sequence(1, 30);
  PrefixStoreOptions options = this->options();
  options.memory_bytes_max = 1;
  auto store = sequences.store(options);
  sequences.put(*store, std::span(tokens).first(10));
  const fs::path short_file = files_in(folder()).at(0);
  sequences.put(*store, std::span(tokens).first(20));
  fs::path long_file;
  for (const fs::path &file : files_in(folder()))
    if (file != short_file) long_file = file;
  std::vector<std::byte> bytes = read_file(long_file);
  bytes[bytes.size() - 5] ^= std::byte{1};
  write_file(long_file, bytes);
  EXPECT_EQ(sequences.find(*store, tokens), 10u) << "the next shorter one";
  EXPECT_EQ(store->info().storage_failures, 1u);
  EXPECT_FALSE(fs::exists(long_file));
  // gone: another process may have evicted it
  fs::remove(short_file);
  EXPECT_EQ(sequences.find(*store, tokens), 0u);
  EXPECT_EQ(store->info().stored_entries, 0u);
  EXPECT_EQ(store->info().stored_bytes, 0u);
  EXPECT_EQ(store->info().storage_failures, 1u);
  // and back again
  sequences.put(*store, std::span(tokens).first(20));
  EXPECT_EQ(sequences.find(*store, tokens), 20u);
}

TEST_F(PrefixDirectories, leave_foreign_files_alone) {
  { sequences.put(*open(), sequence(1)); }
  const fs::path entry = files_in(folder()).at(0);
  const std::string name = entry.filename();
  std::vector<fs::path> foreign = {folder() / "notes.txt",        folder() / (name + ".bak"),
                                   folder() / name.substr(0, 49), folder() / ("A" + name.substr(1)),
                                   folder() / (name + ".tmp-x"),  folder() / std::string(200, 'f')};
  for (const fs::path &file : foreign) write_file(file, read_file(entry));
  // things that are no regular files under names of entries
  auto other_name = [&](char digit) { return folder() / (name.substr(0, 40) + std::string(9, digit) + ".wkv"); };
  fs::create_directory(other_name('0'));
  fs::create_symlink(entry, other_name('1'));
  fs::create_symlink("/nowhere", other_name('2'));
  ASSERT_EQ(mkfifo(other_name('3').c_str(), 0600), 0);
  for (char digit : {'0', '1', '2', '3'}) foreign.push_back(other_name(digit));
  auto store = open();
  EXPECT_EQ(store->info().stored_entries, 1u);
  EXPECT_EQ(store->info().storage_failures, 0u);
  EXPECT_EQ(sequences.find(*store, longer(sequence(1))), 20u);
  store->clear();
  for (const fs::path &file : foreign) EXPECT_TRUE(fs::exists(fs::symlink_status(file))) << file;
  EXPECT_EQ(files_in(folder()).size(), foreign.size());
}

TEST_F(PrefixDirectories, do_not_believe_names) {
  {
    auto store = open();
    sequences.put(*store, sequence(1));
    sequences.put(*store, sequence(2));
  }
  // each under the other's name: neither may be found for the other's tokens
  const std::vector<fs::path> files = files_in(folder());
  const std::vector<std::byte> first = read_file(files[0]), second = read_file(files[1]);
  write_file(files[0], second);
  write_file(files[1], first);
  {
    auto store = open();
    EXPECT_EQ(store->info().stored_entries, 0u);
    EXPECT_EQ(store->info().storage_failures, 2u);
    EXPECT_TRUE(files_in(folder()).empty());
  }
  // another model's blob under a name of this model
  {
    auto other = sequences.store(options(), 0x9999);
    sequences.put(*other, sequence(1));
    const fs::path file = files_in(folder()).at(0);
    fs::rename(file, folder() / ("0000000000001234" + file.filename().string().substr(16)));
  }
  auto store = open();
  EXPECT_EQ(store->info().storage_failures, 1u);
  EXPECT_EQ(store->info().stored_entries, 0u);
}

TEST_F(PrefixDirectories, of_other_sizes_are_refused) {
  { sequences.put(*open(), sequence(1)); }
  Sequences wider;
  wider.hyper.layers = 3;
  auto store = wider.store(options());  // the same fingerprint, by accident
  EXPECT_EQ(store->info().storage_failures, 1u);
  EXPECT_EQ(wider.find(*store, longer(sequence(1))), 0u);
}

TEST_F(PrefixDirectories, that_cannot_be_opened_are_refused) {
  auto status_of = [&](const std::string &path) -> wkv_status {
    try {
      PrefixDirectory made(path);
      return WKV_OK;
    } catch (const Error &error) {
      return error.status();
    }
  };
  write_file(directory.path() / "file", {});
  EXPECT_EQ(status_of(directory.path() / "file"), WKV_IO);
  EXPECT_EQ(status_of(directory.path() / "file/below"), WKV_IO);
  EXPECT_EQ(status_of("/proc/1/no/such"), WKV_IO);
  EXPECT_EQ(status_of(directory.path() / "made/below"), WKV_OK);
  EXPECT_TRUE(fs::is_directory(directory.path() / "made/below"));
}

// Permissions do not bind the superuser: a file where the directory was refuses everybody.
TEST_F(PrefixDirectories, that_cannot_be_written_leave_a_store_in_memory) {
  auto store = open();
  fs::remove_all(folder());
  write_file(folder(), {});
  for (uint64_t i = 0; i < 3; i++) sequences.put(*store, sequence(i));
  EXPECT_EQ(store->info().storage_failures, 3u);
  EXPECT_EQ(store->info().stored_entries, 0u);
  EXPECT_EQ(store->info().entries, 3u);
  for (uint64_t i = 0; i < 3; i++) EXPECT_EQ(sequences.find(*store, longer(sequence(i))), 20u);
  store->clear();
}

// In a process of its own, as the bound on file sizes is the process's.
TEST_F(PrefixDirectories, that_are_full_leave_a_store_in_memory) {
  auto fill = [&]() -> int {
    std::signal(SIGXFSZ, SIG_IGN);
    auto store = open();
    sequences.put(*store, sequence(1));
    const rlimit small = {1000, 1000};
    if (setrlimit(RLIMIT_FSIZE, &small) != 0) return 2;
    sequences.put(*store, sequence(2));
    const wkv_prefix_store_info info = store->info();
    if (info.storage_failures != 1 || info.stored_entries != 1 || info.entries != 2) return 3;
    if (sequences.find(*store, longer(sequence(2))) != 20) return 4;
    return files_in(folder()).size() == 1 ? 0 : 5;  // no half file, no temporary
  };
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(fill());
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "exit " << WEXITSTATUS(status);
  EXPECT_EQ(open()->info().stored_entries, 1u);
}

TEST_F(PrefixDirectories, are_cleaned_of_what_killed_writers_left) {
  { sequences.put(*open(), sequence(1)); }
  const fs::path entry = files_in(folder()).at(0);
  // a process that is gone
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  auto leftover = [&](const std::string &suffix, int hours) {
    const fs::path path = entry.string() + suffix;
    write_file(path, {});
    set_age(path, std::chrono::hours(hours));
    return path;
  };
  const std::string gone = ".tmp-" + std::to_string(child) + "-", alive = ".tmp-" + std::to_string(getpid()) + "-";
  const fs::path old = leftover(gone + "1", 5), young = leftover(gone + "2", 0), mine = leftover(alive + "1", 5),
                 foreign = leftover(".tmp-abc-1", 5);
  auto store = open();
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(young));
  EXPECT_TRUE(fs::exists(mine));
  EXPECT_TRUE(fs::exists(foreign));
  EXPECT_TRUE(fs::exists(entry));
}

// Killed at any moment while it puts: what is there afterwards is whole.
TEST_F(PrefixDirectories, survive_a_killed_writer) {
  for (int round = 0; round < 8; round++) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto store = open();
      for (uint64_t i = 0;; i++) sequences.put(*store, sequence(static_cast<uint64_t>(round) * 1000 + i % 1000));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5 + 7 * round));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    auto store = open();
    EXPECT_EQ(store->info().storage_failures, 0u);
    for (uint64_t i = 0; i < 1000; i++)  // what is found is checked
      sequences.find(*store, longer(sequence(static_cast<uint64_t>(round) * 1000 + i)));
    EXPECT_EQ(store->info().storage_failures, 0u);
    store->clear();
  }
}

TEST_F(PrefixDirectories, keep_states_in_half_the_bytes_when_asked) {
  RandomModel random(odd_shape, WKV_TYPE_F32, default_options());
  const std::string path = folder();
  const std::vector<int32_t> tokens = random_tokens(40, random.info.vocab_size, 1);
  Cache cache = create_cache(random.model), found = create_cache(random.model);
  step(random.info, random.model, cache, std::span(tokens).first(30));
  wkv_prefix_store_options options{};
  options.directory = path.c_str();
  options.save_type = WKV_TYPE_F16;
  {
    PrefixStore store = create_store(random.model, options);
    put(store, std::span(tokens).first(30), cache);
    EXPECT_EQ(info_of(store).stored_entries, 1u);
    EXPECT_LT(info_of(store).stored_bytes, random.info.state_bytes / 2 + 4096);
  }
  PrefixStore store = create_store(random.model, options);
  ASSERT_EQ(find(store, tokens, found), 30u);
  const Snapshot exact = snapshot_of(random.info, cache), half = snapshot_of(random.info, found);
  for (size_t part = 0; part < 3; part++)
    EXPECT_LE(largest_difference(half.parts[part], exact.parts[part]), 0x1p-10 * largest_magnitude(exact.parts[part]));
}

TEST_F(PrefixDirectories, give_back_the_computed_state_to_the_bit) {
  RandomModel random(odd_shape, WKV_TYPE_F32, default_options());
  const std::string path = folder();
  const std::vector<int32_t> tokens = random_tokens(40, random.info.vocab_size, 1);
  Cache cache = create_cache(random.model), found = create_cache(random.model);
  step(random.info, random.model, cache, std::span(tokens).first(30));
  wkv_prefix_store_options options{};
  options.directory = path.c_str();
  {
    PrefixStore store = create_store(random.model, options);
    put(store, std::span(tokens).first(30), cache);
  }
  PrefixStore store = create_store(random.model, options);
  ASSERT_EQ(find(store, tokens, found), 30u);
  EXPECT_TRUE(snapshot_of(random.info, found) == snapshot_of(random.info, cache));
  EXPECT_EQ(info_of(store).stored_hits, 1u);
  const wkv_cache_info there = info_of(found), computed = info_of(cache);
  EXPECT_EQ(there.last_tokens_count, computed.last_tokens_count);
  EXPECT_TRUE(std::equal(std::begin(there.last_tokens), std::end(there.last_tokens), computed.last_tokens));
}

// A host's storage: a map, which can be told to fail.
struct HostStorage {
  std::map<std::string, std::vector<std::byte>> entries;
  std::vector<std::string> foreign_names;  // listed first
  bool refuses_put = false, refuses_get = false;
  int puts = 0, gets = 0, evictions = 0;
  std::atomic<int> inside{0};
  bool met = false;  // two calls at once

  wkv_prefix_storage functions() {
    wkv_prefix_storage storage{};
    storage.struct_size = sizeof storage;
    storage.user = this;
    storage.put = [](void *user, const char *name, const void *bytes, size_t count) -> int32_t {
      Turn self(user);
      self->puts++;
      if (self->refuses_put) return 5;
      const std::byte *begin = static_cast<const std::byte *>(bytes);
      self->entries[name].assign(begin, begin + count);
      return 0;
    };
    storage.get = [](void *user, const char *name, void *bytes, size_t capacity, size_t *count) -> int32_t {
      Turn self(user);
      self->gets++;
      auto found = self->entries.find(name);
      if (self->refuses_get || found == self->entries.end()) return -1;
      *count = found->second.size();
      std::copy_n(found->second.begin(), std::min(capacity, *count), static_cast<std::byte *>(bytes));
      return 0;
    };
    storage.evict = [](void *user, const char *name) {
      Turn self(user);
      self->evictions++;
      self->entries.erase(name);
    };
    storage.list = [](void *user, size_t index, char *name, size_t capacity) -> int32_t {
      Turn self(user);
      if (index < self->foreign_names.size()) {
        std::memset(name, 'x', capacity);  // without an end
        self->foreign_names[index].copy(name, capacity);
        return 0;
      }
      index -= self->foreign_names.size();
      if (index >= self->entries.size()) return 1;
      auto place = self->entries.begin();
      std::advance(place, static_cast<ptrdiff_t>(index));
      std::memcpy(name, place->first.c_str(), place->first.size() + 1);
      return 0;
    };
    return storage;
  }

 private:
  struct Turn {
    explicit Turn(void *user) : self(static_cast<HostStorage *>(user)) {
      if (self->inside++ > 0) self->met = true;
    }
    ~Turn() { self->inside--; }
    HostStorage *operator->() const { return self; }
    HostStorage *self;
  };
};

TEST(PrefixStorage, of_the_host_is_used_like_a_directory) {
  HostStorage host;
  Sequences sequences;
  PrefixStoreOptions options;
  options.min_tokens = 1;
  options.storage = host.functions();
  {
    auto store = sequences.store(options);
    for (uint64_t i = 0; i < 3; i++) sequences.put(*store, sequence(i));
    for (uint64_t i = 0; i < 3; i++) sequences.put(*store, sequence(i));
    EXPECT_EQ(host.puts, 3);
  }
  ASSERT_EQ(host.entries.size(), 3u);
  for (const auto &[name, bytes] : host.entries) {
    EXPECT_LT(name.size(), size_t{WKV_PREFIX_NAME_BYTES});
    EXPECT_EQ(name.find_first_not_of("0123456789abcdef-"), std::string::npos) << name;
  }
  host.foreign_names = {"", "readme", "/etc/passwd", std::string(100, 'f'), "0000000000001234-"};
  auto store = sequences.store(options);
  EXPECT_EQ(store->info().stored_entries, 3u);
  for (uint64_t i = 0; i < 3; i++) EXPECT_EQ(sequences.find(*store, longer(sequence(i))), 20u);
  store->clear();
  EXPECT_TRUE(host.entries.empty());
  EXPECT_EQ(host.evictions, 3);
  EXPECT_EQ(store->info().storage_failures, 0u);
}

TEST(PrefixStorage, that_fails_leaves_a_store_in_memory) {
  HostStorage host;
  Sequences sequences;
  PrefixStoreOptions options;
  options.min_tokens = 1;
  options.storage = host.functions();
  options.memory_bytes_max = 2 * sequences.state_bytes();
  auto store = sequences.store(options);
  host.refuses_put = true;
  sequences.put(*store, sequence(1));
  EXPECT_EQ(store->info().storage_failures, 1u);
  EXPECT_EQ(store->info().stored_entries, 0u);
  EXPECT_EQ(sequences.find(*store, longer(sequence(1))), 20u);
  host.refuses_put = false;
  for (uint64_t i = 2; i < 6; i++) sequences.put(*store, sequence(i));
  EXPECT_EQ(store->info().stored_entries, 4u);
  host.refuses_get = true;
  EXPECT_EQ(sequences.find(*store, longer(sequence(2))), 0u) << "in the storage alone, which has nothing";
  EXPECT_EQ(sequences.find(*store, longer(sequence(5))), 20u) << "in memory";
}

// What a host gives back is not believed either.
TEST(PrefixStorage, that_lies_is_harmless) {
  Sequences sequences;
  const std::vector<int32_t> tokens = sequence(1, 30);
  for (int lie = 0; lie < 5; lie++) {
    HostStorage host;
    PrefixStoreOptions options;
    options.min_tokens = 1;
    options.storage = host.functions();
    options.memory_bytes_max = 1;
    if (lie == 0)
      options.storage.get = [](void *, const char *, void *, size_t, size_t *count) -> int32_t {
        *count = SIZE_MAX;
        return 0;
      };
    if (lie == 1)
      options.storage.get = [](void *, const char *, void *, size_t, size_t *count) -> int32_t {
        *count = 0;
        return 0;
      };
    if (lie == 2) options.storage.get = [](void *, const char *, void *, size_t, size_t *) -> int32_t { return 0; };
    if (lie == 3)
      options.storage.get = [](void *, const char *, void *bytes, size_t capacity, size_t *count) -> int32_t {
        if (capacity) std::memset(bytes, 0xee, capacity);
        *count = 3000;
        return 0;
      };
    if (lie == 4) options.storage.list = nullptr;
    auto store = sequences.store(options);
    sequences.put(*store, std::span(tokens).first(20));
    EXPECT_EQ(sequences.find(*store, tokens), lie == 4 ? 20u : 0u) << lie;
    if (lie == 4) continue;
    // and at the start
    for (const auto &[name, bytes] : host.entries) FAIL() << "a damaged entry is still there: " << name;
    host.entries["0000000000001234-00112233445566778899aabbccddeeff"] = {};
    auto again = sequences.store(options);
    EXPECT_EQ(again->info().stored_entries, 0u);
  }
}

TEST(PrefixStorage, is_called_by_one_thread_at_a_time) {
  HostStorage host;
  Sequences sequences;
  PrefixStoreOptions options;
  options.min_tokens = 1;
  options.storage = host.functions();
  options.memory_bytes_max = 2 * sequences.state_bytes();
  auto store = sequences.store(options);
  {
    std::vector<std::jthread> running;
    for (uint64_t t = 0; t < 4; t++)
      running.emplace_back([&, t] {
        for (uint64_t i = 0; i < 50; i++) {
          sequences.put(*store, sequence((t + i) % 9));
          sequences.find(*store, longer(sequence((3 * t + i) % 9)));
        }
      });
  }
  EXPECT_FALSE(host.met);
  EXPECT_EQ(store->info().storage_failures, 0u);
}

TEST(ConcurrentPrefixStore, shares_a_directory_among_stores_and_threads) {
  TemporaryDirectory directory;
  Sequences probe, sequences(60 * probe.state_bytes());
  PrefixStoreOptions options;
  options.min_tokens = 1;
  options.directory = directory.path();
  options.memory_bytes_max = 4 * sequences.state_bytes();
  options.storage_bytes_max = 20 * sequences.state_bytes();
  std::vector<std::shared_ptr<libwkv::PrefixStore>> stores = {sequences.store(options), sequences.store(options)};
  std::atomic<int> hits{0}, wrong{0};
  {
    std::vector<std::jthread> running;
    for (uint64_t t = 0; t < 8; t++)
      running.emplace_back([&, t] {
        libwkv::PrefixStore &store = *stores[t % 2];
        for (uint64_t i = 0; i < 40; i++) {
          const std::vector<int32_t> tokens = sequence((t + i) % 5, 4 + (i * 7 + t) % 20);
          auto cache = sequences.cache_of({});
          const size_t known = store.find(tokens, *cache);
          if (known > 0) hits++;
          if (known > 0 && !sequences.is_state_of(*cache, std::span(tokens).first(known))) wrong++;
          sequences.put(store, tokens);
          if (i == 20 && t < 2) store.clear();
        }
      });
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(hits, 0);
  for (const auto &store : stores) EXPECT_EQ(store->info().storage_failures, 0u);
}

}  // namespace
}  // namespace libwkv::test
