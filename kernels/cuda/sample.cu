// SPDX-License-Identifier: Apache-2.0
// A row is the work of a group of blocks: a cluster where there are clusters, which then holds all of the row's scores
// in shared memory, else one block. Each block has a slice of consecutive ids.
//
// A cut or a draw looks for a place in the order of rising key, then rising id (key: nats behind the likeliest): the
// first token with which the running sum of weights reaches a target. Most places are among the first hundred tokens,
// the head, which is brought together and put in order. For others nothing is sorted: keys are dealt into bins, all
// sums of which the group learns; the bin with the target in it is dealt into bins again, until it has no more tokens
// than can be put in order as the head was. All blocks decide alike from the same numbers, so they meet only once a
// deal, and sums are made in an order that nothing but the row's length decides.
#include "kernels/cuda/sample.h"

#include <cooperative_groups.h>

namespace libwkv::cuda {
namespace {

namespace cg = cooperative_groups;

constexpr int most_blocks = 8;    // of a group: what every device with clusters allows
constexpr int most_listed = 128;  // tokens put in order: at most the threads of a block
constexpr int most_held = 128;    // changed scores that a block keeps; those of more are computed whenever needed

// Weights are powers of two of at least 2^-64; those of tokens further behind add up to less than vocab * 2^-64 of
// the whole, and are left out.
constexpr double farthest = 64 * 0.6931471805599453;  // nats

__device__ double infinity() { return __longlong_as_double(0x7ff0000000000000); }

// Rises with the score; -0 and 0 are one.
__device__ uint64_t order_of(double score) {
  const int64_t bits = __double_as_longlong(score + 0.0);
  return static_cast<uint64_t>(bits ^ (bits >> 63 | INT64_MIN));
}

__device__ double score_at(uint64_t order) {
  return __longlong_as_double(static_cast<int64_t>(order >> 63 ? order ^ uint64_t{1} << 63 : ~order));
}

__device__ uint32_t warp_max(uint32_t value) {
#if __CUDA_ARCH__ >= 800
  return __reduce_max_sync(~0u, value);
#else
  for (int step = 16; step; step >>= 1) value = max(value, __shfl_xor_sync(~0u, value, step));
  return value;
#endif
}

__device__ uint64_t warp_max(uint64_t value) {
  const auto high = static_cast<uint32_t>(value >> 32);
  const uint32_t highest = warp_max(high);
  const uint32_t low = warp_max(high == highest ? static_cast<uint32_t>(value) : 0u);
  return uint64_t{highest} << 32 | low;
}

// Of scores above -infinity, as order_of.
struct Extremes {
  uint64_t highest, lowest;
  int32_t id;  // the first with the highest; INT32_MAX: no score
};

__device__ Extremes no_extremes() { return {order_of(-infinity()), order_of(infinity()), INT32_MAX}; }

__device__ void add_score(Extremes &extremes, double score, int32_t id) {
  if (!(score > -infinity())) return;
  const uint64_t order = order_of(score);
  if (order > extremes.highest || (order == extremes.highest && id < extremes.id)) {
    extremes.highest = order;
    extremes.id = id;
  }
  extremes.lowest = min(extremes.lowest, order);
}

__device__ Extremes warp_extremes(const Extremes &mine) {
  const uint64_t highest = warp_max(mine.highest);
  const uint32_t id = mine.highest == highest ? static_cast<uint32_t>(mine.id) : INT32_MAX;
  return {highest, ~warp_max(~mine.lowest), static_cast<int32_t>(~warp_max(~id))};
}

// The same of raw scores that a thread sees in rising order of their index.
struct RawExtremes {
  float high = -INFINITY, low = INFINITY;
  int32_t index = INT32_MAX;

  __device__ void see(float score, int32_t at) {
    if (score > high) {
      high = score;
      index = at;
    }
    if (score < low && score > -INFINITY) low = score;
  }
  __device__ Extremes from(int32_t begin) const {
    if (index == INT32_MAX) return no_extremes();
    return {order_of(high), order_of(low), begin + index};
  }
};

// e^-key for key in [0, farthest]: 2^-y with y = n + r, |r| <= 1/2. The polynomial is 2^-r to 1.4e-14, fitted at
// Chebyshev's points.
__device__ double weight_of(double key) {
  constexpr double log2_e = 0x1.71547652b82fep+0, round = 0x1.8p52;
  const double y = key * log2_e;
  const double shifted = y + round;  // n in the low bits
  const double r = y - (shifted - round);
  double p = -0x1.b6571de2f2351p-24;
  p = fma(p, r, 0x1.63ef969a64d3cp-20);
  p = fma(p, r, -0x1.ffcb76789860fp-17);
  p = fma(p, r, 0x1.43088e257f341p-13);
  p = fma(p, r, -0x1.5d87fe908f88ap-10);
  p = fma(p, r, 0x1.3b2ab72b175eep-7);
  p = fma(p, r, -0x1.c6b08d7044119p-5);
  p = fma(p, r, 0x1.ebfbdff8149f2p-3);
  p = fma(p, r, -0x1.62e42fefa39f7p-1);
  p = fma(p, r, 0x1.000000000003dp+0);
  return __hiloint2double(__double2hiint(p) - (__double2loint(shifted) << 20), __double2loint(p));
}

struct Position {
  double key;
  int32_t id;
};

// A stretch of the order: tokens whose value lies in [lower, lower + 2^bits). Values are places in the range of keys,
// which spread tokens well; for more tokens than those can tell apart the bits of keys, which rise with them; for more
// with the same key the ids.
struct Bracket {
  enum class By { place, key, id } by;
  int bits;
  uint64_t lower;
  uint64_t place, key;  // of all tokens, where values are keys and ids
};

struct alignas(16) Gathered {
  uint64_t key;     // the bits of the double, which rise with it
  uint64_t weight;  // in units of 2^-52, so that the order of their sum does not matter
};

template <int threads, int bins>
struct Memory {
  static constexpr int warps = threads / 32;

