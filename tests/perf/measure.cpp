// SPDX-License-Identifier: Apache-2.0
#include "measure.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

namespace libwkv::perf {
namespace {

// Stops the program with the message of a failed call, unless it failed for memory.
struct Checked {
  wkv_error error{};
  Checked() { error.struct_size = sizeof error; }
  void operator()(wkv_status status) const {
    if (status == WKV_OUT_OF_MEMORY) throw OutOfMemory(error.message);
    if (status != WKV_OK) give_up(std::string(wkv_status_name(status)) + ": " + error.message);
  }
};

uint64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  return 0;
}

}  // namespace

void give_up(const std::string &what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Subject::Subject(const std::string &path, std::span<const std::byte> bytes, const Options &options, int threads) {
  wkv_model_options o{};
  o.struct_size = sizeof o;
  o.threads = threads;
  o.device = options.device.empty() ? "cpu" : options.device.c_str();
  o.state_type = options.state_type;
  o.kernels = options.kernels.empty() ? nullptr : options.kernels.c_str();
  o.is_reproducible = options.is_reproducible;
  o.chunk_tokens = options.chunk_tokens;
  Checked checked;
  double begin = now_seconds();
  checked(path.empty() ? wkv_model_load_memory(bytes.data(), bytes.size(), &o, &model_, &checked.error)
                       : wkv_model_load(path.c_str(), &o, &model_, &checked.error));
  load_seconds_ = now_seconds() - begin;
  info_.struct_size = sizeof info_;
  checked(wkv_model_get_info(model_, &info_, &checked.error));
  checked(wkv_cache_create(model_, nullptr, &cache_, &checked.error));
  logits_.resize(static_cast<size_t>(info_.vocab_size));
}

Subject::~Subject() {
  for (wkv_sampler *sampler : samplers_) wkv_sampler_release(sampler);
  for (wkv_cache *row : rows_) wkv_cache_release(row);
  wkv_cache_release(cache_);
  wkv_model_release(model_);
}

int32_t Subject::next_token() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return static_cast<int32_t>(random_ % static_cast<uint64_t>(info_.vocab_size));
}

double Subject::first_logits() {
  double begin = now_seconds();
  decode(1);
  return now_seconds() - begin;
}

double Subject::decode(int tokens) {
  Checked checked;
  double begin = now_seconds();
  for (int i = 0; i < tokens; i++) {
    int32_t token = next_token();
    checked(wkv_cache_step(cache_, &token, 1, logits_.data(), logits_.size(), &checked.error));
  }
  double seconds = now_seconds() - begin;
  if (!std::all_of(logits_.begin(), logits_.end(), [](float value) { return value > -1e6f && value < 1e6f; }))
    give_up("the logits are not of ordinary size");
  return tokens / seconds;
}

double Subject::prefill(int tokens) {
  Checked checked;
  std::vector<int32_t> prompt(static_cast<size_t>(tokens));
  for (int32_t &token : prompt) token = next_token();
  checked(wkv_cache_reset(cache_, &checked.error));
  double begin = now_seconds();
  checked(wkv_cache_step(cache_, prompt.data(), prompt.size(), logits_.data(), logits_.size(), &checked.error));
  return tokens / (now_seconds() - begin);
}

void Subject::make_rows(size_t count) {
  Checked checked;
  wkv_sampler_options greedy{};
  greedy.struct_size = sizeof greedy;
  greedy.is_greedy = 1;
  while (rows_.size() < count) {
    wkv_cache *cache = nullptr;
    checked(wkv_cache_create(model_, nullptr, &cache, &checked.error));
    rows_.push_back(cache);
  }
  while (samplers_.size() < count) {
    wkv_sampler *sampler = nullptr;
    checked(wkv_sampler_create(&greedy, &sampler, &checked.error));
    samplers_.push_back(sampler);
  }
  chosen_.resize(count);
}

wkv_step_item Subject::choosing_item(size_t row, const int32_t *tokens, size_t tokens_count) {
  wkv_step_item item{};
  item.struct_size = sizeof item;
  item.cache = rows_[row];
  item.tokens = tokens;
  item.tokens_count = tokens_count;
  item.sampler = samplers_[row];
  item.next_token = &chosen_[row];
  return item;
}

