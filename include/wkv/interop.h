/* SPDX-License-Identifier: Apache-2.0 */
/** @file interop.h
 *  For programs with GPU code of their own: states and scores that never leave the device. Scores: the flag
 *  WKV_STEP_DEVICE_LOGITS of step.h. A call that computes returns when its work is done, so what it wrote can be read
 * on any stream; what a program's own stream has still to write, the model's stream must be made to wait for:
 *
 *      void *stream;                                   // a cudaStream_t
 *      wkv_model_get_stream(model, &stream, &error);
 *      cudaStreamWaitEvent((cudaStream_t)stream, written, 0);
 *
 *      wkv_device_tensor state = {.struct_size = sizeof state};
 *      wkv_cache_get_tensor(cache, layer, WKV_STATE_WKV, &state, &error); */
#ifndef WKV_INTEROP_H
#define WKV_INTEROP_H

#include <wkv/cache.h>
#include <wkv/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Numbers in the memory of a device, with the fields and values of a DLPack tensor. */
typedef struct wkv_device_tensor {
  uint32_t struct_size;
  int32_t device_type;  /* DLPack's: 2 is CUDA */
  int32_t device_index; /* 1 of "cuda:1" */
  int32_t dimensions;
  void *data;
  int64_t shape[4];
  int64_t strides[4]; /* in numbers */
  int32_t type_code;  /* DLPack's: 2 is floating point */
  int32_t type_bits;  /* 32; 16 for the WKV part of a state in half precision */
} wkv_device_tensor;

/** Where a part of a cache's state lies. It may be read and written there until the cache is next used: a step may put
 *  the state elsewhere. So may any call that needs memory when parking_limit_bytes is set. Writing also changes what
 *  forks and checkpoints share with it; wkv_cache_write_state does not.
 *  @param cache   [in]
 *  @param layer   [in]  [0, layers)
 *  @param part    [in]  shifts are [C]; WKV is [H][N key][N value], the transpose of wkv_cache_read_state's
 *  @param tensor  [in,out] struct_size set by the caller; the rest is written
 *  @param error   [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_BUSY | WKV_NOT_FOUND: the state is all zero and has no memory yet
 *          | WKV_UNSUPPORTED: the model is on the CPU | WKV_OUT_OF_MEMORY: it was parked, and there is no room
 *  @threads any; exclusive use of the cache
 *  @since 0.3 */
WKV_API wkv_status wkv_cache_get_tensor(wkv_cache *cache, int32_t layer, wkv_state_part part, wkv_device_tensor *tensor,
                                        wkv_error *error);

/** The CUDA stream that all work of a model goes through.
 *  @param model   [in]
 *  @param stream  [out] a cudaStream_t, the model's own: not to be destroyed
 *  @param error   [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_UNSUPPORTED: the model is on the CPU
 *  @threads any
 *  @since 0.3 */
WKV_API wkv_status wkv_model_get_stream(wkv_model *model, void **stream, wkv_error *error);

#ifdef __cplusplus
}
#endif

#endif
