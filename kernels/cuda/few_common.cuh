// SPDX-License-Identifier: Apache-2.0
// What the kernels of the few-rows way share: the instructions of Hopper they are built on, and the form activations
// have on the way into a tensor core product.
#pragma once

#include <cstdint>

#include <cuda_fp16.h>

#include "kernels/cuda/few.h"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define WKV_FEW_HAS_HOPPER 0  // kernels compile to something that few_fits keeps from running
#else
#define WKV_FEW_HAS_HOPPER 1
#endif

namespace libwkv::cuda::few {

// Programmatic dependent launch: every kernel lets the next one start as soon as all its own blocks run, and waits for
// the one before it once its weights are on their way. What is read before wait_for_predecessors must not have been
// written by this step: weights, states, the batch.
__device__ inline void launch_dependents() {
#if WKV_FEW_HAS_HOPPER
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ inline void wait_for_predecessors() {
#if WKV_FEW_HAS_HOPPER
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline uint32_t shared_address(const void *at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

// Barriers in shared memory that count arrivals and copied bytes.
__device__ inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
#if WKV_FEW_HAS_HOPPER
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
#endif
}
__device__ inline void barrier_init_fence() {
#if WKV_FEW_HAS_HOPPER
  asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
__device__ inline void barrier_arrive(uint32_t barrier) {
#if WKV_FEW_HAS_HOPPER
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
#endif
}
__device__ inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
#if WKV_FEW_HAS_HOPPER
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
#endif
}
__device__ inline void barrier_wait(uint32_t barrier, uint32_t parity) {
#if WKV_FEW_HAS_HOPPER
  uint32_t is_done;
  do {
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(is_done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
  } while (!is_done);
#endif
}

// Weights pass through the L2 cache once; activations should stay there.
__device__ inline uint64_t stream_policy() {
  uint64_t policy = 0;
#if WKV_FEW_HAS_HOPPER
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
  return policy;
}
// Copies of a thread, without registers on the way. (Bulk copies cost a warp some 50 cycles each: too much for rows of
// a kilobyte.) A barrier that covers them counts one arrival of the thread when they are all done.
__device__ inline void copy_16(uint32_t to, const void *from) {
#if WKV_FEW_HAS_HOPPER
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
#endif
}
__device__ inline void copy_16_streamed(uint32_t to, const void *from, uint64_t policy) {
#if WKV_FEW_HAS_HOPPER
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "l"(policy)
               : "memory");
#endif
}
// Without a branch.
__device__ inline void copy_16_if(bool is_wanted, uint32_t to, const void *from) {
#if WKV_FEW_HAS_HOPPER
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %0, 0; @p cp.async.cg.shared.global [%1], [%2], 16; }" ::"r"(
                   static_cast<int>(is_wanted)),
               "r"(to), "l"(from)
               : "memory");
#endif
}
__device__ inline void copy_8(uint32_t to, const void *from) {
#if WKV_FEW_HAS_HOPPER
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from) : "memory");
#endif
}
// Copies so far become a group; waits until at most `pending` groups are not done.
__device__ inline void copies_commit() {
#if WKV_FEW_HAS_HOPPER
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int pending>
__device__ inline void copies_wait() {
#if WKV_FEW_HAS_HOPPER
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}
__device__ inline void barrier_covers_copies(uint32_t barrier) {
#if WKV_FEW_HAS_HOPPER
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
#endif
}

// Bytes, addresses: multiples of 16.
__device__ inline void copy_bulk(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier) {
#if WKV_FEW_HAS_HOPPER
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
#endif
}

__device__ inline void cluster_arrive() {
#if WKV_FEW_HAS_HOPPER
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
__device__ inline void cluster_wait() {
#if WKV_FEW_HAS_HOPPER
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
// Writes to the place `to` of this block's shared memory has in block `rank` of the cluster.
__device__ inline void store_in_cluster(float2 *to, uint32_t rank, float2 value) {
#if WKV_FEW_HAS_HOPPER
  uint32_t remote;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(shared_address(to)), "r"(rank));
  asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(remote), "f"(value.x), "f"(value.y) : "memory");
#endif
}

// sums += A B: A is 16 outputs x 16 inputs, B 16 inputs x 8 columns.
__device__ inline void mma(float (&sums)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                           uint32_t b1) {
#if WKV_FEW_HAS_HOPPER
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#endif
}

// Bytes 0 and 1, or 2 and 3, of a word as two halves: 1024 + byte has the byte as the low bits of its mantissa. `zero`
// is what 0 is held as.
template <int pair>
__device__ inline uint32_t halves_of_bytes(uint32_t word, __half2 offset) {
  const uint32_t halves = __byte_perm(word, 0x64646464u, pair == 0 ? 0x4140 : 0x4342);
  const __half2 exact = __hsub2(*reinterpret_cast<const __half2 *>(&halves), offset);
  return *reinterpret_cast<const uint32_t *>(&exact);
}

__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(~0u, value, step);
  return value;
}
__device__ inline float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

