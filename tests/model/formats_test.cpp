// SPDX-License-Identifier: Apache-2.0
// Rounded and quantised files give the logits of their own rounded weights: weights are narrow, arithmetic is not.
#include <string>
#include <tuple>

#include "support/golden.h"
#include "support/handles.h"

namespace libwkv::test {
namespace {

struct RoundedFile {
  const char *model;
  const char *file;
  const char *case_name;
};

constexpr RoundedFile rounded_files[] = {
    {"tiny", "tiny.F16.gguf", "fmt_gguf_F16"},
    {"tiny", "tiny.BF16.gguf", "fmt_gguf_BF16"},
    {"tiny", "tiny.Q4_0.gguf", "fmt_gguf_Q4_0"},
    {"tiny", "tiny.Q4_1.gguf", "fmt_gguf_Q4_1"},
    {"tiny", "tiny.Q4_K.gguf", "fmt_gguf_Q4_K"},
    {"tiny", "tiny.Q5_0.gguf", "fmt_gguf_Q5_0"},
    {"tiny", "tiny.Q5_1.gguf", "fmt_gguf_Q5_1"},
    {"tiny", "tiny.Q6_K.gguf", "fmt_gguf_Q6_K"},
    {"tiny", "tiny.Q8_0.gguf", "fmt_gguf_Q8_0"},
    {"tiny", "tiny.bf16.pth", "fmt_pth_bf16"},
    {"tiny", "tiny.f16.pth", "fmt_pth_f16"},
    {"tiny", "fla_sharded_f16", "fmt_pth_f16"},
    {"tiny", "tiny-rwkv-7v0-834K-FP16.bin", "fmt_rwkvcpp_FP16"},
    {"tiny", "tiny-rwkv-7v0-834K-Q5_0.bin", "fmt_rwkvcpp_Q5_0"},
    {"tiny", "tiny-rwkv-7v0-834K-Q5_1.bin", "fmt_rwkvcpp_Q5_1"},
    {"rnd_a", "rnd_a.F16.gguf", "fmt_gguf_F16"},
    {"rnd_a", "rnd_a.BF16.gguf", "fmt_gguf_BF16"},
    {"rnd_a", "rnd_a.Q4_0.gguf", "fmt_gguf_Q4_0"},
    {"rnd_a", "rnd_a.Q5_1.gguf", "fmt_gguf_Q5_1"},
    {"rnd_a", "rnd_a.Q8_0.gguf", "fmt_gguf_Q8_0"},
    {"rnd_a", "rnd_a.f16.pth", "fmt_pth_f16"},
    {"rnd_a", "rnd_a.bf16.pth", "fmt_pth_bf16"},
    {"rnd_d", "rnd_d.Q4_0.gguf", "fmt_gguf_Q4_0"},
    {"rnd_d", "rnd_d.Q4_K.gguf", "fmt_gguf_Q4_K"},
    {"rnd_d", "rnd_d.Q5_1.gguf", "fmt_gguf_Q5_1"},
    {"rnd_d", "rnd_d.Q6_K.gguf", "fmt_gguf_Q6_K"},
    {"rnd_d", "rnd_d.Q8_0.gguf", "fmt_gguf_Q8_0"},
    {"rnd_d", "rnd_d.bf16.pth", "fmt_pth_bf16"},
};

// The case with the noise of these weights; len33 has the same tokens and nearly the same weights.
std::string noise_case(const RoundedFile &file) {
  std::string own = std::string(file.model) + "/" + file.case_name;
  return row_noise(own).is_null() ? std::string(file.model) + "/len33" : own;
}

class RoundedFiles : public testing::TestWithParam<std::tuple<RoundedFile, const char *, bool>> {};

TEST_P(RoundedFiles, give_the_logits_of_their_own_weights) {
  auto [file, kernels, reproducible] = GetParam();
  std::vector<std::string> usable = usable_kernels();
  if (std::find(usable.begin(), usable.end(), kernels) == usable.end())
    GTEST_SKIP() << kernels << " kernels do not run on this machine";
  std::filesystem::path path = golden_directory(file.model) / "weights" / file.file;
  if (golden_directory(file.model).empty() || !std::filesystem::exists(path))
    GTEST_SKIP() << "no " << file.file << " here";
  wkv_model_options options = default_options();
  options.threads = 2;
  options.kernels = kernels;
  options.is_reproducible = reproducible;
  Model model = load_model(path, options);
  ASSERT_NE(model.get(), nullptr);
  wkv_model_info info = info_of(model);
  GoldenCase golden(file.model, file.case_name);
  std::vector<int32_t> tokens = golden.integers("tokens");
  std::vector<float> expected = golden.floats("logits_all");
  size_t vocab_size = static_cast<size_t>(info.vocab_size);
  auto expect_row = [&](size_t t, std::span<const float> found, const std::string &what) {
    std::span<const float> row = std::span(expected).subspan(t * vocab_size, vocab_size);
    EXPECT_LE(largest_difference(found, row), row_tolerance(noise_case(file), t, row)) << "token " << t << what;
  };

  Cache whole = create_cache(model);
  std::vector<float> all = step(info, model, whole, tokens, true);
  for (size_t t = 0; t < tokens.size(); t++)
    expect_row(t, std::span(all).subspan(t * vocab_size, vocab_size), " of the whole");

  Cache slow = create_cache(model);
  for (size_t t = 0; t < tokens.size(); t++)
    expect_row(t, step(info, model, slow, std::span(tokens).subspan(t, 1)), " alone");

  // several rows that read the same weights, as a batched decode does
  constexpr size_t rows = 5;
  std::vector<Cache> caches;
  for (size_t row = 0; row < rows; row++) caches.push_back(create_cache(model));
  std::vector<std::vector<float>> logits(rows, std::vector<float>(vocab_size));
  for (size_t t = 0; t < tokens.size(); t++) {
    std::vector<wkv_step_item> items(rows);
    for (size_t row = 0; row < rows; row++) {
      items[row].struct_size = sizeof items[row];
      items[row].cache = caches[row];
      items[row].tokens = &tokens[t];
      items[row].tokens_count = 1;
      items[row].logits = logits[row].data();
      items[row].logits_count = vocab_size;
    }
    Failure failure;
    WKV_ASSERT_STATUS(WKV_OK, wkv_model_step(model, items.data(), rows, &failure), failure);
    for (size_t row = 0; row < rows; row++) expect_row(t, logits[row], " in row " + std::to_string(row));
  }
}

INSTANTIATE_TEST_SUITE_P(model, RoundedFiles,
                         testing::Combine(testing::ValuesIn(rounded_files),
                                          testing::Values("scalar", "avx2", "avx512", "neon"), testing::Bool()),
                         [](const auto &test) {
                           RoundedFile file = std::get<0>(test.param);
                           return plain_name(std::string(file.model) + "_" + file.file + "_" + std::get<1>(test.param) +
                                             (std::get<2>(test.param) ? "_reproducible" : ""));
                         });

// What a conversion must cost, measured on the golden vectors: `similar` was made from the same weights by rounding to
// the same type (a little more of the model than weight_type rounds).
struct Conversion {
  const char *model;
  const char *file;
  wkv_type type;
  const char *similar;  // NULL: the weights are exact in the type, so nothing may change
};

constexpr Conversion conversions[] = {
    {"tiny", "tiny.F32.gguf", WKV_TYPE_F32, nullptr},
    {"tiny", "tiny.F32.gguf", WKV_TYPE_BF16, nullptr},
    {"tiny", "tiny.BF16.gguf", WKV_TYPE_F32, nullptr},
    {"tiny", "tiny.f32.pth", WKV_TYPE_Q8, "fmt_gguf_Q8_0"},
    {"tiny", "fla_bf16", WKV_TYPE_Q4, "fmt_gguf_Q4_0"},
    {"rnd_a", "rnd_a.F32.gguf", WKV_TYPE_F16, nullptr},
    {"rnd_a", "rnd_a.F32.gguf", WKV_TYPE_BF16, nullptr},
    {"rnd_a", "rnd_a.f16.pth", WKV_TYPE_F32, nullptr},
    {"rnd_a", "rnd_a.bf16.pth", WKV_TYPE_F16, nullptr},
    {"rnd_a", "rnd_a.f32.pth", WKV_TYPE_Q8, "fmt_gguf_Q8_0"},
    {"rnd_a", "rnd_a.F16.gguf", WKV_TYPE_Q8, "fmt_gguf_Q8_0"},
    {"rnd_a", "rnd_a.BF16.gguf", WKV_TYPE_Q4, "fmt_gguf_Q4_0"},
    {"rnd_a", "fla_f32", WKV_TYPE_Q4, "fmt_gguf_Q4_0"},
    {"rnd_d", "rnd_d.F32.gguf", WKV_TYPE_BF16, "fmt_pth_bf16"},
    {"rnd_d", "rnd_d.f32.pth", WKV_TYPE_Q8, "fmt_gguf_Q8_0"},
    {"rnd_d", "rnd_d.F32.gguf", WKV_TYPE_Q4, "fmt_gguf_Q4_0"},
};

class Conversions : public testing::TestWithParam<Conversion> {};

TEST_P(Conversions, cost_no_more_than_the_type) {
  auto [model_name, file, type, similar] = GetParam();
  std::filesystem::path path = golden_directory(model_name) / "weights" / file;
  if (golden_directory(model_name).empty() || !std::filesystem::exists(path)) GTEST_SKIP() << "no " << file << " here";
  wkv_model_options options = default_options();
  options.threads = 2;
  options.weight_type = type;
  Model model = load_model(path, options);
  ASSERT_NE(model.get(), nullptr);
  wkv_model_info info = info_of(model);
  GoldenCase golden(model_name, "len33");
  std::vector<float> exact = golden.floats("logits_all");
  Cache cache = create_cache(model);
  std::vector<float> logits = step(info, model, cache, golden.integers("tokens"), true);
  if (!similar) {
    size_t vocab_size = static_cast<size_t>(info.vocab_size);
    for (size_t t = 0; t * vocab_size < exact.size(); t++) {
      std::span<const float> row = std::span(exact).subspan(t * vocab_size, vocab_size);
      EXPECT_LE(largest_difference(std::span(logits).subspan(t * vocab_size, vocab_size), row),
                row_tolerance(golden.name(), t, row))
          << "token " << t;
    }
    return;
  }
  std::vector<float> rounded = GoldenCase(model_name, similar).floats("logits_all");
  double typical = root_mean_square(rounded, exact), found = root_mean_square(logits, exact);
  EXPECT_LE(found, 1.5 * typical) << "more is lost than rounding to the type explains";
  EXPECT_GE(found, 0.2 * typical) << "nothing was converted";
}

std::string conversion_name(const testing::TestParamInfo<Conversion> &test) {
  return plain_name(std::string(test.param.model) + "_" + test.param.file + "_to_" + type_name(test.param.type));
}
INSTANTIATE_TEST_SUITE_P(model, Conversions, testing::ValuesIn(conversions), conversion_name);

// Widening changes no value: the quantised file's own vectors still hold.
TEST(Widening, of_a_quantised_file_keeps_its_values) {
  for (auto [model_name, file, case_name] : {std::tuple{"rnd_a", "rnd_a.Q8_0.gguf", "fmt_gguf_Q8_0"},
                                             {"rnd_a", "rnd_a.Q4_0.gguf", "fmt_gguf_Q4_0"},
                                             {"rnd_d", "rnd_d.Q4_K.gguf", "fmt_gguf_Q4_K"},
                                             {"rnd_d", "rnd_d.Q6_K.gguf", "fmt_gguf_Q6_K"}}) {
    std::filesystem::path path = golden_directory(model_name) / "weights" / file;
    if (golden_directory(model_name).empty() || !std::filesystem::exists(path)) continue;
    wkv_model_options options = default_options();
    options.weight_type = WKV_TYPE_F32;
    Model model = load_model(path, options);
    wkv_model_info info = info_of(model);
    GoldenCase golden(model_name, case_name);
    std::vector<float> expected = golden.floats("logits_all");
    Cache cache = create_cache(model);
    std::vector<float> logits = step(info, model, cache, golden.integers("tokens"), true);
    size_t vocab_size = static_cast<size_t>(info.vocab_size);
    for (size_t t = 0; t * vocab_size < expected.size(); t++) {
      std::span<const float> row = std::span(expected).subspan(t * vocab_size, vocab_size);
      EXPECT_LE(largest_difference(std::span(logits).subspan(t * vocab_size, vocab_size), row),
                row_tolerance(golden.name(), t, row))
          << file << " token " << t;
    }
  }
}

TEST(Conversion, names_must_be_known) {
  std::filesystem::path path = exact_weights("rnd_a");
  for (wkv_type type : {-1, 6, 1000}) {
    wkv_model_options options = default_options();
    options.weight_type = type;
    wkv_model *model = nullptr;
    Failure failure;
    wkv_status status = wkv_model_load(path.c_str(), &options, &model, &failure);
    EXPECT_TRUE(status == WKV_INVALID || status == WKV_UNSUPPORTED) << status << failure.message;
    EXPECT_EQ(model, nullptr);
  }
}

}  // namespace
}  // namespace libwkv::test
