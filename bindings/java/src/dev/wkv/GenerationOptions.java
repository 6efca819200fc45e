// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.util.List;

/** What a generation feeds, how it goes on, and when it ends. What is not set is the library's default. */
public final class GenerationOptions {
  /** Nothing set. */
  public static final GenerationOptions DEFAULTS = builder().build();

  private final Builder given;

  private GenerationOptions(Builder given) {
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

  Builder given() {
    return given;
  }

  /** Everything but prompt, tokenizer and store, which must be held during the call. */
  void fill(dev.wkv.internal.GenerationOptions raw) {
    raw.setMax_tokens(given.maxTokens);
    raw.set_stop_tokens(given.stopTokens);
    for (String text : given.stop) raw.add_stop_string(Arguments.line(text, "stop"));
    raw.setKeeps_stop_string(given.keepStop ? 1 : 0);
    raw.setKeeps_end_token(given.ignoreEnd ? 1 : 0);
    raw.setWants_log_probability(given.logProbability ? 1 : 0);
    raw.setAlternatives_count(given.alternatives);
    raw.setAccepts_prompt(given.acceptPrompt ? 1 : 0);
  }

  /** Chooses options. */
  public static final class Builder extends OptionsBuilder {
    Cache cache;
    Sampler sampler;
    SamplerOptions sampling;
    Generation previous;
    int[] promptTokens = {};
    private int maxTokens;
    private List<String> stop = List.of();
    private int[] stopTokens = {};
    private boolean keepStop;
    private boolean ignoreEnd;
    private boolean logProbability;
    private int alternatives;
    private boolean acceptPrompt;
    Tokenizer tokenizer;
    PrefixStore prefixStore;
    Progress progress;

    private Builder() {}

    /**
     * Where the text goes on.
     *
     * @param cache null: a new cache, which the generation closes with itself
     * @return this builder
     */
    public Builder cache(Cache cache) {
      this.cache = cache;
      return this;
    }

    /**
     * What chooses tokens.
     *
     * @param sampler null: a new sampler of {@link #sampling}, or the likeliest token
     * @return this builder
     */
    public Builder sampler(Sampler sampler) {
      this.sampler = sampler;
      return this;
    }

    /**
     * The options of a new sampler, which the generation closes with itself.
     *
     * @param sampling null: the likeliest token, or {@link #sampler}
     * @return this builder
     */
    public Builder sampling(SamplerOptions sampling) {
      this.sampling = sampling;
      return this;
    }

    /**
     * One that has ended on the same cache: what it said and the cache has not read yet is fed first.
     *
     * @param previous null: none
     * @return this builder
     */
    public Builder previous(Generation previous) {
      this.previous = previous;
      return this;
    }

    /**
     * Tokens fed first, before those of the prompt.
     *
     * @param promptTokens ids
     * @return this builder
     */
    public Builder promptTokens(int... promptTokens) {
      this.promptTokens = promptTokens.clone();
      return this;
    }

    /**
     * Tokens to choose at most.
     *
     * @param maxTokens 0: 256
     * @return this builder
     */
    public Builder maxTokens(int maxTokens) {
      this.maxTokens = maxTokens;
      return this;
    }

    /**
     * Texts that end the generation, and are taken back out of the cache.
     *
     * @param stop none empty
     * @return this builder
     */
    public Builder stop(List<String> stop) {
      this.stop = List.copyOf(stop);
      return this;
    }

    /**
     * Tokens that end the generation, besides the end of text.
     *
     * @param stopTokens ids
     * @return this builder
     */
    public Builder stopTokens(int... stopTokens) {
      this.stopTokens = stopTokens.clone();
      return this;
    }

    /**
     * A stop text stays in the cache.
     *
     * @param keepStop whether
     * @return this builder
     */
    public Builder keepStop(boolean keepStop) {
      this.keepStop = keepStop;
      return this;
    }

    /**
     * The end of text, id 0, does not end the generation.
     *
     * @param ignoreEnd whether
     * @return this builder
     */
    public Builder ignoreEnd(boolean ignoreEnd) {
      this.ignoreEnd = ignoreEnd;
      return this;
    }

    /**
     * Pieces carry the probability of their token.
     *
     * @param logProbability whether
     * @return this builder
     */
    public Builder logProbability(boolean logProbability) {
      this.logProbability = logProbability;
      return this;
    }

    /**
     * The likeliest tokens to report with each piece.
     *
     * @param alternatives at most 20
     * @return this builder
     */
    public Builder alternatives(int alternatives) {
      this.alternatives = alternatives;
      return this;
    }

    /**
     * The sampler's penalties remember the prompt's tokens too.
     *
     * @param acceptPrompt whether
     * @return this builder
     */
    public Builder acceptPrompt(boolean acceptPrompt) {
      this.acceptPrompt = acceptPrompt;
      return this;
    }

    /**
     * What makes text of tokens.
     *
     * @param tokenizer null: the model's own
     * @return this builder
     */
    public Builder tokenizer(Tokenizer tokenizer) {
      this.tokenizer = tokenizer;
      return this;
    }

    /**
     * Prompts that begin like one read before cost their new tokens only. Needs a new cache, and a prompt that is the
     * whole history.
     *
     * @param prefixStore null: none
     * @return this builder
     */
    public Builder prefixStore(PrefixStore prefixStore) {
      this.prefixStore = prefixStore;
      return this;
    }

    /**
     * Watch the prompt being read.
     *
     * @param progress of tokens; null: nothing. Interrupting the thread cancels all the same. One that refers to its
     *     generation keeps it from being collected: close that
     * @return this builder
     */
    public Builder progress(Progress progress) {
      this.progress = progress;
      return this;
    }

    /**
     * A text that ends the generation, and is taken back out of the cache.
     *
     * @param text not empty
     * @return this builder
     */
    public Builder stop(String text) {
      return stop(List.of(text));
    }

    /**
     * The options chosen so far.
     *
     * @return options that do not change any more
     */
    public GenerationOptions build() {
      return new GenerationOptions((Builder) copy());
    }
  }
}