  union {
    // A column for each thread, so that no two add to the same number: any deal takes the same time, and the order of
    // sums is fixed.
    double columns[bins][threads];
    // Tokens of all blocks, not yet in order.
    struct {
      Gathered tokens[most_listed];
      int32_t ids[most_listed];
    } gathered;
  };
  // What the blocks of the group tell each other. Every meeting uses the other half: after it, a block may be ahead of
  // the reading of others by less than a meeting.
  double sums[2][most_blocks][bins];
  double list_keys[2][most_listed];
  int32_t list_ids[2][most_listed];
  uint64_t highest[most_blocks * warps], lowest[most_blocks * warps];  // of each warp, as order_of
  int32_t highest_ids[most_blocks * warps];
  // Tokens in order.
  double ranked_keys[most_listed];
  uint64_t ranked_sums[most_listed];  // of weights up to and with the token, in units of 2^-52
  int32_t ranked_ids[most_listed];
  double held_scores[most_held];
  int32_t held_ids[most_held];
  int32_t list_size;
  double head_score;
  alignas(16) float slice[1];  // as many as the block has ids; with clusters only
};

constexpr int log2_of(int value) { return value <= 1 ? 0 : 1 + log2_of(value / 2); }

struct Scored {
  double score;
  int32_t id;
};

// Entries of a row's lists whose ids belong to a block.
struct Entries {
  int32_t biases_begin, biases_end, counts_begin, counts_end;
};

__device__ int32_t first_at_least(const int32_t *tokens, int32_t first, int32_t last, int32_t token) {
  while (first < last) {
    const int32_t middle = first + (last - first) / 2;
    if (tokens[middle] < token)
      first = middle + 1;
    else
      last = middle;
  }
  return first;
}

// Operations 1 to 4 for entry `index`, biases before counts; -infinity when an entry before has the same token. Rounded
// as on the host, without fused operations. A function of its own: most rows never need it, and inline it would fill
// the instruction cache.
__device__ __noinline__ Scored changed_score(const SampleRow *row, SampleLists lists, const float *logits,
                                             Entries entries, int32_t index) {
  const int32_t biases_count = entries.biases_end - entries.biases_begin;
  const bool is_bias = index < biases_count;
  const int32_t at = is_bias ? entries.biases_begin + index : entries.counts_begin + index - biases_count;
  const int32_t token = is_bias ? lists.bias_tokens[at] : lists.counted_tokens[at];
  double score = logits[token];
  int32_t counted = at;
  if (is_bias) {
    if (index > 0 && lists.bias_tokens[at - 1] == token) return {-infinity(), token};
    for (int32_t i = at; i < entries.biases_end && lists.bias_tokens[i] == token && score > -infinity(); i++)
      score += lists.biases[i];
    counted = first_at_least(lists.counted_tokens, entries.counts_begin, entries.counts_end, token);
  } else {
    const int32_t biased = first_at_least(lists.bias_tokens, entries.biases_begin, entries.biases_end, token);
    if (biased < entries.biases_end && lists.bias_tokens[biased] == token) return {-infinity(), token};
  }
  if (!(score > -infinity())) return {-infinity(), token};
  if (counted < entries.counts_end && lists.counted_tokens[counted] == token) {
    const double repetition = row->repetition;
    if (repetition != 1) score = score > 0 ? score / repetition : __dmul_rn(score, repetition);
    score = __dsub_rn(score, __dadd_rn(row->presence, __dmul_rn(row->frequency, lists.counts[counted])));
  }
  return {score, token};
}

// A row as a block sees it. Every function is called by all threads of the group.
template <int threads, int bins, bool is_clustered>
struct Race {
  using BlockMemory = Memory<threads, bins>;
  static constexpr int warps = threads / 32;
  static constexpr int blocks = is_clustered ? most_blocks : 1;
  static constexpr int digit_bits = log2_of(bins);
  static constexpr int place_bits = 3 * digit_bits;
  // Tokens whose keys and weights a thread computes side by side, to hide the latency of doubles. Two warps a scheduler
  // with four each keep the units for doubles busy; more would only make code that no longer fits the instruction
  // cache.
  static constexpr int abreast = 4;
  static_assert(bins <= 32 && bins % warps == 0 && most_listed <= threads);

