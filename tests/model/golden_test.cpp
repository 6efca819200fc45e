// SPDX-License-Identifier: Apache-2.0
// Every file that holds exactly the golden weights gives the golden logits, likelihoods and states, in every kernel
// set, in one call and token by token.
#include <string>
#include <tuple>

#include "support/golden.h"
#include "support/handles.h"

namespace libwkv::test {
namespace {

// A weights file and the golden cases that its weights satisfy exactly.
struct ExactFile {
  const char *model;
  const char *file;
};

constexpr const char *sequence_cases[] = {"len1",           "len7",    "len16",    "len33",    "len200",
                                          "len1024",        "digits3", "digits20", "digits60", "rwkvcpp_quote_in",
                                          "random_bytes_64"};

// tiny was trained in bfloat16, rnd_a is exact in both 16-bit types, reverse and rnd_d are float32.
constexpr ExactFile exact_files[] = {
    {"tiny", "tiny.F32.gguf"},
    {"tiny", "tiny.BF16.gguf"},
    {"tiny", "tiny.f32.pth"},
    {"tiny", "tiny.bf16.pth"},
    {"tiny", "fla_f32"},
    {"tiny", "fla_bf16"},
    {"tiny", "fla_xx_bf16"},
    {"tiny", "tiny-rwkv-7v0-834K-FP32.bin"},
    {"reverse", "reverse.F32.gguf"},
    {"reverse", "reverse.f32.pth"},
    {"reverse", "fla_f32"},
    {"rnd_a", "rnd_a.F32.gguf"},
    {"rnd_a", "rnd_a.F32.no_l0_v.gguf"},
    {"rnd_a", "rnd_a.F16.gguf"},
    {"rnd_a", "rnd_a.BF16.gguf"},
    {"rnd_a", "rnd_a.f32.pth"},
    {"rnd_a", "rnd_a.f16.pth"},
    {"rnd_a", "rnd_a.bf16.pth"},
    {"rnd_a", "fla_f32"},
    {"rnd_a", "fla_bf16"},
    {"rnd_a", "fla_xx_bf16"},
    {"rnd_a", "fla_sharded_f16"},
    {"rnd_a", "pth_variants/layer0_dummy_v.pth"},
    {"rnd_a", "pth_variants/legacy_not_zip.pth"},
    {"rnd_a", "pth_variants/mixed_dtypes.pth"},
    {"rnd_a", "pth_variants/newer_torch_records.pth"},
    {"rnd_a", "pth_variants/noncontiguous_strides.pth"},
    {"rnd_a", "pth_variants/one_shared_storage_offsets.pth"},
    {"rnd_a", "pth_variants/ordered_dict.pth"},
    {"rnd_a", "pth_variants/ordered_dict_metadata.pth"},
    {"rnd_a", "pth_variants/parameters.pth"},
    {"rnd_a", "pth_variants/squeezed_vectors.pth"},
    {"rnd_d", "rnd_d.F32.gguf"},
    {"rnd_d", "rnd_d.f32.pth"},
};

bool has_case(const std::string &model, const std::string &name) {
  return std::filesystem::exists(golden_directory(model) / "golden" / (name + ".json"));
}

// For rows whose own noise was not measured: the worst of the rows that were, of any exact case of the model.
double allowed_in_any_row(const std::string &model, std::span<const float> logits) {
  double worst = 0;
  for (const char *name : {"len1", "len7", "len16", "len33", "digits3"}) {
    const nlohmann::json &noise = row_noise(model + "/" + name);
    if (noise.is_null()) continue;
    for (double row : noise.at("rows")) worst = std::max(worst, row);
  }
  return 3 * worst + rounding(logits);
}

// Negative log likelihood of each next token.
std::vector<double> nll_of(std::span<const float> logits, size_t vocab_size, std::span<const int32_t> tokens) {
  std::vector<double> result;
  for (size_t t = 0; t + 1 < tokens.size(); t++) {
    std::span<const float> row = logits.subspan(t * vocab_size, vocab_size);
    double largest = *std::max_element(row.begin(), row.end()), sum = 0;
    for (float value : row) sum += std::exp(value - largest);
    result.push_back(largest + std::log(sum) - row[static_cast<size_t>(tokens[t + 1])]);
  }
  return result;
}

void expect_state(const GoldenCase &golden, const wkv_model_info &info, wkv_cache *cache) {
  Snapshot snapshot = snapshot_of(info, cache);
  const char *names[] = {"state_att_shift", "state_ffn_shift", "state_wkv"};
  const Quantity quantities[] = {Quantity::att_shift, Quantity::ffn_shift, Quantity::wkv};
  for (wkv_state_part part = 0; part < 3; part++) {
    std::vector<float> expected = golden.floats(names[part]);
    EXPECT_LE(largest_difference(snapshot.parts[part], expected), tolerance(golden.name(), quantities[part], expected))
        << golden.name() << " " << names[part];
  }
}

void expect_row(const GoldenCase &golden, size_t row, std::span<const float> expected, std::span<const float> found) {
  EXPECT_LE(largest_difference(found, expected), row_tolerance(golden.name(), row, expected))
      << golden.name() << " token " << row;
}

void expect_rows(const GoldenCase &golden, std::span<const float> expected, std::span<const float> found,
                 size_t vocab_size) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t row = 0; row * vocab_size < expected.size(); row++)
    expect_row(golden, row, expected.subspan(row * vocab_size, vocab_size),
               found.subspan(row * vocab_size, vocab_size));
}

