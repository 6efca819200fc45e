/* SPDX-License-Identifier: Apache-2.0 */
/** @file cache.h
 *  A cache: the recurrent state of one sequence. It holds everything the model remembers of the tokens fed so far, in
 *  the same few megabytes whatever their number. A new cache has read nothing.
 *
 *      wkv_cache *cache = NULL, *fork = NULL;
 *      wkv_cache_create(model, NULL, &cache, NULL);
 *      wkv_cache_step(cache, prompt, prompt_count, NULL, 0, NULL);
 *      wkv_cache_copy(cache, &fork, NULL);     -- two continuations of one prompt, which costs its memory once
 *      wkv_cache_mark(cache, &here, NULL);     -- go on, and come back:
 *      wkv_cache_step(cache, draft, draft_count, NULL, 0, NULL);
 *      wkv_cache_rollback(cache, here, NULL);
 *      wkv_cache_save(cache, "prompt.wkv", NULL);
 *
 *  A cache is used by one call at a time; a second call that meets it gets WKV_BUSY and changes nothing. It keeps its
 *  model alive.
 *
 *  States are shared until they change: a copy, a mark and a rollback take constant time and no memory for a state; the
 *  next step of either side writes into memory of its own. A new cache has memory of its own from the beginning, unless
 * it starts from an initial state. */
#ifndef WKV_CACHE_H
#define WKV_CACHE_H

#include <wkv/initial_state.h>
#include <wkv/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wkv_cache wkv_cache;

/** Besides marks, a cache can keep checkpoints by itself: the state at every checkpoint_every_tokens-th position. */
typedef struct wkv_cache_options {
  uint32_t struct_size;
  uint32_t checkpoint_every_tokens;       /* 0: no checkpoints by itself */
  uint32_t checkpoints_count_max;         /* the oldest goes when there would be more; 0: 8; at most 65536 */
  uint32_t reserved;                      /* 0 */
  uint64_t checkpoints_bytes_max;         /* the same for state_bytes of each; 0: no such bound */
  const wkv_initial_state *initial_state; /* NULL: all zero. Where the cache starts, and what reset goes back to;
                                             kept alive */
} wkv_cache_options;

/** Most tokens a cache remembers having read last. */
enum { WKV_LAST_TOKENS = 16 };

typedef struct wkv_cache_info {
  uint32_t struct_size;
  wkv_type state_type;
  uint64_t position;  /* tokens read since creation or reset */
  uint64_t bytes;     /* memory of a state of its own: what the next step needs if it is shared */
  int32_t last_token; /* the token read last; -1: none, or not known */
  int32_t is_shared;  /* 1: the state's memory is shared with other caches, checkpoints or a store */
  char device[32];
  uint64_t kept_count; /* positions that wkv_cache_rollback can go to, wkv_cache_get_kept_positions lists them */
  uint64_t kept_bytes; /* kept_count states as if none was shared: an upper bound */
  int32_t last_tokens[WKV_LAST_TOKENS]; /* the tokens read last, the last one at last_tokens_count - 1 */
  int32_t last_tokens_count;
  int32_t reserved;
} wkv_cache_info;

/** Parts of the state of one layer, for wkv_cache_read_state. Values never change. */
typedef int32_t wkv_state_part;
enum {
  WKV_STATE_ATT_SHIFT = 0, /* [width]: normalised input of the time mix at the last token */
  WKV_STATE_FFN_SHIFT = 1, /* [width]: normalised input of the channel mix at the last token */
  WKV_STATE_WKV = 2        /* [heads][head_size value][head_size key] */
};

/** Create an empty cache.
 *  @param model    [in]  kept alive by the cache
 *  @param options  [in]  NULL: all defaults
 *  @param cache    [out] yours to release; unchanged on failure
 *  @param error    [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_OUT_OF_MEMORY: also when the model's memory_limit_bytes would be passed
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_cache_create(wkv_model *model, const wkv_cache_options *options, wkv_cache **cache,
                                    wkv_error *error);

/** Make an independent cache with the same state, position, kept checkpoints and options: a fork. Takes constant time;
 *  the state's memory is shared until one of the two steps.
 *  @param source  [in]  not changed; used exclusively until return
 *  @param copy    [out] yours to release; unchanged on failure
 *  @param error   [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY | WKV_OUT_OF_MEMORY
 *  @threads any number of caches at once
 *  @since 0.1 */
