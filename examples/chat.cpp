// SPDX-License-Identifier: Apache-2.0
// chat: a conversation with a model. One cache is the history. An answer is written straight into it and stays as the
// model chose it, without the words that ended it; one with thinking is written by a fork, and the history reads it
// without the thinking. A session file keeps history and sampler, so that the conversation goes on another day.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <string>

#include <unistd.h>

#include "common/chat_template.h"
#include "common/feed.h"
#include "common/options.h"
#include "common/terminal.h"

namespace {

using namespace examples;

// A message as the template wants it: no blank lines, which would end the turn, and no blanks around it.
std::string normalise(const std::string &message) {
  std::string text;
  for (char c : message) {
    if (c == '\r') continue;
    if (c == '\n' && !text.empty() && text.back() == '\n') continue;
    text += c;
  }
  const char *blanks = " \t\n";
  const size_t first = text.find_first_not_of(blanks);
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(blanks) + 1 - first);
}

// Shows an answer while it arrives, its thinking dimmed, and keeps the part that belongs into the history.
class Answer {
 public:
  // An opening that began to think has shown nothing yet: its text counts as part of the answer.
  Answer(const ChatTemplate &chat, const char *opening, bool has_colour)
      : think_end_(chat.think_end), is_thinking_(*opening != 0), has_colour_(has_colour) {
    if (is_thinking_) push(opening + 1);
  }

  void push(std::string_view text) {
    written_ += text;
    held_ += text;
    if (is_thinking_) {
      const size_t end = held_.find(think_end_);
      // what might be the beginning of the end waits for the rest
      const size_t certain = end != std::string::npos ? end + think_end_.size()
                                                      : held_.size() - std::min(held_.size(), think_end_.size() - 1);
      thinking_ += held_.substr(0, certain);
      show_thinking(false);
      held_.erase(0, certain);
      if (end == std::string::npos) return;
      is_thinking_ = false;
      show_thinking(true);
    }
    if (text_.empty()) held_.erase(0, std::min(held_.find_first_not_of(" \n"), held_.size()));
    print(held_);
    text_ += held_;
    held_.clear();
  }

  // Puts out what is still held and gives the answer for the history.
  std::string finish() {
    if (is_thinking_) {
      thinking_ += held_;
      show_thinking(true);
    }
    print("\n");
    return normalise(text_);
  }

  // Everything that was written, as it came.
  const std::string &written() const { return written_; }

 private:
  // A template that closes the thinking at once has nothing to show.
  void show_thinking(bool is_last) {
    const bool is_empty = thinking_.find_first_not_of("<think>/ \n") == std::string::npos;
    if (is_empty && !is_thinking_dim_) return;
    if (has_colour_ && !is_thinking_dim_) print("\x1b[2m");
    is_thinking_dim_ = true;
    print(thinking_.substr(shown_));
    shown_ = thinking_.size();
    if (is_last) print(has_colour_ ? "\x1b[0m\n" : "\n");
  }
  static void print(const std::string &text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  std::string think_end_, written_, held_, thinking_, text_;
  size_t shown_ = 0;
  bool is_thinking_, is_thinking_dim_ = false, has_colour_;
};

const ThinkMode &find_mode(const ChatTemplate &chat, const std::string &name) {
  std::string known;
  for (const ThinkMode *mode = chat.modes; mode->name; mode++) {
    if (name == mode->name) return *mode;
    known += (known.empty() ? "" : ", ") + std::string(mode->name);
  }
  throw UsageError("unknown think mode '" + name + "'; one of " + known);
}

struct TurnStats {
  size_t read_tokens = 0;
  int64_t written_tokens = 0;
  double read_seconds = 0, write_seconds = 0;
};

// History and sampler, which are all of a conversation.
class Conversation {
 public:
  Conversation(Loaded &loaded, const wkv::SamplerOptions &sampling, const ChatTemplate &chat, std::string system,
               int32_t max_tokens)
      : loaded_(loaded),
        sampling_(sampling),
        chat_(chat),
        system_(normalise(system)),
        max_tokens_(max_tokens),
        history_(loaded.model),
        sampler_(sampling) {}

  void begin() {
    history_.reset();
    sampler_ = wkv::Sampler(sampling_);
    if (!system_.empty()) read(history_, std::string(chat_.system) + " " + system_ + chat_.turn_end);
    if (interrupted()) throw wkv::Error(WKV_CANCELLED, "interrupted");
  }

  // Goes on where a saved conversation was, with its sampling options. A state without a sampler takes this one's.
  void load(const std::string &path) {
    wkv::Session session = wkv::Session::load(loaded_.model, path, &loaded_.tokenizer);
    if (session.generation) throw std::runtime_error(path + " is in the middle of a text and no conversation");
    history_ = std::move(session.cache);
    if (session.sampler) sampler_ = std::move(*session.sampler);
  }
  void save(const std::string &path) {
    wkv::SessionParts parts;
    parts.cache = &history_;
    parts.sampler = &sampler_;
    parts.save(path);
  }

