// SPDX-License-Identifier: Apache-2.0
// Options that several examples have: which model, where it runs, how tokens are chosen.
#pragma once

// A value with a comma is one value; repeat an option to give several.
#define CXXOPTS_VECTOR_DELIMITER '\0'
// <regex> takes most of the compile time and warns in instrumented builds; cxxopts does as well without.
#define CXXOPTS_NO_REGEX
#include <cxxopts.hpp>

#include <optional>
#include <string>

#include <wkv/wkv.hpp>

namespace examples {

// Parses; for --help prints and gives nothing. Arguments that no option takes are a usage error.
std::optional<cxxopts::ParseResult> parse(cxxopts::Options &options, int argc, char **argv);

void add_model_options(cxxopts::Options &options);
void add_sampling_options(cxxopts::Options &options);

// A model and the vocabulary to use with it.
struct Loaded {
  wkv::Model model;
  wkv::Tokenizer tokenizer;
  bool is_embedded;
  double load_seconds;
};

// Loads what the options say, the embedded story model by default, with a progress bar.
wkv::Model load_model(const cxxopts::ParseResult &arguments);
Loaded load(const cxxopts::ParseResult &arguments);

// Fills sampler options. `seed` is chosen by chance when not given.
wkv::SamplerOptions sampler_options(const cxxopts::ParseResult &arguments, const wkv::Tokenizer &tokenizer);

wkv_type parse_type(const std::string &name);
const char *type_name(wkv_type type);

// "\n", "\t" and "\\" become what they stand for.
std::string unescape(const std::string &text);

}  // namespace examples
