#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every public header compiles alone and after all others, as C99 to C++20, under strict warnings.
# usage: headers_compile.sh C_COMPILER CXX_COMPILER INCLUDE_DIRECTORY
set -u
cc=$1 cxx=$2 include=$3 failed=0 count=0
strict="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fsyntax-only -I$include"

compile() { # label, compiler with language, text
  count=$((count + 1))
  printf '%b' "$3" | $2 $strict - || { echo "failed: $1"; failed=$((failed + 1)); }
}

for path in "$include"/wkv/*.h "$include"/wkv/*.hpp; do
  header=wkv/$(basename "$path")
  text="#include <$header>\n#include <$header>\n#include <wkv/wkv.h>\nint main(void) { return 0; }\n"
  case $header in
  *.h) for std in c99 c11; do compile "$header as $std" "$cc -x c -std=$std" "$text"; done ;;
  esac
  for std in c++17 c++20; do compile "$header as $std" "$cxx -x c++ -std=$std" "$text"; done
done
echo "$count compilations, $failed failed"
[ "$failed" -eq 0 ] && [ "$count" -gt 40 ]
