// SPDX-License-Identifier: Apache-2.0
// prefix: a long text is asked many questions. It is read once; a prefix store gives the state after it to every
// question, and from a directory also to the next start of this program.
#include <algorithm>
#include <cstdio>
#include <sstream>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "common/chat_template.h"
#include "common/feed.h"
#include "common/long_tale.h"
#include "common/options.h"
#include "common/table.h"
#include "common/terminal.h"
#include "common/text_layout.h"

namespace {

using namespace examples;
using nlohmann::json;

// One reading: of the text itself, or of a question after it, up to the first token of the answer.
struct Reading {
  std::string name, answer;
  size_t reused = 0, computed = 0;
  double seconds = 0;
};

struct Totals {
  size_t tokens = 0;
  double seconds = 0;
};

class Interview {
 public:
  Interview(Loaded &loaded, wkv::PrefixStore &store, const wkv::SamplerOptions &sampling, int32_t answer_tokens,
            const std::string &text)
      : loaded_(loaded),
        store_(store),
        sampling_(sampling),
        answer_tokens_(answer_tokens),
        text_(loaded.tokenizer.encode(text)) {}

  // Brings the text into the store, unless it is there.
  void read_text() {
    Clock clock;
    wkv::Cache cache(loaded_.model);
    std::vector<int32_t> longer = text_;  // what is found is always shorter than what is asked for
    longer.push_back(0);
    const size_t known = std::min(store_.find(longer, cache), text_.size());
    reading_.name = "the text";
    reading_.reused = known;
    reading_.computed = text_.size() - known;
    read_on(cache, known);
    reading_.seconds = clock.seconds();
    if (known == 0) {
      text_seconds_ = reading_.seconds;
      return;
    }
    // What it takes without a store has to be measured on its own then.
    Clock without;
    wkv::Cache other(loaded_.model);
    feed(loaded_.model, other, text_);
    text_seconds_ = without.seconds();
  }

  // A question, in the words of a chat, and the beginning of its answer.
  const Reading &ask(const std::string &question) {
    const ChatTemplate &chat = g1_template;
    std::vector<int32_t> prompt = text_;
    const std::vector<int32_t> end = loaded_.tokenizer.encode(std::string(chat.turn_end) + chat.user + " " + question +
                                                              chat.turn_end + chat.assistant);
    prompt.insert(prompt.end(), end.begin(), end.end());

    Reading reading;
    reading.name = question;
    wkv::Sampler sampler(sampling_);
    Clock clock;
    wkv::Cache cache(loaded_.model);
    reading.reused = store_.find(prompt, cache);
    reading.computed = prompt.size() - reading.reused;
    if (reading.reused < text_.size()) read_on(cache, reading.reused);  // the store had no room for it
    const size_t known = std::max(reading.reused, text_.size());
    wkv::GenerationOptions options;
    options.tokenizer = &loaded_.tokenizer;
    options.prompt_tokens.assign(prompt.begin() + static_cast<std::ptrdiff_t>(known), prompt.end());
    options.max_tokens = answer_tokens_;
    options.stop_strings = {chat.turn_end};
    wkv::Generation generation(cache, sampler, options);
    wkv::Piece piece;
    while (!interrupted() && generation.next(piece)) {
      if (reading.seconds == 0) reading.seconds = clock.seconds();
      reading.answer += piece.text;
    }
    questions_.push_back(reading);
    return questions_.back();
  }

  size_t text_tokens() const { return text_.size(); }
  const Reading &reading() const { return reading_; }
  const std::vector<Reading> &questions() const { return questions_; }
  Totals with_store() const {
    Totals totals = {reading_.computed, reading_.seconds};
    for (const Reading &question : questions_) {
      totals.tokens += question.computed;
      totals.seconds += question.seconds;
    }
    return totals;
  }
  // Every question reads the text before itself.
  Totals without_store() const {
    Totals totals;
    for (const Reading &question : questions_) {
      totals.tokens += question.reused + question.computed;
      totals.seconds += question.seconds + (question.reused > 0 ? text_seconds_ : 0);
    }
    return totals;
  }

