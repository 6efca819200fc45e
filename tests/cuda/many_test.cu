// SPDX-License-Identifier: Apache-2.0
// The way through a model for many rows, against the plain way (fp32, simple kernels) on random models and batches.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/many.h"
#include "kernels/cuda/plain.h"

namespace libwkv::cuda {
namespace {

#define ASSERT_CUDA(call) ASSERT_EQ(cudaSuccess, (call))
#define CHECK_CUDA(call) check_cuda((call), #call)
void check_cuda(cudaError_t error, const char *call) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(error));
  std::abort();
}

// Device memory that begins as bytes 0xff: NaN in every format.
struct Memory {
  char *at = nullptr;
  size_t bytes = 0;

  explicit Memory(size_t size) : bytes(size) {
    CHECK_CUDA(cudaMalloc(&at, size + 256));
    CHECK_CUDA(cudaMemset(at, 0xff, size + 256));
  }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  ~Memory() { cudaFree(at); }

  std::vector<char> read() const {
    std::vector<char> bytes_read(bytes);
    CHECK_CUDA(cudaMemcpy(bytes_read.data(), at, bytes, cudaMemcpyDeviceToHost));
    return bytes_read;
  }
  void write(const void *from) { CHECK_CUDA(cudaMemcpy(at, from, bytes, cudaMemcpyHostToDevice)); }
};

struct Model {
  DeviceShape shape{};
  Weights weights{};
  std::vector<Layer> layers;
  std::vector<std::unique_ptr<Memory>> memory;
  std::mt19937 random{7};

  template <class T>
  const T *upload(const std::vector<T> &numbers) {
    memory.push_back(std::make_unique<Memory>(numbers.size() * sizeof(T)));
    memory.back()->write(numbers.data());
    return reinterpret_cast<const T *>(memory.back()->at);
  }
  const float *vector(float middle, float spread) {
    std::normal_distribution<float> normal(middle, spread);
    std::vector<float> numbers(static_cast<size_t>(shape.width));
    for (float &number : numbers) number = normal(random);
    return upload(numbers);
  }
  Matrix matrix(int64_t outputs, int64_t inputs, Format format, float gain = 1, Order order = Order::rows) {
    Matrix made;
    made.outputs = outputs;
    made.inputs = inputs;
    made.format = format;
    made.order = order;
    const auto count = static_cast<size_t>(outputs * inputs);
    const float deviation = gain / std::sqrt(static_cast<float>(inputs));
    std::normal_distribution<float> normal(0, deviation);
    std::uniform_int_distribution<int> byte(0, 255);
    std::uniform_real_distribution<float> around(0.5f, 1.5f);
    const size_t blocks = count / 32;
    if (format == Format::f32) {
      std::vector<float> numbers(count);
      for (float &number : numbers) number = normal(random);
      made.values = upload(numbers);
    } else if (format == Format::f16) {
      std::vector<__half> numbers(count);
      for (__half &number : numbers) number = __float2half(normal(random));
      made.values = upload(numbers);
    } else {
      const bool is_nibbles = format == Format::q4 || format == Format::q4_affine;
      std::vector<uint8_t> numbers(is_nibbles ? count / 2 : count);
      for (uint8_t &number : numbers) number = static_cast<uint8_t>(byte(random));
      made.values = upload(numbers);
      const float unit = deviation / (is_nibbles ? 4.6f : 74.0f);
      if (format == Format::q8 || format == Format::q4) {
        std::vector<__half> scales(blocks);
        for (__half &scale : scales) scale = __float2half(unit * around(random));
        made.scales = upload(scales);
      } else if (format == Format::q4_affine) {
        std::vector<float> scales(2 * blocks);
        for (size_t b = 0; b < blocks; ++b) {
          scales[2 * b] = unit * around(random);
          scales[2 * b + 1] = -7.5f * unit * around(random);
        }
        made.scales = upload(scales);
      } else {
        std::vector<float> scales(4 * blocks);
        for (size_t b = 0; b < blocks; ++b) {
          scales[4 * b] = unit * around(random);
          scales[4 * b + 1] = unit * around(random);
          scales[4 * b + 2] = deviation * (around(random) - 1);
        }
        made.scales = upload(scales);
      }
    }
    return made;
  }
};