  // One turn: shows the answer while it is written. False when Ctrl-C ended it; what was shown then is the answer.
  bool turn(const std::string &message, const ThinkMode &mode, bool has_colour) {
    stats_ = TurnStats();
    const wkv::Cache before = history_.copy();
    read(history_, std::string(chat_.user) + " " + message + mode.message_suffix + chat_.turn_end);
    if (interrupted()) {
      history_.assign(before);  // half a message is no message
      return false;
    }
    const wkv::Cache asked = history_.copy();
    Written answer = write(mode, has_colour);
    const bool is_whole = !interrupted();
    clear_interrupt();  // what follows happens after Ctrl-C too: the history must be what was seen
    if (answer.is_as_wanted) {
      const std::vector<int32_t> end = loaded_.tokenizer.encode(chat_.turn_end);
      answer.unread.insert(answer.unread.end(), end.begin(), end.end());
      read(history_, answer.unread);
    } else {
      history_.assign(asked);
      read(history_, std::string(chat_.assistant) + (answer.text.empty() ? "" : " ") + answer.text + chat_.turn_end);
    }
    return is_whole;
  }

  const TurnStats &stats() const { return stats_; }
  uint64_t position() const { return history_.info().position; }

 private:
  void read(wkv::Cache &cache, const std::string &text) { read(cache, loaded_.tokenizer.encode(text)); }
  void read(wkv::Cache &cache, const std::vector<int32_t> &tokens) {
    Clock clock;
    stats_.read_tokens += feed(loaded_.model, cache, tokens);
    stats_.read_seconds += clock.seconds();
  }

  struct Written {
    std::string text;             // the answer as the template wants it
    bool is_as_wanted;            // the history has read just that, but for ...
    std::vector<int32_t> unread;  // ... these tokens at its end
  };

  // Writes an answer into the history.
  Written write(const ThinkMode &mode, bool has_colour) {
    wkv::GenerationOptions options;
    options.tokenizer = &loaded_.tokenizer;
    options.prompt = std::string(chat_.assistant) + mode.opening;
    options.max_tokens = max_tokens_;
    options.stop_strings = {std::string(chat_.turn_end) + chat_.user, std::string(chat_.turn_end) + chat_.system};
    wkv::Generation generation(history_, sampler_, options);
    Answer answer(chat_, mode.opening, has_colour);
    wkv::Piece piece;
    std::vector<int32_t> unread;
    Clock clock;
    while (!interrupted() && piece.reason == WKV_REASON_NONE && generation.next(piece)) {
      answer.push(piece.text);
      stats_.written_tokens = piece.tokens_generated;
      if (piece.reason == WKV_REASON_MAX_TOKENS) unread = {piece.pending_token};
      if (piece.reason == WKV_REASON_STOP_STRING) unread = loaded_.tokenizer.encode(piece.unread_text);
    }
    stats_.write_seconds = clock.seconds();
    const std::string text = answer.finish();
    const bool is_ended = piece.reason != WKV_REASON_NONE;  // after Ctrl-C text may be held back
    return {text, is_ended && !*mode.opening && answer.written() == " " + text, unread};
  }

  Loaded &loaded_;
  wkv::SamplerOptions sampling_;
  const ChatTemplate &chat_;
  std::string system_;
  int32_t max_tokens_;
  wkv::Cache history_;
  wkv::Sampler sampler_;
  TurnStats stats_;
};

// Where a conversation is kept. A save that fails does not end the conversation, but its program's success.
class SessionFile {
 public:
  explicit SessionFile(std::string path) : path_(std::move(path)) {}

  void open(Conversation &conversation) {
    if (!path_.empty() && std::filesystem::exists(path_)) {
      conversation.load(path_);
      std::fprintf(stderr, "%s goes on: %llu tokens remembered\n", path_.c_str(),
                   static_cast<unsigned long long>(conversation.position()));
      return;
    }
    conversation.begin();
    if (!path_.empty()) conversation.save(path_);  // a place that cannot be written is reported before the first word
  }
  void save(Conversation &conversation) {
    if (path_.empty()) return;
    try {
      conversation.save(path_);
      is_saved_ = true;
    } catch (const wkv::Error &error) {
      std::fprintf(stderr, "chat: not saved: %s\n", error.what());
      is_saved_ = false;
    }
  }
  ExitCode exit_code() const { return is_saved_ ? exit_ok : exit_failure; }