// Operands. A tensor core multiplies halves, so an activation is two of them: x = high + low / 2048, exact to 22 bits
// (low is kept large, so that it does not run out of exponent). A row is then two columns of B. Memory holds, for each
// block of 32 inputs, the columns one after another: first `padded` rows' high parts, then their low ones, 32 halves
// each: what one warp reads of it has no bank conflicts, and any range of inputs is one copy.
// Rows are padded to 1, 2, 4, 8 or 16; what lies in unused ones is never looked at, as columns do not mix.
constexpr float low_scale = 2048;

__host__ __device__ constexpr int padded_rows(int rows) {
  return rows <= 1 ? 1 : rows <= 2 ? 2 : rows <= 4 ? 4 : rows <= 8 ? 8 : 16;
}
__host__ __device__ constexpr int64_t operand_halves(int64_t inputs, int padded) { return inputs * padded * 2; }

struct Parts {
  __half high, low;
};
__device__ inline Parts split(float x) {
  const float in_range = fminf(fmaxf(x, -65504.0f), 65504.0f);
  const __half high = __float2half_rn(in_range);
  return {high, __float2half_rn((in_range - __half2float(high)) * low_scale)};
}

// Where in a block of 32 an input lies. Lane t of four reads 8 halves in a row, four for each of two mma. With weights
// held by rows it reads 8 weights in a row, too. With weights held by columns (transposed by ldmatrix), inputs come in
// the mma's own order.
enum class InputOrder { consecutive, native };
__device__ inline int place_of(int input, InputOrder order) {
  return order == InputOrder::consecutive ? input : input % 8 / 2 * 8 + input / 8 * 2 + input % 2;
}
__device__ inline __half *operand_at(__half *operand, int padded, int row, int64_t input, InputOrder order) {
  return operand + (input / 32 * 2 * padded + row) * 32 + place_of(static_cast<int>(input % 32), order);
}
__device__ inline void put(__half *operand, int padded, int row, int64_t input, InputOrder order, float x) {
  const Parts parts = split(x);
  __half *to = operand_at(operand, padded, row, input, order);
  to[0] = parts.high;
  to[padded * 32] = parts.low;
}

// Tiles of 8 columns of B for padded rows, and what a lane sees of them.
__host__ __device__ constexpr int column_tiles(int padded) { return padded <= 4 ? 1 : padded / 4; }
template <int tiles>
constexpr int tile_rows = tiles == 1 ? 4 : tiles * 4;

// The column of the operand that lane group g (of 8) reads for a tile. With one tile, columns 0 to 3 are high parts and
// 4 to 7 low ones, whatever the number of rows.
template <int tiles>
__device__ inline int column_of(int tile, int g, int padded) {
  return tiles == 1 ? g / 4 * padded + g % 4 % padded : tile * 8 + g;
}

// The sums of high and low parts, joined: calls use(output of 16, row, value) for what this lane holds.
template <int tiles, class Use>
__device__ inline void join(const float (&sums)[tiles][4], int lane, Use use) {
  const int g = lane / 4, t = lane % 4;
  if constexpr (tiles == 1) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float low = __shfl_xor_sync(~0u, sums[0][i], 2);
      if (t < 2) use(g + i / 2 * 8, 2 * t + i % 2, sums[0][i] + low * (1 / low_scale));
    }
  } else {
#pragma unroll
    for (int tile = 0; tile < tiles / 2; tile++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        use(g + i / 2 * 8, tile * 8 + 2 * t + i % 2, sums[tile][i] + sums[tile + tiles / 2][i] * (1 / low_scale));
  }
}

// Squared ReLU passes the largest half: its operands hold x / hidden_scale.
constexpr float hidden_scale = 64;

}  // namespace libwkv::cuda::few
