// SPDX-License-Identifier: Apache-2.0
// A blob gives back what was saved, says what it is without a model, and is refused when anything about it is wrong.
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "base/float_types.h"
#include "state/blob_bytes.h"

namespace libwkv::test {
namespace {

class Blobs : public testing::Test {
 protected:
  static wkv_model_options one_thread() {
    wkv_model_options options = default_options();
    options.threads = 1;
    options.is_reproducible = 1;
    return options;
  }
  void SetUp() override {
    cache_ = create_cache(random_.model);
    step(random_.info, random_.model, cache_, prompt_);
  }

  // Refused with this status, and nothing changed, nothing kept.
  void expect_refused(wkv_status status, const Bytes &bytes, const std::string &what, const char *text = "") {
    const uint64_t live = memory_of(random_.model).total_bytes;
    wkv_cache *const mark = cache_;
    wkv_cache *made = mark;
    Failure failure;
    const wkv_status outcome = wkv_cache_deserialize(random_.model, bytes.data(), bytes.size(), &made, &failure);
    ASSERT_EQ(wkv_status_name(outcome), std::string(wkv_status_name(status))) << what << ": " << failure.message;
    ASSERT_EQ(made, mark) << what;
    ASSERT_NE(std::string(failure.message).find(text), std::string::npos) << what << ": " << failure.message;
    ASSERT_EQ(memory_of(random_.model).total_bytes, live) << what;
  }
  // The same after a change to the header that is signed again.
  void expect_header_refused(wkv_status status, const std::string &what, const std::function<void(Bytes &)> &change) {
    Bytes bytes = blob_;
    change(bytes);
    sign_header(bytes);
    expect_refused(status, bytes, what);
  }

  RandomModel random_{small_shape, WKV_TYPE_F32, one_thread()};
  std::vector<int32_t> prompt_ = random_tokens(21, small_shape.vocab_size, 1);
  std::vector<int32_t> more_ = random_tokens(5, small_shape.vocab_size, 2);
  Cache cache_;
  Bytes blob_;
  Failure failure_;
};

TEST_F(Blobs, give_back_what_was_saved) {
  const Snapshot before = snapshot_of(random_.info, cache_);
  Cache again = deserialize(random_.model, serialize(cache_));
  EXPECT_TRUE(snapshot_of(random_.info, again) == before);
  const wkv_cache_info a = info_of(cache_), b = info_of(again);
  ASSERT_EQ(b.last_tokens_count, WKV_LAST_TOKENS);
  for (int i = 0; i < WKV_LAST_TOKENS; i++) {
    EXPECT_EQ(b.last_tokens[i], a.last_tokens[i]);
    EXPECT_EQ(b.last_tokens[i], prompt_[5 + static_cast<size_t>(i)]);
  }
  EXPECT_EQ(step(random_.info, random_.model, again, more_), step(random_.info, random_.model, cache_, more_));
}

TEST_F(Blobs, are_the_same_bytes_in_memory_and_in_a_file) {
  Folder folder;
  for (const wkv_type type : {WKV_TYPE_DEFAULT, WKV_TYPE_F32, WKV_TYPE_F16}) {
    const wkv_save_options options = save_options(type);
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_save_as(cache_, (folder / "a").c_str(), &options, &failure_), failure_);
    EXPECT_EQ(read_file(folder / "a"), serialize(cache_, type));
    Cache from_file, from_memory = deserialize(random_.model, serialize(cache_, type));
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_load(random_.model, (folder / "a").c_str(), from_file.out(), &failure_),
                      failure_);
    EXPECT_TRUE(snapshot_of(random_.info, from_file) == snapshot_of(random_.info, from_memory));
    EXPECT_EQ(folder.files(), 1u);
  }
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_save(cache_, (folder / "a").c_str(), &failure_), failure_);
  EXPECT_EQ(read_file(folder / "a"), serialize(cache_));
  EXPECT_EQ(serialize(cache_), serialize(cache_)) << "the same cache gives the same bytes";
}

