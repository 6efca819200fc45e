/* SPDX-License-Identifier: Apache-2.0 */
/** @file model.h
 *  A model: the weights of one RWKV-7 checkpoint. Read-only after loading, shared by any number of threads, counted
 *  inside: every cache and tokenizer made from it keeps it alive.
 *
 *      wkv_model *model = NULL;
 *      wkv_model_options options = {.struct_size = sizeof options, .threads = 2};
 *      wkv_error error = {.struct_size = sizeof error};
 *      if (wkv_model_load("rwkv7-g1-0.4b.pth", &options, &model, &error) != WKV_OK) puts(error.message);
 *      ...
 *      wkv_model_release(model);
 *
 *  Files are recognised by content: official .pth (zip and legacy), a Hugging Face / flash-linear-attention directory
 *  or a single .safetensors, .st with official names, GGUF v2 and v3, rwkv.cpp .bin. A file is mapped, not copied;
 *  matrices are used where they lie when their type allows. Do not change or shorten a file while a model uses it: a
 *  shortened file is noticed at the next step (WKV_IO), a rewritten one is not. */
#ifndef WKV_MODEL_H
#define WKV_MODEL_H

#include <wkv/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wkv_model wkv_model;

/** Number formats. Values never change. */
typedef int32_t wkv_type;
enum {
  WKV_TYPE_DEFAULT = 0,
  WKV_TYPE_F32 = 1,
  WKV_TYPE_F16 = 2,
  WKV_TYPE_BF16 = 3,
  WKV_TYPE_Q8 = 4, /* 8 bits in groups of 32 with one half-precision scale: the blocks of GGUF Q8_0 */
  WKV_TYPE_Q4 = 5  /* 4 bits in groups of 32 with one half-precision scale: the blocks of GGUF Q4_0 */
};

typedef struct wkv_model_options {
  uint32_t struct_size;
  int32_t threads;      /* worker threads, the calling one included; 0: one a core this process may use, at
                           most 256 */
  const char *device;   /* NULL or "auto": the first usable GPU, else the CPU; "cpu", "cuda" (the first), "cuda:1" */
  wkv_type weight_type; /* 0: as stored; else the large matrices are converted while loading. Low-rank matrices
                           stay as they are stored; so does layer 0's value projection under Q8 and Q4, and Q4
                           makes the output head Q8. */
  wkv_type state_type;  /* 0 or WKV_TYPE_F32; on a GPU also WKV_TYPE_F16: WKV in half precision, shifts not, which
                           halves memory and traffic of states and rounds them to 2^-11 at every token */
  uint64_t memory_limit_bytes; /* 0: none; else weights + caches + checkpoints + workspace + prefix stores never exceed
                                  it. Weights that stay in the mapped file count. */
  /** Called from the loading thread, at least once a tensor; done_bytes never falls. Non-zero cancels the load. */
  int32_t (*progress)(void *user, uint64_t done_bytes, uint64_t total_bytes);
  void *progress_user;
  const char *kernels;     /* NULL: the best for this machine; else its name: "scalar", "avx2", "avx512", "neon" */
  int32_t is_reproducible; /* 1: the same bits for any batch, chunk and thread count; decoding gets slower */
  int32_t chunk_tokens;    /* tokens that go through the layers together, [1, 4096]; 0: 512, on a GPU 4096. Larger
                              chunks read weights less often and need more workspace. */
  uint64_t
      parking_limit_bytes; /* on a GPU: when memory runs out, idle states of up to so many bytes are moved to the
                              host's memory, least recently used first, and come back when they are used; 0: none */
} wkv_model_options;

typedef struct wkv_model_info {
  uint32_t struct_size;
  int32_t layers;
  int32_t width;     /* C */
  int32_t heads;     /* H */
  int32_t head_size; /* N; H * N == C */
  int32_t ffn_width;
  int32_t vocab_size; /* logits of a step: one a token id */
  int32_t rank_w;     /* low ranks of decay, in-context learning rate, value residual and gate */
  int32_t rank_a;
  int32_t rank_v; /* 0 in a model of one layer */
  int32_t rank_g;
  int32_t threads; /* in use */
  wkv_type state_type;
  int32_t has_tokenizer; /* 1: wkv_model_get_tokenizer finds a vocabulary in the file */
  int32_t is_reproducible;
  int32_t chunk_tokens;
  uint64_t parameters;    /* numbers in the checkpoint that the model uses */
  uint64_t weight_bytes;  /* memory of the weights as the engine holds them, mapped parts included */
  uint64_t mapped_bytes;  /* the part of weight_bytes that lies in the mapped file */
  uint64_t step_bytes;    /* bytes of weights read for one token: all but the embedding table */
  uint64_t state_bytes;   /* memory of one cache's state */
  uint64_t fingerprint;   /* hash of shapes and weights; equal for the same model in the same file type */
  char format[32];        /* "pth", "pth legacy", "safetensors", "gguf", "rwkv.cpp" */
  char stored_types[64];  /* types of the large matrices in the file, commonest first: "Q4_K, Q6_K" */
  char compute_types[64]; /* types that the kernels read: "Q4, Q8" */
  char device[32];        /* "cpu" */
  char kernels[32];       /* kernel set in use: "avx2" */
} wkv_model_info;

