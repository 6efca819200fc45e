// SPDX-License-Identifier: Apache-2.0
// A session goes on as if there had been no break, and its parts are checked like the rest of a blob.
#include <atomic>
#include <cmath>
#include <thread>

#include <sys/wait.h>

#include "state/blob_bytes.h"
#include "text/generation_support.h"

namespace libwkv::test {
namespace {

class Sessions : public testing::Test {
 protected:
  static wkv_model_options one_thread() {
    wkv_model_options options = default_options();
    options.threads = 1;
    options.is_reproducible = 1;
    return options;
  }
  static Sampler busy_sampler(uint64_t seed) {  // every option at work
    wkv_sampler_options o = sampler_options(seed);
    static const wkv_token_bias biases[] = {{3, 0.5f}, {9, -INFINITY}};
    static const int32_t banned[] = {17, 4}, exempt[] = {44, 12, 44};
    o.temperature = 1.3f;
    o.top_k = 100;
    o.top_p = 0.95f;
    o.min_p = 0.001f;
    o.typical_p = 0.99f;
    o.repetition = 1.1f;
    o.presence = 0.3f;
    o.frequency = 0.2f;
    o.penalty_decay = 0.97f;
    o.ids_end = 320;
    o.biases = biases;
    o.biases_count = 2;
    o.banned_tokens = banned;
    o.banned_tokens_count = 2;
    o.exempt_tokens = exempt;
    o.exempt_tokens_count = 3;
    return create_sampler(o);
  }
  std::vector<float> step(wkv_cache *cache, const std::vector<int32_t> &tokens) {
    return test::step(random_.info, random_.model, cache, tokens);
  }
  // Samples and feeds, from scores on.
  std::vector<int32_t> talk(wkv_cache *cache, wkv_sampler *sampler, std::vector<float> logits, size_t count) {
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < count; i++) {
      int32_t token = -1;
      EXPECT_EQ(wkv_sampler_sample(sampler, logits.data(), logits.size(), &token, nullptr), WKV_OK);
      tokens.push_back(token);
      logits = step(cache, {token});
    }
    return tokens;
  }
  static std::vector<int32_t> tokens_of(wkv_generation *generation, size_t count, std::string *text = nullptr) {
    std::vector<int32_t> tokens;
    Piece piece;
    while (tokens.size() < count && wkv_generation_next(generation, &piece, nullptr) == WKV_OK) {
      tokens.push_back(piece.token);
      if (text) text->append(piece.text, piece.text_bytes);
    }
    return tokens;
  }

  RandomModel random_{small_shape, WKV_TYPE_F32, one_thread()};
  Tokenizer tokenizer_ = load_vocabulary(rough_vocabulary());
  Failure failure_;
};

TEST_F(Sessions, go_on_with_sampler_and_scores) {
  Cache cache = create_cache(random_.model);
  Sampler sampler = busy_sampler(7);
  std::vector<float> logits = step(cache, random_tokens(12, 300, 1));
  const std::vector<int32_t> said = talk(cache, sampler, logits, 30);
  logits = step(cache, {said.back()});

  Session session;
  session.cache = cache;
  session.sampler = sampler;
  session.logits = logits.data();
  session.logits_count = logits.size();
  Folder folder;
  WKV_ASSERT_STATUS(WKV_OK, wkv_session_save(&session, (folder / "a").c_str(), nullptr, &failure_), failure_);
  EXPECT_EQ(read_file(folder / "a"), serialize(session));
  const std::vector<int32_t> expected = talk(cache, sampler, logits, 200);

  std::vector<float> again_logits(logits.size() + 1, 5.0f);
  Session again;
  again.logits = again_logits.data();
  again.logits_count = again_logits.size();
  WKV_ASSERT_STATUS(WKV_OK, wkv_session_load(random_.model, (folder / "a").c_str(), &again, &failure_), failure_);
  SessionHandles handles(again);
  EXPECT_EQ(again.has_logits, 1);
  EXPECT_EQ(again.generation, nullptr);
  EXPECT_EQ(again_logits.back(), 5.0f) << "written behind the scores";
  again_logits.pop_back();
  EXPECT_EQ(again_logits, logits);
  EXPECT_EQ(talk(handles.cache, handles.sampler, again_logits, 200), expected);

  BlobInfo info;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_read_header((folder / "a").c_str(), &info, &failure_), failure_);
  EXPECT_EQ(info.has_sampler, 1);
  EXPECT_EQ(info.has_logits, 1);
  EXPECT_EQ(info.has_generation, 0);
}

