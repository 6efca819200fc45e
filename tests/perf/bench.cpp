// SPDX-License-Identifier: Apache-2.0
// The benchmark: every figure beside the roof that bounds it, both measured in the same round, since a shared host
// drifts by a third within minutes. README.md says how to read the table.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <thread>

#include "device_bench.h"
#include "measure.h"
#include "options.h"
#include "report.h"
#include "roofs.h"
#include "support/random_model.h"

using namespace libwkv::perf;
using libwkv::test::Image;

namespace {

// One set of weights: a file, or an image in memory.
struct Variant {
  double zeros = 0;
  std::string path;
  std::optional<Image> image;
  std::string suffix;  // of its rows' names

  std::span<const std::byte> bytes() const {
    return image ? std::span<const std::byte>(image->data(), image->size()) : std::span<const std::byte>();
  }
};

void note(const char *what) { std::fprintf(stderr, "%s\n", what); }

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::vector<Variant> make_variants(const Options &options) {
  std::vector<Variant> variants(options.zeros.size());
  for (size_t i = 0; i < variants.size(); i++) {
    variants[i].zeros = options.zeros[i];
    variants[i].suffix = zeros_suffix(options.zeros[i]);
    if (options.random.empty()) {
      variants[i].path = options.model;
    } else {
      note("filling random weights ...");
      int threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
      variants[i].image.emplace(libwkv::test::random_gguf(libwkv::test::shape_named(options.random), options.type,
                                                          options.zeros[i], 1, threads));
    }
  }
  return variants;
}

void add(Row &row, const char *unit, double value) {
  row.unit = unit;
  row.values.push_back(value);
}

// A rate bounded by the roof measured just before and just after it: the larger of the two counts.
void add_bounded(Row &row, double value, const char *work_unit, double work_per_token, double roof) {
  bool is_bytes = std::string(work_unit) == "MB";
  add(row, "tokens/s", value);
  row.work_unit = work_unit;
  row.work = work_per_token * (is_bytes ? 1e-6 : 1e-9);
  row.shares.push_back(value * work_per_token * 1e-9 / roof);
}

void measure_loading(const Options &options, const std::string &path, Report &report) {
  for (int threads : options.threads)
    for (int round = -1; round < options.repeat; round++) {
      LoadResult result = load_in_child(options, path, threads);
      if (round < 0) continue;  // warms the page cache
      auto over = [&](uint64_t bytes) {
        return 100 * (static_cast<double>(result.peak_bytes) / static_cast<double>(bytes) - 1);
      };
      add(report.row("load", threads), "s", result.load_seconds);
      add(report.row("load to first logits", threads), "s", result.first_logits_seconds);
      add(report.row("peak memory", threads), "MB", static_cast<double>(result.peak_bytes) * 1e-6);
      add(report.row("mapped weights", threads), "MB", static_cast<double>(result.mapped_bytes) * 1e-6);
      add(report.row("weights in all", threads), "MB", static_cast<double>(result.weight_bytes) * 1e-6);
      if (result.mapped_bytes) add(report.row("peak over mapped weights", threads), "%", over(result.mapped_bytes));
      if (std::filesystem::is_regular_file(path))
        add(report.row("peak over the file", threads), "%", over(std::filesystem::file_size(path)));
    }
}

void measure_steps(const Options &options, const std::vector<Variant> &variants, int threads, Roofs &roofs,
                   Report &report) {
  std::vector<std::unique_ptr<Subject>> subjects;
  for (const Variant &variant : variants) {
    subjects.push_back(std::make_unique<Subject>(variant.path, variant.bytes(), options, threads));
    subjects.back()->decode(3);
  }
  Subject &first = *subjects.front();
  const wkv_model_info &info = first.info();
  report.facts()["kernels"] = info.kernels;
  report.facts()["types"] = std::string(info.stored_types) + " in the file, " + info.compute_types + " computed";
  char text[160];
  std::snprintf(text, sizeof text,
                "%d layers x %d, ffn %d, vocabulary %d, %.1f M numbers, %.1f MB of weights, %.2f MB a state",
                info.layers, info.width, info.ffn_width, info.vocab_size, static_cast<double>(info.parameters) * 1e-6,
                static_cast<double>(info.weight_bytes) * 1e-6, static_cast<double>(info.state_bytes) * 1e-6);
  report.facts()["shape"] = text;
  for (int tokens : options.prefill) first.prefill(std::min(tokens, 64));  // sizes the workspace
  for (int round = 0; round < options.repeat; round++) {
    double read = roofs.read_bandwidth(threads);
    add(report.row("read, best of 1 to 8 streams", threads), "GB/s", read);
    add(report.row("read, one stream a thread", threads), "GB/s", roofs.last_one_stream());
    if (options.decode_tokens > 0) {
      std::vector<double> rates;
      for (const auto &subject : subjects) rates.push_back(subject->decode(options.decode_tokens));
      read = std::max(read, roofs.read_bandwidth(threads));
      for (size_t i = 0; i < rates.size(); i++) {
        Row &row = report.row("decode" + variants[i].suffix, threads);
        add_bounded(row, rates[i], "MB", subjects[i]->decode_bytes(1), read);
        if (i > 0) {
          row.compared_with = "decode" + variants[0].suffix;
          row.ratios.push_back(rates[i] / rates[0]);
        }
      }
    }
    for (int rows : options.batch) {
      double rate = first.batch(rows, std::max(2, options.decode_tokens / 4));
      read = std::max(read, roofs.read_bandwidth(threads));
      std::string name = std::string("decode, ") + std::to_string(rows) + " rows";
      add_bounded(report.row(name, threads), rate, "MB", first.decode_bytes(rows), read);
      add_bounded(report.row(name + ", arithmetic", threads), rate, "GFLOP", first.decode_flop(),
                  roofs.fma_peak(threads));
    }
    if (options.prefill.empty()) continue;
    double fma = roofs.fma_peak(threads);
    add(report.row("multiply-add, float32", threads), "GFLOP/s", fma);
    for (int tokens : options.prefill) {
      double rate = first.prefill(tokens);
      fma = std::max(fma, roofs.fma_peak(threads));
      add_bounded(report.row(std::string("prefill ") + std::to_string(tokens), threads), rate, "GFLOP",
                  first.prefill_flop(tokens), fma);
    }
  }
}

void measure_neighbour(const Options &options, const Variant &variant, Report &report) {
  int threads = *std::max_element(options.threads.begin(), options.threads.end());
  Subject one(variant.path, variant.bytes(), options, 1), all(variant.path, variant.bytes(), options, threads);
  one.decode(3);
  all.decode(3);
  auto compare = [&](const std::string &what, auto &&measure) {
    double alone = measure(one), beside;
    {
      Neighbour neighbour;
      beside = measure(all);
    }
    add(report.row(what + ", alone", 1), "tokens/s", alone);
    Row &row = report.row(what + ", one core taken", threads);
    add(row, "tokens/s", beside);
    row.compared_with = "1 thread alone";
    row.ratios.push_back(beside / alone);
  };
  for (int round = 0; round < options.repeat; round++) {
    if (options.decode_tokens > 0)
      compare("decode", [&](Subject &subject) { return subject.decode(options.decode_tokens); });
    for (int tokens : options.prefill)
      compare(std::string("prefill ") + std::to_string(tokens),
              [&](Subject &subject) { return subject.prefill(tokens); });
  }
}

}  // namespace

