// SPDX-License-Identifier: Apache-2.0
// y = W x for few vectors with W stored input by input: inputs that are zero in every vector are not read.
//
// The inputs that count are gathered in a list and taken a few at a time ("lines"), each group over all outputs, so
// that memory is read in long runs; y stays in the nearest cache. While a group is summed, lines that come later are
// asked for: after gaps, the processor's own prefetching would start too late.
#pragma once

#include "../table.h"

namespace libwkv::kernels {

template <class S>
struct MatrixColumns {
  using Float = typename S::Float;
  static constexpr int lanes = S::lanes;

  static void multiply_columns(const Matrix *w, int64_t input_begin, int64_t input_end, int64_t output_begin,
                               int64_t output_end, const float *x, int64_t x_stride, int32_t vectors, float *y,
                               int64_t y_stride) {
    Job job{w, input_begin, input_end, output_begin, output_end, x, x_stride, y, y_stride};
    switch (vectors) {
      case 1:
        return for_format<1>(job);
      case 2:
        return for_format<2>(job);
      case 3:
        return for_format<3>(job);
      case 4:
        return for_format<4>(job);
      case 5:
        return for_format<5>(job);
      case 6:
        return for_format<6>(job);
      case 7:
        return for_format<7>(job);
      case 8:
        return for_format<8>(job);
      default:
        return;
    }
  }

 private:
  struct Job {
    const Matrix *w;
    int64_t input_begin, input_end, output_begin, output_end;
    const float *x;
    int64_t x_stride;
    float *y;
    int64_t y_stride;
  };

  static constexpr int most_lines = 8;
  static constexpr int lines_ahead = 16;
  static constexpr int list_size = 2048;

  // Inputs summed together, and what is read next.
  template <int vectors>
  struct Lines {
    int count;
    const char *line[most_lines] = {};  // weights of outputs from 0 on
    float x[most_lines][vectors] = {};
    float sum[vectors] = {};       // of x: what an offset of the numbers is multiplied with
    const char *scales, *offsets;  // of their group
    int next_count;
    const char *next[lines_ahead];
  };

  // The list of inputs that count, as positions behind `first`.
  struct List {
    int64_t first;
    int count;
    int asked;  // of these the lines have been asked for
    int32_t input[list_size];
  };

  static constexpr bool is_wide(Format format) {
    return format == Format::f32 || format == Format::f16 || format == Format::bf16;
  }
  static constexpr bool is_nibbles(Format format) { return format == Format::q4 || format == Format::q4_affine; }
  // Inputs that may be summed together have one scale.
  static constexpr int64_t inputs_of_a_scale(Format format) {
    return is_wide(format) ? INT64_MAX : format == Format::q8_affine ? 16 : block;
  }
  // Bytes before the numbers of a group, an output.
  static constexpr int64_t scale_bytes(Format format) {
    return format == Format::q4_affine ? 8 : format == Format::q8_affine ? 12 : 2;
  }

  template <int vectors>
  static void for_format(const Job &job) {
    switch (job.w->format) {
      case Format::f32:
        return multiply<Format::f32, vectors>(job);
      case Format::f16:
        return multiply<Format::f16, vectors>(job);
      case Format::bf16:
        return multiply<Format::bf16, vectors>(job);
      case Format::q8:
        return multiply<Format::q8, vectors>(job);
      case Format::q4:
        return multiply<Format::q4, vectors>(job);
      case Format::q4_affine:
        return multiply<Format::q4_affine, vectors>(job);
      case Format::q8_affine:
        return multiply<Format::q8_affine, vectors>(job);
    }
  }

  template <Format format>
  static const char *line_of(const Matrix &w, int64_t input) {
    const auto *data = static_cast<const char *>(w.data);
    if constexpr (is_wide(format)) return data + static_cast<size_t>(input) * w.stride;
    const char *group = data + static_cast<size_t>(input / block) * w.stride + scale_bytes(format) * w.outputs;
    return group + input % block * (is_nibbles(format) ? w.outputs / 2 : w.outputs);
  }

