// SPDX-License-Identifier: Apache-2.0
// What a prefix store saves, and what it costs: a hit on a long prompt, in memory and from a directory, against the
// step that follows; and a chat, turn by turn.
//
//   prefix_bench [shape=0.1B] [tokens=10000] [rounds=9] [turns=12] [threads=2]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
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

namespace {

struct Check : wkv_error {
  Check() : wkv_error{} { struct_size = sizeof(wkv_error); }
  void operator()(wkv_status outcome) {
    if (outcome < 0) give_up(message);
  }
};

template <class Body>
double seconds_of(const Body &body) {
  const double start = now_seconds();
  body();
  return now_seconds() - start;
}

struct Bench {
  Bench(const Image &image, int threads) {
    wkv_model_options options{};
    options.struct_size = sizeof options;
    options.threads = threads;
    options.device = "cpu";
    check(wkv_model_load_memory(image.data(), image.size(), &options, &model, &check));
    info.struct_size = sizeof info;
    check(wkv_model_get_info(model, &info, &check));
    logits.resize(static_cast<size_t>(info.vocab_size));
  }
  ~Bench() { wkv_model_release(model); }

  int32_t token() {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int32_t>((random >> 33) % static_cast<uint64_t>(info.vocab_size));
  }
  std::vector<int32_t> tokens(size_t count) {
    std::vector<int32_t> all(count);
    for (int32_t &one : all) one = token();
    return all;
  }
  wkv_cache *cache() {
    wkv_cache *made = nullptr;
    check(wkv_cache_create(model, nullptr, &made, &check));
    return made;
  }
  wkv_prefix_store *store(const char *directory = nullptr) {
    wkv_prefix_store_options options{};
    options.struct_size = sizeof options;
    options.directory = directory;
    wkv_prefix_store *made = nullptr;
    check(wkv_prefix_store_create(model, &options, &made, &check));
    return made;
  }
  size_t find(wkv_prefix_store *store, const std::vector<int32_t> &all, wkv_cache *cache) {
    size_t known = 0;
    check(wkv_prefix_store_find(store, all.data(), all.size(), cache, &known, &check));
    return known;
  }
  void put(wkv_prefix_store *store, const std::vector<int32_t> &all, size_t count, wkv_cache *cache) {
    check(wkv_prefix_store_put(store, all.data(), count, cache, &check));
  }
  void step(wkv_cache *cache, const int32_t *first, size_t count) {
    check(wkv_cache_step(cache, first, count, logits.data(), logits.size(), &check));
  }

