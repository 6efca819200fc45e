// SPDX-License-Identifier: Apache-2.0
// Blobs in: nothing is believed before it is checked, and no memory taken because a blob said so.
#include <algorithm>
#include <cstring>

#include "base/byte_stream.h"
#include "base/checksum.h"
#include "state/blob.h"
#include "state/blob_layout.h"
#include "state/blob_numbers.h"

namespace libwkv {
namespace {

using namespace blob_layout;

// Read from a file at once: checking it finds it in the second cache.
constexpr size_t file_block_bytes = size_t{128} << 10;

using Wide = unsigned long long;  // for messages

const char *name_of(BlobSection kind) {
  switch (kind) {
    case BlobSection::tokens:
      return "tokens";
    case BlobSection::state:
      return "state";
    case BlobSection::sampler:
      return "sampler";
    case BlobSection::generation:
      return "generation";
    case BlobSection::logits:
      return "logits";
  }
  return nullptr;
}

// What stands before all versions.
void check_beginning(std::span<const std::byte> bytes, const char *name) {
  const size_t magic_bytes = std::min(bytes.size(), magic.size());
  if (magic_bytes == 0 || std::memcmp(bytes.data(), magic.data(), magic_bytes) != 0)
    fail(WKV_FORMAT, "%s: not a blob", name);
  if (bytes.size() < version_end) fail(WKV_FORMAT, "%s: ends after %zu bytes, inside its header", name, bytes.size());
  ByteReader reader(bytes.subspan(magic.size()), "the header");
  const uint32_t order = reader.read<uint32_t>();
  if (order == other_byte_order) fail(WKV_FORMAT, "%s: is big endian, blobs are little endian", name);
  if (order != byte_order)
    fail(WKV_FORMAT, "%s: the byte order mark is 0x%08x, expected 0x%08x", name, order, byte_order);
  const uint32_t version = reader.read<uint32_t>();
  if (version == 0) fail(WKV_FORMAT, "%s: format version 0", name);
  if (version > blob_version)
    fail(WKV_UNSUPPORTED, "%s: format version %u, this library reads up to %u", name, version, blob_version);
}

void check_sizes(const ModelIdentity &model, const char *name) {
  for (const auto &[what, value] :
       {std::pair("layers", model.layers), std::pair("width", model.width), std::pair("heads", model.heads),
        std::pair("head_size", model.head_size), std::pair("vocab_size", model.vocab_size)})
    if (value < 1) fail(WKV_FORMAT, "%s: %s is %d", name, what, value);
  if (int64_t{model.heads} * model.head_size != model.width)
    fail(WKV_FORMAT, "%s: %d heads of %d do not make width %d", name, model.heads, model.head_size, model.width);
}

void check_token(int32_t token, const ModelIdentity &model, const char *name) {
  if (token < 0 || token >= model.vocab_size)
    fail(WKV_FORMAT, "%s: token %d is outside vocabulary %d", name, token, model.vocab_size);
}

// Throws unless a section can have this size.
void check_bytes(const BlobHeader &header, const BlobHeader::Section &section, const char *name) {
  uint64_t expected = section.bytes;
  switch (section.kind) {
    case BlobSection::tokens:
      expected = checked_multiply(header.position, sizeof(int32_t), "tokens");
      break;
    case BlobSection::state:
      expected = checked_multiply(state_numbers(header.model), number_bytes(header.state_type), "bytes of the state");
      break;
    case BlobSection::logits:
      expected = static_cast<uint64_t>(header.model.vocab_size) * sizeof(float);
      break;
    case BlobSection::sampler:
    case BlobSection::generation:
      break;
    default:
      if (!section.may_be_skipped)
        fail(WKV_UNSUPPORTED, "%s: has a section of the kind %u, which this library does not know", name,
             static_cast<unsigned>(section.kind));
      return;
  }
  if (section.bytes != expected || section.bytes == 0)
    fail(WKV_FORMAT, "%s: the section %s has %llu bytes, expected %llu", name, name_of(section.kind),
         static_cast<Wide>(section.bytes), static_cast<Wide>(expected));
  if (section.bytes > raw_bytes_max && section.kind != BlobSection::state && section.kind != BlobSection::logits)
    fail(WKV_UNSUPPORTED, "%s: the section %s has %llu bytes, at most %llu", name, name_of(section.kind),
         static_cast<Wide>(section.bytes), static_cast<Wide>(raw_bytes_max));
}

void expect_zeros(std::span<const std::byte> bytes, wkv_status status, const char *what, const char *name) {
  if (!std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte == std::byte{0}; }))
    fail(status, "%s: %s are not zero", name, what);
}