TEST_F(Sessions, and_caches_read_each_other) {
  Cache cache = create_cache(random_.model);
  step(cache, random_tokens(12, 300, 1));
  Sampler sampler = busy_sampler(3);
  Session session;
  session.cache = cache;
  session.sampler = sampler;
  const Bytes bytes = serialize(session), alone = serialize(cache);
  EXPECT_TRUE(snapshot_of(random_.info, deserialize(random_.model, bytes)) == snapshot_of(random_.info, cache));
  Session again;
  again.has_logits = 77;
  std::vector<float> logits(static_cast<size_t>(small_shape.vocab_size), 5.0f);
  again.logits = logits.data();
  again.logits_count = logits.size();
  WKV_ASSERT_STATUS(WKV_OK, wkv_session_deserialize(random_.model, alone.data(), alone.size(), &again, &failure_),
                    failure_);
  SessionHandles handles(again);
  EXPECT_TRUE(snapshot_of(random_.info, handles.cache) == snapshot_of(random_.info, cache));
  EXPECT_EQ(again.sampler, nullptr);
  EXPECT_EQ(again.generation, nullptr);
  EXPECT_EQ(again.has_logits, 0);
  EXPECT_EQ(logits, std::vector<float>(logits.size(), 5.0f));
}

// At every point of a text with characters and stop strings in pieces, in another process.
TEST_F(Sessions, go_on_in_the_middle_of_a_text) {
  if (std::string(random_.info.device) != "cpu") GTEST_SKIP() << "a process that uses CUDA cannot fork";
  Folder folder;
  const std::string path = folder / "a";
  for (const size_t before : {0, 1, 2, 3, 5, 8, 13, 40}) {
    SCOPED_TRACE("after " + std::to_string(before));
    wkv_generation_options options = generation_options(tokenizer_, "aa\n", 300);
    const char *stops[] = {"ab ab ab", "\n\n\n\n\n\n"};
    options.stop_strings = stops;
    options.stop_strings_count = 2;
    options.accepts_prompt = 1;
    // The first half runs in a process that ends; this one runs it all for comparison.
    const auto begin = [&](Cache &cache, Sampler &sampler, Generation &generation) {
      cache = create_cache(random_.model);
      sampler = rough_sampler(before + 1, 0.5f);
      EXPECT_EQ(wkv_generation_create(cache, sampler, &options, generation.out(), &failure_), WKV_OK)
          << failure_.message;
    };
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      Cache cache;
      Sampler sampler;
      Generation generation;
      begin(cache, sampler, generation);
      tokens_of(generation, before);
      Session session;
      session.generation = generation;
      _exit(wkv_session_save(&session, path.c_str(), nullptr, nullptr) == WKV_OK ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    Cache cache;
    Sampler sampler;
    Generation generation;
    begin(cache, sampler, generation);
    tokens_of(generation, before);

    Session session;
    session.tokenizer = tokenizer_;
    WKV_ASSERT_STATUS(WKV_OK, wkv_session_load(random_.model, path.c_str(), &session, &failure_), failure_);
    SessionHandles handles(session);
    ASSERT_NE(session.generation, nullptr);
    ASSERT_NE(session.sampler, nullptr);
    EXPECT_TRUE(snapshot_of(random_.info, handles.cache) == snapshot_of(random_.info, cache));
    std::string expected, text;
    const std::vector<int32_t> tokens = tokens_of(generation, 200, &expected);
    EXPECT_EQ(tokens_of(handles.generation, 200, &text), tokens);
    EXPECT_EQ(text, expected);
    EXPECT_TRUE(snapshot_of(random_.info, handles.cache) == snapshot_of(random_.info, cache));
    EXPECT_GT(tokens.size(), 20u);
  }
}

TEST_F(Sessions, refuse_parts_that_do_not_belong_together) {
  Cache cache = create_cache(random_.model), other_cache = create_cache(random_.model);
  Sampler sampler = busy_sampler(1), other_sampler = busy_sampler(1);
  wkv_generation_options options = generation_options(tokenizer_, "aa", 10);
  Generation generation, greedy;
  WKV_ASSERT_STATUS(WKV_OK, wkv_generation_create(cache, sampler, &options, generation.out(), &failure_), failure_);
  WKV_ASSERT_STATUS(WKV_OK, wkv_generation_create(cache, nullptr, &options, greedy.out(), &failure_), failure_);
  size_t count = 0;
  Folder folder;
  const auto expect = [&](wkv_status status, const Session &session) {
    WKV_EXPECT_STATUS(status, wkv_session_serialize(&session, nullptr, nullptr, 0, &count, &failure_), failure_);
    WKV_EXPECT_STATUS(status, wkv_session_save(&session, (folder / "a").c_str(), nullptr, &failure_), failure_);
    EXPECT_EQ(folder.files(), status == WKV_OK ? 1u : 0u);
    std::filesystem::remove(folder / "a");
  };
  Session session;
  expect(WKV_INVALID, session);
  session.sampler = sampler;
  expect(WKV_INVALID, session);
  session.generation = generation;
  expect(WKV_OK, session);
  session.cache = cache;
  expect(WKV_OK, session);
  session.cache = other_cache;
  expect(WKV_INVALID, session);
  session.cache = nullptr;
  session.sampler = other_sampler;
  expect(WKV_INVALID, session);
  session.generation = greedy;
  session.sampler = sampler;
  expect(WKV_INVALID, session);
  session.sampler = nullptr;
  expect(WKV_OK, session);
  std::vector<float> logits(static_cast<size_t>(small_shape.vocab_size) + 1);
  session.logits = logits.data();
  for (const size_t wrong : {size_t{0}, logits.size() - 2, logits.size()}) {
    session.logits_count = wrong;
    expect(WKV_INVALID, session);
  }
  session.logits_count = logits.size() - 1;
  expect(WKV_OK, session);
  for (const float bad : {NAN, INFINITY}) {
    logits[3] = bad;
    expect(WKV_INVALID, session);
  }
  session.logits = nullptr;
  expect(WKV_INVALID, session);
}

TEST_F(Sessions, keep_greedy_generations_greedy) {
  Cache cache = create_cache(random_.model);
  wkv_generation_options options = generation_options(nullptr, nullptr, 50);
  const std::vector<int32_t> prompt = random_tokens(6, small_shape.vocab_size, 1);
  options.prompt_tokens = prompt.data();
  options.prompt_tokens_count = prompt.size();
  options.keeps_end_token = 1;
  Generation generation;
  WKV_ASSERT_STATUS(WKV_OK, wkv_generation_create(cache, nullptr, &options, generation.out(), &failure_), failure_);
  tokens_of(generation, 10);
  Session session;
  session.generation = generation;
  const Bytes bytes = serialize(session);
  Session again;
  WKV_ASSERT_STATUS(WKV_OK, wkv_session_deserialize(random_.model, bytes.data(), bytes.size(), &again, &failure_),
                    failure_);
  SessionHandles handles(again);
  EXPECT_EQ(again.sampler, nullptr);
  EXPECT_EQ(tokens_of(handles.generation, 100), tokens_of(generation, 100));
}

TEST_F(Sessions, need_the_tokenizer_of_their_generation) {
  Cache cache = create_cache(random_.model);
  wkv_generation_options options = generation_options(tokenizer_, "aa", 10);
  Generation generation;
  WKV_ASSERT_STATUS(WKV_OK, wkv_generation_create(cache, nullptr, &options, generation.out(), &failure_), failure_);
  Session session;
  session.generation = generation;
  const Bytes bytes = serialize(session);
  Session again;
  WKV_EXPECT_STATUS(WKV_NOT_FOUND,
                    wkv_session_deserialize(random_.model, bytes.data(), bytes.size(), &again, &failure_), failure_);
  EXPECT_EQ(again.cache, nullptr);
  EXPECT_EQ(again.generation, nullptr);
  EXPECT_TRUE(snapshot_of(random_.info, deserialize(random_.model, bytes)) == snapshot_of(random_.info, cache))
      << "the cache can be had alone";
}

TEST_F(Sessions, with_any_bit_turned_are_refused) {
  Cache cache = create_cache(random_.model);
  Sampler sampler = busy_sampler(5);
  std::vector<float> logits = step(cache, random_tokens(4, 300, 1));
  wkv_generation_options options = generation_options(tokenizer_, "aa", 10);
  Generation generation;
  WKV_ASSERT_STATUS(WKV_OK, wkv_generation_create(cache, sampler, &options, generation.out(), &failure_), failure_);
  tokens_of(generation, 3);
  Session session;
  session.generation = generation;
  session.logits = logits.data();
  session.logits_count = logits.size();
  Bytes bytes = serialize(session);
  std::vector<float> kept(logits.size(), 5.0f);
  const uint64_t live = memory_of(random_.model).total_bytes;
  const size_t header_end = get<uint32_t>(bytes, at::header_bytes);
  for (size_t bit = 0; bit < 8 * bytes.size(); bit += bit < 8 * header_end ? 1 : 3) {
    bytes[bit / 8] ^= std::byte(1u << bit % 8);
    Session again;
    again.tokenizer = tokenizer_;
    again.logits = kept.data();
    again.logits_count = kept.size();
    const wkv_status status = wkv_session_deserialize(random_.model, bytes.data(), bytes.size(), &again, &failure_);
    ASSERT_TRUE(status == WKV_FORMAT || status == WKV_UNSUPPORTED) << "bit " << bit << ": " << failure_.message;
    ASSERT_TRUE(!again.cache && !again.sampler && !again.generation && kept[0] == 5.0f) << "bit " << bit;
    wkv_cache *made = nullptr;  // the cache alone is not given out of a damaged session either
    ASSERT_EQ(wkv_cache_deserialize(random_.model, bytes.data(), bytes.size(), &made, nullptr), status);
    bytes[bit / 8] ^= std::byte(1u << bit % 8);
  }
  for (size_t length = 0; length < bytes.size(); length += 1 + length / 300) {
    Session again;
    again.tokenizer = tokenizer_;
    ASSERT_EQ(wkv_session_deserialize(random_.model, bytes.data(), length, &again, nullptr), WKV_FORMAT) << length;
  }
  EXPECT_EQ(memory_of(random_.model).total_bytes, live);
}

// Sections that are signed and lie: whatever is in them, a clean refusal or a session that works.
TEST_F(Sessions, of_lying_writers_do_no_harm) {
  Cache cache = create_cache(random_.model);
  Sampler sampler = busy_sampler(5);
  wkv_generation_options options = generation_options(tokenizer_, "aa", 10);
  const char *stops[] = {"zzz"};
  options.stop_strings = stops;
  options.stop_strings_count = 1;
  Generation generation;
  WKV_ASSERT_STATUS(WKV_OK, wkv_generation_create(cache, sampler, &options, generation.out(), &failure_), failure_);
  tokens_of(generation, 3);
  Session session;
  session.generation = generation;
  const Bytes bytes = serialize(session);
  ASSERT_EQ(get<uint32_t>(bytes, at::sections), 3u);
  for (const size_t section : {1, 2}) {
    const size_t begin = get<uint64_t>(bytes, entry_of(section) + at::offset),
                 size = get<uint64_t>(bytes, entry_of(section) + at::section_bytes);
    for (size_t place = begin; place < begin + size; place += place < begin + 200 ? 1 : 7)
      for (const int32_t value : {0, 1, 0x7f, 0x80, 0xff}) {
        Bytes changed = bytes;
        changed[place] = std::byte(value);
        if (changed == bytes) continue;
        sign_section(changed, section);
        Session again;
        again.tokenizer = tokenizer_;
        const wkv_status status =
            wkv_session_deserialize(random_.model, changed.data(), changed.size(), &again, &failure_);
        ASSERT_TRUE(status == WKV_OK || status == WKV_FORMAT || status == WKV_UNSUPPORTED || status == WKV_NOT_FOUND)
            << "section " << section << " byte " << place - begin << ": " << failure_.message;
        SessionHandles handles(again);
        if (status == WKV_OK) tokens_of(handles.generation, 4);
      }
    // shorter and longer than what is in it
    for (const int delta : {-1, 1}) {
      Bytes changed = bytes;
      if (section != 2) continue;
      changed.resize(static_cast<size_t>(static_cast<int64_t>(changed.size()) + delta));
      put(changed, entry_of(section) + at::section_bytes, size + static_cast<size_t>(delta));
      put(changed, at::bytes, uint64_t{changed.size()});
      sign_section(changed, section);
      Session again;
      again.tokenizer = tokenizer_;
      EXPECT_EQ(wkv_session_deserialize(random_.model, changed.data(), changed.size(), &again, &failure_), WKV_FORMAT);
    }
  }
}

TEST_F(Sessions, check_what_the_caller_wants_first) {
  Cache cache = create_cache(random_.model);
  const Bytes bytes = serialize(cache);
  std::vector<float> logits(static_cast<size_t>(small_shape.vocab_size));
  Session again;
  again.logits = logits.data();
  again.logits_count = logits.size() - 1;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_session_deserialize(random_.model, bytes.data(), bytes.size(), &again, &failure_),
                    failure_);
  again.logits_count = logits.size();
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_session_deserialize(nullptr, bytes.data(), bytes.size(), &again, &failure_),
                    failure_);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_session_load(random_.model, nullptr, &again, &failure_), failure_);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_session_load(random_.model, "a", nullptr, &failure_), failure_);
  WKV_EXPECT_STATUS(WKV_NOT_FOUND, wkv_session_load(random_.model, "/no/such/file", &again, &failure_), failure_);
  again.struct_size = sizeof(wkv_session) - 1;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_session_deserialize(random_.model, bytes.data(), bytes.size(), &again, &failure_),
                    failure_);
  EXPECT_EQ(again.cache, nullptr);
}

