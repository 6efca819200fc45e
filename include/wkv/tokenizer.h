/* SPDX-License-Identifier: Apache-2.0 */
/** @file tokenizer.h
 *  A tokenizer: bytes to token ids by greedy longest match, and back. Byte-exact on any input; ids of the RWKV "World"
 *  family, where id 0 is the end of text and has no bytes.
 *
 *      wkv_tokenizer *tokenizer = NULL;
 *      wkv_model_get_tokenizer(model, &tokenizer, &error);
 *      size_t count = 0;
 *      int32_t tokens[256];
 *      wkv_tokenizer_encode(tokenizer, text, strlen(text), tokens, 256, &count, &error);
 *
 *  Read-only after loading, shared by any number of threads, counted inside. */
#ifndef WKV_TOKENIZER_H
#define WKV_TOKENIZER_H

#include <wkv/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wkv_tokenizer wkv_tokenizer;

typedef struct wkv_tokenizer_info {
  uint32_t struct_size;
  int32_t tokens;        /* ids that have bytes */
  int32_t ids_end;       /* largest such id + 1 */
  int32_t longest_bytes; /* bytes of the longest token */
} wkv_tokenizer_info;

/** Load a vocabulary: an RWKV vocabulary file (lines of id, Python literal, length), or a model file or directory
 *  that carries one.
 *  @param path       [in]  UTF-8 path
 *  @param tokenizer  [out] yours to release; unchanged on failure
 *  @param error      [in,out] detail with the line number; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_NOT_FOUND: no such file, or a model file without vocabulary | WKV_IO | WKV_FORMAT
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_tokenizer_load(const char *path, wkv_tokenizer **tokenizer, wkv_error *error);

/** Load a vocabulary from the content of an RWKV vocabulary file.
 *  @param bytes        [in]  the content; not kept after return
 *  @param bytes_count        its size
 *  @param tokenizer    [out] yours to release; unchanged on failure
 *  @param error        [in,out] detail with the line number; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_FORMAT
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_tokenizer_load_memory(const void *bytes, size_t bytes_count, wkv_tokenizer **tokenizer,
                                             wkv_error *error);

/** The vocabulary that came with a model: inside its file, or beside it in a model directory.
 *  @param model      [in]
 *  @param tokenizer  [out] yours to release; unchanged on failure
 *  @param error      [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_NOT_FOUND: the model has none
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_model_get_tokenizer(wkv_model *model, wkv_tokenizer **tokenizer, wkv_error *error);

/** Describe a tokenizer.
 *  @param tokenizer  [in]
 *  @param info       [in,out] struct_size set by the caller; the rest is written
 *  @param error      [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_tokenizer_get_info(const wkv_tokenizer *tokenizer, wkv_tokenizer_info *info, wkv_error *error);

/** Bytes to token ids: at each place the longest token that matches.
 *  @param tokenizer     [in]
 *  @param text          [in]  any bytes, valid UTF-8 or not, NUL included; NULL when text_bytes is 0
 *  @param text_bytes          their number
 *  @param tokens        [out] ids; NULL with capacity 0 asks for the count alone
 *  @param capacity            size of tokens
 *  @param tokens_count  [out] ids written, or needed when the call fails for want of room
 *  @param error         [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID: capacity too small (nothing written but tokens_count)
 *          | WKV_UNSUPPORTED: a byte that no token of this vocabulary begins with; its position is in the message
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_tokenizer_encode(const wkv_tokenizer *tokenizer, const char *text, size_t text_bytes,
                                        int32_t *tokens, size_t capacity, size_t *tokens_count, wkv_error *error);

/** Token ids to bytes. Id 0 and ids without a token give no bytes.
 *  @param tokenizer     [in]
 *  @param tokens        [in]  ids; NULL when tokens_count is 0
 *  @param tokens_count        their number
 *  @param text          [out] bytes, not terminated; NULL with capacity 0 asks for the count alone
 *  @param capacity            size of text
 *  @param text_bytes    [out] bytes written, or needed when the call fails for want of room
 *  @param error         [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID: a negative id, or capacity too small (nothing written but text_bytes)
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_tokenizer_decode(const wkv_tokenizer *tokenizer, const int32_t *tokens, size_t tokens_count,
                                        char *text, size_t capacity, size_t *text_bytes, wkv_error *error);

/** Give up one reference.
 *  @param tokenizer  NULL is fine
 *  @threads any
 *  @since 0.1 */
WKV_API void wkv_tokenizer_release(wkv_tokenizer *tokenizer);

/** A decoder for text that arrives token by token: what it gives out is always whole UTF-8 characters. Bytes that can
 *  never become UTF-8 are replaced by U+FFFD, one for each maximal invalid part. */
typedef struct wkv_decoder wkv_decoder;

/** Create a decoder.
 *  @param tokenizer  [in]  kept alive by the decoder
 *  @param decoder    [out] yours to release; unchanged on failure
 *  @param error      [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_decoder_create(wkv_tokenizer *tokenizer, wkv_decoder **decoder, wkv_error *error);

/** Feed one token and get the text that is complete now.
 *  @param decoder     [in,out]
 *  @param token             an id >= 0; id 0 and ids without a token add nothing
 *  @param text        [out] terminated UTF-8, valid until the next call on this decoder; may be empty
 *  @param text_bytes  [out] its length without the terminator
 *  @param error       [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID
 *  @threads one at a time
 *  @since 0.1 */
WKV_API wkv_status wkv_decoder_push(wkv_decoder *decoder, int32_t token, const char **text, size_t *text_bytes,
                                    wkv_error *error);

/** End the text: what is still incomplete comes out as U+FFFD, and the decoder is as new.
 *  @param decoder     [in,out]
 *  @param text        [out] terminated UTF-8, valid until the next call on this decoder; may be empty
 *  @param text_bytes  [out] its length without the terminator
 *  @param error       [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID
 *  @threads one at a time
 *  @since 0.1 */
WKV_API wkv_status wkv_decoder_finish(wkv_decoder *decoder, const char **text, size_t *text_bytes, wkv_error *error);

/** Release a decoder.
 *  @param decoder  NULL is fine
 *  @threads one at a time
 *  @since 0.1 */
WKV_API void wkv_decoder_release(wkv_decoder *decoder);

#ifdef __cplusplus
}
#endif

#endif
