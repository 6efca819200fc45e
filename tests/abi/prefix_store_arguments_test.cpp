// SPDX-License-Identifier: Apache-2.0
// prefix_store.h under wrong arguments, and its C++ face.
#include <string>
#include <type_traits>
#include <vector>

#include <wkv/wkv.hpp>

#include "support/handles.h"
#include "support/temporary_directory.h"

namespace libwkv::test {
namespace {

const std::string story_path = std::string(WKV_SOURCE_DIR) + "/examples/models/tales-8m.gguf";

class PrefixStoreArguments : public testing::Test {
 protected:
  void SetUp() override {
    options_.struct_size = sizeof options_;
    storage_.struct_size = sizeof storage_;
    storage_.put = [](void *, const char *, const void *, size_t) -> int32_t { return 1; };
    storage_.get = [](void *, const char *, void *, size_t, size_t *) -> int32_t { return 1; };
    storage_.evict = [](void *, const char *) {};
    model_ = load_model(story_path);
    cache_ = create_cache(model_);
    tokens_ = random_tokens(20, info_of(model_).vocab_size, 1);
    Failure failure;
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_step(cache_, tokens_.data(), 20, nullptr, 0, &failure), failure);
    WKV_ASSERT_STATUS(WKV_OK, wkv_prefix_store_create(model_, nullptr, store_.out(), &failure), failure);
  }
  // Creating with options_ is refused and writes no handle.
  void refused(wkv_status expected, const char *what) {
    Failure failure;
    wkv_prefix_store *made = store_;
    EXPECT_EQ(wkv_prefix_store_create(model_, &options_, &made, &failure), expected) << what << failure.message;
    EXPECT_EQ(made, store_.get()) << what;
    EXPECT_NE(failure.message[0], 0) << what;
    EXPECT_EQ(std::string(failure.message).find('\n'), std::string::npos) << what;
    options_ = {};
    options_.struct_size = sizeof options_;
  }

