// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.util.Objects;

/**
 * One sequence of a batch step: {@code StepItem.of(cache, tokens).logits(buffer)}. Each method gives another item and
 * leaves this one alone.
 *
 * @see Model#step(java.util.List)
 */
public final class StepItem {
  final Cache cache;
  final IntBuffer tokens;
  final FloatBuffer logits;
  final Sampler sampler;
  final boolean wantsAllLogits;
  final boolean keepsStates;

  private StepItem(
      Cache cache, IntBuffer tokens, FloatBuffer logits, Sampler sampler, boolean wantsAllLogits, boolean keepsStates) {
    this.cache = Objects.requireNonNull(cache, "cache");
    this.tokens = Objects.requireNonNull(tokens, "tokens");
    this.logits = logits;
    this.sampler = sampler;
    this.wantsAllLogits = wantsAllLogits;
    this.keepsStates = keepsStates;
  }

  /**
   * A cache and what it reads.
   *
   * @param cache to advance; at most once in a step
   * @param tokens ids; none: the item is left alone
   * @return an item without scores
   */
  public static StepItem of(Cache cache, int... tokens) {
    return of(cache, IntBuffer.wrap(tokens));
  }

  /**
   * A cache and what it reads.
   *
   * @param cache to advance; at most once in a step
   * @param tokens ids from the buffer's position to its limit, which do not move
   * @return an item without scores
   */
  public static StepItem of(Cache cache, IntBuffer tokens) {
    return new StepItem(cache, tokens, null, null, false, false);
  }

  /**
   * Write the scores of the last token.
   *
   * @param buffer room for them from its position on, which does not move; a direct one is written where it lies
   * @return another item
   */
  public StepItem logits(FloatBuffer buffer) {
    return new StepItem(cache, tokens, buffer, sampler, false, keepsStates);
  }

  /**
   * Write the scores of every token, one row each.
   *
   * @param buffer room for [tokens][vocabulary] scores from its position on, which does not move
   * @return another item
   */
  public StepItem allLogits(FloatBuffer buffer) {
    return new StepItem(cache, tokens, buffer, sampler, true, keepsStates);
  }

  /**
   * Choose a token from the last one's scores.
   *
   * @param chooser what chooses it; at most once in a step
   * @return another item
   */
  public StepItem sampler(Sampler chooser) {
    return new StepItem(cache, tokens, logits, chooser, wantsAllLogits, keepsStates);
  }

  /**
   * Keep the state after each of at most 32 tokens: {@link Cache#rollback} can go to any of them, and to where the step
   * began, until the next step.
   *
   * @return another item
   */
  public StepItem keepStates() {
    return new StepItem(cache, tokens, logits, sampler, wantsAllLogits, true);
  }
}
