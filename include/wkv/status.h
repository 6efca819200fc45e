/* SPDX-License-Identifier: Apache-2.0 */
/** @file status.h
 *  How calls report: a number that programs act on, and one line of text that people read.
 *
 *      wkv_error error = {.struct_size = sizeof error};
 *      if (wkv_model_load("model.pth", NULL, &model, &error) != WKV_OK)
 *          fprintf(stderr, "%s: %s\n", wkv_status_name(error.status), error.message);
 *
 *  Conventions of every function of this library:
 *  - NULL where a pointer is needed, a struct_size that is too small, and a count that does not fit give WKV_INVALID.
 *  - Public structs begin with struct_size = sizeof(the struct). Zero in any other field means "default". A struct
 *    larger than the library knows is accepted when its unknown tail is all zero, else the call returns
 *    WKV_UNSUPPORTED. The library never writes past struct_size.
 *  - Arguments are checked before anything changes: after a failure, objects and outputs are as before the call.
 *  - WKV_OUT_OF_MEMORY and WKV_INTERNAL may come from any function and are not repeated in each list. WKV_INTERNAL
 *    is a fault of the library: please report it. */
#ifndef WKV_STATUS_H
#define WKV_STATUS_H

#include <stddef.h>
#include <stdint.h>

#include <wkv/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Outcome of a call: 0 is success, positive a success with news, negative a failure. Values never change. */
typedef int32_t wkv_status;
enum {
  WKV_OK = 0,
  WKV_END = 1,          /* nothing more will come (generation) */
  WKV_INVALID = -1,     /* an argument is wrong */
  WKV_NOT_FOUND = -2,   /* no such file, device, kernel or entry */
  WKV_IO = -3,          /* the operating system refused to read or write */
  WKV_FORMAT = -4,      /* the bytes are damaged or not what they claim to be */
  WKV_UNSUPPORTED = -5, /* understood, but this library cannot do it */
  WKV_OUT_OF_MEMORY = -6,
  WKV_BUSY = -7,      /* the object is in use by another call */
  WKV_CANCELLED = -8, /* the progress function asked to stop */
  WKV_MISMATCH = -9,  /* valid, but of another model */
  WKV_DEVICE = -10,   /* the device failed; what it held may be lost */
  WKV_INTERNAL = -11  /* a fault of the library */
};

/** Text of a failure, in memory of the caller. Set struct_size; status and message are written by a call that fails
 *  and left alone by one that succeeds. message is UTF-8, one line, always terminated, shortened where needed. */
typedef struct wkv_error {
  uint32_t struct_size;
  wkv_status status;
  char message[504];
} wkv_error;

/** The stable name of a status, such as "WKV_OK".
 *  @param status  any value
 *  @return static text, "WKV_STATUS_UNKNOWN" for a value this version does not know; never NULL
 *  @threads any
 *  @since 0.1 */
WKV_API const char *wkv_status_name(wkv_status status);

#ifdef __cplusplus
}
#endif

#endif
