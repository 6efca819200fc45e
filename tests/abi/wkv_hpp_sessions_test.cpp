// SPDX-License-Identifier: Apache-2.0
// The C++ layer's blobs and sessions: what is saved through it comes back, from memory and from files.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <wkv/wkv.hpp>

#include "support/temporary_directory.h"

namespace {

const std::string story_path = std::string(WKV_SOURCE_DIR) + "/examples/models/tales-8m.gguf";

class HppSessions : public testing::Test {
 protected:
  static std::string text_of(wkv::Generation &generation, int pieces) {
    std::string text;
    for (wkv::Piece piece; pieces-- > 0 && generation.next(piece);) text += piece.text;
    return text;
  }
  template <class Call>
  static wkv_status status_of(Call &&call) {
    try {
      call();
    } catch (const wkv::Error &error) {
      return error.status();
    }
    return WKV_OK;
  }
  wkv::Model model_ = wkv::Model::load(story_path);
  libwkv::test::TemporaryDirectory folder_;
  const std::string path_ = folder_.path() / "session.wkv";
};

TEST_F(HppSessions, caches_come_back) {
  wkv::Cache cache(model_);
  cache.feed({5, 6, 7});
  const std::vector<std::byte> blob = cache.serialize();
  EXPECT_LT(cache.serialize(WKV_TYPE_F16).size(), blob.size());
  cache.save(path_);
  wkv::Cache from_file = wkv::Cache::load(model_, path_);
  wkv::Cache from_memory = wkv::Cache::deserialize(model_, blob.data(), blob.size());
  EXPECT_EQ(from_file.serialize(), blob);
  EXPECT_EQ(from_memory.serialize(), blob);
  EXPECT_EQ(from_file.step({8}), cache.step({8}));
  for (const wkv::BlobInfo &info :
       {wkv::Cache::read_header(path_), wkv::Cache::read_header(blob.data(), blob.size())}) {
    EXPECT_EQ(info.position, 3u);
    EXPECT_EQ(info.bytes, blob.size());
    EXPECT_EQ(info.fingerprint, model_.info().fingerprint);
  }
  cache.save(path_, WKV_TYPE_F16);
  EXPECT_EQ(wkv::Cache::read_header(path_).state_type, WKV_TYPE_F16);
}

TEST_F(HppSessions, generations_go_on) {
  wkv::Cache cache(model_);
  wkv::SamplerOptions sampling;
  sampling.seed = 11;
  sampling.presence = 0.5f;
  wkv::Sampler sampler(sampling);
  wkv::GenerationOptions options;
  options.prompt = "Once upon a time";
  options.max_tokens = 100;
  wkv::Generation generation(cache, sampler, options);
  text_of(generation, 10);
  wkv::SessionParts parts;
  parts.generation = &generation;
  parts.save(path_);
  const std::vector<std::byte> bytes = parts.serialize();
  const std::string expected = text_of(generation, 30);
  wkv::Session from_file = wkv::Session::load(model_, path_);
  const wkv::Tokenizer tokenizer = model_.tokenizer();
  wkv::Session from_memory = wkv::Session::deserialize(model_, bytes.data(), bytes.size(), &tokenizer);
  for (wkv::Session *session : {&from_file, &from_memory}) {
    ASSERT_TRUE(session->sampler && session->generation);
    EXPECT_TRUE(session->logits.empty());
    EXPECT_EQ(text_of(*session->generation, 30), expected);
  }
}

TEST_F(HppSessions, scores_come_back) {
  wkv::Cache cache(model_);
  const std::vector<float> logits = cache.step({5, 6, 7});
  wkv::SessionParts parts;
  parts.cache = &cache;
  parts.logits = logits;
  const std::vector<std::byte> bytes = parts.serialize(WKV_TYPE_F16);
  wkv::Session session = wkv::Session::deserialize(model_, bytes.data(), bytes.size());
  EXPECT_EQ(session.logits, logits);
  EXPECT_FALSE(session.sampler);
  EXPECT_FALSE(session.generation);
  EXPECT_EQ(session.cache.info().position, 3u);
}

TEST_F(HppSessions, failures_are_exceptions) {
  wkv::Cache cache(model_);
  EXPECT_EQ(status_of([&] { wkv::Cache::load(model_, "/no/such/file"); }), WKV_NOT_FOUND);
  EXPECT_EQ(status_of([&] { wkv::Cache::deserialize(model_, "no blob", 7); }), WKV_FORMAT);
  EXPECT_EQ(status_of([&] { cache.save("/no/such/folder/file"); }), WKV_NOT_FOUND);
  EXPECT_EQ(status_of([&] { cache.serialize(WKV_TYPE_Q4); }), WKV_INVALID);
  EXPECT_EQ(status_of([&] { wkv::SessionParts().serialize(); }), WKV_INVALID);
  EXPECT_EQ(status_of([&] { wkv::Session::load(model_, "/no/such/file"); }), WKV_NOT_FOUND);
}

}  // namespace