struct Ranks {
  int64_t w, a, v, g;
};

std::unique_ptr<Model> make_model(int64_t layers, int64_t width, int64_t vocab, const Ranks &ranks, Format format) {
  auto model = std::make_unique<Model>();
  model->shape = {layers, width, width / 64, 64, 4 * width, vocab, ranks.w, ranks.a, ranks.v, ranks.g};
  Model &m = *model;
  const Format low = format == Format::f32 ? Format::f32 : Format::f16;
  const bool can_columns = format == Format::f32 || format == Format::f16 || format == Format::q8;
  m.weights.embedding = m.matrix(vocab, width, low, std::sqrt(static_cast<float>(width)));
  m.weights.ln0_weight = m.vector(1, 0.2f);
  m.weights.ln0_bias = m.vector(0, 0.1f);
  m.weights.ln_out_weight = m.vector(1, 0.2f);
  m.weights.ln_out_bias = m.vector(0, 0.1f);
  for (int64_t l = 0; l < layers; ++l) {
    Layer layer{};
    for (const float **weight : {&layer.ln1_weight, &layer.ln2_weight, &layer.ln_x_weight}) *weight = m.vector(1, 0.2f);
    for (const float **bias : {&layer.ln1_bias, &layer.ln2_bias, &layer.ln_x_bias}) *bias = m.vector(0, 0.1f);
    for (const float **mix : {&layer.x_r, &layer.x_w, &layer.x_k, &layer.x_v, &layer.x_a, &layer.x_g, &layer.ffn_x_k}) {
      *mix = m.vector(0.5f, 0.3f);
    }
    layer.w0 = m.vector(-1, 1);
    layer.a0 = m.vector(0, 1);
    layer.k_k = m.vector(1, 0.2f);
    layer.k_a = m.vector(1, 0.2f);
    layer.r_k = m.vector(0, 0.1f);
    layer.receptance = m.matrix(width, width, format);
    layer.key = m.matrix(width, width, format);
    layer.value = m.matrix(width, width, format);
    layer.output = m.matrix(width, width, format);
    layer.w1 = m.matrix(ranks.w, width, low);
    layer.w2 = m.matrix(width, ranks.w, low);
    layer.a1 = m.matrix(ranks.a, width, low);
    layer.a2 = m.matrix(width, ranks.a, low);
    layer.g1 = m.matrix(ranks.g, width, low);
    layer.g2 = m.matrix(width, ranks.g, low, 2);
    if (l > 0) {
      layer.v0 = m.vector(0, 1);
      layer.v1 = m.matrix(ranks.v, width, low);
      layer.v2 = m.matrix(width, ranks.v, low);
    }
    layer.ffn_key = m.matrix(4 * width, width, format);
    layer.ffn_value = m.matrix(width, 4 * width, format, 1, can_columns ? Order::columns : Order::rows);
    m.layers.push_back(layer);
  }
  m.weights.layers = m.layers.data();
  m.weights.head = m.matrix(vocab, width, format);
  return model;
}

struct SegmentPlan {
  int32_t rows;
  bool is_in_place;
  std::vector<int32_t> snapshots;  // rows of the segment
};

// A batch with its own states: first the segments' targets, then sources of those not in place, then snapshots.
struct Trial {
  StateShape states;
  Batch batch{};
  Memory state_memory, logits;
  std::vector<std::unique_ptr<Memory>> memory;
  size_t sources_begin, sources_count;

  static size_t states_count(const std::vector<SegmentPlan> &plans) {
    size_t count = 0;
    for (const SegmentPlan &plan : plans) count += 2 + plan.snapshots.size();
    return count;
  }

