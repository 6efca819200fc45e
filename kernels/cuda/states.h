// SPDX-License-Identifier: Apache-2.0
// The pool of a model's states: slots of one size in chunks of device memory, and ways in and out of them.
#pragma once

#include <mutex>
#include <vector>

#include "kernels/cuda/failure.h"
#include "kernels/cuda/model.h"

namespace libwkv::cuda {

// Thread-safe. Everything goes through one stream, so that it comes after the steps before it.
class StatePool {
 public:
  bool begin(const StateShape &shape, cudaStream_t stream, kernels::DeviceFailure *failure);
  StatePool() = default;
  StatePool(const StatePool &) = delete;
  StatePool &operator=(const StatePool &) = delete;
  ~StatePool();

  void *allocate(kernels::DeviceFailure *failure);  // NULL on failure; any content
  void free(void *state);
  bool zero(void *state, kernels::DeviceFailure *failure);
  bool copy(const void *from, void *to, kernels::DeviceFailure *failure);
  // Floats of libwkv's layout: per layer att shift [C], ffn shift [C], WKV [H][N key][N value].
  bool read(const void *state, size_t first, size_t count, float *values, kernels::DeviceFailure *failure);
  bool write(void *state, size_t first, size_t count, const float *values, kernels::DeviceFailure *failure);
  void *place_of(void *state, size_t first) const;
  void *park(void *state, kernels::DeviceFailure *failure);
  void *unpark(void *parked, kernels::DeviceFailure *failure);
  void free_parked(void *parked);

 private:
  struct Chunk {
    char *memory;
    size_t slots, used;
  };
  size_t slot_bytes() const { return shape_.bytes(); }
  std::vector<Chunk>::iterator chunk_after(const char *place);
  bool is_same_layout() const;
  template <class Begin, class End>
  bool in_pieces(size_t first, size_t count, const Begin &begin, const End &end);

  StateShape shape_{};
  cudaStream_t stream_ = nullptr;
  std::mutex mutex_;           // of the slots
  std::vector<Chunk> chunks_;  // by address
  std::vector<char *> free_slots_;
  size_t used_ = 0;             // slots
  std::vector<void *> parked_;  // free places in pinned memory
  std::mutex staging_mutex_;    // of the pinned buffer
  float *staging_ = nullptr;    // pinned
  float *device_staging_ = nullptr;
  cudaEvent_t is_there_[2] = {};  // a half of the pinned buffer has arrived
};

}  // namespace libwkv::cuda
