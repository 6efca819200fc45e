// SPDX-License-Identifier: Apache-2.0
// A session goes on in another process as if it had never been interrupted, wherever it was; and bytes that no
// generation wrote are refused.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "api/handles.h"
#include "base/byte_stream.h"
#include "engine/generation.h"
#include "text/decoder.h"
#include "text/generation_support.h"
#include "text/sampler.h"

namespace libwkv::test {
namespace {

constexpr int breaks = 21, tokens_after = 200;
constexpr const char *directory_variable = "WKV_TEST_SESSIONS";

RandomModel make_model() { return RandomModel(odd_shape, WKV_TYPE_F32, default_options()); }

// How a generation goes on, in words that can be compared: every piece, and the state where it ends.
std::string told(const wkv_model_info &info, wkv_generation *generation, wkv_cache *cache, int pieces) {
  std::ostringstream out;
  Piece piece;
  Failure failure;
  wkv_status status = WKV_OK;
  for (int i = 0; i < pieces && status == WKV_OK; i++) {
    status = wkv_generation_next(generation, &piece, &failure);
    out << wkv_status_name(status) << ' ' << piece.token << ' ' << piece.reason << ' ' << piece.pending_token << ' '
        << piece.tokens_generated << ' ' << piece.prompt_tokens << ' ' << std::hexfloat << piece.log_probability << ' '
        << piece.alternatives_count << ' ';
    for (int32_t a = 0; a < piece.alternatives_count; a++) out << piece.alternatives[a].token << ' ';
    for (size_t b = 0; b < piece.text_bytes; b++) out << std::hex << static_cast<int>(piece.text[b] & 255) << '.';
    out << '|';
    for (size_t b = 0; b < piece.unread_bytes; b++) out << static_cast<int>(piece.unread_text[b] & 255) << '.';
    out << std::dec << '\n';
  }
  const Snapshot snapshot = snapshot_of(info, cache);
  out << snapshot.position << ' ' << snapshot.last_token << ' ' << std::hexfloat;
  for (const auto &part : snapshot.parts)
    for (const float value : part) out << value << ' ';
  return out.str();
}

void write_text(const std::filesystem::path &path, const std::string &text) {
  std::ofstream(path, std::ios::binary) << text;
}
std::string read_text(const std::filesystem::path &path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// The other process: goes on with every session of a folder and writes down how.
int go_on_elsewhere(const std::filesystem::path &directory) {
  const RandomModel model = make_model();
  const Tokenizer tokenizer = load_vocabulary(rough_vocabulary());
  for (const auto &file : std::filesystem::directory_iterator(directory)) {
    if (file.path().extension() != ".session") continue;
    wkv_session session{};
    session.struct_size = sizeof session;
    session.tokenizer = tokenizer;
    Failure failure;
    if (wkv_session_load(model.model, file.path().c_str(), &session, &failure) != WKV_OK) {
      std::fprintf(stderr, "%s: %s\n", file.path().c_str(), failure.message);
      return 1;
    }
    const Cache cache(session.cache);
    const Sampler sampler(session.sampler);
    const Generation generation(session.generation);
    std::filesystem::path to = file.path();
    write_text(to.replace_extension(".told"), told(model.info, generation, cache, tokens_after));
  }
  return 0;
}

bool run_elsewhere(const std::filesystem::path &directory) {
  const pid_t child = fork();
  if (child == 0) {
    setenv(directory_variable, directory.c_str(), 1);
    execl("/proc/self/exe", "test_text", static_cast<char *>(nullptr));
    _exit(127);
  }
  int status = -1;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

struct TemporaryFolder {
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "wkv_sessions_XXXXXX").string();
    path = mkdtemp(name.data()) ? name : "";
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path.empty()) std::filesystem::remove_all(path, ignored);
  }
  std::filesystem::path path;
};

struct Case {
  std::string name;
  std::vector<const char *> stops;
  bool keeps_stop_string = false, accepts_prompt = false, is_greedy = false;
  int32_t max_tokens = breaks + tokens_after;
  uint64_t seed = 1;
};

std::vector<Case> cases() {
  return {
      {"free", {}},
      // never complete, and held back again and again
      {"held", {"aaaaaaa aa!", "b\nb!", "\xe2\x82\xac!", "\n\n\n\n\n\n!", "\xef\xbf\xbd\xef\xbf\xbd!"}, false, true},
      // complete some time, mostly after the break; the second may have begun before it
      {"stopped", {"\n\na", "aaaab", "\xe2\x82\xac\xe2\x82\xac"}, false, false, false, breaks + tokens_after, 2},
      {"stopped_late", {"aaaaaab", "bbb", " b aa"}, false, false, false, breaks + tokens_after, 3},
      {"kept", {"\n\na", "b b"}, true, false, false, breaks + tokens_after, 4},
      {"greedy", {"zz"}, false, false, true},
      {"short", {"a!", "\n!"}, false, true, false, 12, 6},
  };
}

class GenerationSession : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(model_.model.get(), nullptr);
    tokenizer_ = load_vocabulary(rough_vocabulary());
  }

  struct Running {
    Cache cache;
    Sampler sampler;
    Generation generation;
  };
  Running start(const Case &c) {
    Running running;
    running.cache = create_cache(model_.model);
    if (!c.is_greedy) running.sampler = rough_sampler(c.seed, 1.5f);
    wkv_generation_options o = generation_options(tokenizer_, "a b aa", c.max_tokens);
    o.stop_strings = c.stops.data();
    o.stop_strings_count = c.stops.size();
    o.keeps_stop_string = c.keeps_stop_string;
    o.accepts_prompt = c.accepts_prompt;
    o.alternatives_count = 3;
    EXPECT_EQ(wkv_generation_create(running.cache, running.sampler, &o, running.generation.out(), &failure_), WKV_OK)
        << failure_.message;
    return running;
  }
  std::vector<std::byte> saved(wkv_generation *generation) {
    ByteWriter writer;
    generation->object->save(writer);
    return writer.take();
  }

  RandomModel model_ = make_model();
  Tokenizer tokenizer_;
  Failure failure_;
};

