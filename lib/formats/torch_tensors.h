// SPDX-License-Identifier: Apache-2.0
// What both containers of torch.save share: the pickled dict of tensors over named storages.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "formats/pickle.h"
#include "formats/readers.h"

namespace libwkv::formats {

// Longest pickle read. The largest released checkpoint has 250 KB.
inline constexpr size_t longest_pickle = size_t{16} << 20;

// The tensors of the dict `root`. find_storage gives the bytes of a storage, exactly storage_bytes(storage) of them.
std::vector<RawTensor> collect_tensors(
    const Unpickler &pickle, const PickleValue &root, const std::shared_ptr<const Mapping> &file,
    const std::function<std::span<const std::byte>(const PickleStorage &)> &find_storage);

// Size of a storage; throws WKV_UNSUPPORTED for number types that weights do not have.
uint64_t storage_bytes(const PickleStorage &storage, const std::string &file_name);

}  // namespace libwkv::formats
