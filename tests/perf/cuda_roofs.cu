// SPDX-License-Identifier: Apache-2.0
#include "cuda_roofs.h"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <tuple>
#include <vector>

#include <cublasLt.h>
#include <cuda_runtime.h>

namespace libwkv::perf {
namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

void check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string("cuBLASLt: ") + cublasLtGetStatusString(status));
}

// Halves of random sign and mantissa in [0.5, 1): as bfloat16 and float small ordinary numbers. Products of equal or
// zero numbers would draw less power and run faster than any model.
__global__ void fill_randomly(uint32_t *words, size_t count) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<size_t>(gridDim.x) * blockDim.x) {
    uint32_t mixed = static_cast<uint32_t>(i) * 0x9e3779b9u + 1;
    mixed = (mixed ^ mixed >> 16) * 0x7feb352du;
    mixed = (mixed ^ mixed >> 15) * 0x846ca68bu;
    words[i] = ((mixed ^ mixed >> 16) & 0x83ff83ffu) | 0x38003800u;
  }
}

// Every block reads pieces of `loads` vectors a thread, all of them under way at once.
template <int loads>
__global__ void read_all(const uint4 *vectors, size_t count, uint32_t *never_written) {
  const size_t piece = static_cast<size_t>(blockDim.x) * loads;
  uint32_t sum = 0;
  for (size_t begin = blockIdx.x * piece; begin + piece <= count; begin += gridDim.x * piece) {
    uint4 values[loads];
#pragma unroll
    for (int i = 0; i < loads; i++)
      values[i] = __ldcs(vectors + begin + static_cast<size_t>(i) * blockDim.x + threadIdx.x);
#pragma unroll
    for (int i = 0; i < loads; i++) sum ^= values[i].x ^ values[i].y ^ values[i].z ^ values[i].w;
  }
  if (sum == 0x12345679u) *never_written = sum;  // keeps the loads alive
}

struct Grid {
  int blocks, threads, loads;  // blocks a multiprocessor
};
constexpr Grid grids[] = {{1, 1024, 4}, {1, 1024, 8}, {2, 1024, 4}, {2, 1024, 8}, {2, 512, 8},
                          {4, 512, 4},  {4, 512, 8},  {8, 256, 4},  {8, 256, 8},  {16, 256, 4}};

// A product in cuBLASLt's terms, with the algorithm that was fastest here.
struct Product {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weights = nullptr, columns = nullptr, results = nullptr;
  size_t weights_bytes = 0, results_bytes = 0;
  cublasLtMatmulAlgo_t algorithm{};

  Product() = default;
  Product(const Product &) = delete;
  Product &operator=(const Product &) = delete;
  ~Product() {
    if (results) cublasLtMatrixLayoutDestroy(results);
    if (columns) cublasLtMatrixLayoutDestroy(columns);
    if (weights) cublasLtMatrixLayoutDestroy(weights);
    if (operation) cublasLtMatmulDescDestroy(operation);
  }
};

class CudaRoofs : public DeviceRoofs {
 public:
  explicit CudaRoofs(int index) {
    int count = 0;
    check(cudaGetDeviceCount(&count));
    if (index >= count) throw std::runtime_error("there is no device cuda:" + std::to_string(index));
    check(cudaSetDevice(index));
    check(cudaGetDeviceProperties(&properties_, index));
    check(cudaDriverGetVersion(&driver_));
    // several times any L2 cache, a quarter of a small card at most
    bytes_ = std::min<size_t>(size_t{4} << 30, properties_.totalGlobalMem / 4) >> 26 << 26;
    check(cudaMalloc(&memory_, bytes_));
    check(cudaMalloc(&workspace_, workspace_bytes));
    check(cudaMallocHost(&host_, host_bytes));
    check(cudaStreamCreate(&stream_));
    check(cudaEventCreate(&begin_));
    check(cudaEventCreate(&end_));
    check(cublasLtCreate(&cublas_));
    fill_randomly<<<properties_.multiProcessorCount * 8, 256, 0, stream_>>>(reinterpret_cast<uint32_t *>(memory_),
                                                                            bytes_ / 4);
    check(cudaGetLastError());
    check(cudaStreamSynchronize(stream_));
  }
  ~CudaRoofs() override {
    products_.clear();
    if (cublas_) cublasLtDestroy(cublas_);
    cudaEventDestroy(end_);
    cudaEventDestroy(begin_);
    cudaStreamDestroy(stream_);
    cudaFreeHost(host_);
    cudaFree(workspace_);
    cudaFree(memory_);
  }

  std::string description() const override {
    return std::string(properties_.name) + ", " + std::to_string(properties_.multiProcessorCount) +
           " multiprocessors, " + std::to_string(properties_.totalGlobalMem >> 20) + " MiB, driver for CUDA " +
           std::to_string(driver_ / 1000) + "." + std::to_string(driver_ % 1000 / 10);
  }

  double read_bandwidth() override {
    double best = 0;
    for (const Grid &grid : grids) {
      const double seconds = best_of(2, [&] {
        const auto *vectors = reinterpret_cast<const uint4 *>(memory_);
        auto *never_written = reinterpret_cast<uint32_t *>(workspace_);
        const int blocks = properties_.multiProcessorCount * grid.blocks;
        if (grid.loads == 4)
          read_all<4><<<blocks, grid.threads, 0, stream_>>>(vectors, bytes_ / sizeof(uint4), never_written);
        else
          read_all<8><<<blocks, grid.threads, 0, stream_>>>(vectors, bytes_ / sizeof(uint4), never_written);
        check(cudaGetLastError());
      });
      best = std::max(best, static_cast<double>(bytes_) / seconds * 1e-9);
    }
    return best;
  }

