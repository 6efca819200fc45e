// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.util.Map;

/**
 * How the next token is chosen; wkv/sampler.h has the order of operations. What is not set is the library's default.
 */
public final class SamplerOptions {
  /** Nothing set. */
  public static final SamplerOptions DEFAULTS = builder().build();

  private final Builder given;

  private SamplerOptions(Builder given) {
    this.given = given;
  }

  /**
   * Begin to choose.
   *
   * @return a builder with nothing set
   */
  public static Builder builder() {
    return new Builder();
  }

  void fill(dev.wkv.internal.SamplerOptions raw) {
    raw.setIs_greedy(given.greedy ? 1 : 0);
    raw.setSeed(given.seed);
    raw.setTemperature(given.temperature);
    raw.setTop_k(given.topK);
    raw.setTop_p(given.topP);
    raw.setMin_p(given.minP);
    raw.setTypical_p(given.typicalP);
    raw.setRepetition(given.repetition);
    raw.setPresence(given.presence);
    raw.setFrequency(given.frequency);
    raw.setPenalty_decay(given.penaltyDecay);
    raw.setIds_end(given.idsEnd);
    given.biases.forEach(raw::add_bias);
    raw.set_banned_tokens(given.bannedTokens);
    raw.set_exempt_tokens(given.exemptTokens);
  }

  /** Chooses options. */
  public static final class Builder extends OptionsBuilder {
    private boolean greedy;
    private long seed;
    private float temperature;
    private int topK;
    private float topP;
    private float minP;
    private float typicalP;
    private float repetition;
    private float presence;
    private float frequency;
    private float penaltyDecay;
    private int idsEnd;
    private Map<Integer, Float> biases = Map.of();
    private int[] bannedTokens = {};
    private int[] exemptTokens = {};

    private Builder() {}

    /**
     * Always the highest score; no randomness.
     *
     * @param greedy whether
     * @return this builder
     */
    public Builder greedy(boolean greedy) {
      this.greedy = greedy;
      return this;
    }

    /**
     * Equal seeds give equal draws.
     *
     * @param seed any value
     * @return this builder
     */
    public Builder seed(long seed) {
      this.seed = seed;
      return this;
    }

    /**
     * What scores are divided by.
     *
     * @param temperature more than 0; 0: 1
     * @return this builder
     */
    public Builder temperature(float temperature) {
      this.temperature = temperature;
      return this;
    }

    /**
     * Keep the k likeliest.
     *
     * @param topK 0: all
     * @return this builder
     */
    public Builder topK(int topK) {
      this.topK = topK;
      return this;
    }

    /**
     * Keep the fewest likeliest tokens whose sum reaches it.
     *
     * @param topP at most 1; 0: all
     * @return this builder
     */
    public Builder topP(float topP) {
      this.topP = topP;
      return this;
    }

    /**
     * Drop tokens below so many times the likeliest.
     *
     * @param minP below 1; 0: none
     * @return this builder
     */
    public Builder minP(float minP) {
      this.minP = minP;
      return this;
    }

    /**
     * Keep the tokens closest to the expected information, up to this sum.
     *
     * @param typicalP at most 1; 0: all
     * @return this builder
     */
    public Builder typicalP(float typicalP) {
      this.typicalP = typicalP;
      return this;
    }

    /**
     * Penalty of tokens seen before, the formula of Hugging Face.
     *
     * @param repetition 0 and 1: none
     * @return this builder
     */
    public Builder repetition(float repetition) {
      this.repetition = repetition;
      return this;
    }

    /**
     * Taken from the score of a token seen before.
     *
     * @param presence 0: none
     * @return this builder
     */
    public Builder presence(float presence) {
      this.presence = presence;
      return this;
    }

    /**
     * Taken from the score for each time a token was seen.
     *
     * @param frequency 0: none
     * @return this builder
     */
    public Builder frequency(float frequency) {
      this.frequency = frequency;
      return this;
    }

    /**
     * What is left of a count after each further token.
     *
     * @param penaltyDecay at most 1; 0: 1, counts never fade
     * @return this builder
     */
    public Builder penaltyDecay(float penaltyDecay) {
      this.penaltyDecay = penaltyDecay;
      return this;
    }

    /**
     * Ids at or beyond this are never chosen.
     *
     * @param idsEnd 0: no such bound; a generation takes the tokenizer's
     * @return this builder
     */
    public Builder idsEnd(int idsEnd) {
      this.idsEnd = idsEnd;
      return this;
    }

    /**
     * What is added to the scores of tokens.
     *
     * @param biases by token; negative infinity bans one
     * @return this builder
     */
    public Builder biases(Map<Integer, Float> biases) {
      this.biases = Map.copyOf(biases);
      return this;
    }

    /**
     * Tokens that are never chosen.
     *
     * @param bannedTokens ids
     * @return this builder
     */
    public Builder bannedTokens(int... bannedTokens) {
      this.bannedTokens = bannedTokens.clone();
      return this;
    }

    /**
     * Tokens that penalties do not touch, punctuation for example.
     *
     * @param exemptTokens ids
     * @return this builder
     */
    public Builder exemptTokens(int... exemptTokens) {
      this.exemptTokens = exemptTokens.clone();
      return this;
    }

    /**
     * The options chosen so far.
     *
     * @return options that do not change any more
     */
    public SamplerOptions build() {
      return new SamplerOptions((Builder) copy());
    }
  }
}
