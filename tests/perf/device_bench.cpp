// SPDX-License-Identifier: Apache-2.0
#include "device_bench.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>

#include <unistd.h>

#include "device_roofs.h"
#include "measure.h"
#include "roofs.h"
#include "support/random_model.h"
#ifdef WKV_HAS_CUDA
#include "cuda_roofs.h"
#endif

namespace libwkv::perf {
namespace {

using test::Image;

int processor_threads() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

// The CPU measured as a device: what a GPU's figures can be put beside.
class CpuRoofs : public DeviceRoofs {
 public:
  CpuRoofs(size_t read_bytes, int threads) : roofs_(read_bytes), threads_(threads) {}
  std::string description() const override { return std::to_string(threads_) + " threads of the CPU"; }
  double read_bandwidth() override { return roofs_.read_bandwidth(threads_); }
  double copy_bandwidth() override { return 0; }
  double to_device_bandwidth() override { return 0; }
  double to_host_bandwidth() override { return 0; }
  double product(Numbers, int64_t, int64_t, int64_t) override { return roofs_.fma_peak(threads_); }

 private:
  Roofs roofs_;
  int threads_;
};

std::unique_ptr<DeviceRoofs> roofs_of(const Options &options) {
  if (options.device == "cpu") {
    const int threads = options.threads.empty() ? processor_threads() : options.threads.front();
    return std::make_unique<CpuRoofs>(static_cast<size_t>(options.roof_mib) << 20, threads);
  }
  int index = 0;
  if (options.device != "cuda" && std::sscanf(options.device.c_str(), "cuda:%d", &index) != 1)
    throw std::runtime_error("no device is called " + options.device);
#ifdef WKV_HAS_CUDA
  return cuda_roofs(index);
#else
  throw std::runtime_error("this benchmark was built without CUDA: " + options.device + " has no roofs here");
#endif
}

// A file without a name, which goes with the process: path() opens it.
class TemporaryFile {
 public:
  TemporaryFile() {
    std::string pattern = std::filesystem::temp_directory_path() / "wkv_bench_XXXXXX";
    descriptor_ = mkstemp(pattern.data());
    if (descriptor_ < 0) throw std::runtime_error("no temporary file");
    std::filesystem::remove(pattern);
  }
  ~TemporaryFile() { close(descriptor_); }
  TemporaryFile(const TemporaryFile &) = delete;
  TemporaryFile &operator=(const TemporaryFile &) = delete;
  int descriptor() const { return descriptor_; }
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

template <class Body>
void repeat(int times, const Body &body) {
  for (int i = 0; i < times; i++) body();
}

class Measurement {
 public:
  Measurement(const Options &options, Report &report) : options_(options), report_(report), roofs_(roofs_of(options)) {}

  void run() {
    load();
    describe();
    for (round_ = 0; round_ < options_.repeat; round_++) {
      std::fprintf(stderr, "round %d of %d ...\n", round_ + 1, options_.repeat);
      measure_roofs();
      if (options_.decode_tokens > 0) measure_decode();
      for (int rows : options_.batch) measure_batch(rows);
      for (int tokens : options_.prefill) measure_prefill(tokens);
      for (const Options::Packed &packed : options_.packed) measure_packed(packed);
      if (options_.states) measure_states();
    }
    for (const auto &[what, why] : left_out_) report_.facts()["left out: " + what] = why;
  }

 private:
  // Before a figure is measured. The first ones make caches, size the workspace, and let a device record what it will
  // replay.
  int warm_runs() const { return round_ == 0 ? 3 : 1; }

  Row &add(const std::string &what, const char *unit, double value) {
    Row &row = report_.row(what, 0);
    row.unit = unit;
    row.values.push_back(value);
    return row;
  }

  // What there is no room for is left out, and named in the report.
  void if_it_fits(const std::string &what, const std::function<void()> &measure) {
    if (left_out_.contains(what)) return;
    try {
      measure();
    } catch (const OutOfMemory &error) {
      left_out_[what] = error.what();
    }
  }

  // Bounded by what takes longer at the roofs, bytes or operations.
  void add_bounded(const std::string &what, double tokens_a_second, double bytes_a_token, double flop_a_token) {
    read_ = std::max(read_, roofs_->read_bandwidth());
    multiply_ = std::max(multiply_, measure_product(8192, 8192, 8192));
    const double bytes_seconds = bytes_a_token * 1e-9 / read_, flop_seconds = flop_a_token * 1e-9 / multiply_;
    const bool is_bytes = bytes_seconds > flop_seconds;
    Row &row = add(what, "tokens/s", tokens_a_second);
    row.work_unit = is_bytes ? "MB" : "GFLOP";
    row.work = is_bytes ? bytes_a_token * 1e-6 : flop_a_token * 1e-9;
    row.shares.push_back(tokens_a_second * std::max(bytes_seconds, flop_seconds));
  }

  void compare(const std::string &what, const std::string &with) {
    Row &row = report_.row(what, 0);
    row.compared_with = with;
    row.ratios.push_back(row.values.back() / report_.row(with, 0).values.back());
  }

