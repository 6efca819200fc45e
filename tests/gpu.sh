#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds for the NVIDIA GPU of this machine, runs every test on it, and says in its last line how many passed.
#
#   tests/gpu.sh                        tests of kernels, suites on the GPU, the same under compute-sanitizer
#   tests/gpu.sh --bench                the benchmark as well
#   tests/gpu.sh --only PART            one of tests, sanitizers, bench
#   tests/gpu.sh --bench-sizes LIST     sizes to measure, default 0.1B,0.4B,1.5B,2.9B,7.2B
#   tests/gpu.sh --bench-rounds N       rounds of each figure, default 5
#   tests/gpu.sh --jobs N               test programs and sanitizers side by side, default 1: they share the GPU in turns
#   tests/gpu.sh --build DIR            run what was built in DIR beforehand, and build nothing; without it build-gpu
#   tests/gpu.sh --results DIR          logs and figures; default: in the build folder
#
# Needs CUDA 13, CMake 3.25, a C++20 compiler, and the packages of tests/run.sh. Needs no network, and no ground truth
# beside the checkout (WKV_SHARED_DIR may name one): tests that want it skip. Settings of the card stay as they are.
set -uo pipefail
cd "$(dirname "$0")/.."
source_dir=$PWD build=build-gpu builds=yes parts=(tests sanitizers) sizes=0.1B,0.4B,1.5B,2.9B,7.2B rounds=5 jobs=1 results=
while [ $# -gt 0 ]; do
  case $1 in
  --bench) parts+=(bench) ;;
  --only) parts=("${2:?--only wants a part}"); shift ;;
  --bench-sizes) sizes=${2:?--bench-sizes wants a list}; shift ;;
  --bench-rounds) rounds=${2:?--bench-rounds wants a number}; shift ;;
  --jobs) jobs=${2:?--jobs wants a number}; shift ;;
  --build) build=${2:?--build wants a folder} builds=no; shift ;;
  --results) results=${2:?--results wants a folder}; shift ;;
  *) sed -n '3,16s/^# \{0,1\}//p' "$0"; [ "$1" = --help ] && exit 0 || exit 2 ;;
  esac
  shift
done
for part in "${parts[@]}"; do
  case $part in
  tests | sanitizers | bench) ;;
  *) echo "unknown part $part: tests, sanitizers or bench"; exit 2 ;;
  esac
done
[ -n "$results" ] || results=$build/gpu-results
mkdir -p "$results" || exit 2
results=$(cd "$results" && pwd)
rm -rf "$results/parts"
mkdir "$results/parts"
number=0

