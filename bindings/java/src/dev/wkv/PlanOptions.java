// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** What a model will be used for, to predict its memory. What is not set is the library's default. */
public final class PlanOptions {
  /** Nothing set. */
  public static final PlanOptions DEFAULTS = builder().build();

  private final Builder given;

  private PlanOptions(Builder given) {
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

  void fill(dev.wkv.internal.MemoryPlan raw) {
    raw.setCaches_count(given.cachesCount);
    raw.setStep_tokens(given.stepTokens);
    raw.setStep_logits(given.stepLogits);
    raw.setStep_sampled(given.stepSampled);
    raw.setStep_spares(given.stepSpares);
  }

  /** Chooses options. */
  public static final class Builder extends OptionsBuilder {
    private int cachesCount = 1;
    private int stepTokens;
    private int stepLogits;
    private int stepSampled;
    private int stepSpares;

    private Builder() {}

    /**
     * States that live at one time: caches, forks, checkpoints, entries of prefix stores.
     *
     * @param cachesCount 0: none
     * @return this builder
     */
    public Builder cachesCount(int cachesCount) {
      this.cachesCount = (int) Arguments.notNegative(cachesCount, "cachesCount");
      return this;
    }

    /**
     * Tokens of the largest step, all items together.
     *
     * @param stepTokens 0: a chunk
     * @return this builder
     */
    public Builder stepTokens(int stepTokens) {
      this.stepTokens = (int) Arguments.notNegative(stepTokens, "stepTokens");
      return this;
    }

    /**
     * Rows of scores of the step that has most, sampled ones included.
     *
     * @param stepLogits 0: 1
     * @return this builder
     */
    public Builder stepLogits(int stepLogits) {
      this.stepLogits = (int) Arguments.notNegative(stepLogits, "stepLogits");
      return this;
    }

    /**
     * Items that sample without logits of their own, of the step that has most.
     *
     * @param stepSampled a number
     * @return this builder
     */
    public Builder stepSampled(int stepSampled) {
      this.stepSampled = (int) Arguments.notNegative(stepSampled, "stepSampled");
      return this;
    }

    /**
     * Items of the largest step that has a sampler, progress or many tokens.
     *
     * @param stepSpares each needs a spare state
     * @return this builder
     */
    public Builder stepSpares(int stepSpares) {
      this.stepSpares = (int) Arguments.notNegative(stepSpares, "stepSpares");
      return this;
    }

    /**
     * The options chosen so far.
     *
     * @return options that do not change any more
     */
    public PlanOptions build() {
      return new PlanOptions((Builder) copy());
    }
  }
}
