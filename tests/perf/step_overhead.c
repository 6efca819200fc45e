/* SPDX-License-Identifier: Apache-2.0 */
/* What a step and a generated token cost through C, for binding_overhead.py:
 *   step_overhead MODEL THREADS STEPS TOKENS    prints two numbers: ns a step, ns a generated token */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <wkv/wkv.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void check(wkv_status status, const wkv_error *error) {
  if (status >= 0) return;
  fprintf(stderr, "step_overhead: %s\n", error->message);
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  wkv_error error = {.struct_size = sizeof error};
  wkv_model_options options = {.struct_size = sizeof options, .device = "cpu", .threads = atoi(argv[2])};
  wkv_model_info info = {.struct_size = sizeof info};
  wkv_model *model = NULL;
  wkv_cache *cache = NULL;
  const int steps = atoi(argv[3]), tokens = atoi(argv[4]);
  check(wkv_model_load(argv[1], &options, &model, &error), &error);
  check(wkv_model_get_info(model, &info, &error), &error);
  check(wkv_cache_create(model, NULL, &cache, &error), &error);
  const size_t logits_count = (size_t)info.vocab_size;
  float *logits = malloc(logits_count * sizeof *logits);
  const int32_t token = 5;
  double start = 0;
  for (int i = -steps / 10; i < steps; i++) { /* the first tenth warms up */
    if (i == 0) start = now();
    check(wkv_cache_step(cache, &token, 1, logits, logits_count, &error), &error);
  }
  const double step = (now() - start) / steps;

  wkv_generation_options wanted = {.struct_size = sizeof wanted,
                                   .max_tokens = tokens,
                                   .prompt_tokens = &token,
                                   .prompt_tokens_count = 1,
                                   .keeps_end_token = 1};
  wkv_generation_piece piece = {.struct_size = sizeof piece};
  wkv_generation *generation = NULL;
  check(wkv_generation_create(cache, NULL, &wanted, &generation, &error), &error);
  start = now();
  while (wkv_generation_next(generation, &piece, &error) == WKV_OK) continue;
  printf("%.1f %.1f\n", step, (now() - start) / tokens);
  wkv_generation_release(generation);
  wkv_cache_release(cache);
  wkv_model_release(model);
  free(logits);
  return 0;
}