  double measure_product(int64_t outputs, int64_t inputs, int64_t columns) {
    // sums of float32 numbers run where a large product takes its time
    const int64_t divisor = numbers_ == Numbers::f32 ? 2 : 1;
    return roofs_->product(numbers_, outputs / divisor, inputs / divisor, columns / divisor);
  }

  void load() {
    const int threads = options_.threads.empty() ? 0 : options_.threads.front();
    for (double zeros : options_.zeros) {
      std::string path = options_.model;
      const bool is_first = subjects_.empty(), is_file = !path.empty() || (options_.file_load && is_first);
      if (path.empty()) {
        std::fprintf(stderr, "filling random weights ...\n");
        if (is_file) path = file_.emplace().path();
        Image image = test::random_gguf(test::shape_named(options_.random), options_.type, zeros, 1,
                                        processor_threads(), test::LowRank::wide, is_file ? file_->descriptor() : -1);
        if (!is_file) images_.push_back(std::move(image));
      }
      std::fprintf(stderr, "loading ...\n");
      const auto bytes = is_file ? std::span<const std::byte>()
                                 : std::span<const std::byte>(images_.back().data(), images_.back().size());
      std::unique_ptr<Subject> subject;
      for (int i = is_file ? std::min(options_.repeat, 3) : 1; i > 0; i--) {
        subject.reset();
        subject = std::make_unique<Subject>(path, bytes, options_, threads);
        if (!is_file) continue;
        const double size = std::filesystem::is_regular_file(path)
                                ? static_cast<double>(std::filesystem::file_size(path))
                                : static_cast<double>(subject->info().weight_bytes);
        add("load, file in memory", "s", subject->load_seconds());
        Row &row = add("load, file in memory, rate", "GB/s", size * 1e-9 / subject->load_seconds());
        const double link = roofs_->to_device_bandwidth();
        if (link > 0) row.shares.push_back(row.values.back() / link);
      }
      subjects_.push_back(std::move(subject));
      suffixes_.push_back(zeros_suffix(zeros));
    }
  }

  void describe() {
    const wkv_model_info &info = subjects_.front()->info();
    const std::string types = info.compute_types;
    numbers_ = types.starts_with("F32") ? Numbers::f32 : types.starts_with("BF16") ? Numbers::bf16 : Numbers::f16;
    report_.facts()["device"] = std::string(info.device) + ": " + roofs_->description();
    report_.facts()["kernels"] = info.kernels;
    report_.facts()["types"] = std::string(info.stored_types) + " in the file, " + info.compute_types + " computed, " +
                               (info.state_type == WKV_TYPE_F16 ? "F16" : "F32") + " states";
    char text[200];
    std::snprintf(text, sizeof text,
                  "%d layers x %d, ffn %d, vocabulary %d, %.1f MB of weights, %.1f MB read a step, %.2f MB a state, "
                  "chunks of %d",
                  info.layers, info.width, info.ffn_width, info.vocab_size,
                  static_cast<double>(info.weight_bytes) * 1e-6, static_cast<double>(info.step_bytes) * 1e-6,
                  static_cast<double>(info.state_bytes) * 1e-6, info.chunk_tokens);
    report_.facts()["shape"] = text;
    if (options_.device == "cpu") report_.facts()["note"] = "products are float32 multiply-adds in registers";
  }

  void measure_roofs() {
    read_ = roofs_->read_bandwidth();
    add("roof: read", "GB/s", read_);
    const auto add_link = [&](const char *what, double rate) {
      if (rate > 0) add(what, "GB/s", rate);
      return rate;
    };
    add_link("roof: copy, read + write", roofs_->copy_bandwidth());
    add_link("roof: host to device", roofs_->to_device_bandwidth());
    to_host_ = add_link("roof: device to host", roofs_->to_host_bandwidth());
    multiply_ = measure_product(8192, 8192, 8192);
    const std::string name = numbers_ == Numbers::f32 ? "F32" : numbers_ == Numbers::bf16 ? "BF16" : "F16";
    add("roof: product " + name + (numbers_ == Numbers::f32 ? " 4096^3" : " 8192^3"), "TFLOP/s", multiply_ * 1e-3);
    if (numbers_ == Numbers::f32 || options_.device == "cpu") return;
    const bool is_half = numbers_ == Numbers::f16;
    add(std::string("roof: product ") + (is_half ? "BF16" : "F16") + " 8192^3", "TFLOP/s",
        roofs_->product(is_half ? Numbers::bf16 : Numbers::f16, 8192, 8192, 8192) * 1e-3);
    for (int64_t columns : {512, 8192})
      add("roof: product " + name + " 16384 x 4096, " + std::to_string(columns) + " rows", "TFLOP/s",
          roofs_->product(numbers_, 16384, 4096, columns) * 1e-3);
  }

