// SPDX-License-Identifier: Apache-2.0
// convert: any checkpoint in, one GGUF file out. Never needed to run a model; makes one small file to ship.
#include <cstdio>
#include <filesystem>

#include "common/options.h"
#include "common/terminal.h"

namespace {

using namespace examples;

int convert(int argc, char **argv) {
  cxxopts::Options declared("convert",
                            "Rewrites a checkpoint of any format as one GGUF file, vocabulary included.\n\n"
                            "  convert rwkv7-g1-0.4b.pth g1-q8.gguf --type q8 --vocab rwkv_vocab_v20230424.txt\n");
  declared.positional_help("SOURCE TARGET");
  declared.custom_help("[options]");
  declared.add_options("Conversion")                                                                        //
      ("source", "checkpoint file or directory", cxxopts::value<std::string>(), "PATH")                     //
      ("target", "GGUF file to write; an existing one is replaced", cxxopts::value<std::string>(), "PATH")  //
      ("type", "type of the large matrices: f32, f16, bf16 or q8", cxxopts::value<std::string>()->default_value("f16"),
       "TYPE")  //
      ("vocab", "RWKV vocabulary file to put inside; without it, the source's own", cxxopts::value<std::string>(),
       "PATH")  //
      ("name", "name of the model, kept in the file", cxxopts::value<std::string>(), "TEXT");
  declared.parse_positional({"source", "target"});
  const auto arguments = parse(declared, argc, argv);
  if (!arguments) return exit_ok;
  if (!arguments->count("source") || !arguments->count("target")) throw UsageError("name a source and a target");

  const std::string source = (*arguments)["source"].as<std::string>(),
                    target = (*arguments)["target"].as<std::string>();
  const std::string vocab = arguments->count("vocab") ? (*arguments)["vocab"].as<std::string>() : "";
  const std::string name = arguments->count("name") ? (*arguments)["name"].as<std::string>() : "";
  wkv::ConvertOptions options;
  options.weight_type = parse_type((*arguments)["type"].as<std::string>());
  if (arguments->count("vocab")) options.vocabulary_path = vocab.c_str();
  if (arguments->count("name")) options.name = name.c_str();

  watch_interrupt();
  Clock clock;
  {
    ProgressBar bar("writing", ProgressBar::Unit::bytes);
    wkv::convert(source, target, options, bar.callback());
  }
  std::printf("%s: %s in %.1f s\n", target.c_str(), human_bytes(std::filesystem::file_size(target)).c_str(),
              clock.seconds());
  return exit_ok;
}

}  // namespace

int main(int argc, char **argv) { return examples::run("convert", argc, argv, convert); }
