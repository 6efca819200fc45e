// SPDX-License-Identifier: Apache-2.0
// Cut and randomly changed files: an error or a model, never anything else. Run with the sanitizers too.
#include <random>

#include "formats/checkpoint_files.h"

namespace libwkv::tests {
namespace {

struct Sample {
  std::string name, content;
  size_t header;  // bytes that describe, at the beginning
  size_t tail;    // and at the end
};

std::vector<Sample> samples() {
  std::string safetensors = read_file(data_folder() / "fla_bf16/model.safetensors");
  Checkpoint reference = formats::open_checkpoint((data_folder() / "rnd_a.bf16.pth").string());
  std::vector<Sample> all = {
      {"pth", read_file(data_folder() / "rnd_a.bf16.pth"), 6700, 4900},
      {"gguf", read_file(data_folder() / "rnd_a.Q8_0.gguf"), 13000, 300},
      {"safetensors", safetensors, 7500, 100},
      {"rwkv.cpp", make_rwkvcpp(plain_tensors(reference), 2), 300, 300},
  };
  // smaller ones, and a legacy .pth, where the ground truth is there
  fs::path bad = shared_folder() / "golden/bad", variants = shared_folder() / "golden/rnd_a/weights/pth_variants";
  if (fs::exists(variants / "legacy_not_zip.pth"))
    all.push_back({"legacy", read_file(variants / "legacy_not_zip.pth"), 8800, 300});
  if (fs::exists(bad / "gguf_00_good.gguf"))
    all.push_back({"small gguf", read_file(bad / "gguf_00_good.gguf"), 5000, 300});
  return all;
}

// Loads what may be damaged. A std::exception of another kind, or a signal, fails the test.
wkv_status load(std::string_view content, std::string *message = nullptr) {
  return status_of([&] { load_all(formats::open_checkpoint_memory(bytes_of(content))); }, message);
}

TEST(DamagedFiles, every_cut_is_an_error) {
  for (const Sample &sample : samples()) {
    ASSERT_EQ(load(sample.content), WKV_OK) << sample.name;
    // Behind the last tensor there may be padding that is not missed.
    Checkpoint checkpoint = formats::open_checkpoint_memory(bytes_of(sample.content));
    size_t needed = 0;
    for (const auto &[name, tensor] : checkpoint.tensors)
      needed = std::max(needed,
                        static_cast<size_t>(reinterpret_cast<const char *>(tensor.bytes.data() + tensor.bytes.size()) -
                                            sample.content.data()));
    if (sample.name == "pth") needed = sample.content.size();
    for (size_t length = 0; length < needed;
         length += length < sample.header || length + sample.tail > needed ? 3 : 1009) {
      std::string part = sample.content.substr(0, length);  // its own memory: reading past it is seen
      std::string message;
      wkv_status status = load(part, &message);
      ASSERT_TRUE(status == WKV_FORMAT || status == WKV_UNSUPPORTED)
          << sample.name << " cut at " << length << ": " << message;
    }
  }
}

TEST(DamagedFiles, random_changes_are_errors_or_models) {
  std::mt19937_64 random(20240917);
  for (const Sample &sample : samples()) {
    int errors = 0;
    for (int round = 0; round < 1500; round++) {
      std::string content = sample.content;
      int changes = 1 + static_cast<int>(random() % 4);
      for (int i = 0; i < changes; i++) {
        // mostly where the structure is
        uint64_t place = random() % 10;
        size_t at = place < 6   ? random() % sample.header
                    : place < 9 ? content.size() - 1 - random() % sample.tail
                                : random() % content.size();
        char &byte = content[at];
        switch (random() % 4) {
          case 0:
            byte = static_cast<char>(byte ^ (1 << random() % 8));
            break;
          case 1:
            byte = static_cast<char>(random());
            break;
          case 2:
            byte = static_cast<char>(0xff);
            break;
          default:
            byte = 0;
        }
      }
      wkv_status status = load(content);
      ASSERT_TRUE(status == WKV_OK || status == WKV_FORMAT || status == WKV_UNSUPPORTED)
          << sample.name << " round " << round;
      errors += status != WKV_OK;
    }
    EXPECT_GT(errors, 100) << sample.name;
  }
}

TEST(DamagedFiles, a_file_that_shrinks_is_noticed) {
  TemporaryFolder folder;
  fs::copy(data_folder() / "rnd_a.bf16.pth", folder / "model.pth");
  Checkpoint checkpoint = formats::open_checkpoint((folder / "model.pth").string());
  EXPECT_NO_THROW(checkpoint.files[0]->check_length());
  fs::resize_file(folder / "model.pth", 1000);
  EXPECT_EQ(status_of([&] { checkpoint.files[0]->check_length(); }), WKV_IO);
}

}  // namespace
}  // namespace libwkv::tests
