// SPDX-License-Identifier: Apache-2.0
// What a state costs: forking, marking, rolling back, saving and restoring, against plain copies of the same bytes in
// the same round; and many live caches against the plan.
//
//   state_bench [megabytes=34.6] [rounds=9] [caches=0] [shape=0.1B]
//
// The model is as narrow as a state of that size allows: only the state counts here.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <unistd.h>

#include <wkv/wkv.h>

#include "measure.h"
#include "report.h"
#include "support/random_model.h"

using namespace libwkv::perf;
using libwkv::test::Image;
using libwkv::test::Shape;

namespace {

struct Check : wkv_error {
  Check() : wkv_error{} { struct_size = sizeof(wkv_error); }
  void operator()(wkv_status outcome) {
    if (outcome < 0) give_up(message);
  }
};

// Times of one operation, one value a round.
class Timings {
 public:
  template <class Body>
  double time(const std::string &what, const Body &body) {
    const double start = now_seconds();
    body();
    const double seconds = now_seconds() - start;
    times_[what].push_back(seconds);
    return seconds;
  }
  double of(const std::string &what) const { return median(times_.at(what)); }
  // Medians of the ratios a round.
  double ratio(const std::string &of, const std::string &to) const {
    std::vector<double> ratios;
    for (size_t i = 0; i < times_.at(of).size(); i++) ratios.push_back(times_.at(to)[i] / times_.at(of)[i]);
    return median(ratios);
  }

 private:
  std::map<std::string, std::vector<double>> times_;
};

wkv_model *load(const Image &image, wkv_model_options options) {
  Check check;
  wkv_model *model = nullptr;
  options.struct_size = sizeof options;
  options.device = "cpu";
  check(wkv_model_load_memory(image.data(), image.size(), &options, &model, &check));
  return model;
}

void measure_state(double megabytes, int rounds) {
  constexpr int64_t width = 128;
  Shape shape{static_cast<int64_t>(megabytes * 1e6 / 4 / (66 * width)), width, 64, width, 64, 8, 8, 8, 8};
  Image image = libwkv::test::random_gguf(shape, WKV_TYPE_F16, 0, 1, 2);
  wkv_model *model = load(image, {});
  wkv_model_info info{};
  info.struct_size = sizeof info;
  Check check;
  check(wkv_model_get_info(model, &info, &check));
  const size_t bytes = info.state_bytes;
  wkv_cache *cache = nullptr, *fork = nullptr, *restored = nullptr;
  check(wkv_cache_create(model, nullptr, &cache, &check));
  const int32_t tokens[] = {1, 2, 3};
  check(wkv_cache_step(cache, tokens, 3, nullptr, 0, &check));
  size_t blob_bytes = 0;
  check(wkv_cache_serialize(cache, nullptr, 0, &blob_bytes, &check));
  std::vector<char> source(bytes, 1), target(bytes, 2), blob(blob_bytes, 3);
  const std::string path = "/tmp/wkv-state-bench-" + std::to_string(getpid());

  Timings timings;
  constexpr int many = 1000;
  for (int round = 0; round < rounds; round++) {
    timings.time("memcpy", [&] { std::memcpy(target.data(), source.data(), bytes); });
    timings.time("memcpy back", [&] { std::memcpy(source.data(), target.data(), bytes); });
    std::vector<wkv_cache *> forks(many);
    timings.time("fork x 1000", [&] {
      for (wkv_cache *&one : forks) check(wkv_cache_copy(cache, &one, &check));
    });
    for (wkv_cache *one : forks) wkv_cache_release(one);
    timings.time("serialize",
                 [&] { check(wkv_cache_serialize(cache, blob.data(), blob.size(), &blob_bytes, &check)); });
    timings.time("deserialize",
                 [&] { check(wkv_cache_deserialize(model, blob.data(), blob.size(), &restored, &check)); });
    wkv_cache_release(restored);
    timings.time("save to a file", [&] { check(wkv_cache_save(cache, path.c_str(), &check)); });
    timings.time("load from a file", [&] { check(wkv_cache_load(model, path.c_str(), &restored, &check)); });
    wkv_cache_release(restored);
    timings.time("step in place", [&] { check(wkv_cache_step(cache, tokens, 1, nullptr, 0, &check)); });
    check(wkv_cache_copy(cache, &fork, &check));
    timings.time("first step of a fork", [&] { check(wkv_cache_step(fork, tokens, 1, nullptr, 0, &check)); });
    uint64_t position = 0;
    timings.time("mark", [&] { check(wkv_cache_mark(fork, &position, &check)); });
    check(wkv_cache_step(fork, tokens, 2, nullptr, 0, &check));
    timings.time("rollback", [&] { check(wkv_cache_rollback(fork, position, &check)); });
    wkv_cache_release(fork);
  }
  std::remove(path.c_str());

  std::printf("a state of %.2f MB, %lld layers x %lld; medians of %d rounds\n", static_cast<double>(bytes) * 1e-6,
              static_cast<long long>(shape.layers), static_cast<long long>(width), rounds);
  const double copy = timings.of("memcpy");
  std::printf("  %-24s %10.1f us  %6.2f GB/s\n", "memcpy", copy * 1e6, static_cast<double>(bytes) * 1e-9 / copy);
  std::printf("  %-24s %10.3f us\n", "fork", timings.of("fork x 1000") * 1e6 / many);
  for (const char *what : {"mark", "rollback"})
    std::printf("  %-24s %10.3f us  %6.0f times as fast as memcpy\n", what, timings.of(what) * 1e6,
                timings.ratio(what, "memcpy"));
  for (const char *what : {"serialize", "deserialize", "save to a file", "load from a file"})
    std::printf("  %-24s %10.1f us  %6.2f GB/s  %3.0f %% of memcpy\n", what, timings.of(what) * 1e6,
                static_cast<double>(bytes) * 1e-9 / timings.of(what), 100 * timings.ratio(what, "memcpy"));
  std::printf("  %-24s %10.1f us, first step of a fork %.1f us (%.2f memcpy more)\n", "step in place",
              timings.of("step in place") * 1e6, timings.of("first step of a fork") * 1e6,
              (timings.of("first step of a fork") - timings.of("step in place")) / copy);
  wkv_cache_release(cache);
  wkv_model_release(model);
}

double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  double pages = 0;
  file >> pages >> pages;
  return pages * static_cast<double>(sysconf(_SC_PAGESIZE));
}

