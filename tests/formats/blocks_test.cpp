// SPDX-License-Identifier: Apache-2.0
// Storage types to float and back, against plain double arithmetic.
#include <bit>
#include <cmath>
#include <random>

#include "base/float_types.h"
#include "formats/checkpoint_files.h"
#include "formats/plain_decode.h"

namespace libwkv::tests {
namespace {

using formats::decode;
using formats::encode;

template <class T>
const std::byte *bytes_at(const std::vector<T> &values) {
  return reinterpret_cast<const std::byte *>(values.data());
}

TEST(Blocks, every_half_decodes_and_encodes_as_the_base_room_does) {
  std::vector<uint16_t> halves(65536), back(65536);
  for (uint32_t i = 0; i < 65536; i++) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> values(65536);
  decode(StoredType::f16, bytes_at(halves), 65536, values.data());
  for (uint32_t i = 0; i < 65536; i++)
    ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(float_from_f16(halves[i]))) << i;
  encode(StoredType::f16, values.data(), 65536, reinterpret_cast<std::byte *>(back.data()));
  for (uint32_t i = 0; i < 65536; i++) ASSERT_EQ(back[i], f16_from_float(values[i])) << i;
  decode(StoredType::bf16, bytes_at(halves), 65536, values.data());
  encode(StoredType::bf16, values.data(), 65536, reinterpret_cast<std::byte *>(back.data()));
  for (uint32_t i = 0; i < 65536; i++)
    if (!std::isnan(values[i])) {
      ASSERT_EQ(back[i], halves[i]);
    }
}

TEST(Blocks, narrowing_rounds_to_nearest_even) {
  std::mt19937 random(7);
  std::vector<float> values;
  for (int i = 0; i < 200000; i++) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  for (float value : {0.0f, -0.0f, 65504.0f, 65519.99f, 65520.0f, 0x1p-24f, 0x1p-25f, 0x1.000002p-25f, 0x1.ffcp-15f,
                      INFINITY, -INFINITY})
    values.push_back(value);
  std::vector<uint16_t> half(values.size()), brain(values.size());
  int64_t count = static_cast<int64_t>(values.size());
  encode(StoredType::f16, values.data(), count, reinterpret_cast<std::byte *>(half.data()));
  encode(StoredType::bf16, values.data(), count, reinterpret_cast<std::byte *>(brain.data()));
  for (size_t i = 0; i < values.size(); i++) {
    float value = values[i];
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(float_from_f16(half[i]))) << i;
      ASSERT_TRUE(std::isnan(float_from_bf16(brain[i]))) << i;
      continue;
    }
    double expected = rounded_to(value, 11, -24);
    if (std::fabs(expected) > 65504) expected = std::copysign(INFINITY, expected);
    ASSERT_EQ(static_cast<double>(float_from_f16(half[i])), expected) << value;
    ASSERT_EQ(std::signbit(float_from_f16(half[i])), std::signbit(value));
    double brain_expected = rounded_to(value, 8, -133);
    if (std::fabs(brain_expected) > 3.39e38) brain_expected = std::copysign(INFINITY, brain_expected);
    ASSERT_EQ(static_cast<double>(float_from_bf16(brain[i])), brain_expected) << value;
  }
}

class BlockType : public testing::TestWithParam<StoredType> {};

TEST_P(BlockType, random_blocks_decode_as_plain_arithmetic_says) {
  StoredType type = GetParam();
  size_t size = formats::block_bytes(type);
  int64_t blocks = 400, values = blocks * formats::block_values(type);
  std::mt19937 random(11);
  std::vector<uint8_t> bytes(static_cast<size_t>(blocks) * size + 1);
  for (uint8_t &byte : bytes) byte = static_cast<uint8_t>(random());
  // scales: any finite half, for Q6_K at the end of a block
  const std::byte *start = reinterpret_cast<const std::byte *>(bytes.data() + 1);  // no alignment
  for (int64_t b = 0; b < blocks; b++)
    for (size_t at : {size_t{0}, size_t{2}, size - 2}) {
      uint8_t &high = bytes[1 + static_cast<size_t>(b) * size + at + 1];
      if ((high & 0x7c) == 0x7c) high = static_cast<uint8_t>(high & ~0x40);
    }
  std::vector<float> found(static_cast<size_t>(values));
  decode(type, start, values, found.data());
  std::vector<double> expected = plain_decode(type, start, values);
  size_t count = static_cast<size_t>(formats::block_values(type));
  for (size_t begin = 0; begin < found.size(); begin += count) {
    double magnitude = 0;
    for (size_t i = begin; i < begin + count; i++) magnitude = std::max(magnitude, std::fabs(expected[i]));
    for (size_t i = begin; i < begin + count; i++) ASSERT_NEAR(found[i], expected[i], 4e-7 * magnitude) << i;
  }
}
INSTANTIATE_TEST_SUITE_P(All, BlockType,
                         testing::Values(StoredType::q8_0, StoredType::q4_0, StoredType::q4_1, StoredType::q5_0,
                                         StoredType::q5_1, StoredType::q4_k, StoredType::q5_k, StoredType::q6_k),
                         [](const auto &type) { return formats::name_of(type.param); });

