// SPDX-License-Identifier: Apache-2.0
// The persistent kernel against a reference in double.
#include "kernels/cuda/stream.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace libwkv::cuda {
namespace {

#define CHECK_CUDA(call) ASSERT_EQ(call, cudaSuccess) << #call

using Numbers = std::vector<double>;

// Device memory that is freed with the test.
class Memory {
 public:
  explicit Memory(size_t bytes) {
    if (cudaMalloc(&at_, bytes) != cudaSuccess) at_ = nullptr;
  }
  ~Memory() { (void)cudaFree(at_); }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  void *get() const { return at_; }

 private:
  void *at_ = nullptr;
};

struct TestMatrix {
  int64_t outputs = 0, inputs = 0;
  std::vector<float> values;  // [outputs][inputs], as F16 holds them
  Numbers operator*(const Numbers &x) const {
    Numbers y(static_cast<size_t>(outputs));
    for (int64_t o = 0; o < outputs; o++) {
      double sum = 0;
      for (int64_t i = 0; i < inputs; i++)
        sum += static_cast<double>(values[static_cast<size_t>(o * inputs + i)]) * x[static_cast<size_t>(i)];
      y[static_cast<size_t>(o)] = sum;
    }
    return y;
  }
};

struct TestLayer {
  std::vector<float> ln1_w, ln1_b, ln2_w, ln2_b, lnx_w, lnx_b, x_r, x_w, x_k, x_v, x_a, x_g, ffn_x_k, w0, a0, v0, k_k,
      k_a, r_k;
  TestMatrix receptance, key, value, output, w1, a1, v1, g1, w2, a2, v2, g2, ffn_key, ffn_value;
};

class StreamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    cudaDeviceProp properties;
    CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
    device_ = {0, properties.multiProcessorCount, properties.major, properties.minor,
               static_cast<int>(properties.sharedMemPerBlockOptin)};
    if (device_.major < 9) GTEST_SKIP() << "older than sm_90";
    CHECK_CUDA(cudaStreamCreate(&stream_));
  }
  void TearDown() override {
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }

  template <class Number>
  const Number *upload(const std::vector<Number> &numbers) {
    memory_.push_back(std::make_unique<Memory>(numbers.size() * sizeof(Number)));
    EXPECT_EQ(
        cudaMemcpy(memory_.back()->get(), numbers.data(), numbers.size() * sizeof(Number), cudaMemcpyHostToDevice),
        cudaSuccess);
    return static_cast<const Number *>(memory_.back()->get());
  }
  std::vector<float> vector(int64_t count, float low, float high) {
    std::uniform_real_distribution<float> one(low, high);
    std::vector<float> numbers(static_cast<size_t>(count));
    for (float &number : numbers) number = one(random_);
    return numbers;
  }
  TestMatrix matrix(int64_t outputs, int64_t inputs, float gain) {
    const float most = gain * std::sqrt(3.0f / static_cast<float>(inputs));
    TestMatrix m{outputs, inputs, vector(outputs * inputs, -most, most)};
    for (float &value : m.values) value = __half2float(__float2half(value));
    return m;
  }
  Matrix upload(const TestMatrix &m, Order order = Order::rows) {
    std::vector<__half> values(m.values.size());
    for (int64_t o = 0; o < m.outputs; o++)
      for (int64_t i = 0; i < m.inputs; i++)
        values[static_cast<size_t>(order == Order::rows ? o * m.inputs + i : i * m.outputs + o)] =
            __float2half(m.values[static_cast<size_t>(o * m.inputs + i)]);
    return {upload(values), nullptr, m.outputs, m.inputs, Format::f16, order};
  }

  void make_model(const DeviceShape &s) {
    shape_ = s;
    random_.seed(static_cast<unsigned>(s.width * 31 + s.layers));
    const int64_t C = s.width;
    embedding_ = matrix(s.vocab_size, C, 1.0f * std::sqrt(static_cast<float>(C)));
    head_ = matrix(s.vocab_size, C, 1.0f);
    ln0_w_ = vector(C, 0.8f, 1.2f), ln0_b_ = vector(C, -0.1f, 0.1f);
    ln_out_w_ = vector(C, 0.8f, 1.2f), ln_out_b_ = vector(C, -0.1f, 0.1f);
    for (int64_t l = 0; l < s.layers; l++) {
      TestLayer t;
      t.ln1_w = vector(C, 0.8f, 1.2f), t.ln1_b = vector(C, -0.1f, 0.1f);
      t.ln2_w = vector(C, 0.8f, 1.2f), t.ln2_b = vector(C, -0.1f, 0.1f);
      t.lnx_w = vector(C, 0.8f, 1.2f), t.lnx_b = vector(C, -0.1f, 0.1f);
      for (auto *mix : {&t.x_r, &t.x_w, &t.x_k, &t.x_v, &t.x_a, &t.x_g, &t.ffn_x_k}) *mix = vector(C, 0, 1);
      t.w0 = vector(C, -4, 1), t.a0 = vector(C, -1, 1), t.v0 = vector(C, -1, 1);
      t.k_k = vector(C, 0.7f, 1), t.k_a = vector(C, 0.8f, 1.2f), t.r_k = vector(C, -0.3f, 0.3f);
      t.receptance = matrix(C, C, 1), t.key = matrix(C, C, 1), t.value = matrix(C, C, 1), t.output = matrix(C, C, 0.5f);
      t.w1 = matrix(s.rank_w, C, 1), t.a1 = matrix(s.rank_a, C, 1), t.g1 = matrix(s.rank_g, C, 1);
      t.w2 = matrix(C, s.rank_w, 1), t.a2 = matrix(C, s.rank_a, 1), t.g2 = matrix(C, s.rank_g, 1.5f);
      if (l > 0) t.v1 = matrix(s.rank_v, C, 1), t.v2 = matrix(C, s.rank_v, 1);
      t.ffn_key = matrix(s.ffn_width, C, 1), t.ffn_value = matrix(C, s.ffn_width, 0.5f);
      layers_.push_back(std::move(t));
    }
    for (const TestLayer &t : layers_) {
      Layer d{};
      d.ln1_weight = upload(t.ln1_w), d.ln1_bias = upload(t.ln1_b), d.ln2_weight = upload(t.ln2_w);
      d.ln2_bias = upload(t.ln2_b), d.ln_x_weight = upload(t.lnx_w), d.ln_x_bias = upload(t.lnx_b);
      d.x_r = upload(t.x_r), d.x_w = upload(t.x_w), d.x_k = upload(t.x_k), d.x_v = upload(t.x_v);
      d.x_a = upload(t.x_a), d.x_g = upload(t.x_g), d.ffn_x_k = upload(t.ffn_x_k);
      d.w0 = upload(t.w0), d.a0 = upload(t.a0), d.k_k = upload(t.k_k), d.k_a = upload(t.k_a), d.r_k = upload(t.r_k);
      d.receptance = upload(t.receptance), d.key = upload(t.key), d.value = upload(t.value),
      d.output = upload(t.output);
      d.w1 = upload(t.w1), d.a1 = upload(t.a1), d.g1 = upload(t.g1);
      d.w2 = upload(t.w2), d.a2 = upload(t.a2), d.g2 = upload(t.g2);
      if (!t.v1.values.empty()) d.v0 = upload(t.v0), d.v1 = upload(t.v1), d.v2 = upload(t.v2);
      d.ffn_key = upload(t.ffn_key), d.ffn_value = upload(t.ffn_value, Order::columns);
      device_layers_.push_back(d);
    }
    weights_ = {upload(embedding_), upload(ln0_w_), upload(ln0_b_),       upload(ln_out_w_),
                upload(ln_out_b_),  upload(head_),  device_layers_.data()};
    ASSERT_TRUE(stream_fits(device_, shape_, weights_));
    packed_ = std::make_unique<Memory>(stream_packed_bytes(shape_));
    ASSERT_NE(packed_->get(), nullptr);
    CHECK_CUDA(stream_pack(stream_, device_, shape_, weights_, packed_->get()));
    workspace_ = std::make_unique<Memory>(stream_workspace_bytes(shape_));
    CHECK_CUDA(cudaMemset(workspace_->get(), 0, stream_workspace_bytes(shape_)));
    CHECK_CUDA(cudaDeviceSynchronize());
  }

  static Numbers layer_norm(const Numbers &x, const std::vector<float> &weight, const std::vector<float> &bias) {
    double mean = 0, variance = 0;
    for (double v : x) mean += v / static_cast<double>(x.size());
    for (double v : x) variance += (v - mean) * (v - mean) / static_cast<double>(x.size());
    Numbers y(x.size());
    for (size_t i = 0; i < x.size(); i++)
      y[i] = (x[i] - mean) / std::sqrt(variance + 1e-5) * static_cast<double>(weight[i]) + static_cast<double>(bias[i]);
    return y;
  }
  static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

  struct State {
    std::vector<Numbers> att, ffn, wkv;  // by layer
  };
  State zero_state() const {
    const size_t layers = static_cast<size_t>(shape_.layers), width = static_cast<size_t>(shape_.width);
    return {std::vector<Numbers>(layers, Numbers(width)), std::vector<Numbers>(layers, Numbers(width)),
            std::vector<Numbers>(layers, Numbers(width * 64))};
  }

  Numbers reference(State &state, int32_t token) const {
    const size_t C = static_cast<size_t>(shape_.width);
    Numbers x(C), first;
    for (size_t i = 0; i < C; i++) x[i] = static_cast<double>(embedding_.values[static_cast<size_t>(token) * C + i]);
    x = layer_norm(x, ln0_w_, ln0_b_);
    for (size_t l = 0; l < layers_.size(); l++) {
      const TestLayer &t = layers_[l];
      Numbers h = layer_norm(x, t.ln1_w, t.ln1_b);
      const auto mixed = [&](const std::vector<float> &mix, const Numbers &before) {
        Numbers y(C);
        for (size_t i = 0; i < C; i++) y[i] = h[i] + (before[i] - h[i]) * static_cast<double>(mix[i]);
        return y;
      };
      const Numbers &before = state.att[l];
      const Numbers r = t.receptance * mixed(t.x_r, before);
      Numbers k = t.key * mixed(t.x_k, before), v = t.value * mixed(t.x_v, before);
      Numbers low_w = t.w1 * mixed(t.x_w, before), low_g = t.g1 * mixed(t.x_g, before);
      for (double &one : low_w) one = std::tanh(one);
      for (double &one : low_g) one = sigmoid(one);
      Numbers w = t.w2 * low_w, a = t.a2 * (t.a1 * mixed(t.x_a, before)), g = t.g2 * low_g;
      if (l == 0) {
        first = v;
      } else {
        const Numbers u = t.v2 * (t.v1 * mixed(t.x_v, before));
        for (size_t i = 0; i < C; i++) v[i] += (first[i] - v[i]) * sigmoid(static_cast<double>(t.v0[i]) + u[i]);
      }
      state.att[l] = h;
      Numbers out(C);
      for (size_t begin = 0; begin < C; begin += 64) {
        double kk[64], length = 0, y[64] = {}, bonus = 0, mean = 0, variance = 0;
        for (size_t j = 0; j < 64; j++) {
          const size_t c = begin + j;
          w[c] = std::exp(-std::exp(-0.5) * sigmoid(static_cast<double>(t.w0[c]) + w[c]));
          a[c] = sigmoid(static_cast<double>(t.a0[c]) + a[c]);
          kk[j] = k[c] * static_cast<double>(t.k_k[c]);
          length += kk[j] * kk[j];
        }
        length = std::max(std::sqrt(length), 1e-12);
        for (size_t j = 0; j < 64; j++) {
          const size_t c = begin + j;
          kk[j] /= length;
          k[c] *= 1 + (a[c] - 1) * static_cast<double>(t.k_a[c]);
          bonus += r[c] * k[c] * static_cast<double>(t.r_k[c]);
        }
        double *wkv = state.wkv[l].data() + begin * 64;
        for (size_t i = 0; i < 64; i++) {
          double removed = 0;
          for (size_t j = 0; j < 64; j++) removed -= wkv[j * 64 + i] * kk[j];
          for (size_t j = 0; j < 64; j++) {
            double &one = wkv[j * 64 + i];
            one = one * w[begin + j] + removed * kk[j] * a[begin + j] + v[begin + i] * k[begin + j];
            y[i] += one * r[begin + j];
          }
          mean += y[i] / 64;
        }
        for (double one : y) variance += (one - mean) * (one - mean) / 64;
        for (size_t i = 0; i < 64; i++) {
          const size_t c = begin + i;
          out[c] = ((y[i] - mean) / std::sqrt(variance + 64e-5) * static_cast<double>(t.lnx_w[c]) +
                    static_cast<double>(t.lnx_b[c]) + bonus * v[c]) *
                   g[c];
        }
      }
      const Numbers added = t.output * out;
      for (size_t i = 0; i < C; i++) x[i] += added[i];
      h = layer_norm(x, t.ln2_w, t.ln2_b);
      Numbers squares = t.ffn_key * mixed(t.ffn_x_k, state.ffn[l]);
      for (double &one : squares) one = one > 0 ? one * one : 0;
      state.ffn[l] = h;
      const Numbers more = t.ffn_value * squares;
      for (size_t i = 0; i < C; i++) x[i] += more[i];
    }
    return head_ * layer_norm(x, ln_out_w_, ln_out_b_);
  }

  // Steps through tokens, in place and from one state to another in turn; the last step wants no scores.
  void check(const DeviceShape &s, int tokens_count, bool is_half = false) {
    make_model(s);
    if (HasFatalFailure()) return;
    const StateShape states{s.layers, s.width, s.heads, 64, is_half};
    Memory one(states.bytes()), two(states.bytes()), token_memory(256), segment_memory(256),
        logits_memory(static_cast<size_t>(s.vocab_size) * 4), rows_memory(256);
    CHECK_CUDA(cudaMemset(one.get(), 0, states.bytes()));
    CHECK_CUDA(cudaMemset(rows_memory.get(), 0, 256));
    char *now = static_cast<char *>(one.get()), *other = static_cast<char *>(two.get());
    State state = zero_state();
    double worst = 0;
    for (int step = 0; step < tokens_count; step++) {
      const int32_t token = static_cast<int32_t>((step * 37 + 5) % s.vocab_size);
      const bool in_place = step % 3 != 1, wants_scores = step + 1 < tokens_count;
      CHECK_CUDA(cudaMemset(logits_memory.get(), 0xff, static_cast<size_t>(s.vocab_size) * 4));
      std::vector<char> from(states.bytes());
      if (!in_place) {
        CHECK_CUDA(cudaMemset(other, 0xff, states.bytes()));
        CHECK_CUDA(cudaMemcpy(from.data(), now, from.size(), cudaMemcpyDeviceToHost));
      }
      const Segment segment{now, in_place ? now : other, 0, 1, 0, 0};
      CHECK_CUDA(cudaMemcpy(token_memory.get(), &token, sizeof token, cudaMemcpyHostToDevice));
      CHECK_CUDA(cudaMemcpy(segment_memory.get(), &segment, sizeof segment, cudaMemcpyHostToDevice));
      Batch batch{};
      batch.rows = batch.segments_count = batch.longest = 1;
      batch.logits_count = wants_scores ? 1 : 0;
      batch.tokens = static_cast<const int32_t *>(token_memory.get());
      batch.segments = static_cast<const Segment *>(segment_memory.get());
      batch.row_segment = batch.logits_rows = static_cast<const int32_t *>(rows_memory.get());
      batch.logits = static_cast<float *>(logits_memory.get());
      CHECK_CUDA(stream_forward(stream_, device_, shape_, states, weights_, packed_->get(), batch, workspace_->get()));
      CHECK_CUDA(cudaStreamSynchronize(stream_));
      if (!in_place) {
        std::vector<char> once(states.bytes()), again(states.bytes());
        CHECK_CUDA(cudaMemcpy(once.data(), other, once.size(), cudaMemcpyDeviceToHost));
        CHECK_CUDA(
            stream_forward(stream_, device_, shape_, states, weights_, packed_->get(), batch, workspace_->get()));
        CHECK_CUDA(cudaStreamSynchronize(stream_));
        CHECK_CUDA(cudaMemcpy(again.data(), other, again.size(), cudaMemcpyDeviceToHost));
        EXPECT_EQ(std::memcmp(once.data(), again.data(), once.size()), 0) << "the same step gave other bits";
        std::vector<char> after(states.bytes());
        CHECK_CUDA(cudaMemcpy(after.data(), now, after.size(), cudaMemcpyDeviceToHost));
        EXPECT_EQ(std::memcmp(after.data(), from.data(), from.size()), 0) << "the state stepped from was written";
        std::swap(now, other);
      }
      const Numbers expected = reference(state, token);
      if (wants_scores) {
        std::vector<float> logits(static_cast<size_t>(s.vocab_size));
        CHECK_CUDA(cudaMemcpy(logits.data(), logits_memory.get(), logits.size() * 4, cudaMemcpyDeviceToHost));
        worst = std::fmax(worst, error(logits.data(), expected));
        if (std::isnan(error(logits.data(), expected))) worst = NAN;
      }
    }
    std::vector<char> bytes(states.bytes());
    CHECK_CUDA(cudaMemcpy(bytes.data(), now, bytes.size(), cudaMemcpyDeviceToHost));
    double shift_error = 0, wkv_error = 0;
    for (int64_t l = 0; l < s.layers; l++) {
      const size_t at = static_cast<size_t>(l);
      shift_error =
          std::fmax(shift_error, error(reinterpret_cast<float *>(bytes.data() + states.att_shift(l)), state.att[at]));
      shift_error =
          std::fmax(shift_error, error(reinterpret_cast<float *>(bytes.data() + states.ffn_shift(l)), state.ffn[at]));
      std::vector<float> wkv(state.wkv[at].size());
      for (size_t i = 0; i < wkv.size(); i++)
        wkv[i] = is_half ? __half2float(reinterpret_cast<__half *>(bytes.data() + states.wkv(l))[i])
                         : reinterpret_cast<float *>(bytes.data() + states.wkv(l))[i];
      wkv_error = std::fmax(wkv_error, error(wkv.data(), state.wkv[at]));
    }
    std::printf("width %5lld layers %lld %s: logits %.2e shifts %.2e wkv %.2e\n", static_cast<long long>(s.width),
                static_cast<long long>(s.layers), is_half ? "half" : "float", worst, shift_error, wkv_error);
    const double limit = is_half ? 4e-3 : 2e-5;
    EXPECT_LT(worst, limit);
    EXPECT_LT(shift_error, limit);
    EXPECT_LT(wkv_error, limit);
    EXPECT_EQ(worst, worst);
  }

  static double error(const float *values, const Numbers &expected) {
    double squares = 0, total = 0;
    for (size_t i = 0; i < expected.size(); i++) {
      const double d = static_cast<double>(values[i]) - expected[i];
      squares += d * d;
      total += expected[i] * expected[i];
    }
    return std::sqrt(squares / total);
  }

  Device device_{};
  cudaStream_t stream_ = nullptr;
  std::mt19937 random_;
  DeviceShape shape_{};
  TestMatrix embedding_, head_;
  std::vector<float> ln0_w_, ln0_b_, ln_out_w_, ln_out_b_;
  std::vector<TestLayer> layers_;
  std::vector<Layer> device_layers_;
  Weights weights_{};
  std::vector<std::unique_ptr<Memory>> memory_;
  std::unique_ptr<Memory> packed_, workspace_;
};