double Subject::batch(int rows, int steps) {
  Checked checked;
  size_t count = static_cast<size_t>(rows);
  make_rows(count);
  std::vector<int32_t> tokens(count);
  std::vector<float> logits(count * logits_.size());
  std::vector<wkv_step_item> items(count);
  double seconds = 0;
  for (int step = -1; step < steps; step++) {  // the first one only sizes the workspace
    for (size_t i = 0; i < count; i++) {
      tokens[i] = next_token();
      items[i] = {};
      items[i].struct_size = sizeof items[i];
      items[i].cache = rows_[i];
      items[i].tokens = &tokens[i];
      items[i].tokens_count = 1;
      items[i].logits = logits.data() + i * logits_.size();
      items[i].logits_count = logits_.size();
    }
    double begin = now_seconds();
    checked(wkv_model_step(model_, items.data(), items.size(), &checked.error));
    if (step >= 0) seconds += now_seconds() - begin;
  }
  return rows * steps / seconds;
}

void Subject::step_choosing() {
  Checked checked;
  make_rows(1);
  const int32_t token = next_token();
  wkv_step_item item = choosing_item(0, &token, 1);
  item.cache = cache_;
  checked(wkv_model_step(model_, &item, 1, &checked.error));
}

void Subject::step_with_scores() {
  Checked checked;
  const int32_t token = next_token();
  checked(wkv_cache_step(cache_, &token, 1, logits_.data(), logits_.size(), &checked.error));
}

void Subject::step_rows(int rows) {
  Checked checked;
  const size_t count = static_cast<size_t>(rows);
  make_rows(count);
  std::vector<int32_t> tokens(count);
  std::vector<wkv_step_item> items;
  for (size_t i = 0; i < count; i++) {
    tokens[i] = next_token();
    items.push_back(choosing_item(i, &tokens[i], 1));
  }
  checked(wkv_model_step(model_, items.data(), items.size(), &checked.error));
}

double Subject::packed_seconds(int prompts, int tokens) {
  Checked checked;
  const size_t count = static_cast<size_t>(prompts), length = static_cast<size_t>(tokens);
  make_rows(count);
  std::vector<int32_t> all(count * length);
  for (int32_t &token : all) token = next_token();
  std::vector<wkv_step_item> items;
  for (size_t i = 0; i < count; i++) {
    checked(wkv_cache_reset(rows_[i], &checked.error));
    items.push_back(choosing_item(i, all.data() + i * length, length));
  }
  const double begin = now_seconds();
  checked(wkv_model_step(model_, items.data(), items.size(), &checked.error));
  return now_seconds() - begin;
}

double Subject::generate(int tokens, bool is_greedy) {
  constexpr int untimed = 4;
  Checked checked;
  wkv_sampler_options sampling{};
  sampling.struct_size = sizeof sampling;
  sampling.temperature = 0.8f;
  sampling.top_p = 0.9f;
  sampling.is_greedy = is_greedy;
  sampling.seed = random_;
  wkv_sampler *sampler = nullptr;
  checked(wkv_sampler_create(&sampling, &sampler, &checked.error));
  const int32_t prompt = next_token();
  wkv_generation_options generating{};
  generating.struct_size = sizeof generating;
  generating.max_tokens = tokens + untimed + 1;
  generating.prompt_tokens = &prompt;
  generating.prompt_tokens_count = 1;
  generating.keeps_end_token = 1;
  wkv_generation *generation = nullptr;
  checked(wkv_generation_create(cache_, sampler, &generating, &generation, &checked.error));
  wkv_generation_piece piece{};
  piece.struct_size = sizeof piece;
  for (int i = 0; i < untimed; i++) checked(wkv_generation_next(generation, &piece, &checked.error));
  const double begin = now_seconds();
  for (int i = 0; i < tokens; i++) checked(wkv_generation_next(generation, &piece, &checked.error));
  const double seconds = now_seconds() - begin;
  wkv_generation_release(generation);
  wkv_sampler_release(sampler);
  return tokens / seconds;
}