  double copy_bandwidth() override {
    const size_t half = bytes_ / 2;
    const double seconds =
        best_of(3, [&] { check(cudaMemcpyAsync(memory_ + half, memory_, half, cudaMemcpyDeviceToDevice, stream_)); });
    return 2 * static_cast<double>(half) / seconds * 1e-9;
  }

  double to_device_bandwidth() override {
    const double seconds =
        best_of(3, [&] { check(cudaMemcpyAsync(workspace_, host_, host_bytes, cudaMemcpyHostToDevice, stream_)); });
    return static_cast<double>(host_bytes) / seconds * 1e-9;
  }
  double to_host_bandwidth() override {
    const double seconds =
        best_of(3, [&] { check(cudaMemcpyAsync(host_, workspace_, host_bytes, cudaMemcpyDeviceToHost, stream_)); });
    return static_cast<double>(host_bytes) / seconds * 1e-9;
  }

  double product(Numbers numbers, int64_t outputs, int64_t inputs, int64_t columns) override {
    const Product &fastest = product_of(numbers, outputs, inputs, columns);
    const double once = timed([&] { multiply(fastest, fastest.algorithm); });
    const int runs = std::clamp(static_cast<int>(0.02 / once), 2, 50);  // long enough to be under load
    const double seconds = timed([&] {
      for (int i = 0; i < runs; i++) multiply(fastest, fastest.algorithm);
    });
    return 2e-9 * static_cast<double>(outputs) * static_cast<double>(inputs) * static_cast<double>(columns) * runs /
           seconds;
  }

 private:
  static constexpr size_t workspace_bytes = size_t{64} << 20, host_bytes = workspace_bytes;

  template <class Body>
  double timed(const Body &body) {
    check(cudaEventRecord(begin_, stream_));
    body();
    check(cudaEventRecord(end_, stream_));
    check(cudaEventSynchronize(end_));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return milliseconds * 1e-3;
  }
  template <class Body>
  double best_of(int times, const Body &body) {
    double best = timed(body);
    for (int i = 1; i < times; i++) best = std::min(best, timed(body));
    return best;
  }

  // Operands from the beginning of the memory; results at its end, so that they are nobody's operands.
  void multiply(const Product &product, const cublasLtMatmulAlgo_t &algorithm) {
    const float one = 1, zero = 0;
    char *results = memory_ + bytes_ - product.results_bytes;
    check(cublasLtMatmul(cublas_, product.operation, &one, memory_, product.weights, memory_ + product.weights_bytes,
                         product.columns, &zero, results, product.results, results, product.results, &algorithm,
                         workspace_, workspace_bytes, stream_));
  }

  const Product &product_of(Numbers numbers, int64_t outputs, int64_t inputs, int64_t columns) {
    auto [found, is_new] = products_.try_emplace({numbers, outputs, inputs, columns});
    Product &product = found->second;
    if (!is_new) return product;
    const cudaDataType_t type = numbers == Numbers::f16    ? CUDA_R_16F
                                : numbers == Numbers::bf16 ? CUDA_R_16BF
                                                           : CUDA_R_32F;
    const size_t number_bytes = numbers == Numbers::f32 ? 4 : 2;
    product.weights_bytes = static_cast<size_t>(outputs * inputs) * number_bytes;
    product.results_bytes = static_cast<size_t>(outputs * columns) * number_bytes;
    // rows of weights lie one behind the other, and so do columns: both contiguous along the inputs
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(cublasLtMatmulDescCreate(&product.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    check(
        cublasLtMatmulDescSetAttribute(product.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
    check(cublasLtMatrixLayoutCreate(&product.weights, type, inputs, outputs, inputs));
    check(cublasLtMatrixLayoutCreate(&product.columns, type, inputs, columns, inputs));
    check(cublasLtMatrixLayoutCreate(&product.results, type, outputs, columns, outputs));
    cublasLtMatmulPreference_t preference = nullptr;
    check(cublasLtMatmulPreferenceCreate(&preference));
    cublasLtMatmulHeuristicResult_t candidates[6];
    int count = 0;
    const size_t room = workspace_bytes;
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(cublas_, product.operation, product.weights, product.columns, product.results,
                                       product.results, preference, 6, candidates, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    check(status);
    if (count == 0) throw std::runtime_error("cuBLASLt knows no algorithm for a product");
    double best = 1e30;
    for (int i = 0; i < count; i++) {
      multiply(product, candidates[i].algo);  // the first one loads its kernel
      const double seconds = best_of(3, [&] { multiply(product, candidates[i].algo); });
      if (seconds >= best) continue;
      best = seconds;
      product.algorithm = candidates[i].algo;
    }
    return product;
  }

  cudaDeviceProp properties_{};
  int driver_ = 0;
  size_t bytes_ = 0;
  char *memory_ = nullptr, *workspace_ = nullptr, *host_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  cublasLtHandle_t cublas_ = nullptr;
  std::map<std::tuple<Numbers, int64_t, int64_t, int64_t>, Product> products_;
};

}  // namespace

std::unique_ptr<DeviceRoofs> cuda_roofs(int index) { return std::make_unique<CudaRoofs>(index); }

}  // namespace libwkv::perf
