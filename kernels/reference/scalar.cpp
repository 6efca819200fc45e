// SPDX-License-Identifier: Apache-2.0
// The scalar kernel set: the plain truth that every other set is compared with. Speed does not matter here.
#include <bit>
#include <cmath>
#include <cstring>

#include "../table.h"

namespace libwkv::kernels {
namespace {

template <class T>
T load(const std::byte *address) {
  T value;
  std::memcpy(&value, address, sizeof value);
  return value;
}

float load_f16(const std::byte *address) {
  const uint32_t bits = load<uint16_t>(address);
  const uint32_t exponent = bits >> 10 & 31, mantissa = bits & 1023;
  float magnitude;
  if (exponent == 0)
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  else if (exponent == 31)
    magnitude = std::bit_cast<float>(0x7f800000u | mantissa << 13);
  else
    magnitude = std::ldexp(static_cast<float>(mantissa + 1024), static_cast<int>(exponent) - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

float load_bf16(const std::byte *address) {
  return std::bit_cast<float>(static_cast<uint32_t>(load<uint16_t>(address)) << 16);
}

int load_nibble(const std::byte *address, bool high) {
  const int byte = load<uint8_t>(address);
  return high ? byte >> 4 : byte & 15;
}

// The weight at [output][input], exactly as table.h lays it out. The affine formats round once: fma.
float weight(const Matrix &w, int64_t output, int64_t input) {
  const auto *data = static_cast<const std::byte *>(w.data);
  if (w.format == Format::f32 || w.format == Format::f16 || w.format == Format::bf16) {
    const bool rows = w.order == Order::rows;
    const std::byte *line = data + static_cast<size_t>(rows ? output : input) * w.stride;
    const int64_t i = rows ? input : output;
    if (w.format == Format::f32) return load<float>(line + 4 * i);
    return w.format == Format::f16 ? load_f16(line + 2 * i) : load_bf16(line + 2 * i);
  }
  const int64_t group = input / block, i = input % block;
  if (w.order == Order::rows) {
    const std::byte *row = data + static_cast<size_t>(output) * w.stride;
    const bool high = i >= 16;
    switch (w.format) {
      case Format::q8: {
        const std::byte *at = row + 34 * group;
        return load_f16(at) * static_cast<float>(load<int8_t>(at + 2 + i));
      }
      case Format::q4: {
        const std::byte *at = row + 18 * group;
        return load_f16(at) * static_cast<float>(load_nibble(at + 2 + i % 16, high) - 8);
      }
      case Format::q4_affine: {
        const std::byte *at = row + 24 * group;
        return std::fma(load<float>(at), static_cast<float>(load_nibble(at + 8 + i % 16, high)), load<float>(at + 4));
      }
      default: {  // q8_affine
        const std::byte *at = row + 44 * group;
        return std::fma(load<float>(at + 4 * (i / 16)), static_cast<float>(load<int8_t>(at + 12 + i)),
                        load<float>(at + 8));
      }
    }
  }
  const std::byte *at = data + static_cast<size_t>(group) * w.stride;
  const int64_t n = w.outputs, o = output;
  const auto nibble = [&](const std::byte *first_row) {
    return load_nibble(first_row + i * (n / 2) + o / 64 * 32 + o % 32, o % 64 >= 32);
  };
  switch (w.format) {
    case Format::q8:
      return load_f16(at + 2 * o) * static_cast<float>(load<int8_t>(at + 2 * n + i * n + o));
    case Format::q4:
      return load_f16(at + 2 * o) * static_cast<float>(nibble(at + 2 * n) - 8);
    case Format::q4_affine:
      return std::fma(load<float>(at + 4 * o), static_cast<float>(nibble(at + 8 * n)), load<float>(at + 4 * (n + o)));
    default:  // q8_affine
      return std::fma(load<float>(at + 4 * (i / 16 * n + o)), static_cast<float>(load<int8_t>(at + 12 * n + i * n + o)),
                      load<float>(at + 4 * (2 * n + o)));
  }
}

// Adds the sum over inputs [begin, begin + count) of one output to sums[v * sum_stride], one fma an input. The weights
// are read once for all vectors.
void accumulate(const Matrix &w, int64_t output, int64_t begin, int64_t count, const float *x, int64_t x_stride,
                int64_t vectors, float *sums, int64_t sum_stride) {
  float weights[sum_block];
  for (int64_t i = 0; i < count; ++i) weights[i] = weight(w, output, begin + i);
  for (int64_t v = 0; v < vectors; ++v) {
    float sum = 0;
    for (int64_t i = 0; i < count; ++i) sum = std::fma(weights[i], x[v * x_stride + begin + i], sum);
    sums[v * sum_stride] += sum;
  }
}

size_t multiply_scratch_floats() { return 0; }

void multiply(const Matrix *w, int64_t begin, int64_t end, const float *x, int64_t x_stride, int64_t tokens, float *y,
              int64_t y_stride, float *) {
  for (int64_t o = begin; o < end; ++o) {
    for (int64_t t = 0; t < tokens; ++t) y[t * y_stride + o] = 0;
    for (int64_t i = 0; i < w->inputs; i += sum_block) {
      const int64_t count = w->inputs - i < sum_block ? w->inputs - i : sum_block;
      accumulate(*w, o, i, count, x, x_stride, tokens, y + o, y_stride);
    }
  }
}

size_t prepared_floats(Format, int64_t inputs) { return static_cast<size_t>(inputs); }

void prepare(Format, int64_t inputs, const float *x, float *prepared) {
  std::memcpy(prepared, x, static_cast<size_t>(inputs) * sizeof(float));
}

void multiply_rows(const Matrix *w, int64_t begin, int64_t end, const float *prepared, int32_t vectors, float *y,
                   int64_t y_stride) {
  multiply(w, begin, end, prepared, w->inputs, vectors, y, y_stride, nullptr);
}

void multiply_columns(const Matrix *w, int64_t input_begin, int64_t input_end, int64_t output_begin, int64_t output_end,
                      const float *x, int64_t x_stride, int32_t vectors, float *y, int64_t y_stride) {
  for (int32_t v = 0; v < vectors; ++v) {
    for (int64_t o = output_begin; o < output_end; ++o) y[v * y_stride + o] = 0;
  }
  for (int64_t i = input_begin; i < input_end; ++i) {
    bool is_needed = false;
    for (int32_t v = 0; v < vectors; ++v) is_needed = is_needed || x[v * x_stride + i] != 0;
    if (!is_needed) continue;
    for (int64_t o = output_begin; o < output_end; ++o) accumulate(*w, o, i, 1, x, x_stride, vectors, y + o, y_stride);
  }
}

void wkv(int64_t tokens, int64_t stride, const float *receptance, const float *decay, const float *key,
         const float *value, const float *removal, const float *rate, float *state, float *y, int64_t head_size) {
  const int64_t n = head_size;
  for (int64_t t = 0; t < tokens; ++t) {
    const float *r = receptance + t * stride, *w = decay + t * stride, *k = key + t * stride, *v = value + t * stride;
    const float *a = removal + t * stride, *b = rate + t * stride;
    for (int64_t j = 0; j < n; ++j) {  // one column of the state: a value; sums in double, the state rounds once
      double sa = 0, sum = 0;
      for (int64_t i = 0; i < n; ++i) sa += static_cast<double>(state[i * n + j]) * a[i];
      for (int64_t i = 0; i < n; ++i) {
        float &s = state[i * n + j];
        s = static_cast<float>(static_cast<double>(s) * w[i] + b[i] * sa + static_cast<double>(k[i]) * v[j]);
        sum += static_cast<double>(s) * r[i];
      }
      y[t * stride + j] = static_cast<float>(sum);
    }
  }
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

void layer_norm(int64_t count, const float *x, const float *weights, const float *bias, float epsilon, float *y) {
  double mean = 0, variance = 0;
  for (int64_t i = 0; i < count; ++i) mean += x[i];
  mean /= static_cast<double>(count);
  for (int64_t i = 0; i < count; ++i) variance += (x[i] - mean) * (x[i] - mean);
  variance /= static_cast<double>(count);
  const double scale = 1 / std::sqrt(variance + static_cast<double>(epsilon));
  for (int64_t i = 0; i < count; ++i) y[i] = static_cast<float>((x[i] - mean) * scale * weights[i] + bias[i]);
}

void token_shift(int64_t count, const float *current, const float *previous, const float *mix, float *y) {
  for (int64_t i = 0; i < count; ++i) {
    y[i] = static_cast<float>(current[i] + (static_cast<double>(previous[i]) - current[i]) * mix[i]);
  }
}

void activate(Activation activation, int64_t count, float *x) {
  for (int64_t i = 0; i < count; ++i) {
    switch (activation) {
      case Activation::tanh:
        x[i] = static_cast<float>(std::tanh(static_cast<double>(x[i])));
        break;
      case Activation::sigmoid:
        x[i] = static_cast<float>(sigmoid(x[i]));
        break;
      case Activation::relu_squared:
        x[i] = x[i] < 0 ? 0 : x[i] * x[i];
        break;  // NaN stays NaN
    }
  }
}

void add(int64_t count, float *x, const float *y) {
  for (int64_t i = 0; i < count; ++i) x[i] += y[i];
}

void time_mix_inputs(const TimeMixInputs *io, int64_t head_begin, int64_t head_end) {
  for (int64_t head = head_begin; head < head_end; ++head) {
    const int64_t first = head * io->head_size, last = first + io->head_size;
    double squares = 0;
    for (int64_t i = first; i < last; ++i) {
      const double kk = static_cast<double>(io->key[i]) * io->k_k[i];
      squares += kk * kk;
    }
    double norm = std::sqrt(squares);
    if (norm < 1e-12) norm = 1e-12;
    for (int64_t i = first; i < last; ++i) {
      const double k = io->key[i], kk = k * io->k_k[i] / norm;
      const double a = sigmoid(static_cast<double>(io->a0[i]) + io->rate[i]);
      io->removal[i] = static_cast<float>(-kk);
      io->rate[i] = static_cast<float>(kk * a);
      io->key[i] = static_cast<float>(k * (1 + (a - 1) * io->k_a[i]));
      io->decay[i] =
          static_cast<float>(std::exp(-0.60653065971263342 * sigmoid(static_cast<double>(io->w0[i]) + io->decay[i])));
      if (io->value_mix == nullptr) continue;
      const double v = io->value[i], mix = sigmoid(static_cast<double>(io->v0[i]) + io->value_mix[i]);
      io->value[i] = static_cast<float>(v + (io->first_value[i] - v) * mix);
    }
  }
}

void time_mix_outputs(const TimeMixOutputs *io, int64_t head_begin, int64_t head_end) {
  for (int64_t head = head_begin; head < head_end; ++head) {
    const int64_t first = head * io->head_size, last = first + io->head_size;
    const double count = static_cast<double>(io->head_size);
    double mean = 0, variance = 0, bonus = 0;
    for (int64_t i = first; i < last; ++i) {
      mean += io->wkv[i];
      bonus += static_cast<double>(io->receptance[i]) * io->key[i] * io->r_k[i];
    }
    mean /= count;
    for (int64_t i = first; i < last; ++i) variance += (io->wkv[i] - mean) * (io->wkv[i] - mean);
    const double scale = 1 / std::sqrt(variance / count + 64e-5);
    for (int64_t i = first; i < last; ++i) {
      const double norm = (io->wkv[i] - mean) * scale * io->norm_weight[i] + io->norm_bias[i];
      io->out[i] = static_cast<float>((norm + bonus * io->value[i]) * io->gate[i]);
    }
  }
}

bool is_usable() { return true; }

}  // namespace

extern const Table scalar_table;
const Table scalar_table = {
    sizeof(Table),
    kernel_table_version,
    "scalar",
    is_usable,
    prepared_floats,
    prepare,
    multiply_rows,
    multiply_columns,
    multiply_scratch_floats,
    multiply,
    wkv,
    layer_norm,
    token_shift,
    activate,
    add,
    time_mix_inputs,
    time_mix_outputs,
};

}  // namespace libwkv::kernels