TEST_F(Blobs, of_a_new_cache_begin_at_the_beginning) {
  Cache fresh = create_cache(random_.model);
  Cache again = deserialize(random_.model, serialize(fresh));
  EXPECT_EQ(info_of(again).position, 0u);
  EXPECT_EQ(info_of(again).last_token, -1);
  EXPECT_TRUE(snapshot_of(random_.info, again) == snapshot_of(random_.info, fresh));
  EXPECT_EQ(step(random_.info, random_.model, again, more_), step(random_.info, random_.model, fresh, more_));
}

TEST_F(Blobs, hold_the_state_of_their_moment_alone) {
  uint64_t marked = 0;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_mark(cache_, &marked, &failure_), failure_);
  step(random_.info, random_.model, cache_, more_);
  const Bytes later = serialize(cache_);
  Cache again = deserialize(random_.model, later);
  EXPECT_EQ(info_of(again).kept_count, 0u) << "checkpoints stay with the cache";
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_rollback(cache_, marked, &failure_), failure_);
  EXPECT_NE(serialize(cache_), later);
  // a cache that shares its state is saved as well as another
  Cache fork;
  WKV_ASSERT_STATUS(WKV_OK, wkv_cache_copy(cache_, fork.out(), &failure_), failure_);
  EXPECT_EQ(serialize(fork), serialize(cache_));
}

TEST_F(Blobs, of_larger_models_and_any_alignment) {
  RandomModel random(odd_shape, WKV_TYPE_F16, one_thread());
  Cache cache = create_cache(random.model);
  step(random.info, random.model, cache, random_tokens(7, odd_shape.vocab_size, 3));
  for (const wkv_type type : {WKV_TYPE_F32, WKV_TYPE_F16}) {
    const Bytes blob = serialize(cache, type);
    Cache aligned = deserialize(random.model, blob), shifted;
    Bytes moved(blob.size() + 3);
    for (size_t shift : {1, 2, 3}) {
      std::copy(blob.begin(), blob.end(), moved.begin() + static_cast<ptrdiff_t>(shift));
      WKV_ASSERT_STATUS(
          WKV_OK, wkv_cache_deserialize(random.model, moved.data() + shift, blob.size(), shifted.out(), &failure_),
          failure_);
      EXPECT_TRUE(snapshot_of(random.info, shifted) == snapshot_of(random.info, aligned));
      size_t written = 0;
      const wkv_save_options options = save_options(type);
      WKV_ASSERT_STATUS(WKV_OK,
                        wkv_cache_serialize_as(cache, &options, moved.data() + shift, blob.size(), &written, &failure_),
                        failure_);
      EXPECT_TRUE(std::equal(blob.begin(), blob.end(), moved.begin() + static_cast<ptrdiff_t>(shift)));
    }
  }
}

TEST_F(Blobs, tell_their_size_and_write_no_further) {
  const Bytes blob = serialize(cache_);
  EXPECT_EQ(blob.size(), get<uint64_t>(blob, at::bytes));
  for (const size_t capacity : {size_t{1}, blob.size() - 1}) {
    Bytes bytes(blob.size(), std::byte{7});
    size_t count = 0;
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_serialize(cache_, bytes.data(), capacity, &count, &failure_), failure_);
    EXPECT_EQ(count, blob.size());
    EXPECT_EQ(bytes, Bytes(blob.size(), std::byte{7}));
  }
  Bytes bytes(blob.size() + 100, std::byte{7});
  size_t count = 0;
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_serialize(cache_, bytes.data(), bytes.size(), &count, &failure_), failure_);
  EXPECT_EQ(count, blob.size());
  EXPECT_TRUE(std::all_of(bytes.begin() + static_cast<ptrdiff_t>(count), bytes.end(),
                          [](std::byte byte) { return byte == std::byte{7}; }));
}

