// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.util.Objects;

/** How much a prefix store keeps, and where. What is not set is the library's default. */
public final class PrefixStoreOptions {
  /** Nothing set. */
  public static final PrefixStoreOptions DEFAULTS = builder().build();

  private final Builder given;

  private PrefixStoreOptions(Builder given) {
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

  void fill(dev.wkv.internal.PrefixStoreOptions raw) {
    raw.setMin_tokens(given.minTokens);
    raw.setMemory_bytes_max(given.memoryBytesMax);
    if (given.directory != null) raw.set_directory(Arguments.line(given.directory, "directory"));
    raw.setDirectory_bytes_max(given.directoryBytesMax);
    raw.setSave_type(given.saveType.number);
  }

  /** Chooses options. */
  public static final class Builder extends OptionsBuilder {
    private int minTokens;
    private long memoryBytesMax;
    private String directory;
    private long directoryBytesMax;
    private NumberType saveType = NumberType.DEFAULT;

    private Builder() {}

    /**
     * Shorter sequences are not kept.
     *
     * @param minTokens 0: 16
     * @return this builder
     */
    public Builder minTokens(int minTokens) {
      this.minTokens = (int) Arguments.notNegative(minTokens, "minTokens");
      return this;
    }

    /**
     * Budget of states in memory.
     *
     * @param memoryBytesMax 0: 256 MiB
     * @return this builder
     */
    public Builder memoryBytesMax(long memoryBytesMax) {
      this.memoryBytesMax = Arguments.notNegative(memoryBytesMax, "memoryBytesMax");
      return this;
    }

    /**
     * A folder that survives the process; made when it is not there.
     *
     * @param directory null: none
     * @return this builder
     */
    public Builder directory(String directory) {
      this.directory = directory;
      return this;
    }

    /**
     * Budget of this model's files there.
     *
     * @param directoryBytesMax 0: no limit
     * @return this builder
     */
    public Builder directoryBytesMax(long directoryBytesMax) {
      this.directoryBytesMax = Arguments.notNegative(directoryBytesMax, "directoryBytesMax");
      return this;
    }

    /**
     * State type of the files.
     *
     * @param saveType DEFAULT, F32 or F16
     * @return this builder
     */
    public Builder saveType(NumberType saveType) {
      this.saveType = Objects.requireNonNull(saveType, "saveType");
      return this;
    }

    /**
     * The options chosen so far.
     *
     * @return options that do not change any more
     */
    public PrefixStoreOptions build() {
      return new PrefixStoreOptions((Builder) copy());
    }
  }
}