void expect_argmax(const GoldenCase &golden, std::span<const float> logits, size_t vocab_size, double allowed) {
  std::vector<int32_t> expected = golden.integers("argmax_all");
  for (size_t t = 0; t < expected.size(); t++) {
    std::span<const float> row = logits.subspan(t * vocab_size, vocab_size);
    size_t best = static_cast<size_t>(std::max_element(row.begin(), row.end()) - row.begin());
    // two scores closer than the tolerance may change places
    EXPECT_LE(row[best] - row[static_cast<size_t>(expected[t])], 2 * allowed)
        << golden.name() << " token " << t << ": " << best << " instead of " << expected[t];
  }
}

void check_sequence(const std::string &model_name, const std::string &case_name, wkv_model *model) {
  GoldenCase golden(model_name, case_name);
  wkv_model_info info = info_of(model);
  size_t vocab_size = static_cast<size_t>(info.vocab_size);
  std::vector<int32_t> tokens = golden.integers("tokens");
  std::vector<float> expected_last = golden.floats("logits_last");
  double allowed = tolerance(golden.name(), Quantity::logits, expected_last);

  Cache whole = create_cache(model);
  EXPECT_LE(largest_difference(step(info, model, whole, tokens), expected_last), allowed) << golden.name() << " whole";
  expect_state(golden, info, whole);
  EXPECT_EQ(info_of(whole).position, tokens.size());
  EXPECT_EQ(info_of(whole).last_token, tokens.back());

  Cache every = create_cache(model);
  std::vector<float> logits = step(info, model, every, tokens, true);
  EXPECT_LE(largest_difference(std::span(logits).last(vocab_size), expected_last), allowed) << golden.name() << " all";
  if (golden.has("logits_all")) expect_rows(golden, golden.floats("logits_all"), logits, vocab_size);
  double any_row = allowed_in_any_row(model_name, logits);
  if (golden.has("argmax_all")) expect_argmax(golden, logits, vocab_size, any_row);
  if (golden.has("nll")) {
    std::vector<double> nll = nll_of(logits, vocab_size, tokens);
    std::vector<float> expected = golden.floats("nll");
    ASSERT_EQ(nll.size(), expected.size());
    for (size_t t = 0; t < nll.size(); t++)
      EXPECT_NEAR(nll[t], expected[t], 2 * any_row) << golden.name() << " nll of token " << t;
  }

  // A long case token by token once more: decode and prefill are different code.
  if (tokens.size() > 200) return;
  Cache slow = create_cache(model);
  for (size_t t = 0; t < tokens.size(); t++) {
    std::vector<float> one = step(info, model, slow, std::span(tokens).subspan(t, 1));
    if (golden.has("logits_all")) {
      std::vector<float> all = golden.floats("logits_all");
      expect_row(golden, t, std::span(all).subspan(t * vocab_size, vocab_size), one);
    }
    if (t + 1 == tokens.size()) {
      EXPECT_LE(largest_difference(one, expected_last), allowed) << golden.name() << " one by one";
    }
  }
  expect_state(golden, info, slow);
}