TEST_F(Blobs, say_what_they_are) {
  Folder folder;
  const std::string path = folder / "header";
  for (const wkv_type type : {WKV_TYPE_F32, WKV_TYPE_F16}) {
    const Bytes blob = serialize(cache_, type);
    write_file(path, blob);
    BlobInfo infos[3];
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_read_header(path.c_str(), &infos[0], &failure_), failure_);
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_read_header_memory(blob.data(), blob.size(), &infos[1], &failure_), failure_);
    WKV_ASSERT_STATUS(
        WKV_OK, wkv_cache_read_header_memory(blob.data(), std::min<size_t>(4096, blob.size()), &infos[2], &failure_),
        failure_);
    for (const BlobInfo &info : infos) {
      EXPECT_EQ(info.struct_size, sizeof(wkv_blob_info));
      EXPECT_EQ(info.format_version, 1u);
      EXPECT_EQ(info.fingerprint, random_.info.fingerprint);
      EXPECT_EQ(info.position, prompt_.size());
      EXPECT_EQ(info.bytes, blob.size());
      EXPECT_EQ(info.layers, random_.info.layers);
      EXPECT_EQ(info.width, random_.info.width);
      EXPECT_EQ(info.heads, random_.info.heads);
      EXPECT_EQ(info.head_size, random_.info.head_size);
      EXPECT_EQ(info.vocab_size, random_.info.vocab_size);
      EXPECT_EQ(info.state_type, type);
      EXPECT_EQ(info.last_tokens_count, WKV_LAST_TOKENS);
      for (size_t i = 0; i < WKV_LAST_TOKENS; i++) EXPECT_EQ(info.last_tokens[i], prompt_[5 + i]);
      EXPECT_EQ(info.has_sampler, 0);
      EXPECT_EQ(info.has_generation, 0);
      EXPECT_EQ(info.has_logits, 0);
      EXPECT_EQ(info.has_tokens, 0);
    }
  }
}

TEST_F(Blobs, give_their_header_without_the_rest) {
  Bytes blob = serialize(cache_);
  ASSERT_GT(blob.size(), 4096u);
  for (size_t i = 4096; i < blob.size(); i++) blob[i] ^= std::byte{0xff};  // the state may be damaged
  BlobInfo info;
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_read_header_memory(blob.data(), 4096, &info, &failure_), failure_);
  Folder folder;
  write_file(folder / "a", blob);
  WKV_EXPECT_STATUS(WKV_OK, wkv_cache_read_header((folder / "a").c_str(), &info, &failure_), failure_);
  // but a length that is not the blob's is seen
  for (const size_t length : {blob.size() - 1, size_t{4096}, size_t{300}, size_t{0}}) {
    write_file(folder / "a", std::span(blob).first(length));
    info = BlobInfo();
    info.position = 77;
    WKV_EXPECT_STATUS(WKV_FORMAT, wkv_cache_read_header((folder / "a").c_str(), &info, &failure_), failure_);
    EXPECT_EQ(info.position, 77u);
  }
  blob.push_back({});
  write_file(folder / "a", blob);
  WKV_EXPECT_STATUS(WKV_FORMAT, wkv_cache_read_header((folder / "a").c_str(), &info, &failure_), failure_);
  WKV_EXPECT_STATUS(WKV_FORMAT, wkv_cache_read_header_memory(blob.data(), blob.size(), &info, &failure_), failure_);
  for (size_t length = 0; length < 4096; length++)
    ASSERT_EQ(wkv_cache_read_header_memory(blob.data(), length, &info, nullptr), WKV_FORMAT) << length;
}

TEST_F(Blobs, in_half_precision_are_half_as_large_and_rounded_once) {
  const Bytes full = serialize(cache_, WKV_TYPE_F32), half = serialize(cache_, WKV_TYPE_F16);
  EXPECT_EQ(full.size() - half.size(), random_.info.state_bytes / 2);
  Snapshot expected = snapshot_of(random_.info, cache_);
  for (std::vector<float> &part : expected.parts)
    for (float &value : part) value = float_from_f16(f16_from_float(value));
  Cache again = deserialize(random_.model, half);
  EXPECT_TRUE(snapshot_of(random_.info, again) == expected);
  EXPECT_EQ(serialize(again, WKV_TYPE_F16), half) << "what was rounded stays as it is";
}

