/* SPDX-License-Identifier: Apache-2.0 */
/* A text that is begun in one process and goes on in another; the same program exists in every language.
 *   session begin MODEL SESSION     the first pieces; SESSION keeps the rest
 *   session go_on MODEL SESSION     the rest
 *   session whole MODEL             all of it, never interrupted: what the others must add up to */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <wkv/wkv.h>

static wkv_error error = {.struct_size = sizeof error};

static void check(wkv_status status) {
  if (status >= 0) return;
  fprintf(stderr, "session: %s\n", error.message);
  exit(1);
}

static wkv_generation *begin(wkv_model *model) {
  const char prompt[] = "Once upon a time";
  wkv_sampler_options sampling = {.struct_size = sizeof sampling, .temperature = 0.8f, .seed = 7};
  wkv_generation_options options = {
      .struct_size = sizeof options, .max_tokens = 40, .prompt = prompt, .prompt_bytes = sizeof prompt - 1};
  wkv_cache *cache = NULL;
  wkv_sampler *sampler = NULL;
  wkv_generation *generation = NULL;
  check(wkv_cache_create(model, NULL, &cache, &error));
  check(wkv_sampler_create(&sampling, &sampler, &error));
  check(wkv_generation_create(cache, sampler, &options, &generation, &error));
  wkv_sampler_release(sampler); /* the generation keeps both */
  wkv_cache_release(cache);
  return generation;
}

static void print(wkv_generation *generation, int pieces) {
  wkv_generation_piece piece = {.struct_size = sizeof piece};
  for (int i = 0; i < pieces; i++) {
    const wkv_status status = wkv_generation_next(generation, &piece, &error);
    check(status);
    if (status == WKV_END) return;
    fwrite(piece.text, 1, piece.text_bytes, stdout);
  }
}

int main(int argc, char **argv) {
  const char *command = argc > 1 ? argv[1] : "";
  const int begins = strcmp(command, "begin") == 0, goes_on = strcmp(command, "go_on") == 0;
  if (argc != (begins || goes_on ? 4 : 3) || !(begins || goes_on || strcmp(command, "whole") == 0)) return 2;
  wkv_model_options options = {.struct_size = sizeof options, .device = "cpu"};
  wkv_model *model = NULL;
  wkv_session session = {.struct_size = sizeof session};
  check(wkv_model_load(argv[2], &options, &model, &error));
  if (goes_on) {
    check(wkv_session_load(model, argv[3], &session, &error));
    print(session.generation, 40);
  } else {
    session.generation = begin(model);
    print(session.generation, begins ? 20 : 40);
    if (begins) check(wkv_session_save(&session, argv[3], NULL, &error));
  }
  wkv_generation_release(session.generation);
  wkv_sampler_release(session.sampler);
  wkv_cache_release(session.cache);
  wkv_model_release(model);
  return 0;
}
