// SPDX-License-Identifier: Apache-2.0
// The library under the clock, through its C ABI alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <wkv/wkv.h>

#include "options.h"

namespace libwkv::perf {

double now_seconds();

// A model and one cache; failures end the program with the library's message.
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

  // What a token needs at least: bytes of a dense decode, state read and written; operations of a prompt.
  double decode_bytes(int rows) const;
  double prefill_flop(int tokens) const;
  double decode_flop() const;

 private:
  int32_t next_token();

  wkv_model *model_ = nullptr;
  wkv_cache *cache_ = nullptr;
  std::vector<wkv_cache *> rows_;
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
