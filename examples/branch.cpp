// SPDX-License-Identifier: Apache-2.0
// branch: one prompt, many ways to go on. The prompt is read once; every continuation is a fork of its cache, all of
// them step together, and each may fork again.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "common/feed.h"
#include "common/options.h"
#include "common/svg.h"
#include "common/table.h"
#include "common/terminal.h"
#include "common/text_layout.h"

namespace {

using namespace examples;
using nlohmann::json;

constexpr size_t most_nodes = 1000;

struct Shape {
  size_t branches, depth, tokens;
};

// A piece of text in the tree; the root is the prompt.
struct Node {
  size_t parent = 0, depth = 0;
  std::vector<int32_t> tokens;
  double probability = 1;  // of its first token, under the raw scores
  bool has_ended = false;  // the model ended the text
  std::string text;
  std::vector<size_t> children;
};

struct Costs {
  size_t forks = 0;
  double fork_seconds = 0;
  uint64_t forked_bytes = 0;  // what memory grew by when forks were made
  uint64_t state_bytes = 0;
  uint64_t grown_bytes = 0;  // caches of all continuations, after they went their own ways
  size_t computed_tokens = 0, separate_tokens = 0;
  double seconds = 0;

  uint64_t copied_bytes() const { return forks * state_bytes; }
};

// exp(score) as a share of all of them.
double share_of(const std::vector<float> &logits, int32_t token) {
  const double highest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - highest);
  return std::exp(static_cast<double>(logits[static_cast<size_t>(token)]) - highest) / sum;
}

class Tree {
 public:
  Tree(Loaded &loaded, const wkv::SamplerOptions &sampling, const Shape &shape, const std::vector<int32_t> &prompt)
      : loaded_(loaded), sampling_(sampling), shape_(shape) {
    costs_.state_bytes = loaded.model.info().state_bytes;
    nodes_.push_back(Node());
    nodes_[0].tokens = prompt;
  }

  // Ends early after Ctrl-C, with what has grown by then.
  void grow() {
    Clock clock;
    plant();
    const size_t levels = shape_.depth;
    size_t total = 0;
    for (size_t level = 1, ends = shape_.branches; level <= levels; level++, ends *= shape_.branches)
      total += ends * shape_.tokens;
    ProgressBar bar("growing", ProgressBar::Unit::tokens);
    size_t done = 0;
    for (size_t level = 1; level <= levels && !ends_.empty() && !interrupted(); level++) {
      fork();
      for (size_t i = 0; i < shape_.tokens && !ends_.empty() && !interrupted(); i++) {
        choose(i == 0);
        // nobody asks for the scores after the last token of all
        if (level < levels || i + 1 < shape_.tokens) step();
        done += ends_.size();
        bar.update(std::min(done, total), total);
      }
    }
    costs_.grown_bytes = loaded_.model.memory().caches_bytes;
    costs_.seconds = clock.seconds();
    finish();
  }

  const std::vector<Node> &nodes() const { return nodes_; }
  const Costs &costs() const { return costs_; }

 private:
  // Where the tree grows on: caches_[i] and logits are those of the end of its node's text.
  struct End {
    size_t node;
    std::vector<float> logits;
    wkv::Sampler sampler;
  };

  void plant() {
    std::vector<int32_t> tokens = nodes_[0].tokens;
    const int32_t last = tokens.back();
    tokens.pop_back();
    caches_.emplace_back(loaded_.model);
    costs_.computed_tokens = feed(loaded_.model, caches_[0], tokens) + 1;
    if (interrupted()) return;
    ends_.push_back({0, caches_[0].step({last}), wkv::Sampler(sampling_)});
  }

  uint64_t caches_bytes() const { return loaded_.model.memory().caches_bytes; }

