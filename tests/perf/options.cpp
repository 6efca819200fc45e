// SPDX-License-Identifier: Apache-2.0
#include "options.h"

#include <cstdio>
#include <cstdlib>
#include <map>

#include <cxxopts.hpp>

namespace libwkv::perf {

std::string zeros_suffix(double share) {
  if (share == 0) return "";
  char text[40];
  std::snprintf(text, sizeof text, ", %g %% zeros", share * 100);
  return text;
}

Options parse_options(int argc, char **argv) {
  Options options;
  std::string type, state_type;
  std::vector<std::string> packed;
  cxxopts::Options parser("bench", "Speed of libwkv beside the roofs of the machine, measured in the same minutes.");
  cxxopts::OptionAdder add = parser.add_options();
  add("model", "checkpoint to measure", cxxopts::value(options.model));
  add("random", "random weights of a released shape: 0.1B 0.4B 1.5B 2.9B 7.2B, or tiny",
      cxxopts::value(options.random));
  add("type", "type of the random matrices: F32 F16 BF16 Q8 (Q8_0) Q4 (Q4_0)",
      cxxopts::value(type)->default_value("F16"));
  add("zeros", "shares of zeros after the squared ReLU, each its own decode row: 0,0.88 (default 0)",
      cxxopts::value(options.zeros));
  add("threads", "thread counts (default 1,2)", cxxopts::value(options.threads));
  add("device",
      "measure a device as such: cuda, cuda:1 (or cpu, in the same way), beside its roofs. Low-rank matrices of random "
      "weights are then all of the wide type. Without it the CPU is measured, with its threads",
      cxxopts::value(options.device));
  add("state-type", "type of the WKV states: F32 F16", cxxopts::value(state_type)->default_value("F32"));
  add("packed", "with a device: many prompts in one step, 64x128: 64 prompts of 128 tokens", cxxopts::value(packed));
  add("generate", "with a device: tokens to generate a round through wkv_generation_next, greedily and with sampling",
      cxxopts::value(options.generate_tokens));
  add("states", "with a device: fork, save and restore", cxxopts::value(options.states));
  add("loop-seconds", "with a device: how long a figure is measured in each round (default 0.15)",
      cxxopts::value(options.loop_seconds));
  add("kernels", "kernel set by name", cxxopts::value(options.kernels));
  add("reproducible", "the reproducible mode", cxxopts::value(options.is_reproducible));
  add("chunk", "tokens that go through the layers together", cxxopts::value(options.chunk_tokens));
  add("decode", "tokens to decode (default 32), 0: none", cxxopts::value(options.decode_tokens));
  add("prefill", "prompt lengths", cxxopts::value(options.prefill));
  add("batch", "rows of a batched decode", cxxopts::value(options.batch));
  add("repeat", "rounds (default 5); medians are shown", cxxopts::value(options.repeat));
  add("roof-mib", "memory read for the bandwidth roof", cxxopts::value(options.roof_mib));
  add("file-load", "write the random model to a temporary file and measure loading it",
      cxxopts::value(options.file_load));
  add("neighbour", "also measure with one core taken by another process", cxxopts::value(options.neighbour));
  add("json", "results as JSON", cxxopts::value(options.json));
  add("load-child", "", cxxopts::value(options.load_child));
  add("help", "this text");
  try {
    cxxopts::ParseResult result = parser.parse(argc, argv);
    static const std::map<std::string, wkv_type> types = {
        {"F32", WKV_TYPE_F32}, {"F16", WKV_TYPE_F16}, {"BF16", WKV_TYPE_BF16}, {"Q8", WKV_TYPE_Q8},
        {"Q8_0", WKV_TYPE_Q8}, {"Q4", WKV_TYPE_Q4},   {"Q4_0", WKV_TYPE_Q4}};
    // cxxopts adds to what a list holds
    if (options.zeros.empty() || !options.model.empty()) options.zeros = {0};
    if (options.threads.empty() && options.device.empty()) options.threads = {1, 2};
    if (state_type == "F16") options.state_type = WKV_TYPE_F16;
    std::string wrong;
    if (!types.contains(type)) wrong = std::string("no type is called ") + type;
    if (state_type != "F16" && state_type != "F32") wrong = std::string("no state type is called ") + state_type;
    for (const std::string &text : packed) {
      Options::Packed one{};
      if (std::sscanf(text.c_str(), "%dx%d", &one.prompts, &one.tokens) != 2 || one.prompts < 1 || one.tokens < 1)
        wrong = "packed prompts are written as 64x128";
      options.packed.push_back(one);
    }
    if (options.device.empty() && (!packed.empty() || options.generate_tokens || options.states))
      wrong = "--packed, --generate and --states need --device";
    if (!options.device.empty() && options.neighbour) wrong = "--neighbour is for the CPU, without --device";
    if (options.load_child.empty() && options.model.empty() == options.random.empty())
      wrong = "give --model or --random";
    if (options.repeat < 1 || options.roof_mib < 1) wrong = "nothing to measure";
    for (int threads : options.threads)
      if (threads < 1) wrong = "a thread count below 1";
    for (double zeros : options.zeros)
      if (!(zeros >= 0 && zeros <= 1)) wrong = "zeros outside [0, 1]";
    if (!wrong.empty() || result.count("help")) {
      std::fprintf(wrong.empty() ? stdout : stderr, "%s%s", wrong.empty() ? "" : (wrong + "\n").c_str(),
                   parser.help().c_str());
      std::exit(wrong.empty() ? 0 : 2);
    }
    options.type = types.at(type);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::exit(2);
  }
  return options;
}

}  // namespace libwkv::perf
