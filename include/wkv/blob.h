/* SPDX-License-Identifier: Apache-2.0 */
/** @file blob.h
 *  A blob: the state of a cache as bytes that any machine and any later version can read. A file and a buffer hold the
 *  same bytes. lib/state/README.md has the format.
 *
 *      wkv_cache_save(cache, "prompt.wkv", &error);
 *      wkv_cache *again = NULL;
 *      wkv_cache_load(model, "prompt.wkv", &again, &error);
 *
 *  A blob knows the model it belongs to, the position, the last tokens and a checksum. It holds the state alone:
 *  checkpoints and options stay with the cache. session.h saves a sampler and a generation with it. */
#ifndef WKV_BLOB_H
#define WKV_BLOB_H

#include <wkv/cache.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wkv_save_options {
  uint32_t struct_size;
  wkv_type state_type; /* of the numbers: 0 or WKV_TYPE_F32; WKV_TYPE_F16: half the size, 11 bits of precision */
} wkv_save_options;

/** What a blob says of itself. */
typedef struct wkv_blob_info {
  uint32_t struct_size;
  uint32_t format_version;
  uint64_t fingerprint; /* of the model, as in wkv_model_info */
  uint64_t position;
  uint64_t bytes; /* of the whole blob */
  int32_t layers, width, heads, head_size, vocab_size;
  wkv_type state_type;
  int32_t last_tokens[WKV_LAST_TOKENS]; /* the last one at last_tokens_count - 1 */
  int32_t last_tokens_count;
  int32_t has_sampler;    /* 1: it is a session with a sampler ... */
  int32_t has_generation; /* ... a generation ... */
  int32_t has_logits;     /* ... the last scores */
  int32_t has_tokens;     /* 1: the token ids of the whole sequence are in it (entries of a prefix store) */
  int32_t reserved;
} wkv_blob_info;

/** Save a cache to a file. The file appears whole or not at all: it is written beside the target, brought to the disk
 *  and renamed.
 *  @param cache  [in]  not changed; used exclusively until return
 *  @param path   [in]  UTF-8; a file there is replaced
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID: also for a state with a number that is not finite | WKV_BUSY | WKV_NOT_FOUND: no such
 *          folder | WKV_IO. After a failure the file at path is as before
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_save(wkv_cache *cache, const char *path, wkv_error *error);

/** wkv_cache_save with options.
 *  @param cache    [in]  not changed; used exclusively until return
 *  @param path     [in]  UTF-8; a file there is replaced
 *  @param options  [in]  NULL: all defaults
 *  @param error    [in,out] detail; may be NULL
 *  @return as wkv_cache_save; WKV_INVALID also for a number that WKV_TYPE_F16 cannot hold
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_save_as(wkv_cache *cache, const char *path, const wkv_save_options *options,
                                     wkv_error *error);

/** Make a cache from a file that wkv_cache_save or wkv_session_save wrote.
 *  @param model  [in]  the model it was saved from, or one with the same weights on another device or in another format
 *  @param path   [in]  UTF-8
 *  @param cache  [out] yours to release; unchanged on failure
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_NOT_FOUND | WKV_IO | WKV_FORMAT: damaged, or no blob
 *          | WKV_UNSUPPORTED: of a later version | WKV_MISMATCH: of another model | WKV_OUT_OF_MEMORY
 *  @threads any
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_load(wkv_model *model, const char *path, wkv_cache **cache, wkv_error *error);

/** Write a cache's blob to memory.
 *  @param cache        [in]  not changed; used exclusively until return
 *  @param bytes        [out] NULL with capacity 0 asks for the size. After a failure that is not for its capacity its
 *                      content is not defined
 *  @param capacity           room in bytes
 *  @param bytes_count  [out] size of the blob, also when it does not fit
 *  @param error        [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID: capacity is too small, bytes_count is set; a number is not finite | WKV_BUSY
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_serialize(wkv_cache *cache, void *bytes, size_t capacity, size_t *bytes_count,
                                       wkv_error *error);

/** wkv_cache_serialize with options.
 *  @param cache        [in]  not changed; used exclusively until return
 *  @param options      [in]  NULL: all defaults
 *  @param bytes        [out] NULL with capacity 0 asks for the size
 *  @param capacity           room in bytes
 *  @param bytes_count  [out] size of the blob, also when it does not fit
 *  @param error        [in,out] detail; may be NULL
 *  @return as wkv_cache_serialize; WKV_INVALID also for a number that WKV_TYPE_F16 cannot hold
 *  @threads any number of caches at once
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_serialize_as(wkv_cache *cache, const wkv_save_options *options, void *bytes,
                                          size_t capacity, size_t *bytes_count, wkv_error *error);

/** Make a cache from a blob in memory.
 *  @param model        [in]  as in wkv_cache_load
 *  @param bytes        [in]  not kept after return
 *  @param bytes_count        exactly the blob's size
 *  @param cache        [out] yours to release; unchanged on failure
 *  @param error        [in,out] detail; may be NULL
 *  @return as wkv_cache_load
 *  @threads any
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_deserialize(wkv_model *model, const void *bytes, size_t bytes_count, wkv_cache **cache,
                                         wkv_error *error);

/** Read what a blob file says of itself, without a model. Only its beginning is read and checked; the file's length is
 *  compared with what it should be.
 *  @param path   [in]  UTF-8
 *  @param info   [in,out] struct_size set by the caller; the rest is written
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_NOT_FOUND | WKV_IO | WKV_FORMAT | WKV_UNSUPPORTED
 *  @threads any
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_read_header(const char *path, wkv_blob_info *info, wkv_error *error);

/** wkv_cache_read_header of a blob in memory.
 *  @param bytes        [in]  the blob, or at least its first 4096 bytes
 *  @param bytes_count        bytes that are there
 *  @param info         [in,out] struct_size set by the caller; the rest is written
 *  @param error        [in,out] detail; may be NULL
 *  @return as wkv_cache_read_header
 *  @threads any
 *  @since 0.2 */
WKV_API wkv_status wkv_cache_read_header_memory(const void *bytes, size_t bytes_count, wkv_blob_info *info,
                                                wkv_error *error);

#ifdef __cplusplus
}
#endif

#endif
