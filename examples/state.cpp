// SPDX-License-Identifier: Apache-2.0
// state: looks into files that hold the state of a sequence, compares, converts and draws them, and makes new ones.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "common/feed.h"
#include "common/options.h"
#include "common/picture.h"
#include "common/table.h"
#include "common/terminal.h"
#include "common/text_layout.h"

namespace {

using namespace examples;
using nlohmann::json;

using Paths = std::vector<std::string>;

double norm(wkv::View<float> values) {
  double sum = 0;
  for (size_t i = 0; i < values.size(); i++) sum += static_cast<double>(values.data()[i]) * values.data()[i];
  return std::sqrt(sum);
}

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", value < 10 ? 2 : value < 100 ? 1 : 0, value);
  return text;
}

const char *const part_names[] = {"att shift", "ffn shift", "WKV"};

struct LayerNorms {
  double att_shift, ffn_shift, wkv;
  std::vector<double> heads;
};

std::vector<LayerNorms> norms_of(const wkv::Cache &cache, const wkv::ModelInfo &model) {
  const size_t head_floats = static_cast<size_t>(model.head_size) * static_cast<size_t>(model.head_size);
  std::vector<LayerNorms> all;
  for (int32_t layer = 0; layer < model.layers; layer++) {
    const std::vector<float> wkv = cache.read_state(layer, WKV_STATE_WKV);
    LayerNorms norms = {norm(cache.read_state(layer, WKV_STATE_ATT_SHIFT)),
                        norm(cache.read_state(layer, WKV_STATE_FFN_SHIFT)),
                        norm(wkv),
                        {}};
    for (size_t at = 0; at < wkv.size(); at += head_floats) norms.heads.push_back(norm({&wkv[at], head_floats}));
    all.push_back(std::move(norms));
  }
  return all;
}

// Values of the three parts, layer by layer, each with a bar; a full bar is the highest value of its column, or
// `full`, if that is not 0.
void print_layers(const std::vector<std::vector<double>> &columns, const char *format, double full, bool is_ascii) {
  constexpr size_t bar_width = 12;
  std::printf("  layer  %-22s  %-22s  %s\n", part_names[0], part_names[1], part_names[2]);
  std::vector<double> highest;
  for (const std::vector<double> &column : columns)
    highest.push_back(full > 0 ? full : *std::max_element(column.begin(), column.end()));
  for (size_t layer = 0; layer < columns[0].size(); layer++) {
    std::printf("  %5zu", layer);
    for (size_t i = 0; i < columns.size(); i++) {
      const double value = columns[i][layer];
      const std::string drawn = bar(highest[i] > 0 ? value / highest[i] : 0, bar_width, is_ascii);
      char number[32];
      std::snprintf(number, sizeof number, format, value);
      const int rest = i + 1 < columns.size() ? static_cast<int>(bar_width - display_width(drawn)) : 0;
      std::printf("  %9s%s%s%*s", number, drawn.empty() && rest == 0 ? "" : " ", drawn.c_str(), rest, "");
    }
    std::printf("\n");
  }
}

// ---- show

json to_json(const std::string &path, const wkv::BlobInfo &info) {
  return {{"file", path},
          {"format_version", info.format_version},
          {"bytes", info.bytes},
          {"state_type", type_name(info.state_type)},
          {"fingerprint", hexadecimal(info.fingerprint)},
          {"layers", info.layers},
          {"width", info.width},
          {"heads", info.heads},
          {"head_size", info.head_size},
          {"vocab_size", info.vocab_size},
          {"position", info.position},
          {"last_tokens", std::vector<int32_t>(info.last_tokens, info.last_tokens + info.last_tokens_count)},
          {"has_sampler", info.has_sampler == 1},
          {"has_generation", info.has_generation == 1},
          {"has_logits", info.has_logits == 1},
          {"has_tokens", info.has_tokens == 1}};
}

