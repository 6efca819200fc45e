// SPDX-License-Identifier: Apache-2.0
#include "report.h"

#include <algorithm>
#include <cstdio>
#include <string_view>

namespace libwkv::perf {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text,
                value >= 1000  ? "%.0f"
                : value >= 100 ? "%.1f"
                : value >= 1   ? "%.2f"
                               : "%.3f",
                value);
  return text;
}

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f %%", share * 100);
  return text;
}

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Row &Report::row(const std::string &what, int threads) {
  auto [found, is_new] = rows_.try_emplace({what, threads});
  if (is_new) {
    order_.emplace_back(what, threads);
    found->second.what = what;
    found->second.threads = threads;
  }
  return found->second;
}

void Report::print_table() const {
  std::vector<std::vector<std::string>> lines = {
      {"what", "threads", "median", "unit", "lowest", "highest", "a token", "rate", "of the roof", "beside"}};
  for (const auto &key : order_) {
    const Row &row = rows_.at(key);
    double middle = median(row.values);
    std::vector<std::string> line = {row.what,
                                     row.threads ? std::to_string(row.threads) : "",
                                     number(middle),
                                     row.unit,
                                     number(*std::min_element(row.values.begin(), row.values.end())),
                                     number(*std::max_element(row.values.begin(), row.values.end()))};
    if (!row.work_unit) {
      line.insert(line.end(), {"", "", row.shares.empty() ? "" : percent(median(row.shares))});
    } else {
      bool is_bytes = std::string_view(row.work_unit) == "MB";
      line.push_back(number(row.work) + " " + row.work_unit);
      line.push_back(number(middle * row.work * (is_bytes ? 1e-3 : 1)) + (is_bytes ? " GB/s" : " GFLOP/s"));
      line.push_back(percent(median(row.shares)));
    }
    line.push_back(row.ratios.empty() ? "" : number(median(row.ratios)) + " x " + row.compared_with);
    lines.push_back(std::move(line));
  }
  std::vector<size_t> widths(lines[0].size());
  for (const auto &line : lines)
    for (size_t i = 0; i < line.size(); i++) widths[i] = std::max(widths[i], line[i].size());
  for (const auto &[name, value] : facts_.items()) {
    std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    std::printf("%-14s %s\n", name.c_str(), text.c_str());
  }
  std::printf("\n");
  for (const auto &line : lines) {
    for (size_t i = 0; i < line.size(); i++) {
      bool is_text = i == 0 || i == 3 || i == 9;
      std::printf(is_text ? "%-*s  " : "%*s  ", static_cast<int>(widths[i]), line[i].c_str());
    }
    std::printf("\n");
  }
}

void Report::print_json() const {
  nlohmann::json results = nlohmann::json::array();
  for (const auto &key : order_) {
    const Row &row = rows_.at(key);
    nlohmann::json one = {{"what", row.what},
                          {"threads", row.threads},
                          {"unit", row.unit},
                          {"median", median(row.values)},
                          {"values", row.values}};
    if (row.work_unit) {
      one["work_per_token"] = row.work;
      one["work_unit"] = row.work_unit;
    }
    if (!row.shares.empty()) one["share_of_roof"] = median(row.shares);
    if (!row.ratios.empty()) {
      one["compared_with"] = row.compared_with;
      one["ratio"] = median(row.ratios);
    }
    results.push_back(std::move(one));
  }
  nlohmann::json all = {{"facts", facts_}, {"results", results}};
  std::printf("%s\n", all.dump(2).c_str());
}

}  // namespace libwkv::perf