  BlockMemory &memory;
  const SampleRow &row;  // where it came from: registers are scarce
  const SampleLists &lists;
  const float *logits;        // of the row
  const float *global_slice;  // where there are no clusters
  int thread, lane, warp, block, meeting;
  int32_t begin, end;           // ids of the block
  Entries entries;              // with such ids
  double highest, scale;        // key = (highest - score) * scale
  double width, inverse_width;  // of the range of keys
  Position cut;                 // the last token kept

  // ---- blocks of the group

  template <class T>
  __device__ T *of_block(T *mine, int other) const {
#if __CUDA_ARCH__ >= 900
    if constexpr (is_clustered) return cg::this_cluster().map_shared_rank(mine, other);
#endif
    return mine;
  }

  __device__ void meet() {
#if __CUDA_ARCH__ >= 900
    if constexpr (is_clustered)
      cg::this_cluster().sync();
    else
#endif
      __syncthreads();
  }

  // The scores of the block, NaN where they are changed.
  __device__ float slice_at(int32_t index) const {
    if constexpr (is_clustered)
      return memory.slice[index];
    else
      return global_slice[index];
  }

  // ---- scores that biases and penalties change

  // The first entry with at least this token. All threads look at once; long lists get shorter in every round.
  __device__ int32_t first_at_least_together(const int32_t *tokens, int32_t first, int32_t last, int32_t token) const {
    while (first < last) {
      const int32_t stride = (last - first + threads - 1) / threads;
      const int64_t at = first + (thread + int64_t{1}) * stride - 1;  // the last entry of the thread's part
      const int32_t before = __syncthreads_count(at < last && tokens[at] < token);
      first += before * stride;
      if (stride == 1) break;
      last = min(last, first + stride - 1);
    }
    return first;
  }

  __device__ void find_entries(const int32_t *tokens, int32_t first, int32_t count, int32_t *from, int32_t *to) const {
    if (count <= threads) {
      const int32_t token = thread < count ? tokens[first + thread] : INT32_MAX;
      *from = first + __syncthreads_count(token < begin);
      *to = first + __syncthreads_count(token < end);
    } else {
      *from = first_at_least_together(tokens, first, first + count, begin);
      *to = first_at_least_together(tokens, *from, first + count, end);
    }
  }

  __device__ void find_changed() {
    entries = {0, 0, 0, 0};
    if (row.biases_count > 0)
      find_entries(lists.bias_tokens, row.biases_begin, row.biases_count, &entries.biases_begin, &entries.biases_end);
    if (row.counts_count > 0 && (row.repetition != 1 || row.presence != 0 || row.frequency != 0))
      find_entries(lists.counted_tokens, row.counts_begin, row.counts_count, &entries.counts_begin,
                   &entries.counts_end);
  }

  __device__ int32_t changed_count() const {
    return entries.biases_end - entries.biases_begin + entries.counts_end - entries.counts_begin;
  }

  __device__ Scored held_score(int32_t index) const {
    if (index >= most_held) return changed_score(&row, lists, logits, entries, index);
    return {memory.held_scores[index], memory.held_ids[index]};
  }

  // ---- the scores in general

  // Copies the slice, unless `copy` is NULL, and finds its extremes.
  __device__ Extremes read_scores(float *copy) const {
    const float *from = logits + begin;
    const int32_t count = end - begin;
    RawExtremes extremes;
    int32_t vectors = 0;
    if (reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      vectors = count / 4;
#pragma unroll 8
      for (int32_t v = thread; v < vectors; v += threads) {
        const float4 scores = __ldg(reinterpret_cast<const float4 *>(from) + v);
        if (copy) reinterpret_cast<float4 *>(copy)[v] = scores;
        extremes.see(scores.x, 4 * v);
        extremes.see(scores.y, 4 * v + 1);
        extremes.see(scores.z, 4 * v + 2);
        extremes.see(scores.w, 4 * v + 3);
      }
    }
#pragma unroll 1
    for (int32_t i = 4 * vectors + thread; i < count; i += threads) {
      const float score = __ldg(from + i);
      if (copy) copy[i] = score;
      extremes.see(score, i);
    }
    return extremes.from(begin);
  }

  // Takes the changed scores out of the slice and keeps them apart; then the extremes are others.
  __device__ Extremes change_scores(float *copy) {
    __syncthreads();
    const int32_t changed = changed_count();
#pragma unroll 1
    for (int32_t i = thread; i < changed; i += threads) {
      const auto [score, id] = changed_score(&row, lists, logits, entries, i);
      if (i < most_held) {
        memory.held_scores[i] = score;
        memory.held_ids[i] = id;
      }
      copy[id - begin] = NAN;
    }
    __syncthreads();
    RawExtremes unchanged;
#pragma unroll 8
    for (int32_t i = thread; i < end - begin; i += threads) unchanged.see(slice_at(i), i);
    Extremes extremes = unchanged.from(begin);
#pragma unroll 1
    for (int32_t i = thread; i < changed; i += threads) {
      const auto [score, id] = held_score(i);
      add_score(extremes, score, id);
    }
    return extremes;
  }

