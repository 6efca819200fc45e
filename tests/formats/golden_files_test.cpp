// SPDX-License-Identifier: Apache-2.0
// Every file of the ground truth loads, and every tensor in it is the one of the float32 .pth.
#include <cmath>

#include "formats/checkpoint_files.h"
#include "formats/plain_decode.h"

namespace libwkv::tests {
namespace {

// The exact type that all numbers went through in a file: what the reference must be rounded to before comparing.
enum class Rounding { none, f16, bf16 };

Rounding rounding_of(StoredType type) {
  return type == StoredType::f16 ? Rounding::f16 : type == StoredType::bf16 ? Rounding::bf16 : Rounding::none;
}

// How far a quantised value may be from what it stands for, in steps of its block's range.
double quantised_bound(StoredType type, float smallest, float largest) {
  double magnitude = std::max(std::fabs(smallest), std::fabs(largest)), range = largest - smallest;
  constexpr double scale_step = 0x1p-25;  // half the distance of the smallest half-precision scales
  switch (type) {
    case StoredType::q8_0:
      return magnitude / 127 * 0.502 + magnitude / 1000 + 127 * scale_step;
    case StoredType::q4_0:
      return magnitude / 8 * 1.002 + 8 * scale_step;  // the far end of an asymmetric grid is clamped
    case StoredType::q5_0:
      return magnitude / 16 * 1.002 + 16 * scale_step;
    case StoredType::q4_1:
      return range / 15 * 0.51 + magnitude / 500 + 16 * scale_step;
    case StoredType::q5_1:
      return range / 31 * 0.51 + magnitude / 500 + 32 * scale_step;
    // K types spread 6-bit scales over 256 values: loose
    case StoredType::q4_k:
      return range / 15 * 1.5 + magnitude / 8;
    case StoredType::q5_k:
      return range / 31 * 1.5 + magnitude / 8;
    case StoredType::q6_k:
      return magnitude / 32 * 1.6;
    default:
      return 0;
  }
}

void expect_tensor(const Tensor &found, const Tensor &reference, const std::string &what) {
  ASSERT_EQ(found.rank, reference.rank) << what;
  ASSERT_EQ(found.shape, reference.shape) << what;
  std::vector<float> values = values_of(found), expected = values_of(reference);
  ASSERT_EQ(values.size(), expected.size());
  if (formats::block_values(found.type) == 1) {
    for (size_t i = 0; i < values.size(); i++) {
      double exact = expected[i];
      if (rounding_of(found.type) == Rounding::f16) exact = rounded_to(exact, 11, -24);
      if (rounding_of(found.type) == Rounding::bf16) exact = rounded_to(exact, 8, -133);
      ASSERT_EQ(static_cast<double>(values[i]), exact) << what << " value " << i;
    }
    return;
  }
  // The decoder against plain double arithmetic, then the values against the bound of the type.
  std::vector<double> plain = plain_decode(found.type, found.bytes.data(), found.values());
  size_t count = static_cast<size_t>(formats::block_values(found.type));
  std::vector<double> magnitudes(values.size() / count);
  for (size_t i = 0; i < plain.size(); i++)
    magnitudes[i / count] = std::max(magnitudes[i / count], std::fabs(plain[i]));
  for (size_t i = 0; i < values.size(); i++)
    ASSERT_NEAR(values[i], plain[i], 3e-7 * magnitudes[i / count]) << what << " value " << i;
  size_t block = 32;
  for (size_t begin = 0; begin < values.size(); begin += block) {
    auto [smallest, largest] = std::minmax_element(expected.begin() + static_cast<ptrdiff_t>(begin),
                                                   expected.begin() + static_cast<ptrdiff_t>(begin + block));
    double bound = quantised_bound(found.type, *smallest, *largest);
    for (size_t i = begin; i < begin + block; i++) ASSERT_NEAR(values[i], expected[i], bound) << what << " value " << i;
  }
}

void expect_file(const fs::path &path, const Checkpoint &reference) {
  Checkpoint checkpoint = formats::open_checkpoint(path.string());
  EXPECT_NO_THROW(derive_hyper_parameters(checkpoint)) << path;
  EXPECT_EQ(checkpoint.tensors.size(), reference.tensors.size()) << path;
  for (const auto &[name, tensor] : reference.tensors) {
    auto found = checkpoint.tensors.find(name);
    ASSERT_NE(found, checkpoint.tensors.end()) << path << " " << name;
    expect_tensor(found->second, tensor, path.string() + " " + name);
  }
}

std::vector<fs::path> checkpoints_in(const fs::path &folder) {
  std::vector<fs::path> found;
  for (const fs::directory_entry &entry : fs::directory_iterator(folder)) {
    std::string name = entry.path().filename().string();
    if (entry.path().filename() == "pth_variants") continue;
    bool is_model = entry.is_directory() || name.ends_with(".pth") || name.ends_with(".gguf") || name.ends_with(".bin");
    // the trained original of `reverse`, of another architecture
    if (is_model && !name.starts_with("source_")) found.push_back(entry.path());
  }
  return found;
}

class GoldenModel : public testing::TestWithParam<const char *> {};

TEST_P(GoldenModel, every_file_holds_the_tensors_of_the_f32_pth) {
  WKV_NEED_SHARED();
  std::string model = GetParam();
  fs::path weights = shared_folder() / "golden" / model / "weights";
  Checkpoint reference = formats::open_checkpoint((weights / (model + ".f32.pth")).string());
  std::vector<fs::path> files = checkpoints_in(weights);
  EXPECT_GE(files.size(), 4u);
  for (const fs::path &file : files) expect_file(file, reference);
}
INSTANTIATE_TEST_SUITE_P(Shared, GoldenModel, testing::Values("tiny", "reverse", "rnd_a", "rnd_d"));

TEST(GoldenFiles, unusual_pth_files_hold_the_same_tensors) {
  WKV_NEED_SHARED();
  fs::path weights = shared_folder() / "golden/rnd_a/weights";
  Checkpoint reference = formats::open_checkpoint((weights / "rnd_a.f32.pth").string());
  int files = 0;
  for (const fs::directory_entry &entry : fs::directory_iterator(weights / "pth_variants")) {
    if (entry.path().extension() != ".pth") continue;
    files++;
    expect_file(entry.path(), reference);
  }
  EXPECT_EQ(files, 10);
}

TEST(GoldenFiles, a_hybrid_with_names_of_its_own_is_refused) {
  WKV_NEED_SHARED();
  fs::path path = shared_folder() / "golden/reverse/weights/source_260123_reverse_L2_only_rwkv7.pth";
  if (!fs::exists(path)) GTEST_SKIP() << "no " << path;
  std::string message;
  EXPECT_EQ(open_status(path, &message), WKV_UNSUPPORTED);
  EXPECT_NE(message.find("ROSA"), std::string::npos) << message;
}

TEST(GoldenFiles, committed_files_hold_the_same_model) {
  Checkpoint reference = formats::open_checkpoint((data_folder() / "rnd_a.bf16.pth").string());
  EXPECT_EQ(reference.format, "pth");
  HyperParameters h = derive_hyper_parameters(reference);
  EXPECT_EQ(h.layers, 2);
  EXPECT_EQ(h.width, 64);
  EXPECT_EQ(h.heads, 1);
  EXPECT_EQ(h.head_size, 64);
  EXPECT_EQ(h.ffn_width, 256);
  EXPECT_EQ(h.vocab_size, 331);
  EXPECT_EQ(h.rank_w, 32);
  EXPECT_EQ(h.rank_v, 32);
  // 7 of the model, 33 of layer 1, 3 fewer of layer 0
  EXPECT_EQ(reference.tensors.size(), 69u);
  EXPECT_FALSE(reference.tensors.contains("blocks.0.att.v1"));
  expect_file(data_folder() / "fla_bf16", reference);
  expect_file(data_folder() / "rnd_a.Q8_0.gguf", reference);
  EXPECT_EQ(formats::open_checkpoint((data_folder() / "fla_bf16").string()).format, "safetensors");
  EXPECT_EQ(formats::open_checkpoint((data_folder() / "rnd_a.Q8_0.gguf").string()).format, "gguf");
}

TEST(GoldenFiles, views_lie_in_the_mapped_file) {
  Checkpoint checkpoint = formats::open_checkpoint((data_folder() / "rnd_a.Q8_0.gguf").string());
  ASSERT_EQ(checkpoint.files.size(), 1u);
  std::span<const std::byte> file = checkpoint.files[0]->bytes();
  for (const auto &[name, tensor] : checkpoint.tensors) {
    EXPECT_GE(tensor.bytes.data(), file.data()) << name;
    EXPECT_LE(tensor.bytes.data() + tensor.bytes.size(), file.data() + file.size()) << name;
    EXPECT_EQ(tensor.file, checkpoint.files[0]) << name;
  }
}

TEST(GoldenFiles, a_memory_buffer_gives_what_the_file_gives) {
  for (const char *name : {"rnd_a.bf16.pth", "rnd_a.Q8_0.gguf", "fla_bf16/model.safetensors"}) {
    std::string content = read_file(data_folder() / name);
    Checkpoint from_memory = formats::open_checkpoint_memory(bytes_of(content));
    Checkpoint from_file = formats::open_checkpoint((data_folder() / name).string());
    expect_same_model(from_memory, from_file, name);
    EXPECT_EQ(from_memory.format, from_file.format);
    EXPECT_EQ(from_memory.vocabulary.size(), from_file.vocabulary.size());
    EXPECT_EQ(from_memory.files.at(0)->name(), "memory");
  }
}

TEST(GoldenFiles, vocabularies_of_gguf_and_directory_agree) {
  Checkpoint gguf = formats::open_checkpoint((data_folder() / "rnd_a.Q8_0.gguf").string());
  Checkpoint folder = formats::open_checkpoint((data_folder() / "fla_bf16").string());
  ASSERT_EQ(gguf.vocabulary.size(), 323u);
  ASSERT_EQ(folder.vocabulary.size(), 323u);
  for (size_t i = 0; i < 323; i++) {
    EXPECT_EQ(gguf.vocabulary[i].id, folder.vocabulary[i].id);
    EXPECT_EQ(gguf.vocabulary[i].bytes, folder.vocabulary[i].bytes) << i;
  }
  EXPECT_EQ(gguf.vocabulary[0].bytes, std::string(1, '\0'));
}

TEST(GoldenFiles, rwkvcpp_with_fused_and_transposed_tensors) {
  Checkpoint reference = formats::open_checkpoint((data_folder() / "rnd_a.bf16.pth").string());
  std::string content = make_rwkvcpp(plain_tensors(reference), 2);
  Checkpoint checkpoint = formats::open_checkpoint_memory(bytes_of(content));
  EXPECT_EQ(checkpoint.format, "rwkv.cpp");
  derive_hyper_parameters(checkpoint);
  expect_same_model(checkpoint, reference, "rwkv.cpp");
}

TEST(GoldenFiles, official_names_in_safetensors_with_either_orientation) {
  Checkpoint reference = formats::open_checkpoint((data_folder() / "rnd_a.bf16.pth").string());
  std::vector<PlainTensor> tensors = plain_tensors(reference);
  for (PlainTensor &tensor : tensors)
    if (tensor.shape.size() == 1 && tensor.name.find(".att.x_") != std::string::npos)
      tensor.shape.insert(tensor.shape.begin(), {1, 1});
  std::string as_official = make_safetensors(tensors);
  expect_same_model(formats::open_checkpoint_memory(bytes_of(as_official)), reference, "st");
  for (PlainTensor &tensor : tensors)
    if (is_low_rank(tensor.name)) transpose(tensor);
  std::string as_transposed = make_safetensors(tensors);
  expect_same_model(formats::open_checkpoint_memory(bytes_of(as_transposed)), reference, "st, transposed");
}

}  // namespace
}  // namespace libwkv::tests
