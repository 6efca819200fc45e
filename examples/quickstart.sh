#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a bare Debian or Ubuntu to a story: installs the packages that are missing, builds the library and the examples,
# and lets the built-in model tell a tale. Arguments go to `generate`: examples/quickstart.sh "The fox said" --seed 7
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(g++ cmake ninja-build nlohmann-json3-dev libxxhash-dev libcxxopts-dev)
missing=()
if command -v dpkg-query >/dev/null; then
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
fi
if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "quickstart: install these first: ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "Installing ${missing[*]} ..." >&2
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    >/dev/null
fi

build=build
mkdir -p $build
echo "Building (a minute or two; log in $build/quickstart.log) ..." >&2
generator=()
[ -e $build/CMakeCache.txt ] || generator=(-G Ninja)
{ cmake -S . -B $build "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DWKV_BUILD_TESTS=OFF -DWKV_BUILD_EXAMPLES=ON &&
  cmake --build $build --parallel; } >$build/quickstart.log 2>&1 || { tail -n 30 $build/quickstart.log >&2; exit 1; }

echo >&2
$build/examples/generate "$@"
echo >&2
echo "That was $build/examples/generate; see examples/README.md for chat, branch, prefix, state and others." >&2
