// SPDX-License-Identifier: Apache-2.0
// info: what is in a checkpoint, and what running it takes.
#include <cstdio>
#include <string>

#include <nlohmann/json.hpp>

#include "common/options.h"
#include "common/table.h"
#include "common/terminal.h"

namespace {

using namespace examples;
using nlohmann::json;

std::string human_parameters(uint64_t count) {
  char text[32];
  const double value = static_cast<double>(count);
  if (value >= 1e9)
    std::snprintf(text, sizeof text, "%.2f billion", value / 1e9);
  else
    std::snprintf(text, sizeof text, "%.2f million", value / 1e6);
  return text;
}

Table describe(const std::string &source, const wkv::Model &model, double load_seconds) {
  const wkv::ModelInfo info = model.info();
  const wkv::MemoryInfo memory = model.memory();
  const auto number = [](auto value) { return std::to_string(value); };
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%.3f s", load_seconds);
  Table table = {
      {source, ""},
      {"format", info.format},
      {"parameters", human_parameters(info.parameters)},
      {"layers", number(info.layers)},
      {"width", number(info.width)},
      {"heads", number(info.heads) + " of " + number(info.head_size)},
      {"channel mix", number(info.ffn_width)},
      {"low ranks", "decay " + number(info.rank_w) + ", rate " + number(info.rank_a) + ", value " +
                        number(info.rank_v) + ", gate " + number(info.rank_g)},
      {"vocabulary", number(info.vocab_size) + (info.has_tokenizer ? " ids, inside" : " ids, not in the file")},
      {"stored as", info.stored_types},
      {"fingerprint", hexadecimal(info.fingerprint)},
  };
  if (info.has_tokenizer) {
    const wkv::TokenizerInfo tokens = model.tokenizer().info();
    table.push_back({"tokens", number(tokens.tokens) + ", the longest has " + number(tokens.longest_bytes) + " bytes"});
  }
  const Table running = {
      {"Running it here", ""},
      {"device", info.device},
      {"kernels",
       std::string(info.kernels) + ", " + number(info.threads) + (info.threads == 1 ? " thread" : " threads")},
      {"computed from", info.compute_types},
      {"load time", seconds},
      {"weights",
       human_bytes(info.weight_bytes) + ", " + human_bytes(info.mapped_bytes) + " of them in the mapped file"},
      {"read a token", human_bytes(info.step_bytes)},
      {"one cache", human_bytes(info.state_bytes) + ", whatever the length of the text"},
      {"memory now", human_bytes(memory.total_bytes) + ", " + human_bytes(memory.total_peak_bytes) + " at most so far"},
  };
  table.insert(table.end(), running.begin(), running.end());
  return table;
}

json to_json(const std::string &source, const wkv::Model &model, double load_seconds) {
  const wkv::ModelInfo info = model.info();
  const wkv::MemoryInfo memory = model.memory();
  json object = {{"source", source},
                 {"format", info.format},
                 {"parameters", info.parameters},
                 {"layers", info.layers},
                 {"width", info.width},
                 {"heads", info.heads},
                 {"head_size", info.head_size},
                 {"ffn_width", info.ffn_width},
                 {"rank_w", info.rank_w},
                 {"rank_a", info.rank_a},
                 {"rank_v", info.rank_v},
                 {"rank_g", info.rank_g},
                 {"vocab_size", info.vocab_size},
                 {"has_tokenizer", info.has_tokenizer == 1},
                 {"stored_types", info.stored_types},
                 {"compute_types", info.compute_types},
                 {"fingerprint", hexadecimal(info.fingerprint)},
                 {"device", info.device},
                 {"kernels", info.kernels},
                 {"threads", info.threads},
                 {"weight_bytes", info.weight_bytes},
                 {"mapped_bytes", info.mapped_bytes},
                 {"step_bytes", info.step_bytes},
                 {"state_bytes", info.state_bytes},
                 {"memory_bytes", memory.total_bytes},
                 {"memory_peak_bytes", memory.total_peak_bytes},
                 {"load_seconds", load_seconds}};
  if (info.has_tokenizer) object["tokens"] = model.tokenizer().info().tokens;
  return object;
}

Table describe_devices() {
  Table table;
  for (const wkv::DeviceInfo &device : wkv::devices()) {
    table.push_back({std::string(device.name) + (device.is_usable ? "" : ", not usable"), ""});
    if (device.description[0]) {  // else there is nothing to describe
      table.push_back({"processor", device.description});
      table.push_back({"cores", std::to_string(device.cores)});
      table.push_back({"memory", human_bytes(device.memory_bytes)});
      table.push_back({"kernels", device.kernels[0] ? device.kernels : "none"});
    }
    if (!device.is_usable) table.push_back({"why not", device.unusable_reason});
  }
  return table;
}

json devices_json() {
  json list = json::array();
  for (const wkv::DeviceInfo &device : wkv::devices())
    list.push_back({{"name", device.name},
                    {"description", device.description},
                    {"is_usable", device.is_usable == 1},
                    {"unusable_reason", device.unusable_reason},
                    {"kernels", device.kernels},
                    {"memory_bytes", device.memory_bytes},
                    {"cores", device.cores}});
  return {{"version", wkv_version()}, {"devices", list}};
}

int info(int argc, char **argv) {
  cxxopts::Options declared("info",
                            "Shows what is in a checkpoint and what running it takes.\n\n"
                            "  info rwkv7-g1-0.4b.pth\n"
                            "  info model-folder --weight-type q8 --json\n"
                            "  info --devices\n");
  declared.positional_help("[PATH]");
  declared.custom_help("[options]");
  declared.add_options("Output")("json", "print one JSON object")("devices", "show where models can run instead");
  add_model_options(declared);
  declared.parse_positional({"model"});
  const auto arguments = parse(declared, argc, argv);
  if (!arguments) return exit_ok;
  const bool has_json = arguments->count("json") > 0;
  if (arguments->count("devices")) {
    has_json ? print(devices_json()) : print(describe_devices());
    return exit_ok;
  }
  watch_interrupt();
  Clock clock;
  const wkv::Model model = load_model(*arguments);
  const double seconds = clock.seconds();
  const std::string source =
      arguments->count("model") ? (*arguments)["model"].as<std::string>() : "the built-in story model";
  has_json ? print(to_json(source, model, seconds)) : print(describe(source, model, seconds));
  return exit_ok;
}

}  // namespace

int main(int argc, char **argv) { return examples::run("info", argc, argv, info); }
