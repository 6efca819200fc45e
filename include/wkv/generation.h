/* SPDX-License-Identifier: Apache-2.0 */
/** @file generation.h
 *  A generation: tokens and text, pulled one piece at a time. It feeds the prompt, samples, feeds the sample, and so
 *  on, and never calls back.
 *
 *      wkv_generation_options options = {.struct_size = sizeof options, .prompt = "Once upon a time",
 *                                        .prompt_bytes = 16, .max_tokens = 200};
 *      wkv_generation_create(cache, sampler, &options, &generation, &error);
 *      wkv_generation_piece piece = {.struct_size = sizeof piece};
 *      while (wkv_generation_next(generation, &piece, &error) == WKV_OK)
 *          fwrite(piece.text, 1, piece.text_bytes, stdout);
 *      wkv_generation_release(generation);
 *
 *  The cache is used by each call of wkv_generation_next and free between them. A chosen token is fed by the call after
 *  the one that chose it. So when a generation has ended, the cache has read the prompt and every chosen token but the
 *  last: pending_token of the last piece names that one, and a next turn begins by feeding it (or not, if it was a stop
 *  token that belongs to no text).
 *
 *  A stop string that ends a generation leaves no trace in the cache: it goes back to where it was before the first
 *  token with a byte of the stop, so that the next turn is not polluted, and keeps its checkpoints up to there. When
 *  that token began with text that was given out ("end.\n\n" with the stop "\n\n"), the cache has not read that text
 *  either: unread_text names it, and a next turn feeds it first. The sampler's penalties remember the stop's tokens.
 *  keeps_stop_string leaves the stop in the cache instead.
 *
 *  While text is held back, a generation keeps states for the way back: one to four, however long the stop strings are.
 *
 *  On a GPU the next tokens are computed while the caller looks at the last one, unless the sampler has penalties or
 *  probabilities are wanted: a generation then holds up to two states more. What it computed is dropped when the cache
 * or the sampler is used otherwise between two calls, and when it ends.
 *
 *  A generation is saved with session.h, in the middle of a stop string or a character too. Its prefix store and its
 *  progress function are not: what goes on after a load has none. */
#ifndef WKV_GENERATION_H
#define WKV_GENERATION_H

#include <wkv/cache.h>
#include <wkv/prefix_store.h>
#include <wkv/sampler.h>
#include <wkv/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wkv_generation wkv_generation;

/** Why a generation goes on or has ended. Values never change. */
typedef int32_t wkv_reason;
enum {
  WKV_REASON_NONE = 0,       /* it goes on */
  WKV_REASON_MAX_TOKENS = 1, /* max_tokens were chosen */
  WKV_REASON_STOP_TOKEN = 2, /* a stop token, or id 0, was chosen; its own bytes are not in the text */
  WKV_REASON_STOP_STRING = 3 /* the text contained a stop string; the text given out ends before it */
};

typedef struct wkv_generation_options {
  uint32_t struct_size;
  int32_t max_tokens;       /* tokens to choose at most, >= 1; 0: 256 */
  wkv_tokenizer *tokenizer; /* NULL: the model's own; without any, pieces have no text and a prompt must be
                               given as tokens */
  const char *prompt;       /* text fed first; copied */
  size_t prompt_bytes;
  const int32_t *prompt_tokens; /* tokens fed first, before those of prompt; copied */
  size_t prompt_tokens_count;   /* at least one token is needed, here or in prompt, even when the cache has read
                                   something (its last token's scores are not kept): the pending token of the
                                   last turn belongs here */
  const int32_t *stop_tokens;   /* copied; id 0 is always one of them unless keeps_end_token is 1 */
  size_t stop_tokens_count;
  const char *const *stop_strings; /* NUL-terminated UTF-8, none empty; copied. Text that could be the beginning of
                                      one is held back until it is clear. The one that is complete first ends the
                                      text, the longest where several are */
  size_t stop_strings_count;
  int32_t keeps_end_token;        /* 1: id 0 does not end the generation */
  int32_t wants_log_probability;  /* 1: pieces carry log_probability and alternatives */
  int32_t alternatives_count;     /* [0, 20]: likeliest tokens to report with each piece; more than 0 implies
                                     wants_log_probability */
  int32_t accepts_prompt;         /* 1: the sampler's penalties remember the prompt's tokens too */
  int32_t keeps_stop_string;      /* 1: a stop string stays in the cache, which has then read all tokens but the last */
  int32_t reserved;               /* 0 */
  wkv_prefix_store *prefix_store; /* NULL: none. Needs a cache that has read nothing, without checkpoints and initial
                                     state, and a prompt that is the whole history: its longest beginning that the store
                                     has is not computed again. The prompt up to its last token, and at the end all that
                                     the cache has read, are put into the store; what it cannot keep is no failure. Kept
                                     alive */
  /** Called while the prompt is fed, under the rules of the one in wkv_step_options; non-zero makes wkv_generation_next
   *  return WKV_CANCELLED, with the cache as before that call. */
  int32_t (*progress)(void *user, uint64_t done_tokens, uint64_t total_tokens);
  void *progress_user;
} wkv_generation_options;

