/* SPDX-License-Identifier: Apache-2.0 */
/** @file step.h
 *  A step: feed tokens to caches and read scores. The one operation that computes; prefill, decode and batches are
 *  the same call with other counts.
 *
 *      float logits[65536];
 *      wkv_cache_step(cache, tokens, 3, logits, 65536, &error);      -- scores of the token that comes after the third
 *
 *  Calls on one model share its worker threads and take turns; a batch step is faster than many calls. */
#ifndef WKV_STEP_H
#define WKV_STEP_H

#include <wkv/cache.h>
#include <wkv/sampler.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Flags of wkv_step_item. */
enum {
  WKV_STEP_ALL_LOGITS = 1, /* logits of every token, float32[tokens_count][vocab_size], instead of the last one's */
  WKV_STEP_DEVICE_LOGITS =
      4,                  /* logits is memory of the model's GPU: scores are copied there and never come to the host */
  WKV_STEP_ALL_STATES = 2 /* keep the state after each of at most WKV_VERIFY_TOKENS tokens: wkv_cache_rollback can go
                             to any of them, and to where the step began, until the next step. A host that lets a
                             step verify drafted tokens accepts a beginning of them that way. */
};
/** Most tokens of an item with WKV_STEP_ALL_STATES. */
enum { WKV_VERIFY_TOKENS = 32 };

/** One sequence of a batch step. */
typedef struct wkv_step_item {
  uint32_t struct_size;
  uint32_t flags;
  wkv_cache *cache;      /* [in,out] advanced by tokens_count; each cache at most once in a call */
  const int32_t *tokens; /* [in]  ids in [0, vocab_size); not kept after return */
  size_t tokens_count;   /*       0: the item is left alone */
  float *logits;         /* [out] raw scores; NULL: none */
  size_t logits_count;   /*       capacity in floats */
  wkv_sampler *sampler;  /* [in,out] NULL: none; else chooses *next_token from the last token's scores, among the
                            ids of the model's own vocabulary, if it has one; each sampler at most once in a call */
  int32_t *next_token;   /* [out] needed with a sampler */
  wkv_status status;     /* [out] this item's own outcome */
} wkv_step_item;

/** How a call with many tokens is watched. */
typedef struct wkv_step_options {
  uint32_t struct_size;
  uint32_t reserved; /* 0 */
  /** Called from the stepping thread, after each layer of each chunk; done_tokens never falls, and is total_tokens at
   *  the end. Non-zero cancels the step. Must not step any cache of the same model: steps take turns, and this one has
   *  not ended. */
  int32_t (*progress)(void *user, uint64_t done_tokens, uint64_t total_tokens);
  void *progress_user;
} wkv_step_options;

/** Feed tokens to one cache and read the scores of the last one.
 *  @param cache         [in,out] sequence to advance; used exclusively until return
 *  @param tokens        [in]  tokens_count ids, each in [0, vocab_size); not kept after return
 *  @param tokens_count        at least 1
 *  @param logits        [out] float32[vocab_size], raw scores; NULL skips the output head
 *  @param logits_count        capacity of logits in floats; at least vocab_size unless logits is NULL
 *  @param error         [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID, WKV_BUSY, WKV_IO (model file shortened), WKV_OUT_OF_MEMORY: cache as before the call
 *  @threads any number of caches at once; a second call on this cache gets WKV_BUSY
 *  @since 0.1 */
WKV_API wkv_status wkv_cache_step(wkv_cache *cache, const int32_t *tokens, size_t tokens_count, float *logits,
                                  size_t logits_count, wkv_error *error);

/** Feed several sequences at once, each with its own number of tokens; weights are read once for all of them.
 *  Sequences do not influence each other: to the bit in a reproducible model, else within rounding.
 *  @param model        [in]  the model of every cache
 *  @param items        [in,out] what to do, and each item's status; on failure every item that was at fault has its
 *                           own status and the others WKV_OK, and no cache, sampler or output has changed
 *  @param items_count       [0, 65536]
 *  @param error        [in,out] detail of the first item at fault; may be NULL
 *  @return WKV_OK | WKV_INVALID, WKV_BUSY, WKV_MISMATCH (a cache of another model), WKV_UNSUPPORTED (an unknown flag),
 *          WKV_IO, WKV_OUT_OF_MEMORY: all caches, samplers and outputs as before the call. Whether a sampler finds a
 *          token shows only when scores are there, so a call with samplers steps into spare states that take the
 *          place of the caches' own at its end (memory for as many states more), and logits that were asked for may
 *          have been written when it fails for this reason (WKV_INVALID).
 *  @threads any number of calls at once
 *  @since 0.1 */
WKV_API wkv_status wkv_model_step(wkv_model *model, wkv_step_item *items, size_t items_count, wkv_error *error);

/** wkv_model_step that can be watched and cancelled: for long prompts.
 *  @param model        [in]  as in wkv_model_step
 *  @param items        [in,out] as in wkv_model_step
 *  @param items_count       [0, 65536]
 *  @param options      [in]  NULL: all defaults
 *  @param error        [in,out] detail of the first item at fault; may be NULL
 *  @return as wkv_model_step | WKV_CANCELLED: by progress; all caches and samplers as before the call, logits that were
 *          asked for may have been written. A call with progress steps into spare states, as one with samplers does.
 *  @threads any number of calls at once
 *  @since 0.2 */
WKV_API wkv_status wkv_model_step_watched(wkv_model *model, wkv_step_item *items, size_t items_count,
                                          const wkv_step_options *options, wkv_error *error);

#ifdef __cplusplus
}
#endif

#endif
