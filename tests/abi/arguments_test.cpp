// SPDX-License-Identifier: Apache-2.0
// Wrong arguments of every function: the promised status, one line of text, and nothing changed.
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <vector>

#include "support/handles.h"

namespace libwkv::test {
namespace {

const std::string story_path = std::string(WKV_SOURCE_DIR) + "/examples/models/tales-8m.gguf";
constexpr float marker = 12345.f;
constexpr size_t huge = std::numeric_limits<size_t>::max();

template <class Struct>
Struct sized() {
  Struct value{};
  value.struct_size = sizeof value;
  return value;
}

// A struct from a later version of the headers: more fields than the library knows.
template <class Struct>
struct Later {
  Struct known;
  unsigned char tail[24];
};

// Calls with `valid` of a wrong struct_size: none, a smaller one, a later one whose new field is used. Each must be
// refused and leave the struct alone. A later struct with unused new fields must be accepted, and its tail stay zero.
template <class Struct, class Call>
void check_struct_sizes(const Struct &valid, Call &&call) {
  Later<Struct> value{valid, {}};
  const auto attempt = [&](uint32_t size, unsigned char tail) {
    value = {valid, {}};
    value.known.struct_size = size;
    value.tail[sizeof value.tail - 1] = tail;
    Later<Struct> before;
    std::memcpy(&before, &value, sizeof before);
    Failure failure;
    wkv_status status = call(&value.known, &failure);
    if (status < 0) {
      EXPECT_EQ(std::memcmp(&before, &value, sizeof before), 0) << "struct_size " << size << ": something was written";
      EXPECT_EQ(failure.status, status);
      EXPECT_NE(failure.message[0], 0);
    }
    return status;
  };
  const uint32_t later = static_cast<uint32_t>(sizeof(Later<Struct>));
  EXPECT_EQ(attempt(0, 0), WKV_INVALID);
  EXPECT_EQ(attempt(static_cast<uint32_t>(sizeof(Struct)) - 1, 0), WKV_INVALID);
  EXPECT_EQ(attempt(4, 0), WKV_INVALID);
  EXPECT_EQ(attempt(later, 1), WKV_UNSUPPORTED);
  EXPECT_GE(attempt(later, 0), WKV_OK);
  EXPECT_EQ(value.known.struct_size, later) << "the caller's struct_size is the caller's";
  for (unsigned char byte : value.tail) EXPECT_EQ(byte, 0);
}

class Arguments : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    Failure failure;
    model_ = new Model;
    ASSERT_EQ(wkv_model_load(story_path.c_str(), nullptr, model_->out(), &failure), WKV_OK) << failure.message;
    info_ = info_of(model_->get());
  }
  static void TearDownTestSuite() {
    delete model_;
    model_ = nullptr;
  }
  void SetUp() override {
    Failure failure;
    cache_ = create_cache(model());
    const int32_t tokens[] = {5, 6, 7};
    ASSERT_EQ(wkv_cache_step(cache_, tokens, 3, nullptr, 0, &failure), WKV_OK) << failure.message;
    before_ = snapshot_of(info_, cache_);
    ASSERT_EQ(wkv_model_get_tokenizer(model(), tokenizer_.out(), &failure), WKV_OK) << failure.message;
    ASSERT_EQ(wkv_sampler_create(nullptr, sampler_.out(), &failure), WKV_OK) << failure.message;
    logits_.assign(vocab(), marker);
  }
  void TearDown() override {
    EXPECT_EQ(snapshot_of(info_, cache_), before_) << "the cache was changed";
    for (float value : logits_) ASSERT_EQ(value, marker) << "logits were written";
  }

  // The call fails as promised, and says so in one line.
  template <class Call>
  void refused(wkv_status expected, Call &&call) {
    Failure failure;
    wkv_status status = call(&failure);
    EXPECT_STREQ(wkv_status_name(status), wkv_status_name(expected)) << failure.message;
    EXPECT_EQ(failure.status, status);
    const std::string message(failure.message);
    EXPECT_FALSE(message.empty());
    EXPECT_EQ(message.find_first_of("\n\r\t"), std::string::npos) << message;
    last_message_ = message;
    EXPECT_EQ(call(nullptr), expected) << "without an error struct";
    Failure small;
    small.struct_size = 8;
    EXPECT_EQ(call(&small), WKV_INVALID);
    EXPECT_EQ(small.message[0], 0) << "written beyond its struct_size";
  }

