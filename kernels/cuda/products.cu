// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/products.h"

#include <memory>
#include <new>
#include <vector>

#include <cublasLt.h>

namespace libwkv::cuda {
namespace {

cudaError_t error_of(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return cudaSuccess;
    case CUBLAS_STATUS_ALLOC_FAILED:
      return cudaErrorMemoryAllocation;
    case CUBLAS_STATUS_NOT_SUPPORTED:
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return cudaErrorNotSupported;
    default:
      return cudaErrorUnknown;
  }
}

// What an algorithm depends on.
struct Shape {
  int64_t outputs, inputs, bucket, x_stride, y_stride;
  Order order;
  bool is_half, is_half_output, adds;
  int32_t batch;
  size_t workspace_bytes;
  bool operator==(const Shape &) const = default;
};

struct Choice {
  Shape shape;
  cublasLtMatmulAlgo_t algorithm;
};

// cuBLASLt counts columns first, so its product is y^T = W x^T: "m" is outputs, "n" is rows.
struct Descriptors {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weights = nullptr, x = nullptr, y = nullptr;

  Descriptors() = default;
  Descriptors(const Descriptors &) = delete;
  Descriptors &operator=(const Descriptors &) = delete;
  ~Descriptors() {
    if (operation != nullptr) cublasLtMatmulDescDestroy(operation);
    for (cublasLtMatrixLayout_t layout : {weights, x, y}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
  }
};

cublasStatus_t set_batch(cublasLtMatrixLayout_t layout, int32_t count, int64_t stride) {
  cublasStatus_t status =
      cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  return cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride);
}

cublasStatus_t describe(const Product &call, int64_t rows, Descriptors &made) {
  const cudaDataType_t input = call.is_half ? CUDA_R_16F : CUDA_R_32F;
  const cudaDataType_t output = call.is_half_output ? CUDA_R_16F : CUDA_R_32F;
  // float weights: CUBLAS_COMPUTE_32F on float data is fp32 arithmetic, never TF32.
  cublasStatus_t status = cublasLtMatmulDescCreate(&made.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const bool is_rows = call.order == Order::rows;
  const cublasOperation_t transposed = is_rows ? CUBLAS_OP_T : CUBLAS_OP_N;
  status = cublasLtMatmulDescSetAttribute(made.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const auto outputs = static_cast<uint64_t>(call.outputs), inputs = static_cast<uint64_t>(call.inputs);
  status = is_rows ? cublasLtMatrixLayoutCreate(&made.weights, input, inputs, outputs, call.inputs)
                   : cublasLtMatrixLayoutCreate(&made.weights, input, outputs, inputs, call.outputs);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  status = cublasLtMatrixLayoutCreate(&made.x, input, inputs, static_cast<uint64_t>(rows), call.x_stride);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  status = cublasLtMatrixLayoutCreate(&made.y, output, outputs, static_cast<uint64_t>(rows), call.y_stride);
  if (status != CUBLAS_STATUS_SUCCESS || call.batch == 1) return status;
  status = set_batch(made.weights, call.batch, call.weights_batch_stride);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  status = set_batch(made.x, call.batch, call.x_batch_stride);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  return set_batch(made.y, call.batch, call.y_batch_stride);
}

}  // namespace

struct Products {
  cublasLtHandle_t handle = nullptr;
  std::vector<Choice> choices;  // a few dozen at most
};

namespace {

cublasStatus_t guess(const Products &products, const Descriptors &made, size_t bytes, cublasLtMatmulAlgo_t *algorithm) {
  cublasLtMatmulPreference_t preference = nullptr;
  cublasStatus_t status = cublasLtMatmulPreferenceCreate(&preference);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  status =
      cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
  cublasLtMatmulHeuristicResult_t result;
  int32_t count = 0;
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = cublasLtMatmulAlgoGetHeuristic(products.handle, made.operation, made.weights, made.x, made.y, made.y,
                                            preference, 1, &result, &count);
  }
  cublasLtMatmulPreferenceDestroy(preference);
  if (status == CUBLAS_STATUS_SUCCESS && count == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (status == CUBLAS_STATUS_SUCCESS) *algorithm = result.algo;
  return status;
}

cublasStatus_t enqueue(const Products &products, cudaStream_t stream, const Product &call, const Descriptors &made,
                       const cublasLtMatmulAlgo_t &algorithm) {
  const float beta = call.adds ? 1.0f : 0.0f;
  return cublasLtMatmul(products.handle, made.operation, &call.scale, call.weights, made.weights, call.x, made.x, &beta,
                        call.y, made.y, call.y, made.y, &algorithm, call.workspace, call.workspace_bytes, stream);
}

const Choice *find(const Products &products, const Shape &shape) {
  for (const Choice &choice : products.choices) {
    if (choice.shape == shape) return &choice;
  }
  return nullptr;
}

// Rows that share an algorithm.
int64_t bucket_of(int64_t rows) {
  int64_t step = 512;
  if (rows <= 16)
    step = rows <= 1 ? 1 : 16;
  else if (rows <= 64)
    step = 16;
  else if (rows <= 256)
    step = 32;
  else if (rows <= 1024)
    step = 64;
  return (rows + step - 1) / step * step;
}

Shape shape_of(const Product &call) {
  return {call.outputs,  call.inputs, bucket_of(call.rows), call.x_stride,
          call.y_stride, call.order,  call.is_half,         call.is_half_output,
          call.adds,     call.batch,  call.workspace_bytes};
}

}  // namespace

cudaError_t products_create(Products **products) {
  auto made = std::unique_ptr<Products>(new (std::nothrow) Products);
  if (made == nullptr) return cudaErrorMemoryAllocation;
  const cublasStatus_t status = cublasLtCreate(&made->handle);
  if (status != CUBLAS_STATUS_SUCCESS) return error_of(status);
  *products = made.release();
  return cudaSuccess;
}

void products_destroy(Products *products) {
  if (products == nullptr) return;
  cublasLtDestroy(products->handle);
  delete products;
}

cudaError_t product(Products *products, cudaStream_t stream, const Product &call) {
  if (call.rows == 0) return cudaSuccess;
  const Shape shape = shape_of(call);
  Descriptors made;
  cublasStatus_t status = describe(call, call.rows, made);
  if (status != CUBLAS_STATUS_SUCCESS) return error_of(status);
  const Choice *choice = find(*products, shape);
  if (choice == nullptr) {
    Descriptors full;
    Choice guessed{shape, {}};
    status = describe(call, shape.bucket, full);
    if (status == CUBLAS_STATUS_SUCCESS) status = guess(*products, full, call.workspace_bytes, &guessed.algorithm);
    if (status != CUBLAS_STATUS_SUCCESS) return error_of(status);
    try {
      products->choices.push_back(guessed);
    } catch (const std::bad_alloc &) {
      return cudaErrorMemoryAllocation;
    }
    choice = &products->choices.back();
  }
  status = enqueue(*products, stream, call, made, choice->algorithm);
  if (status == CUBLAS_STATUS_SUCCESS || shape.bucket == call.rows) return error_of(status);
  // The bucket's algorithm does not take this number of rows.
  cublasLtMatmulAlgo_t algorithm;
  status = guess(*products, made, call.workspace_bytes, &algorithm);
  if (status == CUBLAS_STATUS_SUCCESS) status = enqueue(*products, stream, call, made, algorithm);
  return error_of(status);
}

// ---- quantised weights to plain ones

namespace {

constexpr int expand_threads = 256, expand_numbers = 8;  // of a thread: 16 bytes of half

// Eight values that follow one another in the matrix's order, beginning at number `at`.
template <Format format>
__device__ void load_eight(const void *values, const void *scales, int64_t at, float (&out)[8]) {
  if constexpr (format == Format::f32) {
    const auto *from = static_cast<const float4 *>(values) + at / 4;
    const float4 low = from[0], high = from[1];
    out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
    out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
  } else if constexpr (format == Format::f16) {
    const uint4 packed = static_cast<const uint4 *>(values)[at / 8];
    const auto *pairs = reinterpret_cast<const __half2 *>(&packed);
    for (int i = 0; i < 4; ++i) {
      const float2 pair = __half22float2(pairs[i]);
      out[2 * i] = pair.x, out[2 * i + 1] = pair.y;
    }
  } else if constexpr (format == Format::q8 || format == Format::q8_affine) {
    const uint2 packed = static_cast<const uint2 *>(values)[at / 8];
    const auto *q = reinterpret_cast<const int8_t *>(&packed);
    float scale, offset = 0;
    if constexpr (format == Format::q8) {
      scale = __half2float(static_cast<const __half *>(scales)[at / 32]);
    } else {
      const float4 parts = static_cast<const float4 *>(scales)[at / 32];
      scale = at % 32 < 16 ? parts.x : parts.y;
      offset = parts.z;
    }
    for (int i = 0; i < 8; ++i) out[i] = fmaf(scale, q[i], offset);
  } else {  // q4, q4_affine: inputs 0 to 15 of a block are low nibbles, 16 to 31 the high ones of the same bytes
    const int part = static_cast<int>(at % 32 / 8);
    const uint2 packed = static_cast<const uint2 *>(values)[at / 32 * 2 + part % 2];
    const auto *bytes = reinterpret_cast<const uint8_t *>(&packed);
    float scale, offset;
    if constexpr (format == Format::q4) {
      scale = __half2float(static_cast<const __half *>(scales)[at / 32]);
      offset = -8 * scale;
    } else {
      const float2 parts = static_cast<const float2 *>(scales)[at / 32];
      scale = parts.x, offset = parts.y;
    }
    for (int i = 0; i < 8; ++i)
      out[i] = fmaf(scale, static_cast<float>(part < 2 ? bytes[i] & 15 : bytes[i] >> 4), offset);
  }
}

__device__ void store_eight(__half *to, const float (&values)[8]) {
  uint4 packed;
  auto *pairs = reinterpret_cast<__half2 *>(&packed);
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2half2_rn(values[2 * i], values[2 * i + 1]);
  *reinterpret_cast<uint4 *>(to) = packed;
}

__device__ void store_eight(float *to, const float (&values)[8]) {
  reinterpret_cast<float4 *>(to)[0] = make_float4(values[0], values[1], values[2], values[3]);
  reinterpret_cast<float4 *>(to)[1] = make_float4(values[4], values[5], values[6], values[7]);
}

template <Format format, class T>
__global__ void __launch_bounds__(expand_threads)
    expand_rows(const void *values, const void *scales, int64_t count, T *to) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * expand_threads + threadIdx.x) * expand_numbers;
  if (at >= count) return;
  float numbers[8];
  load_eight<format>(values, scales, at, numbers);
  store_eight(to + at, numbers);
}

// q8 in columns: a number has the scale of its output and its block of 32 inputs.
template <class T>
__global__ void __launch_bounds__(expand_threads)
    expand_q8_columns(const void *values, const __half *scales, int64_t outputs, int64_t count, T *to) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * expand_threads + threadIdx.x) * expand_numbers;
  if (at >= count) return;
  const int64_t input = at / outputs, output = at % outputs;
  const uint2 packed = static_cast<const uint2 *>(values)[at / 8];
  const auto *q = reinterpret_cast<const int8_t *>(&packed);
  float numbers[8];
  load_eight<Format::f16>(scales, nullptr, input / 32 * outputs + output, numbers);
  for (int i = 0; i < 8; ++i) numbers[i] *= q[i];
  store_eight(to + at, numbers);
}

