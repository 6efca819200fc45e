// SPDX-License-Identifier: Apache-2.0
// The way through a model for few rows, against the function in double on the host: random models and batches.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/few.h"

namespace libwkv::cuda {
namespace {

#define CHECK_CUDA(call) check_cuda((call), #call)
void check_cuda(cudaError_t error, const char *call) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(error));
  std::abort();
}

struct Memory {
  char *at = nullptr;
  size_t bytes = 0;

  Memory(size_t size, int fill) : bytes(size) {
    CHECK_CUDA(cudaMalloc(&at, size + 256));
    CHECK_CUDA(cudaMemset(at, fill, size + 256));
  }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  ~Memory() { cudaFree(at); }
  std::vector<char> read() const {
    std::vector<char> out(bytes);
    CHECK_CUDA(cudaMemcpy(out.data(), at, bytes, cudaMemcpyDeviceToHost));
    return out;
  }
};

struct Random {
  uint64_t state;
  uint32_t bits() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<uint32_t>(state >> 33);
  }
  float uniform(float low, float high) { return low + (high - low) * static_cast<float>(bits()) / 2147483648.0f; }
};

// A matrix in both worlds.
struct Pair {
  Matrix device;
  std::vector<float> host;  // [outputs][inputs], what the numbers stand for
};

struct HostLayer {
  std::vector<float> ln1_weight, ln1_bias, ln2_weight, ln2_bias, ln_x_weight, ln_x_bias;
  std::vector<float> x_r, x_w, x_k, x_v, x_a, x_g, ffn_x_k, w0, a0, v0, k_k, k_a, r_k;
  std::vector<float> receptance, key, value, output, w1, a1, v1, g1, w2, a2, v2, g2, ffn_key, ffn_value;
};

struct Model {
  DeviceShape shape{};
  Weights weights{};
  std::vector<Layer> layers;
  std::vector<HostLayer> host;
  std::vector<float> embedding, head, ln0_weight, ln0_bias, ln_out_weight, ln_out_bias;
  std::vector<std::unique_ptr<Memory>> memory;
  Random random{1};

  const void *upload(const void *from, size_t bytes) {
    memory.push_back(std::make_unique<Memory>(bytes, 0xff));
    CHECK_CUDA(cudaMemcpy(memory.back()->at, from, bytes, cudaMemcpyHostToDevice));
    return memory.back()->at;
  }
  const float *vector(std::vector<float> &host_vector, float middle, float spread) {
    host_vector.resize(static_cast<size_t>(shape.width));
    for (float &x : host_vector) x = random.uniform(middle - spread, middle + spread);
    return static_cast<const float *>(upload(host_vector.data(), host_vector.size() * sizeof(float)));
  }
  // live: of so many outputs one is not all zero.
  Matrix matrix(std::vector<float> &numbers, int64_t outputs, int64_t inputs, Format format, float gain,
                Order order = Order::rows, uint32_t live = 1) {
    Matrix m;
    m.outputs = outputs;
    m.inputs = inputs;
    m.format = format;
    m.order = order;
    numbers.resize(static_cast<size_t>(outputs * inputs));
    const float spread = gain * std::sqrt(3.0f / static_cast<float>(inputs));
    const auto place = [&](int64_t o, int64_t i) {
      return static_cast<size_t>(order == Order::rows ? o * inputs + i : i * outputs + o);
    };
    std::vector<__half> halves(format == Format::f16 ? numbers.size() : 0);
    std::vector<uint8_t> bytes(format == Format::f16 ? 0 : numbers.size() / (format == Format::q4 ? 2 : 1));
    std::vector<__half> scales(format == Format::f16 ? 0 : numbers.size() / 32);
    for (int64_t o = 0; o < outputs; o++) {
      const bool is_zero = random.bits() % live != 0;
      for (int64_t i = 0; i < inputs; i++) {
        float &number = numbers[static_cast<size_t>(o * inputs + i)];
        if (format == Format::f16) {
          const __half half = __float2half(is_zero ? 0 : random.uniform(-spread, spread));
          halves[place(o, i)] = half;
          number = __half2float(half);
          continue;
        }
        const float most = format == Format::q8 ? 127 : 7.5f;
        __half &scale =
            scales[static_cast<size_t>(order == Order::rows ? o * (inputs / 32) + i / 32 : i / 32 * outputs + o)];
        if (i % 32 == 0) scale = __float2half(is_zero ? 0 : spread / most * random.uniform(0.5f, 1.5f));
        if (format == Format::q8) {
          const auto q = static_cast<int8_t>(random.bits() % 255);
          bytes[place(o, i)] = static_cast<uint8_t>(q);
          number = __half2float(scale) * static_cast<float>(q);
        } else {
          const auto q = static_cast<uint8_t>(random.bits() % 16);
          uint8_t &byte = bytes[static_cast<size_t>(o * (inputs / 2) + i / 32 * 16 + i % 16)];
          byte = static_cast<uint8_t>(i % 32 < 16 ? q : byte | q << 4);
          number = __half2float(scale) * static_cast<float>(q - 8);
        }
      }
    }
    if (format == Format::f16) {
      m.values = upload(halves.data(), halves.size() * 2);
    } else {
      m.values = upload(bytes.data(), bytes.size());
      m.scales = upload(scales.data(), scales.size() * 2);
    }
    return m;
  }
};

