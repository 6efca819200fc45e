// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/group_products.h"

#include <algorithm>

#include <cooperative_groups.h>

namespace libwkv::cuda {
namespace {

// A block multiplies 128 outputs, 64 for each of two warpgroups, by 32, 64 or 128 rows; 64 inputs a stage. Weights are
// the left operand (wgmma has always 64 there), so few rows waste little.
constexpr int tile_outputs = 128, stage_inputs = 64;
constexpr int threads = 256;
constexpr int line_bytes = 128;  // of shared memory: 64 halves, swizzled in pieces of 16 bytes
constexpr int weights_bytes = tile_outputs * line_bytes;
constexpr int sums_pitch = tile_outputs + 4;  // floats of a row: eight outputs by four pairs of rows hit all banks once
constexpr int blocks_on_processor = 2;
constexpr int most_parts = 8;  // that the inputs are cut in: a cluster of blocks, which add up their sums

__host__ __device__ constexpr int stages_of(int tile_rows) { return tile_rows == 32 ? 5 : tile_rows == 64 ? 4 : 3; }
__host__ __device__ constexpr int stage_bytes(int tile_rows) { return weights_bytes + tile_rows * line_bytes; }
constexpr int shared_bytes(int tile_rows) { return stages_of(tile_rows) * stage_bytes(tile_rows) + 1024; }
static_assert(128 * sums_pitch * int{sizeof(float)} <= 3 * stage_bytes(128));

struct Group {
  GroupProduct products[most_group_products];
  int first_tile[most_group_products + 1];  // of outputs, counted through all products
  int part_stages;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int group_outputs = 64;  // of a warpgroup

__device__ uint32_t shared_address(const void *at) { return static_cast<uint32_t>(__cvta_generic_to_shared(at)); }

// 16 bytes, or zeros when there is nothing to read.
__device__ void copy_async(uint32_t to, const __half *from, bool exists) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0) : "memory");
}
__device__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int left>
__device__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

// Where piece `piece` (16 bytes) of line `line` lies: the 128-byte swizzle of wgmma. Lines begin at multiples of 1024.
__device__ uint32_t swizzled(int line, int piece) { return line * line_bytes + ((piece ^ (line & 7)) << 4); }

// A matrix in shared memory for wgmma: 128-byte swizzle, groups of eight lines 1024 bytes apart.
__device__ uint64_t matrix_descriptor(uint32_t address) {
  constexpr uint64_t swizzle_128 = uint64_t{1} << 62, eight_lines = uint64_t{1024 >> 4} << 32,
                     unused = uint64_t{1} << 16;
  return swizzle_128 | eight_lines | unused | ((address & 0x3ffff) >> 4);
}

// d[64 outputs][rows] += W[64][16] x[rows][16]^T. Thread `lane` of warp `warp` has, for every eight rows j, d[4 j ...]
// at outputs 16 warp + lane / 4 (and + 8 for the last two) and rows 8 j + lane % 4 * 2, + 1.
__device__ void multiply_add(float (&d)[16], uint64_t weights, uint64_t x) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %16, %17, 1, 1, 1, 0, 0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
      : "l"(weights), "l"(x));
}

__device__ void multiply_add(float (&d)[32], uint64_t weights, uint64_t x) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, 1, 1, 1, 0, 0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "l"(weights), "l"(x));
}

// Inputs [stage * 64, + 64) of a tile of outputs, or of a tile of rows.
__device__ void load_weights(const GroupProduct &product, int output0, int stage, uint32_t to) {
#pragma unroll
  for (int i = threadIdx.x; i < tile_outputs * 8; i += threads) {
    const int line = i / 8, piece = i % 8, output = output0 + line, input = stage * stage_inputs + piece * 8;
    const bool exists = input < product.inputs && output < product.outputs;
    copy_async(to + swizzled(line, piece), product.weights + (exists ? int64_t{output} * product.inputs + input : 0),
               exists);
  }
}

template <int tile_rows>
__device__ void load_rows(const GroupProduct &product, int row0, int rows, int stage, uint32_t to) {
#pragma unroll
  for (int i = threadIdx.x; i < tile_rows * 8; i += threads) {
    const int line = i / 8, piece = i % 8, row = row0 + line, input = stage * stage_inputs + piece * 8;
    const bool exists = input < product.inputs && row < rows;
    copy_async(to + swizzled(line, piece), product.x + (exists ? int64_t{row} * product.inputs + input : 0), exists);
  }
}

