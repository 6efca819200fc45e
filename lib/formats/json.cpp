// SPDX-License-Identifier: Apache-2.0
#include "formats/json.h"

#include <algorithm>
#include <charconv>
#include <type_traits>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/bytes.h"

namespace libwkv::formats {

namespace {

constexpr size_t most_levels = 16;

// Growing arrays and objects moves what they hold.
static_assert(std::is_nothrow_move_constructible_v<JsonValue> && std::is_nothrow_move_assignable_v<JsonValue>);
static_assert(std::is_nothrow_move_constructible_v<JsonMember> && std::is_nothrow_move_assignable_v<JsonMember>);

// Receives the events of nlohmann's parser, which needs these names and signatures. What is thrown here passes through
// it: none of its functions on the way is noexcept, and all that it holds is in containers.
class Builder {
 public:
  explicit Builder(const std::string &name) : name_(name) {}

  JsonValue take() { return std::move(root_); }

  bool null() { return add({}); }
  bool boolean(bool value) { return add({value}); }
  // Only for numbers with a minus.
  bool number_integer(int64_t value) { return value ? add({value}) : add({-0.0}); }
  bool number_unsigned(uint64_t value) {
    return value <= INT64_MAX ? add({static_cast<int64_t>(value)}) : add({value});
  }
  bool number_float(double value, const std::string &) { return add({value}); }
  bool string(std::string &value) { return add({value}); }
  bool binary(nlohmann::json::binary_t &) { return false; }  // never in a text

  bool start_object(size_t) { return start({JsonObject()}); }
  bool key(std::string &key) {
    std::get<JsonObject>(open_.back()->held).push_back({key, {}});
    return true;
  }
  bool end_object() {
    JsonObject &object = std::get<JsonObject>(open_.back()->held);
    std::sort(object.begin(), object.end(), [](const JsonMember &a, const JsonMember &b) { return a.key < b.key; });
    auto twice = std::adjacent_find(object.begin(), object.end(),
                                    [](const JsonMember &a, const JsonMember &b) { return a.key == b.key; });
    if (twice != object.end())
      fail(WKV_FORMAT, "%s: key %s is there twice", name_.c_str(), printable(twice->key).c_str());
    open_.pop_back();
    return true;
  }
  bool start_array(size_t) { return start({JsonArray()}); }
  bool end_array() {
    open_.pop_back();
    return true;
  }

  bool parse_error(size_t, const std::string &, const nlohmann::json::exception &problem) {
    fail(WKV_FORMAT, "%s: bad JSON: %s", name_.c_str(), printable(problem.what()).c_str());
  }

 private:
  JsonValue &place(JsonValue value) {
    if (open_.empty()) return root_ = std::move(value);
    if (auto *array = std::get_if<JsonArray>(&open_.back()->held)) return array->emplace_back(std::move(value));
    return std::get<JsonObject>(open_.back()->held).back().value = std::move(value);
  }
  bool add(JsonValue value) {
    place(std::move(value));
    return true;
  }
  bool start(JsonValue value) {
    if (open_.size() == most_levels) fail(WKV_FORMAT, "%s: JSON nested more than %zu deep", name_.c_str(), most_levels);
    open_.push_back(&place(std::move(value)));
    return true;
  }

  const std::string &name_;
  JsonValue root_;
  std::vector<JsonValue *> open_;  // each the last one in the one before, which does not grow meanwhile
};

void append_quoted(std::string &out, const std::string &text) {
  out += '"';
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  out += '"';
}

void append_text(std::string &out, const JsonValue &value) {
  auto append = [&out](const auto &held) {
    using Kind = std::decay_t<decltype(held)>;
    if constexpr (std::is_same_v<Kind, std::monostate>) {
      out += "null";
    } else if constexpr (std::is_same_v<Kind, bool>) {
      out += held ? "true" : "false";
    } else if constexpr (std::is_arithmetic_v<Kind>) {
      char digits[40];
      out.append(digits, std::to_chars(digits, digits + sizeof digits, held).ptr);
    } else if constexpr (std::is_same_v<Kind, std::string>) {
      append_quoted(out, held);
    } else if constexpr (std::is_same_v<Kind, JsonArray>) {
      out += '[';
      for (const JsonValue &item : held) {
        if (&item != &held.front()) out += ',';
        append_text(out, item);
      }
      out += ']';
    } else {
      out += '{';
      for (const JsonMember &member : held) {
        if (&member != &held.front()) out += ',';
        append_quoted(out, member.key);
        out += ':';
        append_text(out, member.value);
      }
      out += '}';
    }
  };
  std::visit(append, value.held);
}

}  // namespace

JsonObject parse_json_object(std::string_view text, const std::string &name) {
  if (text.size() > longest_json)
    fail(WKV_UNSUPPORTED, "%s: %zu bytes of JSON, at most %zu are read", name.c_str(), text.size(), longest_json);
  Builder builder(name);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  JsonValue root = builder.take();
  auto *object = std::get_if<JsonObject>(&root.held);
  if (!object) fail(WKV_FORMAT, "%s: not a JSON object", name.c_str());
  return std::move(*object);
}

const JsonValue *find(const JsonObject &object, std::string_view key) {
  auto found = std::lower_bound(object.begin(), object.end(), key,
                                [](const JsonMember &member, std::string_view wanted) { return member.key < wanted; });
  if (found == object.end() || found->key != key || get_if<std::monostate>(found->value)) return nullptr;
  return &found->value;
}

std::optional<int64_t> as_integer(const JsonValue &value) {
  const int64_t *integer = get_if<int64_t>(value);
  return integer ? std::optional(*integer) : std::nullopt;
}

std::optional<double> as_number(const JsonValue &value) {
  if (const double *number = get_if<double>(value)) return *number;
  if (const int64_t *number = get_if<int64_t>(value)) return static_cast<double>(*number);
  if (const uint64_t *number = get_if<uint64_t>(value)) return static_cast<double>(*number);
  return {};
}

bool is_true(const JsonValue &value) {
  const bool *boolean = get_if<bool>(value);
  return boolean && *boolean;
}

bool is_text(const JsonValue &value, std::string_view text) {
  const std::string *held = get_if<std::string>(value);
  return held && *held == text;
}

std::string to_text(const JsonValue &value) {
  std::string out;
  append_text(out, value);
  return out;
}

}  // namespace libwkv::formats
