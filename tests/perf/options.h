// SPDX-License-Identifier: Apache-2.0
// What the benchmark is asked to measure.
#pragma once

#include <string>
#include <vector>

#include <wkv/model.h>

namespace libwkv::perf {

struct Options {
  std::string model;   // a checkpoint; or
  std::string random;  // the name of a shape
  wkv_type type = WKV_TYPE_F16;
  std::vector<double> zeros;  // default 0
  std::vector<int> threads;   // default 1, 2
  std::string device;         // empty: the CPU, measured as a CPU is
  wkv_type state_type = WKV_TYPE_DEFAULT;
  std::string kernels;
  bool is_reproducible = false;
  int chunk_tokens = 0;
  int decode_tokens = 32;
  std::vector<int> prefill;
  std::vector<int> batch;
  int repeat = 5;
  int roof_mib = 512;
  bool file_load = false;
  bool neighbour = false;
  bool json = false;
  // with a device
  struct Packed {
    int prompts, tokens;
  };
  std::vector<Packed> packed;
  int generate_tokens = 0;
  bool states = false;
  double loop_seconds = 0.15;
  std::string load_child;  // internal: load this file in a process of its own and report
};

// Prints help or what is wrong and leaves the process when there is nothing to measure.
Options parse_options(int argc, char **argv);

// ", 88 % zeros"; nothing for no zeros: what tells rows of several shares apart.
std::string zeros_suffix(double share);

}  // namespace libwkv::perf