// Every half precision number comes back as itself, and what lies between two goes to the nearer one.
TEST_F(Blobs, know_every_half_precision_number) {
  const size_t size = part_size(random_.info, WKV_STATE_WKV);
  std::vector<float> values(size), read(size);
  for (uint32_t begin = 0; begin < 65536; begin += static_cast<uint32_t>(size / 2)) {
    for (size_t i = 0; i < size / 2; i++) {
      const uint32_t bits = std::min(begin + static_cast<uint32_t>(i), 65535u);
      const float value = (bits & 0x7c00) == 0x7c00 ? 0.0f : float_from_f16(static_cast<uint16_t>(bits));
      values[2 * i] = value;
      // up to the largest that rounds down to 65504
      const float scaled = value * (1 + static_cast<float>(i % 97) * 0x1p-18f);
      values[2 * i + 1] = std::fabs(scaled) < 65519.0f ? scaled : value;
    }
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_write_state(cache_, 1, WKV_STATE_WKV, values.data(), size, &failure_),
                      failure_);
    Cache again = deserialize(random_.model, serialize(cache_, WKV_TYPE_F16));
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_read_state(again, 1, WKV_STATE_WKV, read.data(), size, &failure_), failure_);
    for (size_t i = 0; i < size; i++)
      ASSERT_EQ(std::bit_cast<uint32_t>(read[i]), std::bit_cast<uint32_t>(float_from_f16(f16_from_float(values[i]))))
          << values[i];
  }
}

TEST_F(Blobs, refuse_to_round_to_infinity) {
  Folder folder;
  const wkv_save_options half = save_options(WKV_TYPE_F16);
  std::vector<float> values(part_size(random_.info, WKV_STATE_FFN_SHIFT), 1.0f);
  for (const float large : {65520.0f, -65520.0f, 3e38f}) {
    values[5] = large;
    WKV_ASSERT_STATUS(WKV_OK,
                      wkv_cache_write_state(cache_, 1, WKV_STATE_FFN_SHIFT, values.data(), values.size(), &failure_),
                      failure_);
    Bytes bytes(10000);
    size_t count = 0;
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_serialize_as(cache_, &half, bytes.data(), bytes.size(), &count, &failure_),
                      failure_);
    EXPECT_NE(std::string(failure_.message).find("ffn shift of layer 1"), std::string::npos) << failure_.message;
    WKV_EXPECT_STATUS(WKV_INVALID, wkv_cache_save_as(cache_, (folder / "a").c_str(), &half, &failure_), failure_);
    EXPECT_EQ(folder.files(), 0u);
    EXPECT_TRUE(snapshot_of(random_.info, deserialize(random_.model, serialize(cache_))) ==
                snapshot_of(random_.info, cache_))
        << "F32 can hold it";
  }
  values[5] = 65519.996f;
  WKV_ASSERT_STATUS(
      WKV_OK, wkv_cache_write_state(cache_, 1, WKV_STATE_FFN_SHIFT, values.data(), values.size(), &failure_), failure_);
  Cache again = deserialize(random_.model, serialize(cache_, WKV_TYPE_F16));
  WKV_ASSERT_STATUS(
      WKV_OK, wkv_cache_read_state(again, 1, WKV_STATE_FFN_SHIFT, values.data(), values.size(), &failure_), failure_);
  EXPECT_EQ(values[5], 65504.0f);
}

