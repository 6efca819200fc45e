// SPDX-License-Identifier: Apache-2.0
// Blobs that were written by every version of the format load for ever: tests/data/blobs has them. The model is made
// again from its seed; states and scores are made of numbers that do not depend on how it is computed.
#include <cmath>

#include "state/blob_bytes.h"
#include "text/generation_support.h"

namespace libwkv::test {
namespace {

// Exact in half precision too.
float number(size_t index) { return (static_cast<float>((index * 2654435761u >> 7) % 2001) - 1000) / 512; }

class BlobVersions : public testing::Test {
 protected:
  static wkv_model_options one_thread() {
    wkv_model_options options = default_options();
    options.threads = 1;
    return options;
  }
  static std::filesystem::path file(const char *name) {
    return std::filesystem::path(WKV_SOURCE_DIR) / "tests/data/blobs" / name;
  }

  // What the files hold.
  Cache make_cache() {
    Cache cache = create_cache(random_.model);
    step(random_.info, random_.model, cache, tokens_);
    write_numbers(cache);
    return cache;
  }
  void write_numbers(wkv_cache *cache) {
    size_t index = 0;
    for (int32_t layer = 0; layer < random_.info.layers; layer++)
      for (wkv_state_part part = 0; part < 3; part++) {
        std::vector<float> values(part_size(random_.info, part));
        for (float &value : values) value = number(index++);
        WKV_EXPECT_STATUS(WKV_OK, wkv_cache_write_state(cache, layer, part, values.data(), values.size(), &failure_),
                          failure_);
      }
  }
  std::vector<float> make_logits() {
    std::vector<float> logits(static_cast<size_t>(small_shape.vocab_size));
    for (size_t i = 0; i < logits.size(); i++) logits[i] = 4 * number(i + 100000);
    return logits;
  }
  Sampler make_sampler() {
    wkv_sampler_options o = sampler_options(2024);
    const wkv_token_bias biases[] = {{3, 0.5f}, {9, -INFINITY}};
    const int32_t banned[] = {17, 4}, exempt[] = {44, 12};
    o.temperature = 1.25f;
    o.top_p = 0.95f;
    o.repetition = 1.5f;
    o.presence = 0.5f;
    o.frequency = 0.25f;
    o.penalty_decay = 0.75f;
    o.ids_end = 320;
    o.biases = biases;
    o.biases_count = 2;
    o.banned_tokens = banned;
    o.banned_tokens_count = 2;
    o.exempt_tokens = exempt;
    o.exempt_tokens_count = 2;
    Sampler sampler = create_sampler(o);
    sample(sampler, 10);
    return sampler;
  }
  std::vector<int32_t> sample(wkv_sampler *sampler, size_t count) {
    const std::vector<float> logits = make_logits();
    std::vector<int32_t> tokens(count, -1);
    for (int32_t &token : tokens)
      WKV_EXPECT_STATUS(WKV_OK, wkv_sampler_sample(sampler, logits.data(), logits.size(), &token, &failure_), failure_);
    return tokens;
  }
  Generation make_generation(wkv_cache *cache, wkv_sampler *sampler) {
    wkv_generation_options options = generation_options(tokenizer_, "ab", 40);
    const char *stops[] = {"\n\n", "aaaaab"};
    const int32_t stop_tokens[] = {5};
    options.stop_strings = stops;
    options.stop_strings_count = 2;
    options.stop_tokens = stop_tokens;
    options.stop_tokens_count = 1;
    Generation generation;
    WKV_EXPECT_STATUS(WKV_OK, wkv_generation_create(cache, sampler, &options, generation.out(), &failure_), failure_);
    return generation;
  }
  std::string text_of(wkv_generation *generation, int pieces) {
    std::string text;
    for (Piece piece; pieces-- > 0;) {
      WKV_EXPECT_STATUS(WKV_OK, wkv_generation_next(generation, &piece, &failure_), failure_);
      text.append(piece.text, piece.text_bytes);
    }
    return text;
  }

  void expect_right(wkv_cache *cache) {
    const wkv_cache_info info = info_of(cache);
    EXPECT_EQ(info.position, tokens_.size());
    ASSERT_EQ(info.last_tokens_count, WKV_LAST_TOKENS);
    for (size_t i = 0; i < WKV_LAST_TOKENS; i++) EXPECT_EQ(info.last_tokens[i], tokens_[5 + i]);
    Cache expected = create_cache(random_.model);
    write_numbers(expected);
    const Snapshot a = snapshot_of(random_.info, cache), b = snapshot_of(random_.info, expected);
    for (int part = 0; part < 3; part++) EXPECT_EQ(a.parts[part], b.parts[part]);
  }

