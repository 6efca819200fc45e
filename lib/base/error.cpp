// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace libwkv {

Error::Error(wkv_status status, const char *message) noexcept : status_(status) {
  size_t length = strnlen(message, sizeof message_ - 1);
  std::memcpy(message_, message, length);
  message_[length] = 0;
}

void fail(wkv_status status, const char *format, ...) {
  char text[sizeof(wkv_error::message)];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  for (char *c = text; *c; c++)
    if (static_cast<unsigned char>(*c) < 0x20 || *c == 0x7f) *c = '?';
  throw Error(status, text);
}

}  // namespace libwkv