TEST_F(Blobs, with_any_bit_turned_are_refused) {
  for (const wkv_type type : {WKV_TYPE_F32, WKV_TYPE_F16}) {
    Bytes blob = serialize(cache_, type);
    const size_t header_end = get<uint32_t>(blob, at::header_bytes);
    BlobInfo info;
    for (size_t bit = 0; bit < 8 * blob.size(); bit++) {
      blob[bit / 8] ^= std::byte(1u << bit % 8);
      wkv_cache *made = nullptr;
      Failure failure;
      const wkv_status status = wkv_cache_deserialize(random_.model, blob.data(), blob.size(), &made, &failure);
      ASSERT_EQ(made, nullptr) << "bit " << bit;
      // of the version number a bit more is a later version
      const bool is_version = bit / 8 >= at::version && bit / 8 < at::version + 4 && bit != 8 * at::version;
      ASSERT_EQ(status, is_version ? WKV_UNSUPPORTED : WKV_FORMAT) << "bit " << bit << ": " << failure.message;
      if (bit / 8 < header_end) {
        ASSERT_EQ(wkv_cache_read_header_memory(blob.data(), blob.size(), &info, nullptr), status) << "bit " << bit;
      }
      blob[bit / 8] ^= std::byte(1u << bit % 8);
    }
  }
}

TEST_F(Blobs, cut_anywhere_are_refused) {
  Bytes blob = serialize(cache_);
  for (size_t length = 0; length < blob.size(); length++) {
    const Bytes cut(blob.begin(), blob.begin() + static_cast<ptrdiff_t>(length));
    expect_refused(WKV_FORMAT, cut, "cut to " + std::to_string(length));
    if (HasFatalFailure()) return;
  }
  blob.push_back({});
  expect_refused(WKV_FORMAT, blob, "one byte more");
  expect_refused(WKV_FORMAT, Bytes(10000), "zeros");
  Bytes noise(10000);
  const std::vector<int32_t> random = random_tokens(noise.size(), 256, 9);
  for (size_t i = 0; i < noise.size(); i++) noise[i] = std::byte(random[i]);
  expect_refused(WKV_FORMAT, noise, "noise", "not a blob");
}

TEST_F(Blobs, of_another_model_are_a_mismatch) {
  blob_ = serialize(cache_);
  RandomModel twin(small_shape, WKV_TYPE_F32, one_thread(), 2);
  Shape other_shape = small_shape;
  other_shape.layers = 3;
  RandomModel other(other_shape, WKV_TYPE_F32, one_thread());
  Folder folder;
  write_file(folder / "a", blob_);
  for (RandomModel *model : {&twin, &other}) {
    Cache made;
    WKV_EXPECT_STATUS(WKV_MISMATCH,
                      wkv_cache_deserialize(model->model, blob_.data(), blob_.size(), made.out(), &failure_), failure_);
    WKV_EXPECT_STATUS(WKV_MISMATCH, wkv_cache_load(model->model, (folder / "a").c_str(), made.out(), &failure_),
                      failure_);
    EXPECT_EQ(made.get(), nullptr);
  }
  expect_header_refused(WKV_MISMATCH, "fingerprint",
                        [](Bytes &b) { put(b, at::fingerprint, get<uint64_t>(b, at::fingerprint) ^ 1); });
  expect_header_refused(WKV_MISMATCH, "vocabulary", [](Bytes &b) { put<int32_t>(b, at::vocab_size, 331); });
  // the same weights under other options are the same model
  wkv_model_options options = default_options();
  options.threads = 2;
  options.weight_type = WKV_TYPE_Q8;
  RandomModel quantised(small_shape, WKV_TYPE_F32, options);
  Cache again = deserialize(quantised.model, blob_);
  EXPECT_TRUE(snapshot_of(random_.info, again) == snapshot_of(random_.info, cache_));
}

