// SPDX-License-Identifier: Apache-2.0
// Malformed files: a clean error, soon, in little memory; nothing executed, nothing read outside the folder.
#include <chrono>

#include <sys/resource.h>

#include "formats/checkpoint_files.h"
#include "formats/vocabulary.h"

namespace libwkv::tests {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool is_sanitized = true;  // their own memory and time would be measured
#else
constexpr bool is_sanitized = false;
#endif

int64_t peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

wkv_status load_status(const fs::path &path, const std::string &format, std::string *message) {
  if (format != "vocab") return open_status(path, message);
  std::string content = read_file(path);
  return status_of([&] { formats::parse_vocabulary(content, path.filename().string()); }, message);
}

// The statuses that each class of the manifest may have.
bool is_fitting(wkv_status status, const std::string &error_class) {
  if (error_class == "missing_file") return status == WKV_NOT_FOUND;
  if (error_class.starts_with("unsupported_") || error_class == "unsafe_pickle") return status == WKV_UNSUPPORTED;
  if (error_class == "resource_limit") return status == WKV_UNSUPPORTED || status == WKV_FORMAT;
  // there, a tensor has another name: what is named is the one too many
  if (error_class == "missing_tensor") return status == WKV_FORMAT || status == WKV_UNSUPPORTED;
  return status == WKV_FORMAT;
}

TEST(BadFiles, every_entry_of_the_manifest) {
  WKV_NEED_SHARED();
  fs::path folder = shared_folder() / "golden/bad";
  nlohmann::json manifest = nlohmann::json::parse(read_file(folder / "manifest.json"));
  int64_t peak_before = peak_bytes();
  int entries = 0;
  for (const nlohmann::json &entry : manifest["files"]) {
    std::string path = entry["path"], expect = entry["expect"], error_class = entry["error_class"], message;
    SCOPED_TRACE(path + ": " + entry["what"].get<std::string>());
    auto begin = std::chrono::steady_clock::now();
    wkv_status status = load_status(folder / path, entry["format"], &message);
    std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    entries++;
    if (expect == "accept") {
      EXPECT_EQ(status, WKV_OK) << message;
    }
    if (expect == "reject") {
      EXPECT_NE(status, WKV_OK);
    }
    if (status != WKV_OK) {
      EXPECT_TRUE(is_fitting(status, error_class)) << status << " " << message;
      EXPECT_GT(message.size(), 10u);
    }
    if (!is_sanitized) {
      EXPECT_LT(seconds.count(), 1.0);
    }
  }
  EXPECT_GT(entries, 90);
  if (!is_sanitized) {
    EXPECT_LT(peak_bytes() - peak_before, 200 << 20);
  }
  EXPECT_FALSE(fs::exists("pwned_by_pickle"));
}

TEST(BadFiles, shards_outside_the_folder_are_not_opened) {
  TemporaryFolder outer;
  fs::path folder = outer / "model";
  fs::create_directories(folder);
  fs::copy(data_folder() / "fla_bf16/config.json", folder / "config.json");
  fs::copy(data_folder() / "fla_bf16/model.safetensors", outer / "outside.safetensors");
  std::string names = "{\"weight_map\": {\"lm_head.weight\": \"NAME\"}}";
  for (std::string name : {"../outside.safetensors", "..\\\\outside.safetensors", "/outside.safetensors", "", ".", "..",
                           ".safetensors", "a\\u0000.safetensors", "config.json"}) {
    std::string index = names, message;
    index.replace(index.find("NAME"), 4, name);
    write_file(folder / "model.safetensors.index.json", index);
    EXPECT_EQ(open_status(folder, &message), WKV_FORMAT) << name;
    EXPECT_NE(message.find("is not the name of"), std::string::npos) << message;
  }
}

TEST(BadFiles, missing_and_unreadable_paths) {
  EXPECT_EQ(open_status("/nonexistent/model.pth"), WKV_NOT_FOUND);
  EXPECT_EQ(open_status(""), WKV_NOT_FOUND);
  EXPECT_EQ(open_status("/dev/null"), WKV_IO);
  TemporaryFolder folder;
  std::string message;
  EXPECT_EQ(open_status(folder.path(), &message), WKV_NOT_FOUND);
  EXPECT_NE(message.find("config.json"), std::string::npos);
  write_file(folder / "config.json", R"({"model_type": "rwkv7"})");
  EXPECT_EQ(open_status(folder.path(), &message), WKV_NOT_FOUND);
  EXPECT_NE(message.find("model.safetensors"), std::string::npos);
}

TEST(BadFiles, git_lfs_pointer_is_recognised) {
  TemporaryFolder folder;
  std::string pointer =
                  "version https://git-lfs.github.com/spec/v1\noid sha256:" + std::string(64, 'a') + "\nsize 381554\n",
              message;
  write_file(folder / "model.pth", pointer);
  EXPECT_EQ(open_status(folder / "model.pth", &message), WKV_FORMAT);
  EXPECT_NE(message.find("git-lfs pointer"), std::string::npos) << message;
  EXPECT_NE(message.find("not downloaded"), std::string::npos) << message;
  // the usual place: a directory whose large file was not fetched
  fs::copy(data_folder() / "fla_bf16/config.json", folder / "config.json");
  write_file(folder / "model.safetensors", pointer);
  EXPECT_EQ(open_status(folder.path(), &message), WKV_FORMAT);
  EXPECT_NE(message.find("git-lfs pointer"), std::string::npos) << message;
}

TEST(BadFiles, small_buffers_of_anything) {
  for (std::string content :
       {std::string(), std::string("G"), std::string("GGUF"), std::string("PK\3\4"), std::string("\x80\2"),
        std::string("fmgg"), std::string(8, '\0') + "{}", std::string("\2\0\0\0\0\0\0\0{}", 10),
        std::string("not a model at all"), std::string("<!DOCTYPE html><html>")})
    EXPECT_EQ(status_of([&] { load_all(formats::open_checkpoint_memory(bytes_of(content))); }), WKV_FORMAT) << content;
}

TEST(BadFiles, hostile_json_is_refused_in_little_memory) {
  auto header = [](const std::string &json) {
    std::string out;
    append_number(out, static_cast<uint64_t>(json.size()));
    return out + json;
  };
  int64_t peak_before = peak_bytes();
  std::string deep = "{\"a\":" + std::string(3000000, '['), wide = "{";
  for (int i = 0; i < 300000; i++) wide.append("\"").append(std::to_string(i)).append("\":[],");
  wide += "\"x\":{}}";
  std::string twice =
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  std::string huge = "{\"a\":\"" + std::string(5000000, 'x') + "\"}";
  for (const std::string &json : {deep, wide, huge, twice}) {
    std::string content = header(json) + "1234";
    wkv_status status = status_of([&] { formats::open_checkpoint_memory(bytes_of(content)); });
    EXPECT_TRUE(status == WKV_FORMAT || status == WKV_UNSUPPORTED) << status << json.substr(0, 30);
  }
  if (!is_sanitized) {
    EXPECT_LT(peak_bytes() - peak_before, 200 << 20);
  }
}

}  // namespace
}  // namespace libwkv::tests
