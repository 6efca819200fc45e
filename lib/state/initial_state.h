// SPDX-License-Identifier: Apache-2.0
// A tuned initial state from a file: what caches of a model may start from in place of zeros.
#pragma once

#include <memory>
#include <string>

#include <wkv/initial_state.h>

#include "state/state.h"

namespace libwkv {

class InitialState {
 public:
  // Throws Error as wkv_initial_state_load returns.
  InitialState(const HyperParameters &hyper, std::shared_ptr<MemoryAccount> account, const std::string &path,
               wkv_time_state_order order);

  const StateHold &state() const { return state_; }                           // held as a checkpoint
  const std::shared_ptr<MemoryAccount> &account() const { return account_; }  // its identity is the model's
  size_t bytes() const { return bytes_; }
  const std::string &warning() const { return warning_; }  // empty: nothing speaks for RWKV-6

 private:
  std::shared_ptr<MemoryAccount> account_;
  StateHold state_;
  size_t bytes_;
  std::string warning_;
};

}  // namespace libwkv