  __device__ Extremes group_extremes(Extremes mine) {
    mine = warp_extremes(mine);
    const int entry = block * warps + warp;
    if (lane < blocks) {
      of_block(memory.highest, lane)[entry] = mine.highest;
      of_block(memory.lowest, lane)[entry] = mine.lowest;
      of_block(memory.highest_ids, lane)[entry] = mine.id;
    }
    meet();
    mine = no_extremes();
    for (int i = lane; i < blocks * warps; i += 32) {
      if (memory.highest[i] > mine.highest || (memory.highest[i] == mine.highest && memory.highest_ids[i] < mine.id)) {
        mine.highest = memory.highest[i];
        mine.id = memory.highest_ids[i];
      }
      mine.lowest = min(mine.lowest, memory.lowest[i]);
    }
    return warp_extremes(mine);
  }

  // A score that some 75 tokens reach when large ones lie anywhere, guessed from the warps' highest ones: with n such
  // tokens, 1 - e^(-n / e) of e warps have one.
  __device__ double guess_head() {
    constexpr int entries = blocks * warps, place = entries >= 128 ? 56 : entries >= 64 ? 44 : entries;
    constexpr int parts = entries * 32 > threads ? threads / entries : 32;
    const int me = thread / parts;
    int rank = 0;
    if (me < entries) {
      const uint64_t mine = memory.highest[me];
      for (int i = thread % parts; i < entries; i += parts)
        rank += memory.highest[i] > mine || (memory.highest[i] == mine && i < me);
    }
#pragma unroll
    for (int step = parts / 2; step; step >>= 1) rank += __shfl_xor_sync(~0u, rank, step);
    if (me < entries && thread % parts == 0 && rank == place - 1) memory.head_score = score_at(memory.highest[me]);
    __syncthreads();
    return memory.head_score;
  }

  // Several at once, so that the compiler mixes their latencies: hence the loops within every condition here.
  template <int n>
  __device__ void write_keys(const double (&scores)[n], double (&keys)[n]) const {
#pragma unroll
    for (int i = 0; i < n; i++) keys[i] = __dmul_rn(highest - scores[i], scale);
    if (highest < infinity()) return;
#pragma unroll
    for (int i = 0; i < n; i++)
      keys[i] = scores[i] == highest ? 0 : infinity();  // all others are infinitely far behind
  }
  __device__ double key_of(double score) const {
    const double scores[1] = {score};
    double keys[1];
    write_keys(scores, keys);
    return keys[0];
  }

  // Calls visit(keys, is_kept, id of the first, ids between two) for all tokens of the block, some at a time: of those
  // with key in [nearest, reach], the ones that no cut took are kept.
  template <class Visit>
  __device__ void for_each(double nearest, double reach, Visit visit) const {
    reach = fmin(reach, fmin(cut.key, farthest));
    // Most tokens are told apart by their raw score alone; within the margin the key decides.
    float lowest = -INFINITY, largest = INFINITY;
    if (highest < infinity()) {
      const double margin = 1e-9 * (fabs(highest) + reach * row.temperature);
      lowest = __double2float_rd(highest - reach * row.temperature - margin);
      largest = __double2float_ru(highest - nearest * row.temperature + margin);
    }
    const auto is_kept = [&](double key, int32_t id) { return key <= reach && !(key == cut.key && id > cut.id); };
    const int32_t count = end - begin;
#pragma unroll 1
    for (int32_t first = thread; first < count; first += abreast * threads) {
      float scores[abreast];
      bool is_near = false;
#pragma unroll
      for (int a = 0; a < abreast; a++) {
        const int32_t i = first + a * threads;
        scores[a] = i < count ? slice_at(i) : NAN;
        is_near |= scores[a] >= lowest && scores[a] <= largest;
      }
      if (!is_near) continue;
      double exact[abreast], keys[abreast];
      bool kept[abreast];
#pragma unroll
      for (int a = 0; a < abreast; a++) exact[a] = scores[a];
      write_keys(exact, keys);
#pragma unroll
      for (int a = 0; a < abreast; a++) kept[a] = is_kept(keys[a], begin + first + a * threads);
      visit(keys, kept, begin + first, threads);
    }
    const int32_t changed = changed_count();
#pragma unroll 1
    for (int32_t i = thread; i < changed; i += threads) {
      const Scored changed_one = held_score(i);
      const double keys[1] = {key_of(changed_one.score)};
      const bool kept[1] = {is_kept(keys[0], changed_one.id)};
      visit(keys, kept, changed_one.id, 0);
    }
  }

  // ---- finding a place in the order

  // Rises with the key.
  __device__ uint64_t place_of(double key) const {
    return (__double_as_longlong(fma(key, inverse_width, 1.0)) & 0xfffffffffffff) >> (52 - place_bits);
  }

  __device__ double key_at(uint64_t place) const {
    return static_cast<double>(place) * (width / static_cast<double>(uint64_t{1} << place_bits));
  }