Table describe(const std::string &path, const wkv::BlobInfo &info) {
  const auto number = [](auto value) { return std::to_string(value); };
  std::string holds = "a state", last;
  if (info.has_sampler) holds += ", a sampler";
  if (info.has_generation) holds += ", a generation";
  if (info.has_logits) holds += ", scores";
  if (info.has_tokens) holds += ", all token ids";
  for (int32_t i = 0; i < info.last_tokens_count; i++) last += (i ? " " : "") + number(info.last_tokens[i]);
  return {{path, ""},
          {"format", "version " + number(info.format_version) + ", " + human_bytes(info.bytes) + ", " +
                         (info.state_type == WKV_TYPE_F16 ? "F16" : "F32")},
          {"model", number(info.layers) + " layers of width " + number(info.width) + ", " + number(info.heads) +
                        " heads of " + number(info.head_size) + ", " + number(info.vocab_size) + " ids"},
          {"fingerprint", hexadecimal(info.fingerprint)},
          {"position", human_count(info.position) + (info.position == 1 ? " token read" : " tokens read")},
          {"last ids", last.empty() ? "not known" : last},
          {"holds", holds}};
}

int show(const cxxopts::ParseResult &arguments, const Paths &paths) {
  const bool has_json = arguments.count("json") > 0, is_ascii = arguments.count("ascii") > 0;
  const wkv::BlobInfo info = wkv::Cache::read_header(paths[0]);
  json object = to_json(paths[0], info);
  Table table = describe(paths[0], info);
  // The header needs no model. What is in the state is shown too when the model is at hand.
  const wkv::Model model = load_model(arguments);
  const wkv::ModelInfo shape = model.info();
  const bool is_at_hand = arguments.count("model") || shape.fingerprint == info.fingerprint;
  std::vector<LayerNorms> norms;
  if (is_at_hand) {
    const wkv::Cache cache = wkv::Cache::load(model, paths[0]);
    norms = norms_of(cache, shape);
    const wkv::BadPart bad = cache.check();
    const std::string numbers =
        bad.layer < 0 ? "all finite" : "not finite in layer " + std::to_string(bad.layer) + ", " + part_names[bad.part];
    table.push_back({"numbers", numbers});
    object["is_finite"] = bad.layer < 0;
    if (shape.has_tokenizer && info.last_tokens_count > 0) {
      const std::vector<int32_t> last(info.last_tokens, info.last_tokens + info.last_tokens_count);
      object["last_text"] = model.tokenizer().decode(last);
      table.insert(table.end() - 2, {"last text", one_line(model.tokenizer().decode(last), is_ascii)});
    }
    for (const LayerNorms &layer : norms)
      object["norms"].push_back(
          {{"att_shift", layer.att_shift}, {"ffn_shift", layer.ffn_shift}, {"wkv", layer.wkv}, {"heads", layer.heads}});
  }
  if (has_json) {
    print(object);
    return exit_ok;
  }
  print(table);
  if (!is_at_hand) {
    std::printf("\nName its model with --model to see more.\n");
    return exit_ok;
  }
  std::vector<std::vector<double>> columns(3);
  for (const LayerNorms &layer : norms) {
    columns[0].push_back(layer.att_shift);
    columns[1].push_back(layer.ffn_shift);
    columns[2].push_back(layer.wkv);
  }
  std::printf("\nNorms\n");
  print_layers(columns, "%.3f", 0, is_ascii);
  return exit_ok;
}

// ---- compare

// How far apart two parts are, as a share of the larger one: 0 for equal ones, 2 for opposite ones.
double distance(const std::vector<float> &a, const std::vector<float> &b) {
  std::vector<float> difference(a.size());
  for (size_t i = 0; i < a.size(); i++) difference[i] = a[i] - b[i];
  const double larger = std::max(norm(a), norm(b));
  return larger > 0 ? norm(difference) / larger : 0;
}

