// SPDX-License-Identifier: Apache-2.0
// No memory for a prefix store: what fails leaves cache and entries as they were, and all goes on.
#include <filesystem>

#include "faults/fail_each.h"
#include "support/temporary_directory.h"

namespace libwkv::test {
namespace {

wkv_model_options one_thread() {
  wkv_model_options options = default_options();
  options.threads = 1;
  return options;
}

class StoreAllocations : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!malloc_can_fail()) GTEST_SKIP() << "malloc cannot be replaced in this build";
    step(random_.info, random_.model, cache_, std::span(tokens_).first(20));
    path_ = directory_.path() / "store";
  }
  wkv_status create(wkv_prefix_store **store, bool has_directory, uint64_t memory_bytes_max = 0) const {
    wkv_prefix_store_options options{};
    options.struct_size = sizeof options;
    options.directory = has_directory ? path_.c_str() : nullptr;
    options.memory_bytes_max = memory_bytes_max;
    return wkv_prefix_store_create(random_.model, &options, store, nullptr);
  }
  wkv_status put(wkv_prefix_store *store) const {
    return wkv_prefix_store_put(store, tokens_.data(), 20, cache_, nullptr);
  }
  static wkv_prefix_store_info info_of(wkv_prefix_store *store) {
    wkv_prefix_store_info info{};
    info.struct_size = sizeof info;
    EXPECT_EQ(wkv_prefix_store_get_info(store, &info, nullptr), WKV_OK);
    return info;
  }

  RandomModel random_{odd_shape, WKV_TYPE_F32, one_thread()};
  Cache cache_ = create_cache(random_.model);
  const std::vector<int32_t> tokens_ = random_tokens(40, odd_shape.vocab_size, 1);
  TemporaryDirectory directory_;
  std::string path_;
};

TEST_P(StoreAllocations, of_create) {
  {
    PrefixStore store;
    ASSERT_EQ(create(store.out(), true), WKV_OK);
    ASSERT_EQ(put(store), WKV_OK);
  }
  for (bool has_directory : {false, true}) {
    fail_each(
        has_directory ? "create with a directory" : "create", GetParam(),
        [&]() -> wkv_status {
          wkv_prefix_store *store = nullptr;
          const wkv_status status = create(&store, has_directory);
          if (status != WKV_OK && store) return WKV_INTERNAL;
          wkv_prefix_store_release(store);
          return status;
        },
        [&](int64_t n, wkv_status) {
          ASSERT_EQ(std::distance(std::filesystem::directory_iterator(path_), {}), 1) << "allocation " << n;
        });
    if (HasFatalFailure()) return;
  }
}

// Short of memory for the directory's copy alone, put succeeds and counts.
TEST_P(StoreAllocations, of_put_leave_all_or_nothing) {
  for (bool has_directory : {false, true}) {
    for (int64_t n = 0;; n++) {
      ASSERT_LT(n, 10000);
      PrefixStore store;
      ASSERT_EQ(create(store.out(), has_directory), WKV_OK);
      fail_after(n, !GetParam());
      const wkv_status status = put(store);
      const bool failed = stop_failing();
      const wkv_prefix_store_info info = info_of(store);
      ASSERT_EQ(info.entries, status == WKV_OK ? 1u : 0u) << "allocation " << n;
      ASSERT_EQ(info.puts, info.entries) << "allocation " << n;
      if (status != WKV_OK) {
        ASSERT_EQ(status, WKV_OUT_OF_MEMORY);
        ASSERT_EQ(info.stored_entries + info.storage_failures, 0u) << "allocation " << n;
      } else if (has_directory) {
        ASSERT_EQ(info.stored_entries + info.storage_failures, 1u) << "allocation " << n;
      }
      // the same call afterwards makes up for it
      ASSERT_EQ(put(store), WKV_OK);
      ASSERT_EQ(info_of(store).entries, 1u);
      ASSERT_EQ(info_of(store).stored_entries, has_directory ? 1u : 0u);
      Cache found = create_cache(random_.model);
      size_t known = 0;
      ASSERT_EQ(wkv_prefix_store_find(store, tokens_.data(), 40, found, &known, nullptr), WKV_OK);
      ASSERT_EQ(known, 20u);
      ASSERT_EQ(wkv_prefix_store_clear(store, nullptr), WKV_OK);
      if (has_directory) {
        ASSERT_TRUE(std::filesystem::is_empty(path_)) << "allocation " << n;
      }
      if (!failed) break;
    }
  }
}

TEST_P(StoreAllocations, of_find_leave_cache_and_entries_alone) {
  PrefixStore store;
  ASSERT_EQ(create(store.out(), true, 1), WKV_OK);  // no memory: every hit is read from its file
  ASSERT_EQ(put(store), WKV_OK);
  ASSERT_EQ(info_of(store).stored_entries, 1u);
  Cache other = create_cache(random_.model);
  step(random_.info, random_.model, other, std::span(tokens_).subspan(20, 3));
  ASSERT_EQ(wkv_cache_mark(other, nullptr, nullptr), WKV_OK);
  const Snapshot before = snapshot_of(random_.info, other), there = snapshot_of(random_.info, cache_);
  fail_each(
      "find", GetParam(),
      [&]() -> wkv_status {
        Cache work;
        if (wkv_cache_copy(other, work.out(), nullptr) != WKV_OK) return WKV_OUT_OF_MEMORY;
        size_t known = 77;
        const wkv_status status = wkv_prefix_store_find(store, tokens_.data(), 40, work, &known, nullptr);
        wkv_cache_info info{};
        info.struct_size = sizeof info;
        if (wkv_cache_get_info(work, &info, nullptr) != WKV_OK) return WKV_INTERNAL;
        // found whole or not at all; a file that cannot be opened now is not there
        const bool is_found = status == WKV_OK && known == 20;
        if (info.position != (is_found ? 20u : 3u) || info.kept_count != (is_found ? 0u : 1u)) return WKV_INTERNAL;
        return status;
      },
      [&](int64_t n, wkv_status) {
        ASSERT_TRUE(snapshot_of(random_.info, other) == before) << "allocation " << n;
        // an entry that could not be read for want of memory may have been forgotten, never spoiled
        ASSERT_EQ(info_of(store).storage_failures, 0u) << "allocation " << n;
        ASSERT_EQ(put(store), WKV_OK);
        Cache found = create_cache(random_.model);
        size_t known = 0;
        ASSERT_EQ(wkv_prefix_store_find(store, tokens_.data(), 40, found, &known, nullptr), WKV_OK);
        ASSERT_EQ(known, 20u) << "allocation " << n;
        ASSERT_TRUE(snapshot_of(random_.info, found) == there) << "allocation " << n;
      });
}

TEST_P(StoreAllocations, of_clear) {
  for (int64_t n = 0;; n++) {
    PrefixStore store;
    ASSERT_EQ(create(store.out(), true), WKV_OK);
    ASSERT_EQ(put(store), WKV_OK);
    fail_after(n, !GetParam());
    const wkv_status status = wkv_prefix_store_clear(store, nullptr);
    const bool failed = stop_failing();
    ASSERT_EQ(status, WKV_OK) << "allocation " << n;
    ASSERT_EQ(info_of(store).entries + info_of(store).stored_entries, 0u);
    if (!failed) break;
  }
}

INSTANTIATE_TEST_SUITE_P(faults, StoreAllocations, testing::Bool(),
                         [](const auto &test) { return test.param ? "and_all_after" : "one_alone"; });

}  // namespace
}  // namespace libwkv::test