void check_section(const BlobHeader::Section &section, uint64_t checksum, const char *name) {
  if (checksum == section.checksum) return;
  const char *kind = name_of(section.kind);
  fail(WKV_FORMAT, "%s: damaged: the section %s does not match its checksum", name, kind ? kind : "of another kind");
}

void check_padding(ByteSource &source, uint64_t begin, uint64_t end) {
  std::array<std::byte, alignment> padding;
  const std::span bytes = std::span(padding).first(static_cast<size_t>(end - begin));
  source.read(begin, bytes);
  expect_zeros(bytes, WKV_FORMAT, "bytes between sections", source.name());
}

// The bytes of a section; its size was checked.
std::vector<std::byte> read_raw(ByteSource &source, const BlobHeader::Section &section) {
  std::vector<std::byte> bytes(static_cast<size_t>(section.bytes));
  source.read(section.offset, bytes);
  check_section(section, checksum_of(bytes), source.name());
  return bytes;
}

template <class Number>
std::vector<Number> read_numbers(ByteSource &source, const BlobHeader::Section &section) {
  std::vector<Number> numbers(static_cast<size_t>(section.bytes) / sizeof(Number));
  source.read(section.offset, std::as_writable_bytes(std::span(numbers)));
  check_section(section, checksum_of(std::as_bytes(std::span(numbers))), source.name());
  return numbers;
}

// Checks the bytes of a section that is of no use here.
void pass_over(ByteSource &source, const BlobHeader::Section &section) {
  std::array<std::byte, block_bytes> block;
  Checksum checksum;
  for (uint64_t at = 0; at < section.bytes; at += block_bytes) {
    const std::span part = std::span(block).first(std::min<uint64_t>(block_bytes, section.bytes - at));
    source.read(section.offset + at, part);
    checksum.add(part);
  }
  check_section(section, checksum.value(), source.name());
}

// Reads, checks and hashes in one pass, block by block.
void read_state(ByteSource &source, const BlobHeader &header, const BlobHeader::Section &section, float *floats) {
  const size_t count = static_cast<size_t>(state_numbers(header.model)), size = number_bytes(header.state_type);
  std::byte *to = reinterpret_cast<std::byte *>(floats);
  const bool is_half = header.state_type == WKV_TYPE_F16;
  const std::byte *memory = source.memory();
  std::vector<std::byte> halves(is_half && !memory ? std::min(file_block_bytes, count * size) : 0);
  const size_t block = (memory ? block_bytes : file_block_bytes) / size;
  Checksum checksum;
  bool is_finite = true;
  for (size_t begin = 0; begin < count; begin += block) {
    const size_t numbers = std::min(block, count - begin);
    const uint64_t offset = section.offset + uint64_t{begin} * size;
    std::byte *target = to + begin * sizeof(float);
    const std::byte *from = memory ? memory + offset : is_half ? halves.data() : target;
    if (!memory) source.read(offset, {is_half ? halves.data() : target, numbers * size});
    is_finite &= is_half          ? f16_to_f32(target, from, numbers)
                 : from == target ? is_finite_f32(from, numbers)
                                  : copy_f32(target, from, numbers);
    checksum.add({is_half ? from : target, numbers * size});
  }
  check_section(section, checksum.value(), source.name());
  if (!is_finite) fail(WKV_FORMAT, "%s: the state has a number that is not finite", source.name());
}

}  // namespace

