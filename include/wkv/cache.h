/* SPDX-License-Identifier: Apache-2.0 */
/** @file cache.h
 *  A cache: the recurrent state of one sequence. It holds everything the model remembers of the tokens fed so far, in
 *  the same few megabytes whatever their number. A new cache has read nothing.
 *
 *      wkv_cache *cache = NULL, *fork = NULL;
 *      wkv_cache_create(model, NULL, &cache, NULL);
 *      wkv_cache_step(cache, prompt, prompt_count, NULL, 0, NULL);
 *      wkv_cache_copy(cache, &fork, NULL);     -- two continuations of one prompt
 *
 *  A cache is used by one call at a time; a second call that meets it gets WKV_BUSY and changes nothing. It keeps its
 *  model alive. */
#ifndef WKV_CACHE_H
#define WKV_CACHE_H

#include <wkv/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wkv_cache wkv_cache;

typedef struct wkv_cache_options {
  uint32_t struct_size;
  uint32_t reserved; /* 0 */
} wkv_cache_options;

typedef struct wkv_cache_info {
  uint32_t struct_size;
  wkv_type state_type;
  uint64_t position;  /* tokens read since creation or reset */
  uint64_t bytes;     /* memory of the state */
  int32_t last_token; /* the token read last; -1: none */
  int32_t reserved;
  char device[32];
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

/** Make an independent cache with the same state and position.
 *  @param source  [in]  not changed; used exclusively until return
 *  @param copy    [out] yours to release; unchanged on failure
 *  @param error   [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY | WKV_OUT_OF_MEMORY
 *  @threads any number of caches at once
 *  @since 0.1 */
WKV_API wkv_status wkv_cache_copy(wkv_cache *source, wkv_cache **copy, wkv_error *error);

/** Give one cache the state and position of another of the same model.
 *  @param target  [in,out] overwritten; the same cache as source is fine
 *  @param source  [in]     not changed
 *  @param error   [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY | WKV_MISMATCH: caches of two models
 *  @threads any number of caches at once; both are used exclusively until return
 *  @since 0.1 */
WKV_API wkv_status wkv_cache_assign(wkv_cache *target, wkv_cache *source, wkv_error *error);

/** Forget everything: the state of a new cache.
 *  @param cache  [in,out]
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.1 */
WKV_API wkv_status wkv_cache_reset(wkv_cache *cache, wkv_error *error);

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

/** Give up one reference. A call that is using the cache finishes first.
 *  @param cache  NULL is fine
 *  @threads any
 *  @since 0.1 */
WKV_API void wkv_cache_release(wkv_cache *cache);

#ifdef __cplusplus
}
#endif

#endif
