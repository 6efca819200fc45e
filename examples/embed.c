/* SPDX-License-Identifier: Apache-2.0 */
/* embed: libwkv inside a plain C program, against the installed library:
 *   cc -std=c99 embed.c -o embed $(pkg-config --cflags --libs wkv)
 *   ./embed model.gguf "Once upon a time" */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <wkv/wkv.h>

static void check(wkv_status status, const wkv_error *error) {
  if (status >= 0) return;
  fprintf(stderr, "embed: %s: %s\n", wkv_status_name(status), error->message);
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: embed MODEL PROMPT\n");
    return 2;
  }
  wkv_error error = {.struct_size = sizeof error};
  wkv_model *model = NULL;
  wkv_tokenizer *tokenizer = NULL;
  wkv_cache *cache = NULL;
  wkv_sampler *sampler = NULL;
  wkv_decoder *decoder = NULL;
  wkv_model_info info = {.struct_size = sizeof info};
  wkv_sampler_options sampling = {.struct_size = sizeof sampling, .temperature = 0.8f, .top_p = 0.8f, .seed = 7};

  check(wkv_model_load(argv[1], NULL, &model, &error), &error);
  check(wkv_model_get_info(model, &info, &error), &error);
  check(wkv_model_get_tokenizer(model, &tokenizer, &error), &error);
  check(wkv_cache_create(model, NULL, &cache, &error), &error);
  check(wkv_sampler_create(&sampling, &sampler, &error), &error);
  check(wkv_decoder_create(tokenizer, &decoder, &error), &error);

  size_t prompt_bytes = strlen(argv[2]), tokens_count = 0, logits_count = (size_t)info.vocab_size;
  int32_t *tokens = malloc((prompt_bytes + 1) * sizeof *tokens); /* a token has at least one byte */
  float *logits = malloc(logits_count * sizeof *logits);
  if (!tokens || !logits) return 1;
  check(wkv_tokenizer_encode(tokenizer, argv[2], prompt_bytes, tokens, prompt_bytes + 1, &tokens_count, &error),
        &error);
  check(wkv_cache_step(cache, tokens, tokens_count, logits, logits_count, &error), &error);

  fputs(argv[2], stdout);
  for (int i = 0; i < 100; i++) {
    int32_t token = 0;
    const char *text = NULL;
    size_t text_bytes = 0;
    check(wkv_sampler_sample(sampler, logits, logits_count, &token, &error), &error);
    if (token == 0) break; /* the end of the text */
    check(wkv_decoder_push(decoder, token, &text, &text_bytes, &error), &error);
    fwrite(text, 1, text_bytes, stdout);
    fflush(stdout);
    check(wkv_cache_step(cache, &token, 1, logits, logits_count, &error), &error);
  }
  putchar('\n');

  free(tokens);
  free(logits);
  wkv_decoder_release(decoder);
  wkv_sampler_release(sampler);
  wkv_cache_release(cache);
  wkv_tokenizer_release(tokenizer);
  wkv_model_release(model);
  return 0;
}
