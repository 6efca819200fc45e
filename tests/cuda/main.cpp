// SPDX-License-Identifier: Apache-2.0
// Runs the tests of this folder; without a CUDA device each of them skips and says why.
#include <string>

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

namespace {

class SkipAll : public testing::EmptyTestEventListener {
 public:
  explicit SkipAll(std::string reason) : reason_(std::move(reason)) {}

 private:
  // a skip before its body begins keeps a test from running
  void OnTestStart(const testing::TestInfo &) override { GTEST_SKIP() << reason_; }

  std::string reason_;
};

}  // namespace

int main(int argc, char **argv) {
  testing::InitGoogleTest(&argc, argv);
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0)
    testing::UnitTest::GetInstance()->listeners().Append(
        new SkipAll(std::string("no CUDA device: ") + cudaGetErrorString(error)));
  return RUN_ALL_TESTS();
}