WKV_API wkv_status wkv_cache_copy(wkv_cache *source, wkv_cache **copy, wkv_error *error);

/** Make one cache what wkv_cache_copy of another of the same model would give.
 *  @param target  [in,out] overwritten; the same cache as source is fine
 *  @param source  [in]     not changed
 *  @param error   [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY | WKV_MISMATCH: caches of two models
 *  @threads any number of caches at once; both are used exclusively until return
 *  @since 0.1 */
WKV_API wkv_status wkv_cache_assign(wkv_cache *target, wkv_cache *source, wkv_error *error);

/** Forget everything, kept checkpoints included: the state of a new cache with the same options.
 *  @param cache  [in,out]
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.1 */
WKV_API wkv_status wkv_cache_reset(wkv_cache *cache, wkv_error *error);

/** Move the state of a cache on a GPU to the host's memory, for a session that will be idle for a while. The next use
 * of the cache brings it back. Checkpoints stay where they are; a state that forks share moves for all of them. On the
 * CPU nothing happens.
 *  @param cache  [in,out]
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY: also while a step reads a state shared with a fork | WKV_OUT_OF_MEMORY:
 * none on the host; the state stays where it is | WKV_DEVICE
 *  @threads any; exclusive use of the cache
 *  @since 0.3 */
WKV_API wkv_status wkv_cache_park(wkv_cache *cache, wkv_error *error);

/** Fill an array with copies of caches that are chosen by index; an index may come several times, or not at all.
 *  @param caches         [in]  of one model; each is used exclusively until return, one may stand there twice
 *  @param caches_count         at least 1, at most 1048576
 *  @param indices        [in]  copies_count numbers in [0, caches_count)
 *  @param copies         [out] copies[i] is a copy of caches[indices[i]], yours to release; unchanged on failure
 *  @param copies_count         at most 1048576; 0: nothing happens
 *  @param error          [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_select(wkv_cache *const *caches, size_t caches_count, const size_t *indices,
                                    wkv_cache **copies, size_t copies_count, wkv_error *error);

/** Fill an array with `times` copies of each of several caches.
 *  @param caches        [in]  as in wkv_cache_select
 *  @param caches_count        at least 1
 *  @param times               at least 1
 *  @param copies        [out] caches_count * times handles: copies[i * times + j] is a copy of caches[i]; unchanged on
 *                             failure
 *  @param copies_count        exactly caches_count * times, at most 1048576
 *  @param error         [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_repeat(wkv_cache *const *caches, size_t caches_count, size_t times, wkv_cache **copies,
                                    size_t copies_count, wkv_error *error);

/** Give each cache of an array what another of the array held before the call: the step of a beam search.
 *  @param caches        [in,out] different caches of one model; caches[i] becomes what caches[sources[i]] was
 *  @param sources       [in]  caches_count numbers in [0, caches_count); one may come several times, or not at all
 *  @param caches_count        at most 1048576; 0: nothing happens
 *  @param error         [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID, WKV_BUSY, WKV_MISMATCH (caches of two models): no cache has changed
 *  @threads any number of caches at once; all are used exclusively until return
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_reorder(wkv_cache *const *caches, const size_t *sources, size_t caches_count,
                                     wkv_error *error);

/** Keep a checkpoint of the state as it is now. It stays until wkv_cache_unmark, a rollback to an earlier position,
 *  reset or assign. Takes constant time; marking a position twice keeps it once.
 *  @param cache     [in,out]
 *  @param position  [out] the position kept, for wkv_cache_rollback; NULL is fine
 *  @param error     [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_mark(wkv_cache *cache, uint64_t *position, wkv_error *error);

/** Give up the checkpoint of one position, whatever it was kept for.
 *  @param cache     [in,out]
 *  @param position        a kept one
 *  @param error     [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY | WKV_NOT_FOUND: nothing is kept there
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_unmark(wkv_cache *cache, uint64_t position, wkv_error *error);

/** Go back to a kept position: the state is to the bit what it was there. The checkpoint stays, later ones go.
 *  Kept are marks, the options' own checkpoints, and the positions of a step with WKV_STEP_ALL_STATES until the next
 *  step. The position the cache is at counts as kept.
 *  @param cache     [in,out]
 *  @param position        where to go back to
 *  @param error     [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY | WKV_NOT_FOUND: that position is not kept, or lies ahead; nothing changed
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_rollback(wkv_cache *cache, uint64_t position, wkv_error *error);

/** List the kept positions, rising.
 *  @param cache            [in]
 *  @param positions        [out] NULL with capacity 0 asks for the count
 *  @param capacity               room in positions
 *  @param positions_count  [out] kept positions, also when they do not fit
 *  @param error            [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID: capacity is too small; positions_count is set | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_get_kept_positions(const wkv_cache *cache, uint64_t *positions, size_t capacity,
                                                size_t *positions_count, wkv_error *error);

/** Describe a cache.
 *  @param cache  [in]
 *  @param info   [in,out] struct_size set by the caller; the rest is written
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.1 */
WKV_API wkv_status wkv_cache_get_info(const wkv_cache *cache, wkv_cache_info *info, wkv_error *error);

