// SPDX-License-Identifier: Apache-2.0
// The library under the clock, through its C ABI alone.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <wkv/wkv.h>

#include "options.h"

namespace libwkv::perf {

double now_seconds();

// Runs `body` at least `least` times and until `seconds` have passed; seconds a run.
template <class Body>
double seconds_a_run(double seconds, int least, const Body &body) {
  const double begin = now_seconds();
  for (int runs = 1;; runs++) {
    body();
    const double passed = now_seconds() - begin;
    if (runs >= least && passed >= seconds) return passed / runs;
  }
}

// What a device or a budget has no room for; a benchmark can leave the figure out.
struct OutOfMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A model and one cache; failures but OutOfMemory end the program with the library's message.
class Subject {
 public:
  Subject(const std::string &path, std::span<const std::byte> bytes, const Options &options, int threads);
  ~Subject();
  Subject(const Subject &) = delete;
  Subject &operator=(const Subject &) = delete;

  const wkv_model_info &info() const { return info_; }
  double load_seconds() const { return load_seconds_; }

  // Seconds until the logits of the first token, from now.
  double first_logits();
  // Tokens a second, one token at a time, with logits.
  double decode(int tokens);
  // Tokens a second of one prompt into an empty cache, with the logits of its last token.
  double prefill(int tokens);
  // Tokens a second of `steps` steps with `rows` caches, one token each, with logits.
  double batch(int rows, int steps);

  // One token, chosen where the model computes (greedily), or with all scores brought to the host.
  void step_choosing();
  void step_with_scores();
  // One token of each of `rows` caches, chosen where the model computes.
  void step_rows(int rows);
  // Seconds of one step that reads `prompts` prompts into empty caches and chooses a token for each.
  double packed_seconds(int prompts, int tokens);
  // Tokens a second through wkv_generation_next, temperature 0.8 and top_p 0.9, after a few that read the prompt and
  // warm up.
  double generate(int tokens, bool is_greedy);
  // Seconds of a fork and its first step, with all scores.
  double fork_seconds();
  // Seconds of a state into memory of the host, and of a cache made from it.
  struct SaveTimes {
    double save_seconds, restore_seconds;
    size_t bytes;
  };
  SaveTimes save();

  // What a token needs at least: bytes of a dense decode, state read and written; operations of a prompt.
  double decode_bytes(int rows) const;
  double prefill_flop(int tokens) const;
  double decode_flop() const;

 private:
  int32_t next_token();
  void make_rows(size_t count);
  wkv_step_item choosing_item(size_t row, const int32_t *tokens, size_t tokens_count);

  wkv_model *model_ = nullptr;
  wkv_cache *cache_ = nullptr;
  std::vector<wkv_cache *> rows_;
  std::vector<wkv_sampler *> samplers_;  // a greedy one a row
  std::vector<int32_t> chosen_;
  std::vector<char> blob_;
  wkv_model_info info_{};
  double load_seconds_ = 0;
  uint64_t random_ = 88172645463325252u;
  std::vector<float> logits_;
};

// Loads options.load_child in this process, decodes a few tokens, and prints one line of JSON.
int run_load_child(const Options &options);

struct LoadResult {
  double load_seconds, first_logits_seconds;
  uint64_t peak_bytes, mapped_bytes, weight_bytes;
};
// The same in a process of its own: its peak memory is the model's alone.
LoadResult load_in_child(const Options &options, const std::string &path, int threads);

// A process that keeps one core busy while it lives.
class Neighbour {
 public:
  Neighbour();
  ~Neighbour();
  Neighbour(const Neighbour &) = delete;
  Neighbour &operator=(const Neighbour &) = delete;

 private:
  int process_;
};

[[noreturn]] void give_up(const std::string &what);

}  // namespace libwkv::perf