struct Recipe {
  int64_t layers, width, ffn_width, vocab, ranks[4];
  Format format;
  uint32_t live = 1;  // one of so many outputs of ffn.key can be non-zero
  Order value_order = Order::columns;
  bool is_mixed = false;  // value of the first layer and output of the last are f16 all the same
};

std::unique_ptr<Model> make_model(const Recipe &r) {
  auto model = std::make_unique<Model>();
  Model &m = *model;
  const int64_t c = r.width, *rank = r.ranks;
  m.shape = {r.layers, c, c / 64, 64, r.ffn_width, r.vocab, rank[0], rank[1], rank[2], rank[3]};
  m.weights.embedding = m.matrix(m.embedding, r.vocab, c, Format::f16, std::sqrt(static_cast<float>(c)));
  m.weights.ln0_weight = m.vector(m.ln0_weight, 1, 0.3f);
  m.weights.ln0_bias = m.vector(m.ln0_bias, 0, 0.2f);
  m.weights.ln_out_weight = m.vector(m.ln_out_weight, 1, 0.3f);
  m.weights.ln_out_bias = m.vector(m.ln_out_bias, 0, 0.2f);
  m.host.resize(static_cast<size_t>(r.layers));
  for (int64_t l = 0; l < r.layers; l++) {
    HostLayer &h = m.host[static_cast<size_t>(l)];
    Layer d{};
    d.ln1_weight = m.vector(h.ln1_weight, 1, 0.3f);
    d.ln2_weight = m.vector(h.ln2_weight, 1, 0.3f);
    d.ln_x_weight = m.vector(h.ln_x_weight, 1, 0.3f);
    d.ln1_bias = m.vector(h.ln1_bias, 0, 0.2f);
    d.ln2_bias = m.vector(h.ln2_bias, 0, 0.2f);
    d.ln_x_bias = m.vector(h.ln_x_bias, 0, 0.2f);
    d.x_r = m.vector(h.x_r, 0.5f, 0.5f);
    d.x_w = m.vector(h.x_w, 0.5f, 0.5f);
    d.x_k = m.vector(h.x_k, 0.5f, 0.5f);
    d.x_v = m.vector(h.x_v, 0.5f, 0.5f);
    d.x_a = m.vector(h.x_a, 0.5f, 0.5f);
    d.x_g = m.vector(h.x_g, 0.5f, 0.5f);
    d.ffn_x_k = m.vector(h.ffn_x_k, 0.5f, 0.5f);
    d.w0 = m.vector(h.w0, -1, 2);
    d.a0 = m.vector(h.a0, 0, 1);
    d.k_k = m.vector(h.k_k, 1, 0.3f);
    d.k_a = m.vector(h.k_a, 1, 0.3f);
    d.r_k = m.vector(h.r_k, 0, 0.2f);
    d.receptance = m.matrix(h.receptance, c, c, r.format, 1);
    d.key = m.matrix(h.key, c, c, r.format, 1);
    d.value = m.matrix(h.value, c, c, r.is_mixed && l == 0 ? Format::f16 : r.format, 1);
    d.output = m.matrix(h.output, c, c, r.is_mixed && l == r.layers - 1 ? Format::f16 : r.format, 1);
    d.w1 = m.matrix(h.w1, rank[0], c, Format::f16, 1);
    d.a1 = m.matrix(h.a1, rank[1], c, Format::f16, 1);
    d.g1 = m.matrix(h.g1, rank[3], c, Format::f16, 1);
    d.w2 = m.matrix(h.w2, c, rank[0], Format::f16, 1);
    d.a2 = m.matrix(h.a2, c, rank[1], Format::f16, 1);
    d.g2 = m.matrix(h.g2, c, rank[3], Format::f16, 2);
    if (l > 0) {
      d.v0 = m.vector(h.v0, 0, 1);
      d.v1 = m.matrix(h.v1, rank[2], c, Format::f16, 1);
      d.v2 = m.matrix(h.v2, c, rank[2], Format::f16, 1);
    }
    d.ffn_key = m.matrix(h.ffn_key, r.ffn_width, c, r.format, 1, Order::rows, r.live);
    d.ffn_value = m.matrix(h.ffn_value, c, r.ffn_width, r.format, 1, r.value_order);
    m.layers.push_back(d);
  }
  m.weights.head = m.matrix(m.head, r.vocab, c, r.format, 1);
  m.weights.layers = m.layers.data();
  return model;
}