# note KIND NAME LOG STATUS SECONDS: a line of the table; lines stand in the order of their numbers
note() { printf '%s\t%s\t%s\t%s\t%s\n' "$@" >"$results/parts/$(printf %03d "$number")"; }
finish() {
  wait
  cat "$results"/parts/* >"$results/parts.tsv"
  python3 -B tests/gpu_summary.py "$results/parts.tsv"
  exit
}
# what is missing is one failure, and the end
give_up() {
  echo "== $2"
  echo "$2" >"$results/setup.log"
  note setup "$1" "$results/setup.log" 1 0
  finish
}

# run KIND NAME LIMIT COMMAND...: the part of this name with its log; at most LIMIT seconds
run() {
  local kind=$1 name=$2 limit=$3 start=$SECONDS status
  shift 3
  local log=$results/${name//[ ,]/_}.log
  echo "== $name"
  timeout --kill-after 10 "$limit" "$@" >"$log" 2>&1
  status=$?
  note "$kind" "$name" "$log" $status $((SECONDS - start))
  return $status
}

# the same in the background, with at most `jobs` at a time
start() {
  number=$((number + 1))
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
  run "$@" &
}

find_gpu() {
  nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader 2>/dev/null && return
  compgen -G '/dev/nvidia[0-9]*' >/dev/null && echo "a GPU that nvidia-smi does not name"
}

build_everything() {
  local home nvcc packages="g++ cmake ninja-build nlohmann-json3-dev libxxhash-dev libcxxopts-dev libgtest-dev"
  for home in "${CUDA_HOME:-}" /usr/local/cuda /usr/local/cuda-13* /opt/cuda; do
    command -v nvcc >/dev/null && break
    [ -n "$home" ] && [ -x "$home/bin/nvcc" ] && PATH=$home/bin:$PATH
  done
  nvcc=$(command -v nvcc) || give_up CUDA "no nvcc: install the CUDA toolkit 13, or name it with CUDA_HOME"
  nvcc --version | grep -qE 'release (1[3-9]|[2-9][0-9])\.' ||
    give_up CUDA "$nvcc is older than CUDA 13: $(nvcc --version | grep release)"
  command -v cmake >/dev/null || give_up CMake "no cmake: install CMake 3.25 or later (Debian, Ubuntu: $packages)"
  local generator=() launcher=()
  command -v ninja >/dev/null && generator=(-G Ninja)
  command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)
  local start=$SECONDS log=$results/build.log
  echo "== building in $build (log: $log)"
  timeout 3600 cmake -S "$source_dir" -B "$build" "${generator[@]}" "${launcher[@]}" -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_CUDA_COMPILER="$nvcc" -DWKV_CUDA=ON -DWKV_BUILD_EXAMPLES=OFF >"$log" 2>&1 || {
    grep -A 4 'CMake Error' "$log" | head -n 20
    give_up build "CMake failed. GoogleTest and the headers come from packages (Debian, Ubuntu: $packages; elsewhere \
gtest, nlohmann-json, xxhash, cxxopts); or build on another machine and come back with --build"
  }
  timeout 3600 cmake --build "$build" --parallel "$(nproc)" --target wkv wkv_cuda bench test_cuda \
    "${suites[@]/#/test_}" >>"$log" 2>&1 || {
    grep -E ' error: |: error|^FAILED|undefined reference' "$log" | head -n 20
    give_up build "the build failed"
  }
  echo "== built in $((SECONDS - start)) s"
}

# Suites that take the GPU by themselves, device "auto". Kernel sets of the CPU are tests/run.sh's.
suites=(device model step state text abi)
run_tests() {
  start tests "cuda kernels" 600 "$build/tests/cuda/test_cuda"
  local suite
  for suite in "${suites[@]}"; do
    # golden values hold to fp32's rounding where activations are not rounded to half; tests/device bounds the rest
    local mode=0
    case $suite in model | state) mode=1 ;; esac
    start tests "$suite" 600 env WKV_TEST_REPRODUCIBLE=$mode "$build/tests/test_$suite" \
      '--gtest_filter=-*avx*:*neon*:*scalar*'
  done
}

# Under the sanitizers everything is slower by tens: no wide models, no large vocabularies, no thousands of rows.
few_kernels='*:-*Width*:*Five*:*MostlyZeros*:*ByRows*:*_vocabular*:*beyond_the_memory*:*Prompts*:*Decode*:*Lengths*:*Batches*'
# racecheck does not follow bulk copies that an mbarrier hands over: it reports every buffer of the persistent kernel
# (and takes minutes for every batch size of the way for few rows: one row stands for it)
racecheck_leaves_out=':StreamTest*:Few.F16:Few.Q8:Few.Q4:Few.Mixed*:Few.Value*:Few.Many*'
few_steps='Refusals.*:Batch.may_be_empty:Watched.a_step_reports*'
few_states='OnDevice.forks*:OnDevice.no_token_left*:OnDevice.half_states*'
run_sanitizers() {
  local tool sanitizer
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
  if [ -z "$sanitizer" ]; then
    echo "== compute-sanitizer is not installed: no sanitizer runs"
    echo "compute-sanitizer is not installed" >"$results/sanitizers.log"
    number=$((number + 1))
    note skipped sanitizers "$results/sanitizers.log" 0 0
    return
  fi
  for tool in memcheck racecheck synccheck initcheck; do
    local command=("$sanitizer" --tool $tool --error-exitcode 99 --print-limit 20)
    local kernels=$few_kernels
    [ $tool = racecheck ] && kernels+=$racecheck_leaves_out
    start sanitizer "$tool, cuda kernels" 240 "${command[@]}" "$build/tests/cuda/test_cuda" "--gtest_filter=$kernels"
    start sanitizer "$tool, step" 120 "${command[@]}" "$build/tests/test_step" "--gtest_filter=$few_steps"
    start sanitizer "$tool, device" 120 "${command[@]}" "$build/tests/test_device" "--gtest_filter=$few_states"
  done
}

# measure NAME LIMIT BENCH_OPTIONS...: a column of the table
measure() {
  local name=$1 limit=$2 log=$results/bench_${1//[ ,]/_}.log
  shift 2
  number=$((number + 1))
  run bench "bench $name" "$limit" "$build/tests/perf/bench" --device cuda --repeat "$rounds" --json "$@" || return
  # what goes to stderr comes first
  sed -n '/^{/,$p' "$log" >"${log%.log}.json"
  columns+=("$name=${log%.log}.json")
}

run_bench() {
  wait
  local size batches=8,32,128,320,960 room
  columns=()
  # random models are loaded from a file in memory: where there is a folder of such files with room for the largest
  room=$(df --output=avail -B1G /dev/shm 2>/dev/null | tail -n 1)
  [ -z "${TMPDIR:-}" ] && [ "${room:-0}" -ge 24 ] && export TMPDIR=/dev/shm
  for size in ${sizes//,/ }; do
    measure "$size F16" 400 --random "$size" --zeros 0,0.88 --batch $batches --prefill 512,2048,8192 --packed 64x128 \
      --generate 256 --states --file-load
    measure "$size F16, F16 states" 200 --random "$size" --state-type F16 --batch $batches
    measure "$size Q8" 200 --random "$size" --type Q8 --batch 8
    measure "$size Q4" 200 --random "$size" --type Q4 --batch 8
  done
  [ ${#columns[@]} -eq 0 ] && return
  echo
  python3 -B tests/perf/bench_table.py "${columns[@]}" | tee "$results/bench.txt"
}

gpu=$(find_gpu) || give_up GPU "no NVIDIA GPU here: nvidia-smi and /dev name none"
echo "== $gpu"
if [ $builds = yes ]; then
  build_everything
elif [ ! -x "$build/tests/cuda/test_cuda" ]; then
  give_up build "$build holds no build with -DWKV_CUDA=ON"
fi
build=$(cd "$build" && pwd)
# a build folder may have moved; some suites are programs without libwkv beside them
export LD_LIBRARY_PATH=$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} WKV_CUDA_PATH=$build/lib/libwkv_cuda.so
for part in "${parts[@]}"; do "run_$part"; done
finish
