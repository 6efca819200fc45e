// SPDX-License-Identifier: Apache-2.0
// JSON values: numbers stay exact, keys are unique, levels are limited.
#include "formats/checkpoint_files.h"
#include "formats/json.h"

namespace libwkv::tests {
namespace {

using namespace formats;

std::string refusal(const std::string &text) {
  std::string message;
  EXPECT_EQ(status_of([&] { parse_json_object(text, "file"); }, &message), WKV_FORMAT) << text;
  return message;
}

TEST(Json, numbers_are_exact) {
  JsonObject object = parse_json_object(R"({"n": [9223372036854775807, -9223372036854775808, 9223372036854775808,
                                             18446744073709551615, 18446744073709551616, -0, 64.0, 1e-05, 0]})",
                                        "file");
  const JsonArray *numbers = get_if<JsonArray>(*find(object, "n"));
  ASSERT_TRUE(numbers);
  struct {
    std::optional<int64_t> integer;
    double number;
    const char *text;
  } expected[] = {{INT64_MAX, 0x1p63, "9223372036854775807"},
                  {INT64_MIN, -0x1p63, "-9223372036854775808"},
                  {{}, 0x1p63, "9223372036854775808"},
                  {{}, 0x1p64, "18446744073709551615"},
                  {{}, 0x1p64, "18446744073709551616"},
                  {{}, 0, "-0"},
                  {{}, 64, "64"},
                  {{}, 1e-5, "1e-05"},
                  {0, 0, "0"}};
  ASSERT_EQ(numbers->size(), std::size(expected));
  for (size_t i = 0; i < numbers->size(); i++) {
    EXPECT_EQ(as_integer((*numbers)[i]), expected[i].integer) << expected[i].text;
    EXPECT_EQ(as_number((*numbers)[i]), expected[i].number) << expected[i].text;
    EXPECT_EQ(to_text((*numbers)[i]), expected[i].text);
  }
}

TEST(Json, values_are_found_and_written) {
  JsonObject object = parse_json_object(
      R"({"z": {"b": [], "a": {}}, "none": null, "yes": true, "text": "a\"\\\u00e9", "list": [1, [2, "x"], null, false]})",
      "file");
  EXPECT_FALSE(find(object, "missing"));
  EXPECT_FALSE(find(object, "none"));
  EXPECT_FALSE(find(object, "zz"));
  EXPECT_TRUE(is_true(*find(object, "yes")));
  EXPECT_FALSE(is_true(*find(object, "text")));
  EXPECT_TRUE(is_text(*find(object, "text"), "a\"\\\u00e9"));
  EXPECT_FALSE(as_number(*find(object, "yes")));
  EXPECT_FALSE(as_integer(*find(object, "text")));
  EXPECT_EQ(to_text({object}),
            "{\"list\":[1,[2,\"x\"],null,false],\"none\":null,\"text\":\"a\\\"\\\\\u00e9\",\"yes\":true,"
            "\"z\":{\"a\":{},\"b\":[]}}");
}

TEST(Json, bad_texts_are_refused) {
  auto nested = [](int levels) {  // the object is one of them
    return "{\"a\":" + std::string(levels - 1, '[') + "1" + std::string(levels - 1, ']') + "}";
  };
  EXPECT_EQ(parse_json_object(nested(16), "file").size(), 1u);
  EXPECT_EQ(refusal(nested(17)), "file: JSON nested more than 16 deep");
  EXPECT_EQ(refusal(R"({"b": 1, "a": {"c": 1, "d": 2, "c": 3}})"), "file: key c is there twice");
  EXPECT_EQ(parse_json_object(R"({"a": {"a": 1}, "b": {"a": 2}})", "file").size(), 2u);
  EXPECT_EQ(refusal("[1]"), "file: not a JSON object");
  EXPECT_EQ(refusal("7"), "file: not a JSON object");
  for (const char *text : {"", "{", "{\"a\" 1}", "{} {}", "{\"a\": 1,}", "{\"a\": 1e999}", "{\"a\": \"\xff\"}",
                           "{\"a\": \"\\ud800\"}", "{\"a\": nan}", "// no\n{}"})
    EXPECT_EQ(refusal(text).rfind("file: bad JSON: [json.exception.", 0), 0u) << text;
}

}  // namespace
}  // namespace libwkv::tests
