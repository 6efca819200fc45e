// SPDX-License-Identifier: Apache-2.0
// Shares of the float32 multiply-add roof that the prefill kernels of each usable table reach. Built by hand:
//   c++ -O2 -std=c++20 -I. tests/perf/prefill_kernels_bench.cpp <kernel objects> -pthread
// Arguments: [table] [threads]. The roof is a loop on registers alone, run between the measurements of each kernel.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/table.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

using namespace libwkv::kernels;

namespace {

// Processor time of this thread: what neighbours on the machine take of the core does not count.
double seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// ---- the roof: fused multiply-adds a second of one thread, in floating-point operations

// In assembly, 12 independent sums in named registers: compiled loops may keep sums in memory and measure that instead.
#if defined(__x86_64__)
__attribute__((target("avx512f"))) double flops_avx512(int64_t repeats) {
  int64_t left = repeats;
  asm volatile(
      "vzeroall\n\t"  // zeros: subnormal numbers would be slow
      "1:\n\t"
      "vfmadd231ps %%zmm14, %%zmm15, %%zmm0\n\tvfmadd231ps %%zmm14, %%zmm15, %%zmm1\n\t"
      "vfmadd231ps %%zmm14, %%zmm15, %%zmm2\n\tvfmadd231ps %%zmm14, %%zmm15, %%zmm3\n\t"
      "vfmadd231ps %%zmm14, %%zmm15, %%zmm4\n\tvfmadd231ps %%zmm14, %%zmm15, %%zmm5\n\t"
      "vfmadd231ps %%zmm14, %%zmm15, %%zmm6\n\tvfmadd231ps %%zmm14, %%zmm15, %%zmm7\n\t"
      "vfmadd231ps %%zmm14, %%zmm15, %%zmm8\n\tvfmadd231ps %%zmm14, %%zmm15, %%zmm9\n\t"
      "vfmadd231ps %%zmm14, %%zmm15, %%zmm10\n\tvfmadd231ps %%zmm14, %%zmm15, %%zmm11\n\t"
      "dec %0\n\tjnz 1b"
      : "+r"(left)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
        "xmm13", "xmm14", "xmm15");
  return static_cast<double>(repeats) * 12 * 16 * 2;
}

__attribute__((target("avx2,fma"))) double flops_avx2(int64_t repeats) {
  int64_t left = repeats;
  asm volatile(
      "vzeroall\n\t"  // zeros: subnormal numbers would be slow
      "1:\n\t"
      "vfmadd231ps %%ymm14, %%ymm15, %%ymm0\n\tvfmadd231ps %%ymm14, %%ymm15, %%ymm1\n\t"
      "vfmadd231ps %%ymm14, %%ymm15, %%ymm2\n\tvfmadd231ps %%ymm14, %%ymm15, %%ymm3\n\t"
      "vfmadd231ps %%ymm14, %%ymm15, %%ymm4\n\tvfmadd231ps %%ymm14, %%ymm15, %%ymm5\n\t"
      "vfmadd231ps %%ymm14, %%ymm15, %%ymm6\n\tvfmadd231ps %%ymm14, %%ymm15, %%ymm7\n\t"
      "vfmadd231ps %%ymm14, %%ymm15, %%ymm8\n\tvfmadd231ps %%ymm14, %%ymm15, %%ymm9\n\t"
      "vfmadd231ps %%ymm14, %%ymm15, %%ymm10\n\tvfmadd231ps %%ymm14, %%ymm15, %%ymm11\n\t"
      "dec %0\n\tjnz 1b"
      : "+r"(left)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
        "xmm13", "xmm14", "xmm15");
  return static_cast<double>(repeats) * 12 * 8 * 2;
}
#endif

double multiply_adds(const std::string &table, int64_t repeats) {
#if defined(__x86_64__)
  if (table == "avx512") return flops_avx512(repeats);
  if (table == "avx2") return flops_avx2(repeats);
#endif
  float sums[8] = {};
  for (int64_t i = 0; i < repeats; ++i) {
    for (float &sum : sums) sum = sum * 0.999f + 0.001f;
    asm volatile("" ::"r"(sums) : "memory");
  }
  return static_cast<double>(repeats) * 8 * 2;
}

// Runs body(thread) on all threads at once; body returns the operations it did. The sum of the threads' rates.
template <class Body>
double rate_of(int threads, const Body &body) {
  std::atomic<int> ready{0};
  std::vector<double> rates(threads);
  const auto run = [&](int t) {
    ++ready;
    while (ready != threads) {
    }
    const double start = seconds();
    const double flops = body(t);
    rates[t] = flops / std::max(seconds() - start, 1e-9);
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(run, t);
  run(0);
  for (std::thread &other : others) other.join();
  double sum = 0;
  for (double rate : rates) sum += rate;
  return sum;
}

double roof(const std::string &table, int threads) {  // operations a second, all threads
  return rate_of(threads, [&](int) { return multiply_adds(table, 200000); });
}

// The best of many short rounds over the best roof measured between them: neighbours on the machine can only make a
// round slower, so the best ones are those without them. The median ratio of neighbouring rounds stands beside it.
template <class Body>
void report(const std::string &name, const Table &table, int threads, const Body &body) {
  std::vector<double> ratios;
  double best = 0, best_roof = 0;
  for (int round = 0; round < 100; ++round) {
    const double before = roof(table.name, threads);
    const double rate = rate_of(threads, body);
    const double after = roof(table.name, threads);
    best = std::max(best, rate);
    best_roof = std::max({best_roof, before, after});
    ratios.push_back(rate / ((before + after) / 2));
  }
  std::sort(ratios.begin(), ratios.end());
  std::printf("%-8s %d  %-44s %6.1f %% of the roof (median ratio %5.1f %%), best %6.1f of %6.1f GFLOP/s\n", table.name,
              threads, name.c_str(), 100 * best / best_roof, 100 * ratios[ratios.size() / 2], best / 1e9,
              best_roof / 1e9);
  std::fflush(stdout);
}

// Floats aligned to a cache line, as the engine's buffers are.
struct Aligned {
  explicit Aligned(size_t count) : memory(count + 16), data(memory.data()) {
    while (reinterpret_cast<uintptr_t>(data) % 64 != 0) ++data;
  }
  Aligned(Aligned &&) = default;  // a moved vector keeps its memory
  std::vector<float> memory;
  float *data;
};

// ---- products

size_t row_bytes(Format format, int64_t inputs) {
  const int64_t bytes[] = {128, 64, 64, 34, 18, 24, 44};
  return static_cast<size_t>(inputs / 32 * bytes[static_cast<int>(format)]);
}

void bench_multiply(const Table &table, Format format, Order order, int64_t outputs, int64_t inputs, int64_t tokens,
                    int threads, int64_t cut) {
  static const char *const names[] = {"f32", "f16", "bf16", "q8", "q4", "q4_affine", "q8_affine"};
  std::mt19937 random(1);
  const size_t stride = order == Order::rows ? row_bytes(format, inputs)
                        : format == Format::f32 || format == Format::f16 || format == Format::bf16
                            ? row_bytes(format, outputs)
                            : static_cast<size_t>(outputs) * row_bytes(format, 32);
  std::vector<uint8_t> data(row_bytes(format, inputs) * static_cast<size_t>(outputs));
  for (uint8_t &byte : data) byte = static_cast<uint8_t>(random() % 0x38);  // as floats of any width: tame and normal
  const int64_t x_stride = inputs + 16, y_stride = outputs + 16;
  Aligned x(tokens * x_stride), y(tokens * y_stride);
  for (float &value : x.memory) value = static_cast<float>(random() % 1000) / 1000 - 0.5f;
  const size_t floats = (table.multiply_scratch_floats() + 15) / 16 * 16;
  const Aligned scratch(static_cast<size_t>(threads) * floats);
  const Matrix w = {data.data(), outputs, inputs, stride, format, order};
  std::atomic<int64_t> next{0};
  char name[100];
  std::snprintf(name, sizeof name, "%s %s %lld x %lld, %lld tokens, cut %lld", names[static_cast<int>(format)],
                order == Order::rows ? "rows" : "columns", static_cast<long long>(outputs),
                static_cast<long long>(inputs), static_cast<long long>(tokens), static_cast<long long>(cut));
  // A round goes on where the last one ended, so that weights are not warmer than in a model.
  const double flops_a_cut = 2.0 * static_cast<double>(cut * inputs * tokens);
  const int cuts_a_round = std::max(1, static_cast<int>(2e8 / flops_a_cut));
  report(name, table, threads, [&](int thread) {
    for (int i = 0; i < cuts_a_round; ++i) {
      const int64_t begin = next.fetch_add(1) % (outputs / cut) * cut;
      table.multiply(&w, begin, begin + cut, x.data, x_stride, tokens, y.data, y_stride,
                     scratch.data + static_cast<size_t>(thread) * floats);
    }
    return flops_a_cut * cuts_a_round;
  });
}

// ---- recurrence and elementwise: nanoseconds a token and layer, and the share of the layer's products' time

void bench_rest(const Table &table, int64_t width, int64_t tokens) {
  const int64_t head_size = 64, heads = width / head_size, stride = width + 16;
  std::mt19937 random(2);
  std::vector<Aligned> v;
  for (int i = 0; i < 12; ++i) v.emplace_back(tokens * stride);
  for (Aligned &vector : v) {
    for (float &value : vector.memory) value = static_cast<float>(random() % 1000) / 1000 - 0.5f;
  }
  for (float &value : v[1].memory) value = 0.9f + 0.1f * value;
  const Aligned state(width * head_size);
  const double layer_flops = 2.0 * 12 * static_cast<double>(width * width) * static_cast<double>(tokens);
  const auto line = [&](const char *name, const auto &body) {
    double best = 1e9, best_roof = 0;
    for (int round = 0; round < 30; ++round) {
      best_roof = std::max(best_roof, roof(table.name, 1));
      const double start = seconds();
      body();
      const double time = seconds() - start;
      best = std::min(best, time);
    }
    std::printf("%-8s 1  %-44s %6.2f %% of the time of a layer's products at the roof, %.0f ns a token\n", table.name,
                name, 100 * best / (layer_flops / best_roof), best / static_cast<double>(tokens) * 1e9);
    std::fflush(stdout);
  };
  line("wkv", [&] {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t at = h * head_size;
      table.wkv(tokens, stride, v[0].data + at, v[1].data + at, v[2].data + at, v[3].data + at, v[4].data + at,
                v[5].data + at, state.data + at * head_size, v[6].data + at, head_size);
    }
  });
  line("2 layer_norm", [&] {
    for (int64_t t = 0; t < 2 * tokens; ++t) {
      const int64_t at = t % tokens * stride;
      table.layer_norm(width, v[0].data + at, v[2].data, v[3].data, 1e-5f, v[7].data + at);
    }
  });
  line("7 token_shift", [&] {
    for (int64_t t = 1; t < tokens; ++t) {
      for (int i = 0; i < 7; ++i) {
        table.token_shift(width, v[0].data + t * stride, v[0].data + (t - 1) * stride, v[i].data,
                          v[5 + i].data + t * stride);
      }
    }
  });
  line("2 add", [&] {
    for (int64_t t = 0; t < 2 * tokens; ++t) {
      table.add(width, v[0].data + t % tokens * stride, v[2].data + t % tokens * stride);
    }
  });
  line("relu_squared of 4 x width", [&] {
    for (int64_t t = 0; t < 4 * tokens; ++t)
      table.activate(Activation::relu_squared, width, v[8].data + t % tokens * stride);
  });
  line("tanh of width / 16, sigmoid of width / 8", [&] {
    for (int64_t t = 0; t < tokens; ++t) {
      table.activate(Activation::tanh, width / 16, v[8].data + t * stride);
      table.activate(Activation::sigmoid, width / 8, v[8].data + t * stride);
    }
  });
  line("time_mix_inputs", [&] {
    for (int64_t t = 0; t < tokens; ++t) {
      float *at[12];
      for (int i = 0; i < 12; ++i) at[i] = v[i].data + t * stride;
      const TimeMixInputs io = {at[1],     at[2],     at[3],      at[4],      at[5],     at[6],    at[7],
                                v[8].data, v[9].data, v[10].data, v[11].data, v[0].data, head_size};
      table.time_mix_inputs(&io, 0, heads);
    }
  });
  line("time_mix_outputs", [&] {
    for (int64_t t = 0; t < tokens; ++t) {
      float *at[12];
      for (int i = 0; i < 12; ++i) at[i] = v[i].data + t * stride;
      const TimeMixOutputs io = {at[1], at[2], at[3], at[4], at[5], v[8].data, v[9].data, v[10].data, at[7], head_size};
      table.time_mix_outputs(&io, 0, heads);
    }
  });
}

}  // namespace

