/* SPDX-License-Identifier: Apache-2.0 */
/** @file initial_state.h
 *  A tuned initial state: what state tuning trains in place of the zeros that a cache starts from, a few megabytes that
 *  give a model a manner or a task. Any number of them can be loaded for a model; each cache chooses one when it is
 *  created.
 *
 *      wkv_initial_state *poet = NULL;
 *      wkv_initial_state_load(model, "poet.pth", NULL, &poet, &error);
 *      wkv_cache_options options = {.struct_size = sizeof options, .initial_state = poet};
 *      wkv_cache_create(model, &options, &cache, &error);
 *      wkv_initial_state_release(poet);
 *
 *  Files are .pth (zip and legacy) and .safetensors with a tensor blocks.N.att.time_state [heads][head_size][head_size]
 *  for each layer; other tensors in the file are left alone. Shifts start at zero. */
#ifndef WKV_INITIAL_STATE_H
#define WKV_INITIAL_STATE_H

#include <wkv/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wkv_initial_state wkv_initial_state;

/** How time_state lies in a file. Values never change. */
typedef int32_t wkv_time_state_order;
enum {
  WKV_TIME_STATE_KEY_FIRST = 0,  /* [heads][head_size key][head_size value]: what the trainers of RWKV-LM and RWKV-PEFT
                                    write, and the official loaders transpose */
  WKV_TIME_STATE_VALUE_FIRST = 1 /* [heads][head_size value][head_size key] */
};

typedef struct wkv_initial_state_options {
  uint32_t struct_size;
  wkv_time_state_order order; /* of the file */
} wkv_initial_state_options;

typedef struct wkv_initial_state_info {
  uint32_t struct_size;
  int32_t may_be_rwkv6; /* 1: see warning */
  uint64_t bytes;       /* memory of the state */
  char warning[128];    /* empty, or why the file may be for RWKV-6, whose states have the same shapes and mean
                           something else: one line */
} wkv_initial_state_info;

/** Load a tuned initial state.
 *  @param model    [in]  the model it is for; kept alive
 *  @param path     [in]  UTF-8 path of a file
 *  @param options  [in]  NULL: all defaults
 *  @param state    [out] yours to release; unchanged on failure
 *  @param error    [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_NOT_FOUND: no such file, or no time_state in it | WKV_IO
 *          | WKV_FORMAT: damaged, or a value is not a finite number | WKV_UNSUPPORTED: a number type that weights do
 *          not have | WKV_MISMATCH: its layers or shapes are not the model's
 *          | WKV_OUT_OF_MEMORY: also when the model's memory_limit_bytes would be passed
 *  @threads any
 *  @since 0.2 */
WKV_API wkv_status wkv_initial_state_load(wkv_model *model, const char *path, const wkv_initial_state_options *options,
                                          wkv_initial_state **state, wkv_error *error);

/** Describe an initial state.
 *  @param state  [in]
 *  @param info   [in,out] struct_size set by the caller; the rest is written
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID
 *  @threads any
 *  @since 0.2 */
WKV_API wkv_status wkv_initial_state_get_info(const wkv_initial_state *state, wkv_initial_state_info *info,
                                              wkv_error *error);

/** Give up one reference. Caches that were created with it keep what they need.
 *  @param state  NULL is fine
 *  @threads any
 *  @since 0.2 */
WKV_API void wkv_initial_state_release(wkv_initial_state *state);

#ifdef __cplusplus
}
#endif

#endif
