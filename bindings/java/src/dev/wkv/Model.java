// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import dev.wkv.internal.Watch;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;

/**
 * A model: the weights of one RWKV-7 checkpoint. Read-only after loading, shared by any number of threads; what was
 * made from it goes on when it is closed.
 *
 * <pre>{@code
 * try (Model model = Model.load("rwkv7-g1-0.4b.gguf");
 *     Generation generation = model.generate("Once upon a time")) {
 *   for (Piece piece : generation) System.out.print(piece);
 * }
 * }</pre>
 */
public final class Model extends Handle {
  final Counted<dev.wkv.internal.Model> handle;
  private final ModelInfo info;
  private Tokenizer tokenizer;

  private Model(Counted<dev.wkv.internal.Model> handle, ModelInfo info) {
    super(handle);
    this.handle = handle;
    this.info = info;
  }

  /**
   * Load a checkpoint with the library's defaults.
   *
   * @param path of a checkpoint file, or of a directory with config.json and .safetensors files
   * @return the model
   */
  public static Model load(String path) {
    return load(path, ModelOptions.DEFAULTS);
  }

  /**
   * Load a checkpoint with the library's defaults.
   *
   * @param path of a checkpoint file, or of a directory with config.json and .safetensors files
   * @return the model
   */
  public static Model load(Path path) {
    return load(path.toString());
  }

  /**
   * {@c wkv_model_load}
   *
   * @param path of a checkpoint file, or of a directory with config.json and .safetensors files
   * @param options how
   * @return the model
   * @throws CancelledException when the options' progress, or an interruption of this thread, said so
   */
  public static Model load(String path, ModelOptions options) {
    byte[] bytes = Arguments.line(path, "path");
    try (Watch watch = new Watch(options.progress());
         dev.wkv.internal.ModelOptions raw = new dev.wkv.internal.ModelOptions();
         dev.wkv.internal.ModelInfo rawInfo = new dev.wkv.internal.ModelInfo()) {
      options.fill(raw, watch);
      long[] made = new long[1];
      dev.wkv.internal.Model.load(bytes, raw, made);
      dev.wkv.internal.Model model = new dev.wkv.internal.Model(made[0], true);
      model.get_info(rawInfo);
      return new Model(new Counted<>(model, "Model"), ModelInfo.of(rawInfo));
    }
  }

  /**
   * {@c wkv_model_load}
   *
   * @param path of a checkpoint file, or of a directory with config.json and .safetensors files
   * @param options how
   * @return the model
   * @throws CancelledException when the options' progress, or an interruption of this thread, said so
   */
  public static Model load(Path path, ModelOptions options) {
    return load(path.toString(), options);
  }

  /**
   * Shapes, types, device, kernels.
   *
   * @return what is known also after closing
   */
  public ModelInfo info() {
    return info;
  }

  /**
   * Logits of a step: one a token id.
   *
   * @return their number
   */
  public int vocabSize() {
    return info.vocabSize();
  }

  /**
   * Room for the scores of one token, where native code writes them without a copy.
   *
   * @return a direct buffer of {@link #vocabSize} floats
   */
  public FloatBuffer newLogits() {
    return ByteBuffer.allocateDirect(4 * vocabSize()).order(ByteOrder.nativeOrder()).asFloatBuffer();
  }

  /**
   * {@c wkv_model_get_memory}
   *
   * @return live and peak bytes
   */
  public MemoryInfo memory() {
    try (dev.wkv.internal.MemoryInfo raw = new dev.wkv.internal.MemoryInfo()) {
      handle.run(model -> model.get_memory(raw));
      return MemoryInfo.of(raw);
    }
  }

  /**
   * {@c wkv_model_get_tokenizer}
   *
   * @return the model's: the same one each time, closed with the model, whose weights it would else keep in memory
   * @throws NotFoundException when the model has none
   */
  public synchronized Tokenizer tokenizer() {
    return handle.get(model -> {
      if (tokenizer == null || tokenizer.isClosed()) {
        long[] made = new long[1];
        model.get_tokenizer(made);
        tokenizer = new Tokenizer(made[0]);
      }
      return tokenizer;
    });
  }

  /**
   * Let go of the weights, and of the {@link #tokenizer}. Caches, generations and decoders of the model go on, and keep
   * the weights in memory. Twice is fine.
   */
  @Override
  public void close() {
    super.close();
    synchronized (this) {
      if (tokenizer != null) tokenizer.close();
    }
  }

  /**
   * A cache that has read nothing.
   *
   * @return yours to close
   */
  public Cache cache() {
    return cache(CacheOptions.DEFAULTS);
  }

  /**
   * {@c wkv_cache_create}
   *
   * @param options where it begins, what it keeps
   * @return yours to close
   */
  public Cache cache(CacheOptions options) {
    InitialState state = options.initialState();
    dev.wkv.internal.InitialState rawState = state == null ? null : state.handle.enter();
    try (dev.wkv.internal.CacheOptions raw = new dev.wkv.internal.CacheOptions()) {
      options.fill(raw);
      raw.set_initial_state(rawState);
      return Cache.make(this, (model, made) -> dev.wkv.internal.Cache.create(model, raw, made));
    } finally {
      if (state != null) state.handle.leave();
    }
  }

  /**
   * {@c wkv_model_step}
   *
   * <p>More than 64 tokens together end with {@link CancelledException} when the thread is interrupted, all caches and
   * samplers as before, and need a spare state for each item meanwhile. A failure changes nothing; its suppressed
   * {@link ItemException}s say which items were at fault, and the others, fed again without these, can go on.
   *
   * @param items of caches of this model
   * @return the token that each item's sampler chose; -1 without one
   */
  public int[] step(List<StepItem> items) {
    return step(items, null);
  }

