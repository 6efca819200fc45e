// SPDX-License-Identifier: Apache-2.0
// How fast the products of decode stream weights, against what the memory gives in the same run.
//
//   kernels_bench [set=avx2] [width=1024] [threads=2] [megabytes=1024] [chunk=65536] [vectors=1] [rounds=3] [format=q4]
//
// Every case walks over different matrices that fill `megabytes`, so that none is in a cache, one job of the thread
// pool a matrix, as the engine does. Passes of plain reading with several streams a thread go between: the roof. Both
// are timed in pieces of some megabytes and report the piece at the 90th percentile, which a busy neighbour disturbs
// least. `core` is one thread over weights that stay in the cache: what the arithmetic alone allows.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "../../kernels/table.h"
#include "base/thread_pool.h"

using namespace libwkv;
using namespace libwkv::kernels;

namespace {

constexpr const char *format_names[] = {"f32", "f16", "bf16", "q8", "q4", "q4_affine", "q8_affine"};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class Body>
double best_of(int rounds, const Body &body) {
  double best = 1e9;
  for (int i = 0; i < rounds; i++) {
    const double start = now();
    body();
    best = std::min(best, now() - start);
  }
  return best;
}

using Vector = uint64_t __attribute__((vector_size(64)));

// Reads a part with `streams` cursors side by side. The sum keeps the loads alive.
template <int streams>
uint64_t read_part(const std::byte *data, size_t bytes) {
  const size_t step = bytes / streams / 256 * 256;
  Vector sums[streams] = {};
  for (size_t at = 0; at + 256 <= step; at += 256)
    for (int s = 0; s < streams; s++) {
      const auto *lines = reinterpret_cast<const Vector *>(data + static_cast<size_t>(s) * step + at);
      for (int i = 0; i < 4; i++) {
        __builtin_prefetch(reinterpret_cast<const std::byte *>(lines + i) + 1024);
        sums[s] ^= lines[i];
      }
    }
  uint64_t sum = 0;
  for (const Vector &part : sums) sum ^= part[0] ^ part[5];
  return sum;
}

// Speeds of pieces, GB/s.
class Samples {
 public:
  template <class Body>
  void time(double bytes, const Body &body) {
    const double start = now();
    body();
    speeds_.push_back(bytes / (now() - start) * 1e-9);
  }
  double percentile_90() {
    if (speeds_.empty()) return 0;
    std::sort(speeds_.begin(), speeds_.end());
    return speeds_[speeds_.size() * 9 / 10];
  }

