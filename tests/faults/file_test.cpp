// SPDX-License-Identifier: Apache-2.0
// A model file that shrinks under a running program is an error of the next step, not the end of the process.
#include <string>

#include <unistd.h>

#include "support/models.h"

namespace libwkv::test {
namespace {

// A copy of a weights file that goes away with the test.
class Copy {
 public:
  explicit Copy(const std::filesystem::path &source) {
    std::string pattern = std::filesystem::temp_directory_path() / "wkv_faults_XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    path_ = directory_ / source.filename();
    std::filesystem::copy(source, path_, std::filesystem::copy_options::recursive);
    std::filesystem::permissions(path_, std::filesystem::perms::owner_write | std::filesystem::perms::owner_read,
                                 std::filesystem::perm_options::add);
  }
  ~Copy() { std::filesystem::remove_all(directory_); }
  const std::filesystem::path &path() const { return path_; }

 private:
  std::filesystem::path directory_, path_;
};

TEST(ShrunkFile, is_noticed_by_the_next_step) {
  for (const char *file : {"rnd_a.F32.gguf", "rnd_a.f32.pth", "rnd_a.Q8_0.gguf", "rnd_a.bf16.pth"}) {
    std::filesystem::path source = golden_directory("rnd_a") / "weights" / file;
    if (!std::filesystem::exists(source)) continue;
    for (int32_t threads : {1, 3})
      for (uintmax_t left :
           {std::filesystem::file_size(source) / 2, uintmax_t{0}, std::filesystem::file_size(source) - 1}) {
        SCOPED_TRACE(std::string(file) + " cut to " + std::to_string(left));
        Copy copy(source);
        wkv_model_options options = default_options();
        options.threads = threads;
        Model model = load_model(copy.path(), options);
        ASSERT_NE(model.get(), nullptr);
        wkv_model_info info = info_of(model);
        Cache cache = create_cache(model), twin;
        std::vector<int32_t> tokens = random_tokens(5, info.vocab_size, 1);
        step(info, model, cache, tokens);
        Snapshot before = snapshot_of(info, cache);
        WKV_ASSERT_STATUS(WKV_OK, wkv_cache_copy(cache, twin.out(), nullptr), Failure());
        ASSERT_GT(info.mapped_bytes, 0u);

        ASSERT_EQ(truncate(copy.path().c_str(), static_cast<off_t>(left)), 0);
        std::vector<float> logits(static_cast<size_t>(info.vocab_size), 3.0f);
        Failure failure;
        for (size_t count : {5, 1}) {
          WKV_EXPECT_STATUS(WKV_IO, wkv_cache_step(cache, tokens.data(), count, logits.data(), logits.size(), &failure),
                            failure);
          EXPECT_NE(std::string(failure.message).find(copy.path().filename()), std::string::npos) << failure.message;
        }
        wkv_step_item item = make_item(twin, tokens);
        WKV_EXPECT_STATUS(WKV_IO, wkv_model_step(model, &item, 1, &failure), failure);
        EXPECT_TRUE(snapshot_of(info, cache) == before);
        EXPECT_TRUE(std::all_of(logits.begin(), logits.end(), [](float v) { return v == 3.0f; }));
        // what needs no weights still works, and releasing does
        Cache fresh;
        WKV_EXPECT_STATUS(WKV_OK, wkv_cache_create(model, nullptr, fresh.out(), &failure), failure);
        WKV_EXPECT_STATUS(WKV_OK, wkv_cache_assign(fresh, cache, &failure), failure);
        EXPECT_TRUE(snapshot_of(info, fresh) == before);
      }
  }
}

TEST(ShrunkFile, of_another_model_does_not_matter) {
  std::filesystem::path source = exact_weights("rnd_a");
  Copy copy(source);
  Model damaged = load_model(copy.path()), sound = load_model(source);
  wkv_model_info info = info_of(sound);
  std::vector<int32_t> tokens = random_tokens(5, info.vocab_size, 1);
  Cache cache = create_cache(sound), reference = create_cache(sound), lost = create_cache(damaged);
  std::vector<float> expected = step(info, sound, reference, tokens);
  ASSERT_EQ(truncate(copy.path().c_str(), 1000), 0);
  EXPECT_EQ(wkv_cache_step(lost, tokens.data(), 1, nullptr, 0, nullptr), WKV_IO);
  EXPECT_LE(largest_difference(step(info, sound, cache, tokens), expected),
            order_tolerance(expected, Quantity::logits));
}

TEST(DeletedFile, stays_usable_while_mapped) {
  std::filesystem::path source = exact_weights("rnd_a");
  Model model;
  {
    Copy copy(source);
    model = load_model(copy.path());
  }
  wkv_model_info info = info_of(model);
  Cache cache = create_cache(model);
  EXPECT_GT(largest_magnitude(step(info, model, cache, random_tokens(5, info.vocab_size, 1))), 0);
}

}  // namespace
}  // namespace libwkv::test
