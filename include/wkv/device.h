/* SPDX-License-Identifier: Apache-2.0 */
/** @file device.h
 *  Where models can run. Device 0 is always the CPU; the others are those of the CUDA plugin (libwkv_cuda), which is
 *  looked for when a device is first asked for: where the environment variable WKV_CUDA_PATH says (a file or folder),
 *  else beside libwkv, else where the system finds libraries. Without driver, plugin or card there still is a device
 *  "cuda:0", which is not usable and says why.
 *
 *      for (size_t i = 0; i < wkv_device_count(); i++) {
 *          wkv_device_info info = {.struct_size = sizeof info};
 *          if (wkv_device_get_info(i, &info, NULL) == WKV_OK) printf("%s: %s\n", info.name, info.description);
 *      } */
#ifndef WKV_DEVICE_H
#define WKV_DEVICE_H

#include <wkv/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wkv_device_info {
  uint32_t struct_size;
  int32_t is_usable;     /* 1: a model can be loaded there; 0: unusable_reason says why not */
  char name[32];         /* what wkv_model_options.device takes: "cpu", "cuda:0" */
  char description[128]; /* for people: processor model, cores */
  char kernels[128];     /* kernel sets usable there, best first, separated by commas: "avx2,scalar", "cuda sm_90" */
  char unusable_reason[128];
  uint64_t memory_bytes; /* total memory of the device */
  int32_t cores;         /* processor cores this process may use; multiprocessors of a GPU */
  int32_t reserved;
} wkv_device_info;

/** The number of devices known to this process.
 *  @return at least 2
 *  @threads any
 *  @since 0.1 */
WKV_API size_t wkv_device_count(void);

/** Describe one device.
 *  @param index  [0, wkv_device_count())
 *  @param info   [in,out] struct_size set by the caller; the rest is written
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_device_get_info(size_t index, wkv_device_info *info, wkv_error *error);

#ifdef __cplusplus
}
#endif

#endif
