// SPDX-License-Identifier: Apache-2.0
// generate: a prompt in, text out, token by token.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "common/feed.h"
#include "common/options.h"
#include "common/read_roof.h"
#include "common/table.h"
#include "common/terminal.h"

namespace {

using namespace examples;
using nlohmann::json;

cxxopts::Options declare_options() {
  cxxopts::Options options("generate",
                           "Continues a text.\n\n"
                           "  generate                                    a tale, by the built-in story model\n"
                           "  generate \"Once upon a time\" --seed 7\n"
                           "  generate -m rwkv7-g1-0.4b.pth --vocab rwkv_vocab_v20230424.txt -f prompt.txt --stats\n"
                           "  echo -n \"The fox said\" | generate -f - --json\n");
  options.positional_help("[PROMPT]");
  options.custom_help("[options]");
  options.add_options("Text")                                                  //
      ("p,prompt", "text to continue", cxxopts::value<std::string>(), "TEXT")  //
      ("f,prompt-file", "file with the text to continue; - is standard input", cxxopts::value<std::string>(),
       "PATH")                                                                                        //
      ("n,max-tokens", "tokens to choose at most", cxxopts::value<int>()->default_value("400"), "N")  //
      ("s,stop", "end before this text; \\n and \\t are understood; repeatable",
       cxxopts::value<std::vector<std::string>>(), "TEXT")                                       //
      ("stop-token", "end at this token; repeatable", cxxopts::value<std::vector<int>>(), "ID")  //
      ("keep-end-token", "token 0, the end of text, does not end the text")                      //
      ("begin-token", "read token 0 before the prompt, as at the start of a document")           //
      ("penalize-prompt", "penalties count the prompt's tokens too")                             //
      ("echo", "print the prompt as well")                                                       //
      ("json", "print JSON: one object a piece of text, then a summary")                         //
      ("alternatives", "with --json, report the N likeliest tokens of each choice",
       cxxopts::value<int>()->default_value("0"), "N")  //
      ("stats", "print speed and its share of the memory's read speed on stderr");
  add_sampling_options(options);
  add_model_options(options);
  options.parse_positional({"prompt"});
  return options;
}

const char *reason_name(wkv_reason reason) {
  switch (reason) {
    case WKV_REASON_MAX_TOKENS:
      return "max_tokens";
    case WKV_REASON_STOP_TOKEN:
      return "stop_token";
    case WKV_REASON_STOP_STRING:
      return "stop_string";
    default:
      return "interrupted";
  }
}

struct Stats {
  double load_seconds = 0, prompt_seconds = 0, decode_seconds = 0;
  int64_t prompt_tokens = 0, prefilled_tokens = 0, decode_tokens = 0;
  double roof = 0;  // bytes per second
  wkv::ModelInfo model;

