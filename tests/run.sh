#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and runs every test, and says in its last line how many passed.
#
#   tests/run.sh                 release build, then AddressSanitizer with UBSan, then ThreadSanitizer
#   tests/run.sh --fast          release build only
#   tests/run.sh --only asan     one phase: release, asan or tsan
#   tests/run.sh --build DIR     build folders are DIR/release and so on; default build-tests
#
# Installs the packages that are missing where it can. Needs no GPU, no network beyond that, and no ground truth beside
# the checkout: tests that want it skip, and the skips are listed.
set -uo pipefail
cd "$(dirname "$0")/.."
source_dir=$PWD build=build-tests phases=(release asan tsan)
while [ $# -gt 0 ]; do
  case $1 in
  --fast) phases=(release) ;;
  --only) phases=("${2:?--only wants a phase}"); shift ;;
  --build) build=${2:?--build wants a folder}; shift ;;
  *) sed -n '3,12s/^# \{0,1\}//p' "$0"; [ "$1" = --help ] && exit 0 || exit 2 ;;
  esac
  shift
done

install_missing() {
  command -v apt-get >/dev/null || return 0
  local packages=(g++ cmake ninja-build nlohmann-json3-dev libxxhash-dev libcxxopts-dev libgtest-dev python3 python3-dev swig pkg-config default-jdk-headless junit5 mono-mcs mono-runtime)
  local missing=() package as_root=()
  for package in "${packages[@]}"; do
    # pkg-config may be pkgconf
    [ "$package" = pkg-config ] && command -v pkg-config >/dev/null && continue
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  echo "== installing ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "cannot install without root; going on"; return 0; }
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    >/dev/null || echo "apt-get failed; going on"
}

jobs=$(nproc)
launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_C_COMPILER_LAUNCHER=ccache)

# phase NAME CTEST_OPTIONS -- CMAKE_OPTIONS
phase() {
  local name=$1 folder=$build/$1 start=$SECONDS
  shift
  local ctest_options=()
  while [ "$1" != -- ]; do ctest_options+=("$1"); shift; done
  shift
  mkdir -p "$folder"
  rm -f "$folder/results.xml"
  echo "== $name: building (log: $folder/build.log)"
  # an address space without surprises: ThreadSanitizer of older compilers cannot use a fully randomised one
  local run=()
  [ "$name" = tsan ] && setarch "$(uname -m)" -R true 2>/dev/null && run=(setarch "$(uname -m)" -R)
  {
    cmake -S "$source_dir" -B "$folder" -G Ninja -DWKV_WARNINGS_AS_ERRORS=ON "${launcher[@]}" "$@" &&
      "${run[@]}" cmake --build "$folder" --parallel "$jobs" -- -k 0
  } >"$folder/build.log" 2>&1 || {
    grep -E ' error: |^FAILED|CMake Error|undefined reference' "$folder/build.log" | head -n 20
    echo "== $name: the build failed"
    return
  }
  echo "== $name: built in $((SECONDS - start)) s; testing (log: $folder/test.log)"
  start=$SECONDS
  (cd "$folder" && "${run[@]}" ctest -j "$jobs" --output-on-failure --output-junit results.xml "${ctest_options[@]}") \
    >"$folder/test.log" 2>&1
  echo "== $name: tested in $((SECONDS - start)) s"
}

sanitize=(-DCMAKE_BUILD_TYPE=Debug "-DCMAKE_C_FLAGS_DEBUG=-O1 -g1" "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1")
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1}

install_missing
results=()
for name in "${phases[@]}"; do
  case $name in
  release) phase release -- -DCMAKE_BUILD_TYPE=Release ;;
  # checks of source text see nothing new in an instrumented build
  asan) phase asan -LE source -- "${sanitize[@]}" -DWKV_SANITIZE=address,undefined ;;
  tsan) phase tsan -R '[Cc]oncurren|[Tt]hread|[Bb]usy|[Pp]arallel' -LE source -- "${sanitize[@]}" -DWKV_SANITIZE=thread \
    -DWKV_BUILD_EXAMPLES=OFF ;;
  *) echo "unknown phase $name: release, asan or tsan"; exit 2 ;;
  esac
  results+=("$name=$build/$name/results.xml")
done
python3 -B tests/summary.py "${results[@]}"