__device__ float activate(GroupActivation activation, float x) {
  switch (activation) {
    case GroupActivation::tanh:
      return tanhf(x);
    case GroupActivation::sigmoid:
      return 1.0f / (1.0f + expf(-x));
    default:
      return x;
  }
}

// Four outputs of a row.
__device__ void finish(const GroupProduct &product, int64_t row, int output, float4 sum) {
  float values[4] = {sum.x, sum.y, sum.z, sum.w};
  for (float &value : values) value = activate(product.activation, value);
  const int64_t at = row * product.outputs + output;
  if (product.is_half_output) {
    const __half2 pairs[2] = {__floats2half2_rn(values[0], values[1]), __floats2half2_rn(values[2], values[3])};
    *reinterpret_cast<uint2 *>(static_cast<__half *>(product.y) + at) = *reinterpret_cast<const uint2 *>(pairs);
    return;
  }
  auto *to = reinterpret_cast<float4 *>(static_cast<float *>(product.y) + at);
  *to = make_float4(values[0], values[1], values[2], values[3]);
}

#endif

// Block: (tile of outputs of all products, tile of rows, part of the inputs). The parts of a tile are a cluster.
template <int tile_rows>
__global__ void __launch_bounds__(threads, blocks_on_processor)
    multiply_group(const __grid_constant__ Group group, int rows) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr int stages = stages_of(tile_rows), bytes = stage_bytes(tile_rows);
  constexpr int instruction_rows = tile_rows < 64 ? tile_rows : 64, instructions = tile_rows / instruction_rows;
  extern __shared__ __align__(1024) char memory[];
  const uint32_t shared = (shared_address(memory) + 1023) & ~1023u;  // the swizzle goes by the address
  int index = 0;
  while (static_cast<int>(blockIdx.x) >= group.first_tile[index + 1]) ++index;
  const GroupProduct &product = group.products[index];
  const int output0 = (blockIdx.x - group.first_tile[index]) * tile_outputs, row0 = blockIdx.y * tile_rows;
  const int all_stages = (product.inputs + stage_inputs - 1) / stage_inputs;
  const int begin = blockIdx.z * group.part_stages, count = min(group.part_stages, all_stages - begin);
  const auto place = [&](int stage) { return shared + stage % stages * bytes; };

  // The kernel behind may send for its weights as soon as there is room for it.
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#pragma unroll
  for (int stage = 0; stage < stages - 1; ++stage) {
    if (stage < count) load_weights(product, output0, begin + stage, place(stage));
  }
  asm volatile("griddepcontrol.wait;" ::: "memory");
#pragma unroll
  for (int stage = 0; stage < stages - 1; ++stage) {
    if (stage < count) load_rows<tile_rows>(product, row0, rows, begin + stage, place(stage) + weights_bytes);
    commit_copies();
  }

  const int warpgroup = threadIdx.x / 128;
  float sums[instructions][instruction_rows / 2] = {};
  for (int stage = 0; stage < count; ++stage) {
    wait_copies<stages - 2>();
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // copies are ordinary writes, wgmma reads otherwise
    __syncthreads();  // the stage is there for all, and all are done with the one before
    const int next = stage + stages - 1;
    if (next < count) {
      load_weights(product, output0, begin + next, place(next));
      load_rows<tile_rows>(product, row0, rows, begin + next, place(next) + weights_bytes);
    }
    commit_copies();
    const uint32_t weights = place(stage) + warpgroup * (group_outputs * line_bytes);
    const uint32_t x = place(stage) + weights_bytes;
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < stage_inputs / 16; ++k) {
      const uint64_t left = matrix_descriptor(weights + k * 32);
#pragma unroll
      for (int i = 0; i < instructions; ++i) {
        multiply_add(sums[i], left, matrix_descriptor(x + i * (64 * line_bytes) + k * 32));
      }
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }
  wait_copies<0>();
  __syncthreads();

  // Through shared memory, so that rows are written in whole lines.
  auto *tile = reinterpret_cast<float *>(memory);
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const int output = warpgroup * group_outputs + warp * 16 + lane / 4, row = lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < instructions; ++i) {
#pragma unroll
    for (int j = 0; j < instruction_rows / 8; ++j) {
      float *to = tile + (i * 64 + j * 8 + row) * sums_pitch + output;
      to[0] = sums[i][4 * j];
      to[sums_pitch] = sums[i][4 * j + 1];
      to[8] = sums[i][4 * j + 2];
      to[sums_pitch + 8] = sums[i][4 * j + 3];
    }
  }
  constexpr int row_quads = tile_outputs / 4;
  const int quads = min(tile_rows, rows - row0) * row_quads, parts = gridDim.z;
  const auto cluster = cooperative_groups::this_cluster();
  if (parts == 1) {
    __syncthreads();
  } else {
    cluster.sync();
  }
  // Each block of the cluster adds up and writes its share of the tile; parts in order, so that sums are always the
  // same.
  for (int i = blockIdx.z * threads + threadIdx.x; i < quads; i += parts * threads) {
    const int at = output0 + i % row_quads * 4;
    if (at >= product.outputs) continue;
    float *from = tile + i / row_quads * sums_pitch + i % row_quads * 4;
    float4 sum = make_float4(0, 0, 0, 0);
    if (parts == 1) {
      sum = *reinterpret_cast<const float4 *>(from);
    } else {
#pragma unroll
      for (int part = 0; part < most_parts; ++part) {
        if (part >= parts) break;
        const float4 one = *reinterpret_cast<const float4 *>(cluster.map_shared_rank(from, part));
        sum.x += one.x, sum.y += one.y, sum.z += one.z, sum.w += one.w;
      }
    }
    finish(product, row0 + i / row_quads, at, sum);
  }
  if (parts > 1) cluster.sync();  // others still read this block's sums
