/* SPDX-License-Identifier: Apache-2.0 */
/** @file export.h
 *  Which symbols leave the library. Every public function is declared with WKV_API; everything else is hidden. */
#ifndef WKV_EXPORT_H
#define WKV_EXPORT_H

#if defined(_WIN32)
#if defined(WKV_BUILDING_LIBRARY)
#define WKV_API __declspec(dllexport)
#else
#define WKV_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define WKV_API __attribute__((visibility("default")))
#else
#define WKV_API
#endif

#endif