  template <Format format, int vectors>
  static void multiply(const Job &job) {
    const int64_t outputs = job.output_end - job.output_begin;
    for (int v = 0; v < vectors; v++)
      __builtin_memset(job.y + v * job.y_stride + job.output_begin, 0, static_cast<size_t>(outputs) * sizeof(float));
    List list;
    for (list.first = job.input_begin; list.first < job.input_end; list.first += list_size) {
      find_inputs<vectors>(job, list);
      list.asked = 0;
      for (int at = 0; at < list.count;) at += add_lines<format, vectors>(job, list, at);
    }
  }

  // No branch on the values: zeros come in no order.
  template <int vectors>
  static void find_inputs(const Job &job, List &list) {
    const int64_t left = job.input_end - list.first, last = list.first + (left < list_size ? left : list_size);
    int count = 0;
    for (int64_t i = list.first; i < last; i++) {
      bool is_needed = false;
      for (int v = 0; v < vectors; v++) is_needed |= job.x[v * job.x_stride + i] != 0.0f;
      list.input[count] = static_cast<int32_t>(i - list.first);
      count += is_needed;
    }
    list.count = count;
  }

  template <Format format>
  static const char *group_of(const Matrix &w, int64_t input) {
    return static_cast<const char *>(w.data) + static_cast<size_t>(input / block) * w.stride;
  }

  // Asks for the scales of a group now: they are read soonest, and in the long run that they are stored in.
  template <Format format>
  static void prefetch_scales(const Job &job, const char *group) {
    constexpr int64_t size = format == Format::q8 || format == Format::q4 ? 2 : 4;
    for (int64_t part = 0; part < scale_bytes(format) / size; part++) {
      const char *scales = group + part * size * job.w->outputs;
      for (int64_t at = size * job.output_begin; at < size * job.output_end; at += 64) S::prefetch(scales + at);
    }
  }

  // Lines to ask for while those before `at` are summed.
  template <Format format, int vectors>
  static void find_next(const Job &job, List &list, int at, Lines<vectors> &lines) {
    if (list.asked < at) list.asked = at;
    const int end = list.count - at < lines_ahead ? list.count : at + lines_ahead;
    lines.next_count = 0;
    for (; list.asked < end; list.asked++) {
      const int64_t input = list.first + list.input[list.asked];
      lines.next[lines.next_count++] = line_of<format>(*job.w, input);
      if constexpr (!is_wide(format)) {
        const char *group = group_of<format>(*job.w, input);
        if (list.asked == 0 || group != group_of<format>(*job.w, list.first + list.input[list.asked - 1]))
          prefetch_scales<format>(job, group);
      }
    }
  }

  // Adds the products of some inputs from `at` on; returns how many.
  template <Format format, int vectors>
  static int add_lines(const Job &job, List &list, int at) {
    const Matrix &w = *job.w;
    Lines<vectors> lines;
    constexpr int64_t together = inputs_of_a_scale(format);
    const int64_t first_input = list.first + list.input[at], part = first_input / together;
    int n = 0;
    for (; n < most_lines && at + n < list.count; n++) {
      const int64_t input = list.first + list.input[at + n];
      if (input / together != part) break;
      lines.line[n] = line_of<format>(w, input);
      for (int v = 0; v < vectors; v++) {
        const float value = job.x[v * job.x_stride + input];
        lines.x[n][v] = value;
        lines.sum[v] += value;
      }
    }
    lines.count = n;
    if constexpr (!is_wide(format)) {
      lines.scales = group_of<format>(w, first_input);
      lines.offsets = lines.scales + (format == Format::q8_affine ? 8 : 4) * w.outputs;
      if constexpr (format == Format::q8_affine) lines.scales += first_input % block / 16 * 4 * w.outputs;
    }
    find_next<format, vectors>(job, list, at + n, lines);
    if constexpr (vectors == 1) {
      switch (n) {  // with the count known, loops become straight code
        case 1:
          add<format, 1, 1>(job, lines);
          break;
        case 2:
          add<format, 1, 2>(job, lines);
          break;
        case 3:
          add<format, 1, 3>(job, lines);
          break;
        case 4:
          add<format, 1, 4>(job, lines);
          break;
        case 5:
          add<format, 1, 5>(job, lines);
          break;
        case 6:
          add<format, 1, 6>(job, lines);
          break;
        case 7:
          add<format, 1, 7>(job, lines);
          break;
        default:
          add<format, 1, 8>(job, lines);
          break;
      }
    } else {
      add<format, vectors, 0>(job, lines);
    }
    return n;
  }