int compare(const cxxopts::ParseResult &arguments, const Paths &paths) {
  const bool is_ascii = arguments.count("ascii") > 0;
  const wkv::Model model = load_model(arguments);
  const wkv::Cache a = wkv::Cache::load(model, paths[0]), b = wkv::Cache::load(model, paths[1]);
  std::vector<std::vector<double>> columns(3);
  for (int32_t layer = 0; layer < model.info().layers; layer++)
    for (const wkv_state_part part : {WKV_STATE_ATT_SHIFT, WKV_STATE_FFN_SHIFT, WKV_STATE_WKV})
      columns[static_cast<size_t>(part)].push_back(distance(a.read_state(layer, part), b.read_state(layer, part)));
  const std::vector<float> all_a = a.export_state(WKV_LAYOUT_OFFICIAL), all_b = b.export_state(WKV_LAYOUT_OFFICIAL);
  const double whole = distance(all_a, all_b);
  const bool is_same = std::memcmp(all_a.data(), all_b.data(), all_a.size() * sizeof(float)) == 0;
  const uint64_t position_a = a.info().position, position_b = b.info().position;
  if (arguments.count("json")) {
    json object = {{"positions", {position_a, position_b}}, {"distance", whole}, {"is_same", is_same}};
    for (size_t layer = 0; layer < columns[0].size(); layer++)
      object["layers"].push_back(
          {{"att_shift", columns[0][layer]}, {"ffn_shift", columns[1][layer]}, {"wkv", columns[2][layer]}});
    print(object);
    return exit_ok;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", whole);
  print(Table{{"Distances, as a share of the larger norm", ""},
              {paths[0], human_count(position_a) + " tokens"},
              {paths[1], human_count(position_b) + " tokens"},
              {"whole state", is_same ? "the same to the bit" : text}});
  std::printf("\n");
  print_layers(columns, "%.3g", 1, is_ascii);
  return exit_ok;
}

// ---- convert

wkv_state_layout parse_layout(const std::string &name) {
  struct LayoutName {
    const char *name;
    wkv_state_layout layout;
  };
  constexpr LayoutName names[] = {{"official", WKV_LAYOUT_OFFICIAL},
                                  {"fla", WKV_LAYOUT_FLA},
                                  {"rwkv.cpp", WKV_LAYOUT_RWKV_CPP},
                                  {"llama.cpp", WKV_LAYOUT_LLAMA_CPP}};
  for (const LayoutName &entry : names)
    if (name == entry.name) return entry.layout;
  throw UsageError("unknown layout '" + name + "'; one of official, fla, rwkv.cpp, llama.cpp");
}

wkv_type parse_state_type(const std::string &name) {
  if (name == "f32") return WKV_TYPE_F32;
  if (name == "f16") return WKV_TYPE_F16;
  throw UsageError("unknown state type '" + name + "'; one of f32, f16");
}

std::string little_endian(const std::vector<float> &values) {
  std::string bytes;
  bytes.reserve(values.size() * 4);
  for (const float value : values) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(bits >> shift);
  }
  return bytes;
}

void print_written(const std::string &path, const std::string &what) {
  std::printf("%s: %s, %s\n", path.c_str(), what.c_str(), human_bytes(std::filesystem::file_size(path)).c_str());
}

