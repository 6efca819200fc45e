#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs into an empty prefix, moves the tree elsewhere, and builds and runs programs that know nothing but it: those
# of the top README, and examples/embed.c.
# usage: consumer_test.sh cmake|pkgconfig BUILD_DIR SOURCE_DIR CMAKE CC CXX [FLAGS]
set -eu
way=$1 build=$2 source=$3 cmake=$4 cc=$5 cxx=$6 flags=${7-}
work=$build/consumer/$way
rm -rf "$work"
mkdir -p "$work"
"$cmake" --install "$build" --prefix "$work/first" >"$work/install.log"
mv "$work/first" "$work/moved"
prefix=$work/moved
lib=$(dirname "$(find "$prefix" -name libwkv.so.0 | head -n 1)")

readme_program() { # language
  awk -v fence='```' -v open="\`\`\`$1" '$0 == open { on = 1; next } $0 == fence { on = 0 } on' "$source/README.md"
}
readme_program c >"$work/readme.c"
readme_program cpp >"$work/readme.cpp"

tells_a_story() { # command...
  story=$(cd "$source" && LD_LIBRARY_PATH=$lib "$@")
  echo "$story"
  [ "$(printf %s "$story" | wc -w)" -ge 20 ]
}

case $way in
cmake)
  "$cmake" -S "$source/tests/consumer/cmake" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" \
    -DWKV_C_SOURCE="$work/readme.c" -DWKV_CPP_SOURCE="$work/readme.cpp" >"$work/configure.log"
  "$cmake" --build "$work/build" >"$work/build.log" || { cat "$work/build.log"; exit 1; }
  tells_a_story "$work/build/consumer_cpp"
  tells_a_story "$work/build/consumer_c"
  ;;
pkgconfig)
  command -v pkg-config >/dev/null || { echo "skipped: pkg-config is not installed"; exit 77; }
  export PKG_CONFIG_PATH="$lib/pkgconfig"
  pkg-config --exact-version=0.3.0 wkv
  # shellcheck disable=SC2046,SC2086 # the flags are words
  "$cc" -std=c99 -Wall -Wextra -Wpedantic -Werror $flags "$source/examples/embed.c" -o "$work/embed" \
    $(pkg-config --cflags --libs wkv)
  tells_a_story "$work/embed" examples/models/tales-8m.gguf "Once upon a time"
  ;;
*) exit 2 ;;
esac