  Model model_;
  Cache cache_;
  PrefixStore store_;
  wkv_prefix_store_options options_{};
  wkv_prefix_storage storage_{};
  std::vector<int32_t> tokens_;
};

TEST_F(PrefixStoreArguments, of_create_are_checked) {
  wkv_prefix_store *made = nullptr;
  EXPECT_EQ(wkv_prefix_store_create(nullptr, nullptr, &made, nullptr), WKV_INVALID);
  EXPECT_EQ(wkv_prefix_store_create(model_, nullptr, nullptr, nullptr), WKV_INVALID);
  options_.struct_size = 8;
  refused(WKV_INVALID, "struct_size");
  options_.reserved = 1;
  refused(WKV_UNSUPPORTED, "reserved");
  options_.save_type = WKV_TYPE_Q8;
  refused(WKV_INVALID, "save_type");
  options_.directory = "";
  refused(WKV_INVALID, "an empty directory");
  options_.directory = story_path.c_str();
  refused(WKV_IO, "a file as directory");
  options_.directory = "somewhere";
  options_.storage = &storage_;
  refused(WKV_INVALID, "directory and storage");
  for (int missing = 0; missing < 3; missing++) {
    wkv_prefix_storage lacking = storage_;
    if (missing == 0) lacking.put = nullptr;
    if (missing == 1) lacking.get = nullptr;
    if (missing == 2) lacking.evict = nullptr;
    options_.storage = &lacking;
    refused(WKV_INVALID, "a function is missing");
  }
  wkv_prefix_storage wrong = storage_;
  wrong.reserved = 1;
  options_.storage = &wrong;
  refused(WKV_UNSUPPORTED, "storage.reserved");
  wrong = storage_;
  wrong.struct_size = 16;
  options_.storage = &wrong;
  refused(WKV_INVALID, "storage.struct_size");
  options_.storage = &storage_;  // without list: nothing is there
  Failure failure;
  PrefixStore store;
  WKV_EXPECT_STATUS(WKV_OK, wkv_prefix_store_create(model_, &options_, store.out(), &failure), failure);
}

TEST_F(PrefixStoreArguments, of_find_and_put_are_checked) {
  const int32_t *tokens = tokens_.data();
  size_t known = 77;
  const Snapshot before = snapshot_of(info_of(model_), cache_);
  EXPECT_EQ(wkv_prefix_store_find(nullptr, tokens, 20, cache_, &known, nullptr), WKV_INVALID);
  EXPECT_EQ(wkv_prefix_store_find(store_, nullptr, 20, cache_, &known, nullptr), WKV_INVALID);
  EXPECT_EQ(wkv_prefix_store_find(store_, tokens, 0, cache_, &known, nullptr), WKV_INVALID);
  EXPECT_EQ(wkv_prefix_store_find(store_, tokens, 20, nullptr, &known, nullptr), WKV_INVALID);
  EXPECT_EQ(wkv_prefix_store_find(store_, tokens, 20, cache_, nullptr, nullptr), WKV_INVALID);
  EXPECT_EQ(wkv_prefix_store_put(nullptr, tokens, 20, cache_, nullptr), WKV_INVALID);
  EXPECT_EQ(wkv_prefix_store_put(store_, nullptr, 20, cache_, nullptr), WKV_INVALID);
  EXPECT_EQ(wkv_prefix_store_put(store_, tokens, 19, cache_, nullptr), WKV_INVALID);
  EXPECT_EQ(wkv_prefix_store_put(store_, tokens, 20, nullptr, nullptr), WKV_INVALID);
  Failure failure;
  std::vector<int32_t> outside = tokens_;
  outside[3] = -1;
  EXPECT_EQ(wkv_prefix_store_put(store_, outside.data(), 20, cache_, &failure), WKV_INVALID);
  EXPECT_NE(std::string(failure.message).find("token -1"), std::string::npos) << failure.message;
  outside[3] = info_of(model_).vocab_size;
  EXPECT_EQ(wkv_prefix_store_find(store_, outside.data(), 20, cache_, &known, nullptr), WKV_INVALID);
  EXPECT_EQ(known, 77u);
  EXPECT_TRUE(snapshot_of(info_of(model_), cache_) == before);
  Model other = load_model(story_path);
  Cache others = create_cache(other);
  EXPECT_EQ(wkv_prefix_store_find(store_, tokens, 20, others, &known, &failure), WKV_MISMATCH);
  EXPECT_EQ(wkv_prefix_store_put(store_, tokens, 20, others, &failure), WKV_MISMATCH);
}

TEST_F(PrefixStoreArguments, of_the_rest_are_checked) {
  wkv_prefix_store_info info{};
  EXPECT_EQ(wkv_prefix_store_get_info(store_, &info, nullptr), WKV_INVALID) << "struct_size 0";
  info.struct_size = sizeof info;
  EXPECT_EQ(wkv_prefix_store_get_info(nullptr, &info, nullptr), WKV_INVALID);
  EXPECT_EQ(wkv_prefix_store_get_info(store_, nullptr, nullptr), WKV_INVALID);
  EXPECT_EQ(wkv_prefix_store_get_info(store_, &info, nullptr), WKV_OK);
  EXPECT_EQ(info.struct_size, sizeof info);
  EXPECT_EQ(wkv_prefix_store_clear(nullptr, nullptr), WKV_INVALID);
  wkv_prefix_store_release(nullptr);
}

TEST(wkv_hpp_prefix_store, finds_puts_and_tells) {
  static_assert(!std::is_copy_constructible_v<wkv::PrefixStore> &&
                std::is_nothrow_move_constructible_v<wkv::PrefixStore>);
  TemporaryDirectory directory;
  const std::string path = directory.path();
  wkv::Model model = wkv::Model::load(story_path);
  const std::vector<int32_t> tokens = random_tokens(20, model.info().vocab_size, 1);
  wkv::PrefixStoreOptions options;
  options.directory = path.c_str();
  options.min_tokens = 4;
  wkv::Cache cache(model);
  cache.feed({tokens.data(), 10});
  {
    wkv::PrefixStore store(model, options);
    EXPECT_EQ(store.find(tokens, cache), 0u);
    store.put({tokens.data(), 10}, cache);
    EXPECT_EQ(store.info().entries, 1u);
    EXPECT_EQ(store.info().stored_entries, 1u);
  }
  wkv::PrefixStore store(model, options);
  wkv::Cache other(model);
  EXPECT_EQ(store.find(tokens, other), 10u);
  EXPECT_EQ(other.step({tokens.data() + 10, 10}), cache.step({tokens.data() + 10, 10}));
  store.clear();
  EXPECT_EQ(store.info().stored_entries, 0u);
  EXPECT_THROW(store.put(tokens, wkv::Cache(model)), wkv::Error);
}

}  // namespace
}  // namespace libwkv::test