  RandomModel random_{small_shape, WKV_TYPE_F32, one_thread(), 3};
  Tokenizer tokenizer_ = load_vocabulary(rough_vocabulary());
  const std::vector<int32_t> tokens_ = random_tokens(21, small_shape.vocab_size, 4);
  Failure failure_;
};

TEST_F(BlobVersions, one_loads) {
  for (const char *name : {"v1_f32.wkv", "v1_f16.wkv", "v1_session.wkv"}) {
    SCOPED_TRACE(name);
    BlobInfo info;
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_read_header(file(name).c_str(), &info, &failure_), failure_);
    EXPECT_EQ(info.format_version, 1u);
    ASSERT_EQ(info.fingerprint, random_.info.fingerprint) << "another model comes out of the seed, or the fingerprint"
                                                             " of a model has changed";
    Cache cache;
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_load(random_.model, file(name).c_str(), cache.out(), &failure_), failure_);
    expect_right(cache);
    EXPECT_TRUE(deserialize(random_.model, read_file(file(name))).get() != nullptr);
  }
}

// Until there is a second version, the library still writes what it wrote.
TEST_F(BlobVersions, one_is_written_the_same) {
  Cache cache = make_cache();
  EXPECT_EQ(serialize(cache, WKV_TYPE_F32), read_file(file("v1_f32.wkv")));
  EXPECT_EQ(serialize(cache, WKV_TYPE_F16), read_file(file("v1_f16.wkv")));
  Sampler sampler = make_sampler();
  std::vector<float> logits = make_logits();
  Session session;
  session.cache = cache;
  session.sampler = sampler;
  session.logits = logits.data();
  session.logits_count = logits.size();
  EXPECT_EQ(serialize(session), read_file(file("v1_session.wkv")));
}

TEST_F(BlobVersions, one_goes_on_with_its_sampler) {
  std::vector<float> logits(static_cast<size_t>(small_shape.vocab_size));
  Session session;
  session.logits = logits.data();
  session.logits_count = logits.size();
  WKV_ASSERT_STATUS(WKV_OK, wkv_session_load(random_.model, file("v1_session.wkv").c_str(), &session, &failure_),
                    failure_);
  SessionHandles handles(session);
  EXPECT_EQ(session.has_logits, 1);
  EXPECT_EQ(logits, make_logits());
  ASSERT_NE(session.sampler, nullptr);
  Sampler twin = make_sampler();
  const std::vector<int32_t> drawn = sample(handles.sampler, 40);
  EXPECT_EQ(drawn, sample(twin, 40));
  EXPECT_EQ(std::vector<int32_t>(drawn.begin(), drawn.begin() + 10),
            (std::vector<int32_t>{157, 260, 277, 191, 116, 54, 6, 44, 164, 215}));
}

TEST_F(BlobVersions, one_goes_on_with_its_generation) {
  Session session;
  session.tokenizer = tokenizer_;
  WKV_ASSERT_STATUS(WKV_OK, wkv_session_load(random_.model, file("v1_generation.wkv").c_str(), &session, &failure_),
                    failure_);
  SessionHandles handles(session);
  ASSERT_NE(session.generation, nullptr);
  EXPECT_EQ(info_of(handles.cache).position, tokens_.size() + 4);
  Piece piece;
  WKV_ASSERT_STATUS(WKV_OK, wkv_generation_next(handles.generation, &piece, &failure_), failure_);
  EXPECT_EQ(piece.tokens_generated, 5);
  EXPECT_EQ(piece.prompt_tokens, 1);
  EXPECT_EQ(std::string(piece.text, piece.text_bytes) + text_of(handles.generation, 3), "aaaaaaaa")
      << "five letters of a stop string are held back before and after";
}

// Leaves files like those of tests/data/blobs in the build folder, for the next version to be kept beside them.
TEST_F(BlobVersions, files_of_this_version_can_be_made_again) {
  const std::filesystem::path folder = std::filesystem::path(WKV_BINARY_DIR) / "blobs";
  std::filesystem::create_directories(folder);
  Cache cache = make_cache();
  write_file(folder / "v1_f32.wkv", serialize(cache, WKV_TYPE_F32));
  write_file(folder / "v1_f16.wkv", serialize(cache, WKV_TYPE_F16));
  Sampler sampler = make_sampler();
  std::vector<float> logits = make_logits();
  Session session;
  session.cache = cache;
  session.sampler = sampler;
  session.logits = logits.data();
  session.logits_count = logits.size();
  write_file(folder / "v1_session.wkv", serialize(session));
  Sampler always = forced(265);  // "aa"
  Generation generation = make_generation(cache, always);
  text_of(generation, 4);
  Session talk;
  talk.generation = generation;
  write_file(folder / "v1_generation.wkv", serialize(talk));
  for (const char *name : {"v1_f32.wkv", "v1_f16.wkv", "v1_session.wkv", "v1_generation.wkv"})
    EXPECT_EQ(std::filesystem::file_size(folder / name), std::filesystem::file_size(file(name))) << name;
}

}  // namespace
}  // namespace libwkv::test
