// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import dev.wkv.internal.Watch;
import java.util.Objects;

/** What a checkpoint is rewritten to. What is not set is the library's default. */
public final class ConvertOptions {
  /** Nothing set. */
  public static final ConvertOptions DEFAULTS = builder().build();

  private final Builder given;

  private ConvertOptions(Builder given) {
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

  void fill(dev.wkv.internal.ConvertOptions raw, Watch watch) {
    raw.setWeight_type(given.weightType.number);
    if (given.vocabulary != null) raw.set_vocabulary_path(Arguments.line(given.vocabulary, "vocabulary"));
    if (given.name != null) raw.set_name(Arguments.line(given.name, "name"));
    raw.set_watch(watch);
  }

  Progress progress() {
    return given.progress;
  }

  /** Chooses options. */
  public static final class Builder extends OptionsBuilder {
    private NumberType weightType = NumberType.DEFAULT;
    private String vocabulary;
    private String name;
    private Progress progress;

    private Builder() {}

    /**
     * The large matrices.
     *
     * @param weightType F32, F16, BF16 or Q8; DEFAULT: F16
     * @return this builder
     */
    public Builder weightType(NumberType weightType) {
      this.weightType = Objects.requireNonNull(weightType, "weightType");
      return this;
    }

    /**
     * A vocabulary file to put inside.
     *
     * @param vocabulary its path; null: the source's own, if any
     * @return this builder
     */
    public Builder vocabulary(String vocabulary) {
      this.vocabulary = vocabulary;
      return this;
    }

    /**
     * The model's name in the file.
     *
     * @param name null: none
     * @return this builder
     */
    public Builder name(String name) {
      this.name = name;
      return this;
    }

    /**
     * Watch the rewriting.
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
    public ConvertOptions build() {
      return new ConvertOptions((Builder) copy());
    }
  }
}