  static wkv_model *model() { return model_->get(); }
  static size_t vocab() { return static_cast<size_t>(info_.vocab_size); }

  static Model *model_;
  static wkv_model_info info_;
  Cache cache_;
  Snapshot before_;
  Tokenizer tokenizer_;
  Sampler sampler_;
  std::vector<float> logits_;
  std::string last_message_;
};
Model *Arguments::model_ = nullptr;
wkv_model_info Arguments::info_{};

TEST_F(Arguments, release_takes_null) {
  wkv_model_release(nullptr);
  wkv_cache_release(nullptr);
  wkv_tokenizer_release(nullptr);
  wkv_decoder_release(nullptr);
  wkv_sampler_release(nullptr);
  wkv_generation_release(nullptr);
}

TEST_F(Arguments, every_status_has_a_name) {
  for (wkv_status status = WKV_INTERNAL; status <= WKV_END; status++)
    EXPECT_STRNE(wkv_status_name(status), "WKV_STATUS_UNKNOWN") << status;
  for (wkv_status status : {2, -12, INT32_MIN, INT32_MAX}) EXPECT_STREQ(wkv_status_name(status), "WKV_STATUS_UNKNOWN");
}

TEST_F(Arguments, device) {
  auto info = sized<wkv_device_info>();
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_device_get_info(0, nullptr, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_device_get_info(wkv_device_count(), &info, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_device_get_info(huge, &info, e); });
  EXPECT_EQ(info.name[0], 0);
  check_struct_sizes(info, [](wkv_device_info *i, wkv_error *e) { return wkv_device_get_info(0, i, e); });
}

TEST_F(Arguments, model_load) {
  wkv_model *const untouched = reinterpret_cast<wkv_model *>(&logits_);
  wkv_model *out = untouched;
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_load(nullptr, nullptr, &out, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_load(story_path.c_str(), nullptr, nullptr, e); });
  refused(WKV_NOT_FOUND, [&](wkv_error *e) { return wkv_model_load("/no/such/file", nullptr, &out, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_load_memory(nullptr, 10, nullptr, &out, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_load_memory("GGUF", 4, nullptr, nullptr, e); });
  EXPECT_LT(wkv_model_load_memory("GGUF", 0, nullptr, &out, nullptr), 0);
  EXPECT_LT(wkv_model_load_memory("GGUF", 4, nullptr, &out, nullptr), 0);
  const auto with = [&](wkv_status expected, auto &&change) {
    auto options = sized<wkv_model_options>();
    change(options);
    refused(expected, [&](wkv_error *e) { return wkv_model_load(story_path.c_str(), &options, &out, e); });
  };
  with(WKV_INVALID, [](auto &o) { o.threads = -1; });
  with(WKV_INVALID, [](auto &o) { o.threads = 257; });
  with(WKV_INVALID, [](auto &o) { o.weight_type = 99; });
  with(WKV_INVALID, [](auto &o) { o.weight_type = -1; });
  with(WKV_INVALID, [](auto &o) { o.chunk_tokens = -1; });
  with(WKV_INVALID, [](auto &o) { o.chunk_tokens = 4097; });
  with(WKV_NOT_FOUND, [](auto &o) { o.device = "toaster"; });
  with(WKV_NOT_FOUND, [](auto &o) { o.kernels = "abacus"; });
  EXPECT_NE(last_message_.find("abacus"), std::string::npos) << last_message_;
  with(WKV_OUT_OF_MEMORY, [](auto &o) { o.memory_limit_bytes = 1; });
  with(WKV_CANCELLED, [](auto &o) { o.progress = [](void *, uint64_t, uint64_t) -> int32_t { return 1; }; });
  EXPECT_EQ(out, untouched) << "the output handle was written";
}

TEST_F(Arguments, model_options_of_other_sizes) {
  check_struct_sizes(sized<wkv_model_options>(), [](wkv_model_options *o, wkv_error *e) {
    Model loaded;
    return wkv_model_load(story_path.c_str(), o, loaded.out(), e);
  });
}

TEST_F(Arguments, model_info) {
  auto info = sized<wkv_model_info>();
  auto memory = sized<wkv_memory_info>();
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_get_info(nullptr, &info, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_get_info(model(), nullptr, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_get_memory(nullptr, &memory, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_get_memory(model(), nullptr, e); });
  check_struct_sizes(info, [](wkv_model_info *i, wkv_error *e) { return wkv_model_get_info(model(), i, e); });
  check_struct_sizes(memory, [](wkv_memory_info *i, wkv_error *e) { return wkv_model_get_memory(model(), i, e); });
}

TEST_F(Arguments, cache) {
  wkv_cache *const untouched = reinterpret_cast<wkv_cache *>(&logits_);
  wkv_cache *out = untouched;
  auto info = sized<wkv_cache_info>();
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_create(nullptr, nullptr, &out, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_create(model(), nullptr, nullptr, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_copy(nullptr, &out, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_copy(cache_, nullptr, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_assign(nullptr, cache_, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_assign(cache_, nullptr, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_reset(nullptr, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_park(nullptr, e); });
  {
    auto tensor = sized<wkv_device_tensor>();
    void *stream = nullptr;
    refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_get_tensor(nullptr, 0, 0, &tensor, e); });
    refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_get_stream(nullptr, &stream, e); });
    refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_get_stream(model(), nullptr, e); });
  }
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_get_info(nullptr, &info, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_get_info(cache_, nullptr, e); });
  EXPECT_EQ(out, untouched);
  check_struct_sizes(info, [&](wkv_cache_info *i, wkv_error *e) { return wkv_cache_get_info(cache_, i, e); });
  check_struct_sizes(sized<wkv_cache_options>(), [&](wkv_cache_options *o, wkv_error *e) {
    Cache created;
    return wkv_cache_create(model(), o, created.out(), e);
  });
}

