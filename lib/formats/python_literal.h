// SPDX-License-Identifier: Apache-2.0
// Text and bytes as Python writes them: the form in which RWKV vocabularies store their tokens.
#pragma once

#include <string>
#include <string_view>

namespace libwkv::formats {

// Both append the bytes that the literal stands for and return NULL, or return what is wrong with it.

// A whole literal: 'text', "text", b'bytes' or b"bytes". Text becomes UTF-8. Nothing else of the language is known.
const char *read_python_literal(std::string_view literal, std::string &out);
// The inside of a bytes literal, as repr() of bytes gives it.
const char *read_python_bytes(std::string_view inside, std::string &out);

// The inside of what Python's repr() gives for bytes.
std::string write_python_bytes(std::string_view bytes);

}  // namespace libwkv::formats
