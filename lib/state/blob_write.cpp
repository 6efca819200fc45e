// SPDX-License-Identifier: Apache-2.0
// Blobs out: all checksums lie in the header, so that a file takes one pass over the state for them and one to write.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/byte_stream.h"
#include "base/checksum.h"
#include "formats/file_writer.h"
#include "state/blob.h"
#include "state/blob_layout.h"
#include "state/blob_numbers.h"

namespace libwkv {
namespace {

using namespace blob_layout;

// Throws for the first number among floats [begin, end) that the blob cannot have.
[[noreturn]] void refuse_number(const float *floats, size_t begin, size_t end, const ModelIdentity &model,
                                wkv_type type) {
  size_t index = begin;
  while (index + 1 < end && std::fabs(floats[index]) < (type == WKV_TYPE_F16 ? 65520.0f : INFINITY)) index++;
  const size_t width = static_cast<size_t>(model.width);
  const size_t layer_floats = 2 * width + width * static_cast<size_t>(model.head_size);
  const size_t place = index % layer_floats;
  const char *part = place < width ? "att shift" : place < 2 * width ? "ffn shift" : "WKV";
  fail(WKV_INVALID, "the %s of layer %zu has the number %g, which %s", part, index / layer_floats,
       static_cast<double>(floats[index]),
       std::isfinite(floats[index]) ? "is too large for F16" : "is not finite: such a state cannot be saved");
}

}  // namespace

ModelIdentity::ModelIdentity(const HyperParameters &hyper, uint64_t fingerprint_of_weights)
    : fingerprint(fingerprint_of_weights),
      layers(static_cast<int32_t>(hyper.layers)),
      width(static_cast<int32_t>(hyper.width)),
      heads(static_cast<int32_t>(hyper.heads)),
      head_size(static_cast<int32_t>(hyper.head_size)),
      vocab_size(static_cast<int32_t>(hyper.vocab_size)) {}

BlobWriter::BlobWriter(const ModelIdentity &model, const BlobParts &parts) : model_(model), parts_(parts) {
  if (parts.state_type != WKV_TYPE_F32 && parts.state_type != WKV_TYPE_F16)
    fail(WKV_INVALID, "the state type is %d, expected %d (F32) or %d (F16)", parts.state_type, WKV_TYPE_F32,
         WKV_TYPE_F16);
  if (!parts.tokens.empty() && parts.tokens.size() != parts.moment.position)
    fail(WKV_INVALID, "%zu tokens are given for position %llu", parts.tokens.size(),
         static_cast<unsigned long long>(parts.moment.position));
  for (const int32_t token : parts.tokens)
    if (token < 0 || token >= model.vocab_size)
      fail(WKV_INVALID, "token %d is outside vocabulary %d", token, model.vocab_size);
  if (!parts.logits.empty() && parts.logits.size() != static_cast<size_t>(model.vocab_size))
    fail(WKV_INVALID, "%zu logits are given for vocabulary %d", parts.logits.size(), model.vocab_size);
  if (!is_finite_f32(reinterpret_cast<const std::byte *>(parts.logits.data()), parts.logits.size()))
    fail(WKV_INVALID, "a score among the logits is not finite");

  const uint64_t state_bytes = parts.moment.state ? state_numbers(model) * number_bytes(parts.state_type) : 0;
  for (const BlobSection kind :
       {BlobSection::tokens, BlobSection::state, BlobSection::sampler, BlobSection::generation, BlobSection::logits}) {
    const uint64_t bytes = kind == BlobSection::state ? state_bytes : content_of(kind).size();
    if (bytes > 0) sections_.push_back({kind, 0, bytes, 0});
  }
  bytes_ = header_bytes(sections_.size());
  for (Section &section : sections_) {
    section.offset = aligned(bytes_);
    bytes_ = section.offset + section.bytes;
    if (section.kind != BlobSection::state) {
      if (section.bytes > raw_bytes_max && section.kind != BlobSection::logits)
        fail(WKV_INVALID, "a section would have %llu bytes, at most %llu",
             static_cast<unsigned long long>(section.bytes), static_cast<unsigned long long>(raw_bytes_max));
      section.checksum = checksum_of(content_of(section.kind));
    }
  }
}

std::span<const std::byte> BlobWriter::content_of(BlobSection kind) const {
  switch (kind) {
    case BlobSection::tokens:
      return std::as_bytes(parts_.tokens);
    case BlobSection::sampler:
      return parts_.sampler;
    case BlobSection::generation:
      return parts_.generation;
    case BlobSection::logits:
      return std::as_bytes(parts_.logits);
    case BlobSection::state:
      break;
  }
  return {};
}

std::vector<std::byte> BlobWriter::header() const {
  ByteWriter writer;
  writer.write_bytes(std::as_bytes(std::span(magic)));
  writer.write(byte_order);
  writer.write(blob_version);
  writer.write(bytes_);
  writer.write(static_cast<uint32_t>(header_bytes(sections_.size())));
  writer.write(static_cast<uint32_t>(sections_.size()));
  writer.write(model_.fingerprint);
  writer.write(parts_.moment.position);
  for (const int32_t size : {model_.layers, model_.width, model_.heads, model_.head_size, model_.vocab_size})
    writer.write(size);
  writer.write(parts_.state_type);
  const LastTokens &last = parts_.moment.last_tokens;
  writer.write(last.count);
  writer.write_zeros(4);
  for (uint32_t i = 0; i < WKV_LAST_TOKENS; i++) writer.write(i < last.count ? last.ids[i] : 0);
  writer.write_zeros(fields_bytes - writer.bytes().size());
  for (const Section &section : sections_) {
    writer.write(static_cast<uint32_t>(section.kind));
    writer.write(uint32_t{0});
    writer.write(section.offset);
    writer.write(section.bytes);
    writer.write(section.checksum);
  }
  writer.write(checksum_of(writer.bytes()));
  return writer.take();
}

std::optional<StateView> BlobWriter::view() const {
  if (!parts_.moment.state) return std::nullopt;
  return StateView(parts_.moment.state, static_cast<size_t>(state_numbers(model_)));
}

// Encodes the state block by block to where place(bytes) says, and takes its checksum.
template <class Place>
uint64_t BlobWriter::encode_state(const float *floats, Place &&place) const {
  const bool is_half = parts_.state_type == WKV_TYPE_F16;
  const size_t count = static_cast<size_t>(state_numbers(model_)), size = number_bytes(parts_.state_type);
  const size_t block = block_bytes / size;
  Checksum checksum;
  for (size_t begin = 0; begin < count; begin += block) {
    const size_t numbers = std::min(block, count - begin);
    std::byte *to = place(numbers * size);
    const std::byte *from = reinterpret_cast<const std::byte *>(floats + begin);
    if (!(is_half ? f32_to_f16(to, from, numbers) : copy_f32(to, from, numbers)))
      refuse_number(floats, begin, begin + numbers, model_, parts_.state_type);
    checksum.add({to, numbers * size});
  }
  return checksum.value();
}

void BlobWriter::write(std::span<std::byte> to) {
  const std::optional<StateView> state = view();
  uint64_t end = header_bytes(sections_.size());
  for (Section &section : sections_) {
    std::memset(to.data() + end, 0, section.offset - end);
    std::byte *at = to.data() + section.offset;
    end = section.offset + section.bytes;
    if (section.kind == BlobSection::state) {
      section.checksum = encode_state(state->floats(), [&](size_t bytes) {
        at += bytes;
        return at - bytes;
      });
    } else {
      std::memcpy(at, content_of(section.kind).data(), section.bytes);
    }
  }
  const std::vector<std::byte> begin = header();
  std::memcpy(to.data(), begin.data(), begin.size());
}

void BlobWriter::save(const std::string &path) {
  const std::optional<StateView> state = view();
  std::array<std::byte, block_bytes> block;
  for (Section &section : sections_)
    if (section.kind == BlobSection::state)
      section.checksum = encode_state(state->floats(), [&](size_t) { return block.data(); });

  formats::FileWriter file(path);
  file.write(header());
  for (const Section &section : sections_) {
    const std::array<std::byte, alignment> zeros{};
    file.write(std::span(zeros).first(section.offset - file.position()));
    if (section.kind != BlobSection::state) {
      file.write(content_of(section.kind));
    } else if (parts_.state_type == WKV_TYPE_F32) {
      file.write({reinterpret_cast<const std::byte *>(state->floats()), section.bytes});
    } else {
      const float *floats = state->floats();
      const size_t numbers = section.bytes / 2;
      for (size_t begin = 0; begin < numbers; begin += block_bytes / 2) {
        const size_t count = std::min(block_bytes / 2, numbers - begin);
        f32_to_f16(block.data(), reinterpret_cast<const std::byte *>(floats + begin), count);
        file.write(std::span(block).first(count * 2));
      }
    }
  }
  file.commit();
}

}  // namespace libwkv
