/* SPDX-License-Identifier: Apache-2.0 */
/** @file convert.h
 *  Rewriting a checkpoint: any format that wkv_model_load reads in, one GGUF file out, vocabulary included. Never
 *  needed before loading; useful to ship one small file.
 *
 *      wkv_convert_options options = {.struct_size = sizeof options, .weight_type = WKV_TYPE_Q8,
 *                                     .vocabulary_path = "rwkv_vocab_v20230424.txt"};
 *      wkv_convert("model.pth", "model-q8.gguf", &options, &error); */
#ifndef WKV_CONVERT_H
#define WKV_CONVERT_H

#include <wkv/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wkv_convert_options {
  uint32_t struct_size;
  wkv_type weight_type;        /* F32, F16, BF16 or Q8 for the large matrices; 0: F16. Vectors become F32; low-rank
                                  matrices F16 with Q8. */
  const char *vocabulary_path; /* RWKV vocabulary file to put inside; NULL: the source's own, if any */
  const char *name;            /* general.name in the file; NULL: none */
  /** As in wkv_model_options. Non-zero cancels; the target is then not written. */
  int32_t (*progress)(void *user, uint64_t done_bytes, uint64_t total_bytes);
  void *progress_user;
} wkv_convert_options;

/** Write a checkpoint as GGUF v3 that llama.cpp reads as well. The target appears whole or not at all: it is written
 *  under a temporary name in the same folder and renamed.
 *  @param source_path  [in]  as wkv_model_load's path
 *  @param target_path  [in]  file to write; an existing one is replaced
 *  @param options      [in]  NULL: all defaults
 *  @param error        [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_NOT_FOUND | WKV_IO | WKV_FORMAT | WKV_UNSUPPORTED | WKV_CANCELLED
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_convert(const char *source_path, const char *target_path, const wkv_convert_options *options,
                               wkv_error *error);

#ifdef __cplusplus
}
#endif

#endif