/** Read one part of one layer's state, in the layout of the official implementation.
 *  @param cache         [in]
 *  @param layer               [0, layers)
 *  @param part                a WKV_STATE_ value
 *  @param values        [out] float32[width] for a shift, float32[heads][head_size value][head_size key] for WKV
 *  @param values_count        capacity in floats, at least the part's size
 *  @param error         [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.1 */
WKV_API wkv_status wkv_cache_read_state(wkv_cache *cache, int32_t layer, wkv_state_part part, float *values,
                                        size_t values_count, wkv_error *error);

/** Replace one part of one layer's state. The position is not touched.
 *  @param cache         [in,out]
 *  @param layer                [0, layers)
 *  @param part                 a WKV_STATE_ value
 *  @param values        [in]   as wkv_cache_read_state gives them; every number must be finite
 *  @param values_count         exactly the part's size in floats
 *  @param error         [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.1 */
WKV_API wkv_status wkv_cache_write_state(wkv_cache *cache, int32_t layer, wkv_state_part part, const float *values,
                                         size_t values_count, wkv_error *error);

/** Look for numbers in a state that are not finite: after them every score is worthless.
 *  @param cache  [in]
 *  @param layer  [out] the first bad layer; -1: every number is finite
 *  @param part   [out] the first bad part of that layer; 0 when every number is finite
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK, also when something was found | WKV_INVALID | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_check(wkv_cache *cache, int32_t *layer, wkv_state_part *part, wkv_error *error);

/** How other engines lay a whole state out in float32. Values never change. */
typedef int32_t wkv_state_layout;
enum {
  WKV_LAYOUT_OFFICIAL = 0, /* the list of the rwkv package, item after item; per layer:
                              att shift [C], WKV [H][N value][N key], ffn shift [C] */
  WKV_LAYOUT_FLA = 1,      /* flash-linear-attention; per layer: recurrent_state [H][N key][N value],
                              conv_state [C], ffn_state [C] */
  WKV_LAYOUT_RWKV_CPP =
      2, /* the buffer of rwkv.cpp; per layer: ffn shift [C], att shift [C], WKV [H][N value][N key] */
  WKV_LAYOUT_LLAMA_CPP = 3 /* llama.cpp's two tensors of all layers: r [L][att shift C, ffn shift C], then
                              s [L][H][N value][N key] */
};

/** Read a whole state in the layout of another engine.
 *  @param cache         [in]
 *  @param layout              a WKV_LAYOUT_ value
 *  @param values        [out] float32, layers * (2 * width + width * head_size) of them
 *  @param values_count        capacity in floats
 *  @param error         [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_export(wkv_cache *cache, wkv_state_layout layout, float *values, size_t values_count,
                                    wkv_error *error);

/** Replace a whole state by one of another engine. Checkpoints are given up, and no last tokens are known.
 *  @param cache         [in,out]
 *  @param layout               a WKV_LAYOUT_ value
 *  @param values        [in]   as wkv_cache_export gives them; every number must be finite
 *  @param values_count         exactly the state's size in floats
 *  @param position             tokens that the state has read, at most INT64_MAX
 *  @param error         [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_import(wkv_cache *cache, wkv_state_layout layout, const float *values, size_t values_count,
                                    uint64_t position, wkv_error *error);

/** Give up one reference. A call that is using the cache finishes first.
 *  @param cache  NULL is fine
 *  @threads any
 *  @since 0.1 */
WKV_API void wkv_cache_release(wkv_cache *cache);

#ifdef __cplusplus
}
#endif

#include <wkv/blob.h> /* save, load, serialize, deserialize */

#endif