 private:
  std::string path_;
  bool is_saved_ = true;
};

void print(const TurnStats &stats, uint64_t position, const wkv::Model &model) {
  const auto rate = [](double count, double seconds) { return seconds > 0 ? count / seconds : 0; };
  std::printf("read %zu tokens at %.0f tokens/s, wrote %lld at %.1f tokens/s; history of %llu tokens in %s\n",
              stats.read_tokens, rate(static_cast<double>(stats.read_tokens), stats.read_seconds),
              static_cast<long long>(stats.written_tokens),
              rate(static_cast<double>(stats.written_tokens), stats.write_seconds),
              static_cast<unsigned long long>(position), human_bytes(model.info().state_bytes).c_str());
}

constexpr const char *commands_help =
    "/reset         forget the conversation\n"
    "/stats         speed of the last turn, length of the history\n"
    "/think MODE    off, fast, on, short or long\n"
    "/help          this\n"
    "/quit          end, as Ctrl-D does; Ctrl-C ends an answer\n"
    "A line that ends with \\ goes on in the next.\n";

// A message of one or more lines; false at the end of the input.
bool read_message(bool is_interactive, std::string *message) {
  message->clear();
  for (const char *prompt = "> ";; prompt = ". ") {
    if (is_interactive) {
      std::fputs(prompt, stdout);
      std::fflush(stdout);
    }
    std::string line;
    if (!std::getline(std::cin, line)) return !message->empty();
    const bool goes_on = !line.empty() && line.back() == '\\';
    if (goes_on) line.pop_back();
    *message += line;
    if (!goes_on) return true;
    *message += '\n';
  }
}

int chat(int argc, char **argv) {
  cxxopts::Options declared("chat",
                            "Talks with a model; type /help inside for its commands.\n\n"
                            "  chat -m rwkv7-g1-1.5b.pth --vocab rwkv_vocab_v20230424.txt --think on\n"
                            "  chat -m model.gguf --session monday.wkv          goes on when it is started again\n"
                            "  echo \"Where is Paris?\" | chat -m model.gguf --system \"Answer briefly.\"\n");
  declared.custom_help("[options]");
  declared.add_options("Chat")  //
      ("session",
       "keep the conversation in this file, and go on with the one that is there, with the system text and"
       " sampling options that it began with",
       cxxopts::value<std::string>(), "PATH")                                                          //
      ("system", "instructions read before the first message", cxxopts::value<std::string>(), "TEXT")  //
      ("think", "thinking before an answer: off, fast, on, short or long",
       cxxopts::value<std::string>()->default_value("off"), "MODE")  //
      ("n,max-tokens", "tokens of one answer at most", cxxopts::value<int>()->default_value("1000"), "N");
  add_sampling_options(declared);
  add_model_options(declared);
  const auto arguments = parse(declared, argc, argv);
  if (!arguments) return exit_ok;
  const ChatTemplate &style = g1_template;
  const ThinkMode *mode = &find_mode(style, (*arguments)["think"].as<std::string>());
  const int max_tokens = (*arguments)["max-tokens"].as<int>();
  if (max_tokens < 1) throw UsageError("--max-tokens must be at least 1");

  watch_interrupt();
  Loaded loaded = load(*arguments);
  Conversation conversation(loaded, sampler_options(*arguments, loaded.tokenizer), style,
                            arguments->count("system") ? (*arguments)["system"].as<std::string>() : "", max_tokens);
  SessionFile session(arguments->count("session") ? (*arguments)["session"].as<std::string>() : "");
  const bool is_interactive = is_terminal(STDIN_FILENO), has_colour = is_terminal(STDOUT_FILENO);
  if (is_interactive)
    std::printf("%s/help lists commands, Ctrl-D ends.\n",
                loaded.is_embedded ? "The built-in model only knows tales; name a chat model with --model.\n" : "");
  std::fflush(stdout);
  session.open(conversation);
  std::string message;
  while (true) {
    clear_interrupt();
    if (is_interactive) std::signal(SIGINT, SIG_DFL);  // at the prompt Ctrl-C ends the program
    const bool has_message = read_message(is_interactive, &message);
    watch_interrupt();
    if (!has_message) break;
    message = normalise(message);
    if (message.empty()) continue;
    if (message == "/quit") return session.exit_code();
    if (message == "/help") {
      std::fputs(commands_help, stdout);
    } else if (message == "/reset") {
      conversation.begin();
      session.save(conversation);
      std::puts("The conversation is forgotten.");
    } else if (message == "/stats") {
      print(conversation.stats(), conversation.position(), loaded.model);
    } else if (message.rfind("/think ", 0) == 0) {
      try {
        mode = &find_mode(style, message.substr(7));
      } catch (const UsageError &error) {
        std::puts(error.what());
      }
    } else if (message[0] == '/') {
      std::printf("unknown command %s; /help lists them\n", message.c_str());
    } else {
      const bool is_whole = conversation.turn(message, *mode, has_colour);
      session.save(conversation);  // now, so that whatever ends the program at the prompt loses nothing
      if (!is_whole && !is_interactive) return exit_interrupted;
    }
    std::fflush(stdout);
  }
  if (is_interactive) std::printf("\n");
  return session.exit_code();
}

}  // namespace

int main(int argc, char **argv) { return examples::run("chat", argc, argv, chat); }