  Trial(const Model &model, bool is_half_state, const std::vector<SegmentPlan> &plans, int32_t logits_step)
      : states{model.shape.layers, model.shape.width, model.shape.heads, model.shape.head_size, is_half_state},
        state_memory(states_count(plans) * states.bytes()),
        logits(sizeof(float) * static_cast<size_t>(model.shape.vocab_size) * [&] {
          int32_t rows = 0;
          for (const SegmentPlan &plan : plans) rows += plan.rows;
          return static_cast<size_t>((rows + logits_step - 1) / logits_step);
        }()) {
    const size_t bytes = states.bytes();
    std::mt19937 random{11};
    std::normal_distribution<float> normal(0, 0.5f);
    // Snapshots and targets not in place keep their NaN.
    std::vector<char> begin(bytes);
    // Drawn once: thousands of states take their numbers from here, each from another place on.
    std::vector<float> drawn(65537);
    for (float &number : drawn) number = normal(random);
    size_t next_drawn = 0;
    const auto draw = [&] { return drawn[next_drawn++ % drawn.size()]; };
    const auto fill = [&](size_t index) {
      for (int64_t l = 0; l < states.layers; ++l) {
        auto *shifts = reinterpret_cast<float *>(begin.data() + states.att_shift(l));
        for (int64_t i = 0; i < 2 * states.width; ++i) shifts[i] = draw();
        char *wkv = begin.data() + states.wkv(l);
        for (int64_t i = 0; i < states.heads * states.head_size * states.head_size; ++i) {
          if (is_half_state) {
            reinterpret_cast<__half *>(wkv)[i] = __float2half(draw());
          } else {
            reinterpret_cast<float *>(wkv)[i] = draw();
          }
        }
      }
      CHECK_CUDA(cudaMemcpy(state_memory.at + index * bytes, begin.data(), bytes, cudaMemcpyHostToDevice));
    };
    std::vector<Segment> segments;
    std::vector<Snapshot> snapshots;
    std::vector<int32_t> row_segment, tokens, logits_rows;
    sources_begin = plans.size();
    sources_count = plans.size();
    size_t next_snapshot = 2 * plans.size();
    for (size_t i = 0; i < plans.size(); ++i) {
      const auto row = static_cast<int32_t>(row_segment.size());
      char *target = state_memory.at + i * bytes, *source = state_memory.at + (plans.size() + i) * bytes;
      fill(plans[i].is_in_place ? i : plans.size() + i);
      segments.push_back({plans[i].is_in_place ? target : source, target, row, row + plans[i].rows,
                          static_cast<int32_t>(snapshots.size()), static_cast<int32_t>(plans[i].snapshots.size())});
      for (int32_t at : plans[i].snapshots) snapshots.push_back({row + at, state_memory.at + next_snapshot++ * bytes});
      for (int32_t r = 0; r < plans[i].rows; ++r) {
        row_segment.push_back(static_cast<int32_t>(i));
        tokens.push_back(static_cast<int32_t>(random() % static_cast<unsigned>(model.shape.vocab_size)));
      }
      batch.longest = std::max(batch.longest, plans[i].rows);
    }
    batch.rows = static_cast<int32_t>(row_segment.size());
    for (int32_t row = batch.rows - 1; row >= 0; row -= logits_step) logits_rows.insert(logits_rows.begin(), row);
    batch.segments_count = static_cast<int32_t>(segments.size());
    batch.snapshots_count = static_cast<int32_t>(snapshots.size());
    batch.logits_count = static_cast<int32_t>(logits_rows.size());
    batch.tokens = upload(tokens);
    batch.row_segment = upload(row_segment);
    batch.segments = upload(segments);
    batch.snapshots = upload(snapshots);
    batch.logits_rows = upload(logits_rows);
    batch.logits = reinterpret_cast<float *>(logits.at);
  }

  template <class T>
  const T *upload(const std::vector<T> &numbers) {
    memory.push_back(std::make_unique<Memory>(numbers.size() * sizeof(T)));
    if (!numbers.empty()) memory.back()->write(numbers.data());
    return reinterpret_cast<const T *>(memory.back()->at);
  }
};

