// SPDX-License-Identifier: Apache-2.0
// perplexity: how well a model foretells a text, as the mean negative log likelihood of its tokens.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "common/options.h"
#include "common/terminal.h"

namespace {

using namespace examples;

// -log softmax(scores)[token] in nats.
double negative_log_likelihood(const float *scores, size_t count, int32_t token) {
  const float highest = *std::max_element(scores, scores + count);
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += std::exp(static_cast<double>(scores[i] - highest));
  return std::log(sum) - static_cast<double>(scores[token] - highest);
}

struct Result {
  uint64_t tokens = 0;  // foretold
  uint64_t bytes = 0;   // of those tokens
  double nats = 0, seconds = 0;

  double mean() const { return nats / static_cast<double>(tokens); }
  double bits_per_byte() const { return nats / std::log(2.0) / static_cast<double>(bytes); }
};

// Feeds the text once, in chunks small enough for all their scores, and scores every token but the first.
Result measure(Loaded &loaded, const std::vector<int32_t> &tokens) {
  const size_t vocab = static_cast<size_t>(loaded.model.info().vocab_size);
  const size_t chunk = std::clamp<size_t>((size_t{32} << 20) / (vocab * sizeof(float)), 16, 512);
  wkv::Cache cache(loaded.model);
  std::vector<float> scores(chunk * vocab);
  std::vector<wkv::StepItem> items(1);
  ProgressBar bar("reading", ProgressBar::Unit::tokens);
  Result result;
  Clock clock;
  const size_t last = tokens.size() - 1;  // nothing follows it, so it need not be fed
  for (size_t begin = 0; begin < last && !interrupted();) {
    const size_t count = std::min(chunk, last - begin);
    wkv::StepItem &item = items[0];
    item.flags = WKV_STEP_ALL_LOGITS;
    item.cache = cache.handle();
    item.tokens = tokens.data() + begin;
    item.tokens_count = count;
    item.logits = scores.data();
    item.logits_count = count * vocab;
    loaded.model.step(items);
    for (size_t i = 0; i < count; i++)
      result.nats += negative_log_likelihood(scores.data() + i * vocab, vocab, tokens[begin + i + 1]);
    result.tokens += count;
    begin += count;
    bar.update(begin, last);
  }
  result.seconds = clock.seconds();
  result.bytes = loaded.tokenizer.decode({tokens.data() + 1, result.tokens}).size();
  return result;
}

int perplexity(int argc, char **argv) {
  cxxopts::Options declared("perplexity",
                            "Measures how well a model foretells a text.\n\n"
                            "  perplexity book.txt\n"
                            "  perplexity book.txt -m rwkv7-g1-0.4b.gguf --json\n\n"
                            "The whole text is read as one sequence. Its first token is not scored, unless\n"
                            "--begin-token gives it something to follow.\n");
  declared.positional_help("PATH");
  declared.custom_help("[options]");
  declared.add_options("Text")                                                                                       //
      ("f,file", "text file; - is standard input", cxxopts::value<std::string>(), "PATH")                            //
      ("n,max-tokens", "read only the first N tokens; 0: all", cxxopts::value<uint64_t>()->default_value("0"), "N")  //
      ("begin-token", "read token 0 first, as at the start of a document")                                           //
      ("json", "print one JSON object");
  add_model_options(declared);
  declared.parse_positional({"file"});
  const auto arguments = parse(declared, argc, argv);
  if (!arguments) return exit_ok;
  if (!arguments->count("file")) throw UsageError("name a text file");

  watch_interrupt();
  const std::string text = read_text((*arguments)["file"].as<std::string>());
  Loaded loaded = load(*arguments);
  std::vector<int32_t> tokens = loaded.tokenizer.encode(text);
  const uint64_t most = (*arguments)["max-tokens"].as<uint64_t>();
  if (most > 0 && most < tokens.size()) tokens.resize(most);
  if (arguments->count("begin-token")) tokens.insert(tokens.begin(), 0);
  if (tokens.size() < 2) throw std::runtime_error("the text is too short: there is no token to foretell");
  const Result result = measure(loaded, tokens);
  if (result.tokens == 0) return exit_interrupted;

  if (arguments->count("json")) {
    const nlohmann::json object = {{"tokens", result.tokens},
                                   {"bytes", result.bytes},
                                   {"nats_per_token", result.mean()},
                                   {"perplexity", std::exp(result.mean())},
                                   {"bits_per_byte", result.bits_per_byte()},
                                   {"seconds", result.seconds},
                                   {"complete", !interrupted()}};
    std::printf("%s\n", object.dump().c_str());
  } else {
    std::printf("%llu tokens, %llu bytes, in %.1f s (%.0f tokens/s)%s\n",
                static_cast<unsigned long long>(result.tokens), static_cast<unsigned long long>(result.bytes),
                result.seconds, static_cast<double>(result.tokens) / result.seconds,
                interrupted() ? ", interrupted" : "");
    std::printf("%.4f nats per token   perplexity %.3f   %.4f bits per byte\n", result.mean(), std::exp(result.mean()),
                result.bits_per_byte());
  }
  return interrupted() ? exit_interrupted : exit_ok;
}

}  // namespace

int main(int argc, char **argv) { return examples::run("perplexity", argc, argv, perplexity); }
