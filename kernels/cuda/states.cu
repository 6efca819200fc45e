// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/states.h"

#include <algorithm>
#include <cstring>

namespace libwkv::cuda {
namespace {

constexpr size_t chunk_bytes = size_t{64} << 20;  // of slots taken from the driver at once, where one is smaller
constexpr size_t piece_floats = size_t{1} << 20;  // that travel at once: half of the pinned buffer

// Where float `at` of libwkv's layout lies; is_half says whether it is stored as half.
__host__ __device__ char *place(const StateShape &shape, char *state, size_t at, bool *is_half) {
  const size_t shifts = 2 * static_cast<size_t>(shape.width);
  const size_t layer_floats = shifts + static_cast<size_t>(shape.heads * shape.head_size * shape.head_size);
  const size_t layer = at / layer_floats, within = at % layer_floats;
  char *begin = state + shape.att_shift(static_cast<int64_t>(layer));
  *is_half = shape.is_half && within >= shifts;
  if (within < shifts) return begin + within * 4;
  return begin + shifts * 4 + (within - shifts) * (shape.is_half ? 2 : 4);
}

__global__ void gather(StateShape shape, const char *state, size_t first, size_t count, float *values) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<size_t>(gridDim.x) * blockDim.x) {
    bool is_half;
    const char *from = place(shape, const_cast<char *>(state), first + i, &is_half);
    values[i] =
        is_half ? __half2float(*reinterpret_cast<const __half *>(from)) : *reinterpret_cast<const float *>(from);
  }
}

__global__ void scatter(StateShape shape, char *state, size_t first, size_t count, const float *values) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<size_t>(gridDim.x) * blockDim.x) {
    bool is_half;
    char *to = place(shape, state, first + i, &is_half);
    if (is_half)
      *reinterpret_cast<__half *>(to) = __float2half_rn(fminf(fmaxf(values[i], -65504.0f), 65504.0f));
    else
      *reinterpret_cast<float *>(to) = values[i];
  }
}

}  // namespace