  // One token at a time: as a loop on the device would choose them, with all scores for the host, and through a
  // generation.
  void measure_decode() {
    Subject &first = *subjects_.front();
    const int least = options_.decode_tokens;
    for (size_t i = 0; i < subjects_.size(); i++) {
      repeat(warm_runs(), [&] { subjects_[i]->step_choosing(); });
      const double seconds = seconds_a_run(options_.loop_seconds, least, [&] { subjects_[i]->step_choosing(); });
      add_bounded("decode" + suffixes_[i], 1 / seconds, first.decode_bytes(1), first.decode_flop());
      if (i > 0) compare("decode" + suffixes_[i], "decode" + suffixes_[0]);
    }
    repeat(warm_runs(), [&] { first.step_with_scores(); });
    const double seconds = seconds_a_run(options_.loop_seconds, least, [&] { first.step_with_scores(); });
    add_bounded("decode, scores to the host", 1 / seconds, first.decode_bytes(1), first.decode_flop());
    compare("decode, scores to the host", "decode" + suffixes_[0]);
    if (options_.generate_tokens <= 0) return;
    for (const char *what : {"generation, greedy", "generation, sampled"}) {
      const bool is_greedy = std::string(what) == "generation, greedy";
      add_bounded(what, first.generate(options_.generate_tokens, is_greedy), first.decode_bytes(1),
                  first.decode_flop());
      compare(what, "decode" + suffixes_[0]);
    }
  }

  void measure_batch(int rows) {
    const std::string what = "decode, " + std::to_string(rows) + " rows";
    Subject &first = *subjects_.front();
    if_it_fits(what, [&] {
      repeat(warm_runs(), [&] { first.step_rows(rows); });
      const double seconds = seconds_a_run(options_.loop_seconds, 3, [&] { first.step_rows(rows); });
      add_bounded(what, rows / seconds, first.decode_bytes(rows), first.decode_flop());
    });
  }

  // prompts x tokens in one step: the weights once, every state read and written once, as if nothing were cut.
  void add_prompts(const std::string &what, int prompts, int tokens, double seconds) {
    const wkv_model_info &info = subjects_.front()->info();
    const double bytes = static_cast<double>(info.step_bytes) + 2.0 * prompts * static_cast<double>(info.state_bytes);
    const double all = static_cast<double>(prompts) * tokens;
    add_bounded(what, all / seconds, bytes / all, subjects_.front()->prefill_flop(tokens));
  }

  template <class Body>
  double median_seconds(const Body &seconds_of_one) {
    std::vector<double> times = {seconds_of_one()};
    for (double passed = times[0]; passed < options_.loop_seconds; passed += times.back())
      times.push_back(seconds_of_one());
    return median(times);
  }

  void measure_prefill(int tokens) {
    const std::string what = "prefill " + std::to_string(tokens);
    Subject &first = *subjects_.front();
    if_it_fits(what, [&] {
      repeat(warm_runs(), [&] { first.prefill(tokens); });
      add_prompts(what, 1, tokens, median_seconds([&] { return tokens / first.prefill(tokens); }));
    });
  }

  void measure_packed(const Options::Packed &packed) {
    const std::string what =
        "prefill, " + std::to_string(packed.prompts) + " prompts of " + std::to_string(packed.tokens);
    Subject &first = *subjects_.front();
    if_it_fits(what, [&] {
      repeat(warm_runs(), [&] { first.packed_seconds(packed.prompts, packed.tokens); });
      add_prompts(what, packed.prompts, packed.tokens,
                  median_seconds([&] { return first.packed_seconds(packed.prompts, packed.tokens); }));
    });
  }

  void measure_states() {
    Subject &first = *subjects_.front();
    repeat(warm_runs(), [&] { first.step_with_scores(); });
    std::vector<double> steps, forks, saves, restores;
    size_t bytes = 0;
    for (int i = 0; i < 9; i++) {  // one beside the other
      steps.push_back(seconds_a_run(0, 1, [&] { first.step_with_scores(); }));
      forks.push_back(first.fork_seconds());
      const Subject::SaveTimes times = first.save();
      saves.push_back(times.save_seconds);
      restores.push_back(times.restore_seconds);
      bytes = times.bytes;
    }
    add("a step in place", "us", median(steps) * 1e6);
    add("fork and its first step", "us", median(forks) * 1e6);
    compare("fork and its first step", "a step in place");
    const auto add_rate = [&](const char *what, double seconds, double link) {
      Row &row = add(what, "GB/s", static_cast<double>(bytes) * 1e-9 / seconds);
      if (link > 0) row.shares.push_back(row.values.back() / link);
    };
    add_rate("save a state to host memory", median(saves), to_host_);
    add_rate("restore a state", median(restores), roofs_->to_device_bandwidth());
  }

  const Options &options_;
  Report &report_;
  std::unique_ptr<DeviceRoofs> roofs_;
  std::optional<TemporaryFile> file_;
  std::vector<Image> images_;  // go after the subjects
  std::vector<std::unique_ptr<Subject>> subjects_;
  std::vector<std::string> suffixes_;
  Numbers numbers_ = Numbers::f16;
  std::map<std::string, std::string> left_out_;
  int round_ = 0;
  double read_ = 0, multiply_ = 0, to_host_ = 0;  // of this round so far
};

}  // namespace

void measure_device(const Options &options, Report &report) { Measurement(options, report).run(); }

}  // namespace libwkv::perf