void check_from_state(const std::string &model_name, wkv_model *model) {
  GoldenCase golden(model_name, "from_state");
  wkv_model_info info = info_of(model);
  std::vector<int32_t> tokens = golden.integers("tokens");
  const char *names[] = {"init_att_shift", "init_ffn_shift", "init_wkv"};
  Cache caches[] = {create_cache(model), create_cache(model)};
  for (const Cache &cache : caches)
    for (wkv_state_part part = 0; part < 3; part++) {
      std::vector<float> values = golden.floats(names[part]);
      size_t size = part_size(info, part);
      ASSERT_EQ(values.size(), size * static_cast<size_t>(info.layers));
      for (int32_t layer = 0; layer < info.layers; layer++) {
        Failure failure;
        WKV_ASSERT_STATUS(WKV_OK,
                          wkv_cache_write_state(cache, layer, part, values.data() + static_cast<size_t>(layer) * size,
                                                size, &failure),
                          failure);
      }
    }
  std::vector<float> expected = golden.floats("logits_all");
  size_t vocab_size = static_cast<size_t>(info.vocab_size);
  expect_rows(golden, expected, step(info, model, caches[0], tokens, true), vocab_size);
  expect_state(golden, info, caches[0]);
  for (size_t t = 0; t < tokens.size(); t++)
    expect_row(golden, t, std::span(expected).subspan(t * vocab_size, vocab_size),
               step(info, model, caches[1], std::span(tokens).subspan(t, 1)));
  expect_state(golden, info, caches[1]);
}

void check_all_cases(const std::string &model_name, wkv_model *model) {
  int checked = 0;
  for (const char *name : sequence_cases)
    if (has_case(model_name, name)) {
      check_sequence(model_name, name, model);
      checked++;
    }
  ASSERT_GE(checked, 2) << "golden cases of " << model_name << " are missing";
  check_from_state(model_name, model);
}

class ExactFiles : public testing::TestWithParam<ExactFile> {};

TEST_P(ExactFiles, give_the_golden_values) {
  auto [model_name, file] = GetParam();
  std::filesystem::path path = golden_directory(model_name) / "weights" / file;
  if (golden_directory(model_name).empty() || !std::filesystem::exists(path)) GTEST_SKIP() << "no " << file << " here";
  wkv_model_options options = default_options();
  options.threads = 2;
  Model model = load_model(path, options);
  ASSERT_NE(model.get(), nullptr);
  check_all_cases(model_name, model);
}

std::string name_of_file(const testing::TestParamInfo<ExactFile> &test) {
  return plain_name(std::string(test.param.model) + "_" + test.param.file);
}
INSTANTIATE_TEST_SUITE_P(model, ExactFiles, testing::ValuesIn(exact_files), name_of_file);

// Kernel sets by name, and the reproducible mode of each, on every golden model.
class KernelSets : public testing::TestWithParam<std::tuple<const char *, const char *, bool>> {};

TEST_P(KernelSets, give_the_golden_values) {
  auto [model_name, kernels, reproducible] = GetParam();
  if (!can_run(kernels)) GTEST_SKIP() << kernels << " kernels do not run on this machine";
  std::filesystem::path directory = golden_directory(model_name);
  if (directory.empty()) GTEST_SKIP() << "no golden model " << model_name << " here";
  wkv_model_options options = default_options();
  options.threads = 3;
  choose(options, kernels);
  options.is_reproducible = reproducible;
  // With narrower matrices a GPU rounds the activations of many rows: tests/device says how much.
  if (std::string(kernels) == "cuda" && !reproducible) options.weight_type = WKV_TYPE_F32;
  Model model = load_model(exact_weights(model_name), options);
  ASSERT_NE(model.get(), nullptr);
  EXPECT_EQ(std::string(info_of(model).kernels).substr(0, std::strlen(kernels)), kernels);
  EXPECT_EQ(info_of(model).is_reproducible, reproducible ? 1 : 0);
  check_all_cases(model_name, model);
}

