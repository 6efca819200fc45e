// SPDX-License-Identifier: Apache-2.0
#include "formats/vocabulary.h"

#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "base/error.h"
#include "formats/bytes.h"
#include "formats/python_literal.h"

namespace libwkv::formats {

namespace {

[[noreturn]] void fail_line(const std::string &name, size_t line, const char *what) {
  fail(WKV_FORMAT, "%s: line %zu: %s", name.c_str(), line, what);
}

// Digits alone.
bool read_number(std::string_view text, int64_t &value) {
  if (text.empty() || text.front() == '-') return false;
  auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  return problem == std::errc() && end == text.data() + text.size();
}

VocabularyToken read_line(std::string_view line, const std::string &name, size_t number) {
  size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) fail_line(name, number, "not of the form: id, literal, length");
  int64_t id = 0, length = 0;
  if (!read_number(line.substr(0, first), id) || id > largest_token_id)
    fail_line(name, number, "the id is no number or too large");
  if (id == 0) fail_line(name, number, "id 0 is the end of text and has no token");
  if (!read_number(line.substr(last + 1), length)) fail_line(name, number, "the length is no number");
  VocabularyToken token{static_cast<int32_t>(id), {}};
  if (const char *problem = read_python_literal(line.substr(first + 1, last - first - 1), token.bytes))
    fail_line(name, number, problem);
  if (token.bytes.empty()) fail_line(name, number, "an empty token");
  if (token.bytes.size() > longest_token) fail_line(name, number, "a token that is too long");
  if (static_cast<int64_t>(token.bytes.size()) != length)
    fail(WKV_FORMAT, "%s: line %zu: the token has %zu bytes, its length field says %lld", name.c_str(), number,
         token.bytes.size(), static_cast<long long>(length));
  return token;
}

}  // namespace

std::vector<VocabularyToken> parse_vocabulary(std::string_view content, const std::string &name) {
  if (content.starts_with("\xef\xbb\xbf")) content.remove_prefix(3);
  std::vector<VocabularyToken> tokens;
  std::vector<size_t> lines;  // of each token, for messages
  for (size_t number = 1; !content.empty(); number++) {
    size_t end = std::min(content.find('\n'), content.size());
    std::string_view line = content.substr(0, end);
    content.remove_prefix(std::min(end + 1, content.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    // Ids must differ, so more lines than ids are wrong whatever they hold.
    if (tokens.size() > static_cast<size_t>(largest_token_id)) fail_line(name, number, "more tokens than ids");
    tokens.push_back(read_line(line, name, number));
    lines.push_back(number);
  }
  if (tokens.empty()) fail(WKV_FORMAT, "%s: no tokens", name.c_str());

  std::vector<uint32_t> line_of_id(static_cast<size_t>(largest_token_id) + 1);
  std::unordered_map<std::string_view, size_t> line_of_token;
  line_of_token.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); i++) {
    uint32_t &seen = line_of_id[static_cast<size_t>(tokens[i].id)];
    if (seen) fail(WKV_FORMAT, "%s: line %zu: id %d is in line %u as well", name.c_str(), lines[i], tokens[i].id, seen);
    seen = static_cast<uint32_t>(lines[i]);
    auto [found, is_new] = line_of_token.emplace(tokens[i].bytes, lines[i]);
    if (!is_new)
      fail(WKV_FORMAT, "%s: line %zu: the token is in line %zu as well", name.c_str(), lines[i], found->second);
  }
  std::sort(tokens.begin(), tokens.end(), [](const auto &a, const auto &b) { return a.id < b.id; });
  return tokens;
}

std::vector<VocabularyToken> load_vocabulary(const std::string &path) {
  constexpr size_t longest_file = size_t{64} << 20;  // the World vocabulary has 1.1 MB
  std::shared_ptr<const Mapping> file = Mapping::open(path);
  if (file->bytes().size() > longest_file)
    fail(WKV_UNSUPPORTED, "%s: a vocabulary of %zu bytes", path.c_str(), file->bytes().size());
  return parse_vocabulary(text_of(file->bytes()), path);
}

}  // namespace libwkv::formats
