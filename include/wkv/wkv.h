/* SPDX-License-Identifier: Apache-2.0 */
/** @file wkv.h
 *  Everything that libwkv promises: RWKV-7 models inside your program. One header a noun; each is its own manual. */
#ifndef WKV_WKV_H
#define WKV_WKV_H

#include <wkv/blob.h>
#include <wkv/cache.h>
#include <wkv/convert.h>
#include <wkv/device.h>
#include <wkv/generation.h>
#include <wkv/initial_state.h>
#include <wkv/interop.h>
#include <wkv/model.h>
#include <wkv/prefix_store.h>
#include <wkv/sampler.h>
#include <wkv/session.h>
#include <wkv/status.h>
#include <wkv/step.h>
#include <wkv/tokenizer.h>
#include <wkv/version.h>

#endif