#else
  asm volatile("trap;");  // group_products_fit said no
#endif
}

// How many parts the inputs are cut in: so that blocks fill the multiprocessors evenly, but begin and end of a block,
// which cost about two stages, stay small.
int choose_parts(const Device &device, int tiles, int all_stages) {
  int best = 1;
  double best_score = 0;
  for (int parts = 1; parts <= most_parts; ++parts) {
    const int stages = (all_stages + parts - 1) / parts;
    if ((all_stages + stages - 1) / stages != parts) continue;  // the last ones would have nothing
    const int blocks = tiles * parts, rounds = (blocks + device.processors - 1) / device.processors;
    const double filled = static_cast<double>(blocks) / (static_cast<double>(rounds) * device.processors);
    const double score = filled * stages / (stages + 2);
    if (score > best_score) {
      best = parts;
      best_score = score;
    }
  }
  return best;
}

template <int tile_rows>
cudaError_t launch(cudaStream_t stream, const Device &device, Group &group, int count, int rows, bool begins_early) {
  const int output_tiles = group.first_tile[count], row_tiles = (rows + tile_rows - 1) / tile_rows;
  int all_stages = 0;
  bool are_alike = true;  // parts are for products with the same inputs
  for (int i = 0; i < count; ++i) {
    are_alike = are_alike && group.products[i].inputs == group.products[0].inputs;
    all_stages = std::max(all_stages, (group.products[i].inputs + stage_inputs - 1) / stage_inputs);
  }
  const int parts = are_alike ? choose_parts(device, output_tiles * row_tiles, all_stages) : 1;
  group.part_stages = (all_stages + parts - 1) / parts;

  constexpr auto kernel = multiply_group<tile_rows>;
  cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes(tile_rows));
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = begins_early ? 1 : 0;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = static_cast<unsigned>(parts);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(output_tiles, row_tiles, parts);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes(tile_rows);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = parts > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, group, rows);
}

}  // namespace

bool group_products_fit(const Device &device) {
  if (device.major != 9 || device.minor != 0) return false;
  // wgmma is there when this was compiled for sm_90a; for sm_90 alone the kernel is empty, which needs few registers.
  constexpr int most_stub_registers = 32;
  cudaFuncAttributes attributes;
  if (cudaFuncGetAttributes(&attributes, multiply_group<32>) != cudaSuccess) {
    (void)cudaGetLastError();
    return false;
  }
  return attributes.numRegs > most_stub_registers;
}

cudaError_t group_products(cudaStream_t stream, const Device &device, const GroupProduct *products, int32_t count,
                           int64_t rows, bool begins_early) {
  Group group{};
  for (int32_t i = 0; i < count; ++i) {
    group.products[i] = products[i];
    group.first_tile[i + 1] = group.first_tile[i] + (products[i].outputs + tile_outputs - 1) / tile_outputs;
  }
  const int n = static_cast<int>(rows);
  if (rows <= 32) return launch<32>(stream, device, group, count, n, begins_early);
  if (rows <= 384) return launch<64>(stream, device, group, count, n, begins_early);
  return launch<128>(stream, device, group, count, n, begins_early);
}

}  // namespace libwkv::cuda
