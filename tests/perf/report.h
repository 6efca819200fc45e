// SPDX-License-Identifier: Apache-2.0
// Results of all rounds, as one aligned table or as JSON.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace libwkv::perf {

double median(std::vector<double> values);

// One line of the table: a rate, one value a round, and the roof of the same round that bounds it.
struct Row {
  std::string what;
  int threads = 0;
  const char *unit = "";  // "tokens/s", "GB/s"
  std::vector<double> values;
  const char *work_unit = nullptr;  // what one token costs: "MB", "GFLOP"; NULL: no work is shown
  double work = 0;
  std::vector<double> shares;  // of the roof, a round
  std::string compared_with;   // another row
  std::vector<double> ratios;  // to that row, a round
};

class Report {
 public:
  // The row with this name and thread count, made on first use.
  Row &row(const std::string &what, int threads);
  nlohmann::json &facts() { return facts_; }

  void print_table() const;
  void print_json() const;

 private:
  std::vector<std::pair<std::string, int>> order_;
  std::map<std::pair<std::string, int>, Row> rows_;
  nlohmann::json facts_;
};

}  // namespace libwkv::perf