INSTANTIATE_TEST_SUITE_P(model, KernelSets,
                         testing::Combine(testing::Values("tiny", "reverse", "rnd_a", "rnd_d"),
                                          testing::Values("scalar", "avx2", "avx512", "neon", "cuda"), testing::Bool()),
                         [](const auto &test) {
                           return std::string(std::get<0>(test.param)) + "_" + std::get<1>(test.param) +
                                  (std::get<2>(test.param) ? "_reproducible" : "");
                         });

TEST(KernelNames, must_be_known) {
  wkv_model_options options = default_options();
  wkv_model *const untouched = reinterpret_cast<wkv_model *>(&options);
  for (const char *name : {"sse9", "AVX2", "avx2 ", "avx"}) {
    wkv_model *model = untouched;
    Failure failure;
    options.kernels = name;
    WKV_EXPECT_STATUS(WKV_NOT_FOUND, wkv_model_load(exact_weights("rnd_a").c_str(), &options, &model, &failure),
                      failure);
    EXPECT_EQ(model, untouched);
    EXPECT_NE(std::string(failure.message).find(name), std::string::npos) << failure.message;
  }
}

TEST(KernelNames, scalar_is_always_usable) {
  std::vector<std::string> usable = usable_kernels();
  EXPECT_EQ(usable.back(), "scalar");
}

TEST(Likelihood, of_a_text_is_that_of_the_reference) {
  if (golden_directory("tiny").empty()) GTEST_SKIP() << "no golden texts here";
  for (auto [model_name, case_name] :
       {std::pair{"tiny", "nll_text"}, {"rnd_a", "nll_random"}, {"rnd_d", "nll_random"}}) {
    if (!has_case(model_name, case_name)) continue;
    GoldenCase golden(model_name, case_name);
    Model model = load_model(exact_weights(model_name));
    wkv_model_info info = info_of(model);
    std::vector<int32_t> tokens = golden.integers("tokens");
    Cache cache = create_cache(model);
    std::vector<float> logits = step(info, model, cache, tokens, true);
    std::vector<double> nll = nll_of(logits, static_cast<size_t>(info.vocab_size), tokens);
    std::vector<float> expected = golden.floats("nll");
    ASSERT_EQ(nll.size(), expected.size());
    double allowed = 2 * allowed_in_any_row(model_name, logits);
    double sum = 0;
    for (size_t t = 0; t < nll.size(); t++) {
      EXPECT_NEAR(nll[t], expected[t], allowed) << golden.name() << " token " << t;
      sum += nll[t];
    }
    EXPECT_NEAR(sum / static_cast<double>(nll.size()), golden.meta().at("mean_nll").get<double>(), allowed)
        << golden.name();
  }
}

TEST(OtherEngine, agrees_on_its_own_prompt) {
  std::filesystem::path directory = golden_directory("tiny");
  if (directory.empty()) GTEST_SKIP() << "no golden model tiny here";
  GoldenCase golden("tiny", "rwkvcpp_quote_in");
  std::vector<std::byte> bytes = read_file(directory / "golden/rwkvcpp_expected_logits.bin");
  std::vector<float> expected(bytes.size() / sizeof(float));
  std::memcpy(expected.data(), bytes.data(), bytes.size());
  Model model = load_model(directory / "weights/tiny-rwkv-7v0-834K-FP32.bin");
  wkv_model_info info = info_of(model);
  Cache cache = create_cache(model);
  std::vector<int32_t> tokens = golden.integers("tokens");
  double theirs = largest_difference(golden.floats("logits_last"), expected);  // that engine is a float32 one as well
  EXPECT_LE(largest_difference(step(info, model, cache, tokens), expected),
            tolerance(golden.name(), Quantity::logits, expected) + theirs);
}

}  // namespace
}  // namespace libwkv::test