TEST_F(Blobs, of_a_later_version_are_unsupported) {
  blob_ = serialize(cache_);
  Bytes later = blob_;
  for (const uint32_t version : {2u, 1000u, UINT32_MAX}) {
    put(later, at::version, version);
    expect_refused(WKV_UNSUPPORTED, later, "version " + std::to_string(version), "version");
    BlobInfo info;
    WKV_EXPECT_STATUS(WKV_UNSUPPORTED, wkv_cache_read_header_memory(later.data(), later.size(), &info, &failure_),
                      failure_);
    // whatever such a version has behind the number
    expect_refused(WKV_UNSUPPORTED, Bytes(later.begin(), later.begin() + 16), "the beginning alone", "version");
  }
  put<uint32_t>(later, at::version, 0);
  expect_refused(WKV_FORMAT, later, "version 0");
  expect_header_refused(WKV_UNSUPPORTED, "state type", [](Bytes &b) { put<int32_t>(b, at::state_type, 3); });
  expect_header_refused(WKV_UNSUPPORTED, "reserved", [](Bytes &b) { put<uint32_t>(b, at::reserved, 1); });
  expect_header_refused(WKV_UNSUPPORTED, "reserved", [](Bytes &b) { put<uint64_t>(b, at::more_reserved + 8, 1); });
  expect_header_refused(WKV_UNSUPPORTED, "flags", [](Bytes &b) { put<uint32_t>(b, entry_of(0) + at::flags, 2); });
  expect_header_refused(WKV_UNSUPPORTED, "kind", [](Bytes &b) { put<uint32_t>(b, entry_of(0) + at::kind, 6); });
}

TEST_F(Blobs, of_the_other_byte_order_are_named_as_such) {
  Bytes bytes = serialize(cache_);
  std::reverse(bytes.begin() + at::byte_order, bytes.begin() + at::byte_order + 4);
  expect_refused(WKV_FORMAT, bytes, "byte order", "big endian");
  put<uint32_t>(bytes, at::byte_order, 0);
  expect_refused(WKV_FORMAT, bytes, "no byte order", "byte order");
}

TEST_F(Blobs, keep_positions_up_to_the_largest) {
  blob_ = serialize(cache_);
  Bytes bytes = blob_;
  put<uint64_t>(bytes, at::position, INT64_MAX);
  sign_header(bytes);
  Cache again = deserialize(random_.model, bytes);
  EXPECT_EQ(info_of(again).position, static_cast<uint64_t>(INT64_MAX));
  EXPECT_EQ(serialize(again), bytes);
  for (const uint64_t position : {uint64_t{1} << 63, UINT64_MAX})
    expect_header_refused(WKV_FORMAT, "position", [&](Bytes &b) { put(b, at::position, position); });
}

// Headers that are signed and lie.
TEST_F(Blobs, of_hostile_sizes_are_refused_before_memory_is_taken) {
  blob_ = serialize(cache_);
  const uint64_t peak = memory_of(random_.model).total_peak_bytes;
  for (const size_t size : {at::layers, at::width, at::heads, at::head_size, at::vocab_size})
    for (const int32_t value : {0, -1, 1, INT32_MIN, INT32_MAX, 1 << 20}) {
      Bytes bytes = blob_;
      put(bytes, size, value);
      sign_header(bytes);
      Cache made;
      const wkv_status status = wkv_cache_deserialize(random_.model, bytes.data(), bytes.size(), made.out(), &failure_);
      EXPECT_TRUE(status == WKV_FORMAT || (size == at::vocab_size && status == WKV_MISMATCH))
          << size << " " << value << ": " << failure_.message;
    }
  for (const int32_t huge : {INT32_MAX, 1 << 30})
    expect_header_refused(WKV_FORMAT, "all sizes huge", [&](Bytes &b) {
      put(b, at::layers, huge);
      put(b, at::width, huge);
      put<int32_t>(b, at::heads, 1);
      put(b, at::head_size, huge);
    });
  for (const uint64_t value : {uint64_t{0}, uint64_t{1}, uint64_t{4600}, uint64_t{4604}, uint64_t{1} << 40,
                               uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 191}) {
    const std::string what = std::to_string(value);
    expect_header_refused(WKV_FORMAT, "offset " + what, [&](Bytes &b) { put(b, entry_of(0) + at::offset, value); });
    expect_header_refused(WKV_FORMAT, "bytes of a section " + what,
                          [&](Bytes &b) { put(b, entry_of(0) + at::section_bytes, value); });
    expect_header_refused(WKV_FORMAT, "bytes of all " + what, [&](Bytes &b) { put(b, at::bytes, value); });
  }
  for (const uint32_t kind : {1u, 3u, 5u})  // the state under another name
    expect_header_refused(WKV_FORMAT, "kind " + std::to_string(kind), [&](Bytes &b) {
      put(b, entry_of(0) + at::kind, kind);
      put<uint64_t>(b, entry_of(0) + at::section_bytes, kind == 3 ? 0 : 4608);
    });
  Bytes bytes = blob_;
  for (const uint32_t value : {0u, 2u, 122u, 123u, 1u << 27, UINT32_MAX}) {
    put(bytes, at::sections, value);
    put(bytes, at::header_bytes, 168 + 32 * value);
    if (168 + 32 * value <= bytes.size()) sign_header(bytes);
    Cache made;  // entries of such a table are numbers of the state
    const wkv_status status = wkv_cache_deserialize(random_.model, bytes.data(), bytes.size(), made.out(), &failure_);
    EXPECT_TRUE(status == WKV_FORMAT || status == WKV_UNSUPPORTED) << value << " sections: " << failure_.message;
    put(bytes, at::header_bytes, value);
    expect_refused(WKV_FORMAT, bytes, "a header of " + std::to_string(value));
  }
  for (const uint32_t count : {17u, UINT32_MAX})
    expect_header_refused(WKV_FORMAT, "last tokens", [&](Bytes &b) { put(b, at::last_tokens_count, count); });
  for (const int32_t token : {-1, 330, INT32_MAX})
    expect_header_refused(WKV_FORMAT, "token", [&](Bytes &b) { put(b, at::last_tokens + 4 * 15, token); });
  expect_header_refused(WKV_FORMAT, "a token behind the last",
                        [&](Bytes &b) { put<uint32_t>(b, at::last_tokens_count, 15); });
  EXPECT_EQ(memory_of(random_.model).total_peak_bytes, peak);
}

