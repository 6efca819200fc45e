/* SPDX-License-Identifier: Apache-2.0 */
/** @file session.h
 *  A session: everything a conversation needs to go on, saved as one thing. A cache, and where there are any: a sampler
 *  (options, penalties, random generator), a generation in the middle of its text (pending token, unfinished UTF-8
 *  character, half a stop string, limits), and the last scores. After a reload, in another process or on another
 *  machine, the next tokens are those that would have come.
 *
 *      wkv_session session = {.struct_size = sizeof session, .generation = generation};
 *      wkv_session_save(&session, "chat.wkv", NULL, &error);
 *      ...
 *      wkv_session again = {.struct_size = sizeof again};
 *      wkv_session_load(model, "chat.wkv", &again, &error);
 *      wkv_generation_next(again.generation, &piece, &error);
 *
 *  The bytes are a blob (blob.h): wkv_cache_load reads the cache of a session, and wkv_session_load a cache alone. */
#ifndef WKV_SESSION_H
#define WKV_SESSION_H

#include <wkv/blob.h>
#include <wkv/generation.h>
#include <wkv/sampler.h>
#include <wkv/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The parts of a session. */
typedef struct wkv_session {
  uint32_t struct_size;
  int32_t has_logits; /* load: 1 when the session had logits; save: not looked at */
  /** save: NULL is fine with a generation, whose cache it then is. load: yours to release. */
  wkv_cache *cache;
  /** save: NULL: none, or the generation's. load: yours to release; NULL when the session had none. */
  wkv_sampler *sampler;
  /** save: NULL: none. load: yours to release; NULL when the session had none. It uses cache and sampler above. */
  wkv_generation *generation;
  /** save: scores after the last token, NULL: none. load: where they go, NULL: they are not wanted. */
  float *logits;
  size_t logits_count; /* save: exactly vocab_size; load: at least vocab_size */
  /** load: the tokenizer of the generation, NULL: the model's own. save: not looked at. */
  wkv_tokenizer *tokenizer;
} wkv_session;

/** Save a session to a file, as wkv_cache_save does.
 *  @param session  [in]  parts to save; used exclusively until return
 *  @param path     [in]  UTF-8; a file there is replaced
 *  @param options  [in]  NULL: all defaults
 *  @param error    [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID: neither cache nor generation; cache or sampler is not the generation's
 *          | WKV_BUSY | WKV_NOT_FOUND: no such folder | WKV_IO: the file at path is as before
 *  @threads any number of sessions at once
 *  @since 0.2 */
WKV_API wkv_status wkv_session_save(const wkv_session *session, const char *path, const wkv_save_options *options,
                                    wkv_error *error);

/** Load a session from a file.
 *  @param model    [in]  as in wkv_cache_load
 *  @param path     [in]  UTF-8
 *  @param session  [in,out] struct_size, logits and tokenizer set by the caller; handles are written, and logits where
 *                       both the session and the caller have them. Unchanged on failure. Options of a generation that
 *                       point to something (prefix_store, progress) are not saved.
 *  @param error    [in,out] detail; may be NULL
 *  @return as wkv_cache_load | WKV_NOT_FOUND: also when a generation needs a tokenizer and there is none
 *  @threads any
 *  @since 0.2 */
WKV_API wkv_status wkv_session_load(wkv_model *model, const char *path, wkv_session *session, wkv_error *error);

/** Write a session's blob to memory, as wkv_cache_serialize does.
 *  @param session      [in]  parts to save; used exclusively until return
 *  @param options      [in]  NULL: all defaults
 *  @param bytes        [out] NULL with capacity 0 asks for the size
 *  @param capacity           room in bytes
 *  @param bytes_count  [out] size of the blob, also when it does not fit
 *  @param error        [in,out] detail; may be NULL
 *  @return as wkv_session_save | WKV_INVALID: capacity is too small; bytes_count is set
 *  @threads any number of sessions at once
 *  @since 0.2 */
WKV_API wkv_status wkv_session_serialize(const wkv_session *session, const wkv_save_options *options, void *bytes,
                                         size_t capacity, size_t *bytes_count, wkv_error *error);

/** Make a session from a blob in memory.
 *  @param model        [in]  as in wkv_cache_load
 *  @param bytes        [in]  not kept after return
 *  @param bytes_count        exactly the blob's size
 *  @param session      [in,out] as in wkv_session_load
 *  @param error        [in,out] detail; may be NULL
 *  @return as wkv_session_load
 *  @threads any
 *  @since 0.2 */
WKV_API wkv_status wkv_session_deserialize(wkv_model *model, const void *bytes, size_t bytes_count,
                                           wkv_session *session, wkv_error *error);

#ifdef __cplusplus
}
#endif

#endif
