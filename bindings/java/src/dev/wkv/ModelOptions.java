// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import dev.wkv.internal.Watch;
import java.util.Objects;

/** How a model is loaded. What is not set is the library's default. */
public final class ModelOptions {
  /** Nothing set. */
  public static final ModelOptions DEFAULTS = builder().build();

  private final Builder given;

  private ModelOptions(Builder given) {
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

  /** For one call. The watch must live as long. */
  void fill(dev.wkv.internal.ModelOptions raw, Watch watch) {
    if (given.device != null) raw.set_device(Arguments.line(given.device, "device"));
    if (given.kernels != null) raw.set_kernels(Arguments.line(given.kernels, "kernels"));
    raw.setThreads(given.threads);
    raw.setWeight_type(given.weightType.number);
    raw.setState_type(given.stateType.number);
    raw.setMemory_limit_bytes(given.memoryLimitBytes);
    raw.setIs_reproducible(given.reproducible ? 1 : 0);
    raw.setChunk_tokens(given.chunkTokens);
    raw.setParking_limit_bytes(given.parkingLimitBytes);
    raw.set_watch(watch);
  }

  Progress progress() {
    return given.progress;
  }

  /** Chooses options. */
  public static final class Builder extends OptionsBuilder {
    private String device;
    private int threads;
    private NumberType weightType = NumberType.DEFAULT;
    private NumberType stateType = NumberType.DEFAULT;
    private long memoryLimitBytes;
    private String kernels;
    private boolean reproducible;
    private int chunkTokens;
    private long parkingLimitBytes;
    private Progress progress;

    private Builder() {}

    /**
     * Where it runs.
     *
     * @param device "auto" or null: the first usable GPU, else the CPU; "cpu", "cuda" (the first), "cuda:1"
     * @return this builder
     */
    public Builder device(String device) {
      this.device = device;
      return this;
    }

    /**
     * Worker threads.
     *
     * @param threads the calling one included; 0: one a core this process may use, at most 256
     * @return this builder
     */
    public Builder threads(int threads) {
      this.threads = threads;
      return this;
    }

    /**
     * Convert the large matrices while loading.
     *
     * @param weightType DEFAULT: as stored
     * @return this builder
     */
    public Builder weightType(NumberType weightType) {
      this.weightType = Objects.requireNonNull(weightType, "weightType");
      return this;
    }

    /**
     * The numbers of a state.
     *
     * @param stateType DEFAULT or F32; on a GPU also F16
     * @return this builder
     */
    public Builder stateType(NumberType stateType) {
      this.stateType = Objects.requireNonNull(stateType, "stateType");
      return this;
    }

    /**
     * A limit for weights, caches, checkpoints, workspace and prefix stores together.
     *
     * @param memoryLimitBytes bytes; 0: none
     * @return this builder
     */
    public Builder memoryLimitBytes(long memoryLimitBytes) {
      this.memoryLimitBytes = Arguments.notNegative(memoryLimitBytes, "memoryLimitBytes");
      return this;
    }

    /**
     * Which kernel set computes.
     *
     * @param kernels null: the best for this machine; else "scalar", "avx2", "avx512", "neon"
     * @return this builder
     */
    public Builder kernels(String kernels) {
      this.kernels = kernels;
      return this;
    }

    /**
     * The same bits for any batch, chunk and thread count; decoding gets slower.
     *
     * @param reproducible whether
     * @return this builder
     */
    public Builder reproducible(boolean reproducible) {
      this.reproducible = reproducible;
      return this;
    }

    /**
     * Tokens that go through the layers together.
     *
     * @param chunkTokens at most 4096; 0: 512, on a GPU 2048
     * @return this builder
     */
    public Builder chunkTokens(int chunkTokens) {
      this.chunkTokens = chunkTokens;
      return this;
    }

    /**
     * On a GPU: idle states of up to so many bytes move to the host's memory when memory runs out.
     *
     * @param parkingLimitBytes bytes; 0: none
     * @return this builder
     */
    public Builder parkingLimitBytes(long parkingLimitBytes) {
      this.parkingLimitBytes = Arguments.notNegative(parkingLimitBytes, "parkingLimitBytes");
      return this;
    }

    /**
     * Watch the loading.
     *
     * @param progress of bytes; null: nothing. Interrupting the thread cancels all the same
     * @return this builder
     */
    public Builder progress(Progress progress) {
      this.progress = progress;
      return this;
    }

    /**
     * The options chosen so far.
     *
     * @return options that do not change any more
     */
    public ModelOptions build() {
      return new ModelOptions((Builder) copy());
    }
  }
}