int convert(const cxxopts::ParseResult &arguments, const Paths &paths) {
  if (arguments.count("layout") && arguments.count("type")) throw UsageError("give either --type or --layout");
  if (arguments.count("layout")) {
    const std::string name = arguments["layout"].as<std::string>();
    const wkv_state_layout layout = parse_layout(name);
    const std::vector<float> values = wkv::Cache::load(load_model(arguments), paths[0]).export_state(layout);
    write_file(paths[1], little_endian(values));
    print_written(paths[1], human_count(values.size()) + " numbers, float32 in the layout of " + name);
    return exit_ok;
  }
  const wkv_type type = parse_state_type(arguments["type"].as<std::string>());
  const wkv::Model model = load_model(arguments);
  // As a session, so that a sampler, a generation and scores go along.
  const wkv::Session session = wkv::Session::load(model, paths[0]);
  wkv::SessionParts parts;
  parts.cache = &session.cache;
  if (session.sampler) parts.sampler = &*session.sampler;
  if (session.generation) parts.generation = &*session.generation;
  parts.logits = session.logits;
  parts.save(paths[1], type);
  print_written(paths[1], type == WKV_TYPE_F16 ? "F16" : "F32");
  return exit_ok;
}

// ---- make

int make(const cxxopts::ParseResult &arguments, const Paths &paths) {
  const wkv_type type = parse_state_type(arguments["type"].as<std::string>());
  const bool has_file = arguments.count("prompt-file") > 0;
  const std::string prompt = has_file ? read_text(arguments["prompt-file"].as<std::string>()) : paths[0];
  const Loaded loaded = load(arguments);
  wkv::Cache cache(loaded.model);
  feed(loaded.model, cache, loaded.tokenizer.encode(prompt));
  if (interrupted()) throw wkv::Error(WKV_CANCELLED, "interrupted");
  cache.save(paths.back(), type);
  print_written(paths.back(), human_count(cache.info().position) + " tokens read");
  return exit_ok;
}

// ---- map

// Rows of numbers as coloured cells, with a colour bar of their own.
class Panel {
 public:
  static constexpr Colour ink{34, 34, 34}, grey{105, 105, 105}, white{255, 255, 255};
  static constexpr double bar_gap = 18, bar_width = 13, bar_room = 78;

  Panel(std::string title, std::vector<std::vector<double>> rows, std::vector<std::string> columns, double cell_width,
        double cell_height)
      : title_(std::move(title)),
        rows_(std::move(rows)),
        columns_(std::move(columns)),
        cell_width_(cell_width),
        cell_height_(cell_height) {
    low_ = high_ = rows_[0][0];
    for (const std::vector<double> &row : rows_)
      for (const double value : row) {
        low_ = std::min(low_, value);
        high_ = std::max(high_, value);
      }
  }

  double cells_width() const { return static_cast<double>(columns_.size()) * cell_width_; }
  double height() const { return static_cast<double>(rows_.size()) * cell_height_; }

  void draw(Picture &picture, double left, double top, const std::string &axis) const {
    picture.text(left, top - 14, 13, title_, ink, Anchor::start, true);
    for (size_t row = 0; row < rows_.size(); row++)
      for (size_t column = 0; column < columns_.size(); column++)
        draw_cell(picture, left + static_cast<double>(column) * cell_width_,
                  top + static_cast<double>(row) * cell_height_, rows_[row][column]);
    size_t longest = 1;
    for (const std::string &name : columns_) longest = std::max(longest, name.size());
    const double room = 7.5 * static_cast<double>(longest) + 6;
    const size_t stride = static_cast<size_t>(std::ceil(room / cell_width_));
    for (size_t column = 0; column < columns_.size(); column += stride)
      picture.text(left + (static_cast<double>(column) + 0.5) * cell_width_, top + height() + 17, 12, columns_[column],
                   grey, Anchor::middle);
    picture.text(left + cells_width() / 2, top + height() + 37, 12, axis, ink, Anchor::middle);
    draw_bar(picture, left + cells_width() + bar_gap, top);
  }

 private:
  double share_of(double value) const { return high_ > low_ ? (value - low_) / (high_ - low_) : 0; }