  double prompt_rate() const { return prompt_seconds > 0 ? static_cast<double>(prefilled_tokens) / prompt_seconds : 0; }
  double decode_rate() const { return decode_seconds > 0 ? static_cast<double>(decode_tokens) / decode_seconds : 0; }
  double bytes_rate() const { return decode_rate() * static_cast<double>(model.step_bytes); }
};

json to_json(const Stats &stats) {
  return {{"load_seconds", stats.load_seconds},
          {"prompt_tokens_per_second", stats.prompt_rate()},
          {"decode_tokens_per_second", stats.decode_rate()},
          {"bytes_per_token", stats.model.step_bytes},
          {"read_bytes_per_second", stats.bytes_rate()},
          {"roof_bytes_per_second", stats.roof},
          {"share_of_roof", stats.roof > 0 ? stats.bytes_rate() / stats.roof : 0},
          {"kernels", stats.model.kernels},
          {"threads", stats.model.threads}};
}

void print(const Stats &stats) {
  std::fprintf(stderr, "\n%-8s %6.2f s\n", "load", stats.load_seconds);
  if (stats.prefilled_tokens > 0)
    std::fprintf(stderr, "%-8s %6.2f s  %6lld tokens  %8.1f tokens/s\n", "prompt", stats.prompt_seconds,
                 static_cast<long long>(stats.prefilled_tokens), stats.prompt_rate());
  std::fprintf(stderr, "%-8s %6.2f s  %6lld tokens  %8.1f tokens/s\n", "decode", stats.decode_seconds,
               static_cast<long long>(stats.decode_tokens), stats.decode_rate());
  std::fprintf(stderr, "%-8s %s a token, %.2f GB/s, %.0f %% of the %.2f GB/s that %d %s can read (%s kernels)\n",
               "memory", human_bytes(stats.model.step_bytes).c_str(), stats.bytes_rate() / 1e9,
               stats.roof > 0 ? 100 * stats.bytes_rate() / stats.roof : 0, stats.roof / 1e9, stats.model.threads,
               stats.model.threads == 1 ? "thread" : "threads", stats.model.kernels);
}

// Logarithms of zero probability are not numbers in JSON.
json log_probability(float value) { return std::isfinite(value) ? json(value) : json(nullptr); }

json to_json(const wkv::Piece &piece, const wkv::Tokenizer &tokenizer) {
  json object = {{"type", "piece"},
                 {"token", piece.token},
                 {"text", piece.text},
                 {"log_probability", log_probability(piece.log_probability)}};
  for (size_t i = 0; i < piece.alternatives.size(); i++) {
    const wkv_token_probability &other = piece.alternatives.data()[i];
    object["alternatives"].push_back({{"token", other.token},
                                      {"text", tokenizer.decode({other.token})},
                                      {"log_probability", log_probability(other.log_probability)}});
  }
  return object;
}

std::string choose_prompt(const cxxopts::ParseResult &arguments, bool is_embedded) {
  if (arguments.count("prompt") && arguments.count("prompt-file"))
    throw UsageError("give either a prompt or --prompt-file");
  if (arguments.count("prompt")) return arguments["prompt"].as<std::string>();
  if (arguments.count("prompt-file")) return read_text(arguments["prompt-file"].as<std::string>());
  return is_embedded ? "Once upon a time" : "";
}

wkv::GenerationOptions generation_options(const cxxopts::ParseResult &arguments, bool has_json) {
  wkv::GenerationOptions options;
  options.max_tokens = arguments["max-tokens"].as<int>();
  if (options.max_tokens < 1) throw UsageError("--max-tokens must be at least 1");
  if (arguments.count("stop"))
    for (const std::string &stop : arguments["stop"].as<std::vector<std::string>>())
      options.stop_strings.push_back(unescape(stop));
  if (arguments.count("stop-token")) options.stop_tokens = arguments["stop-token"].as<std::vector<int>>();
  options.keeps_end_token = arguments.count("keep-end-token") > 0;
  options.accepts_prompt = arguments.count("penalize-prompt") > 0;
  options.wants_log_probability = has_json;
  options.alternatives_count = has_json ? arguments["alternatives"].as<int>() : 0;
  return options;
}

int generate(int argc, char **argv) {
  cxxopts::Options declared = declare_options();
  const auto parsed = parse(declared, argc, argv);
  if (!parsed) return exit_ok;
  const cxxopts::ParseResult &arguments = *parsed;
  const bool has_json = arguments.count("json") > 0, has_stats = arguments.count("stats") > 0;
  const std::string prompt = choose_prompt(arguments, !arguments.count("model"));
  wkv::GenerationOptions options = generation_options(arguments, has_json);

  watch_interrupt();
  const Loaded loaded = load(arguments);
  wkv::SamplerOptions sampling = sampler_options(arguments, loaded.tokenizer);
  wkv::Sampler sampler(sampling);
  wkv::Cache cache(loaded.model);
  Stats stats;
  stats.load_seconds = loaded.load_seconds;
  stats.model = loaded.model.info();

  std::vector<int32_t> tokens = loaded.tokenizer.encode(prompt);
  // A text needs something to begin with; for nothing at all it is the end of the text before.
  if (tokens.empty() || arguments.count("begin-token")) tokens.insert(tokens.begin(), 0);
  stats.prompt_tokens = static_cast<int64_t>(tokens.size());
  // The generation reads the last token itself; the others go in here, where progress can be shown.
  options.prompt_tokens = {tokens.back()};
  options.tokenizer = &loaded.tokenizer;
  tokens.pop_back();
  if (options.accepts_prompt)
    for (int32_t token : tokens) sampler.accept(token);
  wkv::Generation generation(cache, sampler, options);  // a wrong option is reported before the long part
  Clock prompt_clock;
  stats.prefilled_tokens = static_cast<int64_t>(feed(loaded.model, cache, tokens));
  stats.prompt_seconds = prompt_clock.seconds();

  const bool has_echo = arguments.count("echo") || (!arguments.count("prompt") && !arguments.count("prompt-file"));
  if (has_echo && !has_json) {
    std::fwrite(prompt.data(), 1, prompt.size(), stdout);
    std::fflush(stdout);
  }
  std::string text;
  wkv::Piece piece;
  wkv_reason reason = WKV_REASON_NONE;
  Clock decode_clock;
  while (!interrupted() && reason == WKV_REASON_NONE && generation.next(piece)) {
    stats.decode_tokens = std::max(stats.decode_tokens, piece.tokens_generated);
    reason = piece.reason;
    text += piece.text;
    if (has_json)
      print_line(to_json(piece, loaded.tokenizer));
    else if (!piece.text.empty()) {
      std::fwrite(piece.text.data(), 1, piece.text.size(), stdout);
      std::fflush(stdout);
    }
  }
  stats.decode_seconds = decode_clock.seconds();
  if (!has_json) std::printf("\n");
  std::fflush(stdout);
  if (has_stats) stats.roof = measure_read_roof(stats.model.threads, stats.model.step_bytes);
  if (has_json) {
    json summary = {{"type", "summary"},
                    {"text", text},
                    {"reason", reason_name(reason)},
                    {"prompt_tokens", stats.prompt_tokens},
                    {"generated_tokens", stats.decode_tokens},
                    {"seed", sampling.seed}};
    if (has_stats) summary["stats"] = to_json(stats);
    print_line(summary);
  } else if (has_stats) {
    print(stats);
    std::fprintf(stderr, "%-8s %s, seed %llu\n", "end", reason_name(reason),
                 static_cast<unsigned long long>(sampling.seed));
  }
  return interrupted() ? exit_interrupted : exit_ok;
}

}  // namespace

int main(int argc, char **argv) { return examples::run("generate", argc, argv, generate); }