BlobHeader read_blob_header(std::span<const std::byte> beginning, const char *name) {
  check_beginning(beginning, name);
  ByteReader reader(beginning.subspan(version_end), name);
  BlobHeader header{};
  header.format_version = blob_version;
  if (reader.left() < fields_bytes - version_end)
    fail(WKV_FORMAT, "%s: ends after %zu bytes, inside its header", name, beginning.size());
  header.bytes = reader.read<uint64_t>();
  header.header_bytes = reader.read<uint32_t>();
  const uint32_t sections = reader.read<uint32_t>();
  if (sections > sections_max || header.header_bytes != header_bytes(sections))
    fail(WKV_FORMAT, "%s: damaged: a header of %zu bytes with %u sections", name, header.header_bytes, sections);
  if (header.header_bytes > beginning.size())
    fail(WKV_FORMAT, "%s: ends after %zu bytes, inside its header", name, beginning.size());
  const auto before_checksum = beginning.first(header.header_bytes - checksum_bytes);
  ByteReader last(beginning.subspan(before_checksum.size()), name);
  if (checksum_of(before_checksum) != last.read<uint64_t>())
    fail(WKV_FORMAT, "%s: damaged: the header does not match its checksum", name);

  header.model.fingerprint = reader.read<uint64_t>();
  header.position = reader.read<uint64_t>();
  if (header.position > INT64_MAX)
    fail(WKV_FORMAT, "%s: position %llu is beyond %lld", name, static_cast<Wide>(header.position),
         static_cast<long long>(INT64_MAX));
  for (int32_t *size : {&header.model.layers, &header.model.width, &header.model.heads, &header.model.head_size,
                        &header.model.vocab_size})
    *size = reader.read<int32_t>();
  check_sizes(header.model, name);
  header.state_type = reader.read<int32_t>();
  if (header.state_type != WKV_TYPE_F32 && header.state_type != WKV_TYPE_F16)
    fail(WKV_UNSUPPORTED, "%s: state type %d, which this library does not know", name, header.state_type);
  header.last_tokens.count = reader.read<uint32_t>();
  if (header.last_tokens.count > WKV_LAST_TOKENS)
    fail(WKV_FORMAT, "%s: %u last tokens, at most %d", name, header.last_tokens.count, WKV_LAST_TOKENS);
  expect_zeros(reader.read_bytes(4), WKV_UNSUPPORTED, "reserved bytes of the header", name);
  for (uint32_t i = 0; i < WKV_LAST_TOKENS; i++) {
    const int32_t token = reader.read<int32_t>();
    if (i < header.last_tokens.count)
      check_token(token, header.model, name);
    else if (token != 0)
      fail(WKV_FORMAT, "%s: a token behind the last one is %d, expected 0", name, token);
    header.last_tokens.ids[i] = token;
  }
  expect_zeros(reader.read_bytes(fields_bytes - 144), WKV_UNSUPPORTED, "reserved bytes of the header", name);

  uint64_t end = header.header_bytes;
  for (uint32_t i = 0; i < sections; i++) {
    BlobHeader::Section section{};
    section.kind = static_cast<BlobSection>(reader.read<uint32_t>());
    const uint32_t flags = reader.read<uint32_t>();
    if (flags & ~may_be_skipped)
      fail(WKV_UNSUPPORTED, "%s: a section has the flags 0x%x, which this library does not know", name, flags);
    section.may_be_skipped = (flags & may_be_skipped) != 0;
    section.offset = reader.read<uint64_t>();
    section.bytes = reader.read<uint64_t>();
    section.checksum = reader.read<uint64_t>();
    if (header.find(section.kind))
      fail(WKV_FORMAT, "%s: two sections are of the kind %u", name, static_cast<unsigned>(section.kind));
    check_bytes(header, section, name);
    if (section.offset != aligned(end))
      fail(WKV_FORMAT, "%s: a section begins at %llu, expected %llu", name, static_cast<Wide>(section.offset),
           static_cast<Wide>(aligned(end)));
    end = checked_add(section.offset, section.bytes, "end of a section");
    header.sections.push_back(section);
  }
  if (header.bytes != end)
    fail(WKV_FORMAT, "%s: the blob has %llu bytes, and its sections end at %llu", name, static_cast<Wide>(header.bytes),
         static_cast<Wide>(end));
  if (beginning.size() > header.bytes || beginning.size() < std::min<uint64_t>(header.bytes, blob_header_bytes_max))
    fail(WKV_FORMAT, "%s: %zu bytes are there, and the blob has %llu", name, beginning.size(),
         static_cast<Wide>(header.bytes));
  return header;
}