TEST_F(GenerationSession, goes_on_in_another_process_from_wherever_it_was) {
  const TemporaryFolder folder;
  ASSERT_FALSE(folder.path.empty());
  std::vector<std::pair<std::filesystem::path, std::string>> expected;
  int unfinished_characters = 0, half_stops = 0, ended = 0, stopped_later = 0;
  for (const Case &c : cases()) {
    for (int at = 0; at < breaks; at++) {
      Running running = start(c);
      std::string raw, text;
      Piece piece;
      for (int i = 0; i < at; i++) {
        const wkv_status status = wkv_generation_next(running.generation, &piece, &failure_);
        ASSERT_GE(status, WKV_OK) << failure_.message;
        text.append(piece.text, piece.text_bytes);
        if (piece.token > 0) raw += decode(tokenizer_, {piece.token});
      }
      const std::filesystem::path path = folder.path / (c.name + std::to_string(at) + ".session");
      wkv_session session{};
      session.struct_size = sizeof session;
      session.generation = running.generation;
      WKV_ASSERT_STATUS(WKV_OK, wkv_session_save(&session, path.c_str(), nullptr, &failure_), failure_);
      std::string whole;
      Utf8Stream stream;
      stream.push(raw, whole);
      const bool goes_on = at == 0 || piece.reason == WKV_REASON_NONE;
      unfinished_characters += goes_on && !stream.pending().empty();
      half_stops += goes_on && whole.size() > text.size();
      ended += !goes_on;
      std::filesystem::path told_path = path;
      expected.emplace_back(told_path.replace_extension(".told"),
                            told(model_.info, running.generation, running.cache, tokens_after));
      wkv_generation_next(running.generation, &piece, &failure_);
      stopped_later += goes_on && piece.reason == WKV_REASON_STOP_STRING;
    }
  }
  ASSERT_TRUE(run_elsewhere(folder.path));
  for (const auto &[path, words] : expected) EXPECT_EQ(read_text(path), words) << path;
  EXPECT_GT(unfinished_characters, 5);
  EXPECT_GT(half_stops, 10);
  EXPECT_GT(ended, 3);
  EXPECT_GT(stopped_later, 10);
}

// What has been saved once can be saved again.
TEST_F(GenerationSession, may_be_interrupted_after_every_token) {
  const Case c = cases()[1];
  Running undisturbed = start(c);
  const std::string expected = told(model_.info, undisturbed.generation, undisturbed.cache, 60);
  Running running = start(c);
  std::string together;
  for (int i = 0; i < 60; i++) {
    wkv_session session{};
    session.struct_size = sizeof session;
    session.generation = running.generation;
    size_t bytes_count = 0;
    ASSERT_EQ(wkv_session_serialize(&session, nullptr, nullptr, 0, &bytes_count, &failure_), WKV_OK);
    std::vector<std::byte> bytes(bytes_count);
    ASSERT_EQ(wkv_session_serialize(&session, nullptr, bytes.data(), bytes.size(), &bytes_count, &failure_), WKV_OK)
        << failure_.message;
    session = {};
    session.struct_size = sizeof session;
    session.tokenizer = tokenizer_;
    ASSERT_EQ(wkv_session_deserialize(model_.model, bytes.data(), bytes.size(), &session, &failure_), WKV_OK)
        << failure_.message;
    running.generation.reset(session.generation);
    running.sampler.reset(session.sampler);
    running.cache.reset(session.cache);
    const std::string one = told(model_.info, running.generation, running.cache, 1);
    together += one.substr(0, one.find('\n') + 1);
    if (i == 59) together += one.substr(one.find('\n') + 1);
  }
  EXPECT_EQ(together, expected);
}