  // Keys of the bracket lie between these two, which are not exact.
  __device__ double nearest_in(const Bracket &bracket) const {
    return inverse_width == 0 ? 0 : key_at(bracket.by == Bracket::By::place ? bracket.lower : bracket.place);
  }
  __device__ double reach_of(const Bracket &bracket) const {
    const uint64_t end =
        bracket.by == Bracket::By::place ? bracket.lower + (uint64_t{1} << bracket.bits) : bracket.place + 1;
    return inverse_width == 0 ? width : key_at(end) * (1 + 0x1p-30);
  }

  // Offsets in the bracket; those of tokens outside it are too large.
  template <int n>
  __device__ void write_offsets(const Bracket &bracket, const double (&keys)[n], int32_t id, int32_t step,
                                uint64_t (&offsets)[n]) const {
    if (bracket.by == Bracket::By::place) {
#pragma unroll
      for (int i = 0; i < n; i++) offsets[i] = place_of(keys[i]) - bracket.lower;
      return;
    }
#pragma unroll
    for (int i = 0; i < n; i++) {
      const auto bits = static_cast<uint64_t>(__double_as_longlong(keys[i]));
      const uint64_t with_key =
          bits == bracket.key ? static_cast<uint64_t>(id + i * step) - bracket.lower : ~uint64_t{0};
      offsets[i] = bracket.by == Bracket::By::key ? bits - bracket.lower : with_key;
    }
  }

  // For the tokens at one place: by key, or by id when their keys are the same.
  __device__ Bracket bracket_within(const Bracket &bracket, int id_bits) {
    uint64_t largest = 0, inverse_smallest = 0;
    for_each(nearest_in(bracket), reach_of(bracket),
             [&]<int n>(const double(&keys)[n], const bool(&kept)[n], int32_t id, int32_t step) {
               uint64_t offsets[n];
               write_offsets(bracket, keys, id, step, offsets);
#pragma unroll
               for (int i = 0; i < n; i++) {
                 if (!kept[i] || offsets[i] >> bracket.bits) continue;
                 const auto bits = static_cast<uint64_t>(__double_as_longlong(keys[i]));
                 largest = max(largest, bits);
                 inverse_smallest = max(inverse_smallest, ~bits);
               }
             });
    largest = warp_max(largest);
    inverse_smallest = warp_max(inverse_smallest);
    const int entry = block * warps + warp;
    if (lane < blocks) {
      of_block(memory.highest, lane)[entry] = largest;
      of_block(memory.lowest, lane)[entry] = inverse_smallest;
    }
    meet();
    for (int i = lane; i < blocks * warps; i += 32) {
      largest = max(largest, memory.highest[i]);
      inverse_smallest = max(inverse_smallest, memory.lowest[i]);
    }
    largest = warp_max(largest);
    const uint64_t smallest = ~warp_max(inverse_smallest), place = bracket.lower;
    if (largest == smallest) return {Bracket::By::id, id_bits, 0, place, smallest};
    int bits = digit_bits;
    while (bits < 64 && (largest - smallest) >> bits) bits += digit_bits;
    return {Bracket::By::key, bits, smallest, place, 0};
  }

  // Lane b gets the sum of bin b of the bracket: of weights, or of ones.
  __device__ double deal(const Bracket &bracket, bool counts) {
#pragma unroll 8
    for (int b = 0; b < bins; b++) memory.columns[b][thread] = 0;
    const int shift = bracket.bits - digit_bits;
    for_each(nearest_in(bracket), reach_of(bracket),
             [&]<int n>(const double(&keys)[n], const bool(&kept)[n], int32_t id, int32_t step) {
               uint64_t offsets[n];
               write_offsets(bracket, keys, id, step, offsets);
               double weights[n];
               if (counts) {
#pragma unroll
                 for (int i = 0; i < n; i++) weights[i] = 1;
               } else {
#pragma unroll
                 for (int i = 0; i < n; i++) weights[i] = weight_of(keys[i]);
               }
#pragma unroll
               for (int i = 0; i < n; i++) {
                 const uint64_t bin = offsets[i] >> shift;
                 if (kept[i] && bin < bins) memory.columns[bin][thread] += weights[i];
               }
             });
    __syncthreads();
    meeting ^= 1;
    constexpr int bins_of_warp = bins / warps;
    double sums[bins_of_warp];
#pragma unroll
    for (int b = 0; b < bins_of_warp; b++) {
      const double *column = memory.columns[warp * bins_of_warp + b];
      sums[b] = 0;
#pragma unroll
      for (int i = 0; i < threads; i += 32) sums[b] += column[i + lane];
    }
#pragma unroll
    for (int step = 16; step; step >>= 1)
#pragma unroll
      for (int b = 0; b < bins_of_warp; b++) sums[b] += __shfl_xor_sync(~0u, sums[b], step);
    if (lane < blocks) {
      double *to = of_block(memory.sums[meeting][block], lane) + warp * bins_of_warp;
#pragma unroll
      for (int b = 0; b < bins_of_warp; b++) to[b] = sums[b];
    }
    meet();
    double sum = 0;
    if (lane < bins)
#pragma unroll
      for (int i = 0; i < blocks; i++) sum += memory.sums[meeting][i][lane];
    return sum;
  }

