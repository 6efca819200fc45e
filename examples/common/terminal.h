// SPDX-License-Identifier: Apache-2.0
// What the examples share towards the person in front of them: exit codes, one-line errors, Ctrl-C, progress bars.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include <wkv/wkv.hpp>

namespace examples {

enum ExitCode { exit_ok = 0, exit_failure = 1, exit_usage = 2, exit_interrupted = 130 };

// A mistake in how a program was called: one line on stderr and exit_usage.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Runs body(argc, argv) and turns every exception into one line on stderr and an exit code.
int run(const char *program, int argc, char **argv, int (*body)(int, char **));

// From now on a first Ctrl-C only makes interrupted() true; a second one ends the program.
void watch_interrupt();
bool interrupted();
void clear_interrupt();

// A file, or standard input for "-".
std::string read_text(const std::string &path);

bool is_terminal(int descriptor);
// Columns of the terminal behind a descriptor; 80 when there is none.
int terminal_columns(int descriptor);

class Clock {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// "8.5 MB"; decimal units.
std::string human_bytes(uint64_t bytes);
// "12,345".
std::string human_count(uint64_t count);

// A bar on stderr, drawn when stderr is a terminal and the work takes longer than a moment; erased at the end.
class ProgressBar {
 public:
  enum class Unit { bytes, tokens };
  ProgressBar(std::string label, Unit unit);
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar &) = delete;
  ProgressBar &operator=(const ProgressBar &) = delete;

  void update(uint64_t done, uint64_t total);
  void finish();
  // For loads and conversions: draws, and cancels on Ctrl-C.
  wkv::Progress callback();

 private:
  std::string label_;
  Unit unit_;
  bool is_shown_, is_drawn_ = false;
  Clock clock_;
  double last_drawn_ = 0;
};

}  // namespace examples
