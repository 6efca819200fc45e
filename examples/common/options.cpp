// SPDX-License-Identifier: Apache-2.0
#include "common/options.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "common/story_model.h"
#include "common/terminal.h"

namespace examples {
namespace {

struct TypeName {
  const char *name;
  wkv_type type;
};
constexpr TypeName type_names[] = {{"stored", WKV_TYPE_DEFAULT}, {"f32", WKV_TYPE_F32}, {"f16", WKV_TYPE_F16},
                                   {"bf16", WKV_TYPE_BF16},      {"q8", WKV_TYPE_Q8},   {"q4", WKV_TYPE_Q4}};

// 0 means "default" in the library, so a 0 given on the command line has to be checked here.
float positive(const cxxopts::ParseResult &arguments, const char *name) {
  const float value = arguments[name].as<float>();
  if (!(value > 0)) throw UsageError(std::string("--") + name + " must be greater than 0");
  return value;
}

wkv_token_bias parse_bias(const std::string &text) {
  int token = 0, used = 0;
  float bias = 0;
  if (std::sscanf(text.c_str(), "%d=%f%n", &token, &bias, &used) != 2 || static_cast<size_t>(used) != text.size())
    throw UsageError("--bias wants ID=NUMBER, not '" + text + "'");
  return {token, bias};
}

}  // namespace

std::optional<cxxopts::ParseResult> parse(cxxopts::Options &options, int argc, char **argv) {
  options.set_width(100);
  options.add_options("Other")("h,help", "print this and exit");
  cxxopts::ParseResult result = options.parse(argc, argv);
  if (result.count("help")) {
    std::vector<std::string> groups;
    for (const char *name : {"Text", "Chat", "State", "Conversion", "Output", "Sampling", "Model", "Other"})
      for (const std::string &group : options.groups())
        if (group == name) groups.push_back(group);
    std::fputs(options.help(groups).c_str(), stdout);
    return std::nullopt;
  }
  if (!result.unmatched().empty()) throw UsageError("unexpected argument '" + result.unmatched().front() + "'");
  return result;
}

void add_model_options(cxxopts::Options &options) {
  options.add_options("Model")  //
      ("m,model", "checkpoint, any format; without it, the built-in story model", cxxopts::value<std::string>(),
       "PATH")                                                                                                    //
      ("vocab", "RWKV vocabulary file, when the checkpoint carries none", cxxopts::value<std::string>(), "PATH")  //
      ("weight-type", "convert while loading: f32, f16, bf16, q8 or q4",
       cxxopts::value<std::string>()->default_value("stored"), "TYPE")                              //
      ("threads", "worker threads; 0: one a core", cxxopts::value<int>()->default_value("0"), "N")  //
      ("kernels", "kernel set: scalar, avx2, avx512 or neon; without it, the best one", cxxopts::value<std::string>(),
       "NAME")                                                                                  //
      ("device", "where to run", cxxopts::value<std::string>()->default_value("auto"), "NAME")  //
      ("chunk-tokens", "tokens that go through the layers together; 0: 512", cxxopts::value<int>()->default_value("0"),
       "N")  //
      ("memory-limit-mb", "fail rather than use more; 0: no limit", cxxopts::value<uint64_t>()->default_value("0"),
       "N")  //
      ("reproducible", "the same bits for any batch and thread count; slower");
}

void add_sampling_options(cxxopts::Options &options) {
  options.add_options("Sampling")                                                                  //
      ("greedy", "always take the likeliest token")                                                //
      ("t,temperature", "divides the scores", cxxopts::value<float>()->default_value("0.8"), "X")  //
      ("top-p", "keep the likeliest tokens up to this sum; 1: all", cxxopts::value<float>()->default_value("0.8"),
       "X")                                                                                                   //
      ("top-k", "keep the K likeliest tokens; 0: all", cxxopts::value<int>()->default_value("0"), "K")        //
      ("min-p", "drop tokens below X times the likeliest", cxxopts::value<float>()->default_value("0"), "X")  //
      ("typical-p", "keep the most typical tokens up to this sum; 0: all", cxxopts::value<float>()->default_value("0"),
       "X")  //
      ("repetition", "divides positive scores of tokens seen before; 1: off",
       cxxopts::value<float>()->default_value("1"), "X")                                                            //
      ("presence", "taken off the score of a token seen before", cxxopts::value<float>()->default_value("0"), "X")  //
      ("frequency", "taken off the score once for every time", cxxopts::value<float>()->default_value("0"), "X")    //
      ("penalty-decay", "what is left of a count after each token", cxxopts::value<float>()->default_value("0.996"),
       "X")  //
      ("bias", "add to the score of a token: ID=NUMBER; repeatable", cxxopts::value<std::vector<std::string>>(),
       "ID=X")                                                                                              //
      ("ban", "never choose this token; repeatable", cxxopts::value<std::vector<int>>(), "ID")              //
      ("exempt", "penalties leave this token alone; repeatable", cxxopts::value<std::vector<int>>(), "ID")  //
      ("seed", "the same seed gives the same text; without it, by chance", cxxopts::value<uint64_t>(), "N");
}

wkv::Model load_model(const cxxopts::ParseResult &arguments) {
  wkv::ModelOptions options;
  const std::string device = arguments["device"].as<std::string>();
  const std::string kernels = arguments.count("kernels") ? arguments["kernels"].as<std::string>() : "";
  const uint64_t limit_mb = arguments["memory-limit-mb"].as<uint64_t>();
  if (limit_mb > UINT64_MAX / 1000000) throw UsageError("--memory-limit-mb is too large");
  options.weight_type = parse_type(arguments["weight-type"].as<std::string>());
  options.threads = arguments["threads"].as<int>();
  options.device = device.c_str();
  options.kernels = arguments.count("kernels") ? kernels.c_str() : nullptr;
  options.chunk_tokens = arguments["chunk-tokens"].as<int>();
  options.memory_limit_bytes = limit_mb * 1000000;
  options.is_reproducible = arguments.count("reproducible") ? 1 : 0;
  ProgressBar bar("loading", ProgressBar::Unit::bytes);
  if (arguments.count("model")) return wkv::Model::load(arguments["model"].as<std::string>(), options, bar.callback());
  return wkv::Model::load_memory(story_model_begin, story_model_size(), options, bar.callback());
}

Loaded load(const cxxopts::ParseResult &arguments) {
  Clock clock;
  wkv::Model model = load_model(arguments);
  const double seconds = clock.seconds();
  if (arguments.count("vocab"))
    return {std::move(model), wkv::Tokenizer::load(arguments["vocab"].as<std::string>()), !arguments.count("model"),
            seconds};
  if (!model.info().has_tokenizer)
    throw UsageError("the checkpoint carries no vocabulary: name an RWKV vocabulary file with --vocab");
  wkv::Tokenizer tokenizer = model.tokenizer();
  return {std::move(model), std::move(tokenizer), !arguments.count("model"), seconds};
}

wkv::SamplerOptions sampler_options(const cxxopts::ParseResult &arguments, const wkv::Tokenizer &tokenizer) {
  wkv::SamplerOptions options;
  options.is_greedy = arguments.count("greedy") > 0;
  options.temperature = positive(arguments, "temperature");
  options.top_p = positive(arguments, "top-p");
  options.top_k = arguments["top-k"].as<int>();
  options.min_p = arguments["min-p"].as<float>();
  options.typical_p = arguments["typical-p"].as<float>();
  options.repetition = positive(arguments, "repetition");
  options.presence = arguments["presence"].as<float>();
  options.frequency = arguments["frequency"].as<float>();
  options.penalty_decay = positive(arguments, "penalty-decay");
  options.ids_end = tokenizer.info().ids_end;
  if (arguments.count("bias"))
    for (const std::string &text : arguments["bias"].as<std::vector<std::string>>())
      options.biases.push_back(parse_bias(text));
  if (arguments.count("ban")) options.banned_tokens = arguments["ban"].as<std::vector<int>>();
  if (arguments.count("exempt")) options.exempt_tokens = arguments["exempt"].as<std::vector<int>>();
  // Fewer than 53 bits, so that JSON readers that know only doubles can give it back.
  options.seed = arguments.count("seed") ? arguments["seed"].as<uint64_t>()
                                         : uint64_t{std::random_device{}()} << 20 ^ std::random_device{}();
  return options;
}

wkv_type parse_type(const std::string &name) {
  for (const TypeName &entry : type_names)
    if (name == entry.name) return entry.type;
  throw UsageError("unknown type '" + name + "'; one of f32, f16, bf16, q8, q4");
}

const char *type_name(wkv_type type) {
  for (const TypeName &entry : type_names)
    if (type == entry.type) return entry.name;
  return "unknown";
}

std::string unescape(const std::string &text) {
  std::string result;
  for (size_t i = 0; i < text.size(); i++) {
    const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    if (next == 'n' || next == 't' || next == '\\') {
      result += next == 'n' ? '\n' : next == 't' ? '\t' : '\\';
      i++;
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace examples