int main(int argc, char **argv) {
  const std::string wanted = argc > 1 ? argv[1] : "";
  const int threads = argc > 2 ? std::atoi(argv[2]) : 1;
  const std::string part = argc > 3 ? argv[3] : "all";  // multiply, rest, all
  for (const Table *const *entry = tables(); *entry != nullptr; ++entry) {
    const Table &table = **entry;
    if (!table.is_usable() || (wanted.empty() ? table.name == std::string("scalar") : table.name != wanted)) continue;
    for (int t = 1; t <= threads; ++t)
      std::printf("%-8s %d  roof %.1f GFLOP/s\n", table.name, t, roof(table.name, t) / 1e9);
    if (part != "rest") {
      for (int format = 0; format < formats; ++format) {
        bench_multiply(table, static_cast<Format>(format), Order::rows, 4096, 1024, 512, threads, 64);
      }
      bench_multiply(table, Format::f16, Order::rows, 4096, 1024, 512, threads, 128);
      bench_multiply(table, Format::f16, Order::rows, 1024, 4096, 512, threads, 64);
      bench_multiply(table, Format::q4, Order::columns, 1024, 4096, 512, threads, 64);
      bench_multiply(table, Format::f16, Order::columns, 1024, 4096, 512, threads, 64);
      bench_multiply(table, Format::f16, Order::rows, 768, 768, 512, threads, 64);
      bench_multiply(table, Format::f16, Order::rows, 1024, 1024, 2048, threads, 64);
      bench_multiply(table, Format::f16, Order::rows, 1024, 1024, 64, threads, 64);
      bench_multiply(table, Format::f16, Order::rows, 64, 1024, 512, threads, 64);
    }
    if (part != "multiply") bench_rest(table, 1024, 512);
  }
}
