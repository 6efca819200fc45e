// SPDX-License-Identifier: Apache-2.0
/**
 * RWKV-7 language models inside your program.
 *
 * <pre>{@code
 * try (Model model = Model.load("rwkv7-g1-0.4b.gguf");
 *     Cache cache = model.cache(); // the state of one sequence, a few megabytes for any length
 *     Generation text = model.generate("Once upon a time",
 * GenerationOptions.builder().cache(cache).maxTokens(100).build())) { for (Piece piece : text) System.out.print(piece);
 *   Cache fork = cache.copy(); // shares memory until one of the two steps
 *   float[] logits = fork.step(model.tokenizer().encode(" The end."));
 * }
 * }</pre>
 *
 * <p>Start at {@link dev.wkv.Model}; {@link dev.wkv.WkvFailure} says what is thrown. Names of functions such as
 * wkv_cache_step are those of the C headers, from which much of the text here comes.
 */
package dev.wkv;