  // count 0: lines.count of them.
  template <Format format, int vectors, int count>
  static void add(const Job &job, const Lines<vectors> &lines) {
    constexpr int64_t step = format == Format::f32 ? 16 : is_wide(format) ? 32 : 64;  // 64 bytes of a line
    int64_t o = job.output_begin;
    for (; o + step <= job.output_end; o += step) {
      const int64_t offset = is_nibbles(format) ? o / 2 : format == Format::f32 ? 4 * o : is_wide(format) ? 2 * o : o;
      if (!is_nibbles(format) || (o - job.output_begin) % 128 == 0)
        for (int j = 0; j < lines.next_count; j++) S::prefetch(lines.next[j] + offset);
      if constexpr (is_nibbles(format)) {
        for (int i = 0; i < 32; i += lanes) add_nibbles<format, vectors, count>(job, lines, o + i, offset + i);
      } else {
        for (int i = 0; i < step; i += lanes) add_outputs<format, vectors, count>(job, lines, o + i);
      }
    }
    if constexpr (!is_nibbles(format)) {
      for (; o + lanes <= job.output_end; o += lanes) add_outputs<format, vectors, count>(job, lines, o);
      if (o < job.output_end) add_last_outputs<format, vectors>(job, lines, o, job.output_end - o);
    }
  }

  template <Format format>
  static Float load(const char *line, int64_t o) {
    if constexpr (format == Format::f32)
      return S::load_f32(line + 4 * o);
    else if constexpr (format == Format::f16)
      return S::load_f16(line + 2 * o);
    else if constexpr (format == Format::bf16)
      return S::load_bf16(line + 2 * o);
    else
      return S::load_i8(line + o);
  }
  template <Format format>
  static Float load_partial(const char *line, int64_t o, int64_t count) {
    if constexpr (format == Format::f32)
      return S::load_f32_partial(line + 4 * o, count);
    else if constexpr (format == Format::f16)
      return S::load_f16_partial(line + 2 * o, count);
    else if constexpr (format == Format::bf16)
      return S::load_bf16_partial(line + 2 * o, count);
    else
      return S::load_i8_partial(line + o, count);
  }
  template <Format format>
  static Float load_scales(const char *scales, int64_t o) {
    if constexpr (format == Format::q8 || format == Format::q4)
      return S::load_f16(scales + 2 * o);
    else
      return S::load_f32(scales + 4 * o);
  }
  template <Format format>
  static Float load_scales_partial(const char *scales, int64_t o, int64_t count) {
    if constexpr (format == Format::q8 || format == Format::q4)
      return S::load_f16_partial(scales + 2 * o, count);
    else
      return S::load_f32_partial(scales + 4 * o, count);
  }

  // sums += weights at o * x, line by line.
  template <Format format, int vectors, int count, class Load>
  static void add_products(const Lines<vectors> &lines, const Load &load_line, Float (&sums)[vectors]) {
    const int n = count ? count : lines.count;
    for (int j = 0; j < n; j++) {
      const Float weights = load_line(lines.line[j]);
      for (int v = 0; v < vectors; v++) sums[v] = S::fma(weights, S::broadcast(lines.x[j][v]), sums[v]);
    }
  }