// layers, width, heads, head size, ffn, vocabulary, ranks w a v g
TEST_F(StreamTest, TwoHeads) { check({3, 128, 2, 64, 512, 300, 32, 32, 32, 64}, 7); }
TEST_F(StreamTest, ThreeHeads) { check({4, 192, 3, 64, 640, 129, 64, 32, 96, 32}, 6); }
TEST_F(StreamTest, FiveHeads) { check({3, 320, 5, 64, 1120, 1001, 32, 96, 64, 160}, 6); }
TEST_F(StreamTest, Width768) { check({3, 768, 12, 64, 3072, 5003, 64, 64, 32, 128}, 6); }
TEST_F(StreamTest, Width1024) { check({3, 1024, 16, 64, 4096, 5003, 64, 64, 32, 128}, 5); }
TEST_F(StreamTest, Width2048) { check({2, 2048, 32, 64, 8192, 2001, 96, 96, 64, 256}, 4); }
TEST_F(StreamTest, Width2560) { check({2, 2560, 40, 64, 10240, 2001, 96, 96, 64, 320}, 4); }
TEST_F(StreamTest, Width768HalfState) { check({3, 768, 12, 64, 3072, 1000, 64, 64, 32, 128}, 6, true); }

}  // namespace
}  // namespace libwkv::cuda
