// SPDX-License-Identifier: Apache-2.0
// Programs compiled against version 0.1, whose structs were shorter, run on: nothing is asked for or written behind
// them.
#include <cstring>
#include <string>
#include <vector>

#include "support/handles.h"

namespace libwkv::test {
namespace {

constexpr size_t cache_options_0_1 = 8, cache_info_0_1 = 64, memory_info_0_1 = 80, generation_options_0_1 = 96,
                 generation_piece_0_1 = 64;

// A struct of an older size in front of bytes that must stay.
template <class Struct>
class Older {
 public:
  explicit Older(size_t size) : size_(size) {
    std::memset(bytes_, 0xab, sizeof bytes_);
    std::memset(bytes_, 0, size);
    (*this)->struct_size = static_cast<uint32_t>(size);
  }
  Struct *operator->() { return reinterpret_cast<Struct *>(bytes_); }
  Struct *get() { return operator->(); }
  bool is_rest_untouched() const {
    for (size_t i = size_; i < sizeof bytes_; i++)
      if (bytes_[i] != 0xab) return false;
    return true;
  }

 private:
  size_t size_;
  alignas(8) unsigned char bytes_[sizeof(Struct) + 64];
};

class OlderPrograms : public testing::Test {
 protected:
  Model model_ = load_model(std::string(WKV_SOURCE_DIR) + "/examples/models/tales-8m.gguf");
  Failure failure_;
};

TEST_F(OlderPrograms, create_and_describe_caches) {
  Older<wkv_cache_options> options(cache_options_0_1);
  Cache cache;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_create(model_, options.get(), cache.out(), &failure_), failure_);
  Older<wkv_cache_info> info(cache_info_0_1);
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_get_info(cache, info.get(), &failure_), failure_);
  EXPECT_EQ(info->position, 0u);
  EXPECT_STREQ(info->device, "cpu");
  EXPECT_TRUE(info.is_rest_untouched());
  Older<wkv_memory_info> memory(memory_info_0_1);
  WKV_ASSERT_STATUS(WKV_OK, wkv_model_get_memory(model_, memory.get(), &failure_), failure_);
  EXPECT_GT(memory->total_bytes, 0u);
  EXPECT_TRUE(memory.is_rest_untouched());
}

TEST_F(OlderPrograms, generate) {
  Cache cache = create_cache(model_);
  Older<wkv_generation_options> options(generation_options_0_1);
  options->prompt = "Once";
  options->prompt_bytes = 4;
  options->max_tokens = 3;
  Generation generation;
  WKV_ASSERT_STATUS(WKV_OK, wkv_generation_create(cache, nullptr, options.get(), generation.out(), &failure_),
                    failure_);
  Older<wkv_generation_piece> piece(generation_piece_0_1);
  int pieces = 0;
  while (wkv_generation_next(generation, piece.get(), &failure_) == WKV_OK) pieces++;
  EXPECT_EQ(pieces, 3);
  EXPECT_EQ(piece->tokens_generated, 3);
  EXPECT_TRUE(piece.is_rest_untouched());
}

// Shorter than the first version is a mistake all the same.
TEST_F(OlderPrograms, shorter_structs_are_refused) {
  Cache cache = create_cache(model_), refused;
  Older<wkv_cache_info> info(cache_info_0_1 - 8);
  EXPECT_EQ(wkv_cache_get_info(cache, info.get(), &failure_), WKV_INVALID);
  Older<wkv_cache_options> options(cache_options_0_1 - 4);
  EXPECT_EQ(wkv_cache_create(model_, options.get(), refused.out(), &failure_), WKV_INVALID);
}

}  // namespace
}  // namespace libwkv::test
