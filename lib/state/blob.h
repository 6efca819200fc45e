// SPDX-License-Identifier: Apache-2.0
// A state, and what goes with it, as bytes that any machine and any later version can read. README.md has the format.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <wkv/blob.h>

#include "base/byte_source.h"
#include "model/hyper_parameters.h"
#include "state/cache.h"

namespace libwkv {

inline constexpr uint32_t blob_version = 1;
// A header is never longer: so many bytes from the beginning are enough to read it.
inline constexpr size_t blob_header_bytes_max = 4096;

// The model that a blob belongs to.
struct ModelIdentity {
  ModelIdentity() = default;
  ModelIdentity(const HyperParameters &hyper, uint64_t fingerprint_of_weights);
  bool operator==(const ModelIdentity &) const = default;

  uint64_t fingerprint = 0;
  int32_t layers = 0, width = 0, heads = 0, head_size = 0, vocab_size = 0;
};

enum class BlobSection : uint32_t { tokens = 1, state = 2, sampler = 3, generation = 4, logits = 5 };

// What a blob is made of. Everything is borrowed; empty: there is no such section.
struct BlobParts {
  const Moment &moment;
  wkv_type state_type = WKV_TYPE_F32;    // or F16
  std::span<const int32_t> tokens = {};  // the whole sequence: as many as moment.position
  std::span<const std::byte> sampler = {}, generation = {};
  std::span<const float> logits = {};  // vocab_size of them
};

// The state must not change while a writer lives.
class BlobWriter {
 public:
  // Throws WKV_INVALID for a type or count that a blob cannot have.
  BlobWriter(const ModelIdentity &model, const BlobParts &parts);

  uint64_t bytes() const { return bytes_; }
  // to: exactly bytes(); of any content after a failure. Throws WKV_INVALID for a number that is not finite, or that
  // F16 cannot hold.
  void write(std::span<std::byte> to);
  // The same bytes as a file that appears whole or not at all; nothing is touched when a number is refused. Needs no
  // memory of the state's size, unless the state lies on a device.
  void save(const std::string &path);

 private:
  struct Section {
    BlobSection kind;
    uint64_t offset, bytes, checksum;
  };
  template <class Place>
  uint64_t encode_state(const float *floats, Place &&place) const;
  std::optional<StateView> view() const;                          // of the state, if there is one
  std::span<const std::byte> content_of(BlobSection kind) const;  // of all but the state
  std::vector<std::byte> header() const;

  ModelIdentity model_;
  const BlobParts parts_;
  std::vector<Section> sections_;
  uint64_t bytes_ = 0;
};

// What a blob says of itself.
struct BlobHeader {
  struct Section {
    BlobSection kind;
    bool may_be_skipped;
    uint64_t offset, bytes, checksum;
  };
  uint32_t format_version;
  uint64_t bytes;  // of the whole blob
  ModelIdentity model;
  uint64_t position;
  LastTokens last_tokens;
  wkv_type state_type;
  size_t header_bytes;
  std::vector<Section> sections;  // one behind the other

  const Section *find(BlobSection kind) const;  // NULL: there is none
  // Throws WKV_MISMATCH naming what differs; the message begins with `name`.
  void expect_model(const ModelIdentity &expected, const char *name) const;
};

// Reads and checks a header from a blob's beginning: all of the blob, or at least its first blob_header_bytes_max
// bytes. Throws WKV_FORMAT or WKV_UNSUPPORTED; messages begin with `name`.
BlobHeader read_blob_header(std::span<const std::byte> beginning, const char *name);
// The same of a source, whose length must be the blob's.
BlobHeader read_blob_header(ByteSource &source);

// The token ids of the whole sequence, read and checked without the rest of the blob; empty when it has none.
std::vector<int32_t> read_blob_tokens(ByteSource &source, const BlobHeader &header);

struct BlobContent {
  BlobHeader header;
  Moment moment;  // without a state when the blob has no such section: all zero
  std::vector<int32_t> tokens;
  std::vector<std::byte> sampler, generation;
  std::vector<float> logits;
};

// Everything, with every byte of the source checked. Memory is taken only for what the model's sizes and the source's
// length allow. Throws WKV_FORMAT, WKV_UNSUPPORTED, WKV_MISMATCH, WKV_IO or WKV_OUT_OF_MEMORY.
// make_room gives the state to write into, which nobody reads meanwhile; it is not called before the header and the
// model were found right, and not at all for a blob without a state section, whose state is all zero.
BlobContent read_blob(ByteSource &source, const ModelIdentity &model, const std::function<StateHold()> &make_room);
// The same with room from an account.
BlobContent read_blob(ByteSource &source, const ModelIdentity &model, const std::shared_ptr<MemoryAccount> &account,
                      Holder holder);

}  // namespace libwkv
