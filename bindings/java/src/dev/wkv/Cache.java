// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import dev.wkv.internal.SaveOptions;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.OptionalInt;
import java.util.function.BiConsumer;

/**
 * A cache: the state of one sequence, everything the model remembers of the tokens read so far, in the same few
 * megabytes whatever their number. Used by one call at a time: a second one meanwhile throws {@link BusyException} and
 * changes nothing. A call that fails leaves the cache as it was.
 */
public final class Cache extends Handle {
  final Counted<dev.wkv.internal.Cache> handle;
  private final Model model;

  private Cache(Counted<dev.wkv.internal.Cache> handle, Model model) {
    super(handle);
    this.handle = handle;
    this.model = model;
  }

  /** Around a native cache; the model's native object stays while the cache's does. The caller is inside the model. */
  static Cache around(long made, Model model) {
    model.handle.hold();
    return new Cache(new Counted<>(new dev.wkv.internal.Cache(made, true), "Cache", model.handle::leave), model);
  }

  static Cache make(Model model, BiConsumer<dev.wkv.internal.Model, long[]> create) {
    return model.handle.get(raw -> {
      long[] made = new long[1];
      create.accept(raw, made);
      return around(made[0], model);
    });
  }

  /**
   * The model it belongs to.
   *
   * @return that may have been closed
   */
  public Model model() {
    return model;
  }

  /**
   * {@c wkv_cache_step}
   *
   * <p>More than 64 tokens end with {@link CancelledException} when the thread is interrupted, the cache as before, and
   * need a spare state meanwhile.
   *
   * @param tokens ids from the buffer's position to its limit, which do not move; a direct buffer is read where it lies
   * @param logits room for the scores of the last token from its position on, which does not move; a direct buffer is
   *     written where it lies ({@link Model#newLogits})
   */
  public void step(IntBuffer tokens, FloatBuffer logits) {
    read(tokens, Objects.requireNonNull(logits, "logits"));
  }

  /**
   * Feed one token and read the scores of what comes next.
   *
   * @param token an id
   * @param logits room for scores, as in {@link #step(IntBuffer, FloatBuffer)}
   */
  public void step(int token, FloatBuffer logits) {
    step(IntBuffer.wrap(new int[] {token}), logits);
  }

  /**
   * Feed tokens and read the scores of what comes next, as {@link #step(IntBuffer, FloatBuffer)} does.
   *
   * @param tokens ids
   * @return scores, one a token id
   */
  public float[] step(int... tokens) {
    float[] logits = new float[model.vocabSize()];
    step(IntBuffer.wrap(tokens), FloatBuffer.wrap(logits));
    return logits;
  }

  /**
   * Feed tokens alone, which saves the time of their scores.
   *
   * @param tokens ids
   */
  public void feed(int... tokens) {
    feed(IntBuffer.wrap(tokens));
  }

  /**
   * Feed tokens alone, which saves the time of their scores.
   *
   * @param tokens ids from the buffer's position to its limit, which do not move
   */
  public void feed(IntBuffer tokens) {
    read(tokens, null);
  }

  private void read(IntBuffer tokens, FloatBuffer logits) {
    if (Objects.requireNonNull(tokens, "tokens").remaining() > Steps.UNWATCHED_TOKENS) {
      StepItem item = StepItem.of(this, tokens).logits(logits);
      handle.run(cache -> Steps.run(model.handle.held(), List.of(item), null)); // a cache holds its model
      return;
    }
    Object ids = Arguments.in(tokens, "tokens");
    Arguments.Out out = logits == null ? null : new Arguments.Out(logits, "logits");
    dev.wkv.internal.Cache cache = handle.enter();
    try {
      cache.step(ids, out == null ? null : out.memory);
    } finally {
      handle.leave();
    }
    if (out != null) out.done();
  }

  /** {@c wkv_cache_reset} */
  public void reset() {
    handle.run(dev.wkv.internal.Cache::reset);
  }

  /**
   * {@c wkv_cache_copy}
   *
   * @return yours to close
   */
  public Cache copy() {
    return handle.get(cache -> {
      long[] made = new long[1];
      cache.copy(made);
      return around(made[0], model);
    });
  }

  /**
   * {@c wkv_cache_assign}
   *
   * @param source not changed
   */
  public void assign(Cache source) {
    handle.run(target -> source.handle.run(target::assign));
  }