// Another section of our own making behind the state.
Bytes with_section(const Bytes &blob, uint32_t kind, uint32_t flags, std::span<const std::byte> content) {
  const size_t old_sections = get<uint32_t>(blob, at::sections), sections = old_sections + 1;
  const size_t header_bytes = 168 + 32 * sections;
  Bytes bytes(blob.begin(), blob.begin() + static_cast<ptrdiff_t>(entry_of(old_sections)));
  bytes.resize(header_bytes);
  put(bytes, at::sections, static_cast<uint32_t>(sections));
  put(bytes, at::header_bytes, static_cast<uint32_t>(header_bytes));
  for (size_t i = 0; i < sections; i++) {
    std::span<const std::byte> part = content;
    if (i < old_sections)
      part = std::span(blob).subspan(get<uint64_t>(blob, entry_of(i) + at::offset),
                                     get<uint64_t>(blob, entry_of(i) + at::section_bytes));
    bytes.resize((bytes.size() + 63) / 64 * 64);
    const size_t entry = entry_of(i);
    if (i == old_sections) {
      put(bytes, entry + at::kind, kind);
      put(bytes, entry + at::flags, flags);
      put(bytes, entry + at::section_bytes, uint64_t{part.size()});
    }
    put(bytes, entry + at::offset, uint64_t{bytes.size()});
    put(bytes, entry + at::checksum, checksum_of(part));
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  put(bytes, at::bytes, uint64_t{bytes.size()});
  sign_header(bytes);
  return bytes;
}

TEST_F(Blobs, may_have_sections_that_can_be_passed_over) {
  blob_ = serialize(cache_);
  const Bytes content(100, std::byte{42});
  for (const size_t size : {0, 1, 100}) {
    Bytes more = with_section(blob_, 77, 1, std::span(content).first(size));
    Cache again = deserialize(random_.model, more);
    EXPECT_TRUE(snapshot_of(random_.info, again) == snapshot_of(random_.info, cache_));
    expect_refused(WKV_UNSUPPORTED, with_section(blob_, 77, 0, std::span(content).first(size)), "needed", "77");
    if (size == 0) continue;
    more.back() ^= std::byte{1};
    expect_refused(WKV_FORMAT, more, "damaged, although nobody reads it", "checksum");
  }
  expect_refused(WKV_FORMAT, with_section(blob_, 2, 0, content), "two states");
  expect_refused(WKV_FORMAT, with_section(with_section(blob_, 77, 1, content), 77, 1, content), "two of a kind");
}

TEST_F(Blobs, without_a_state_section_are_all_zero) {
  Bytes bytes = serialize(cache_);
  bytes.resize(168);
  put<uint32_t>(bytes, at::sections, 0);
  put<uint32_t>(bytes, at::header_bytes, 168);
  put<uint64_t>(bytes, at::bytes, 168);
  sign_header(bytes);
  Cache again = deserialize(random_.model, bytes), fresh = create_cache(random_.model);
  EXPECT_EQ(info_of(again).position, prompt_.size());
  Snapshot expected = snapshot_of(random_.info, fresh);
  for (int part = 0; part < 3; part++) EXPECT_EQ(snapshot_of(random_.info, again).parts[part], expected.parts[part]);
  EXPECT_EQ(step(random_.info, random_.model, again, more_), step(random_.info, random_.model, fresh, more_));
}

TEST_F(Blobs, with_numbers_that_are_none_are_refused) {
  for (const wkv_type type : {WKV_TYPE_F32, WKV_TYPE_F16}) {
    blob_ = serialize(cache_, type);
    const size_t state = get<uint64_t>(blob_, entry_of(0) + at::offset);
    const size_t size = type == WKV_TYPE_F16 ? 2 : 4, count = get<uint64_t>(blob_, entry_of(0) + 16) / size;
    for (const size_t place : {size_t{0}, count / 2, count - 1})
      for (const uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fc00000u, 0x7f800001u, 0xffffffffu}) {
        Bytes bytes = blob_;
        if (type == WKV_TYPE_F16)
          put<uint16_t>(bytes, state + place * size, static_cast<uint16_t>(bits >> 16 | (bits & 1) | 0x7c00u));
        else
          put(bytes, state + place * size, bits);
        sign_section(bytes, 0);
        expect_refused(WKV_FORMAT, bytes, "a number", "finite");
        Folder folder;
        write_file(folder / "a", bytes);
        Cache made;
        WKV_EXPECT_STATUS(WKV_FORMAT, wkv_cache_load(random_.model, (folder / "a").c_str(), made.out(), &failure_),
                          failure_);
      }
  }
}