int main(int argc, char **argv) {
  Options options = parse_options(argc, argv);
  if (!options.load_child.empty()) return run_load_child(options);
  try {
    Report report;
    report.facts()["processor"] =
        processor_name() + ", " + std::to_string(std::thread::hardware_concurrency()) + " cores";
    report.facts()["library"] = wkv_version();
    report.facts()["model"] = options.random.empty() ? options.model : std::string("random ") + options.random;
    if (!options.device.empty()) {
      measure_device(options, report);
      options.json ? report.print_json() : report.print_table();
      return 0;
    }
    std::vector<Variant> variants = make_variants(options);
    if (options.file_load && variants[0].image) {
      note("loading from a file ...");
      std::string pattern = std::filesystem::temp_directory_path() / "wkv_bench_XXXXXX";
      int file = mkstemp(pattern.data());
      if (file < 0) give_up("no temporary file");
      close(file);
      std::ofstream(pattern, std::ios::binary)
          .write(reinterpret_cast<const char *>(variants[0].image->data()),
                 static_cast<std::streamsize>(variants[0].image->size()));
      measure_loading(options, pattern, report);
      std::filesystem::remove(pattern);
    } else if (!options.model.empty()) {
      note("loading ...");
      measure_loading(options, options.model, report);
    }
    Roofs roofs(static_cast<size_t>(options.roof_mib) << 20);
    for (int threads : options.threads) {
      note((std::string("measuring with ") + std::to_string(threads) + " threads ...").c_str());
      measure_steps(options, variants, threads, roofs, report);
    }
    if (options.neighbour) {
      note("measuring with one core taken ...");
      measure_neighbour(options, variants[0], report);
    }
    options.json ? report.print_json() : report.print_table();
  } catch (const std::exception &error) {
    give_up(error.what());
  }
  return 0;
}
