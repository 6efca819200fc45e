/* SPDX-License-Identifier: Apache-2.0 */
/** @file version.h
 *  The version of this header and of the library that is loaded: they can be compared at run time. */
#ifndef WKV_VERSION_H
#define WKV_VERSION_H

#include <stddef.h>
#include <stdint.h>

#include <wkv/export.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WKV_VERSION_MAJOR 0
#define WKV_VERSION_MINOR 3
#define WKV_VERSION_PATCH 0
#define WKV_VERSION_STRING "0.3.0"
/** Grows by one with every incompatible change of the ABI; the same number as in the library's file name. */
#define WKV_ABI_VERSION 0u

/** The version of the loaded library, such as "0.3.0".
 *  @return static text, never NULL
 *  @threads any
 *  @since 0.1 */
WKV_API const char *wkv_version(void);

/** The ABI version of the loaded library; equal to WKV_ABI_VERSION of the headers it was built with.
 *  @return the number
 *  @threads any
 *  @since 0.1 */
WKV_API uint32_t wkv_abi_version(void);

#ifdef __cplusplus
}
#endif

#endif