template <class T>
cudaError_t expand_to(cudaStream_t stream, const Matrix &matrix, T *to) {
  const int64_t count = matrix.outputs * matrix.inputs;
  const int64_t in_block = int64_t{expand_threads} * expand_numbers;
  const auto blocks = static_cast<unsigned>((count + in_block - 1) / in_block);
  const void *values = matrix.values, *scales = matrix.scales;
  switch (matrix.format) {
    case Format::f32:
      expand_rows<Format::f32, T><<<blocks, expand_threads, 0, stream>>>(values, scales, count, to);
      break;
    case Format::f16:
      expand_rows<Format::f16, T><<<blocks, expand_threads, 0, stream>>>(values, scales, count, to);
      break;
    case Format::q8:
      if (matrix.order == Order::columns) {
        expand_q8_columns<T><<<blocks, expand_threads, 0, stream>>>(values, static_cast<const __half *>(scales),
                                                                    matrix.outputs, count, to);
      } else {
        expand_rows<Format::q8, T><<<blocks, expand_threads, 0, stream>>>(values, scales, count, to);
      }
      break;
    case Format::q4:
      expand_rows<Format::q4, T><<<blocks, expand_threads, 0, stream>>>(values, scales, count, to);
      break;
    case Format::q4_affine:
      expand_rows<Format::q4_affine, T><<<blocks, expand_threads, 0, stream>>>(values, scales, count, to);
      break;
    case Format::q8_affine:
      expand_rows<Format::q8_affine, T><<<blocks, expand_threads, 0, stream>>>(values, scales, count, to);
      break;
    default:
      return cudaErrorNotSupported;
  }
  return cudaGetLastError();
}

}  // namespace

bool can_expand(const Matrix &matrix) {
  if (matrix.outputs * matrix.inputs % expand_numbers != 0) return false;
  const bool is_plain = matrix.format == Format::f32 || matrix.format == Format::f16;
  if (is_plain) return true;
  if (matrix.format == Format::bf16 || matrix.inputs % 32 != 0) return false;
  return matrix.order == Order::rows || (matrix.format == Format::q8 && matrix.outputs % expand_numbers == 0);
}

cudaError_t expand(cudaStream_t stream, const Matrix &matrix, bool to_half, void *to) {
  return to_half ? expand_to(stream, matrix, static_cast<__half *>(to))
                 : expand_to(stream, matrix, static_cast<float *>(to));
}

}  // namespace libwkv::cuda
