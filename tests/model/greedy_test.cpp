// SPDX-License-Identifier: Apache-2.0
// The trained model that reverses digits reverses every digit, in every type and kernel set: the end-to-end check.
#include <string>

#include "support/golden.h"
#include "support/handles.h"

namespace libwkv::test {
namespace {

void expect_reversed(const std::filesystem::path &path, const wkv_model_options &options, const std::string &what) {
  Model model = load_model(path, options);
  ASSERT_NE(model.get(), nullptr) << what;
  wkv_model_info info = info_of(model);
  nlohmann::json cases = nlohmann::json::parse(std::ifstream(golden_directory("reverse") / "golden/greedy_cases.json"));
  for (const nlohmann::json &one : cases.at("cases")) {
    std::vector<int32_t> prompt = one.at("prompt_ids"), expected = one.at("expect_ids"), found;
    Cache cache = create_cache(model);
    std::vector<float> logits = step(info, model, cache, prompt);
    while (found.size() < expected.size()) {
      int32_t best = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      found.push_back(best);
      logits = step(info, model, cache, std::span(&found.back(), 1));
    }
    EXPECT_EQ(found, expected) << what << ": " << one.at("prompt");

    // the same through the pull interface, which ends at the '#'
    Cache fresh = create_cache(model);
    int32_t stop = 11;
    wkv_generation_options generation_options{};
    generation_options.struct_size = sizeof generation_options;
    generation_options.max_tokens = static_cast<int32_t>(expected.size()) + 5;
    generation_options.prompt_tokens = prompt.data();
    generation_options.prompt_tokens_count = prompt.size();
    generation_options.stop_tokens = &stop;
    generation_options.stop_tokens_count = 1;
    generation_options.keeps_end_token = 1;  // id 0 is the digit 0 here
    Generation generation;
    Failure failure;
    WKV_ASSERT_STATUS(WKV_OK, wkv_generation_create(fresh, nullptr, &generation_options, generation.out(), &failure),
                      failure);
    std::vector<int32_t> pulled;
    wkv_generation_piece piece{};
    piece.struct_size = sizeof piece;
    wkv_status status;
    while ((status = wkv_generation_next(generation, &piece, &failure)) == WKV_OK)
      if (piece.token >= 0) pulled.push_back(piece.token);
    EXPECT_EQ(status, WKV_END) << failure.message;
    EXPECT_EQ(pulled, expected) << what << ": " << one.at("prompt") << " pulled";
  }
}

TEST(Reverse, is_exact_in_every_type_and_kernel_set) {
  std::filesystem::path directory = golden_directory("reverse");
  if (directory.empty()) GTEST_SKIP() << "no golden model reverse here";
  wkv_model_options options = default_options();
  options.threads = 2;
  for (const char *file : {"reverse.F32.gguf", "reverse.f32.pth", "reverse.bf16.pth", "fla_f32"})
    expect_reversed(directory / "weights" / file, options, file);
  for (const std::string &kernels : usable_kernels()) {
    options.kernels = kernels.c_str();
    for (wkv_type type : {WKV_TYPE_F32, WKV_TYPE_F16, WKV_TYPE_BF16}) {
      options.weight_type = type;
      expect_reversed(directory / "weights/reverse.f32.pth", options, kernels + " type " + std::to_string(type));
    }
  }
}

TEST(Reverse, is_exact_in_the_reproducible_mode) {
  std::filesystem::path directory = golden_directory("reverse");
  if (directory.empty()) GTEST_SKIP() << "no golden model reverse here";
  wkv_model_options options = default_options();
  options.is_reproducible = 1;
  for (int32_t threads : {1, 3}) {
    options.threads = threads;
    expect_reversed(directory / "weights/reverse.F32.gguf", options, "reproducible");
  }
}

}  // namespace
}  // namespace libwkv::test
