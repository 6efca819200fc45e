// SPDX-License-Identifier: Apache-2.0
// Sizes, offsets and constants that programs were compiled with, on 64-bit systems. A line here may be added, never
// changed: a failure means that the ABI broke.
#include <cstddef>

#include <gtest/gtest.h>

#include <wkv/wkv.h>

namespace {

struct Pin {
  const char *name;
  size_t actual, pinned;
};

#define SIZE(type, bytes) \
  Pin { "sizeof(" #type ")", sizeof(type), bytes }
#define FIELD(type, field, offset) \
  Pin { #type "." #field, offsetof(type, field), offset }

constexpr Pin layout[] = {
    SIZE(wkv_cache_options, 8),
    FIELD(wkv_cache_options, struct_size, 0),
    FIELD(wkv_cache_options, reserved, 4),
    SIZE(wkv_cache_info, 64),
    FIELD(wkv_cache_info, struct_size, 0),
    FIELD(wkv_cache_info, state_type, 4),
    FIELD(wkv_cache_info, position, 8),
    FIELD(wkv_cache_info, bytes, 16),
    FIELD(wkv_cache_info, last_token, 24),
    FIELD(wkv_cache_info, reserved, 28),
    FIELD(wkv_cache_info, device, 32),
    SIZE(wkv_convert_options, 40),
    FIELD(wkv_convert_options, struct_size, 0),
    FIELD(wkv_convert_options, weight_type, 4),
    FIELD(wkv_convert_options, vocabulary_path, 8),
    FIELD(wkv_convert_options, name, 16),
    FIELD(wkv_convert_options, progress, 24),
    FIELD(wkv_convert_options, progress_user, 32),
    SIZE(wkv_device_info, 440),
    FIELD(wkv_device_info, struct_size, 0),
    FIELD(wkv_device_info, is_usable, 4),
    FIELD(wkv_device_info, name, 8),
    FIELD(wkv_device_info, description, 40),
    FIELD(wkv_device_info, kernels, 168),
    FIELD(wkv_device_info, unusable_reason, 296),
    FIELD(wkv_device_info, memory_bytes, 424),
    FIELD(wkv_device_info, cores, 432),
    FIELD(wkv_device_info, reserved, 436),
    SIZE(wkv_generation_options, 96),
    FIELD(wkv_generation_options, struct_size, 0),
    FIELD(wkv_generation_options, max_tokens, 4),
    FIELD(wkv_generation_options, tokenizer, 8),
    FIELD(wkv_generation_options, prompt, 16),
    FIELD(wkv_generation_options, prompt_bytes, 24),
    FIELD(wkv_generation_options, prompt_tokens, 32),
    FIELD(wkv_generation_options, prompt_tokens_count, 40),
    FIELD(wkv_generation_options, stop_tokens, 48),
    FIELD(wkv_generation_options, stop_tokens_count, 56),
    FIELD(wkv_generation_options, stop_strings, 64),
    FIELD(wkv_generation_options, stop_strings_count, 72),
    FIELD(wkv_generation_options, keeps_end_token, 80),
    FIELD(wkv_generation_options, wants_log_probability, 84),
    FIELD(wkv_generation_options, alternatives_count, 88),
    FIELD(wkv_generation_options, accepts_prompt, 92),
    SIZE(wkv_token_probability, 8),
    FIELD(wkv_token_probability, token, 0),
    FIELD(wkv_token_probability, log_probability, 4),
    SIZE(wkv_generation_piece, 64),
    FIELD(wkv_generation_piece, struct_size, 0),
    FIELD(wkv_generation_piece, token, 4),
    FIELD(wkv_generation_piece, text, 8),
    FIELD(wkv_generation_piece, text_bytes, 16),
    FIELD(wkv_generation_piece, reason, 24),
    FIELD(wkv_generation_piece, pending_token, 28),
    FIELD(wkv_generation_piece, log_probability, 32),
    FIELD(wkv_generation_piece, alternatives_count, 36),
    FIELD(wkv_generation_piece, alternatives, 40),
    FIELD(wkv_generation_piece, tokens_generated, 48),
    FIELD(wkv_generation_piece, prompt_tokens, 56),
    SIZE(wkv_model_options, 64),
    FIELD(wkv_model_options, struct_size, 0),
    FIELD(wkv_model_options, threads, 4),
    FIELD(wkv_model_options, device, 8),
    FIELD(wkv_model_options, weight_type, 16),
    FIELD(wkv_model_options, state_type, 20),
    FIELD(wkv_model_options, memory_limit_bytes, 24),
    FIELD(wkv_model_options, progress, 32),
    FIELD(wkv_model_options, progress_user, 40),
    FIELD(wkv_model_options, kernels, 48),
    FIELD(wkv_model_options, is_reproducible, 56),
    FIELD(wkv_model_options, chunk_tokens, 60),
    SIZE(wkv_model_info, 336),
    FIELD(wkv_model_info, struct_size, 0),
    FIELD(wkv_model_info, layers, 4),
    FIELD(wkv_model_info, width, 8),
    FIELD(wkv_model_info, heads, 12),
    FIELD(wkv_model_info, head_size, 16),
    FIELD(wkv_model_info, ffn_width, 20),
    FIELD(wkv_model_info, vocab_size, 24),
    FIELD(wkv_model_info, rank_w, 28),
    FIELD(wkv_model_info, rank_a, 32),
    FIELD(wkv_model_info, rank_v, 36),
    FIELD(wkv_model_info, rank_g, 40),
    FIELD(wkv_model_info, threads, 44),
    FIELD(wkv_model_info, state_type, 48),
    FIELD(wkv_model_info, has_tokenizer, 52),
    FIELD(wkv_model_info, is_reproducible, 56),
    FIELD(wkv_model_info, chunk_tokens, 60),
    FIELD(wkv_model_info, parameters, 64),
    FIELD(wkv_model_info, weight_bytes, 72),
    FIELD(wkv_model_info, mapped_bytes, 80),
    FIELD(wkv_model_info, step_bytes, 88),
    FIELD(wkv_model_info, state_bytes, 96),
    FIELD(wkv_model_info, fingerprint, 104),
    FIELD(wkv_model_info, format, 112),
    FIELD(wkv_model_info, stored_types, 144),
    FIELD(wkv_model_info, compute_types, 208),
    FIELD(wkv_model_info, device, 272),
    FIELD(wkv_model_info, kernels, 304),
    SIZE(wkv_memory_info, 80),
    FIELD(wkv_memory_info, struct_size, 0),
    FIELD(wkv_memory_info, reserved, 4),
    FIELD(wkv_memory_info, limit_bytes, 8),
    FIELD(wkv_memory_info, weights_bytes, 16),
    FIELD(wkv_memory_info, weights_peak_bytes, 24),
    FIELD(wkv_memory_info, caches_bytes, 32),
    FIELD(wkv_memory_info, caches_peak_bytes, 40),
    FIELD(wkv_memory_info, workspace_bytes, 48),
    FIELD(wkv_memory_info, workspace_peak_bytes, 56),
    FIELD(wkv_memory_info, total_bytes, 64),
    FIELD(wkv_memory_info, total_peak_bytes, 72),
    SIZE(wkv_token_bias, 8),
    FIELD(wkv_token_bias, token, 0),
    FIELD(wkv_token_bias, bias, 4),
    SIZE(wkv_sampler_options, 104),
    FIELD(wkv_sampler_options, struct_size, 0),
    FIELD(wkv_sampler_options, is_greedy, 4),
    FIELD(wkv_sampler_options, seed, 8),
    FIELD(wkv_sampler_options, temperature, 16),
    FIELD(wkv_sampler_options, top_k, 20),
    FIELD(wkv_sampler_options, top_p, 24),
    FIELD(wkv_sampler_options, min_p, 28),
    FIELD(wkv_sampler_options, typical_p, 32),
    FIELD(wkv_sampler_options, repetition, 36),
    FIELD(wkv_sampler_options, presence, 40),
    FIELD(wkv_sampler_options, frequency, 44),
    FIELD(wkv_sampler_options, penalty_decay, 48),
    FIELD(wkv_sampler_options, ids_end, 52),
    FIELD(wkv_sampler_options, biases, 56),
    FIELD(wkv_sampler_options, biases_count, 64),
    FIELD(wkv_sampler_options, banned_tokens, 72),
    FIELD(wkv_sampler_options, banned_tokens_count, 80),
    FIELD(wkv_sampler_options, exempt_tokens, 88),
    FIELD(wkv_sampler_options, exempt_tokens_count, 96),
    SIZE(wkv_error, 512),
    FIELD(wkv_error, struct_size, 0),
    FIELD(wkv_error, status, 4),
    FIELD(wkv_error, message, 8),
    SIZE(wkv_step_item, 72),
    FIELD(wkv_step_item, struct_size, 0),
    FIELD(wkv_step_item, flags, 4),
    FIELD(wkv_step_item, cache, 8),
    FIELD(wkv_step_item, tokens, 16),
    FIELD(wkv_step_item, tokens_count, 24),
    FIELD(wkv_step_item, logits, 32),
    FIELD(wkv_step_item, logits_count, 40),
    FIELD(wkv_step_item, sampler, 48),
    FIELD(wkv_step_item, next_token, 56),
    FIELD(wkv_step_item, status, 64),
    SIZE(wkv_tokenizer_info, 16),
    FIELD(wkv_tokenizer_info, struct_size, 0),
    FIELD(wkv_tokenizer_info, tokens, 4),
    FIELD(wkv_tokenizer_info, ids_end, 8),
    FIELD(wkv_tokenizer_info, longest_bytes, 12),
};

struct Constant {
  const char *name;
  int actual, pinned;
};

#define VALUE(name, number) \
  Constant { #name, name, number }

constexpr Constant constants[] = {
    VALUE(WKV_OK, 0),
    VALUE(WKV_END, 1),
    VALUE(WKV_INVALID, -1),
    VALUE(WKV_NOT_FOUND, -2),
    VALUE(WKV_IO, -3),
    VALUE(WKV_FORMAT, -4),
    VALUE(WKV_UNSUPPORTED, -5),
    VALUE(WKV_OUT_OF_MEMORY, -6),
    VALUE(WKV_BUSY, -7),
    VALUE(WKV_CANCELLED, -8),
    VALUE(WKV_MISMATCH, -9),
    VALUE(WKV_DEVICE, -10),
    VALUE(WKV_INTERNAL, -11),
    VALUE(WKV_TYPE_DEFAULT, 0),
    VALUE(WKV_TYPE_F32, 1),
    VALUE(WKV_TYPE_F16, 2),
    VALUE(WKV_TYPE_BF16, 3),
    VALUE(WKV_TYPE_Q8, 4),
    VALUE(WKV_TYPE_Q4, 5),
    VALUE(WKV_STATE_ATT_SHIFT, 0),
    VALUE(WKV_STATE_FFN_SHIFT, 1),
    VALUE(WKV_STATE_WKV, 2),
    VALUE(WKV_STEP_ALL_LOGITS, 1),
    VALUE(WKV_REASON_NONE, 0),
    VALUE(WKV_REASON_MAX_TOKENS, 1),
    VALUE(WKV_REASON_STOP_TOKEN, 2),
    VALUE(WKV_REASON_STOP_STRING, 3),
};

TEST(layout, sizes_and_offsets_stay) {
  static_assert(sizeof(void *) == 8, "the table is for 64-bit systems");
  for (const Pin &pin : layout) EXPECT_EQ(pin.actual, pin.pinned) << pin.name;
}

TEST(layout, constants_stay) {
  for (const Constant &constant : constants) EXPECT_EQ(constant.actual, constant.pinned) << constant.name;
}

// Every struct that a caller sizes begins with its size.
template <class Struct>
constexpr bool begins_with_size() {
  return offsetof(Struct, struct_size) == 0 && sizeof(Struct::struct_size) == 4;
}

TEST(layout, structs_begin_with_their_size) {
  EXPECT_TRUE(begins_with_size<wkv_error>() && begins_with_size<wkv_device_info>() &&
              begins_with_size<wkv_model_options>() && begins_with_size<wkv_model_info>() &&
              begins_with_size<wkv_memory_info>() && begins_with_size<wkv_cache_options>() &&
              begins_with_size<wkv_cache_info>() && begins_with_size<wkv_step_item>() &&
              begins_with_size<wkv_tokenizer_info>() && begins_with_size<wkv_sampler_options>() &&
              begins_with_size<wkv_generation_options>() && begins_with_size<wkv_generation_piece>() &&
              begins_with_size<wkv_convert_options>());
}

TEST(layout, versions_agree) {
  EXPECT_STREQ(wkv_version(), WKV_VERSION_STRING);
  EXPECT_EQ(wkv_abi_version(), WKV_ABI_VERSION);
}

}  // namespace