TEST(Blocks, q8_and_q4_encode_within_half_a_step) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 0.3f);
  std::vector<float> values(32 * 500), back(values.size());
  for (float &value : values) value = normal(random);
  for (int i = 0; i < 32; i++) values[static_cast<size_t>(i)] = 0;  // a block of zeros
  for (StoredType type : {StoredType::q8_0, StoredType::q4_0}) {
    std::vector<std::byte> bytes(values.size() / 32 * formats::block_bytes(type));
    encode(type, values.data(), static_cast<int64_t>(values.size()), bytes.data());
    decode(type, bytes.data(), static_cast<int64_t>(values.size()), back.data());
    for (size_t begin = 0; begin < values.size(); begin += 32) {
      float largest = 0;
      for (size_t i = begin; i < begin + 32; i++) largest = std::max(largest, std::fabs(values[i]));
      // Q4_0 covers -8 .. 7 steps: the far end of the other sign is cut by up to one step
      double bound = type == StoredType::q8_0 ? largest / 127 * 0.502 + largest * 0x1p-11 : largest / 8 * 1.001;
      for (size_t i = begin; i < begin + 32; i++)
        ASSERT_NEAR(back[i], values[i], bound) << formats::name_of(type) << " " << i;
    }
    EXPECT_EQ(back[0], 0.0f);
  }
}

TEST(Blocks, q8_and_q4_encode_as_the_golden_files_do) {
  WKV_NEED_SHARED();
  fs::path weights = shared_folder() / "golden/rnd_a/weights";
  Checkpoint source = formats::open_checkpoint((weights / "rnd_a.f32.pth").string());
  for (const char *name : {"rnd_a.Q8_0.gguf", "rnd_a.Q4_0.gguf"}) {
    Checkpoint golden = formats::open_checkpoint((weights / name).string());
    for (const auto &[tensor_name, tensor] : golden.tensors) {
      if (tensor.type != StoredType::q8_0 && tensor.type != StoredType::q4_0) continue;
      std::vector<float> values = values_of(source.tensors.at(tensor_name));
      std::vector<std::byte> bytes(tensor.bytes.size());
      encode(tensor.type, values.data(), tensor.values(), bytes.data());
      EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), tensor.bytes.begin())) << name << " " << tensor_name;
    }
  }
}

TEST(Blocks, values_that_are_not_finite_encode_without_harm) {
  std::vector<float> values(32, 1.0f);
  values[3] = NAN;
  values[4] = INFINITY;
  std::byte bytes[64];
  for (StoredType type : {StoredType::q8_0, StoredType::q4_0, StoredType::f16, StoredType::bf16})
    encode(type, values.data(), 32, bytes);
  float back[32];
  decode(StoredType::bf16, bytes, 32, back);
  EXPECT_TRUE(std::isnan(back[3]));
  EXPECT_TRUE(std::isinf(back[4]));
}

TEST(Blocks, rows_of_strided_tensors) {
  std::vector<float> numbers(12);
  for (size_t i = 0; i < 12; i++) numbers[i] = static_cast<float>(i);
  Tensor tensor;
  tensor.type = StoredType::f32;
  tensor.rank = 2;
  tensor.shape = {4, 3};
  tensor.strides = {1, 4};  // a transposed 3 x 4
  tensor.bytes = std::as_bytes(std::span(numbers));
  EXPECT_FALSE(tensor.is_contiguous());
  EXPECT_EQ(values_of(tensor), (std::vector<float>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}));
}

}  // namespace
}  // namespace libwkv::tests