// Saving takes part in the exclusive use of what it saves.
TEST_F(Sessions, are_refused_while_a_part_is_busy) {
  Cache cache = create_cache(random_.model);
  const std::vector<int32_t> tokens = random_tokens(400, small_shape.vocab_size, 1);
  std::atomic<bool> is_done{false};
  std::atomic<int> saved{0};
  std::jthread stepper([&] {
    while (!is_done || saved == 0) wkv_cache_step(cache, tokens.data(), tokens.size(), nullptr, 0, nullptr);
  });
  int refused = 0;
  Bytes bytes(20000);
  for (int i = 0; i < 100000 && (refused == 0 || saved == 0); i++) {
    size_t count = 0;
    const wkv_status status = wkv_cache_serialize(cache, bytes.data(), bytes.size(), &count, &failure_);
    ASSERT_TRUE(status == WKV_OK || status == WKV_BUSY) << failure_.message;
    if (status == WKV_BUSY) {
      refused++;
      std::this_thread::yield();
      continue;
    }
    saved++;
    bytes.resize(count);
    EXPECT_EQ(info_of(deserialize(random_.model, bytes)).position % tokens.size(), 0u);
    bytes.resize(20000);
  }
  saved++;
  is_done = true;
  stepper.join();
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace libwkv::test
