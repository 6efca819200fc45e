// SPDX-License-Identifier: Apache-2.0
#include "common/terminal.h"

#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include <sys/ioctl.h>
#include <unistd.h>

#include "common/options.h"

namespace examples {
namespace {

volatile std::sig_atomic_t interrupt_seen = 0;

void note_interrupt(int) { interrupt_seen = 1; }

}  // namespace

int run(const char *program, int argc, char **argv, int (*body)(int, char **)) {
  try {
    return body(argc, argv);
  } catch (const wkv::Error &error) {
    if (error.status() == WKV_CANCELLED && interrupted()) {
      std::fprintf(stderr, "%s: interrupted\n", program);
      return exit_interrupted;
    }
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return exit_failure;
  } catch (const UsageError &error) {
    std::fprintf(stderr, "%s: %s (see --help)\n", program, error.what());
    return exit_usage;
  } catch (const cxxopts::exceptions::exception &error) {
    std::fprintf(stderr, "%s: %s (see --help)\n", program, error.what());
    return exit_usage;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return exit_failure;
  }
}

void watch_interrupt() {
  struct sigaction action {};
  action.sa_handler = note_interrupt;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
}

bool interrupted() { return interrupt_seen != 0; }

void clear_interrupt() {
  interrupt_seen = 0;
  watch_interrupt();
}

std::string read_text(const std::string &path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file || file.bad()) throw std::runtime_error("cannot read " + path);
  return text;
}

bool is_terminal(int descriptor) { return isatty(descriptor) == 1; }

int terminal_columns(int descriptor) {
  winsize size{};
  return ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string human_bytes(uint64_t bytes) {
  static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < std::size(units)) {
    value /= 1000;
    unit++;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 || value >= 99.95 ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return text;
}

std::string human_count(uint64_t count) {
  std::string digits = std::to_string(count);
  for (size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

ProgressBar::ProgressBar(std::string label, Unit unit)
    : label_(std::move(label)), unit_(unit), is_shown_(is_terminal(STDERR_FILENO)) {}

void ProgressBar::update(uint64_t done, uint64_t total) {
  const double now = clock_.seconds();
  if (!is_shown_ || total == 0 || now < 0.3 || now - last_drawn_ < 0.1) return;
  last_drawn_ = now;
  is_drawn_ = true;
  const double share = static_cast<double>(done) / static_cast<double>(total);
  const double rate = static_cast<double>(done) / now;
  const double left = rate > 0 ? static_cast<double>(total - done) / rate : 0;
  char tail[96];
  if (unit_ == Unit::bytes)
    std::snprintf(tail, sizeof tail, " %3.0f %%  %s of %s  %.0f s left", share * 100, human_bytes(done).c_str(),
                  human_bytes(total).c_str(), left);
  else
    std::snprintf(tail, sizeof tail, " %3.0f %%  %s of %s tokens  %.0f/s  %.0f s left", share * 100,
                  human_count(done).c_str(), human_count(total).c_str(), rate, left);
  const int room =
      terminal_columns(STDERR_FILENO) - static_cast<int>(label_.size() + std::char_traits<char>::length(tail)) - 4;
  std::string bar;
  if (room >= 8) {
    const int width = room < 40 ? room : 40, full = static_cast<int>(share * width);
    bar =
        " [" + std::string(static_cast<size_t>(full), '#') + std::string(static_cast<size_t>(width - full), '.') + "]";
  }
  std::fprintf(stderr, "\r%s%s%s\x1b[K", label_.c_str(), bar.c_str(), tail);
  std::fflush(stderr);
}

void ProgressBar::finish() {
  if (is_drawn_) std::fprintf(stderr, "\r\x1b[K");
  is_drawn_ = false;
}

wkv::Progress ProgressBar::callback() {
  return [this](uint64_t done, uint64_t total) {
    update(done, total);
    return !interrupted();
  };
}

}  // namespace examples