Device this_device() {
  Device device{};
  cudaDeviceProp properties;
  CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
  device.processors = properties.multiProcessorCount;
  device.major = properties.major;
  device.minor = properties.minor;
  device.shared_bytes = static_cast<int>(properties.sharedMemPerBlockOptin);
  return device;
}

class Difference {
 public:
  void add(double is, double should) {
    ++count_;
    difference_ += (is - should) * (is - should);
    size_ += should * should;
  }
  double relative() const { return size_ == 0 ? (difference_ == 0 ? 0 : 1) : std::sqrt(difference_ / size_); }
  size_t count() const { return count_; }

 private:
  double difference_ = 0, size_ = 0;
  size_t count_ = 0;
};

struct Differences {
  Difference logits, shifts, wkv;
  double worst_row = 0;
};

// Numbers that are NaN in both are memory that neither wrote.
Differences compare(const Model &model, const Trial &is, const Trial &should) {
  Differences result;
  const std::vector<char> is_logits = is.logits.read(), should_logits = should.logits.read();
  const auto *is_scores = reinterpret_cast<const float *>(is_logits.data());
  const auto *should_scores = reinterpret_cast<const float *>(should_logits.data());
  const auto vocab = static_cast<size_t>(model.shape.vocab_size);
  for (int32_t row = 0; row < is.batch.logits_count; ++row) {
    Difference one;
    for (size_t i = 0; i < vocab; ++i) {
      const size_t at = static_cast<size_t>(row) * vocab + i;
      one.add(is_scores[at], should_scores[at]);
      result.logits.add(is_scores[at], should_scores[at]);
    }
    if (!(one.relative() <= result.worst_row)) result.worst_row = one.relative();
  }
  const std::vector<char> is_states = is.state_memory.read(), should_states = should.state_memory.read();
  const StateShape &states = is.states;
  const auto add = [](Difference &difference, double a, double b) {
    if (!std::isnan(a) || !std::isnan(b)) difference.add(a, b);
  };
  for (size_t state = 0; state < is_states.size(); state += states.bytes()) {
    for (int64_t l = 0; l < states.layers; ++l) {
      const char *a = is_states.data() + state, *b = should_states.data() + state;
      for (int64_t i = 0; i < 2 * states.width; ++i) {
        add(result.shifts, reinterpret_cast<const float *>(a + states.att_shift(l))[i],
            reinterpret_cast<const float *>(b + states.att_shift(l))[i]);
      }
      for (int64_t i = 0; i < states.heads * states.head_size * states.head_size; ++i) {
        if (states.is_half) {
          add(result.wkv, __half2float(reinterpret_cast<const __half *>(a + states.wkv(l))[i]),
              __half2float(reinterpret_cast<const __half *>(b + states.wkv(l))[i]));
        } else {
          add(result.wkv, reinterpret_cast<const float *>(a + states.wkv(l))[i],
              reinterpret_cast<const float *>(b + states.wkv(l))[i]);
        }
      }
    }
  }
  return result;
}

std::vector<SegmentPlan> decode(int32_t rows) {
  std::vector<SegmentPlan> plans;
  for (int32_t i = 0; i < rows; ++i) plans.push_back({1, i % 3 != 0, {}});
  return plans;
}

struct Plans {
  ManyPlans *plans = nullptr;
  explicit Plans(const Device &device) { CHECK_CUDA(many_create(device, &plans)); }
  ~Plans() { many_destroy(plans); }
};

struct Case {
  const char *name;
  int64_t width;
  Format format;
  bool is_half_state;
  Ranks ranks;
  std::vector<SegmentPlan> plans;
  int32_t logits_step;
  bool is_without_groups = false;  // as on devices before or after Hopper
};

