// SPDX-License-Identifier: Apache-2.0
// The part of Python's pickle format that files of weights need. It builds values and never calls anything: the few
// callables that it knows by name are turned into records, all others are refused.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "formats/checkpoint.h"

namespace libwkv::formats {

struct PickleValue {
  enum class Kind : uint8_t {
    none,
    boolean,
    integer,
    big_integer,
    real,
    text,
    callable,
    tuple,
    list,
    dict,
    storage,
    tensor
  };
  Kind kind = Kind::none;
  uint32_t index = 0;  // text: offset in the pickle; tuple: first item; list, dict, storage, tensor: which
  int64_t number = 0;  // integer, boolean: the value; text, tuple: length; callable: which
};

// A storage as named by the pickle: raw numbers that lie elsewhere in the file.
struct PickleStorage {
  std::string_view key;
  std::optional<StoredType> type;  // none: a type that no weight of ours has
  std::string_view type_name;
  int64_t values = 0;
};

struct PickleTensor {
  uint32_t storage = 0;
  int64_t offset = 0;
  std::vector<int64_t> shape, strides;
};

class Unpickler {
 public:
  // bytes must live as long as this object; name is for messages.
  Unpickler(std::span<const std::byte> bytes, std::string name);

  // Runs one pickle from the current position to its STOP.
  PickleValue run();
  size_t position() const { return position_; }

  std::string_view text(const PickleValue &value) const;
  std::span<const PickleValue> tuple(const PickleValue &value) const;
  const std::vector<PickleValue> &list(const PickleValue &value) const { return lists_[value.index]; }
  // Alternating keys and values.
  const std::vector<PickleValue> &dict(const PickleValue &value) const { return dicts_[value.index]; }
  // The value under a text key of a dict; NULL when there is none.
  const PickleValue *find(const PickleValue &dictionary, std::string_view key) const;
  const PickleTensor &tensor(const PickleValue &value) const { return tensors_[value.index]; }
  const std::vector<PickleStorage> &storages() const { return storages_; }

 private:
  using Kind = PickleValue::Kind;
  void push(PickleValue value);
  PickleValue pop();
  PickleValue &top();
  size_t pop_mark();
  void make_tuple(size_t first);
  void set_items(size_t first);
  void append(size_t first);
  void remember(uint64_t slot);
  void recall(uint64_t slot);
  void push_text(uint64_t size);
  void push_long(uint64_t size);
  void push_global(std::string_view module, std::string_view member);
  void reduce();
  void rebuild_tensor(std::span<const PickleValue> arguments);
  void push_storage();
  void spend(size_t cells);
  std::string_view read_line();
  std::span<const std::byte> read(uint64_t size);
  template <class T>
  T read_number();
  [[noreturn]] void fail_here(wkv_status status, const char *what) const;

  std::span<const std::byte> bytes_;
  std::string name_;
  size_t position_ = 0;
  size_t cells_ = 0;
  std::vector<PickleValue> stack_, memo_, items_;
  std::vector<size_t> marks_;
  std::vector<std::vector<PickleValue>> lists_, dicts_;
  std::vector<PickleStorage> storages_;
  std::vector<PickleTensor> tensors_;
};

}  // namespace libwkv::formats