  // Puts the kept tokens of the bracket with keys up to reach in order, in every block. Returns how many there are;
  // with more than most_listed of them nothing else is done.
  __device__ int list(const Bracket &bracket, double reach, bool counts) {
    meeting ^= 1;
    if (thread == 0) memory.list_size = 0;
    __syncthreads();
    for_each(nearest_in(bracket), fmin(reach, reach_of(bracket)),
             [&]<int n>(const double(&keys)[n], const bool(&kept)[n], int32_t id, int32_t step) {
               uint64_t offsets[n];
               write_offsets(bracket, keys, id, step, offsets);
#pragma unroll
               for (int i = 0; i < n; i++) {
                 if (!kept[i] || offsets[i] >> bracket.bits) continue;
                 const int at = atomicAdd(&memory.list_size, 1);
                 if (at >= most_listed) continue;
                 memory.list_keys[meeting][at] = keys[i];
                 memory.list_ids[meeting][at] = id + i * step;
               }
             });
    __syncthreads();
    if (warp == 0 && lane < blocks) *of_block(memory.sums[meeting][block], lane) = memory.list_size;
    meet();
    const int size = lane < blocks ? static_cast<int>(memory.sums[meeting][lane][0]) : 0;
    int until = size;
#pragma unroll
    for (int step = 1; step < 32; step <<= 1) {
      const int before = __shfl_up_sync(~0u, until, step);
      if (lane >= step) until += before;
    }
    const int all = __shfl_sync(~0u, until, 31);
    if (all > most_listed) return all;
    auto &gathered = memory.gathered;
#pragma unroll 1
    for (int other = warp; other < blocks; other += warps) {
      const int count = __shfl_sync(~0u, size, other), first = __shfl_sync(~0u, until, other) - count;
      const double *keys = of_block(memory.list_keys[meeting], other);
      const int32_t *ids = of_block(memory.list_ids[meeting], other);
#pragma unroll 1
      for (int i = lane; i < count; i += 32) {
        const double key = keys[i];
        gathered.ids[first + i] = ids[i];
        gathered.tokens[first + i] = {static_cast<uint64_t>(__double_as_longlong(key)),
                                      counts ? uint64_t{1} << 52 : __double2ull_rn(weight_of(key) * 0x1p52)};
      }
    }
    __syncthreads();
    rank(all);
    __syncthreads();
    return all;
  }

  // Every gathered token is compared with every other.
  __device__ void rank(int size) {
    const auto &gathered = memory.gathered;
    int shift = 5;  // 2^shift lanes share a token's comparisons
    while (size << shift > threads) shift--;
    const int parts = 1 << shift, part = thread & (parts - 1), me = thread >> shift;
    uint64_t key = 0, sum = 0;
    int place = 0, equals = 0;
    if (me < size) {
      key = gathered.tokens[me].key;
#pragma unroll 4
      for (int i = part; i < size; i += parts) {
        const Gathered other = gathered.tokens[i];
        sum += other.key < key ? other.weight : 0;
        place += other.key < key;
        equals += other.key == key;
      }
    }
    for (int step = parts / 2; step; step >>= 1) {
      sum += __shfl_xor_sync(~0u, sum, step);
      place += __shfl_xor_sync(~0u, place, step);
      equals += __shfl_xor_sync(~0u, equals, step);
    }
    if (me >= size || part != 0) return;
    const int32_t id = gathered.ids[me];
    if (equals > 1) {
#pragma unroll 1
      for (int i = 0; i < size; i++) {
        if (gathered.tokens[i].key != key || gathered.ids[i] >= id) continue;
        sum += gathered.tokens[i].weight;
        place++;
      }
    }
    memory.ranked_keys[place] = __longlong_as_double(static_cast<int64_t>(key));
    memory.ranked_ids[place] = id;
    memory.ranked_sums[place] = sum + gathered.tokens[me].weight;
  }

  __device__ double ranked_sum(int place) const { return static_cast<double>(memory.ranked_sums[place]) * 0x1p-52; }

  __device__ static bool reaches(double sum, double target, bool passes) {
    return passes ? sum > target : sum >= target;
  }

  // The first of the `size` tokens in order with which the sum, from `before` on, reaches the target, or else the last.
  __device__ int first_reaching(double before, double target, bool passes, int size) const {
    const bool is_short = thread < size && !reaches(before + ranked_sum(thread), target, passes);
    return max(0, min(__syncthreads_count(is_short), size - 1));
  }

  // Of the bins up to `last`, the first with which the sum, from `before` on, reaches the target, or else the last with
  // anything in it. Adds what comes before the bin to `before`.
  __device__ int choose_bin(double sum, double inclusive, int last, double target, bool passes, double *before) const {
    const bool is_filled = sum > 0 && lane <= last;
    const unsigned reached = __ballot_sync(~0u, is_filled && reaches(*before + inclusive, target, passes));
    const unsigned filled = __ballot_sync(~0u, is_filled);
    const int bin = reached ? __ffs(reached) - 1 : 31 - __clz(filled | 1);
    const double exclusive = __shfl_up_sync(~0u, inclusive, 1);
    const double skipped = __shfl_sync(~0u, exclusive, bin);
    if (bin > 0) *before += skipped;
    return bin;
  }