void check(const Case &c) {
  SCOPED_TRACE(c.name);
  const auto model = make_model(3, c.width, 320, c.ranks, c.format);
  Device device = this_device();
  if (c.is_without_groups) device.major = 8;
  ASSERT_TRUE(many_fits(device, model->shape, model->weights));
  Trial should(*model, c.is_half_state, c.plans, c.logits_step), is(*model, c.is_half_state, c.plans, c.logits_step);
  Memory plain_workspace(plain_workspace_bytes(model->shape, should.batch.rows));
  bool stopped = false;
  ASSERT_CUDA(plain_forward(nullptr, model->shape, should.states, model->weights, should.batch, plain_workspace.at,
                            nullptr, &stopped));
  ASSERT_CUDA(cudaDeviceSynchronize());
  Plans plans(device);
  cudaStream_t stream;
  ASSERT_CUDA(cudaStreamCreate(&stream));
  const size_t bytes = many_workspace_bytes(device, model->shape, model->weights, is.batch.rows, is.batch.logits_count);
  Memory workspace(bytes);
  ASSERT_CUDA(many_forward(plans.plans, stream, device, model->shape, is.states, model->weights, is.batch, nullptr,
                           workspace.at, nullptr, &stopped));
  ASSERT_CUDA(cudaStreamSynchronize(stream));
  std::vector<unsigned char> behind(256);
  ASSERT_CUDA(cudaMemcpy(behind.data(), workspace.at + bytes, 256, cudaMemcpyDeviceToHost));
  for (unsigned char byte : behind) ASSERT_EQ(0xff, byte) << "written past the workspace";
  const Differences differences = compare(*model, is, should);
  std::printf("%-34s rows %4d: logits %.1e, worst row %.1e, shifts %.1e, wkv %.1e (%zu, %zu, %zu numbers)\n", c.name,
              is.batch.rows, differences.logits.relative(), differences.worst_row, differences.shifts.relative(),
              differences.wkv.relative(), differences.logits.count(), differences.shifts.count(),
              differences.wkv.count());
  const bool is_float = c.format == Format::f32;
  EXPECT_LT(differences.worst_row, is_float ? 3e-5 : 1e-2);
  EXPECT_LT(differences.shifts.relative(), is_float ? 3e-5 : 5e-3);
  EXPECT_LT(differences.wkv.relative(), c.is_half_state ? 5e-3 : is_float ? 3e-5 : 5e-3);
  // Sources that were not stepped in place are as they were: as the plain way's, which has no reason to differ.
  const std::vector<char> a = is.state_memory.read(), b = should.state_memory.read();
  const size_t begin = is.sources_begin * is.states.bytes(), size = is.sources_count * is.states.bytes();
  EXPECT_EQ(0, std::memcmp(a.data() + begin, b.data() + begin, size));

  // The same as a graph: two runs are the same to the bit.
  std::vector<char> first_logits, first_states;
  for (int round = 0; round < 2; ++round) {
    Trial again(*model, c.is_half_state, c.plans, c.logits_step);
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    ASSERT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    ASSERT_CUDA(many_forward(plans.plans, stream, device, model->shape, again.states, model->weights, again.batch,
                             nullptr, workspace.at, nullptr, &stopped));
    ASSERT_CUDA(cudaStreamEndCapture(stream, &graph));
    ASSERT_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    ASSERT_CUDA(cudaGraphLaunch(exec, stream));
    ASSERT_CUDA(cudaStreamSynchronize(stream));
    ASSERT_CUDA(cudaGraphExecDestroy(exec));
    ASSERT_CUDA(cudaGraphDestroy(graph));
    if (round == 0) {
      const Differences captured = compare(*model, again, should);
      EXPECT_LT(captured.worst_row, is_float ? 3e-5 : 1e-2);
      EXPECT_LT(captured.wkv.relative(), c.is_half_state ? 5e-3 : is_float ? 3e-5 : 5e-3);
      first_logits = again.logits.read();
      first_states = again.state_memory.read();
    } else {
      EXPECT_EQ(first_logits, again.logits.read());
      EXPECT_TRUE(first_states == again.state_memory.read());
    }
  }
  EXPECT_FALSE(stopped);
  ASSERT_CUDA(cudaStreamDestroy(stream));
}