/** Live and peak bytes that the library holds for one model. */
typedef struct wkv_memory_info {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t limit_bytes;                       /* of wkv_model_options; 0: none */
  uint64_t weights_bytes, weights_peak_bytes; /* mapped parts included */
  uint64_t caches_bytes, caches_peak_bytes;
  uint64_t workspace_bytes, workspace_peak_bytes;
  uint64_t total_bytes, total_peak_bytes;
  uint64_t checkpoints_bytes, checkpoints_peak_bytes; /* states that only checkpoints, initial states and steps in
                                                         progress hold; one that a cache holds too counts there */
  uint64_t store_bytes, store_peak_bytes;             /* states that only prefix stores hold */
  uint64_t parked_bytes; /* states of a GPU's model that wait in the host's memory: not part of the others */
} wkv_memory_info;

/** What a model will need, for wkv_model_plan_memory. Bytes are what wkv_model_get_memory will count at most. */
typedef struct wkv_memory_plan {
  uint32_t struct_size;
  /* asked by the caller */
  uint32_t caches_count; /* states that live at one time: caches that have stepped, and forks, checkpoints, initial
                            states and prefix stores' entries with a state of their own */
  uint32_t step_tokens;  /* tokens of the largest step, all items together; 0: chunk_tokens of the options or more */
  uint32_t step_logits;  /* rows of scores of the step that has most, sampled ones included; 0: 1 */
  uint32_t step_sampled; /* items that sample without having their logits written out, of the step that has most;
                            on a GPU they cost nothing, but with typical_p 4 * vocab_size bytes each on top */
  uint32_t step_spares;  /* items of the largest step that has a sampler or progress: each needs a spare state */
  /* answered */
  uint64_t weights_bytes; /* mapped parts included */
  uint64_t mapped_bytes;  /* the part of weights_bytes that lies in the mapped file */
  uint64_t state_bytes;   /* one state */
  uint64_t caches_bytes;  /* (caches_count + step_spares) * state_bytes */
  uint64_t workspace_bytes;
  uint64_t total_bytes;
} wkv_memory_plan;

/** Load a checkpoint from a file or a directory.
 *  @param path     [in]  UTF-8 path of a checkpoint file, or of a directory with config.json and .safetensors files
 *  @param options  [in]  NULL: all defaults
 *  @param model    [out] the model, yours to release; unchanged on failure
 *  @param error    [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID | WKV_NOT_FOUND: no such file, device or kernel set | WKV_IO
 *          | WKV_FORMAT: damaged file | WKV_UNSUPPORTED: another architecture or type; the message names it
 *          | WKV_OUT_OF_MEMORY: also when memory_limit_bytes does not suffice | WKV_CANCELLED
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_model_load(const char *path, const wkv_model_options *options, wkv_model **model,
                                  wkv_error *error);

/** Load a checkpoint that is in memory: any single-file format.
 *  @param bytes        [in]  the file's content, not copied: it must stay valid and unchanged until the model's last
 *                            reference is gone (caches and tokenizers included)
 *  @param bytes_count        its size
 *  @param options      [in]  NULL: all defaults
 *  @param model        [out] the model, yours to release; unchanged on failure
 *  @param error        [in,out] detail; may be NULL
 *  @return as wkv_model_load
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_model_load_memory(const void *bytes, size_t bytes_count, const wkv_model_options *options,
                                         wkv_model **model, wkv_error *error);

/** Predict the memory of a model before loading it, from the shapes in the file alone: no weights are read or packed.
 *  @param path     [in]  as in wkv_model_load
 *  @param options  [in]  the options that the model would be loaded with; NULL: all defaults
 *  @param plan     [in,out] struct_size and what is asked set by the caller; the rest is written
 *  @param error    [in,out] detail; may be NULL
 *  @return as wkv_model_load; WKV_OK also when the plan passes memory_limit_bytes
 *  @threads any
 *  @since 0.2 */
WKV_API wkv_status wkv_model_plan_memory(const char *path, const wkv_model_options *options, wkv_memory_plan *plan,
                                         wkv_error *error);

/** Describe a model.
 *  @param model  [in]
 *  @param info   [in,out] struct_size set by the caller; the rest is written
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID
 *  @threads any
 *  @since 0.1 */
WKV_API wkv_status wkv_model_get_info(const wkv_model *model, wkv_model_info *info, wkv_error *error);

/** Count the memory held for a model: weights, its caches, and the workspace of its steps.
 *  @param model  [in]
 *  @param info   [in,out] struct_size set by the caller; the rest is written
 *  @param error  [in,out] detail; may be NULL
 *  @return WKV_OK | WKV_INVALID
 *  @threads any; a snapshot, other threads may change it meanwhile
 *  @since 0.1 */
WKV_API wkv_status wkv_model_get_memory(const wkv_model *model, wkv_memory_info *info, wkv_error *error);

/** Give up one reference. The weights go when the last cache and tokenizer of the model have gone as well.
 *  @param model  NULL is fine
 *  @threads any
 *  @since 0.1 */
WKV_API void wkv_model_release(wkv_model *model);

#ifdef __cplusplus
}
#endif

#endif