bool StatePool::begin(const StateShape &shape, cudaStream_t stream, kernels::DeviceFailure *failure) {
  shape_ = shape;
  stream_ = stream;
  for (cudaEvent_t &event : is_there_)
    if (!check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event", failure)) return false;
  return check(cudaMallocHost(&staging_, 2 * piece_floats * sizeof(float)), "pinned memory", failure) &&
         check(cudaMalloc(&device_staging_, 2 * piece_floats * sizeof(float)), "states on their way", failure);
}

StatePool::~StatePool() {
  for (const Chunk &chunk : chunks_) (void)cudaFree(chunk.memory);
  for (void *place : parked_) (void)cudaFreeHost(place);
  for (cudaEvent_t event : is_there_)
    if (event) (void)cudaEventDestroy(event);
  (void)cudaFreeHost(staging_);
  (void)cudaFree(device_staging_);
}

// The first chunk that begins behind a place.
std::vector<StatePool::Chunk>::iterator StatePool::chunk_after(const char *place) {
  return std::upper_bound(chunks_.begin(), chunks_.end(), place,
                          [](const char *at, const Chunk &chunk) { return at < chunk.memory; });
}

void *StatePool::allocate(kernels::DeviceFailure *failure) {
  std::lock_guard lock(mutex_);
  if (free_slots_.empty()) {
    // Few at first, more as more are wanted; where the device has not that much left, one.
    size_t total = 0;
    for (const Chunk &chunk : chunks_) total += chunk.slots;
    size_t slots = std::clamp<size_t>(chunk_bytes / slot_bytes(), 1, std::max<size_t>(total, 1));
    char *memory = nullptr;
    cudaError_t error = cudaMalloc(&memory, slots * slot_bytes());
    if (error == cudaErrorMemoryAllocation && slots > 1) {
      (void)cudaGetLastError();
      slots = 1;
      error = cudaMalloc(&memory, slot_bytes());
    }
    if (!check(error, "a state", failure)) return nullptr;
    chunks_.insert(chunk_after(memory), {memory, slots, 0});
    free_slots_.reserve(free_slots_.size() + slots);
    for (size_t i = slots; i-- > 0;) free_slots_.push_back(memory + i * slot_bytes());
  }
  char *slot = free_slots_.back();
  free_slots_.pop_back();
  used_++;
  (chunk_after(slot) - 1)->used++;
  return slot;
}

void StatePool::free(void *state) {
  std::lock_guard lock(mutex_);
  char *slot = static_cast<char *>(state);
  free_slots_.push_back(slot);
  const auto chunk = chunk_after(slot) - 1;
  used_--;
  if (--chunk->used > 0 || free_slots_.size() <= 2 * (used_ + chunk->slots)) return;
  // Nobody uses the chunk, and more than twice what is in use is free: it goes back. Steps that write into spare states
  // free and take as many as there are, again and again, which must cost nothing.
  std::erase_if(free_slots_,
                [&](char *one) { return one >= chunk->memory && one < chunk->memory + chunk->slots * slot_bytes(); });
  cudaFree(chunk->memory);
  chunks_.erase(chunk);
}

bool StatePool::zero(void *state, kernels::DeviceFailure *failure) {
  return check(cudaMemsetAsync(state, 0, slot_bytes(), stream_), "clearing a state", failure);
}

bool StatePool::copy(const void *from, void *to, kernels::DeviceFailure *failure) {
  return check(cudaMemcpyAsync(to, from, slot_bytes(), cudaMemcpyDeviceToDevice, stream_), "copying a state", failure);
}

void *StatePool::place_of(void *state, size_t first) const {
  bool is_half;
  return place(shape_, static_cast<char *>(state), first, &is_half);
}

void *StatePool::park(void *state, kernels::DeviceFailure *failure) {
  void *place = nullptr;
  {
    std::lock_guard lock(mutex_);
    if (!parked_.empty()) {
      place = parked_.back();
      parked_.pop_back();
    }
  }
  if (!place && cudaMallocHost(&place, slot_bytes()) != cudaSuccess) {
    (void)cudaGetLastError();
    fail(failure, status_out_of_memory, "no pinned memory for a state of %zu bytes", slot_bytes());
    return nullptr;
  }
  if (!check(cudaMemcpyAsync(place, state, slot_bytes(), cudaMemcpyDeviceToHost, stream_), "parking a state",
             failure) ||
      !check(cudaStreamSynchronize(stream_), "parking a state", failure)) {
    free_parked(place);
    return nullptr;
  }
  free(state);
  return place;
}

void *StatePool::unpark(void *parked, kernels::DeviceFailure *failure) {
  void *state = allocate(failure);
  if (!state) return nullptr;
  if (!check(cudaMemcpyAsync(state, parked, slot_bytes(), cudaMemcpyHostToDevice, stream_), "fetching a state",
             failure) ||
      !check(cudaStreamSynchronize(stream_), "fetching a state", failure)) {
    free(state);
    return nullptr;
  }
  free_parked(parked);
  return state;
}

// Pinning memory takes the driver a millisecond: a few places are kept.
void StatePool::free_parked(void *parked) {
  constexpr size_t most_kept = 8;
  std::lock_guard lock(mutex_);
  if (parked_.size() < most_kept)
    parked_.push_back(parked);
  else
    (void)cudaFreeHost(parked);
}

// Whether numbers lie on the device as the host has them: then they are copied as they are.
bool StatePool::is_same_layout() const {
  const size_t floats = static_cast<size_t>(shape_.width * 2 + shape_.heads * shape_.head_size * shape_.head_size);
  return !shape_.is_half && shape_.layer_bytes() == floats * sizeof(float);
}

// Pieces in turn through the two halves of the pinned buffer: while one is on the bus, the host copies the other.
template <class Begin, class End>
bool StatePool::in_pieces(size_t first, size_t count, const Begin &begin, const End &end) {
  std::lock_guard lock(staging_mutex_);
  const size_t pieces = (count + piece_floats - 1) / piece_floats;
  const auto floats_of = [&](size_t piece) { return std::min(piece_floats, count - piece * piece_floats); };
  for (size_t piece = 0; piece <= pieces; piece++) {
    if (piece < pieces && !begin(first + piece * piece_floats, piece, floats_of(piece))) return false;
    if (piece > 0 && !end(piece - 1, floats_of(piece - 1))) return false;
  }
  return true;
}

bool StatePool::read(const void *state, size_t first, size_t count, float *values, kernels::DeviceFailure *failure) {
  const auto begin = [&](size_t from, size_t piece, size_t numbers) {
    const char *source = static_cast<const char *>(state) + from * sizeof(float);
    if (!is_same_layout()) {
      float *gathered = device_staging_ + piece % 2 * piece_floats;
      gather<<<256, 256, 0, stream_>>>(shape_, static_cast<const char *>(state), from, numbers, gathered);
      if (!check(cudaGetLastError(), "reading a state", failure)) return false;
      source = reinterpret_cast<const char *>(gathered);
    }
    return check(cudaMemcpyAsync(staging_ + piece % 2 * piece_floats, source, numbers * sizeof(float),
                                 cudaMemcpyDeviceToHost, stream_),
                 "reading a state", failure) &&
           check(cudaEventRecord(is_there_[piece % 2], stream_), "reading a state", failure);
  };
  const auto end = [&](size_t piece, size_t numbers) {
    if (!check(cudaEventSynchronize(is_there_[piece % 2]), "reading a state", failure)) return false;
    std::memcpy(values + piece * piece_floats, staging_ + piece % 2 * piece_floats, numbers * sizeof(float));
    return true;
  };
  return in_pieces(first, count, begin, end);
}

bool StatePool::write(void *state, size_t first, size_t count, const float *values, kernels::DeviceFailure *failure) {
  const auto begin = [&](size_t to, size_t piece, size_t numbers) {
    float *staged = staging_ + piece % 2 * piece_floats;
    std::memcpy(staged, values + piece * piece_floats, numbers * sizeof(float));
    const bool is_same = is_same_layout();
    float *target = is_same ? reinterpret_cast<float *>(static_cast<char *>(state) + to * sizeof(float))
                            : device_staging_ + piece % 2 * piece_floats;
    if (!check(cudaMemcpyAsync(target, staged, numbers * sizeof(float), cudaMemcpyHostToDevice, stream_),
               "writing a state", failure))
      return false;
    if (!is_same) {
      scatter<<<256, 256, 0, stream_>>>(shape_, static_cast<char *>(state), to, numbers, target);
      if (!check(cudaGetLastError(), "writing a state", failure)) return false;
    }
    return check(cudaEventRecord(is_there_[piece % 2], stream_), "writing a state", failure);
  };
  const auto end = [&](size_t piece, size_t) {
    return check(cudaEventSynchronize(is_there_[piece % 2]), "writing a state", failure);
  };
  return in_pieces(first, count, begin, end);
}

}  // namespace libwkv::cuda
