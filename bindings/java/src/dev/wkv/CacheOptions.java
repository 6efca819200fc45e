// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** How a cache begins, and which checkpoints it keeps by itself. What is not set is the library's default. */
public final class CacheOptions {
  /** Nothing set. */
  public static final CacheOptions DEFAULTS = builder().build();

  private final Builder given;

  private CacheOptions(Builder given) {
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

  /** The state goes separately: it must be held during the call. */
  void fill(dev.wkv.internal.CacheOptions raw) {
    raw.setCheckpoint_every_tokens(given.checkpointEveryTokens);
    raw.setCheckpoints_count_max(given.checkpointsCountMax);
    raw.setCheckpoints_bytes_max(given.checkpointsBytesMax);
  }

  InitialState initialState() {
    return given.initialState;
  }

  /** Chooses options. */
  public static final class Builder extends OptionsBuilder {
    private InitialState initialState;
    private int checkpointEveryTokens;
    private int checkpointsCountMax;
    private long checkpointsBytesMax;

    private Builder() {}

    /**
     * Where the cache starts, and what reset goes back to.
     *
     * @param initialState null: all zero
     * @return this builder
     */
    public Builder initialState(InitialState initialState) {
      this.initialState = initialState;
      return this;
    }

    /**
     * Keep the state at every so manieth position.
     *
     * @param checkpointEveryTokens 0: none
     * @return this builder
     */
    public Builder checkpointEveryTokens(int checkpointEveryTokens) {
      this.checkpointEveryTokens = (int) Arguments.notNegative(checkpointEveryTokens, "checkpointEveryTokens");
      return this;
    }

    /**
     * The oldest checkpoint goes when there would be more.
     *
     * @param checkpointsCountMax 0: 8; at most 65536
     * @return this builder
     */
    public Builder checkpointsCountMax(int checkpointsCountMax) {
      this.checkpointsCountMax = (int) Arguments.notNegative(checkpointsCountMax, "checkpointsCountMax");
      return this;
    }

    /**
     * The same in bytes.
     *
     * @param checkpointsBytesMax 0: no such bound
     * @return this builder
     */
    public Builder checkpointsBytesMax(long checkpointsBytesMax) {
      this.checkpointsBytesMax = Arguments.notNegative(checkpointsBytesMax, "checkpointsBytesMax");
      return this;
    }

    /**
     * The options chosen so far.
     *
     * @return options that do not change any more
     */
    public CacheOptions build() {
      return new CacheOptions((Builder) copy());
    }
  }
}
