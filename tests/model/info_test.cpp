// SPDX-License-Identifier: Apache-2.0
// What a model says about itself is what its file holds, and bad arguments of loading change nothing.
#include <climits>
#include <string>

#include "support/golden.h"
#include "support/handles.h"

namespace libwkv::test {
namespace {

std::filesystem::path weights(const char *model, const char *file) {
  return golden_directory(model) / "weights" / file;
}

TEST(ModelInfo, has_the_shapes_of_the_file) {
  struct Shape {
    const char *model, *file, *format;
    int32_t layers, width, heads, vocab_size, ffn_width, w, a, v, g;
  };
  for (const Shape &shape :
       {Shape{"tiny", "tiny.F32.gguf", "gguf", 12, 64, 1, 256, 256, 32, 32, 32, 32},
        Shape{"tiny", "tiny-rwkv-7v0-834K-FP32.bin", "rwkv.cpp", 12, 64, 1, 256, 256, 32, 32, 32, 32},
        Shape{"reverse", "reverse.f32.pth", "pth", 2, 128, 2, 12, 128, 8, 8, 8, 9},
        Shape{"rnd_a", "fla_f32", "safetensors", 2, 64, 1, 331, 256, 32, 32, 32, 32},
        Shape{"rnd_a", "pth_variants/legacy_not_zip.pth", "pth legacy", 2, 64, 1, 331, 256, 32, 32, 32, 32},
        Shape{"rnd_d", "rnd_d.Q4_K.gguf", "gguf", 2, 256, 4, 1003, 1024, 64, 32, 32, 96}}) {
    if (golden_directory(shape.model).empty() || !std::filesystem::exists(weights(shape.model, shape.file))) continue;
    wkv_model_options options = default_options();
    options.threads = 3;
    options.device = "cpu";
    Model model = load_model(weights(shape.model, shape.file), options);
    wkv_model_info info = info_of(model);
    SCOPED_TRACE(shape.file);
    EXPECT_STREQ(info.format, shape.format);
    EXPECT_EQ(info.layers, shape.layers);
    EXPECT_EQ(info.width, shape.width);
    EXPECT_EQ(info.heads, shape.heads);
    EXPECT_EQ(info.head_size, shape.width / shape.heads);
    EXPECT_EQ(info.ffn_width, shape.ffn_width);
    EXPECT_EQ(info.vocab_size, shape.vocab_size);
    EXPECT_EQ(info.rank_w, shape.w);
    EXPECT_EQ(info.rank_a, shape.a);
    EXPECT_EQ(info.rank_v, shape.v);
    EXPECT_EQ(info.rank_g, shape.g);
    EXPECT_EQ(info.threads, 3);
    EXPECT_EQ(info.chunk_tokens, 512);
    EXPECT_EQ(info.state_type, WKV_TYPE_F32);
    EXPECT_STREQ(info.device, "cpu");
    EXPECT_EQ(std::string(info.kernels), usable_kernels().front());
    // numbers used: layer 0 has no value residual
    int64_t c = shape.width, f = shape.ffn_width, l = shape.layers;
    int64_t ranks = shape.w + shape.a + shape.v + shape.g;
    int64_t layer =
        4 * c * c + 2 * c * f + 2 * c * ranks +
        (4 /* norms */ + 6 /* x_ */ + 5 /* w0 a0 v0 k_k k_a */ + 1 /* r_k */ + 2 /* ln_x */ + 1 /* ffn.x_k */) * c;
    int64_t expected = l * layer - (2 * c * shape.v + c) + 2 * c * shape.vocab_size + 4 * c /* ln0, ln_out */;
    EXPECT_EQ(static_cast<int64_t>(info.parameters), expected);
    EXPECT_EQ(info.state_bytes, static_cast<uint64_t>(l * (2 * c + c * info.head_size)) * sizeof(float));
    EXPECT_GE(info.weight_bytes, info.mapped_bytes);
    EXPECT_GE(info.weight_bytes, info.step_bytes);
    EXPECT_GT(info.step_bytes, 0u);
    EXPECT_LE(memory_of(model).weights_bytes, memory_of(model).total_bytes);
    EXPECT_EQ(memory_of(model).weights_bytes, info.weight_bytes);
  }
}

// All but the embedding table is read for a token; in float32 that is 4 bytes a number.
TEST(ModelInfo, counts_the_bytes_of_a_token) {
  if (!std::filesystem::exists(weights("rnd_a", "rnd_a.F32.gguf"))) GTEST_SKIP() << "no float32 file here";
  Model model = load_model(weights("rnd_a", "rnd_a.F32.gguf"));
  wkv_model_info info = info_of(model);
  uint64_t expected =
      (info.parameters - static_cast<uint64_t>(info.width) * static_cast<uint64_t>(info.vocab_size)) * 4;
  EXPECT_NEAR(static_cast<double>(info.step_bytes), static_cast<double>(expected),
              0.02 * static_cast<double>(expected));
}

TEST(ModelInfo, fingerprint_tells_models_apart) {
  Model a = load_model(exact_weights("rnd_a")), again = load_model(exact_weights("rnd_a"));
  EXPECT_EQ(info_of(a).fingerprint, info_of(again).fingerprint);
  EXPECT_NE(info_of(a).fingerprint, 0u);
  if (golden_directory("rnd_d").empty()) GTEST_SKIP() << "no golden model rnd_d here";
  EXPECT_NE(info_of(a).fingerprint, info_of(load_model(weights("rnd_d", "rnd_d.Q8_0.gguf"))).fingerprint);
}

TEST(ModelLoad, refuses_bad_options_and_changes_nothing) {
  std::string path = exact_weights("rnd_a");
  auto expect = [&](wkv_status expected, auto &&change) {
    wkv_model_options options = default_options();
    change(options);
    wkv_model *const untouched = reinterpret_cast<wkv_model *>(&options);
    wkv_model *model = untouched;
    Failure failure;
    WKV_EXPECT_STATUS(expected, wkv_model_load(path.c_str(), &options, &model, &failure), failure);
    EXPECT_EQ(model, untouched);
    EXPECT_STRNE(failure.message, "");
  };
  expect(WKV_INVALID, [](wkv_model_options &o) { o.threads = -1; });
  expect(WKV_INVALID, [](wkv_model_options &o) { o.threads = 257; });
  expect(WKV_INVALID, [](wkv_model_options &o) { o.threads = INT_MIN; });
  expect(WKV_INVALID, [](wkv_model_options &o) { o.chunk_tokens = -1; });
  expect(WKV_INVALID, [](wkv_model_options &o) { o.chunk_tokens = 4097; });
  expect(WKV_NOT_FOUND, [](wkv_model_options &o) { o.device = "cuda:7"; });
  expect(WKV_NOT_FOUND, [](wkv_model_options &o) { o.device = "CPU"; });
  expect(WKV_OUT_OF_MEMORY, [](wkv_model_options &o) { o.memory_limit_bytes = 1000; });
  expect(WKV_INVALID, [](wkv_model_options &o) { o.struct_size = 0; });
  expect(WKV_INVALID, [](wkv_model_options &o) { o.struct_size = sizeof o - 4; });

  wkv_model *model = nullptr;
  Failure failure;
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_load(nullptr, nullptr, &model, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_load(path.c_str(), nullptr, nullptr, &failure), failure);
  WKV_EXPECT_STATUS(WKV_NOT_FOUND, wkv_model_load((path + ".gone").c_str(), nullptr, &model, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_load_memory(nullptr, 100, nullptr, &model, &failure), failure);
  WKV_EXPECT_STATUS(WKV_INVALID, wkv_model_load_memory("x", 1, nullptr, nullptr, &failure), failure);
  EXPECT_EQ(model, nullptr);
}

TEST(ModelLoad, takes_an_option_struct_of_the_future) {
  struct {
    wkv_model_options options;
    unsigned char more[64];
  } future{};
  future.options.struct_size = sizeof future;
  future.options.threads = 1;
  Model model;
  Failure failure;
  std::string path = exact_weights("rnd_a");
  WKV_EXPECT_STATUS(WKV_OK, wkv_model_load(path.c_str(), &future.options, model.out(), &failure), failure);
  future.more[63] = 1;
  wkv_model *none = nullptr;
  WKV_EXPECT_STATUS(WKV_UNSUPPORTED, wkv_model_load(path.c_str(), &future.options, &none, &failure), failure);
}

// The same content through a buffer, at an address that has no alignment at all.
TEST(ModelLoad, from_memory_equals_from_a_file) {
  GoldenCase golden("rnd_a", "len33");
  std::vector<int32_t> tokens = golden.integers("tokens");
  for (const char *file : {"rnd_a.F32.gguf", "rnd_a.bf16.pth", "rnd_a.Q8_0.gguf", "fla_bf16/model.safetensors"}) {
    if (!std::filesystem::exists(weights("rnd_a", file))) continue;
    SCOPED_TRACE(file);
    std::vector<std::byte> content = read_file(weights("rnd_a", file));
    for (size_t shift : {size_t{0}, size_t{1}, size_t{6}}) {
      std::vector<std::byte> moved(content.size() + shift);
      std::copy(content.begin(), content.end(), moved.begin() + static_cast<ptrdiff_t>(shift));
      const wkv_model_options options = default_options();
      Model memory;
      Failure failure;
      wkv_status status = wkv_model_load_memory(moved.data() + shift, content.size(), &options, memory.out(), &failure);
      WKV_ASSERT_STATUS(WKV_OK, status, failure);
      Model mapped = load_model(weights("rnd_a", file));
      Cache a = create_cache(memory), b = create_cache(mapped);
      EXPECT_EQ(step(info_of(memory), memory, a, tokens), step(info_of(mapped), mapped, b, tokens))
          << "shift " << shift;
    }
  }
}

struct ProgressLog {
  std::vector<std::pair<uint64_t, uint64_t>> calls;
  size_t cancel_at = SIZE_MAX;
};
int32_t log_progress(void *user, uint64_t done_bytes, uint64_t total_bytes) {
  ProgressLog *log = static_cast<ProgressLog *>(user);
  log->calls.emplace_back(done_bytes, total_bytes);
  return log->calls.size() > log->cancel_at;
}

TEST(Progress, rises_to_the_total_and_cancels) {
  for (const char *file : {"rnd_a.F32.gguf", "rnd_a.bf16.pth", "fla_sharded_f16"}) {
    if (!std::filesystem::exists(weights("rnd_a", file))) continue;
    for (wkv_type type : {WKV_TYPE_DEFAULT, WKV_TYPE_Q8}) {
      SCOPED_TRACE(file);
      ProgressLog log;
      wkv_model_options options = default_options();
      options.weight_type = type;
      options.progress = log_progress;
      options.progress_user = &log;
      load_model(weights("rnd_a", file), options);
      ASSERT_GE(log.calls.size(), 40u) << "at least once a tensor";
      for (size_t i = 0; i < log.calls.size(); i++) {
        EXPECT_EQ(log.calls[i].second, log.calls[0].second);
        EXPECT_LE(log.calls[i].first, log.calls[i].second);
        EXPECT_GE(log.calls[i].first, log.calls[i ? i - 1 : 0].first);
      }
      EXPECT_EQ(log.calls.back().first, log.calls.back().second);

      size_t calls = log.calls.size();
      for (size_t cancel_at : {size_t{0}, calls / 2, calls - 1}) {
        ProgressLog cancelled;
        cancelled.cancel_at = cancel_at;
        options.progress_user = &cancelled;
        wkv_model *model = nullptr;
        Failure failure;
        WKV_EXPECT_STATUS(WKV_CANCELLED, wkv_model_load(weights("rnd_a", file).c_str(), &options, &model, &failure),
                          failure);
        EXPECT_EQ(model, nullptr);
        EXPECT_EQ(cancelled.calls.size(), cancel_at + 1) << "called again after it had cancelled";
      }
    }
  }
}

}  // namespace
}  // namespace libwkv::test
