// SPDX-License-Identifier: Apache-2.0
// blob.h and session.h under wrong arguments: the promised status, one line of text, and nothing changed.
#include <cstring>
#include <string>
#include <vector>

#include "support/handles.h"

namespace libwkv::test {
namespace {

const std::string story_path = std::string(WKV_SOURCE_DIR) + "/examples/models/tales-8m.gguf";

class SessionArguments : public testing::Test {
 protected:
  void SetUp() override {
    model_ = load_model(story_path);
    cache_ = create_cache(model_);
    size_t count = 0;
    ASSERT_EQ(wkv_cache_serialize(cache_, nullptr, 0, &count, nullptr), WKV_OK);
    bytes_.resize(count);
    ASSERT_EQ(wkv_cache_serialize(cache_, bytes_.data(), count, &count, nullptr), WKV_OK);
    options_.struct_size = sizeof options_;
    info_.struct_size = sizeof info_;
    session_.struct_size = sizeof session_;
    session_.cache = cache_;
  }
  template <class Call>
  void expect(wkv_status expected, Call &&call) {
    Failure failure;
    EXPECT_EQ(wkv_status_name(call(&failure)), std::string(wkv_status_name(expected))) << failure.message;
    if (expected == WKV_OK) return;
    EXPECT_EQ(failure.status, expected);
    EXPECT_NE(failure.message[0], 0);
    EXPECT_EQ(std::strchr(failure.message, '\n'), nullptr) << failure.message;
  }

  Model model_;
  Cache cache_;
  std::vector<char> bytes_;
  wkv_save_options options_{};
  wkv_blob_info info_{};
  wkv_session session_{};
};

TEST_F(SessionArguments, of_saving_are_checked) {
  std::vector<char> room(bytes_.size());
  size_t count = 77;
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_save(nullptr, "a", e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_save(cache_, nullptr, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_serialize(nullptr, room.data(), 9, &count, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_serialize(cache_, room.data(), room.size(), nullptr, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_serialize(cache_, nullptr, 9, &count, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_session_save(nullptr, "a", nullptr, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_session_save(&session_, nullptr, nullptr, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_session_serialize(nullptr, nullptr, nullptr, 0, &count, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_session_serialize(&session_, nullptr, nullptr, 0, nullptr, e); });
  EXPECT_EQ(count, 77u);
  for (const wkv_type type : {-1, 3, 4, 5, 6}) {
    options_.state_type = type;
    expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_save_as(cache_, "a", &options_, e); });
    expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_serialize_as(cache_, &options_, nullptr, 0, &count, e); });
    expect(WKV_INVALID,
           [&](wkv_error *e) { return wkv_session_serialize(&session_, &options_, nullptr, 0, &count, e); });
  }
  options_ = {};
  for (const uint32_t size : {0u, 4u, 7u}) {
    options_.struct_size = size;
    expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_save_as(cache_, "a", &options_, e); });
    session_.struct_size = size;
    expect(WKV_INVALID, [&](wkv_error *e) { return wkv_session_save(&session_, "a", nullptr, e); });
  }
  EXPECT_EQ(count, 77u);
}

TEST_F(SessionArguments, of_loading_are_checked) {
  wkv_cache *const mark = cache_;
  wkv_cache *made = mark;
  const size_t size = bytes_.size();
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_load(nullptr, "a", &made, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_load(model_, nullptr, &made, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_load(model_, "a", nullptr, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_deserialize(nullptr, bytes_.data(), size, &made, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_deserialize(model_, nullptr, size, &made, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_deserialize(model_, bytes_.data(), size, nullptr, e); });
  expect(WKV_FORMAT, [&](wkv_error *e) { return wkv_cache_deserialize(model_, nullptr, 0, &made, e); });
  EXPECT_EQ(made, mark);
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_session_deserialize(model_, nullptr, size, &session_, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_session_deserialize(model_, bytes_.data(), size, nullptr, e); });
  expect(WKV_INVALID,
         [&](wkv_error *e) { return wkv_session_deserialize(nullptr, bytes_.data(), size, &session_, e); });
  EXPECT_EQ(session_.cache, mark);
}

TEST_F(SessionArguments, of_headers_are_checked) {
  const size_t size = bytes_.size();
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_read_header(nullptr, &info_, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_read_header("a", nullptr, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_read_header_memory(nullptr, size, &info_, e); });
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_read_header_memory(bytes_.data(), size, nullptr, e); });
  info_.struct_size = sizeof info_ - 1;
  expect(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_read_header_memory(bytes_.data(), size, &info_, e); });
  EXPECT_EQ(info_.bytes, 0u);
  info_.struct_size = sizeof info_;
  expect(WKV_OK, [&](wkv_error *e) { return wkv_cache_read_header_memory(bytes_.data(), size, &info_, e); });
  EXPECT_EQ(info_.bytes, size);
  // a struct of a later version: what is behind the known part must be zero, and stays so
  struct {
    wkv_blob_info known;
    char tail[16];
  } later{};
  later.known.struct_size = sizeof later;
  expect(WKV_OK, [&](wkv_error *e) { return wkv_cache_read_header_memory(bytes_.data(), size, &later.known, e); });
  EXPECT_EQ(later.known.struct_size, sizeof later);
  later.tail[3] = 1;
  expect(WKV_UNSUPPORTED,
         [&](wkv_error *e) { return wkv_cache_read_header_memory(bytes_.data(), size, &later.known, e); });
}

}  // namespace
}  // namespace libwkv::test