TEST_F(Blobs, between_sections_hold_zeros_alone) {
  Bytes bytes = serialize(cache_);
  const size_t begin = get<uint32_t>(bytes, at::header_bytes), end = get<uint64_t>(bytes, entry_of(0) + at::offset);
  ASSERT_LT(begin, end);
  for (size_t i = begin; i < end; i++) {
    EXPECT_EQ(bytes[i], std::byte{0});
    bytes[i] = std::byte{1};
    expect_refused(WKV_FORMAT, bytes, "padding", "between sections");
    bytes[i] = std::byte{0};
  }
}

TEST_F(Blobs, count_against_the_memory_limit) {
  const Bytes blob = serialize(cache_);
  wkv_model_options options = one_thread();
  options.memory_limit_bytes = memory_of(random_.model).weights_bytes + 2 * random_.info.state_bytes + 512;
  RandomModel tight(small_shape, WKV_TYPE_F32, options);
  Cache first = deserialize(tight.model, blob), second = deserialize(tight.model, blob), third;
  EXPECT_EQ(memory_of(tight.model).caches_bytes, 2 * random_.info.state_bytes);
  WKV_EXPECT_STATUS(WKV_OUT_OF_MEMORY,
                    wkv_cache_deserialize(tight.model, blob.data(), blob.size(), third.out(), &failure_), failure_);
  EXPECT_EQ(third.get(), nullptr);
  first.reset();
  third = deserialize(tight.model, blob);
  EXPECT_EQ(memory_of(tight.model).caches_peak_bytes, 2 * random_.info.state_bytes);
}

}  // namespace
}  // namespace libwkv::test
