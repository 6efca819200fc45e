// SPDX-License-Identifier: Apache-2.0
// What the streaming kernel is made of below its arithmetic: bulk copies into shared memory that complete on barriers,
// and words of global memory that carry values from block to block without a barrier between them.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

namespace libwkv::cuda::stream_parts {

// Builds for tests stop instead of waiting for ever when the protocol is broken.
#ifdef WKV_STREAM_SPIN_LIMIT
struct Spin {
  int count = 0;
  __device__ void again() {
    if (++count > WKV_STREAM_SPIN_LIMIT) __trap();
  }
};
#else
struct Spin {
  __device__ void again() {}
};
#endif

// ---- barriers in shared memory, by their shared-window addresses

__device__ inline uint32_t shared_address(const void *at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

__device__ inline void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
__device__ inline void barrier_init_done() {
  asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void barrier_arrive(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ inline void barrier_wait(uint32_t barrier, uint32_t phase) {
  uint32_t is_done;
  Spin spin;
  do {
    asm volatile("{.reg .pred done; mbarrier.try_wait.parity.shared.b64 done, [%1], %2; selp.u32 %0, 1, 0, done;}"
                 : "=r"(is_done)
                 : "r"(barrier), "r"(phase)
                 : "memory");
    if (!is_done) spin.again();
  } while (!is_done);
}

// ---- bulk copies: addresses and sizes are multiples of 16

// Weights that one block alone reads: not worth a place in L2, where vectors and states should stay.
__device__ inline uint64_t read_once_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ inline void bulk_copy_once(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier,
                                      uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}
__device__ inline void bulk_copy(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}

// ---- the ring: slots of equal size that the producer fills in order. A stage's data are chunks of a slot each. Long
// stages free chunks as they go, each warp for itself; short ones leave it to one warp, which does it for all of them
// after the next barrier of the block.

struct RingShape {
  uint32_t full, empty;  // barriers, 8 bytes a slot
  int slots, in_flight;  // chunks on their way at most: more of them only make other reads wait
  uint32_t slot_bytes;
};

struct Producer {
  RingShape ring;
  int slot = 0, begun = 0;
  uint32_t phase = 1;  // a barrier that was never completed passes for the phase before

  // Waits for the slot to be free; returns where it is.
  __device__ uint32_t begin(uint32_t bytes) {
    barrier_wait(ring.empty + 8 * slot, phase);
    if (begun++ >= ring.in_flight) {
      const bool is_last_turn = slot < ring.in_flight;
      barrier_wait(ring.full + 8 * (slot - ring.in_flight + (is_last_turn ? ring.slots : 0)), phase ^ !is_last_turn);
    }
    barrier_expect(ring.full + 8 * slot, bytes);
    return slot * ring.slot_bytes;
  }
  __device__ uint32_t barrier() const { return ring.full + 8 * slot; }
  __device__ void end() {
    if (++slot == ring.slots) slot = 0, phase ^= 1;
  }
};

// A warp's view; the same in all its lanes. Chunks are counted from the stage's first one.
struct Consumer {
  RingShape ring;
  int seen = 0, seen_slot = 0;  // chunks known to have arrived
  uint32_t seen_phase = 0;
  int freed = 0, freed_slot = 0;
  int ended = 0, ended_slot = 0;  // chunks of short stages that are to be freed

  __device__ void wait(int chunk) {
#pragma unroll 1
    while (seen <= chunk) {
      barrier_wait(ring.full + 8 * seen_slot, seen_phase);
      seen++;
      if (++seen_slot == ring.slots) seen_slot = 0, seen_phase ^= 1;
    }
  }
  // Frees the chunks before this one, each as soon as it has arrived: later ones may need its slot. A warp never frees
  // what it has not seen arrive: it would be a turn ahead of the barrier's count.
  __device__ void free_before(int chunk) {
#pragma unroll 1
    while (freed < chunk) {
      wait(freed);
      __syncwarp();
      if (threadIdx.x % 32 == 0) barrier_arrive(ring.empty + 8 * freed_slot);
      freed++;
      if (++freed_slot == ring.slots) freed_slot = 0;
    }
  }
  __device__ void end_stage(int chunks, bool is_long) {
    if (is_long) {
      free_before(chunks);
    } else {
      if (ended == 0) ended_slot = freed_slot;
      ended += chunks;
      freed_slot = freed_slot + chunks;
      if (freed_slot >= ring.slots) freed_slot -= ring.slots;
      // Chunks that other warps waited for.
      seen_slot += chunks - seen;
      if (seen_slot >= ring.slots) seen_slot -= ring.slots, seen_phase ^= 1;
    }
    seen = freed = 0;
  }
  // After a barrier of all consumers: what was ended before it is read, and so has arrived.
  __device__ void free_ended(bool is_freer, int warps) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (is_freer && lane < ended) {
      int slot = ended_slot + lane;
      if (slot >= ring.slots) slot -= ring.slots;
      barrier_arrive(ring.empty + 8 * slot, warps);
    }
    ended = 0;
  }
  // Byte in shared memory where a chunk that is not freed lies.
  __device__ uint32_t at(int chunk) const {
    int slot = freed_slot + chunk - freed;
    if (slot >= ring.slots) slot -= ring.slots;
    return slot * ring.slot_bytes;
  }
};

// ---- words between blocks. No fence and no flag: a word says itself whether it is there, and readers ask for the
// words they need until all are.

// Where word i of a vector lies: four words a line of 128 bytes. Atomics of many blocks on one line wait for one
// another: 132 blocks adding to 768 dense words take twice as long as to these.
template <class Index>
__device__ inline Index apart(Index i) {
  return (i / 4) * 16 + i % 4;
}

// A value with the number of its use.
__device__ inline void publish(uint64_t *word, float value, uint32_t use) {
  const uint64_t both = static_cast<uint64_t>(use) << 32 | __float_as_uint(value);
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(word), "l"(both) : "memory");
}

// A sum of values from several blocks, the same in whatever order they come: fixed point, with the count of those that
// came in the low bits.
constexpr int count_bits = 8;
constexpr float fixed_one = 1073741824.0f;  // 2^30: sums to 2^25 with steps of 1e-9

__device__ inline void contribute(uint64_t *word, float value) {
  const int64_t fixed = __float2ll_rn(value * fixed_one);
  const uint64_t added = (static_cast<uint64_t>(fixed) << count_bits) + 1;
  asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(word), "l"(added) : "memory");
}
__device__ inline bool is_complete(uint64_t word, uint32_t count) {
  return (static_cast<uint32_t>(word) & ((1u << count_bits) - 1)) == count;
}
__device__ inline float sum_of(uint64_t word) {
  return __ll2float_rn(static_cast<int64_t>(word) >> count_bits) * (1.0f / fixed_one);
}

__device__ inline ulonglong2 load_words(const uint64_t *words) {
  ulonglong2 two;
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(two.x), "=l"(two.y) : "l"(words) : "memory");
  return two;
}

}  // namespace libwkv::cuda::stream_parts
