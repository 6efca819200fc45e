// SPDX-License-Identifier: Apache-2.0
// Half precision, counted memory, mapped files, errors.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>

#include <unistd.h>

#include "base/error.h"
#include "base/float_types.h"
#include "base/mapping.h"
#include "base/memory.h"
#include "base/processor.h"

using namespace libwkv;

namespace {

wkv_status status_of(const std::function<void()> &body) {
  try {
    body();
  } catch (const Error &error) {
    return error.status();
  }
  return WKV_OK;
}

// The value of half-precision bits by its definition.
double half_by_definition(uint16_t bits) {
  int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  double value = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
  return bits & 0x8000 ? -value : value;
}

}  // namespace

TEST(float_types, every_half_is_read_by_its_definition_and_written_back) {
  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    uint16_t half = static_cast<uint16_t>(bits);
    float value = float_from_f16(half);
    if ((half >> 10 & 31) == 31) {
      EXPECT_EQ(std::isnan(value), (half & 1023) != 0) << bits;
      EXPECT_EQ(std::isinf(value), (half & 1023) == 0) << bits;
    } else {
      ASSERT_EQ(value, half_by_definition(half)) << bits;
    }
    if (!std::isnan(value)) {
      ASSERT_EQ(f16_from_float(value), half) << bits;
    }
    float wide = float_from_bf16(half);
    if (!std::isnan(wide)) {
      ASSERT_EQ(bf16_from_float(wide), half) << bits;
    }
  }
}

TEST(float_types, rounding_is_to_nearest_with_ties_to_even) {
  for (uint32_t bits = 0; bits < 0x7bff; bits++) {  // between every two neighbouring positive halves
    float low = float_from_f16(static_cast<uint16_t>(bits)), high = float_from_f16(static_cast<uint16_t>(bits + 1));
    float middle = low + (high - low) / 2;
    ASSERT_EQ(f16_from_float(middle), bits % 2 ? bits + 1 : bits) << bits;
    ASSERT_EQ(f16_from_float(std::nextafter(middle, 0.0f)), bits) << bits;
    ASSERT_EQ(f16_from_float(std::nextafter(middle, 1e9f)), bits + 1) << bits;
  }
  EXPECT_EQ(f16_from_float(65519.0f), 0x7bff);
  EXPECT_EQ(f16_from_float(65520.0f), 0x7c00);
  EXPECT_EQ(bf16_from_float(1.00390625f), 0x3f80);  // a tie, to even
  EXPECT_EQ(bf16_from_float(1.01171875f), 0x3f82);
}

TEST(memory, counts_by_kind_and_keeps_the_limit) {
  auto account = std::make_shared<MemoryAccount>(size_t{8} << 20);
  {
    Buffer a(account, MemoryKind::weights, size_t{5} << 20), b(account, MemoryKind::caches, 1000);
    EXPECT_EQ(account->snapshot().total.live, (5u << 20) + 1000);
    EXPECT_EQ(account->snapshot().kinds[1].live, 1000u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data()) % (2 << 20), 0u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data()) % 64, 0u);
    for (size_t i = 0; i < a.size(); i += 4096) ASSERT_EQ(a.data()[i], std::byte(0));
    EXPECT_EQ(status_of([&] { Buffer c(account, MemoryKind::caches, size_t{4} << 20); }), WKV_OUT_OF_MEMORY);
    EXPECT_EQ(status_of([&] { Buffer c(account, MemoryKind::caches, SIZE_MAX); }), WKV_OUT_OF_MEMORY);
    Buffer moved = std::move(a);
    EXPECT_EQ(account->snapshot().total.live, (5u << 20) + 1000);
  }
  EXPECT_EQ(account->snapshot().total.live, 0u);
  EXPECT_EQ(account->snapshot().total.peak, (5u << 20) + 1000);
}