 private:
  std::vector<double> speeds_;
};

constexpr size_t piece_bytes = size_t{8} << 20;

template <int streams>
void time_reading(ThreadPool &pool, const std::byte *data, size_t bytes, Samples &samples) {
  static std::atomic<uint64_t> sink;
  constexpr size_t parts = 16;
  for (size_t at = 0; at + piece_bytes <= bytes; at += piece_bytes)
    samples.time(piece_bytes, [&] {
      pool.run(parts, [&](size_t p) {
        sink ^= read_part<streams>(data + at + p * (piece_bytes / parts), piece_bytes / parts);
      });
    });
}

struct Roof {
  Samples samples[3];
  double best() {
    return std::max({samples[0].percentile_90(), samples[1].percentile_90(), samples[2].percentile_90()});
  }
};

size_t row_bytes(Format format, int64_t inputs) {
  constexpr int64_t block_bytes[] = {128, 64, 64, 34, 18, 24, 44};
  return static_cast<size_t>(inputs / block * block_bytes[static_cast<int>(format)]);
}

Matrix make_matrix(Format format, Order order, int64_t outputs, int64_t inputs, const std::byte *data) {
  const bool is_wide = format == Format::f32 || format == Format::f16 || format == Format::bf16;
  size_t stride = row_bytes(format, inputs);
  if (order == Order::columns) stride = row_bytes(format, outputs * block) / (is_wide ? block : 1);
  return {data, outputs, inputs, stride, format, order};
}

struct Settings {
  const Table *table;
  int64_t width, vectors;
  size_t bytes, chunk;
  int rounds;
};

struct Speed {
  double streaming, core, roof;  // GB/s of weights
};

// run(m) multiplies matrix m of `bytes` bytes in memory, of which `touched` are read.
template <class Body>
void measure_streaming(const Settings &s, ThreadPool &pool, const std::byte *data, size_t bytes, double touched,
                       Speed &speed, const Body &run) {
  const size_t matrices = std::max<size_t>(1, s.bytes / bytes), together = std::max<size_t>(1, piece_bytes / bytes);
  Samples samples;
  Roof roof;
  for (int round = 0; round < s.rounds; round++) {
    for (size_t m = 0; m + together <= matrices; m += together)
      samples.time(touched * static_cast<double>(together), [&] {
        for (size_t i = 0; i < together; i++) run(m + i);
      });
    if (round % 3 == 0) time_reading<1>(pool, data, s.bytes / 2, roof.samples[0]);
    if (round % 3 == 1) time_reading<2>(pool, data, s.bytes / 2, roof.samples[1]);
    if (round % 3 == 2) time_reading<4>(pool, data, s.bytes / 2, roof.samples[2]);
  }
  speed.streaming = samples.percentile_90();
  speed.roof = roof.best();
}

// rows: [outputs][inputs] in chunks of about `chunk` bytes.
Speed measure_rows(const Settings &s, ThreadPool &pool, const std::byte *data, Format format, int64_t outputs,
                   int64_t inputs) {
  const size_t floats = s.table->prepared_floats(format, inputs);
  std::vector<float> x(static_cast<size_t>(inputs), 0.5f), prepared(floats * static_cast<size_t>(s.vectors));
  std::vector<float> y(static_cast<size_t>(outputs * s.vectors));
  for (int64_t v = 0; v < s.vectors; v++)
    s.table->prepare(format, inputs, x.data(), prepared.data() + static_cast<size_t>(v) * floats);
  const size_t bytes = row_bytes(format, inputs) * static_cast<size_t>(outputs);
  const int64_t step = std::max<int64_t>(8, static_cast<int64_t>(s.chunk / row_bytes(format, inputs)) / 8 * 8);
  auto run = [&](size_t m, int64_t begin, int64_t end) {
    const Matrix w = make_matrix(format, Order::rows, outputs, inputs, data + m * bytes);
    s.table->multiply_rows(&w, begin, std::min(end, outputs), prepared.data(), static_cast<int32_t>(s.vectors),
                           y.data(), outputs);
  };
  Speed speed;
  measure_streaming(s, pool, data, bytes, static_cast<double>(bytes), speed, [&](size_t m) {
    pool.run(static_cast<size_t>((outputs + step - 1) / step), [&](size_t c) {
      const int64_t begin = static_cast<int64_t>(c) * step;
      run(m, begin, begin + step);
    });
  });
  const int64_t few = std::max<int64_t>(8, static_cast<int64_t>(size_t{256} * 1024 / row_bytes(format, inputs)));
  const double core_seconds = best_of(s.rounds * 40, [&] { run(0, 0, few); });
  speed.core = static_cast<double>(row_bytes(format, inputs) * static_cast<size_t>(std::min(few, outputs))) /
               core_seconds * 1e-9;
  return speed;
}

// columns: the share `zeros` of x is zero; speed counts the bytes that are read.
Speed measure_columns(const Settings &s, ThreadPool &pool, const std::byte *data, Format format, int64_t outputs,
                      int64_t inputs, double zeros) {
  const bool is_wide = format == Format::f32 || format == Format::f16 || format == Format::bf16;
  std::vector<float> x(static_cast<size_t>(inputs * s.vectors));
  uint32_t random = 1;
  int64_t lines = 0, groups = 0;
  for (int64_t i = 0, last = -1; i < inputs; i++) {
    random = random * 1664525u + 1013904223u;
    if (random >> 8 < static_cast<uint32_t>(zeros * (1 << 24))) continue;
    for (int64_t v = 0; v < s.vectors; v++) x[static_cast<size_t>(v * inputs + i)] = 0.5f;
    lines++;
    if (i / block != last) last = i / block, groups++;
  }
  const Matrix first = make_matrix(format, Order::columns, outputs, inputs, data);
  const size_t bytes = first.stride * static_cast<size_t>(is_wide ? inputs : inputs / block);
  double touched = static_cast<double>(first.stride) * static_cast<double>(lines);
  if (!is_wide) {
    const double number = format == Format::q4 || format == Format::q4_affine ? 0.5 : 1.0;
    const double line = number * static_cast<double>(outputs);
    touched = line * static_cast<double>(lines) +
              (static_cast<double>(first.stride) - 32 * line) * static_cast<double>(groups);
  }
  const int64_t parts = 4 * pool.threads(), all = inputs / block;
  std::vector<float> y(static_cast<size_t>(outputs * s.vectors * parts));
  auto run = [&](size_t m, int64_t begin, int64_t end, int64_t part) {
    const Matrix w = make_matrix(format, Order::columns, outputs, inputs, data + m * bytes);
    s.table->multiply_columns(&w, begin, end, 0, outputs, x.data(), inputs, static_cast<int32_t>(s.vectors),
                              y.data() + part * outputs * s.vectors, outputs);
  };
  Speed speed;
  measure_streaming(s, pool, data, bytes, touched, speed, [&](size_t m) {
    pool.run(static_cast<size_t>(parts), [&](size_t p) {
      const int64_t part = static_cast<int64_t>(p);
      run(m, all * part / parts * block, all * (part + 1) / parts * block, part);
    });
  });
  const int64_t few =
      std::max<int64_t>(1, static_cast<int64_t>(size_t{256} * 1024 / (bytes / static_cast<size_t>(all))));
  const double core_seconds = best_of(s.rounds * 40, [&] { run(0, 0, std::min(few, all) * block, 0); });
  speed.core = touched * static_cast<double>(std::min(few, all)) / static_cast<double>(all) / core_seconds * 1e-9;
  return speed;
}

}  // namespace