// The function of FORMATS.md, one row at a time.
using Numbers = std::vector<double>;

struct HostState {
  struct LayerState {
    Numbers att, ffn, wkv;  // wkv[head][key][value]
  };
  std::vector<LayerState> layers;
};

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

Numbers layer_norm(const Numbers &x, const std::vector<float> &weight, const std::vector<float> &bias) {
  double mean = 0, squares = 0;
  for (double v : x) mean += v / static_cast<double>(x.size());
  for (double v : x) squares += (v - mean) * (v - mean) / static_cast<double>(x.size());
  Numbers h(x.size());
  for (size_t i = 0; i < x.size(); i++) h[i] = (x[i] - mean) / std::sqrt(squares + 1e-5) * weight[i] + bias[i];
  return h;
}

Numbers multiply(const std::vector<float> &w, const Numbers &x) {
  const size_t outputs = w.size() / x.size();
  Numbers y(outputs);
  const size_t parts = outputs * x.size() > 1 << 20 ? 8 : 1;
  const auto part = [&](size_t index) {
    for (size_t o = outputs * index / parts; o < outputs * (index + 1) / parts; o++) {
      double sums[4] = {};
      for (size_t i = 0; i < x.size(); i += 4)
        for (size_t n = 0; n < 4; n++) sums[n] += static_cast<double>(w[o * x.size() + i + n]) * x[i + n];
      y[o] = sums[0] + sums[1] + sums[2] + sums[3];
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < parts; i++) threads.emplace_back(part, i);
  part(0);
  for (std::thread &thread : threads) thread.join();
  return y;
}

Numbers mix(const Numbers &h, const Numbers &previous, const std::vector<float> &amount) {
  Numbers x(h.size());
  for (size_t i = 0; i < h.size(); i++) x[i] = h[i] + (previous[i] - h[i]) * amount[i];
  return x;
}

Numbers step(const Model &m, int32_t token, HostState &state, bool is_half_state) {
  const auto c = static_cast<size_t>(m.shape.width);
  Numbers x(c), first_value;
  for (size_t i = 0; i < c; i++) x[i] = m.embedding[static_cast<size_t>(token) * c + i];
  x = layer_norm(x, m.ln0_weight, m.ln0_bias);
  for (size_t l = 0; l < m.host.size(); l++) {
    const HostLayer &p = m.host[l];
    HostState::LayerState &s = state.layers[l];
    Numbers h = layer_norm(x, p.ln1_weight, p.ln1_bias);
    const Numbers xv = mix(h, s.att, p.x_v);
    const Numbers r = multiply(p.receptance, mix(h, s.att, p.x_r));
    Numbers k = multiply(p.key, mix(h, s.att, p.x_k)), v = multiply(p.value, xv);
    Numbers low_w = multiply(p.w1, mix(h, s.att, p.x_w)), low_g = multiply(p.g1, mix(h, s.att, p.x_g));
    for (double &one : low_w) one = std::tanh(one);
    for (double &one : low_g) one = logistic(one);
    Numbers w = multiply(p.w2, low_w), a = multiply(p.a2, multiply(p.a1, mix(h, s.att, p.x_a)));
    const Numbers g = multiply(p.g2, low_g);
    if (l == 0) {
      first_value = v;
    } else {
      const Numbers amount = multiply(p.v2, multiply(p.v1, xv));
      for (size_t i = 0; i < c; i++) v[i] += (first_value[i] - v[i]) * logistic(p.v0[i] + amount[i]);
    }
    s.att = h;
    Numbers gated(c);
    for (size_t head = 0; head < c / 64; head++) {
      double length = 0, bonus = 0, mean = 0, squares = 0, kk[64], y[64];
      for (size_t j = 0; j < 64; j++) {
        const size_t i = head * 64 + j;
        w[i] = std::exp(-std::exp(-0.5) * logistic(p.w0[i] + w[i]));
        a[i] = logistic(p.a0[i] + a[i]);
        kk[j] = k[i] * p.k_k[i];
        length += kk[j] * kk[j];
        k[i] *= 1 + (a[i] - 1) * p.k_a[i];
        bonus += r[i] * k[i] * p.r_k[i];
      }
      for (double &one : kk) one /= std::max(std::sqrt(length), 1e-12);
      for (size_t n = 0; n < 64; n++) {
        double *column = s.wkv.data() + head * 4096 + n, removed = 0;
        for (size_t j = 0; j < 64; j++) removed -= column[j * 64] * kk[j];
        y[n] = 0;
        for (size_t j = 0; j < 64; j++) {
          const size_t i = head * 64 + j;
          double &one = column[j * 64];
          one = one * w[i] + removed * kk[j] * a[i] + k[i] * v[head * 64 + n];
          y[n] += one * r[i];
          if (is_half_state) one = __half2float(__float2half(static_cast<float>(one)));
        }
        mean += y[n] / 64;
      }
      for (double one : y) squares += (one - mean) * (one - mean) / 64;
      for (size_t n = 0; n < 64; n++) {
        const size_t i = head * 64 + n;
        gated[i] =
            ((y[n] - mean) / std::sqrt(squares + 64e-5) * p.ln_x_weight[i] + p.ln_x_bias[i] + bonus * v[i]) * g[i];
      }
    }
    const Numbers attention = multiply(p.output, gated);
    for (size_t i = 0; i < c; i++) x[i] += attention[i];
    h = layer_norm(x, p.ln2_weight, p.ln2_bias);
    Numbers hidden = multiply(p.ffn_key, mix(h, s.ffn, p.ffn_x_k));
    s.ffn = h;
    for (double &one : hidden) one = one > 0 ? one * one : 0;
    const Numbers down = multiply(p.ffn_value, hidden);
    for (size_t i = 0; i < c; i++) x[i] += down[i];
  }
  return multiply(m.head, layer_norm(x, m.ln_out_weight, m.ln_out_bias));
}

struct SegmentPlan {
  int32_t rows;
  bool is_in_place;
  std::vector<int32_t> snapshots;  // rows of the segment
};
struct Plan {
  std::vector<SegmentPlan> segments;
  int32_t logits_step = 1;  // every how manieth row, from the last
  bool is_half_state = false;
};

class Difference {
 public:
  void add(double is, double should) {
    difference_ += (is - should) * (is - should);
    size_ += should * should;
  }
  double relative() const { return std::sqrt(difference_ / size_); }

 private:
  double difference_ = 0, size_ = 0;
};

Device this_device() {
  cudaDeviceProp properties;
  CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
  return {0, properties.multiProcessorCount, properties.major, properties.minor,
          static_cast<int>(properties.sharedMemPerBlockOptin)};
}

// One batch on the device and on the host, and twice on the device.
void check(Model &m, const Plan &plan, Memory &workspace) {
  const StateShape states{m.shape.layers, m.shape.width, m.shape.heads, 64, plan.is_half_state};
  const size_t bytes = states.bytes();
  const auto layers = static_cast<size_t>(m.shape.layers), c = static_cast<size_t>(m.shape.width);
  Random random{99};
  std::vector<Segment> segments;
  std::vector<Snapshot> snapshots;
  std::vector<int32_t> row_segment, tokens, logits_rows;
  size_t states_count = 0;
  for (const SegmentPlan &one : plan.segments) states_count += 2 + one.snapshots.size();
  Memory memory(states_count * bytes, 0xff);
  std::vector<char> begin(states_count * bytes, '\xff');  // targets and snapshots keep their NaN
  std::vector<HostState> starts;
  size_t next = 0;
  for (const SegmentPlan &one : plan.segments) {
    const auto row = static_cast<int32_t>(row_segment.size());
    const size_t target = next, source = one.is_in_place ? target : next + 1;
    HostState host;
    host.layers.resize(layers);
    for (size_t l = 0; l < layers; l++) {
      HostState::LayerState &s = host.layers[l];
      char *at = begin.data() + source * bytes;
      auto *att = reinterpret_cast<float *>(at + states.att_shift(static_cast<int64_t>(l)));
      auto *ffn = reinterpret_cast<float *>(at + states.ffn_shift(static_cast<int64_t>(l)));
      char *wkv = at + states.wkv(static_cast<int64_t>(l));
      for (size_t i = 0; i < c; i++) {
        s.att.push_back(att[i] = random.uniform(-1, 1));
        s.ffn.push_back(ffn[i] = random.uniform(-1, 1));
      }
      for (size_t i = 0; i < c * 64; i++) {
        const float number = __half2float(__float2half(random.uniform(-1, 1)));
        s.wkv.push_back(number);
        if (plan.is_half_state)
          reinterpret_cast<__half *>(wkv)[i] = __float2half(number);
        else
          reinterpret_cast<float *>(wkv)[i] = number;
      }
    }
    starts.push_back(host);
    segments.push_back({memory.at + source * bytes, memory.at + target * bytes, row, row + one.rows,
                        static_cast<int32_t>(snapshots.size()), static_cast<int32_t>(one.snapshots.size())});
    next += 2;
    for (int32_t at : one.snapshots) snapshots.push_back({row + at, memory.at + next++ * bytes});
    for (int32_t i = 0; i < one.rows; i++) {
      row_segment.push_back(static_cast<int32_t>(segments.size() - 1));
      tokens.push_back(static_cast<int32_t>(random.bits() % static_cast<uint32_t>(m.shape.vocab_size)));
    }
  }
  const auto rows = static_cast<int32_t>(tokens.size());
  for (int32_t row = rows - 1; row >= 0; row -= plan.logits_step) logits_rows.insert(logits_rows.begin(), row);

  std::vector<std::unique_ptr<Memory>> arrays;
  const auto upload = [&]<class T>(const std::vector<T> &from) {
    arrays.push_back(std::make_unique<Memory>(from.size() * sizeof(T), 0xff));
    CHECK_CUDA(cudaMemcpy(arrays.back()->at, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
    return reinterpret_cast<const T *>(arrays.back()->at);
  };
  const auto vocab = static_cast<size_t>(m.shape.vocab_size);
  Memory logits(logits_rows.size() * vocab * sizeof(float), 0xff);
  Batch batch{rows,
              static_cast<int32_t>(segments.size()),
              static_cast<int32_t>(snapshots.size()),
              static_cast<int32_t>(logits_rows.size()),
              0,
              upload(tokens),
              upload(row_segment),
              upload(segments),
              upload(snapshots),
              upload(logits_rows),
              reinterpret_cast<float *>(logits.at)};
  const Device device = this_device();
  ASSERT_TRUE(few_fits(device, m.shape, m.weights));
  ASSERT_LE(few_workspace_bytes(m.shape, rows), workspace.bytes);
  std::vector<char> state_bytes[2], logits_bytes[2];
  for (int run = 0; run < 2; run++) {
    CHECK_CUDA(cudaMemcpy(memory.at, begin.data(), begin.size(), cudaMemcpyHostToDevice));
    CHECK_CUDA(cudaMemset(logits.at, 0xff, logits.bytes));
    CHECK_CUDA(few_forward(nullptr, device, m.shape, states, m.weights, batch, workspace.at));
    CHECK_CUDA(cudaDeviceSynchronize());
    state_bytes[run] = memory.read();
    logits_bytes[run] = logits.read();
  }
  EXPECT_EQ(state_bytes[0], state_bytes[1]) << "not the same bits twice";
  EXPECT_EQ(logits_bytes[0], logits_bytes[1]) << "not the same bits twice";

  Difference scores, shifts, wkv;
  const auto compare_state = [&](const char *device_address, const HostState &host) {
    const char *at = state_bytes[0].data() + (device_address - memory.at);
    for (size_t l = 0; l < layers; l++) {
      const auto layer = static_cast<int64_t>(l);
      for (size_t i = 0; i < c; i++) {
        shifts.add(reinterpret_cast<const float *>(at + states.att_shift(layer))[i], host.layers[l].att[i]);
        shifts.add(reinterpret_cast<const float *>(at + states.ffn_shift(layer))[i], host.layers[l].ffn[i]);
      }
      for (size_t i = 0; i < c * 64; i++)
        wkv.add(plan.is_half_state ? __half2float(reinterpret_cast<const __half *>(at + states.wkv(layer))[i])
                                   : reinterpret_cast<const float *>(at + states.wkv(layer))[i],
                host.layers[l].wkv[i]);
    }
  };
  size_t next_logits = 0;
  for (size_t s = 0; s < segments.size(); s++) {
    const Segment &segment = segments[s];
    HostState host = starts[s];
    for (int32_t row = segment.begin; row < segment.end; row++) {
      const Numbers should = step(m, tokens[static_cast<size_t>(row)], host, plan.is_half_state);
      if (next_logits < logits_rows.size() && logits_rows[next_logits] == row) {
        const auto *is = reinterpret_cast<const float *>(logits_bytes[0].data()) + next_logits++ * vocab;
        for (size_t i = 0; i < vocab; i++) scores.add(is[i], should[i]);
      }
      for (int32_t i = segment.snapshots; i < segment.snapshots + segment.snapshots_count; i++)
        if (snapshots[static_cast<size_t>(i)].row == row) compare_state(snapshots[static_cast<size_t>(i)].state, host);
    }
    compare_state(segment.state, host);
    if (segment.from != segment.state) {
      const size_t at = static_cast<size_t>(segment.from - memory.at);
      EXPECT_EQ(0, std::memcmp(begin.data() + at, state_bytes[0].data() + at, bytes)) << "a source was written";
    }
  }
  std::printf("  %2d rows, %2zu segments%s: scores %.1e, shifts %.1e, wkv %.1e\n", rows, segments.size(),
              plan.is_half_state ? ", half states" : "", scores.relative(), shifts.relative(), wkv.relative());
  std::fflush(stdout);
  const double bound = plan.is_half_state ? 3e-3 : 2e-5;
  EXPECT_LT(scores.relative(), bound);
  EXPECT_LT(shifts.relative(), bound);
  EXPECT_LT(wkv.relative(), bound);
}

Plan single_rows(int32_t rows) {
  Plan plan;
  for (int32_t i = 0; i < rows; i++) plan.segments.push_back({1, i % 3 != 1, {}});
  return plan;
}

void check_all(const Recipe &recipe, const std::vector<Plan> &plans) {
  if (this_device().major < 9) GTEST_SKIP() << "needs Hopper";
  const auto model = make_model(recipe);
  Memory workspace(few_workspace_bytes(model->shape, few_rows), 0);
  for (const Plan &plan : plans) check(*model, plan, workspace);
}

std::vector<Plan> many_plans() {
  std::vector<Plan> plans;
  for (int32_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16}) plans.push_back(single_rows(rows));
  plans.push_back({{{1, false, {}}}, 1});
  plans.push_back({{{4, true, {0, 2}}}, 1});
  plans.push_back({{{16, true, {0, 7, 14}}}, 1});
  plans.push_back({{{3, false, {1}}, {1, true, {}}, {5, true, {0, 3}}}, 2});
  plans.push_back({{{2, true, {}}, {1, false, {}}}, 16});
  plans.push_back({{{1, true, {}}}, 1, true});
  plans.push_back({{{4, false, {2}}, {1, true, {}}, {6, true, {}}, {1, true, {}}, {1, false, {}}}, 1, true});
  return plans;
}

Recipe small(Format format) { return {3, 512, 2048, 777, {64, 32, 96, 160}, format}; }

TEST(Few, F16) { check_all(small(Format::f16), many_plans()); }
TEST(Few, Q8) { check_all(small(Format::q8), many_plans()); }
TEST(Few, Q4) {
  Recipe recipe = small(Format::q4);
  recipe.value_order = Order::rows;
  check_all(recipe, many_plans());
}
// Little enough for compute-sanitizer.
TEST(Few, OneRow) {
  for (Format format : {Format::f16, Format::q8})
    check_all({2, 512, 2048, 300, {64, 32, 96, 160}, format, 4}, {single_rows(1), {{{1, false, {}}}, 1, true}});
}
TEST(Few, MixedFormats) {
  Recipe recipe{2, 1024, 4096, 300, {64, 64, 32, 128}, Format::q8};
  recipe.is_mixed = true;
  check_all(recipe, {single_rows(1), single_rows(3), single_rows(8), single_rows(16)});
  recipe.format = Format::q4;
  recipe.value_order = Order::rows;
  check_all(recipe, {single_rows(1), single_rows(3), single_rows(8), single_rows(16)});
}
TEST(Few, ValueByRows) {
  Recipe recipe = small(Format::f16);
  recipe.value_order = Order::rows;
  check_all(recipe, {single_rows(1), single_rows(3), single_rows(16)});
}
TEST(Few, MostlyZeros) {
  for (Format format : {Format::f16, Format::q8}) {
    Recipe recipe{2, 1024, 4096, 500, {64, 64, 32, 128}, format, 8};
    check_all(recipe, {single_rows(1), single_rows(2), single_rows(4), single_rows(8)});
  }
}
TEST(Few, Widths) {
  check_all({2, 768, 3072, 300, {64, 64, 32, 128}, Format::f16}, {single_rows(1), single_rows(6)});
  check_all({2, 768, 3072, 300, {64, 64, 32, 128}, Format::q8, 4}, {single_rows(1), single_rows(3)});
  check_all({1, 256, 768, 33, {32, 32, 32, 32}, Format::q8}, {single_rows(1), single_rows(4), single_rows(16)});
  check_all({2, 1280, 256, 70, {32, 96, 32, 64}, Format::q8}, {single_rows(1), single_rows(4)});
  check_all({1, 2048, 8192, 1000, {96, 96, 64, 256}, Format::f16, 8}, {single_rows(1), single_rows(2)});
  check_all({1, 2048, 8192, 1000, {96, 96, 64, 256}, Format::q8, 8}, {single_rows(1), single_rows(2)});
  check_all({1, 2560, 10240, 1000, {96, 96, 64, 320}, Format::f16}, {single_rows(1), single_rows(3), single_rows(9)});
  check_all({1, 2560, 10240, 1000, {96, 96, 64, 320}, Format::q8, 8}, {single_rows(1), single_rows(3)});
  check_all({1, 4096, 16384, 5000, {128, 128, 96, 480}, Format::f16, 8}, {single_rows(1), single_rows(16)});
  check_all({1, 4096, 16384, 5000, {128, 128, 96, 480}, Format::q8, 1},
            {single_rows(1), single_rows(4), single_rows(5)});
}
// More outputs than the first blocks to be done leave to the others.
TEST(Few, ManyOutputs) {
  for (Format format : {Format::f16, Format::q8})
    check_all({1, 256, 1024, 70001, {32, 32, 32, 32}, format}, {single_rows(1), single_rows(2)});
}

}  // namespace
}  // namespace libwkv::cuda