  // Every end becomes `branches` ends with the same state.
  void fork() {
    const uint64_t before = caches_bytes();
    Clock clock;
    std::vector<wkv::Cache> forks = wkv::Cache::repeat(caches_, shape_.branches);
    costs_.fork_seconds += clock.seconds();
    costs_.forked_bytes += caches_bytes() - before;
    costs_.forks += forks.size();
    std::vector<End> ends;
    for (const End &end : ends_) {
      for (size_t i = 0; i < shape_.branches; i++) {
        Node node;
        node.parent = end.node;
        node.depth = nodes_[end.node].depth + 1;
        nodes_[end.node].children.push_back(nodes_.size());
        wkv::SamplerOptions sampling = sampling_;
        sampling.seed += nodes_.size();
        wkv::Sampler sampler(sampling);
        for (size_t above = end.node; above != 0; above = nodes_[above].parent)
          for (const int32_t token : nodes_[above].tokens) sampler.accept(token);
        ends.push_back({nodes_.size(), end.logits, std::move(sampler)});
        nodes_.push_back(std::move(node));
      }
    }
    caches_ = std::move(forks);
    ends_ = std::move(ends);
  }

  // A token for every end. Siblings begin with different tokens: what one has taken leaves the race for the next.
  void choose(bool is_first) {
    for (size_t i = 0; i < ends_.size(); i++) {
      End &end = ends_[i];
      Node &node = nodes_[end.node];
      if (is_first) {
        const std::vector<float> raw = end.logits;
        for (size_t sibling = i - i % shape_.branches; sibling < i; sibling++)
          end.logits[static_cast<size_t>(nodes_[ends_[sibling].node].tokens[0])] =
              -std::numeric_limits<float>::infinity();
        node.tokens.push_back(end.sampler.sample(end.logits));
        node.probability = share_of(raw, node.tokens[0]);
      } else {
        node.tokens.push_back(end.sampler.sample(end.logits));
      }
    }
    for (size_t i = ends_.size(); i-- > 0;) {
      Node &node = nodes_[ends_[i].node];
      if (node.tokens.back() != 0) continue;
      node.has_ended = true;
      caches_.erase(caches_.begin() + static_cast<std::ptrdiff_t>(i));
      ends_.erase(ends_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

  // All ends in one call: the weights are read once for all of them.
  void step() {
    std::vector<wkv::StepItem> items(ends_.size());
    for (size_t i = 0; i < ends_.size(); i++) {
      items[i].cache = caches_[i].handle();
      items[i].tokens = &nodes_[ends_[i].node].tokens.back();
      items[i].tokens_count = 1;
      items[i].logits = ends_[i].logits.data();
      items[i].logits_count = ends_[i].logits.size();
    }
    loaded_.model.step(items);
    costs_.computed_tokens += items.size();
  }

  // Texts, once all tokens are there: a character that a fork split goes to the branch that ends it.
  void finish() {
    std::vector<std::string> held(nodes_.size());
    std::vector<size_t> lengths(nodes_.size());
    for (size_t i = 0; i < nodes_.size(); i++) {
      Node &node = nodes_[i];
      if (node.has_ended) node.tokens.pop_back();
      const std::string bytes = (i ? held[node.parent] : "") + loaded_.tokenizer.decode(node.tokens);
      const size_t whole = node.children.empty() ? bytes.size() : whole_characters(bytes);
      node.text = bytes.substr(0, whole);
      held[i] = bytes.substr(whole);
      lengths[i] = (i ? lengths[node.parent] : 0) + node.tokens.size();
      if (node.children.empty()) costs_.separate_tokens += lengths[i];
    }
  }

  Loaded &loaded_;
  wkv::SamplerOptions sampling_;
  Shape shape_;
  std::vector<Node> nodes_;
  std::vector<wkv::Cache> caches_;
  std::vector<End> ends_;
  Costs costs_;
};

std::string percent(double share) {
  char text[16];
  std::snprintf(text, sizeof text, share < 0.01 ? "<1 %%" : "%.0f %%", share * 100);
  return text;
}

std::string shown_text(const Node &node, bool is_ascii) {
  std::string text = one_line(node.text, is_ascii);
  text.erase(0, std::min(text.find_first_not_of(' '), text.size()));
  text.erase(text.find_last_not_of(' ') + 1);
  if (node.has_ended) text += is_ascii ? " [end]" : " ∎";
  return text;
}

// Draws the tree with box characters, as wide as the terminal.
class Drawing {
 public:
  Drawing(const std::vector<Node> &nodes, bool is_ascii, bool has_colour, size_t width)
      : nodes_(nodes), is_ascii_(is_ascii), has_colour_(has_colour), width_(width) {}

  void print() const {
    for (const std::string &line : wrap(shown_text(nodes_[0], is_ascii_), width_)) std::printf("%s\n", line.c_str());
    for (const size_t child : nodes_[0].children) draw(child, "");
  }

 private:
  std::string dim(const std::string &text) const { return has_colour_ ? "\x1b[2m" + text + "\x1b[0m" : text; }

  void draw(size_t index, const std::string &above) const {
    const Node &node = nodes_[index];
    const bool is_last = nodes_[node.parent].children.back() == index;
    const std::string label = percent(node.probability);
    const std::string corner = is_ascii_ ? (is_last ? "`-" : "|-") : (is_last ? "└─" : "├─");
    const std::string below = above + (is_last ? "   " : is_ascii_ ? "|  " : "│  ");
    const std::string stem = node.children.empty() ? " " : is_ascii_ ? "|" : "│";
    const size_t indent = display_width(below) + 6;
    const std::vector<std::string> lines =
        wrap(shown_text(node, is_ascii_), width_ > indent + 16 ? width_ - indent : 16);
    for (size_t i = 0; i < lines.size(); i++) {
      if (i == 0)
        std::printf("%s %s\n", dim(above + corner + std::string(6 - label.size(), ' ') + label).c_str(),
                    (" " + lines[i]).c_str());
      else
        std::printf("%s %s\n", dim(below + stem).c_str(), ("    " + lines[i]).c_str());
    }
    for (const size_t child : node.children) draw(child, below);
  }

  const std::vector<Node> &nodes_;
  bool is_ascii_, has_colour_;
  size_t width_;
};

void print_costs(const Costs &costs, bool is_ascii) {
  char seconds[64];
  std::snprintf(seconds, sizeof seconds, "%zu, made in %.1f %ss", costs.forks, costs.fork_seconds * 1e6,
                is_ascii ? "u" : "µ");
  print(Table{{"forks", seconds},
              {"memory", "+" + human_bytes(costs.forked_bytes) + " when they were made; full copies: +" +
                             human_bytes(costs.copied_bytes())},
              {"later", human_bytes(costs.grown_bytes) + " for all caches, since each went its own way"},
              {"tokens",
               human_count(costs.computed_tokens) + " computed; text by text: " + human_count(costs.separate_tokens)}});
}

json to_json(const std::vector<Node> &nodes, size_t index) {
  const Node &node = nodes[index];
  json object = {{"text", node.text}, {"tokens", node.tokens}};
  if (index) object["probability"] = node.probability;
  if (node.has_ended) object["has_ended"] = true;
  for (const size_t child : node.children) object["branches"].push_back(to_json(nodes, child));
  return object;
}

json to_json(const Costs &costs) {
  return {{"forks", costs.forks},
          {"fork_seconds", costs.fork_seconds},
          {"fork_bytes", costs.forked_bytes},
          {"full_copy_bytes", costs.copied_bytes()},
          {"state_bytes", costs.state_bytes},
          {"caches_bytes", costs.grown_bytes},
          {"computed_tokens", costs.computed_tokens},
          {"separate_tokens", costs.separate_tokens},
          {"seconds", costs.seconds}};
}

// The tree as a picture: one column a level, a branch of the prompt keeps its colour.
class Poster {
 public:
  Poster(const std::vector<Node> &nodes, const Costs &costs) : nodes_(nodes), costs_(costs), blocks_(nodes.size()) {
    size_t depth = 0;
    for (size_t i = nodes.size(); i-- > 0;) {
      Block &block = blocks_[i];
      block.lines = wrap(shown_text(nodes[i], false), columns);
      block.height = static_cast<double>(block.lines.size()) * line + 2 * padding;
      double below = 0;
      for (const size_t child : nodes[i].children) below += blocks_[child].room + gap;
      block.room = std::max(block.height, below - gap);
      depth = std::max(depth, nodes[i].depth);
    }
    width_ = 2 * margin + static_cast<double>(depth + 1) * box + static_cast<double>(depth) * lane;
    place(0, header);
  }

  std::string svg() const {
    Svg svg(width_, header + blocks_[0].room + footer);
    const size_t leaves = static_cast<size_t>(
        std::count_if(nodes_.begin(), nodes_.end(), [](const Node &node) { return node.children.empty(); }));
    svg.text(margin, 42, 22, "One prompt, " + std::to_string(leaves) + (leaves == 1 ? " way" : " ways") + " to go on",
             ink, Anchor::start, true);
    svg.text(margin, 64, 13, "Percentages: how likely the model finds a branch's first token", grey);
    for (size_t i = 1; i < nodes_.size(); i++) connect(svg, i);
    for (size_t i = 0; i < nodes_.size(); i++) draw(svg, i);
    svg.text(margin, header + blocks_[0].room + footer - 22, 13,
             std::to_string(costs_.forks) + " forks took " + human_bytes(costs_.forked_bytes) +
                 " when they were made, full copies would take " + human_bytes(costs_.copied_bytes()),
             grey);
    return svg.finish();
  }

 private:
  static constexpr double margin = 28, header = 92, footer = 58, box = 250, lane = 92, label_width = 48, line = 18,
                          padding = 11, gap = 14;
  static constexpr size_t columns = 29;
  static constexpr Colour ink{34, 34, 34}, grey{105, 105, 105}, white{255, 255, 255};
  // Okabe and Ito's colours, which colour-blind people can tell apart.
  static constexpr Colour palette[] = {{0, 114, 178},   {213, 94, 0},  {0, 158, 115},
                                       {204, 121, 167}, {230, 159, 0}, {86, 180, 233}};

  struct Block {
    std::vector<std::string> lines;
    double height = 0, room = 0, y = 0;  // room: with all that grows out of it
  };

  void place(size_t index, double top) {
    Block &block = blocks_[index];
    block.y = top + (block.room - block.height) / 2;
    double below = -gap;
    for (const size_t child : nodes_[index].children) below += blocks_[child].room + gap;
    double y = top + (block.room - below) / 2;
    for (const size_t child : nodes_[index].children) {
      place(child, y);
      y += blocks_[child].room + gap;
    }
  }

  Colour colour_of(size_t index) const {
    if (index == 0) return {68, 68, 68};
    while (nodes_[index].parent != 0) index = nodes_[index].parent;
    const std::vector<size_t> &first = nodes_[0].children;
    const size_t rank = static_cast<size_t>(std::find(first.begin(), first.end(), index) - first.begin());
    return palette[rank % std::size(palette)];
  }
  double x_of(size_t index) const { return margin + static_cast<double>(nodes_[index].depth) * (box + lane); }
  double middle_of(size_t index) const { return blocks_[index].y + blocks_[index].height / 2; }

  void connect(Svg &svg, size_t index) const {
    const Node &node = nodes_[index];
    svg.curve(x_of(node.parent) + box, middle_of(node.parent), x_of(index) - label_width, middle_of(index),
              colour_of(index), 1.2 + 4 * node.probability);
  }

  void draw(Svg &svg, size_t index) const {
    const Block &block = blocks_[index];
    const Colour colour = colour_of(index);
    const double x = x_of(index);
    svg.rect(x, block.y, box, block.height, blend(white, colour, 0.1), 9);
    svg.outline(x, block.y, box, block.height, colour, 1.4, 9);
    for (size_t i = 0; i < block.lines.size(); i++)
      svg.text(x + 13, block.y + padding + 13 + static_cast<double>(i) * line, 13, block.lines[i], ink);
    if (index == 0) return;
    svg.text(x - label_width / 2, middle_of(index) + 4.5, 12, percent(nodes_[index].probability),
             blend(colour, ink, 0.4), Anchor::middle, true);
  }

  const std::vector<Node> &nodes_;
  const Costs &costs_;
  std::vector<Block> blocks_;
  double width_ = 0;
};

size_t count_of(const cxxopts::ParseResult &arguments, const char *name) {
  const int value = arguments[name].as<int>();
  if (value < 1) throw UsageError(std::string("--") + name + " must be at least 1");
  return static_cast<size_t>(value);
}

Shape shape_of(const cxxopts::ParseResult &arguments) {
  const Shape shape = {count_of(arguments, "branches"), count_of(arguments, "depth"), count_of(arguments, "tokens")};
  size_t ends = 1, nodes = 0;
  for (size_t level = 0; level < shape.depth && nodes <= most_nodes; level++) nodes += ends *= shape.branches;
  if (nodes > most_nodes)
    throw UsageError("--branches " + std::to_string(shape.branches) + " --depth " + std::to_string(shape.depth) +
                     " makes more than " + std::to_string(most_nodes) + " texts");
  return shape;
}

int branch(int argc, char **argv) {
  cxxopts::Options declared("branch",
                            "Tells one beginning in several ways, and each of these in several: a tree of forks.\n\n"
                            "  branch \"Once upon a time\" --branches 3 --depth 2 --tokens 12\n"
                            "  branch -m rwkv7-g1-0.4b.gguf \"The best thing about\" --svg tree.svg\n");
  declared.positional_help("[PROMPT]");
  declared.custom_help("[options]");
  declared.add_options("Text")                                                                       //
      ("p,prompt", "where all texts begin", cxxopts::value<std::string>(), "TEXT")                   //
      ("f,prompt-file", "file with it; - is standard input", cxxopts::value<std::string>(), "PATH")  //
      ("b,branches", "forks at each end", cxxopts::value<int>()->default_value("3"), "N")            //
      ("d,depth", "how often the ends fork", cxxopts::value<int>()->default_value("2"), "N")         //
      ("n,tokens", "tokens from one fork to the next", cxxopts::value<int>()->default_value("12"), "N");
  declared.add_options("Output")                                                        //
      ("svg", "draw the tree as a picture too", cxxopts::value<std::string>(), "PATH")  //
      ("ascii", "draw with plain characters")("json", "print one JSON object instead");
  add_sampling_options(declared);
  add_model_options(declared);
  declared.parse_positional({"prompt"});
  const auto parsed = parse(declared, argc, argv);
  if (!parsed) return exit_ok;
  const cxxopts::ParseResult &arguments = *parsed;
  if (arguments.count("prompt") && arguments.count("prompt-file"))
    throw UsageError("give either a prompt or --prompt-file");
  const Shape shape = shape_of(arguments);
  const std::string prompt = arguments.count("prompt-file") ? read_text(arguments["prompt-file"].as<std::string>())
                             : arguments.count("prompt")    ? arguments["prompt"].as<std::string>()
                                                            : "Once upon a time";

  watch_interrupt();
  Loaded loaded = load(arguments);
  const wkv::SamplerOptions sampling = sampler_options(arguments, loaded.tokenizer);
  std::vector<int32_t> tokens = loaded.tokenizer.encode(prompt);
  if (tokens.empty()) tokens.push_back(0);  // for nothing at all it is the end of the text before
  Tree tree(loaded, sampling, shape, tokens);
  tree.grow();

  const bool is_ascii = arguments.count("ascii") > 0;
  if (arguments.count("json")) {
    json object = {{"tree", to_json(tree.nodes(), 0)}, {"costs", to_json(tree.costs())}, {"seed", sampling.seed}};
    print_line(object);
  } else {
    const int width = std::min(terminal_columns(STDOUT_FILENO), 110);
    Drawing(tree.nodes(), is_ascii, is_terminal(STDOUT_FILENO), static_cast<size_t>(std::max(width, 40))).print();
    std::printf("\n");
    print_costs(tree.costs(), is_ascii);
  }
  if (arguments.count("svg")) write_file(arguments["svg"].as<std::string>(), Poster(tree.nodes(), tree.costs()).svg());
  return interrupted() ? exit_interrupted : exit_ok;
}

}  // namespace

int main(int argc, char **argv) { return examples::run("branch", argc, argv, branch); }