/** A token that might have been chosen. */
typedef struct wkv_token_probability {
  int32_t token;
  float log_probability; /* natural logarithm, under the raw scores (temperature 1, before any option) */
} wkv_token_probability;

/** What one call of wkv_generation_next gives out. Pointers are valid until the next call on the generation. */
typedef struct wkv_generation_piece {
  uint32_t struct_size;
  int32_t token;    /* the token chosen by this call; -1: none (with WKV_END) */
  const char *text; /* terminated UTF-8, never split inside a character; may be empty */
  size_t text_bytes;
  wkv_reason reason;     /* other than NONE: this is the last piece; the next call returns WKV_END */
  int32_t pending_token; /* with a reason: the last token chosen, which the cache has not read; else, and after a stop
                            string that was taken back, -1 */
  float log_probability; /* of token, as in wkv_token_probability; 0 when not asked for */
  int32_t alternatives_count;
  const wkv_token_probability *alternatives; /* falling probability */
  int64_t tokens_generated;                  /* chosen so far, this one included */
  int64_t prompt_tokens;                     /* tokens that were fed before the first choice */
  int64_t reused_tokens;                     /* those of the prompt that came from the prefix store */
  const char *unread_text; /* after a stop string that was taken back, also with WKV_END: the end of the text given out
                              that the cache has not read; usually empty. As the bytes of the token it comes from: it
                              begins inside a character when that token did */
  size_t unread_bytes;
} wkv_generation_piece;

/** Create a generation. Nothing is computed yet.
 *  @param cache       [in]  kept alive
 *  @param sampler     [in]  kept alive; NULL: greedy
 *  @param options     [in]  prompt and limits; copied
 *  @param generation  [out] yours to release; unchanged on failure
 *  @param error       [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID: nothing to feed, an empty stop string, a token outside the vocabulary
 *          | WKV_NOT_FOUND: text given or stop strings wanted, but no tokenizer
 *          | WKV_UNSUPPORTED: the tokenizer has no token for a part of the prompt
 *          | WKV_MISMATCH: the prefix store is another model's
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_generation_create(wkv_cache *cache, wkv_sampler *sampler, const wkv_generation_options *options,
                                         wkv_generation **generation, wkv_error *error);

/** Choose the next token and get the text that is certain now. The first call feeds the prompt.
 *  @param generation  [in,out]
 *  @param piece       [in,out] struct_size set by the caller; the rest is written
 *  @param error       [in,out] detail; may be NULL
 *  @return WKV_OK: a piece | WKV_END: the generation had ended before this call; piece has no token and no text, and
 *          reason, pending_token, unread_text and counts of the last one
 *          | WKV_INVALID: the sampler has no token left; with a prefix store, the cache has read something, has
 *          checkpoints or does not start from zero | WKV_BUSY: cache, sampler or generation in use
 *          | WKV_IO, WKV_OUT_OF_MEMORY: as wkv_cache_step
 *          | WKV_CANCELLED: by progress. After a failure piece is as before, and the next call goes on from here.
 *  @threads one call at a time for one generation; a second one gets WKV_BUSY
 *  @since 0.1 */
WKV_API wkv_status wkv_generation_next(wkv_generation *generation, wkv_generation_piece *piece, wkv_error *error);

/** Give up one reference.
 *  @param generation  NULL is fine
 *  @threads any
 *  @since 0.1 */
WKV_API void wkv_generation_release(wkv_generation *generation);

#ifdef __cplusplus
}
#endif

#endif