int main(int argc, char **argv) {
  std::map<std::string, std::string> options;
  for (int i = 1; i < argc; i++) {
    const std::string option = argv[i];
    const size_t equals = option.find('=');
    if (equals == std::string::npos) return std::fprintf(stderr, "name=value expected, not %s\n", argv[i]), 2;
    options[option.substr(0, equals)] = option.substr(equals + 1);
  }
  auto number = [&](const char *name, int64_t otherwise) {
    return options.count(name) ? std::strtoll(options[name].c_str(), nullptr, 10) : otherwise;
  };
  Settings s{};
  s.width = number("width", 1024);
  s.vectors = number("vectors", 1);
  s.bytes = static_cast<size_t>(number("megabytes", 1024)) << 20;
  s.chunk = static_cast<size_t>(number("chunk", 65536));
  s.rounds = static_cast<int>(number("rounds", 3));
  ThreadPool pool(static_cast<int>(number("threads", 2)));

  // at least the largest matrix, the head in f32
  const size_t mapped = std::max(s.bytes, size_t{65536} * 4 * static_cast<size_t>(s.width)) + (size_t{1} << 20);
  void *data = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return std::fprintf(stderr, "no memory\n"), 1;
  std::memset(data, 0x3c, mapped);  // a usual number in every format
  const auto *bytes = static_cast<const std::byte *>(data);

  for (const Table *const *table = tables(); *table; table++) {
    const std::string name = (*table)->name;
    if (!(*table)->is_usable() || (options.count("set") ? options["set"] != name : name == "scalar")) continue;
    s.table = *table;
    for (int f = 0; f < formats; f++) {
      if (options.count("format") && options["format"] != format_names[f]) continue;
      const Format format = static_cast<Format>(f);
      std::printf("%s %s, width %lld, %d threads, %lld vectors\n", name.c_str(), format_names[f],
                  static_cast<long long>(s.width), pool.threads(), static_cast<long long>(s.vectors));
      auto print = [&](const char *what, Speed speed) {
        std::printf("  %-20s %5.1f GB/s, %5.1f %% of %5.1f   core %5.1f GB/s\n", what, speed.streaming,
                    100 * speed.streaming / speed.roof, speed.roof, speed.core);
        std::fflush(stdout);
      };
      print("rows C x C", measure_rows(s, pool, bytes, format, s.width, s.width));
      print("rows 4C x C", measure_rows(s, pool, bytes, format, 4 * s.width, s.width));
      print("rows C x 4C", measure_rows(s, pool, bytes, format, s.width, 4 * s.width));
      print("rows 65536 x C", measure_rows(s, pool, bytes, format, 65536, s.width));
      print("columns C x 4C", measure_columns(s, pool, bytes, format, s.width, 4 * s.width, 0));
      print("columns, 50 % zeros", measure_columns(s, pool, bytes, format, s.width, 4 * s.width, 0.5));
      print("columns, 88 % zeros", measure_columns(s, pool, bytes, format, s.width, 4 * s.width, 0.88));
    }
  }
  munmap(data, mapped);
  return 0;
}
