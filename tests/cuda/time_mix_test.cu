// SPDX-License-Identifier: Apache-2.0
// time_mix against the recurrence in double, one row after another.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/time_mix.h"

namespace libwkv::cuda {
namespace {

#define WORKS(call) ASSERT_EQ(call, cudaSuccess) << cudaGetErrorString(cudaGetLastError())

template <class T>
struct OnDevice {
  T *data = nullptr;
  size_t count = 0;

  OnDevice() = default;
  explicit OnDevice(const std::vector<T> &values) : count(values.size()) {
    if (cudaMalloc(&data, (count + 1) * sizeof(T)) != cudaSuccess) std::abort();
    if (cudaMemcpy(data, values.data(), count * sizeof(T), cudaMemcpyHostToDevice) != cudaSuccess) std::abort();
  }
  OnDevice(const OnDevice &) = delete;
  OnDevice &operator=(const OnDevice &) = delete;
  OnDevice(OnDevice &&other) noexcept : data(std::exchange(other.data, nullptr)), count(other.count) {}
  ~OnDevice() { cudaFree(data); }

  std::vector<T> read() const {
    std::vector<T> values(count);
    if (cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost) != cudaSuccess) std::abort();
    return values;
  }
};

struct SegmentCase {
  int length;
  bool in_place = true;
  std::vector<int> snapshots = {};  // rows of the segment
};

enum class Data { realistic, adversarial };

struct Case {
  int heads, head_size;
  std::vector<SegmentCase> segments;
  bool is_half_state = false, is_half_out = false, is_first_layer = false;
  Data data = Data::realistic;
  TimeMixWay way = TimeMixWay::automatic;
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct Inputs {
  std::vector<float> receptance, key, value, w, a, v, g, first_value;    // [rows][width]
  std::vector<float> w0, a0, v0, k_k, k_a, r_k, norm_weight, norm_bias;  // [width]
};

Inputs make_inputs(const Case &c, int rows, std::mt19937 &random) {
  const int width = c.heads * c.head_size;
  const auto normal = [&](size_t count, double mean, double deviation) {
    std::normal_distribution<float> distribution(static_cast<float>(mean), static_cast<float>(deviation));
    std::vector<float> values(count);
    for (float &x : values) x = distribution(random);
    return values;
  };
  const auto all = static_cast<size_t>(rows) * width, one = static_cast<size_t>(width);
  Inputs in;
  in.receptance = normal(all, 0, 1), in.key = normal(all, 0, 1), in.value = normal(all, 0, 1);
  in.w = normal(all, 0, 1), in.a = normal(all, 0, 1), in.v = normal(all, 0, 1), in.g = normal(all, 0, 1);
  in.first_value = normal(all, 0, 1);
  in.w0 = normal(one, -4, 2), in.a0 = normal(one, 0, 1), in.v0 = normal(one, 0, 1);
  in.k_k = normal(one, 0.8, 0.2), in.k_a = normal(one, 1, 0.2), in.r_k = normal(one, 0, 0.3);
  in.norm_weight = normal(one, 1, 0.2), in.norm_bias = normal(one, 0, 0.2);
  if (c.data == Data::adversarial) {  // the fastest decay, a = 1 and the same key in every row
    in.w0.assign(one, 40), in.a0.assign(one, 40);
    for (size_t i = one; i < all; ++i) in.key[i] = in.key[i % one];
  }
  return in;
}

struct Result {
  std::vector<double> out, first_value;
  std::vector<std::vector<double>> states;                  // of segments
  std::vector<std::vector<std::vector<double>>> snapshots;  // of segments
};

Result reference(const Case &c, const Inputs &in, std::vector<std::vector<double>> states) {
  const int n = c.head_size, width = c.heads * n;
  Result result;
  result.out.resize(in.key.size());
  result.first_value.assign(in.first_value.begin(), in.first_value.end());
  int begin = 0;
  for (size_t s = 0; s < c.segments.size(); ++s) {
    result.snapshots.emplace_back();
    for (int t = 0; t < c.segments[s].length; ++t) {
      const size_t row = static_cast<size_t>(begin + t) * width;
      for (int head = 0; head < c.heads; ++head) {
        std::vector<double> w(n), kk(n), b(n), k(n), v(n), y(n);
        double squares = 0, bonus = 0, mean = 0, variance = 0;
        for (int i = 0; i < n; ++i) {
          const int channel = head * n + i;
          const size_t at = row + channel;
          kk[i] = static_cast<double>(in.key[at]) * in.k_k[channel];
          squares += kk[i] * kk[i];
        }
        const double norm = std::max(std::sqrt(squares), 1e-12);
        for (int i = 0; i < n; ++i) {
          const int channel = head * n + i;
          const size_t at = row + channel;
          const double a = sigmoid(static_cast<double>(in.a0[channel]) + in.a[at]);
          w[i] = std::exp(-std::exp(-0.5) * sigmoid(static_cast<double>(in.w0[channel]) + in.w[at]));
          kk[i] /= norm;
          b[i] = kk[i] * a;
          k[i] = in.key[at] * (1 + (a - 1) * in.k_a[channel]);
          v[i] = in.value[at];
          if (c.is_first_layer)
            result.first_value[at] = v[i];
          else
            v[i] += (in.first_value[at] - v[i]) * sigmoid(static_cast<double>(in.v0[channel]) + in.v[at]);
          bonus += in.receptance[at] * k[i] * in.r_k[channel];
        }
        double *state = &states[s][static_cast<size_t>(head) * n * n];  // [key][value]
        std::vector<double> removed(n);
        for (int j = 0; j < n; ++j) {
          for (int i = 0; i < n; ++i) removed[i] -= state[j * n + i] * kk[j];
        }
        for (int j = 0; j < n; ++j) {
          for (int i = 0; i < n; ++i) {
            double &x = state[j * n + i];
            x = x * w[j] + b[j] * removed[i] + k[j] * v[i];
            y[i] += x * in.receptance[row + head * n + j];
          }
        }
        for (int i = 0; i < n; ++i) mean += y[i] / n;
        for (int i = 0; i < n; ++i) variance += (y[i] - mean) * (y[i] - mean) / n;
        for (int i = 0; i < n; ++i) {
          const int channel = head * n + i;
          const double o = (y[i] - mean) / std::sqrt(variance + 64e-5) * in.norm_weight[channel] +
                           in.norm_bias[channel] + bonus * v[i];
          result.out[row + channel] = o * in.g[row + channel];
        }
      }
      for (const int snapshot : c.segments[s].snapshots) {
        if (snapshot == t) result.snapshots.back().push_back(states[s]);
      }
    }
    begin += c.segments[s].length;
  }
  result.states = std::move(states);
  return result;
}

// ||values - truth|| / ||truth||; infinite with a NaN.
template <class T>
double relative_error(const std::vector<T> &values, const std::vector<double> &truth) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    const double d = static_cast<double>(values[i]) - truth[i];
    difference += d * d;
    norm += truth[i] * truth[i];
  }
  const double error = std::sqrt(difference / norm);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

struct Errors {
  double out, states;
};

// Runs a case in layer 0 or 1 of 2. States are filled with noise outside of the layer's WKV part, which must stay.
void run(const Case &c, Errors bounds) {
  const int n = c.head_size, width = c.heads * n;
  int rows = 0, longest = 0;
  for (const SegmentCase &s : c.segments) rows += s.length, longest = std::max(longest, s.length);
  std::mt19937 random(static_cast<unsigned>(rows * 31 + width));
  const Inputs in = make_inputs(c, rows, random);
  const StateShape shape = {2, width, c.heads, n, c.is_half_state};
  const int64_t layer_index = c.is_first_layer ? 0 : 1;
  const size_t wkv = shape.wkv(layer_index), numbers = static_cast<size_t>(c.heads) * n * n;

  const auto numbers_of = [&](const std::vector<char> &state) {
    std::vector<double> values(numbers);
    for (size_t i = 0; i < numbers; ++i) {
      if (c.is_half_state) {
        __half x;
        std::memcpy(&x, &state[wkv + 2 * i], 2);
        values[i] = __half2float(x);
      } else {
        float x;
        std::memcpy(&x, &state[wkv + 4 * i], 4);
        values[i] = x;
      }
    }
    return values;
  };
  std::normal_distribution<float> normal;
  std::vector<std::vector<char>> from_bytes;
  std::vector<std::vector<double>> from_numbers;
  for (size_t s = 0; s < c.segments.size(); ++s) {
    std::vector<char> state(shape.bytes());
    for (char &byte : state) byte = static_cast<char>(random());
    for (size_t i = 0; i < numbers; ++i) {
      const float x = normal(random);
      const __half half = __float2half_rn(x);
      if (c.is_half_state)
        std::memcpy(&state[wkv + 2 * i], &half, 2);
      else
        std::memcpy(&state[wkv + 4 * i], &x, 4);
    }
    from_numbers.push_back(numbers_of(state));
    from_bytes.push_back(std::move(state));
  }
  const Result truth = reference(c, in, from_numbers);

  const std::vector<char> poison(shape.bytes(), '\xff');
  std::vector<OnDevice<char>> from, to, snapshot_states;
  std::vector<Segment> segments;
  std::vector<Snapshot> snapshots;
  std::vector<int32_t> row_segment;
  for (size_t s = 0; s < c.segments.size(); ++s) {
    const SegmentCase &of = c.segments[s];
    from.emplace_back(from_bytes[s]);
    to.emplace_back(of.in_place ? std::vector<char>() : poison);
    const auto begin = static_cast<int32_t>(row_segment.size());
    segments.push_back({from.back().data, of.in_place ? from.back().data : to.back().data, begin, begin + of.length,
                        static_cast<int32_t>(snapshots.size()), static_cast<int32_t>(of.snapshots.size())});
    for (const int row : of.snapshots) {
      snapshot_states.emplace_back(poison);
      snapshots.push_back({begin + row, snapshot_states.back().data});
    }
    row_segment.insert(row_segment.end(), of.length, static_cast<int32_t>(s));
  }
  const OnDevice<Segment> device_segments(segments);
  const OnDevice<Snapshot> device_snapshots(snapshots);
  const OnDevice<float> receptance(in.receptance), key(in.key), value(in.value), w(in.w), a(in.a), v(in.v), g(in.g);
  const std::vector<float> nan(in.key.size(), std::nanf(""));
  const OnDevice<float> first_value(c.is_first_layer ? nan : in.first_value), out(nan);
  const OnDevice<__half> out_half(std::vector<__half>(nan.size(), __float2half_rn(std::nanf(""))));
  const OnDevice<float> w0(in.w0), a0(in.a0), v0(in.v0), k_k(in.k_k), k_a(in.k_a), r_k(in.r_k);
  const OnDevice<float> norm_weight(in.norm_weight), norm_bias(in.norm_bias);

  Layer layer = {};
  layer.w0 = w0.data, layer.a0 = a0.data, layer.v0 = c.is_first_layer ? nullptr : v0.data;
  layer.k_k = k_k.data, layer.k_a = k_a.data, layer.r_k = r_k.data;
  layer.ln_x_weight = norm_weight.data, layer.ln_x_bias = norm_bias.data;
  Batch batch = {};
  batch.rows = rows, batch.segments_count = static_cast<int32_t>(segments.size());
  batch.snapshots_count = static_cast<int32_t>(snapshots.size()), batch.longest = longest;
  batch.segments = device_segments.data, batch.snapshots = device_snapshots.data;
  TimeMixRows io = {receptance.data,
                    key.data,
                    value.data,
                    w.data,
                    a.data,
                    c.is_first_layer ? nullptr : v.data,
                    g.data,
                    first_value.data,
                    c.is_half_out ? out_half.data : nullptr,
                    c.is_half_out ? nullptr : out.data};
  cudaDeviceProp properties;
  WORKS(cudaGetDeviceProperties(&properties, 0));
  const Device device = {0, properties.multiProcessorCount, properties.major, properties.minor,
                         static_cast<int>(properties.sharedMemPerBlockOptin)};
  DeviceShape model = {};
  model.layers = 2, model.width = width, model.heads = c.heads, model.head_size = n;
  const OnDevice<char> workspace(std::vector<char>(time_mix_workspace_bytes(device, model, rows), '\xff'));

  cudaStream_t stream;
  WORKS(cudaStreamCreate(&stream));
  WORKS(time_mix(stream, device, model, shape, layer, layer_index, batch, io, workspace.data, c.way));
  WORKS(cudaStreamSynchronize(stream));
  WORKS(cudaStreamDestroy(stream));

  Errors errors = {};
  if (c.is_half_out) {
    std::vector<float> values;
    for (const __half x : out_half.read()) values.push_back(__half2float(x));
    errors.out = relative_error(values, truth.out);
  } else {
    errors.out = relative_error(out.read(), truth.out);
  }
  EXPECT_EQ(relative_error(first_value.read(), truth.first_value), 0);
  size_t snapshot = 0;
  for (size_t s = 0; s < segments.size(); ++s) {
    const std::vector<char> state = c.segments[s].in_place ? from[s].read() : to[s].read();
    errors.states = std::max(errors.states, relative_error(numbers_of(state), truth.states[s]));
    const std::vector<char> &around = c.segments[s].in_place ? from_bytes[s] : poison;
    EXPECT_EQ(std::memcmp(state.data(), around.data(), wkv), 0);
    const size_t behind = wkv + shape.wkv_bytes();
    EXPECT_EQ(std::memcmp(&state[behind - 1] + 1, &around[behind - 1] + 1, shape.bytes() - behind), 0);
    if (!c.segments[s].in_place) {
      EXPECT_EQ(from[s].read(), from_bytes[s]);
    }
    for (size_t i = 0; i < c.segments[s].snapshots.size(); ++i, ++snapshot) {
      errors.states =
          std::max(errors.states, relative_error(numbers_of(snapshot_states[snapshot].read()), truth.snapshots[s][i]));
    }
  }
  std::printf("  %d heads of %d, %d rows, %zu segments%s%s%s: error of the output %.1e, of the states %.1e\n", c.heads,
              n, rows, segments.size(), c.is_half_state ? ", half states" : "", c.is_half_out ? ", half output" : "",
              c.data == Data::adversarial ? ", adversarial" : "", errors.out, errors.states);
  EXPECT_LT(errors.out, bounds.out);
  EXPECT_LT(errors.states, bounds.states);
}

// What the ways reach, with some room. States in half round once a segment.
constexpr Errors serial_bounds = {5e-6, 2e-6}, chunked_bounds = {1e-4, 4e-5};

std::vector<SegmentCase> ragged() {
  return {{1},
          {40, false, {0, 15, 16, 17, 38}},
          {2, false, {0}},
          {16},
          {7, true, {2, 5}},
          {130, true, {63, 64}},
          {1, false},
          {17, false},
          {11},
          {12}};
}

TEST(TimeMix, SerialLengths) {
  for (const int length : {1, 2, 7, 11}) run({3, 64, {{length}}}, serial_bounds);
  for (const int length : {15, 16, 17, 100}) {
    Case c = {2, 64, {{length}, {length + 1, false}}};
    c.way = TimeMixWay::serial;
    run(c, serial_bounds);
  }
}

TEST(TimeMix, SerialBatches) {
  for (const int count : {2, 16, 17, 321}) run({2, 64, std::vector<SegmentCase>(count, SegmentCase{1})}, serial_bounds);
  Case c = {3, 64, ragged()};
  c.way = TimeMixWay::serial;
  run(c, serial_bounds);
  c.is_first_layer = true;
  run(c, serial_bounds);
}

TEST(TimeMix, SerialHalf) {
  Case c = {3, 64, ragged()};
  c.way = TimeMixWay::serial;
  c.is_half_state = true;
  run(c, {1e-4, 5e-4});
  c.is_half_out = true;
  run(c, {5e-4, 5e-4});
}

TEST(TimeMix, OtherHeadSizes) {
  for (const int size : {2, 32, 40, 80, 128, 256}) {
    Case c = {2, size, ragged()};
    run(c, serial_bounds);
    c.is_first_layer = true;
    run(c, serial_bounds);
  }
  Case half = {3, 48, ragged()};
  half.is_half_state = half.is_half_out = true;
  run(half, {5e-4, 5e-4});
}

TEST(TimeMix, ChunkedLengths) {
  for (const int length : {12, 15, 16, 17, 31, 32, 33, 63, 64, 65, 112, 113, 240, 1000})
    run({2, 64, {{length}}}, chunked_bounds);
  run({1, 64, {{4096}}}, chunked_bounds);
}

TEST(TimeMix, ChunkedRagged) {
  Case c = {3, 64, ragged()};
  run(c, chunked_bounds);
  c.is_half_out = true;
  run(c, {5e-4, 4e-5});
  c.is_first_layer = true;
  run(c, {5e-4, 4e-5});
  c.is_half_state = true;
  run(c, {5e-4, 5e-4});
}

TEST(TimeMix, ChunkedHeads) {
  for (const int heads : {1, 16, 32, 40, 64}) run({heads, 64, {{700, false, {13, 399, 400}}}}, chunked_bounds);
}

TEST(TimeMix, ChunkedAdversarial) {
  for (const TimeMixWay way : {TimeMixWay::serial, TimeMixWay::automatic}) {
    Case c = {2, 64, {{300}, {33, false}}};
    c.data = Data::adversarial;
    c.way = way;
    run(c, chunked_bounds);
  }
}

}  // namespace
}  // namespace libwkv::cuda