TEST_F(Arguments, cache_of_another_model) {
  Model other = load_model(story_path);
  Cache foreign = create_cache(other);
  refused(WKV_MISMATCH, [&](wkv_error *e) { return wkv_cache_assign(cache_, foreign, e); });
}

TEST_F(Arguments, cache_state) {
  const size_t width = static_cast<size_t>(info_.width), wkv = part_size(info_, WKV_STATE_WKV);
  std::vector<float> values(wkv, marker);
  const auto read = [&](wkv_cache *c, int32_t layer, int32_t part, float *v, size_t n) {
    refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_read_state(c, layer, part, v, n, e); });
  };
  read(nullptr, 0, WKV_STATE_ATT_SHIFT, values.data(), width);
  read(cache_, -1, WKV_STATE_ATT_SHIFT, values.data(), width);
  read(cache_, info_.layers, WKV_STATE_ATT_SHIFT, values.data(), width);
  read(cache_, INT32_MAX, WKV_STATE_ATT_SHIFT, values.data(), width);
  read(cache_, 0, -1, values.data(), wkv);
  read(cache_, 0, 3, values.data(), wkv);
  read(cache_, 0, WKV_STATE_ATT_SHIFT, nullptr, width);
  read(cache_, 0, WKV_STATE_ATT_SHIFT, values.data(), width - 1);
  read(cache_, 0, WKV_STATE_WKV, values.data(), wkv - 1);
  for (float value : values) ASSERT_EQ(value, marker);

  std::fill(values.begin(), values.end(), 0.5f);
  const auto write = [&](wkv_cache *c, int32_t layer, int32_t part, const float *v, size_t n) {
    refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_write_state(c, layer, part, v, n, e); });
  };
  write(nullptr, 0, WKV_STATE_ATT_SHIFT, values.data(), width);
  write(cache_, -1, WKV_STATE_ATT_SHIFT, values.data(), width);
  write(cache_, info_.layers, WKV_STATE_ATT_SHIFT, values.data(), width);
  write(cache_, 0, 3, values.data(), wkv);
  write(cache_, 0, WKV_STATE_WKV, nullptr, wkv);
  write(cache_, 0, WKV_STATE_ATT_SHIFT, values.data(), width - 1);
  write(cache_, 0, WKV_STATE_ATT_SHIFT, values.data(), width + 1);
  write(cache_, 0, WKV_STATE_WKV, values.data(), huge);
  for (float bad : {NAN, INFINITY, -INFINITY}) {
    values[wkv - 1] = bad;
    write(cache_, 0, WKV_STATE_WKV, values.data(), wkv);
  }
}

