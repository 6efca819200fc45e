// SPDX-License-Identifier: Apache-2.0
#include "state/token_trie.h"

#include <algorithm>
#include <memory>
#include <vector>

namespace libwkv {

struct TokenTrie::Node {
  std::vector<int32_t> label;    // ids between the parent and here; none only at the root
  std::vector<Node *> children;  // rising first ids
  Node *parent = nullptr;
  void *value = nullptr;

  // The child that begins with an id, or where it would be.
  std::vector<Node *>::iterator child(int32_t id) {
    return std::lower_bound(children.begin(), children.end(), id,
                            [](const Node *node, int32_t first) { return node->label.front() < first; });
  }
};

// How far tokens go down the tree: to `node`, and from there `part` ids of the label of `next`. Where next is there,
// part is less than its label; it is at least 1, as a child is found by its first id.
struct TokenTrie::Match {
  Node *node;  // NULL: the tree is empty
  Node *next = nullptr;
  size_t part = 0;
  size_t length = 0;        // ids up to node
  void *longest = nullptr;  // the last value on the way
};

TokenTrie::Match TokenTrie::match(std::span<const int32_t> tokens) const noexcept {
  Match match{root_};
  if (!root_) return match;
  while (match.length < tokens.size()) {
    std::span<const int32_t> rest = tokens.subspan(match.length);
    auto place = match.node->child(rest.front());
    if (place == match.node->children.end() || (*place)->label.front() != rest.front()) break;
    const std::vector<int32_t> &label = (*place)->label;
    size_t part =
        static_cast<size_t>(std::mismatch(label.begin(), label.end(), rest.begin(), rest.end()).first - label.begin());
    if (part < label.size()) {
      match.next = *place;
      match.part = part;
      break;
    }
    match.node = *place;
    match.length += part;
    if (match.node->value) match.longest = match.node->value;
  }
  return match;
}

void *TokenTrie::find(std::span<const int32_t> tokens) const noexcept {
  Match found = match(tokens);
  return found.node && found.length == tokens.size() ? found.node->value : nullptr;
}

void *TokenTrie::find_longest(std::span<const int32_t> tokens) const noexcept { return match(tokens).longest; }

TokenTrie::Node *TokenTrie::insert(std::span<const int32_t> tokens, void *value) {
  if (!root_) root_ = new Node;
  Match found = match(tokens);
  std::span<const int32_t> rest = tokens.subspan(found.length);
  if (rest.empty()) {  // a branch, which has no value yet
    found.node->value = value;
    return found.node;
  }
  // All memory first, then the links.
  std::unique_ptr<Node> branch, leaf;
  std::span<const int32_t> tail = rest.subspan(found.part);
  if (!tail.empty()) {
    leaf = std::make_unique<Node>();
    leaf->label.assign(tail.begin(), tail.end());
    leaf->value = value;
  }
  if (found.next) {
    branch = std::make_unique<Node>();
    branch->label.assign(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(found.part));
    branch->children.reserve(2);
  } else {
    std::vector<Node *> &children = found.node->children;
    if (children.size() == children.capacity()) children.reserve(2 * children.size() + 1);
  }

  Node *parent = found.node;
  if (found.next) {
    *parent->child(rest.front()) = branch.get();
    branch->parent = parent;
    parent = branch.release();
    nodes_++;
    // the node below keeps its address, and a shorter label
    found.next->label.erase(found.next->label.begin(),
                            found.next->label.begin() + static_cast<std::ptrdiff_t>(found.part));
    found.next->label.shrink_to_fit();  // a wish: it does not throw
    found.next->parent = parent;
    parent->children.push_back(found.next);
  }
  if (!leaf) {
    parent->value = value;
    return parent;
  }
  leaf->parent = parent;
  Node *made = leaf.release();
  parent->children.insert(parent->child(made->label.front()), made);
  nodes_++;
  return made;
}

// A node that is neither a branch nor the end of a sequence goes; its only child takes its place.
void TokenTrie::join_with_child(Node *node) noexcept {
  Node *child = node->children.front();
  try {
    child->label.insert(child->label.begin(), node->label.begin(), node->label.end());
  } catch (...) {
    return;  // without memory for the longer label the tree is right as it is
  }
  *node->parent->child(node->label.front()) = child;
  child->parent = node->parent;
  delete node;
  nodes_--;
}

void TokenTrie::remove(Node *node) noexcept {
  node->value = nullptr;
  while (node != root_ && !node->value && node->children.empty()) {
    Node *parent = node->parent;
    parent->children.erase(parent->child(node->label.front()));
    delete node;
    nodes_--;
    node = parent;
  }
  if (node != root_ && !node->value && node->children.size() == 1) join_with_child(node);
}

// Without recursion: a chain may be as deep as sequences are long.
void TokenTrie::clear() noexcept {
  for (Node *node = root_; node;) {
    if (!node->children.empty()) {
      Node *child = node->children.back();
      node->children.pop_back();
      node = child;
    } else {
      Node *parent = node->parent;
      delete node;
      node = parent;
    }
  }
  root_ = nullptr;
  nodes_ = 0;
}

}  // namespace libwkv