// A released state serves the next one: at once, without fresh pages, zero when that was asked for; it is not live, and
// goes when the limit needs its bytes.
TEST(memory, released_states_are_kept_for_the_next_ones) {
  constexpr size_t bytes = size_t{3} << 20;
  auto account = std::make_shared<MemoryAccount>(size_t{8} << 20);
  const std::byte *first = nullptr;
  {
    Buffer state(account, MemoryKind::caches, bytes, false);
    first = state.data();
    std::memset(state.data(), 7, bytes);
  }
  EXPECT_EQ(account->snapshot().total.live, 0u);
  {
    Buffer other(account, MemoryKind::caches, bytes - 64);  // another size is another block
    EXPECT_NE(other.data(), first);
    Buffer again(account, MemoryKind::store, bytes);
    EXPECT_EQ(again.data(), first);
    for (size_t i = 0; i < bytes; i++) ASSERT_EQ(again.data()[i], std::byte(0));
    EXPECT_EQ(account->snapshot().total.live, 2 * bytes - 64);
  }
  Buffer all(account, MemoryKind::weights, size_t{8} << 20);  // fits: the spares give way
  EXPECT_EQ(account->snapshot().total.live, size_t{8} << 20);
  EXPECT_EQ(status_of([&] { Buffer none(account, MemoryKind::caches, bytes); }), WKV_OUT_OF_MEMORY);
}

TEST(memory, is_counted_under_another_kind_on_demand) {
  auto account = std::make_shared<MemoryAccount>(0);
  Buffer state(account, MemoryKind::caches, 1000);
  state.count_as(MemoryKind::checkpoints);
  EXPECT_EQ(account->snapshot().kinds[static_cast<size_t>(MemoryKind::caches)].live, 0u);
  EXPECT_EQ(account->snapshot().kinds[static_cast<size_t>(MemoryKind::checkpoints)].live, 1000u);
  EXPECT_EQ(account->snapshot().total.live, 1000u);
  EXPECT_EQ(account->snapshot().total.peak, 1000u);
}

TEST(mapping, notices_a_file_that_shrinks) {
  std::string path = testing::TempDir() + "wkv_mapping_test";
  FILE *file = std::fopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr);
  std::string content(10000, 'x');
  std::fwrite(content.data(), 1, content.size(), file);
  std::fclose(file);
  auto mapping = Mapping::open(path);
  ASSERT_EQ(mapping->bytes().size(), content.size());
  EXPECT_EQ(std::memcmp(mapping->bytes().data(), content.data(), content.size()), 0);
  mapping->drop(mapping->bytes());  // the pages come back when they are read again
  EXPECT_EQ(mapping->bytes()[9999], std::byte('x'));
  mapping->check_length();
  ASSERT_EQ(truncate(path.c_str(), 9999), 0);
  EXPECT_EQ(status_of([&] { mapping->check_length(); }), WKV_IO);
  std::remove(path.c_str());
}

TEST(mapping, says_what_cannot_be_mapped) {
  EXPECT_EQ(status_of([] { Mapping::open("/nonexistent/file"); }), WKV_NOT_FOUND);
  EXPECT_EQ(status_of([] { Mapping::open("/"); }), WKV_IO);
  EXPECT_EQ(status_of([] { Mapping::open("/dev/null"); }), WKV_IO);
}

TEST(error, text_is_one_printable_line) {
  try {
    fail(WKV_FORMAT, "name %s\x01", "a\nb");
  } catch (const Error &error) {
    EXPECT_STREQ(error.what(), "name a?b?");
    EXPECT_EQ(error.status(), WKV_FORMAT);
  }
  std::string longer(2000, 'y');
  try {
    fail(WKV_FORMAT, "%s", longer.c_str());
  } catch (const Error &error) {
    EXPECT_EQ(std::strlen(error.what()), sizeof(wkv_error::message) - 1);
  }
}

TEST(processor, tells_something_sensible) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_FALSE(processor_name().empty());
  EXPECT_GT(physical_memory_bytes(), 1u << 20);
}
