/* SPDX-License-Identifier: Apache-2.0 */
/** @file prefix_store.h
 *  A prefix store: states of token sequences that were read before, so that a prompt that begins like one of them costs
 *  its new tokens only. Entries are found by token ids; states are shared with the caches they came from until these
 *  step; the least recently used entries go when the budget is used up.
 *
 *      wkv_prefix_store *store = NULL;
 *      wkv_prefix_store_options options = {.struct_size = sizeof options, .memory_bytes_max = 1 << 30,
 *                                          .directory = "prefixes"};
 *      wkv_prefix_store_create(model, &options, &store, &error);
 *      size_t known = 0;
 *      wkv_prefix_store_find(store, prompt, prompt_count, cache, &known, &error);
 *      wkv_cache_step(cache, prompt + known, prompt_count - known, logits, vocab_size, &error);
 *      wkv_prefix_store_put(store, prompt, prompt_count, cache, &error);
 *
 *  A generation does all this by itself when it is given a store (generation.h).
 *
 *  Behind the memory there can be a slower place that survives the process: a directory, or whatever the host makes of
 *  four functions (a database, encryption, a quota). Entries there are blobs (blob.h) under names that the store makes
 *  of model and tokens. A blob that is damaged or of another model is not used, is evicted, and is counted.
 *
 *  When a call would pass memory_limit_bytes of the model (model.h), entries are given up before it fails. */
#ifndef WKV_PREFIX_STORE_H
#define WKV_PREFIX_STORE_H

#include <wkv/cache.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wkv_prefix_store wkv_prefix_store;

/** Longest name of an entry, its end included: 64 characters of [0-9a-f-], fine as a file name or a key. */
enum { WKV_PREFIX_NAME_BYTES = 72 };

/** Where entries go besides memory. Functions are called one at a time, by the thread that uses the store, and must not
 *  use the store. */
typedef struct wkv_prefix_storage {
  uint32_t struct_size;
  uint32_t reserved; /* 0 */
  void *user;
  /** Keep bytes under a name, replacing what is there. Non-zero: not kept, which is counted and else no failure. */
  int32_t (*put)(void *user, const char *name, const void *bytes, size_t bytes_count);
  /** Set *bytes_count to an entry's size and copy its first min(capacity, size) bytes. Non-zero: there is none. */
  int32_t (*get)(void *user, const char *name, void *bytes, size_t capacity, size_t *bytes_count);
  /** Forget an entry; one that is not there is fine. */
  void (*evict)(void *user, const char *name);
  /** Write the name of entry `index` of those that are there when the store is created, 0 first, and first those that
   *  should go first. Non-zero: there are no more. NULL: none are. */
  int32_t (*list)(void *user, size_t index, char *name, size_t capacity);
} wkv_prefix_storage;

typedef struct wkv_prefix_store_options {
  uint32_t struct_size;
  uint32_t min_tokens;       /* shorter sequences are not kept; 0: 16 */
  uint64_t memory_bytes_max; /* budget of states in memory; 0: 256 MiB */
  const char *directory;     /* UTF-8; NULL: none. Made when it is not there. Files in it that the store did not write
                                are left alone */
  uint64_t directory_bytes_max; /* budget of this model's blobs in the directory or storage; 0: no limit */
  const wkv_prefix_storage
      *storage;       /* NULL: none; not together with a directory. Copied; user must outlive the store */
  wkv_type save_type; /* state type of blobs, as in wkv_save_options */
  int32_t reserved;   /* 0 */
} wkv_prefix_store_options;

typedef struct wkv_prefix_store_info {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t entries;        /* in memory */
  uint64_t entries_bytes;  /* state_bytes of each: what counts against memory_bytes_max */
  uint64_t stored_entries; /* in the directory or storage */
  uint64_t stored_bytes;
  uint64_t finds;            /* calls of wkv_prefix_store_find */
  uint64_t hits;             /* those that found something */
  uint64_t stored_hits;      /* those of hits that came from the directory or storage */
  uint64_t reused_tokens;    /* tokens that need not be computed, over all hits */
  uint64_t puts;             /* entries made */
  uint64_t evictions;        /* entries that left memory because it was short */
  uint64_t storage_failures; /* entries that the directory or storage did not take, or gave back damaged */
} wkv_prefix_store_info;

/** Create a store for one model.
 *  @param model    [in]  kept alive
 *  @param options  [in]  NULL: all defaults
 *  @param store    [out] yours to release; unchanged on failure
 *  @param error    [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_IO: the directory cannot be made or read
 *  @threads any
 *  @since 0.2 */
WKV_API wkv_status wkv_prefix_store_create(wkv_model *model, const wkv_prefix_store_options *options,
                                           wkv_prefix_store **store, wkv_error *error);

/** Put the longest beginning of a sequence that the store has into a cache. It is shorter than the sequence, so that
 *  there is a token left to feed for scores.
 *  @param store         [in,out]
 *  @param tokens        [in]  the sequence from its very beginning
 *  @param tokens_count        at least 1
 *  @param cache         [in,out] of the store's model, without an initial state; replaced, checkpoints included, when
 *                             something is found, else left alone
 *  @param known_count   [out] tokens that the cache has read now; 0: nothing was found
 *  @param error         [in,out] detail; may be NULL
 *  @return WKV_OK, also when nothing was found | WKV_INVALID | WKV_BUSY: the cache | WKV_MISMATCH: another model's
 * cache | WKV_OUT_OF_MEMORY
 *  @threads any number of calls at once; they take turns
 *  @since 0.2 */
WKV_API wkv_status wkv_prefix_store_find(wkv_prefix_store *store, const int32_t *tokens, size_t tokens_count,
                                         wkv_cache *cache, size_t *known_count, wkv_error *error);

/** Keep the state of a cache that has read exactly these tokens, from the zero state on.
 *  @param store         [in,out]
 *  @param tokens        [in]  every token that the cache has read
 *  @param tokens_count        the cache's position; fewer than min_tokens: nothing is kept
 *  @param cache         [in]  not changed; of the store's model, without an initial state
 *  @param error         [in,out] detail; may be NULL
 *  @return WKV_OK, also when the budget holds no state at all | WKV_INVALID: tokens_count is not the position, or the
 *          last tokens differ | WKV_BUSY | WKV_MISMATCH | WKV_OUT_OF_MEMORY
 *  @threads any number of calls at once; they take turns
 *  @since 0.2 */
WKV_API wkv_status wkv_prefix_store_put(wkv_prefix_store *store, const int32_t *tokens, size_t tokens_count,
                                        wkv_cache *cache, wkv_error *error);

/** Forget every entry, in the directory or storage too.
 *  @param store  [in,out]
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID
 *  @threads any number of calls at once; they take turns
 *  @since 0.2 */
WKV_API wkv_status wkv_prefix_store_clear(wkv_prefix_store *store, wkv_error *error);

/** What a store holds and how it was used.
 *  @param store  [in]
 *  @param info   [in,out] struct_size set by the caller; the rest is written
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID
 *  @threads any number of calls at once; they take turns
 *  @since 0.2 */
WKV_API wkv_status wkv_prefix_store_get_info(wkv_prefix_store *store, wkv_prefix_store_info *info, wkv_error *error);

/** Give up one reference. What is in the directory or storage stays there.
 *  @param store  NULL is fine
 *  @threads any
 *  @since 0.2 */
WKV_API void wkv_prefix_store_release(wkv_prefix_store *store);

#ifdef __cplusplus
}
#endif

#endif