  /** {@c wkv_cache_park} */
  public void park() {
    handle.run(dev.wkv.internal.Cache::park);
  }

  // The handles of all, with room for more numbers behind them.
  private static long[] enter(List<Cache> caches, List<Counted<?>> entered, int room) {
    long[] handles = new long[room];
    for (int i = 0; i < caches.size(); i++)
      handles[i] = dev.wkv.internal.Cache.getCPtr(caches.get(i).handle.enter(entered));
    return handles;
  }

  /**
   * {@c wkv_cache_select}
   *
   * @param caches of one model
   * @param indices of those to copy
   * @return a copy for each index, yours to close
   */
  public static List<Cache> select(List<Cache> caches, int... indices) {
    List<Cache> list = List.copyOf(caches);
    long[] copies = Arrays.stream(indices).mapToLong(index -> Arguments.notNegative(index, "index")).toArray();
    List<Counted<?>> entered = new ArrayList<>();
    try {
      dev.wkv.internal.Cache.select(enter(list, entered, list.size()), copies);
      return Arrays.stream(copies).mapToObj(made -> around(made, list.get(0).model)).toList();
    } finally {
      entered.forEach(Counted::leave);
    }
  }

  /**
   * {@c wkv_cache_reorder}
   *
   * @param caches different ones of one model; each becomes what the one at its source was
   * @param sources an index for each
   */
  public static void reorder(List<Cache> caches, int... sources) {
    List<Cache> list = List.copyOf(caches);
    if (sources.length != list.size())
      throw new InvalidArgumentException(list.size() + " caches and " + sources.length + " sources");
    List<Counted<?>> entered = new ArrayList<>();
    try {
      long[] order = enter(list, entered, 2 * sources.length);
      for (int i = 0; i < sources.length; i++) order[sources.length + i] = Arguments.notNegative(sources[i], "source");
      dev.wkv.internal.Cache.reorder(order);
    } finally {
      entered.forEach(Counted::leave);
    }
  }

  /**
   * {@c wkv_cache_mark}
   *
   * @return the position kept, for {@link #rollback}
   */
  public long mark() {
    long[] position = new long[1];
    handle.run(cache -> cache.mark(position));
    return position[0];
  }

  /**
   * {@c wkv_cache_unmark}
   *
   * @param position a kept one
   * @throws NotFoundException when nothing is kept there
   */
  public void unmark(long position) {
    Arguments.notNegative(position, "position");
    handle.run(cache -> cache.unmark(position));
  }

  /**
   * {@c wkv_cache_rollback}
   *
   * @param position a kept one
   * @throws NotFoundException when nothing is kept there
   */
  public void rollback(long position) {
    Arguments.notNegative(position, "position");
    handle.run(cache -> cache.rollback(position));
  }

  /**
   * {@c wkv_cache_get_kept_positions}
   *
   * @return rising
   */
  public long[] keptPositions() {
    return handle.get(cache -> {
      long[] count = new long[1];
      cache.get_kept_positions(null, count);
      long[] positions = new long[(int) count[0]];
      cache.get_kept_positions(positions, count);
      return Arrays.copyOf(positions, (int) count[0]);
    });
  }

  /**
   * {@c wkv_cache_get_info}
   *
   * @return position, memory, last tokens
   */
  public CacheInfo info() {
    try (dev.wkv.internal.CacheInfo raw = new dev.wkv.internal.CacheInfo()) {
      handle.run(cache -> cache.get_info(raw));
      return CacheInfo.of(raw);
    }
  }

  /**
   * Tokens read since creation or reset.
   *
   * @return their number
   */
  public long position() {
    return info().position();
  }

  /**
   * {@c wkv_cache_read_state}
   *
   * @param layer from 0
   * @param part which
   * @return its numbers
   */
  public float[] readState(int layer, StatePart part) {
    ModelInfo info = model.info();
    float[] values = new float[part == StatePart.WKV ? info.width() * info.headSize() : info.width()];
    readState(layer, part, FloatBuffer.wrap(values));
    return values;
  }

  /**
   * {@c wkv_cache_read_state}
   *
   * @param layer from 0
   * @param part which
   * @param values room for its numbers from the buffer's position on, which does not move
   */
  public void readState(int layer, StatePart part, FloatBuffer values) {
    Arguments.Out out = new Arguments.Out(values, "values");
    handle.run(cache -> cache.read_state(layer, part.number, out.memory));
    out.done();
  }

