// SPDX-License-Identifier: Apache-2.0
#include "text/sampler_bytes.h"

#include <algorithm>
#include <cmath>

namespace libwkv {
namespace {

constexpr uint32_t layout = 1;

void expect(bool is_valid, const char *field, double value) {
  if (!is_valid) fail(WKV_FORMAT, "a sampler has %s %g", field, value);
}

// A list's count, which the bytes behind it must be able to hold.
size_t read_count(ByteReader &reader, const char *field, size_t entry_bytes, size_t most = longest_sampler_list) {
  const uint64_t count = reader.read<uint64_t>();
  if (count > most || count > reader.left() / entry_bytes)
    fail(WKV_FORMAT, "a sampler has %llu %s, and %zu bytes are left", static_cast<unsigned long long>(count), field,
         reader.left());
  return static_cast<size_t>(count);
}

std::vector<int32_t> read_tokens(ByteReader &reader, const char *field) {
  std::vector<int32_t> tokens(read_count(reader, field, sizeof(int32_t)));
  for (int32_t &token : tokens) {
    token = reader.read<int32_t>();
    expect(token >= 0, field, token);
  }
  return tokens;
}

}  // namespace

void write_sampler(ByteWriter &writer, const Sampler &sampler) {
  const SamplerOptions &options = sampler.options();
  const SamplerState &state = sampler.state();
  writer.write(layout);
  writer.write(static_cast<uint32_t>(options.is_greedy));
  for (const double number : {options.temperature, options.top_p, options.min_p, options.typical_p, options.repetition,
                              options.presence, options.frequency, options.penalty_decay})
    writer.write(number);
  writer.write(options.top_k);
  writer.write(options.ids_end);
  for (const uint64_t word : state.random.state) writer.write(word);
  writer.write(static_cast<uint64_t>(options.biases.size()));
  for (const wkv_token_bias &bias : options.biases) {
    writer.write(bias.token);
    writer.write(bias.bias);
  }
  writer.write_list(options.banned);
  writer.write_list(options.exempt);
  writer.write(static_cast<uint64_t>(state.counts.size()));
  for (const SamplerState::Count &entry : state.counts) {
    writer.write(entry.token);
    writer.write(entry.count);
  }
}

std::shared_ptr<Sampler> read_sampler(ByteReader &reader) {
  const uint32_t found = reader.read<uint32_t>();
  if (found != layout)
    fail(found > layout ? WKV_UNSUPPORTED : WKV_FORMAT, "a sampler has the layout %u, this library reads %u", found,
         layout);
  SamplerOptions options;
  const uint32_t is_greedy = reader.read<uint32_t>();
  expect(is_greedy <= 1, "is_greedy", is_greedy);
  options.is_greedy = is_greedy == 1;
  // The ranges of wkv/sampler.h, with defaults filled in; each is false for what is not a number.
  const auto read = [&](double &field, const char *name, double low, bool has_low, double high) {
    field = reader.read<double>();
    expect(std::isfinite(field) && (has_low ? field >= low : field > low) && field <= high, name, field);
  };
  read(options.temperature, "temperature", 0, false, INFINITY);
  read(options.top_p, "top_p", 0, false, 1);
  read(options.min_p, "min_p", 0, true, 1);
  expect(options.min_p < 1, "min_p", options.min_p);
  read(options.typical_p, "typical_p", 0, false, 1);
  read(options.repetition, "repetition", 0, false, INFINITY);
  read(options.presence, "presence", -INFINITY, true, INFINITY);
  read(options.frequency, "frequency", -INFINITY, true, INFINITY);
  read(options.penalty_decay, "penalty_decay", 0, false, 1);
  options.top_k = reader.read<int32_t>();
  expect(options.top_k >= 0, "top_k", options.top_k);
  options.ids_end = reader.read<int32_t>();
  expect(options.ids_end >= 0, "ids_end", options.ids_end);

  SamplerState state{Random(0), {}};
  for (uint64_t &word : state.random.state) word = reader.read<uint64_t>();
  if (std::all_of(state.random.state.begin(), state.random.state.end(), [](uint64_t word) { return word == 0; }))
    fail(WKV_FORMAT, "a sampler has a random generator that is all zero, which would stay so");

  options.biases.resize(read_count(reader, "biases", 8));
  for (wkv_token_bias &bias : options.biases) {
    bias.token = reader.read<int32_t>();
    bias.bias = reader.read<float>();
    expect(bias.token >= 0, "the biased token", bias.token);
    expect(!std::isnan(bias.bias), "the bias", static_cast<double>(bias.bias));
  }
  options.banned = read_tokens(reader, "banned tokens");
  options.exempt = read_tokens(reader, "exempt tokens");
  if (!std::is_sorted(options.exempt.begin(), options.exempt.end()))
    fail(WKV_FORMAT, "a sampler's exempt tokens are not rising");

  state.counts.resize(read_count(reader, "counts", 12, INT32_MAX));
  int64_t before = -1;
  for (SamplerState::Count &entry : state.counts) {
    entry.token = reader.read<int32_t>();
    entry.count = reader.read<double>();
    expect(entry.token > before, "a count out of order, of token", entry.token);
    expect(std::isfinite(entry.count) && entry.count > 0, "the count", entry.count);
    before = entry.token;
  }
  if (!options.has_penalties() && !state.counts.empty())
    fail(WKV_FORMAT, "a sampler without penalties has %zu counts", state.counts.size());
  return std::make_shared<Sampler>(std::move(options), std::move(state));
}

}  // namespace libwkv