  // A bound on how many tokens of a bracket can have this sum of weights.
  __device__ double most_tokens(const Bracket &bracket, double sum, bool counts) const {
    return counts ? sum : sum * static_cast<double>(expf(static_cast<float>(reach_of(bracket)))) * 1.001;
  }

  enum class Step { top_k, top_p, draw };

  // Operations 6 to 11.
  __device__ int32_t run(const Extremes &extremes, int32_t ids) {
    highest = score_at(extremes.highest);
    scale = 1.0 / row.temperature;
    cut = {infinity(), INT32_MAX};
    width = highest == infinity() ? 0 : fmin(key_of(score_at(extremes.lowest)), farthest);
    // The largest place stays below 1, and a range too small to be divided by is all one place.
    inverse_width = width > 1e-290 ? (1 - 0x1p-40) / width : 0;
    int id_bits = digit_bits;
    while (id_bits < 31 && (ids - 1) >> id_bits) id_bits += digit_bits;
    const Bracket everything{Bracket::By::place, place_bits, 0, 0, 0};

    const double head_key = key_of(guess_head());
    int head = list(everything, head_key, false);  // the first tokens, which are in order; 0: none are
    if (head > most_listed) head = 0;
    bool is_all = head > 0 && head_key >= width;  // no others are kept
    bool is_dealt = false, has_total = false;
    double first_sum = 0, total = 0;  // first_sum: of everything's bin `lane`, with what the last cut takes away

    for (Step step = Step::top_k;; step = step == Step::top_k ? Step::top_p : Step::draw) {
      const bool counts = step == Step::top_k, passes = step == Step::draw;
      if (step == Step::top_k) {
        if (row.top_k <= 0 || row.top_k >= ids) continue;
        if (is_all || row.top_k <= head) {
          head = min(head, row.top_k);
          is_all = true;
          continue;
        }
      }
      if (step == Step::top_p && row.top_p >= 1) continue;
      if (step == Step::draw && row.min_p > 0) {
        const double limit = -log(row.min_p);
        if (head > 0 && (is_all || limit <= head_key)) {
          head = __syncthreads_count(thread < head && memory.ranked_keys[min(thread, most_listed - 1)] <= limit);
          is_all = true;
        } else if (limit < cut.key) {
          cut = {limit, INT32_MAX};
          is_dealt = has_total = false;
        }
      }

      Bracket bracket = everything;
      double before = 0, target = 0, sum = first_sum;
      bool is_in_head = false, is_needless = false;
      for (bool is_first = true;; is_first = false) {
        if (!is_first || !(is_all || is_dealt)) sum = deal(bracket, counts);
        double inclusive = sum;
#pragma unroll
        for (int distance = 1; distance < bins; distance <<= 1) {
          const double other = __shfl_up_sync(~0u, inclusive, distance);
          if (lane >= distance) inclusive += other;
        }
        if (is_first) {
          const double dealt = __shfl_sync(~0u, inclusive, bins - 1);
          if (counts) {
            target = row.top_k;
            is_needless = target >= dealt;
            if (is_needless) break;
          } else {
            if (is_all)
              total = ranked_sum(head - 1);
            else if (!has_total)
              total = dealt;
            first_sum = sum;
            is_dealt = has_total = true;
            target = (step == Step::top_p ? row.top_p : row.uniform) * total;
            is_in_head = is_all || (head > 0 && reaches(ranked_sum(head - 1), target, passes));
            if (is_in_head) break;
          }
        }
        const int last_bin =
            is_first ? static_cast<int>(place_of(fmin(cut.key, width)) >> (place_bits - digit_bits)) : bins - 1;
        const int bin = choose_bin(sum, inclusive, last_bin, target, passes, &before);
        bracket.bits -= digit_bits;
        bracket.lower += static_cast<uint64_t>(bin) << bracket.bits;
        if (is_first && inverse_width == 0) bracket.bits = 0;  // all are at place 0
        if (most_tokens(bracket, __shfl_sync(~0u, sum, bin), counts) <= most_listed) break;
        if (bracket.bits > 0) continue;
        if (bracket.by == Bracket::By::id) break;
        bracket = bracket.by == Bracket::By::place ? bracket_within(bracket, id_bits)
                                                   : Bracket{Bracket::By::id, id_bits, 0, bracket.place, bracket.lower};
      }
      if (is_needless) continue;
      if (is_in_head) {
        const int at = first_reaching(0, target, passes, head);
        if (step == Step::draw) return memory.ranked_ids[at];
        head = at + 1;
        is_all = true;
        continue;
      }
      const int size = list(bracket, infinity(), counts);
      const int at = first_reaching(before, target, passes, size);
      cut = {memory.ranked_keys[at], memory.ranked_ids[at]};
      if (step == Step::draw) return cut.id;
      // The sums of whole bins hold for the draw as well.
      is_dealt = has_total = step == Step::top_p;
      total = before + ranked_sum(at);
      head = 0;
    }
  }
};

// Numbers from row to row of the copies that blocks without clusters make of rows with changed scores.
__host__ __device__ constexpr int64_t copy_stride(int64_t vocab) { return (vocab + 3) / 4 * 4; }

// With 256 threads and 16 bins, three blocks fit on a multiprocessor of compute capability 9.0.
template <int threads, int bins, bool is_clustered>
__global__ void __launch_bounds__(threads, threads == 256 && bins == 16 ? 3 : 1)
    choose(const float *logits, int64_t vocab, const SampleRow *rows, SampleLists lists, int32_t *tokens,
           int32_t *inputs, float *copies) {
  extern __shared__ __align__(16) char bytes[];
  auto &memory = *reinterpret_cast<Memory<threads, bins> *>(bytes);
  constexpr int blocks = Race<threads, bins, is_clustered>::blocks;
  int block = 0;
#if __CUDA_ARCH__ >= 900
  if constexpr (is_clustered) {
    block = static_cast<int>(cg::this_cluster().block_rank());
    cg::this_cluster().barrier_arrive();  // others write here only when this block is there
  }
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  const unsigned index = blockIdx.x / blocks;
  const SampleRow &row = rows[index];
  const auto ids = static_cast<int32_t>(row.ids_end > 0 && row.ids_end < vocab ? row.ids_end : vocab);
  const int32_t share = ((ids + blocks - 1) / blocks + 3) / 4 * 4;
  const float *scores = logits + row.logits_row * vocab;
  const int thread = static_cast<int>(threadIdx.x);

  Race<threads, bins, is_clustered> race{memory, row,         lists,       scores, nullptr,
                                         thread, thread % 32, thread / 32, block,  0};
  race.begin = min(ids, block * share);
  race.end = min(ids, race.begin + share);
  race.find_changed();
  const bool is_greedy = row.temperature == 0, is_changed = row.biases_count > 0 || row.counts_count > 0;
  float *copy = nullptr;
  if constexpr (is_clustered) {
    if (!is_greedy || is_changed) copy = memory.slice;
  } else {
    if (is_changed) copy = copies + index * copy_stride(vocab);
  }
  race.global_slice = copy ? copy : scores + race.begin;
  Extremes extremes = race.read_scores(copy);
  if (is_changed) extremes = race.change_scores(copy);
#if __CUDA_ARCH__ >= 900
  if constexpr (is_clustered) cg::this_cluster().barrier_wait();
#endif
  extremes = race.group_extremes(extremes);

  int32_t token = extremes.id;
  if (extremes.id == INT32_MAX)
    token = -1;
  else if (!is_greedy)
    token = race.run(extremes, ids);
  if (block == 0 && thread == 0) {
    tokens[index] = token;
    if (inputs != nullptr) inputs[index] = max(token, 0);
  }
  if (!is_greedy) race.meet();  // others may be reading this block's list
}

struct Choice {
  void (*kernel)(const float *, int64_t, const SampleRow *, SampleLists, int32_t *, int32_t *, float *);
  int threads, blocks;
  size_t shared_bytes;
};

template <int threads, int bins, bool is_clustered>
Choice choice_with(int64_t vocab) {
  const int blocks = is_clustered ? most_blocks : 1;
  const auto slice = is_clustered ? static_cast<size_t>(vocab / blocks + 8) * sizeof(float) : 0;
  return {choose<threads, bins, is_clustered>, threads, blocks, sizeof(Memory<threads, bins>) + slice};
}

Choice choice_for(const Device &device, int64_t vocab, int count) {
  const auto fits = [&](const Choice &choice) {
    return choice.shared_bytes <= static_cast<size_t>(device.shared_bytes);
  };
  if (device.major >= 9) {
    // Few rows: finer bins, and a multiprocessor for every block. Many: three blocks on one.
    const Choice few = choice_with<256, 32, true>(vocab), many = choice_with<256, 16, true>(vocab);
    if (count * few.blocks <= device.processors && fits(few)) return few;
    if (fits(many)) return many;
  }
  const Choice wide = choice_with<512, 16, false>(vocab);
  return fits(wide) ? wide : choice_with<256, 16, false>(vocab);
}

}  // namespace

size_t sample_workspace_bytes(const Device &device, int64_t vocab, int64_t rows) {
  if (choice_for(device, vocab, INT32_MAX / most_blocks).blocks > 1) return 0;
  return static_cast<size_t>(copy_stride(vocab) * rows) * sizeof(float);
}

cudaError_t sample(cudaStream_t stream, const Device &device, const float *logits, int64_t vocab, const SampleRow *rows,
                   int count, SampleLists lists, int32_t *tokens, void *workspace, int32_t *inputs) {
  if (count <= 0) return cudaSuccess;
  const Choice choice = choice_for(device, vocab, count);
  const cudaError_t error = cudaFuncSetAttribute(choice.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(choice.shared_bytes));
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(choice.blocks), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(count * choice.blocks));
  config.blockDim = dim3(static_cast<unsigned>(choice.threads));
  config.dynamicSmemBytes = choice.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = device.major < 9 ? 0 : choice.blocks > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, choice.kernel, logits, vocab, rows, lists, tokens, inputs,
                            static_cast<float *>(workspace));
}

}  // namespace libwkv::cuda