BlobHeader read_blob_header(ByteSource &source) {
  std::array<std::byte, blob_header_bytes_max> beginning;
  const std::span bytes = std::span(beginning).first(std::min<uint64_t>(beginning.size(), source.size()));
  source.read(0, bytes);
  BlobHeader header = read_blob_header(bytes, source.name());
  if (header.bytes != source.size())
    fail(WKV_FORMAT, "%s: %llu bytes are there, and the blob has %llu", source.name(), static_cast<Wide>(source.size()),
         static_cast<Wide>(header.bytes));
  return header;
}

const BlobHeader::Section *BlobHeader::find(BlobSection kind) const {
  const auto found =
      std::find_if(sections.begin(), sections.end(), [&](const Section &section) { return section.kind == kind; });
  return found == sections.end() ? nullptr : &*found;
}

void BlobHeader::expect_model(const ModelIdentity &expected, const char *name) const {
  if (model == expected) return;
  if (model.layers != expected.layers || model.width != expected.width || model.heads != expected.heads ||
      model.head_size != expected.head_size || model.vocab_size != expected.vocab_size)
    fail(WKV_MISMATCH,
         "%s: is of a model of %d layers, width %d, %d heads of %d and vocabulary %d; this one has %d layers, "
         "width %d, %d heads of %d and vocabulary %d",
         name, model.layers, model.width, model.heads, model.head_size, model.vocab_size, expected.layers,
         expected.width, expected.heads, expected.head_size, expected.vocab_size);
  fail(WKV_MISMATCH, "%s: is of a model with fingerprint %016llx, this one has %016llx", name,
       static_cast<Wide>(model.fingerprint), static_cast<Wide>(expected.fingerprint));
}

std::vector<int32_t> read_blob_tokens(ByteSource &source, const BlobHeader &header) {
  const BlobHeader::Section *section = header.find(BlobSection::tokens);
  if (!section) return {};
  std::vector<int32_t> tokens = read_numbers<int32_t>(source, *section);
  for (const int32_t token : tokens) check_token(token, header.model, source.name());
  return tokens;
}

BlobContent read_blob(ByteSource &source, const ModelIdentity &model, const std::shared_ptr<MemoryAccount> &account,
                      Holder holder) {
  return read_blob(source, model,
                   [&] { return StateHold::make(account, static_cast<size_t>(state_numbers(model)), holder, false); });
}

BlobContent read_blob(ByteSource &source, const ModelIdentity &model, const std::function<StateHold()> &make_room) {
  BlobContent content;
  content.header = read_blob_header(source);
  const BlobHeader &header = content.header;
  header.expect_model(model, source.name());
  content.moment.position = header.position;
  content.moment.last_tokens = header.last_tokens;
  uint64_t end = header.header_bytes;
  for (const BlobHeader::Section &section : header.sections) {
    check_padding(source, end, section.offset);
    end = section.offset + section.bytes;
    switch (section.kind) {
      case BlobSection::tokens:
        content.tokens = read_blob_tokens(source, header);
        break;
      case BlobSection::state:
        content.moment.state = make_room();
        {
          StateDraft draft(content.moment.state, static_cast<size_t>(state_numbers(model)));
          read_state(source, header, section, draft.floats());
          draft.finish();
        }
        break;
      case BlobSection::sampler:
        content.sampler = read_raw(source, section);
        break;
      case BlobSection::generation:
        content.generation = read_raw(source, section);
        break;
      case BlobSection::logits:
        content.logits = read_numbers<float>(source, section);
        if (!is_finite_f32(reinterpret_cast<const std::byte *>(content.logits.data()), content.logits.size()))
          fail(WKV_FORMAT, "%s: a score among the logits is not finite", source.name());
        break;
      default:
        pass_over(source, section);
    }
  }
  return content;
}

}  // namespace libwkv