  void draw_cell(Picture &picture, double x, double y, double value) const {
    const Colour colour = std::isfinite(value) ? viridis(share_of(value)) : Colour{200, 30, 30};
    const bool has_gaps = cell_width_ >= 20 && cell_height_ >= 20;
    picture.rect(x, y, cell_width_ - has_gaps, cell_height_ - has_gaps, colour);
    if (cell_width_ < 40 || cell_height_ < 18) return;
    const double light = 0.299 * colour.red + 0.587 * colour.green + 0.114 * colour.blue;
    picture.text(x + cell_width_ / 2, y + cell_height_ / 2 + 4, 11, short_number(value), light > 140 ? ink : white,
                 Anchor::middle);
  }

  void draw_bar(Picture &picture, double x, double top) const {
    constexpr int steps = 64;
    for (int i = 0; i < steps; i++) {
      const double y = top + height() * i / steps;
      picture.rect(x, y, bar_width, height() / steps + (i + 1 < steps ? 0.5 : 0), viridis(1 - (i + 0.5) / steps));
    }
    constexpr int ticks = 4;
    for (int i = 0; i <= ticks; i++) {
      const double share = static_cast<double>(i) / ticks, y = top + height() * (1 - share);
      picture.rect(x + bar_width, y - 0.5, 4, 1, grey);
      picture.text(x + bar_width + 8, y + 4, 11, short_number(low_ + (high_ - low_) * share), grey);
    }
  }

  std::string title_;
  std::vector<std::vector<double>> rows_;
  std::vector<std::string> columns_;
  double cell_width_, cell_height_, low_, high_;
};

Picture draw_map(const std::string &name, uint64_t position, const std::vector<LayerNorms> &norms) {
  const size_t layers = norms.size(), heads = norms[0].heads.size();
  const double cell_height = std::clamp(480 / static_cast<double>(layers), 12.0, 30.0);
  const double cell_width = std::clamp(620 / static_cast<double>(heads), 11.0, 56.0);
  std::vector<std::vector<double>> wkv, shifts;
  std::vector<std::string> numbers;
  for (const LayerNorms &layer : norms) {
    wkv.push_back(layer.heads);
    shifts.push_back({layer.att_shift, layer.ffn_shift});
  }
  for (size_t head = 0; head < heads; head++) numbers.push_back(std::to_string(head));
  const Panel heads_panel("WKV, norm of each head", wkv, numbers, cell_width, cell_height);
  const Panel shifts_panel("Shifts, norms", shifts, {"att", "ffn"}, 52, cell_height);

  constexpr double margin = 30, axis = 46, top = 126, bottom = 62, between = 40;
  const double left = margin + axis;
  // a title of one line has to fit as well
  const double first_room = std::max(heads_panel.cells_width() + Panel::bar_gap + Panel::bar_room, 190.0);
  const double second = left + first_room + between;
  const double width = second + shifts_panel.cells_width() + Panel::bar_gap + Panel::bar_room + margin;
  Picture picture(width, top + heads_panel.height() + bottom);
  const size_t fitting = static_cast<size_t>((width - 2 * margin) / 11.5);
  picture.text(margin, 44, 19, fit("State in " + name, std::min(fitting, name.size() + 9), true), Panel::ink,
               Anchor::start, true);
  picture.text(margin, 68, 13,
               human_count(position) + (position == 1 ? " token" : " tokens") + " read, " + std::to_string(layers) +
                   " layers of " + std::to_string(heads) + " heads",
               Panel::grey);
  picture.text(left - 12, top - 14, 12, "layer", Panel::ink, Anchor::end);
  for (size_t layer = 0; layer < layers; layer++)
    picture.text(left - 12, top + (static_cast<double>(layer) + 0.5) * cell_height + 4, cell_height < 15 ? 10 : 12,
                 std::to_string(layer), Panel::grey, Anchor::end);
  heads_panel.draw(picture, left, top, "head");
  shifts_panel.draw(picture, second, top, "token shift");
  return picture;
}