TEST_F(Arguments, cache_step) {
  const int32_t good[] = {1, 2, 3};
  const auto step = [&](wkv_cache *c, const int32_t *tokens, size_t count, float *logits, size_t logits_count) {
    refused(WKV_INVALID, [&](wkv_error *e) { return wkv_cache_step(c, tokens, count, logits, logits_count, e); });
  };
  step(nullptr, good, 3, logits_.data(), vocab());
  step(cache_, nullptr, 3, logits_.data(), vocab());
  step(cache_, good, 0, logits_.data(), vocab());
  step(cache_, good, huge, logits_.data(), vocab());
  step(cache_, good, 3, logits_.data(), vocab() - 1);
  step(cache_, good, 3, logits_.data(), 0);
  for (int32_t bad : {-1, info_.vocab_size, INT32_MIN, INT32_MAX}) {
    const int32_t tokens[] = {1, 2, bad};
    step(cache_, tokens, 3, logits_.data(), vocab());
    EXPECT_NE(last_message_.find(std::to_string(bad)), std::string::npos) << last_message_;
    EXPECT_NE(last_message_.find(std::to_string(info_.vocab_size)), std::string::npos) << last_message_;
  }
}

TEST_F(Arguments, model_step) {
  const int32_t tokens[] = {1, 2, 3};
  Cache second = create_cache(model());
  int32_t next = -7;
  wkv_step_item items[2] = {sized<wkv_step_item>(), sized<wkv_step_item>()};
  const auto restore = [&] {
    for (int i = 0; i < 2; i++) {
      items[i] = sized<wkv_step_item>();
      items[i].cache = i ? second.get() : cache_.get();
      items[i].tokens = tokens;
      items[i].tokens_count = 3;
      items[i].logits = logits_.data();
      items[i].logits_count = vocab();
    }
    items[1].logits = nullptr;
    items[1].logits_count = 0;
  };
  // The second item is at fault; the first says so by WKV_OK and is not computed either.
  const auto with = [&](wkv_status expected, auto &&change) {
    restore();
    change(items[1]);
    refused(expected, [&](wkv_error *e) { return wkv_model_step(model(), items, 2, e); });
    EXPECT_EQ(items[0].status, WKV_OK);
    EXPECT_EQ(items[1].status, expected);
    EXPECT_EQ(next, -7);
  };
  restore();
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_step(nullptr, items, 2, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_step(model(), nullptr, 2, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_step(model(), items, 65537, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_step(model(), items, huge, e); });
  EXPECT_EQ(wkv_model_step(model(), nullptr, 0, nullptr), WKV_OK);
  with(WKV_INVALID, [](auto &item) { item.cache = nullptr; });
  with(WKV_INVALID, [](auto &item) { item.tokens = nullptr; });
  with(WKV_INVALID, [](auto &item) { item.tokens_count = huge; });
  with(WKV_UNSUPPORTED, [](auto &item) { item.flags = 1u << 20; });
  with(WKV_INVALID, [this](auto &item) { item.cache = cache_; });
  with(WKV_INVALID, [this](auto &item) { item.logits = logits_.data(); });
  with(WKV_INVALID, [this](auto &item) { item.sampler = sampler_; });
  with(WKV_INVALID, [this](auto &item) {
    item.flags = WKV_STEP_ALL_LOGITS;
    item.logits = logits_.data();
    item.logits_count = vocab() * 3 - 1;
  });
  const int32_t outside[] = {1, 2, info_.vocab_size};
  with(WKV_INVALID, [&](auto &item) { item.tokens = outside; });
  Model other = load_model(story_path);
  Cache foreign = create_cache(other);
  with(WKV_MISMATCH, [&](auto &item) { item.cache = foreign; });
  EXPECT_EQ(info_of(second.get()).position, 0u);
  EXPECT_EQ(info_of(foreign.get()).position, 0u);
}

TEST_F(Arguments, tokenizer) {
  wkv_tokenizer *const untouched = reinterpret_cast<wkv_tokenizer *>(&logits_);
  wkv_tokenizer *out = untouched;
  auto info = sized<wkv_tokenizer_info>();
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_tokenizer_load(nullptr, &out, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_tokenizer_load(story_path.c_str(), nullptr, e); });
  refused(WKV_NOT_FOUND, [&](wkv_error *e) { return wkv_tokenizer_load("/no/such/file", &out, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_tokenizer_load_memory(nullptr, 5, &out, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_tokenizer_load_memory("1 'a' 1\n", 8, nullptr, e); });
  refused(WKV_FORMAT, [&](wkv_error *e) { return wkv_tokenizer_load_memory("1 'a' 2\n", 8, &out, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_get_tokenizer(nullptr, &out, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_model_get_tokenizer(model(), nullptr, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_tokenizer_get_info(nullptr, &info, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_tokenizer_get_info(tokenizer_, nullptr, e); });
  EXPECT_EQ(out, untouched);
  check_struct_sizes(info,
                     [&](wkv_tokenizer_info *i, wkv_error *e) { return wkv_tokenizer_get_info(tokenizer_, i, e); });
}

TEST_F(Arguments, tokenizer_encode_and_decode) {
  std::array<int32_t, 16> tokens;
  tokens.fill(-7);
  std::array<char, 16> text;
  text.fill('#');
  size_t count = 0;
  refused(WKV_INVALID,
          [&](wkv_error *e) { return wkv_tokenizer_encode(nullptr, "abc", 3, tokens.data(), 16, &count, e); });
  refused(WKV_INVALID,
          [&](wkv_error *e) { return wkv_tokenizer_encode(tokenizer_, nullptr, 3, tokens.data(), 16, &count, e); });
  refused(WKV_INVALID,
          [&](wkv_error *e) { return wkv_tokenizer_encode(tokenizer_, "abc", 3, nullptr, 16, &count, e); });
  refused(WKV_INVALID,
          [&](wkv_error *e) { return wkv_tokenizer_encode(tokenizer_, "abc", 3, tokens.data(), 16, nullptr, e); });
  EXPECT_EQ(count, 0u);
  const char *sentence = "once upon a time";
  refused(WKV_INVALID,
          [&](wkv_error *e) { return wkv_tokenizer_encode(tokenizer_, sentence, 16, tokens.data(), 1, &count, e); });
  const size_t needed = count;
  EXPECT_GT(needed, 1u);
  for (int32_t token : tokens) ASSERT_EQ(token, -7);
  count = 0;
  wkv_tokenizer_encode(tokenizer_, sentence, 16, nullptr, 0, &count, nullptr);
  EXPECT_EQ(count, needed) << "asking for the size";
  EXPECT_EQ(wkv_tokenizer_encode(tokenizer_, nullptr, 0, tokens.data(), 16, &count, nullptr), WKV_OK);
  EXPECT_EQ(count, 0u);

  const int32_t ids[] = {5, 6, 7}, negative[] = {5, -1};
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_tokenizer_decode(nullptr, ids, 3, text.data(), 16, &count, e); });
  refused(WKV_INVALID,
          [&](wkv_error *e) { return wkv_tokenizer_decode(tokenizer_, nullptr, 3, text.data(), 16, &count, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_tokenizer_decode(tokenizer_, ids, 3, nullptr, 16, &count, e); });
  refused(WKV_INVALID,
          [&](wkv_error *e) { return wkv_tokenizer_decode(tokenizer_, ids, 3, text.data(), 16, nullptr, e); });
  refused(WKV_INVALID,
          [&](wkv_error *e) { return wkv_tokenizer_decode(tokenizer_, negative, 2, text.data(), 16, &count, e); });
  EXPECT_EQ(count, 0u);
  refused(WKV_INVALID,
          [&](wkv_error *e) { return wkv_tokenizer_decode(tokenizer_, ids, 3, text.data(), 2, &count, e); });
  EXPECT_EQ(count, 3u);
  for (char c : text) ASSERT_EQ(c, '#');
  const int32_t silent[] = {0, info_.vocab_size, INT32_MAX};
  EXPECT_EQ(wkv_tokenizer_decode(tokenizer_, silent, 3, text.data(), 16, &count, nullptr), WKV_OK);
  EXPECT_EQ(count, 0u);
}

TEST_F(Arguments, decoder) {
  wkv_decoder *const untouched = reinterpret_cast<wkv_decoder *>(&logits_);
  wkv_decoder *out = untouched;
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_decoder_create(nullptr, &out, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_decoder_create(tokenizer_, nullptr, e); });
  EXPECT_EQ(out, untouched);
  wkv_decoder *decoder = nullptr;
  ASSERT_EQ(wkv_decoder_create(tokenizer_, &decoder, nullptr), WKV_OK);
  const char *text = "kept";
  size_t bytes = 77;
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_decoder_push(nullptr, 5, &text, &bytes, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_decoder_push(decoder, -1, &text, &bytes, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_decoder_push(decoder, 5, nullptr, &bytes, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_decoder_push(decoder, 5, &text, nullptr, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_decoder_finish(nullptr, &text, &bytes, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_decoder_finish(decoder, nullptr, &bytes, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_decoder_finish(decoder, &text, nullptr, e); });
  EXPECT_STREQ(text, "kept");
  EXPECT_EQ(bytes, 77u);
  EXPECT_EQ(wkv_decoder_push(decoder, INT32_MAX, &text, &bytes, nullptr), WKV_OK);
  EXPECT_EQ(bytes, 0u);
  wkv_decoder_release(decoder);
}

TEST_F(Arguments, sampler_create) {
  wkv_sampler *const untouched = reinterpret_cast<wkv_sampler *>(&logits_);
  wkv_sampler *out = untouched;
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_create(nullptr, nullptr, e); });
  const auto with = [&](auto &&change) {
    auto options = sized<wkv_sampler_options>();
    change(options);
    refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_create(&options, &out, e); });
  };
  with([](auto &o) { o.temperature = -1; });
  with([](auto &o) { o.temperature = NAN; });
  with([](auto &o) { o.temperature = INFINITY; });
  with([](auto &o) { o.top_k = -1; });
  with([](auto &o) { o.top_p = -0.1f; });
  with([](auto &o) { o.top_p = 1.1f; });
  with([](auto &o) { o.min_p = -0.1f; });
  with([](auto &o) { o.min_p = 1; });
  with([](auto &o) { o.typical_p = 2; });
  with([](auto &o) { o.repetition = -1; });
  with([](auto &o) { o.presence = NAN; });
  with([](auto &o) { o.frequency = INFINITY; });
  with([](auto &o) { o.penalty_decay = 1.5f; });
  with([](auto &o) { o.ids_end = -1; });
  with([](auto &o) { o.biases_count = 1; });
  with([](auto &o) { o.banned_tokens_count = 1; });
  with([](auto &o) { o.exempt_tokens_count = 1; });
  const wkv_token_bias bad_bias = {3, NAN}, negative = {-1, 1};
  const int32_t bad_token = -1;
  with([&](auto &o) { o.biases = &bad_bias, o.biases_count = 1; });
  with([&](auto &o) { o.biases = &negative, o.biases_count = 1; });
  with([&](auto &o) { o.banned_tokens = &bad_token, o.banned_tokens_count = 1; });
  with([&](auto &o) { o.exempt_tokens = &bad_token, o.exempt_tokens_count = 1; });
  EXPECT_EQ(out, untouched);
  check_struct_sizes(sized<wkv_sampler_options>(), [](wkv_sampler_options *o, wkv_error *e) {
    Sampler created;
    return wkv_sampler_create(o, created.out(), e);
  });
}

TEST_F(Arguments, sampler) {
  const std::vector<float> scores(8, 1.f), nothing(8, NAN);
  std::vector<float> probabilities(8, marker);
  int32_t token = -7;
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_sample(nullptr, scores.data(), 8, &token, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_sample(sampler_, nullptr, 8, &token, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_sample(sampler_, scores.data(), 0, &token, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_sample(sampler_, scores.data(), 8, nullptr, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_sample(sampler_, scores.data(), huge, &token, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_sample(sampler_, nothing.data(), 8, &token, e); });
  EXPECT_EQ(token, -7);
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_accept(nullptr, 1, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_accept(sampler_, -1, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_reset(nullptr, 1, e); });
  float *p = probabilities.data();
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_get_probabilities(nullptr, scores.data(), 8, p, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_get_probabilities(sampler_, nullptr, 8, p, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_sampler_get_probabilities(sampler_, scores.data(), 0, p, e); });
  refused(WKV_INVALID,
          [&](wkv_error *e) { return wkv_sampler_get_probabilities(sampler_, scores.data(), 8, nullptr, e); });
  for (float value : probabilities) ASSERT_EQ(value, marker);
}

TEST_F(Arguments, generation) {
  wkv_generation *const untouched = reinterpret_cast<wkv_generation *>(&logits_);
  wkv_generation *out = untouched;
  auto valid = sized<wkv_generation_options>();
  valid.prompt = "Once";
  valid.prompt_bytes = 4;
  valid.max_tokens = 1;
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_generation_create(nullptr, sampler_, &valid, &out, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_generation_create(cache_, sampler_, &valid, nullptr, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_generation_create(cache_, sampler_, nullptr, &out, e); });
  const auto with = [&](auto &&change) {
    auto options = valid;
    change(options);
    refused(WKV_INVALID, [&](wkv_error *e) { return wkv_generation_create(cache_, sampler_, &options, &out, e); });
  };
  const int32_t bad_tokens[] = {info_.vocab_size}, negative[] = {-1};
  const char *const empty_stop[] = {""}, *const null_stop[] = {nullptr};
  with([](auto &o) { o.max_tokens = -1; });
  with([](auto &o) { o.prompt = nullptr; });
  with([](auto &o) { o.prompt_bytes = 0; });
  with([](auto &o) { o.prompt_tokens_count = 1; });
  with([](auto &o) { o.stop_tokens_count = 1; });
  with([](auto &o) { o.stop_strings_count = 1; });
  with([](auto &o) { o.alternatives_count = -1; });
  with([](auto &o) { o.alternatives_count = 21; });
  with([](auto &o) { o.keeps_stop_string = 2; });
  with([&](auto &o) { o.prompt_tokens = bad_tokens, o.prompt_tokens_count = 1; });
  with([&](auto &o) { o.prompt_tokens = negative, o.prompt_tokens_count = 1; });
  with([&](auto &o) { o.stop_tokens = negative, o.stop_tokens_count = 1; });
  with([&](auto &o) { o.stop_strings = empty_stop, o.stop_strings_count = 1; });
  with([&](auto &o) { o.stop_strings = null_stop, o.stop_strings_count = 1; });
  EXPECT_EQ(out, untouched);
  check_struct_sizes(valid, [&](wkv_generation_options *o, wkv_error *e) {
    Generation created;
    return wkv_generation_create(cache_, sampler_, o, created.out(), e);
  });

  Generation generation;
  Failure failure;
  ASSERT_EQ(wkv_generation_create(cache_, sampler_, &valid, generation.out(), &failure), WKV_OK) << failure.message;
  auto piece = sized<wkv_generation_piece>();
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_generation_next(nullptr, &piece, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_generation_next(generation, nullptr, e); });
  for (uint32_t size : {0u, 4u, static_cast<uint32_t>(offsetof(wkv_generation_piece, reused_tokens)) - 1}) {
    piece = sized<wkv_generation_piece>();
    piece.struct_size = size;
    refused(WKV_INVALID, [&](wkv_error *e) { return wkv_generation_next(generation, &piece, e); });
  }
}

TEST_F(Arguments, convert) {
  const std::string target = testing::TempDir() + "wkv_arguments_target.gguf";
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_convert(nullptr, target.c_str(), nullptr, e); });
  refused(WKV_INVALID, [&](wkv_error *e) { return wkv_convert(story_path.c_str(), nullptr, nullptr, e); });
  refused(WKV_NOT_FOUND, [&](wkv_error *e) { return wkv_convert("/no/such/file", target.c_str(), nullptr, e); });
  auto options = sized<wkv_convert_options>();
  for (int32_t type : {-1, 99, static_cast<int32_t>(WKV_TYPE_Q4)}) {
    options.weight_type = type;
    EXPECT_LT(wkv_convert(story_path.c_str(), target.c_str(), &options, nullptr), 0) << type;
  }
  options.weight_type = WKV_TYPE_DEFAULT;
  options.progress = [](void *, uint64_t, uint64_t) -> int32_t { return 1; };
  refused(WKV_CANCELLED, [&](wkv_error *e) { return wkv_convert(story_path.c_str(), target.c_str(), &options, e); });
  EXPECT_FALSE(std::ifstream(target).good()) << "a target was written";
  check_struct_sizes(sized<wkv_convert_options>(), [&](wkv_convert_options *o, wkv_error *e) {
    wkv_status status = wkv_convert(story_path.c_str(), target.c_str(), o, e);
    std::remove(target.c_str());
    return status;
  });
}

}  // namespace
}  // namespace libwkv::test
