// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import dev.wkv.internal.SaveOptions;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.BiConsumer;
import java.util.function.Function;

/**
 * A session: everything a conversation needs to go on, saved as one thing. A cache, and where there are any a sampler,
 * a generation in the middle of its text, and the last scores. After a reload, in another process, language or machine,
 * the next tokens are those that would have come.
 *
 * <pre>{@code
 * Session.of(generation).save("chat.wkv");
 * ...
 * try (Session session = model.loadSession("chat.wkv")) {
 *   session.generation().stream().forEach(System.out::print);
 * }
 * }</pre>
 */
public final class Session implements AutoCloseable {
  private final Cache cache;
  private final Sampler sampler;
  private final Generation generation;
  private final float[] logits;
  private final List<Handle> own;

  private Session(Cache cache, Sampler sampler, Generation generation, float[] logits, List<Handle> own) {
    this.cache = Objects.requireNonNull(cache, "cache");
    this.sampler = sampler;
    this.generation = generation;
    this.logits = logits;
    this.own = own;
  }

  /**
   * A cache alone.
   *
   * @param cache of the session
   * @return a session to save
   */
  public static Session of(Cache cache) {
    return of(cache, null, null);
  }

  /**
   * A cache and what chooses tokens.
   *
   * @param cache of the session
   * @param sampler null: none
   * @return a session to save
   */
  public static Session of(Cache cache, Sampler sampler) {
    return of(cache, sampler, null);
  }

  /**
   * A cache, what chooses tokens, and the scores after the last token.
   *
   * @param cache of the session
   * @param sampler null: none
   * @param logits one a token id; null: none
   * @return a session to save
   */
  public static Session of(Cache cache, Sampler sampler, float[] logits) {
    return new Session(cache, sampler, null, logits == null ? null : logits.clone(), List.of());
  }

  /**
   * A generation, its cache and its sampler.
   *
   * @param generation anywhere in its text
   * @return a session to save
   */
  public static Session of(Generation generation) {
    return new Session(generation.cache(), generation.sampler(), generation, null, List.of());
  }

  static Session load(
      Model model, Tokenizer tokenizer, BiConsumer<dev.wkv.internal.Model, dev.wkv.internal.Session> read) {
    List<Counted<?>> entered = new ArrayList<>();
    try (dev.wkv.internal.Session raw = new dev.wkv.internal.Session()) {
      dev.wkv.internal.Model rawModel = model.handle.enter(entered);
      if (tokenizer != null) raw.set_tokenizer(tokenizer.handle.enter(entered));
      raw.reserve_logits(model.vocabSize());
      read.accept(rawModel, raw);
      float[] logits = raw.getHas_logits() == 0 ? null : new float[model.vocabSize()];
      if (logits != null) raw.get_logits(logits);
      List<Handle> own = new ArrayList<>();
      Cache cache = Cache.around(dev.wkv.internal.Cache.getCPtr(raw.take_cache()), model);
      own.add(cache);
      long madeSampler = dev.wkv.internal.Sampler.getCPtr(raw.take_sampler());
      Sampler sampler = madeSampler == 0 ? null : new Sampler(madeSampler);
      if (sampler != null) own.add(sampler);
      long madeGeneration = dev.wkv.internal.Generation.getCPtr(raw.take_generation());
      Generation generation = madeGeneration == 0 ? null : Generation.loaded(madeGeneration, cache, sampler);
      if (generation != null) own.add(generation);
      return new Session(cache, sampler, generation, logits, own);
    } finally {
      entered.forEach(Counted::leave);
    }
  }

  private <R> R lend(Function<dev.wkv.internal.Session, R> body) {
    if (generation != null) generation.checkNothingAhead();
    List<Counted<?>> entered = new ArrayList<>();
    try (dev.wkv.internal.Session raw = new dev.wkv.internal.Session()) {
      if (logits != null) raw.set_logits(logits);
      raw.lend_parts(cache.handle.enter(entered), sampler == null ? null : sampler.handle.enter(entered),
          generation == null ? null : generation.handle.enter(entered));
      try {
        return body.apply(raw);
      } finally {
        raw.forget_parts(); // they are not the struct's to release
      }
    } finally {
      entered.forEach(Counted::leave);
    }
  }

  /**
   * {@c wkv_session_save}
   *
   * @param path a file there is replaced
   */
  public void save(String path) {
    byte[] bytes = Arguments.line(path, "path");
    try (SaveOptions options = new SaveOptions()) {
      lend(raw -> {
        raw.save(bytes, options);
        return null;
      });
    }
  }

  /**
   * {@c wkv_session_save}
   *
   * @param path a file there is replaced
   */
  public void save(Path path) {
    save(path.toString());
  }

  /**
   * {@c wkv_session_serialize}
   *
   * @return what {@link #save} writes, for {@link Model#sessionFromBytes(byte[])}
   */
  public byte[] toBytes() {
    try (SaveOptions options = new SaveOptions()) {
      return lend(raw -> Arguments.blob((bytes, count) -> raw.serialize(options, bytes, count)));
    }
  }

  /**
   * The cache.
   *
   * @return never null
   */
  public Cache cache() {
    return cache;
  }

  /**
   * What chooses tokens.
   *
   * @return null: there is none
   */
  public Sampler sampler() {
    return sampler;
  }

  /**
   * The generation in the middle of its text.
   *
   * @return null: there is none
   */
  public Generation generation() {
    return generation;
  }

  /**
   * The scores after the last token.
   *
   * @return null: there are none
   */
  public float[] logits() {
    return logits == null ? null : logits.clone();
  }

  /** Closes the parts that loading made. Parts that were given stay whose they are. */
  @Override
  public void close() {
    own.forEach(Handle::close);
  }
}
