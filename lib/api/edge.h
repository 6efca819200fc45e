// SPDX-License-Identifier: Apache-2.0
// What every C entry does: read structs by their size, call, and turn whatever happens into a status.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>

#include <wkv/status.h>

#include "base/error.h"

namespace libwkv::api {

// Writes the outcome to the caller's error, if there is one. error->struct_size was checked by guard.
void report(wkv_error *error, wkv_status status, const char *message) noexcept;

// Runs body, which returns a wkv_status or throws.
template <class Body>
wkv_status guard(wkv_error *error, Body &&body) noexcept {
  if (error && error->struct_size < sizeof(wkv_error)) return WKV_INVALID;
  try {
    return body();
  } catch (const Error &e) {
    report(error, e.status(), e.what());
    return e.status();
  } catch (const std::bad_alloc &) {
    report(error, WKV_OUT_OF_MEMORY, "out of memory");
    return WKV_OUT_OF_MEMORY;
  } catch (const std::exception &e) {
    report(error, WKV_INTERNAL, e.what());
    return WKV_INTERNAL;
  } catch (...) {
    report(error, WKV_INTERNAL, "an unknown exception");
    return WKV_INTERNAL;
  }
}

// Throws unless struct_size holds at least `known` bytes and the bytes behind them, which this version does not know,
// are zero. `what` names the struct.
void check_struct(const void *structure, uint32_t struct_size, size_t known, const char *what);

// A copy of the caller's options; all zero (defaults) for NULL.
template <class Options>
Options read_options(const Options *options, const char *what) {
  Options copy{};
  if (!options) return copy;
  check_struct(options, options->struct_size, sizeof(Options), what);
  std::memcpy(&copy, options, sizeof copy);
  return copy;
}

// Throws WKV_INVALID for NULL.
template <class Pointer>
Pointer *needed(Pointer *pointer, const char *what) {
  if (!pointer) fail(WKV_INVALID, "%s is NULL", what);
  return pointer;
}

// Checks an output struct, to be called before anything else; write_info then fills it and keeps its struct_size.
template <class Info>
void check_info(Info *info, const char *what) {
  needed(info, what);
  check_struct(info, info->struct_size, sizeof(Info), what);
}
template <class Info>
void write_info(Info *info, Info values) {
  values.struct_size = info->struct_size;
  std::memcpy(info, &values, sizeof values);
}

// Copies text into a fixed field, shortened where needed, always terminated.
template <size_t size>
void write_text(char (&field)[size], const char *text) {
  size_t length = strnlen(text, size - 1);
  std::memcpy(field, text, length);
  field[length] = 0;
}

}  // namespace libwkv::api
