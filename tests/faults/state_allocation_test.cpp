// SPDX-License-Identifier: Apache-2.0
// No memory, at every place where saving and loading a state or a session asks for some.
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "faults/fail_each.h"
#include "support/temporary_directory.h"
#include "text/generation_support.h"

namespace libwkv::test {
namespace {

class StateAllocations : public testing::TestWithParam<bool> {
 protected:
  static wkv_model_options one_thread() {
    wkv_model_options options = default_options();
    options.threads = 1;
    return options;
  }
  void SetUp() override {
    if (!malloc_can_fail()) GTEST_SKIP() << "malloc cannot be replaced in this build";
    cache_ = create_cache(random_.model);
    sampler_ = rough_sampler(3, 0.5f);
    wkv_generation_options options = generation_options(tokenizer_, "aa", 100);
    const char *stops[] = {"ab ab"};
    options.stop_strings = stops;
    options.stop_strings_count = 1;
    ASSERT_EQ(wkv_generation_create(cache_, sampler_, &options, generation_.out(), nullptr), WKV_OK);
    Piece piece;
    for (int i = 0; i < 7; i++) ASSERT_EQ(wkv_generation_next(generation_, &piece, nullptr), WKV_OK);
    logits_.resize(static_cast<size_t>(odd_shape.vocab_size), 0.25f);
    before_ = snapshot_of(random_.info, cache_);
  }
  wkv_session session() const {
    wkv_session session{};
    session.struct_size = sizeof session;
    session.generation = generation_;
    session.logits = const_cast<float *>(logits_.data());
    session.logits_count = logits_.size();
    return session;
  }
  std::vector<char> session_bytes() const {
    const wkv_session parts = session();
    size_t count = 0;
    EXPECT_EQ(wkv_session_serialize(&parts, nullptr, nullptr, 0, &count, nullptr), WKV_OK);
    std::vector<char> bytes(count);
    EXPECT_EQ(wkv_session_serialize(&parts, nullptr, bytes.data(), count, &count, nullptr), WKV_OK);
    return bytes;
  }
  static std::string file_content(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  // The session as far as it was written, which is all or nothing.
  static wkv_status release(wkv_status status, const wkv_session &made) {
    if (status != WKV_OK && (made.cache || made.sampler || made.generation)) return WKV_INTERNAL;
    wkv_generation_release(made.generation);
    wkv_sampler_release(made.sampler);
    wkv_cache_release(made.cache);
    return status;
  }

  RandomModel random_{odd_shape, WKV_TYPE_F32, one_thread()};
  Tokenizer tokenizer_ = load_vocabulary(rough_vocabulary());
  Cache cache_;
  Sampler sampler_;
  Generation generation_;
  std::vector<float> logits_;
  Snapshot before_;
};

TEST_P(StateAllocations, of_saving_leave_everything_as_it_was) {
  TemporaryDirectory folder;
  const std::string path = folder.path() / "state";
  for (const wkv_type type : {WKV_TYPE_F32, WKV_TYPE_F16}) {
    wkv_save_options options{};
    options.struct_size = sizeof options;
    options.state_type = type;
    std::vector<char> bytes(200000);
    size_t count = 0;
    fail_each("serialize as " + type_name(type), GetParam(),
              [&] { return wkv_cache_serialize_as(cache_, &options, bytes.data(), bytes.size(), &count, nullptr); });
    std::ofstream(path) << "old";
    fail_each(
        "save as " + type_name(type), GetParam(),
        [&] { return wkv_cache_save_as(cache_, path.c_str(), &options, nullptr); },
        [&](int64_t n, wkv_status status) {
          ASSERT_TRUE(status == WKV_OK || n > 0 || file_content(path) != "") << n;
          ASSERT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1) << "a file is left";
        });
    const wkv_session parts = session();
    fail_each("save a session as " + type_name(type), GetParam(),
              [&] { return wkv_session_save(&parts, path.c_str(), &options, nullptr); });
    fail_each("serialize a session as " + type_name(type), GetParam(),
              [&] { return wkv_session_serialize(&parts, &options, bytes.data(), bytes.size(), &count, nullptr); });
    if (HasFatalFailure()) return;
  }
  EXPECT_TRUE(snapshot_of(random_.info, cache_) == before_);
}

TEST_P(StateAllocations, of_loading_give_nothing_out) {
  TemporaryDirectory folder;
  const std::string path = folder.path() / "state";
  const std::vector<char> bytes = session_bytes();
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  fail_each("deserialize", GetParam(), [&]() -> wkv_status {
    wkv_session made{};
    return release(wkv_cache_deserialize(random_.model, bytes.data(), bytes.size(), &made.cache, nullptr), made);
  });
  fail_each("load", GetParam(), [&]() -> wkv_status {
    wkv_session made{};
    return release(wkv_cache_load(random_.model, path.c_str(), &made.cache, nullptr), made);
  });
  fail_each("read a header", GetParam(), [&] {
    wkv_blob_info info{};
    info.struct_size = sizeof info;
    return wkv_cache_read_header(path.c_str(), &info, nullptr);
  });
  std::vector<float> logits(logits_.size(), 7.0f);
  const auto empty = [&] {
    wkv_session made{};
    made.struct_size = sizeof made;
    made.tokenizer = tokenizer_;
    made.logits = logits.data();
    made.logits_count = logits.size();
    return made;
  };
  const auto check_logits = [&](int64_t n, wkv_status status) {
    if (status != WKV_OK) {
      ASSERT_EQ(logits[0], 7.0f) << n;
    }
    logits[0] = 7.0f;
  };
  logits[0] = 7.0f;
  fail_each(
      "deserialize a session", GetParam(),
      [&]() -> wkv_status {
        wkv_session made = empty();
        logits[0] = 7.0f;
        return release(wkv_session_deserialize(random_.model, bytes.data(), bytes.size(), &made, nullptr), made);
      },
      check_logits);
  fail_each("load a session", GetParam(), [&]() -> wkv_status {
    wkv_session made = empty();
    return release(wkv_session_load(random_.model, path.c_str(), &made, nullptr), made);
  });
}

INSTANTIATE_TEST_SUITE_P(faults, StateAllocations, testing::Bool(),
                         [](const auto &test) { return test.param ? "and_all_after" : "one_alone"; });

}  // namespace
}  // namespace libwkv::test