 private:
  void read_on(wkv::Cache &cache, size_t known) {
    if (known >= text_.size()) return;
    feed(loaded_.model, cache, {text_.begin() + static_cast<std::ptrdiff_t>(known), text_.end()});
    if (interrupted()) throw wkv::Error(WKV_CANCELLED, "interrupted");
    store_.put(text_, cache);
  }

  Loaded &loaded_;
  wkv::PrefixStore &store_;
  wkv::SamplerOptions sampling_;
  int32_t answer_tokens_;
  std::vector<int32_t> text_;
  Reading reading_;
  std::vector<Reading> questions_;
  double text_seconds_ = 0;
};

// Numbers of one line, with a bar for its time.
void print_row(const std::string &name, const std::string &reused, size_t computed, double seconds, double longest,
               bool is_ascii) {
  constexpr size_t name_width = 42, bar_width = 18;
  std::printf("%s %8s %9s %8.1f ms  %s\n", fit(one_line(name, is_ascii), name_width, is_ascii).c_str(), reused.c_str(),
              human_count(computed).c_str(), seconds * 1000,
              bar(longest > 0 ? seconds / longest : 0, bar_width, is_ascii).c_str());
}

double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

void print_report(const Interview &interview, const wkv::PrefixStoreInfo &store, bool is_ascii) {
  double longest = interview.reading().seconds;
  for (const Reading &question : interview.questions()) longest = std::max(longest, question.seconds);
  std::printf("\n%-42s %8s %9s %11s\n", "", "reused", "computed", "first token");
  const Reading &text = interview.reading();
  print_row(text.name, human_count(text.reused), text.computed, text.seconds, longest, is_ascii);
  for (const Reading &question : interview.questions())
    print_row(question.name, human_count(question.reused), question.computed, question.seconds, longest, is_ascii);

  const Totals with = interview.with_store(), without = interview.without_store();
  longest = std::max(with.seconds, without.seconds);
  std::printf("\n");
  print_row("all, without the store", "", without.tokens, without.seconds, longest, is_ascii);
  print_row("all, with the store", "", with.tokens, with.seconds, longest, is_ascii);
  const double tokens = static_cast<double>(without.tokens) - static_cast<double>(with.tokens);
  const double seconds = without.seconds - with.seconds;
  std::printf("\nThe store saved %s tokens (%.0f %%) and %.2f s (%.0f %%).\n",
              human_count(static_cast<uint64_t>(std::max(tokens, 0.0))).c_str(),
              100 * share(tokens, static_cast<double>(without.tokens)), seconds, 100 * share(seconds, without.seconds));
  std::printf("It holds %s in memory", human_bytes(store.entries_bytes).c_str());
  if (store.stored_entries > 0)
    std::printf(" and %s in its directory%s", human_bytes(store.stored_bytes).c_str(),
                store.stored_hits > 0 ? ", from where the text came" : "");
  std::printf(".\n");
}

json to_json(const Reading &reading) {
  return {{"reused", reading.reused}, {"computed", reading.computed}, {"seconds", reading.seconds}};
}
json to_json(const Totals &totals) { return {{"tokens", totals.tokens}, {"seconds", totals.seconds}}; }

json to_json(const Interview &interview, const wkv::PrefixStoreInfo &store) {
  json questions = json::array();
  for (const Reading &question : interview.questions()) {
    questions.push_back(to_json(question));
    questions.back()["question"] = question.name;
    questions.back()["answer"] = question.answer;
  }
  return {{"text_tokens", interview.text_tokens()},
          {"text", to_json(interview.reading())},
          {"questions", questions},
          {"with_store", to_json(interview.with_store())},
          {"without_store", to_json(interview.without_store())},
          {"store",
           {{"entries", store.entries},
            {"entries_bytes", store.entries_bytes},
            {"stored_entries", store.stored_entries},
            {"stored_bytes", store.stored_bytes},
            {"finds", store.finds},
            {"hits", store.hits},
            {"stored_hits", store.stored_hits},
            {"reused_tokens", store.reused_tokens}}}};
}

std::vector<std::string> read_questions(const cxxopts::ParseResult &arguments) {
  if (!arguments.count("questions")) return long_tale_questions();
  std::istringstream text(read_text(arguments["questions"].as<std::string>()));
  std::vector<std::string> questions;
  for (std::string line; std::getline(text, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.find_first_not_of(" \t") != std::string::npos) questions.push_back(line);
  }
  if (questions.empty()) throw UsageError("there is no question in " + arguments["questions"].as<std::string>());
  return questions;
}

std::string read_document(const cxxopts::ParseResult &arguments) {
  std::string text =
      arguments.count("document") ? read_text(arguments["document"].as<std::string>()) : std::string(long_tale);
  text.erase(text.find_last_not_of(" \t\r\n") + 1);  // the blank line before a question belongs to the question
  if (text.empty()) throw UsageError("there is no text in " + arguments["document"].as<std::string>());
  return text;
}

int prefix(int argc, char **argv) {
  cxxopts::Options declared("prefix",
                            "Asks a long text ten questions, reading it once, and shows what that saves.\n\n"
                            "  prefix                                     a tale of 1,500 words is inside\n"
                            "  prefix --directory prefixes                the next start need not read it at all\n"
                            "  prefix -m rwkv7-g1-1.5b.gguf --document manual.txt --questions questions.txt\n");
  declared.custom_help("[options]");
  declared.add_options("Text")                                                                      //
      ("document", "the text; - is standard input", cxxopts::value<std::string>(), "PATH")          //
      ("questions", "a question a line", cxxopts::value<std::string>(), "PATH")                     //
      ("n,tokens", "tokens of an answer at most", cxxopts::value<int>()->default_value("24"), "N")  //
      ("directory", "keep what was read here too, for the next start", cxxopts::value<std::string>(), "PATH");
  declared.add_options("Output")("ascii", "draw bars with plain characters")("json", "print one JSON object");
  add_sampling_options(declared);
  add_model_options(declared);
  const auto parsed = parse(declared, argc, argv);
  if (!parsed) return exit_ok;
  const cxxopts::ParseResult &arguments = *parsed;
  const bool has_json = arguments.count("json") > 0, is_ascii = arguments.count("ascii") > 0;
  const int answer_tokens = arguments["tokens"].as<int>();
  if (answer_tokens < 1) throw UsageError("--tokens must be at least 1");
  const std::string text = read_document(arguments);
  const std::vector<std::string> questions = read_questions(arguments);

  watch_interrupt();
  Loaded loaded = load(arguments);
  wkv::PrefixStoreOptions options;
  const std::string directory = arguments.count("directory") ? arguments["directory"].as<std::string>() : "";
  if (arguments.count("directory")) options.directory = directory.c_str();
  wkv::PrefixStore store(loaded.model, options);
  const wkv::SamplerOptions sampling = sampler_options(arguments, loaded.tokenizer);
  Interview interview(loaded, store, sampling, answer_tokens, text);
  if (!has_json) {
    std::printf("%s (%s tokens)\n\n", fit(one_line(text.substr(0, text.find('\n')), is_ascii), 60, is_ascii).c_str(),
                human_count(interview.text_tokens()).c_str());
    std::fflush(stdout);
  }
  interview.read_text();
  for (const std::string &question : questions) {
    if (interrupted()) break;
    const Reading &reading = interview.ask(question);
    if (has_json) continue;
    std::printf("%s\n", one_line(reading.name, is_ascii).c_str());
    std::string answer = one_line(reading.answer, is_ascii);
    answer.erase(0, std::min(answer.find_first_not_of(' '), answer.size()));
    if (answer.empty()) answer = "(no answer)";
    for (const std::string &line : wrap(answer, 96)) std::printf("   %s\n", line.c_str());
    std::fflush(stdout);
  }
  if (has_json)
    print(to_json(interview, store.info()));
  else
    print_report(interview, store.info(), is_ascii);
  return interrupted() ? exit_interrupted : exit_ok;
}

}  // namespace

int main(int argc, char **argv) { return examples::run("prefix", argc, argv, prefix); }