double Subject::fork_seconds() {
  Checked checked;
  const int32_t token = next_token();
  wkv_cache *fork = nullptr;
  const double begin = now_seconds();
  checked(wkv_cache_copy(cache_, &fork, &checked.error));
  checked(wkv_cache_step(fork, &token, 1, logits_.data(), logits_.size(), &checked.error));
  const double seconds = now_seconds() - begin;
  wkv_cache_release(fork);
  return seconds;
}

Subject::SaveTimes Subject::save() {
  Checked checked;
  SaveTimes times{};
  checked(wkv_cache_serialize(cache_, nullptr, 0, &times.bytes, &checked.error));
  blob_.resize(times.bytes);
  double begin = now_seconds();
  checked(wkv_cache_serialize(cache_, blob_.data(), blob_.size(), &times.bytes, &checked.error));
  times.save_seconds = now_seconds() - begin;
  wkv_cache *restored = nullptr;
  begin = now_seconds();
  checked(wkv_cache_deserialize(model_, blob_.data(), blob_.size(), &restored, &checked.error));
  times.restore_seconds = now_seconds() - begin;
  wkv_cache_release(restored);
  return times;
}

double Subject::decode_bytes(int rows) const {
  return static_cast<double>(info_.step_bytes) / rows + 2.0 * static_cast<double>(info_.state_bytes);
}

double Subject::prefill_flop(int tokens) const {
  double layers = info_.layers, width = info_.width, ffn = info_.ffn_width;
  double elements =
      layers * (4 * width * width + 2 * width * ffn + 2 * width * (info_.rank_w + info_.rank_a + info_.rank_g)) +
      (layers - 1) * 2 * width * info_.rank_v;
  return 2 * (elements + width * info_.vocab_size / tokens);
}

double Subject::decode_flop() const { return prefill_flop(1); }

int run_load_child(const Options &options) {
  double begin = now_seconds();
  Subject subject(options.load_child, {}, options, options.threads.front());  // on the CPU
  subject.first_logits();
  double first = now_seconds() - begin;
  subject.decode(4);
  nlohmann::json line = {{"load_seconds", subject.load_seconds()},
                         {"first_logits_seconds", first},
                         {"peak_bytes", peak_resident_bytes()},
                         {"mapped_bytes", subject.info().mapped_bytes},
                         {"weight_bytes", subject.info().weight_bytes}};
  std::printf("%s\n", line.dump().c_str());
  return 0;
}

LoadResult load_in_child(const Options &options, const std::string &path, int threads) {
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) give_up("no pipe");
  std::vector<std::string> arguments = {"bench", "--load-child", path, "--threads", std::to_string(threads)};
  if (!options.kernels.empty()) arguments.insert(arguments.end(), {"--kernels", options.kernels});
  if (options.is_reproducible) arguments.push_back("--reproducible");
  std::vector<char *> pointers;
  for (std::string &argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  pid_t child = fork();
  if (child < 0) give_up("no process");
  if (child == 0) {
    dup2(pipe_ends[1], STDOUT_FILENO);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    execv("/proc/self/exe", pointers.data());
    _exit(127);
  }
  close(pipe_ends[1]);
  std::string text;
  char part[4096];
  for (ssize_t bytes; (bytes = read(pipe_ends[0], part, sizeof part)) > 0;)
    text.append(part, static_cast<size_t>(bytes));
  close(pipe_ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) give_up("loading in a process of its own failed");
  nlohmann::json line = nlohmann::json::parse(text);
  return {line.at("load_seconds"), line.at("first_logits_seconds"), line.at("peak_bytes"), line.at("mapped_bytes"),
          line.at("weight_bytes")};
}

Neighbour::Neighbour() {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  sched_getaffinity(0, sizeof usable, &usable);
  int last = CPU_SETSIZE - 1;
  while (last > 0 && !CPU_ISSET(last, &usable)) last--;
  process_ = fork();
  if (process_ < 0) give_up("no process");
  if (process_ > 0) {
    usleep(20000);
    return;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(last, &one);
  sched_setaffinity(0, sizeof one, &one);
  for (;;) __asm__ __volatile__("");
}

Neighbour::~Neighbour() {
  kill(process_, SIGKILL);
  waitpid(process_, nullptr, 0);
}

}  // namespace libwkv::perf
