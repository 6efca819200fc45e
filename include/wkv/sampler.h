/* SPDX-License-Identifier: Apache-2.0 */
/** @file sampler.h
 *  A sampler: chooses the next token from scores. It owns a seeded random generator and the penalties' memory, so the
 *  same seed, options and logits give the same tokens on every platform.
 *
 *      wkv_sampler_options options = {.struct_size = sizeof options, .temperature = 0.8f, .top_p = 0.8f, .seed = 42};
 *      wkv_sampler_create(&options, &sampler, &error);
 *      wkv_sampler_sample(sampler, logits, vocab_size, &token, &error);
 *
 *  Order of operations, each skipped at its default:
 *   1. banned tokens, scores of NaN or -INFINITY, and ids at or beyond ids_end leave the race (id 0, the end of text,
 *      stays in); tokens with the score +INFINITY, if any, share all of it
 *   2. logit bias is added
 *   3. repetition (the formula of Hugging Face): for a token seen before, score = score > 0 ? score / repetition
 *      : score * repetition
 *   4. presence and frequency: score -= presence * [count > 0] + frequency * count, where count is the number of times
 *      the token was accepted, multiplied by penalty_decay at every accepted token before the new one is counted;
 *      counts below 0.001 are forgotten. Exempt tokens take no part in 3 and 4.
 *   5. greedy ends here: the highest score, the lowest id among equals
 *   6. temperature divides the scores, softmax makes them probabilities
 *   7. top_k, 8. typical, 9. top_p, 10. min_p cut in this order, each on the probabilities left by the one before,
 *      made to sum to one again; the likeliest token always survives
 *  11. one draw by inverse transform over the survivors, in order of falling score, then rising id
 *  wkv_sampler_sample accepts the token it returns: penalties remember it. */
#ifndef WKV_SAMPLER_H
#define WKV_SAMPLER_H

#include <wkv/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wkv_sampler wkv_sampler;

/** One entry of a logit bias. */
typedef struct wkv_token_bias {
  int32_t token;
  float bias; /* added to the score; -INFINITY bans the token */
} wkv_token_bias;

typedef struct wkv_sampler_options {
  uint32_t struct_size;
  int32_t is_greedy;   /* 1: always the highest score; no randomness */
  uint64_t seed;       /* any value, 0 included; equal seeds give equal draws */
  float temperature;   /* > 0; 0: default, 1.0 */
  int32_t top_k;       /* keep the k likeliest; 0: all */
  float top_p;         /* (0, 1]: keep the fewest likeliest tokens whose sum reaches it; 0: all */
  float min_p;         /* [0, 1): drop tokens below min_p times the likeliest; 0: none */
  float typical_p;     /* (0, 1]: keep the tokens closest to the expected information, up to this sum; 0: all */
  float repetition;    /* > 0; 0 and 1: none */
  float presence;      /* any finite number; 0: none */
  float frequency;     /* any finite number; 0: none */
  float penalty_decay; /* (0, 1]: what is left of a count after each further token; 0: 1, counts never fade */
  int32_t ids_end;     /* ids at or beyond this are never chosen; 0: no such bound. Generation sets it from the
                          tokenizer when it is 0. */
  const wkv_token_bias *biases; /* copied; NULL with count 0 */
  size_t biases_count;
  const int32_t *banned_tokens; /* copied; never chosen */
  size_t banned_tokens_count;
  const int32_t *exempt_tokens; /* copied; not touched by penalties (punctuation, for example) */
  size_t exempt_tokens_count;
} wkv_sampler_options;

/** Create a sampler.
 *  @param options  [in]  NULL: all defaults (temperature 1, nothing cut, seed 0)
 *  @param sampler  [out] yours to release; unchanged on failure
 *  @param error    [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID: a field out of range; the message names field and value
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_sampler_create(const wkv_sampler_options *options, wkv_sampler **sampler, wkv_error *error);

/** Choose a token, and accept it.
 *  @param sampler       [in,out]
 *  @param logits        [in]  float32[logits_count] raw scores; not changed, not kept
 *  @param logits_count        number of token ids, at least 1
 *  @param token         [out] the choice, in [0, logits_count); unchanged on failure
 *  @param error         [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID: no token is left to choose from (all banned or not a number) | WKV_BUSY
 *  @threads one call at a time for one sampler; a second one gets WKV_BUSY
 *  @since 0.1 */
WKV_API wkv_status wkv_sampler_sample(wkv_sampler *sampler, const float *logits, size_t logits_count, int32_t *token,
                                      wkv_error *error);

/** Let penalties remember a token that was not chosen by this sampler, such as one of the prompt.
 *  @param sampler  [in,out]
 *  @param token          an id >= 0
 *  @param error    [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads one call at a time for one sampler
 *  @since 0.1 */
WKV_API wkv_status wkv_sampler_accept(wkv_sampler *sampler, int32_t token, wkv_error *error);

/** The probabilities from which wkv_sampler_sample would draw now: after every operation up to 10, zero for tokens
 *  that were cut; a greedy sampler gives 1 to its choice. Nothing is accepted or drawn.
 *  @param sampler        [in]
 *  @param logits         [in]  float32[logits_count] raw scores
 *  @param logits_count         number of token ids, at least 1
 *  @param probabilities  [out] float32[logits_count]; may be the same memory as logits
 *  @param error          [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads one call at a time for one sampler
 *  @since 0.1 */
WKV_API wkv_status wkv_sampler_get_probabilities(wkv_sampler *sampler, const float *logits, size_t logits_count,
                                                 float *probabilities, wkv_error *error);

/** Forget all accepted tokens and start the random generator again.
 *  @param sampler  [in,out]
 *  @param seed           as in the options
 *  @param error    [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads one call at a time for one sampler
 *  @since 0.1 */
WKV_API wkv_status wkv_sampler_reset(wkv_sampler *sampler, uint64_t seed, wkv_error *error);

/** Give up one reference.
 *  @param sampler  NULL is fine
 *  @threads any
 *  @since 0.1 */
WKV_API void wkv_sampler_release(wkv_sampler *sampler);

#ifdef __cplusplus
}
#endif

#endif