  template <Format format, int vectors, int count>
  static void add_outputs(const Job &job, const Lines<vectors> &lines, int64_t o) {
    Float sums[vectors];
    for (int v = 0; v < vectors; v++) sums[v] = is_wide(format) ? S::load(job.y + v * job.y_stride + o) : S::zero();
    add_products<format, vectors, count>(
        lines, [o](const char *line) { return load<format>(line, o); }, sums);
    if constexpr (!is_wide(format)) {
      const Float scales = load_scales<format>(lines.scales, o);
      for (int v = 0; v < vectors; v++) sums[v] = S::fma(sums[v], scales, S::load(job.y + v * job.y_stride + o));
    }
    if constexpr (format == Format::q8_affine) {
      const Float offsets = load_scales<format>(lines.offsets, o);
      for (int v = 0; v < vectors; v++) sums[v] = S::fma(offsets, S::broadcast(lines.sum[v]), sums[v]);
    }
    for (int v = 0; v < vectors; v++) S::store(job.y + v * job.y_stride + o, sums[v]);
  }

  template <Format format, int vectors>
  static void add_last_outputs(const Job &job, const Lines<vectors> &lines, int64_t o, int64_t outputs) {
    Float sums[vectors];
    for (Float &sum : sums) sum = S::zero();
    add_products<format, vectors, 0>(
        lines, [o, outputs](const char *line) { return load_partial<format>(line, o, outputs); }, sums);
    for (int v = 0; v < vectors; v++) {
      float *y = job.y + v * job.y_stride + o;
      Float sum = S::load_partial(y, outputs);
      if constexpr (is_wide(format))
        sum = S::add(sums[v], sum);
      else
        sum = S::fma(sums[v], load_scales_partial<format>(lines.scales, o, outputs), sum);
      if constexpr (format == Format::q8_affine)
        sum = S::fma(load_scales_partial<format>(lines.offsets, o, outputs), S::broadcast(lines.sum[v]), sum);
      S::store_partial(y, sum, outputs);
    }
  }

  // Low halves of the bytes at `offset` are outputs from o on, high halves those from o + 32 on.
  template <Format format, int vectors, int count>
  static void add_nibbles(const Job &job, const Lines<vectors> &lines, int64_t o, int64_t offset) {
    Float low[vectors], high[vectors];
    for (int v = 0; v < vectors; v++)
      low[v] = high[v] = S::broadcast(format == Format::q4 ? -8.0f * lines.sum[v] : 0.0f);
    const int n = count ? count : lines.count;
    for (int j = 0; j < n; j++) {
      const Float low_weights = S::load_low_nibbles(lines.line[j] + offset);
      const Float high_weights = S::load_high_nibbles(lines.line[j] + offset);
      for (int v = 0; v < vectors; v++) {
        const Float x = S::broadcast(lines.x[j][v]);
        low[v] = S::fma(low_weights, x, low[v]);
        high[v] = S::fma(high_weights, x, high[v]);
      }
    }
    finish_nibbles<format, vectors>(job, lines, o, low);
    finish_nibbles<format, vectors>(job, lines, o + 32, high);
  }

  template <Format format, int vectors>
  static void finish_nibbles(const Job &job, const Lines<vectors> &lines, int64_t o, const Float (&sums)[vectors]) {
    const Float scales = load_scales<format>(lines.scales, o);
    for (int v = 0; v < vectors; v++) {
      float *y = job.y + v * job.y_stride + o;
      Float sum = S::fma(sums[v], scales, S::load(y));
      if constexpr (format == Format::q4_affine)
        sum = S::fma(load_scales<format>(lines.offsets, o), S::broadcast(lines.sum[v]), sum);
      S::store(y, sum);
    }
  }
};

}  // namespace libwkv::kernels