int map(const cxxopts::ParseResult &arguments, const Paths &paths) {
  if (!arguments.count("svg") && !arguments.count("png"))
    throw UsageError("name a picture to write: --svg FILE, --png FILE or both");
  const wkv::Model model = load_model(arguments);
  const wkv::Cache cache = wkv::Cache::load(model, paths[0]);
  const Picture picture = draw_map(std::filesystem::path(paths[0]).filename().string(), cache.info().position,
                                   norms_of(cache, model.info()));
  if (arguments.count("svg")) {
    write_file(arguments["svg"].as<std::string>(), picture.svg());
    print_written(arguments["svg"].as<std::string>(), "SVG");
  }
  if (arguments.count("png")) {
    write_file(arguments["png"].as<std::string>(), picture.png(2));
    print_written(arguments["png"].as<std::string>(), "PNG");
  }
  return exit_ok;
}

struct Command {
  const char *name, *paths;
  size_t paths_count;
  int (*run)(const cxxopts::ParseResult &, const Paths &);
};
constexpr Command commands[] = {{"show", "FILE", 1, show},
                                {"compare", "FILE FILE", 2, compare},
                                {"convert", "FILE TARGET", 2, convert},
                                {"make", "PROMPT TARGET", 2, make},
                                {"map", "FILE", 1, map}};

int state(int argc, char **argv) {
  cxxopts::Options declared("state",
                            "Looks into files that hold the state of a sequence, and makes them.\n\n"
                            "  state make \"Once upon a time\" a.wkv       read a text, keep what is remembered of it\n"
                            "  state show a.wkv                         what is in it, and norms layer by layer\n"
                            "  state compare a.wkv b.wkv                how far apart, layer by layer\n"
                            "  state convert a.wkv half.wkv --type f16  half the size\n"
                            "  state convert a.wkv a.bin --layout fla   raw float32 for another engine\n"
                            "  state map a.wkv --svg a.svg --png a.png  a heat map of norms by layer and head\n");
  declared.positional_help("COMMAND FILE...");
  declared.custom_help("[options]");
  declared.add_options("State")                                                                            //
      ("command", "show, compare, convert, make or map", cxxopts::value<std::string>(), "NAME")            //
      ("paths", "files, and for make the text first", cxxopts::value<std::vector<std::string>>(), "FILE")  //
      ("f,prompt-file", "make: file with the text; - is standard input", cxxopts::value<std::string>(), "PATH");
  declared.add_options("Conversion")  //
      ("type", "convert, make: numbers of the state, f32 or f16", cxxopts::value<std::string>()->default_value("f32"),
       "TYPE")  //
      ("layout", "convert: official, fla, rwkv.cpp or llama.cpp", cxxopts::value<std::string>(), "NAME");
  declared.add_options("Output")                                                   //
      ("svg", "map: the picture to write", cxxopts::value<std::string>(), "PATH")  //
      ("png", "map: the same as pixels", cxxopts::value<std::string>(), "PATH")    //
      ("ascii", "draw bars with plain characters")("json", "show, compare: print one JSON object");
  add_model_options(declared);
  declared.parse_positional({"command", "paths"});
  const auto arguments = parse(declared, argc, argv);
  if (!arguments) return exit_ok;
  if (!arguments->count("command")) throw UsageError("name a command: show, compare, convert, make or map");
  const std::string name = (*arguments)["command"].as<std::string>();
  const Paths paths = arguments->count("paths") ? (*arguments)["paths"].as<Paths>() : Paths();
  for (const Command &command : commands) {
    if (name != command.name) continue;
    const bool has_prompt_file = command.run == make && arguments->count("prompt-file");
    if (paths.size() != command.paths_count - has_prompt_file)
      throw UsageError(name + " wants " + (has_prompt_file ? "TARGET" : command.paths));
    watch_interrupt();
    return command.run(*arguments, paths);
  }
  throw UsageError("unknown command '" + name + "'; one of show, compare, convert, make, map");
}

}  // namespace

int main(int argc, char **argv) { return examples::run("state", argc, argv, state); }