  /**
   * {@c wkv_cache_write_state}
   *
   * @param layer from 0
   * @param part which
   * @param values exactly the part's numbers
   */
  public void writeState(int layer, StatePart part, FloatBuffer values) {
    Object memory = Arguments.in(values, "values");
    handle.run(cache -> cache.write_state(layer, part.number, memory));
  }

  /**
   * {@c wkv_cache_check}
   *
   * @return the first layer with a number that is not finite; empty: all are finite
   */
  public OptionalInt check() {
    int[] layer = new int[1];
    int[] part = new int[1];
    handle.run(cache -> cache.check(layer, part));
    return layer[0] < 0 ? OptionalInt.empty() : OptionalInt.of(layer[0]);
  }

  /**
   * {@c wkv_cache_export}
   *
   * @param layout of the other engine
   * @return the whole state
   */
  public float[] exportState(StateLayout layout) {
    ModelInfo info = model.info();
    float[] values = new float[info.layers() * (2 * info.width() + info.width() * info.headSize())];
    handle.run(cache -> cache.export_state(layout.number, values));
    return values;
  }

  /**
   * {@c wkv_cache_import}
   *
   * @param layout of the other engine
   * @param values the whole state
   * @param position tokens that it has read
   */
  public void importState(StateLayout layout, FloatBuffer values, long position) {
    Object memory = Arguments.in(values, "values");
    Arguments.notNegative(position, "position");
    handle.run(cache -> cache.import_state(layout.number, memory, position));
  }

  /**
   * {@c wkv_cache_save}
   *
   * @param path a file there is replaced
   */
  public void save(String path) {
    save(path, NumberType.DEFAULT);
  }

  /**
   * {@c wkv_cache_save}
   *
   * @param path a file there is replaced
   */
  public void save(Path path) {
    save(path.toString());
  }

  /**
   * {@c wkv_cache_save}
   *
   * @param path a file there is replaced
   * @param stateType F16: half the size, 11 bits of precision; else 32-bit floats
   */
  public void save(String path, NumberType stateType) {
    byte[] bytes = Arguments.line(path, "path");
    try (SaveOptions options = new SaveOptions()) {
      options.setState_type(stateType.number);
      handle.run(cache -> cache.save_as(bytes, options));
    }
  }

  /**
   * What {@link #save} writes.
   *
   * @return bytes for {@link Model#cacheFromBytes}
   */
  public byte[] toBytes() {
    return toBytes(NumberType.DEFAULT);
  }

  /**
   * {@c wkv_cache_serialize}
   *
   * @param stateType F16: half the size, 11 bits of precision; else 32-bit floats
   * @return bytes for {@link Model#cacheFromBytes}
   */
  public byte[] toBytes(NumberType stateType) {
    try (SaveOptions options = new SaveOptions()) {
      options.setState_type(stateType.number);
      return handle.get(cache -> Arguments.blob((bytes, count) -> cache.serialize_as(options, bytes, count)));
    }
  }

  /**
   * {@c wkv_cache_read_header}
   *
   * @param path of a saved cache or session
   * @return position, shapes, and what is in it
   */
  public static BlobInfo readHeader(String path) {
    try (dev.wkv.internal.BlobInfo raw = new dev.wkv.internal.BlobInfo()) {
      dev.wkv.internal.Cache.read_header(Arguments.line(path, "path"), raw);
      return BlobInfo.of(raw);
    }
  }

  /**
   * {@c wkv_cache_read_header_memory}
   *
   * @param bytes of a saved cache or session, at least the first 4096
   * @return position, shapes, and what is in it
   */
  public static BlobInfo readHeader(byte[] bytes) {
    try (dev.wkv.internal.BlobInfo raw = new dev.wkv.internal.BlobInfo()) {
      dev.wkv.internal.Cache.read_header_memory(Objects.requireNonNull(bytes, "bytes"), raw);
      return BlobInfo.of(raw);
    }
  }

  @Override
  public String toString() {
    if (isClosed()) return "Cache[closed]";
    try {
      CacheInfo info = info();
      return "Cache[at " + info.position() + ", " + info.bytes() + " bytes on " + info.device() + "]";
    } catch (BusyException | ClosedException inUse) {
      return "Cache[" + inUse.getMessage() + "]";
    }
  }
}
