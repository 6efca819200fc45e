#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs into an empty prefix, moves the tree elsewhere, and builds and runs programs that know nothing but it.
# usage: consumer_test.sh cmake|pkgconfig BUILD_DIR SOURCE_DIR CMAKE CC CXX [FLAGS]
set -eu
way=$1 build=$2 source=$3 cmake=$4 cc=$5 cxx=$6 flags=${7-}
model=$source/examples/models/tales-8m.gguf
work=$build/consumer/$way
rm -rf "$work"
mkdir -p "$work"
"$cmake" --install "$build" --prefix "$work/first" >"$work/install.log"
mv "$work/first" "$work/moved"
prefix=$work/moved
lib=$(dirname "$(find "$prefix" -name libwkv.so.0 | head -n 1)")

tells_a_story() { # command...
  story=$(LD_LIBRARY_PATH=$lib "$@")
  echo "$story"
  [ "$(printf %s "$story" | wc -w)" -ge 8 ]
}

case $way in
cmake)
  "$cmake" -S "$source/tests/consumer/cmake" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" \
    -DWKV_EMBED_SOURCE="$source/examples/embed.c" >"$work/configure.log"
  "$cmake" --build "$work/build" >"$work/build.log" || { cat "$work/build.log"; exit 1; }
  tells_a_story "$work/build/consumer_cpp" "$model"
  tells_a_story "$work/build/consumer_c" "$model" "Once upon a time"
  ;;
pkgconfig)
  command -v pkg-config >/dev/null || { echo "skipped: pkg-config is not installed"; exit 77; }
  export PKG_CONFIG_PATH="$lib/pkgconfig"
  [ "$(pkg-config --modversion wkv)" = 0.1.0 ]
  # shellcheck disable=SC2046 # the flags are words
  "$cc" -std=c99 -Wall -Wextra -Wpedantic -Werror $flags "$source/examples/embed.c" -o "$work/embed" \
    $(pkg-config --cflags --libs wkv)
  tells_a_story "$work/embed" "$model" "Once upon a time"
  ;;
esac
