// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.nio.FloatBuffer;

/**
 * A sampler: chooses the next token. It owns a seeded random generator and the memory of penalties: the same seed,
 * options and logits give the same tokens everywhere. One call at a time.
 */
public final class Sampler extends Handle {
  final Counted<dev.wkv.internal.Sampler> handle;

  Sampler(long made) {
    this(new Counted<>(new dev.wkv.internal.Sampler(made, true), "Sampler"));
  }

  private Sampler(Counted<dev.wkv.internal.Sampler> handle) {
    super(handle);
    this.handle = handle;
  }

  /**
   * {@c wkv_sampler_create}
   *
   * @param options how it chooses
   * @return yours to close
   */
  public static Sampler create(SamplerOptions options) {
    try (dev.wkv.internal.SamplerOptions raw = new dev.wkv.internal.SamplerOptions()) {
      options.fill(raw);
      long[] made = new long[1];
      dev.wkv.internal.Sampler.create(raw, made);
      return new Sampler(made[0]);
    }
  }

  /**
   * {@c wkv_sampler_sample}
   *
   * @param logits raw scores from the buffer's position to its limit, which do not move
   * @return the token
   */
  public int sample(FloatBuffer logits) {
    Object memory = Arguments.in(logits, "logits");
    int[] token = new int[1];
    handle.run(sampler -> sampler.sample(memory, token));
    return token[0];
  }

  /**
   * Choose a token, and accept it.
   *
   * @param logits raw scores
   * @return the token
   */
  public int sample(float[] logits) {
    return sample(FloatBuffer.wrap(logits));
  }

  /**
   * {@c wkv_sampler_accept}
   *
   * @param token an id
   */
  public void accept(int token) {
    handle.run(sampler -> sampler.accept(token));
  }

  /**
   * {@c wkv_sampler_get_probabilities}
   *
   * @param logits raw scores from the buffer's position to its limit, which do not move
   * @param probabilities as much room; may be the same buffer
   */
  public void readProbabilities(FloatBuffer logits, FloatBuffer probabilities) {
    Object memory = Arguments.in(logits, "logits");
    Arguments.Out out = new Arguments.Out(probabilities, "probabilities");
    handle.run(sampler -> sampler.read_probabilities(memory, out.memory));
    out.done();
  }

  /**
   * {@c wkv_sampler_get_probabilities}
   *
   * @param logits raw scores
   * @return as many probabilities
   */
  public float[] probabilities(float[] logits) {
    float[] values = new float[logits.length];
    readProbabilities(FloatBuffer.wrap(logits), FloatBuffer.wrap(values));
    return values;
  }

  /**
   * {@c wkv_sampler_reset}
   *
   * @param seed any value
   */
  public void reset(long seed) {
    handle.run(sampler -> sampler.reset(seed));
  }
}