// `count` forks of one prompt that have all gone on, in steps of 64 at once.
void measure_many(const std::string &name, size_t count) {
  Image image = libwkv::test::random_gguf(libwkv::test::shape_named(name), WKV_TYPE_F16, 0, 1, 2);
  Check check;
  const std::string path = "/tmp/wkv-state-bench-" + std::to_string(getpid()) + ".gguf";
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char *>(image.data()), static_cast<std::streamsize>(image.size()));
  wkv_memory_plan plan{};
  plan.struct_size = sizeof plan;
  plan.caches_count = static_cast<uint32_t>(count + 1);
  plan.step_tokens = 64;
  wkv_model_options options{};
  options.struct_size = sizeof options;
  options.device = "cpu";
  check(wkv_model_plan_memory(path.c_str(), &options, &plan, &check));
  options.memory_limit_bytes = plan.total_bytes;  // hard: one byte more is refused
  const double before = resident_bytes();
  wkv_model *model = nullptr;
  check(wkv_model_load(path.c_str(), &options, &model, &check));
  std::remove(path.c_str());
  wkv_cache *prompt = nullptr;
  check(wkv_cache_create(model, nullptr, &prompt, &check));
  std::vector<int32_t> tokens(64, 7);
  check(wkv_cache_step(prompt, tokens.data(), 64, nullptr, 0, &check));
  std::vector<wkv_cache *> caches(count);
  double start = now_seconds();
  for (wkv_cache *&one : caches) check(wkv_cache_copy(prompt, &one, &check));
  const double fork_seconds = now_seconds() - start;
  wkv_memory_info memory{};
  memory.struct_size = sizeof memory;
  check(wkv_model_get_memory(model, &memory, &check));
  std::printf("%zu forks of one prompt, shape %s: %.3f us each, states of all: %.2f MB\n", count, name.c_str(),
              fork_seconds * 1e6 / static_cast<double>(count), static_cast<double>(memory.caches_bytes) * 1e-6);
  start = now_seconds();
  for (size_t begin = 0; begin < count; begin += 64) {
    std::vector<wkv_step_item> items(std::min<size_t>(64, count - begin));
    for (size_t i = 0; i < items.size(); i++) {
      items[i].struct_size = sizeof items[i];
      items[i].cache = caches[begin + i];
      items[i].tokens = &tokens[0];
      items[i].tokens_count = 1;
    }
    check(wkv_model_step(model, items.data(), items.size(), &check));
  }
  const double step_seconds = now_seconds() - start;
  check(wkv_model_get_memory(model, &memory, &check));
  const double resident = resident_bytes() - before, planned = static_cast<double>(plan.total_bytes);
  std::printf(
      "  after a step of each (%.0f tokens/s): planned %.1f MB, counted peak %.1f MB (%+.2f %%), resident %.1f MB "
      "(%+.2f %%)\n",
      static_cast<double>(count) / step_seconds, planned * 1e-6, static_cast<double>(memory.total_peak_bytes) * 1e-6,
      100 * (static_cast<double>(memory.total_peak_bytes) / planned - 1), resident * 1e-6,
      100 * (resident / planned - 1));
  for (wkv_cache *one : caches) wkv_cache_release(one);
  wkv_cache_release(prompt);
  wkv_model_release(model);
}

}  // namespace

int main(int argc, char **argv) {
  std::map<std::string, std::string> options = {
      {"megabytes", "34.6"}, {"rounds", "9"}, {"caches", "0"}, {"shape", "0.1B"}};
  for (int i = 1; i < argc; i++) {
    const std::string word = argv[i];
    const size_t equals = word.find('=');
    if (equals == std::string::npos || !options.count(word.substr(0, equals)))
      give_up("state_bench [megabytes=34.6] [rounds=9] [caches=0] [shape=0.1B], not '" + word + "'");
    options[word.substr(0, equals)] = word.substr(equals + 1);
  }
  const double megabytes = std::atof(options["megabytes"].c_str());
  if (megabytes > 0) measure_state(megabytes, std::max(1, std::atoi(options["rounds"].c_str())));
  const int caches = std::atoi(options["caches"].c_str());
  if (caches > 0) measure_many(options["shape"], static_cast<size_t>(caches));
}