// After a failed call the scores of the last token are there, and the token is not to be fed again.
TEST_F(GenerationSession, keeps_scores_that_wait_for_a_choice) {
  for (const int at : {0, 3, 8}) {
    Case c = cases()[1];
    c.accepts_prompt = false;
    Running undisturbed = start(c), running = start(c);
    told(model_.info, undisturbed.generation, undisturbed.cache, at);
    told(model_.info, running.generation, running.cache, at);
    const std::string expected = told(model_.info, undisturbed.generation, undisturbed.cache, 30);
    const auto model = model_.model.get()->object;
    const auto cache = running.cache.get()->object;
    const auto sampler = running.sampler.get()->object;
    const auto tokenizer = tokenizer_.get()->object;
    std::vector<std::byte> bytes = saved(running.generation);
    ByteReader reader(bytes, "generation");
    libwkv::SamplerOptions nothing_left;
    nothing_left.ids_end = 1;
    nothing_left.banned = {0};
    const auto blocked = libwkv::Generation::restore(reader, model, cache,
                                                     std::make_shared<libwkv::Sampler>(nothing_left, 1), tokenizer);
    reader.expect_end();
    wkv_generation_piece piece{};
    EXPECT_THROW(blocked->next(piece), Error);
    ByteWriter writer;
    blocked->save(writer);
    bytes = writer.take();
    ByteReader again(bytes, "generation");
    wkv_generation handle{libwkv::Generation::restore(again, model, cache, sampler, tokenizer)};
    again.expect_end();
    EXPECT_EQ(told(model_.info, &handle, running.cache, 30), expected);
  }
}

TEST_F(GenerationSession, asks_for_the_parts_it_had) {
  Running running = start(cases()[1]);
  const std::vector<std::byte> bytes = saved(running.generation);
  const auto restore = [&](std::shared_ptr<libwkv::Sampler> sampler,
                           std::shared_ptr<const libwkv::Tokenizer> tokenizer) -> wkv_status {
    ByteReader reader(bytes, "generation");
    try {
      libwkv::Generation::restore(reader, model_.model.get()->object, running.cache.get()->object, std::move(sampler),
                                  std::move(tokenizer));
    } catch (const Error &error) {
      return error.status();
    }
    return WKV_OK;
  };
  EXPECT_EQ(restore(running.sampler.get()->object, tokenizer_.get()->object), WKV_OK);
  EXPECT_EQ(restore(nullptr, tokenizer_.get()->object), WKV_NOT_FOUND);
  EXPECT_EQ(restore(running.sampler.get()->object, nullptr), WKV_NOT_FOUND);
}

// Every bit turned and every end cut off: refused, or a generation that runs.
TEST_F(GenerationSession, damaged_bytes_are_refused_or_harmless) {
  size_t refused = 0, harmless = 0;
  for (const Case &c : {cases()[1], cases()[2]}) {
    for (const int at : {0, 5, 9, 13}) {
      Running running = start(c);
      Piece piece;
      for (int i = 0; i < at; i++) wkv_generation_next(running.generation, &piece, &failure_);
      const std::vector<std::byte> bytes = saved(running.generation);
      const auto try_out = [&](const std::vector<std::byte> &damaged) {
        const auto cache = running.cache.get()->object->copy();
        ByteReader reader(damaged, "generation");
        try {
          auto generation = libwkv::Generation::restore(reader, model_.model.get()->object, cache,
                                                        rough_sampler(1).get()->object, tokenizer_.get()->object);
          reader.expect_end();
          wkv_generation_piece values{};
          for (int i = 0; i < 3; i++) generation->next(values);
          harmless++;
        } catch (const Error &error) {
          EXPECT_TRUE(error.status() == WKV_FORMAT || error.status() == WKV_UNSUPPORTED ||
                      error.status() == WKV_NOT_FOUND)
              << error.what();
          refused++;
        }
      };
      // What a kept state's floats are may be anything finite: sampled.
      const size_t step_bits = bytes.size() > 4096 ? 997 : 1;
      for (size_t bit = 0; bit < 8 * bytes.size(); bit += bit < 8 * 700 ? 1 : step_bits) {
        std::vector<std::byte> damaged = bytes;
        damaged[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        try_out(damaged);
      }
      for (size_t length = 0; length < bytes.size(); length += length < 700 ? 1 : step_bits)
        try_out({bytes.begin(), bytes.begin() + static_cast<long>(length)});
      std::vector<std::byte> longer = bytes;
      longer.push_back({});
      try_out(longer);
    }
  }
  EXPECT_GT(refused, 1000u);
  EXPECT_GT(harmless, 100u);
}

}  // namespace
}  // namespace libwkv::test

// As the process that a session goes on in, this executable runs no tests.
int main(int count, char **arguments) {
  if (const char *directory = std::getenv(libwkv::test::directory_variable))
    return libwkv::test::go_on_elsewhere(directory);
  testing::InitGoogleTest(&count, arguments);
  return RUN_ALL_TESTS();
}
