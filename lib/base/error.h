// SPDX-License-Identifier: Apache-2.0
// Failures inside the library travel as this exception; lib/api turns it into a status at the edge.
#pragma once

#include <exception>

#include <wkv/status.h>

namespace libwkv {

// Holds its text inline, so that throwing needs no memory of ours when memory is what ran out.
class Error : public std::exception {
 public:
  Error(wkv_status status, const char *message) noexcept;
  wkv_status status() const noexcept { return status_; }
  const char *what() const noexcept override { return message_; }

 private:
  wkv_status status_;
  char message_[sizeof(wkv_error::message)];
};

// Throws Error with a printf-formatted line. Control characters in the text (names come from files) become '?'.
[[noreturn]] void fail(wkv_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace libwkv
