// SPDX-License-Identifier: Apache-2.0
// The benchmark runs on a tiny model and its JSON has every row that was asked for. No figure is judged.
#include <array>
#include <cstdio>
#include <map>
#include <set>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace {

std::string output_of(const std::string &arguments, int &status) {
  FILE *pipe = popen((std::string("\"" WKV_BENCH "\" ") + arguments + " 2>/dev/null").c_str(), "r");
  std::string text;
  std::array<char, 4096> part;
  for (size_t bytes; pipe && (bytes = fread(part.data(), 1, part.size(), pipe)) > 0;) text.append(part.data(), bytes);
  status = pipe ? pclose(pipe) : -1;
  return text;
}

TEST(Bench, reports_every_row_as_json) {
  for (const char *type : {"F32", "F16", "BF16", "Q8_0", "Q4_0"}) {
    int status;
    std::string text =
        output_of(std::string("--random tiny --zeros 0,0.88 --threads 1,2 --decode 4 --prefill 8,40 --batch 3 "
                              "--repeat 2 --roof-mib 8 --file-load --neighbour --json --type ") +
                      type,
                  status);
    ASSERT_EQ(status, 0) << type;
    nlohmann::json report = nlohmann::json::parse(text);
    std::set<std::string> rows;
    for (const nlohmann::json &row : report.at("results")) {
      rows.insert(row.at("what").get<std::string>() + " " + std::to_string(row.at("threads").get<int>()));
      EXPECT_EQ(row.at("values").size(), 2u) << row;
      if (row.at("unit") != "%") {
        EXPECT_GT(row.at("median").get<double>(), 0) << row;
      }
      if (row.contains("work_unit")) {
        EXPECT_GT(row.at("share_of_roof").get<double>(), 0) << row;
      }
    }
    for (const char *what :
         {"load to first logits", "peak memory", "read, best of 1 to 8 streams", "decode", "decode, 88 % zeros",
          "decode, 3 rows", "multiply-add, float32", "prefill 8", "prefill 40"})
      for (const char *threads : {" 1", " 2"})
        EXPECT_TRUE(rows.contains(std::string(what) + threads)) << what << threads;
    EXPECT_TRUE(rows.contains("decode, one core taken 2"));
    EXPECT_TRUE(rows.contains("prefill 40, one core taken 2"));
    EXPECT_FALSE(report.at("facts").at("kernels").get<std::string>().empty());
  }
}

TEST(Bench, measures_a_device_as_such) {
  int status;
  std::string text = output_of(
      "--device cpu --random tiny --zeros 0,0.88 --threads 2 --decode 4 --batch 3,8 --prefill 40 --packed 4x16 "
      "--generate 8 --states --file-load --repeat 2 --loop-seconds 0.001 --roof-mib 8 --json",
      status);
  ASSERT_EQ(status, 0);
  nlohmann::json report = nlohmann::json::parse(text);
  std::map<std::string, nlohmann::json> rows;
  for (const nlohmann::json &row : report.at("results")) {
    rows[row.at("what")] = row;
    EXPECT_EQ(row.at("values").size(), 2u) << row;
    EXPECT_GT(row.at("median").get<double>(), 0) << row;
  }
  for (const char *what : {"roof: read", "load, file in memory, rate", "decode", "decode, 88 % zeros",
                           "decode, scores to the host", "generation, greedy", "generation, sampled", "decode, 3 rows",
                           "decode, 8 rows", "prefill 40", "prefill, 4 prompts of 16", "a step in place",
                           "fork and its first step", "save a state to host memory", "restore a state"})
    EXPECT_TRUE(rows.contains(what)) << what;
  for (const char *what : {"decode", "generation, sampled", "decode, 8 rows", "prefill 40"})
    EXPECT_GT(rows[what].at("share_of_roof").get<double>(), 0) << what;
  EXPECT_EQ(rows["generation, sampled"].at("compared_with"), "decode");
}

TEST(Bench, refuses_what_it_cannot_measure) {
  for (const char *arguments :
       {"", "--random 3B", "--random tiny --type Q3", "--model /nowhere.gguf", "--random tiny --threads 0",
        "--random tiny --zeros 2", "--no-such-option", "--random tiny --device cuda:99", "--random tiny --device tpu",
        "--random tiny --states", "--random tiny --device cpu --packed 64"}) {
    int status;
    output_of(arguments, status);
    EXPECT_NE(status, 0) << arguments;
  }
}

}  // namespace