  /**
   * {@c wkv_model_step_watched}
   *
   * @param items of caches of this model
   * @param progress of tokens; null: none
   * @return the token that each item's sampler chose; -1 without one
   * @throws CancelledException when progress, or an interruption of this thread, said so
   */
  public int[] step(List<StepItem> items, Progress progress) {
    List<StepItem> copy = List.copyOf(items);
    return handle.get(model -> Steps.run(model, copy, progress));
  }

  /**
   * Text after a prompt, the likeliest token each time.
   *
   * @param prompt fed first
   * @return yours to close
   */
  public Generation generate(String prompt) {
    return generate(prompt, GenerationOptions.DEFAULTS);
  }

  /**
   * {@c wkv_generation_create}
   *
   * @param prompt fed first; empty: the options have tokens, or go on after another generation
   * @param options how
   * @return yours to close
   */
  public Generation generate(String prompt, GenerationOptions options) {
    return Generation.create(this, Arguments.utf8(prompt, "prompt"), options);
  }

  /**
   * A prefix store of 256 MiB.
   *
   * @return yours to close
   */
  public PrefixStore prefixStore() {
    return prefixStore(PrefixStoreOptions.DEFAULTS);
  }

  /**
   * {@c wkv_prefix_store_create}
   *
   * @param options how much, and where
   * @return yours to close
   */
  public PrefixStore prefixStore(PrefixStoreOptions options) {
    try (dev.wkv.internal.PrefixStoreOptions raw = new dev.wkv.internal.PrefixStoreOptions()) {
      options.fill(raw);
      long[] made = new long[1];
      handle.run(model -> dev.wkv.internal.PrefixStore.create(model, raw, made));
      return new PrefixStore(made[0]);
    }
  }

  /**
   * {@c wkv_initial_state_load}
   *
   * @param path of a file
   * @param valueFirst its matrices are [head size value][head size key]; what trainers write is the other way round
   * @return yours to close
   */
  public InitialState initialState(String path, boolean valueFirst) {
    byte[] bytes = Arguments.line(path, "path");
    try (dev.wkv.internal.InitialStateOptions raw = new dev.wkv.internal.InitialStateOptions()) {
      raw.setOrder(valueFirst ? 1 : 0);
      long[] made = new long[1];
      handle.run(model -> dev.wkv.internal.InitialState.load(model, bytes, raw, made));
      return new InitialState(made[0]);
    }
  }

  /**
   * {@c wkv_cache_load}
   *
   * @param path of a file that {@link Cache#save} or {@link Session#save} wrote
   * @return yours to close
   */
  public Cache loadCache(String path) {
    byte[] bytes = Arguments.line(path, "path");
    return Cache.make(this, (model, made) -> dev.wkv.internal.Cache.load(model, bytes, made));
  }

  /**
   * {@c wkv_cache_load}
   *
   * @param path of a file that {@link Cache#save} or {@link Session#save} wrote
   * @return yours to close
   */
  public Cache loadCache(Path path) {
    return loadCache(path.toString());
  }

  /**
   * {@c wkv_cache_deserialize}
   *
   * @param bytes what {@link Cache#toBytes} gave
   * @return yours to close
   */
  public Cache cacheFromBytes(byte[] bytes) {
    Objects.requireNonNull(bytes, "bytes");
    return Cache.make(this, (model, made) -> dev.wkv.internal.Cache.deserialize(model, bytes, made));
  }

  /**
   * {@c wkv_session_load}
   *
   * @param path of a file that {@link Session#save} or {@link Cache#save} wrote
   * @return yours to close
   */
  public Session loadSession(String path) {
    return loadSession(path, null);
  }

  /**
   * {@c wkv_session_load}
   *
   * @param path of a file that {@link Session#save} or {@link Cache#save} wrote
   * @return yours to close
   */
  public Session loadSession(Path path) {
    return loadSession(path.toString(), null);
  }

  /**
   * {@c wkv_session_load}
   *
   * @param path of a file that {@link Session#save} or {@link Cache#save} wrote
   * @param tokenizer of the generation; null: the model's own
   * @return yours to close
   */
  public Session loadSession(String path, Tokenizer tokenizer) {
    byte[] bytes = Arguments.line(path, "path");
    return Session.load(this, tokenizer, (model, raw) -> dev.wkv.internal.Session.load(model, bytes, raw));
  }

  /**
   * {@c wkv_session_deserialize}
   *
   * @param bytes what {@link Session#toBytes} gave
   * @return yours to close
   */
  public Session sessionFromBytes(byte[] bytes) {
    return sessionFromBytes(bytes, null);
  }

  /**
   * {@c wkv_session_deserialize}
   *
   * @param bytes what {@link Session#toBytes} gave
   * @param tokenizer of the generation; null: the model's own
   * @return yours to close
   */
  public Session sessionFromBytes(byte[] bytes, Tokenizer tokenizer) {
    Objects.requireNonNull(bytes, "bytes");
    return Session.load(this, tokenizer, (model, raw) -> dev.wkv.internal.Session.deserialize(model, bytes, raw));
  }

  @Override
  public String toString() {
    return String.format("Model[%s%d layers of %d, %s on %s (%s)]", isClosed() ? "closed, " : "", info.layers(),
        info.width(), info.computeTypes(), info.device(), info.kernels());
  }
}