constexpr Ranks usual{64, 64, 32, 128};
constexpr Ranks odd{20, 37, 1, 70}, eights{24, 40, 8, 136};

TEST(Many, Decode) {
  for (Format format : {Format::f16, Format::f32}) {
    const bool is_half = format == Format::f16;
    check({is_half ? "decode f16" : "decode f32", 128, format, false, usual, decode(17), 1});
    check({is_half ? "decode f16, odd ranks" : "decode f32, odd ranks", 192, format, false, is_half ? eights : odd,
           decode(33), 1});
    check({is_half ? "decode f16, wide" : "decode f32, wide", 768, format, false, usual, decode(64), 1});
  }
  check({"decode f16, no groups", 192, Format::f16, false, eights, decode(33), 1, true});
  check({"decode f16, 128 rows", 768, Format::f16, false, usual, decode(128), 1});
  check({"decode f16, half state", 768, Format::f16, true, usual, decode(65), 1});
  check({"decode f16, most rows", 192, Format::f16, true, usual, decode(960), 1});
}

TEST(Many, Prompts) {
  for (Format format : {Format::f16, Format::f32}) {
    const bool is_half = format == Format::f16;
    check({is_half ? "prompt f16" : "prompt f32", 192, format, false, usual, {{321, true, {}}}, 321});
    check({is_half ? "prompts f16" : "prompts f32",
           128,
           format,
           false,
           usual,
           {{1, true, {}}, {7, false, {0, 5}}, {1, false, {}}, {16, true, {3, 4, 14}}, {40, false, {}}},
           1});
    check({is_half ? "long prompts f16" : "long prompts f32",
           128,
           format,
           is_half,
           usual,
           {{1000, true, {255, 511, 998}}, {1, true, {}}, {333, false, {}}, {2, true, {0}}, {711, true, {}}},
           100});
  }
  // ffn.value in slices of rows
  check({"long prompt f16, wide", 768, Format::f16, false, usual, {{5500, true, {}}}, 500});
  check({"prompts f16, wide", 768, Format::f16, false, usual, {{500, true, {}}, {12, true, {}}, {9, false, {3}}}, 50});
}

TEST(Many, Formats) {
  const std::vector<SegmentPlan> plans{{1, true, {}}, {30, false, {12}}, {2, true, {}}};
  check({"q8", 192, Format::q8, false, usual, plans, 1});
  check({"q4", 192, Format::q4, false, usual, plans, 1});
  check({"q4_affine", 192, Format::q4_affine, false, usual, plans, 1});
  check({"q8_affine", 192, Format::q8_affine, false, usual, plans, 1});
}

TEST(Many, StopsWhenAsked) {
  const auto model = make_model(3, 128, 320, usual, Format::f16);
  const Device device = this_device();
  Trial run(*model, false, decode(20), 1);
  Memory workspace(many_workspace_bytes(device, model->shape, model->weights, 20, 20));
  Plans plans(device);
  bool stopped = false;
  int64_t asked = 0;
  const LayerHook hook{[](void *user, int64_t layers_done) {
                         *static_cast<int64_t *>(user) = layers_done;
                         return layers_done == 2;
                       },
                       &asked};
  ASSERT_CUDA(many_forward(plans.plans, nullptr, device, model->shape, run.states, model->weights, run.batch, nullptr,
                           workspace.at, &hook, &stopped));
  ASSERT_CUDA(cudaDeviceSynchronize());
  EXPECT_TRUE(stopped);
  EXPECT_EQ(2, asked);
  float score;
  ASSERT_CUDA(cudaMemcpy(&score, run.logits.at, sizeof score, cudaMemcpyDeviceToHost));
  EXPECT_TRUE(std::isnan(score));
}

}  // namespace
}  // namespace libwkv::cuda