  Check check;
  wkv_model *model = nullptr;
  wkv_model_info info{};
  std::vector<float> logits;
  uint64_t random = 1;
};

void measure_hit(Bench &bench, size_t count, int rounds) {
  std::string folder = std::filesystem::temp_directory_path() / "wkv_prefix_bench_XXXXXX";
  if (!mkdtemp(folder.data())) give_up("no temporary directory");
  std::vector<int32_t> prompt = bench.tokens(count);
  wkv_cache *read = bench.cache();
  const double prefill = seconds_of([&] { bench.step(read, prompt.data(), count - 1); });
  std::map<std::string, std::vector<double>> times;
  wkv_prefix_store *store = bench.store();
  bench.put(store, prompt, count - 1, read);
  for (int round = -1; round < rounds; round++) {
    auto time = [&](const char *what, const auto &body) {
      const double seconds = seconds_of(body);
      if (round >= 0) times[what].push_back(seconds);  // the first round warms up
    };
    // the step without a store: of a cache that is at the same place, with memory of its own
    wkv_cache *own = nullptr, *found = bench.cache(), *stored = bench.cache();
    bench.check(wkv_cache_copy(read, &own, &bench.check));
    bench.step(own, &prompt[count - 1], 1);
    time("step", [&] { bench.step(own, &prompt[count - 1], 1); });
    time("find and step", [&] {
      if (bench.find(store, prompt, found) != count - 1) give_up("the prefix was not found");
      bench.step(found, &prompt[count - 1], 1);
    });
    time("find", [&] { bench.find(store, prompt, found); });
    wkv_prefix_store *disk = bench.store(folder.c_str());
    time("put to a directory", [&] { bench.put(disk, prompt, count - 1, read); });
    wkv_prefix_store_release(disk);
    time("open a directory", [&] { disk = bench.store(folder.c_str()); });
    time("find in a directory", [&] {
      if (bench.find(disk, prompt, stored) != count - 1) give_up("the prefix was not found in the directory");
    });
    bench.check(wkv_prefix_store_clear(disk, &bench.check));
    wkv_prefix_store_release(disk);
    for (wkv_cache *one : {own, found, stored}) wkv_cache_release(one);
  }
  std::vector<double> overheads;
  for (int i = 0; i < rounds; i++)
    overheads.push_back(times["find and step"][static_cast<size_t>(i)] - times["step"][static_cast<size_t>(i)]);
  std::printf("a prompt of %zu tokens, a state of %.2f MB, medians of %d rounds\n", count,
              static_cast<double>(bench.info.state_bytes) * 1e-6, rounds);
  std::printf("  %-34s %10.3f ms\n", "reading all of it, no store", prefill * 1e3);
  for (const char *what :
       {"step", "find and step", "find", "put to a directory", "open a directory", "find in a directory"})
    std::printf("  %-34s %10.3f ms\n", what, median(times[what]) * 1e3);
  std::printf("  %-34s %10.3f ms\n", "a hit beyond the step it leads to", median(overheads) * 1e3);
  wkv_cache_release(read);
  wkv_prefix_store_release(store);
  std::filesystem::remove_all(folder);
}

// Each turn brings 40 tokens and is answered with 20. The host keeps the text and no cache.
void measure_chat(Bench &bench, int turns) {
  constexpr size_t asked = 40, answered = 20;
  wkv_prefix_store *store = bench.store();
  std::vector<int32_t> history = bench.tokens(500);  // a system prompt
  std::printf("a chat of %d turns of %zu + %zu tokens after a system prompt of %zu\n", turns, asked, answered,
              history.size());
  std::printf("  turn  history  computed  with a store   without\n");
  for (int turn = 1; turn <= turns; turn++) {
    for (int32_t token : bench.tokens(asked)) history.push_back(token);
    size_t computed = 0;
    wkv_cache *cache = bench.cache(), *fresh = bench.cache();
    const double with = seconds_of([&] {
      const size_t known = bench.find(store, history, cache);
      bench.step(cache, history.data() + known, history.size() - known);
      computed = history.size() - known;
      bench.put(store, history, history.size(), cache);
    });
    const double without = seconds_of([&] { bench.step(fresh, history.data(), history.size()); });
    std::printf("  %4d  %7zu  %8zu  %9.1f ms  %7.1f ms\n", turn, history.size(), computed, with * 1e3, without * 1e3);
    for (size_t i = 0; i < answered; i++) {
      history.push_back(bench.token());
      bench.step(cache, &history.back(), 1);
    }
    bench.put(store, history, history.size(), cache);
    wkv_cache_release(cache);
    wkv_cache_release(fresh);
  }
  wkv_prefix_store_info info{};
  info.struct_size = sizeof info;
  bench.check(wkv_prefix_store_get_info(store, &info, &bench.check));
  std::printf("  the store: %llu entries of %.1f MB, %llu hits in %llu finds, %llu tokens not computed again\n",
              static_cast<unsigned long long>(info.entries), static_cast<double>(info.entries_bytes) * 1e-6,
              static_cast<unsigned long long>(info.hits), static_cast<unsigned long long>(info.finds),
              static_cast<unsigned long long>(info.reused_tokens));
  wkv_prefix_store_release(store);
}

}  // namespace

int main(int argc, char **argv) {
  std::map<std::string, std::string> options = {
      {"shape", "0.1B"}, {"tokens", "10000"}, {"rounds", "9"}, {"turns", "12"}, {"threads", "2"}};
  for (int i = 1; i < argc; i++) {
    const std::string word = argv[i];
    const size_t equals = word.find('=');
    if (equals == std::string::npos || !options.count(word.substr(0, equals)))
      give_up("prefix_bench [shape=0.1B] [tokens=10000] [rounds=9] [turns=12] [threads=2], not '" + word + "'");
    options[word.substr(0, equals)] = word.substr(equals + 1);
  }
  try {
    const Image image =
        libwkv::test::random_gguf(libwkv::test::shape_named(options["shape"]), WKV_TYPE_F16, 0.88, 1, 2);
    Bench bench(image, std::max(1, std::atoi(options["threads"].c_str())));
    const int tokens = std::atoi(options["tokens"].c_str()), turns = std::atoi(options["turns"].c_str());
    if (tokens > 16) measure_hit(bench, static_cast<size_t>(tokens), std::max(1, std::atoi(options["rounds"].c_str())));
    if (turns > 0) measure_chat(bench, turns);
  } catch (const std::exception &error) {
    give_up(error.what());
  }
  return 0;
}
