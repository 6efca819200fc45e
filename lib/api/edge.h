// SPDX-License-Identifier: Apache-2.0
// What every C entry does: read structs by their size, call, and turn whatever happens into a status.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <exception>
#include <new>

#include <wkv/wkv.h>

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

// The sizes that a struct had in earlier versions: programs compiled then go on. Structs that have grown are listed
// here.
template <class Struct>
inline constexpr std::array<size_t, 0> earlier_sizes{};
template <>
inline constexpr std::array earlier_sizes<wkv_model_options>{offsetof(wkv_model_options, parking_limit_bytes)};
template <>
inline constexpr std::array earlier_sizes<wkv_memory_info>{offsetof(wkv_memory_info, checkpoints_bytes),
                                                           offsetof(wkv_memory_info, parked_bytes)};
template <>
inline constexpr std::array earlier_sizes<wkv_cache_options>{offsetof(wkv_cache_options, checkpoints_count_max)};
template <>
inline constexpr std::array earlier_sizes<wkv_cache_info>{offsetof(wkv_cache_info, kept_count)};
template <>
inline constexpr std::array earlier_sizes<wkv_generation_options>{offsetof(wkv_generation_options, keeps_stop_string)};
template <>
inline constexpr std::array earlier_sizes<wkv_generation_piece>{offsetof(wkv_generation_piece, reused_tokens)};

// Throws unless struct_size is one of `earlier` or at least `known`, the size in this version, and the bytes behind
// that are zero. `what` names the struct.
void check_struct(const void *structure, uint32_t struct_size, std::span<const size_t> earlier, size_t known,
                  const char *what);

// A copy of the caller's options; all zero (defaults) for NULL.
template <class Options>
Options read_options(const Options *options, const char *what) {
  Options copy{};
  if (!options) return copy;
  check_struct(options, options->struct_size, earlier_sizes<Options>, sizeof(Options), what);
  std::memcpy(&copy, options, std::min<size_t>(options->struct_size, sizeof copy));
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
  check_struct(info, info->struct_size, earlier_sizes<Info>, sizeof(Info), what);
}
template <class Info>
void write_info(Info *info, Info values) {
  values.struct_size = info->struct_size;
  std::memcpy(info, &values, std::min<size_t>(info->struct_size, sizeof values));
}

// A buffer that the caller gives for a result whose size only the call knows. True when only the size is asked for.
bool is_query(const void *buffer, size_t capacity, const size_t *count, const char *buffer_name,
              const char *count_name);
// Throws, with *count set, unless the result fits.
void check_room(size_t needed, size_t capacity, size_t *count);

// Copies text into a fixed field, shortened where needed, always terminated.
template <size_t size>
void write_text(char (&field)[size], const char *text) {
  size_t length = strnlen(text, size - 1);
  std::memcpy(field, text, length);
  field[length] = 0;
}

}  // namespace libwkv::api
