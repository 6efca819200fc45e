// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import dev.wkv.internal.GenerationPiece;
import dev.wkv.internal.Watch;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.OptionalInt;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * A generation: text, pulled piece by piece. Made by {@link Model#generate(String)}; iterates once.
 *
 * <p>Between two pieces the cache is free. Interrupting the thread ends it with {@link CancelledException}, in a long
 * prompt too, and leaves everything in order: after {@link Thread#interrupted} iterating goes on.
 */
public final class Generation extends Handle implements Iterator<Piece>, Iterable<Piece> {
  final Counted<dev.wkv.internal.Generation> handle;
  private final GenerationPiece raw;
  private final Cache cache;
  private final Sampler sampler;
  private final List<Handle> own;
  private final AtomicBoolean isInUse = new AtomicBoolean();
  private volatile boolean mayHaveEnded;
  private volatile Piece ahead;
  private volatile End last = new End(Reason.NONE, -1, new byte[0], 0, 0, 0);

  // What the last piece said of the whole.
  private record End(Reason reason, int pendingToken, byte[] unread, long generated, long prompt, long reused) {}

  private Generation(Counted<dev.wkv.internal.Generation> handle, GenerationPiece raw, Cache cache, Sampler sampler,
      List<Handle> own, boolean mayHaveEnded) {
    super(handle);
    this.handle = handle;
    this.raw = raw;
    this.cache = cache;
    this.sampler = sampler;
    this.own = own;
    this.mayHaveEnded = mayHaveEnded;
  }

  // raw and watch live as long as the native object: a call in another thread may outlive this one.
  private static Generation around(
      long made, Watch watch, Cache cache, Sampler sampler, List<Handle> own, boolean mayHaveEnded) {
    GenerationPiece raw = new GenerationPiece();
    Counted<dev.wkv.internal.Generation> handle =
        new Counted<>(new dev.wkv.internal.Generation(made, true), "Generation", () -> {
          raw.close();
          if (watch != null) watch.close();
        });
    return new Generation(handle, raw, cache, sampler, own, mayHaveEnded);
  }

  /** One of a session; whether it has ended is seen when it is used. */
  static Generation loaded(long made, Cache cache, Sampler sampler) {
    return around(made, null, cache, sampler, List.of(), true);
  }

  static Generation create(Model model, byte[] prompt, GenerationOptions options) {
    GenerationOptions.Builder given = options.given();
    if (given.sampler != null && given.sampling != null)
      throw new InvalidArgumentException("sampling: a sampler has its options already");
    model.handle.run(open -> {});
    List<Handle> own = new ArrayList<>();
    Watch watch = new Watch(given.progress);
    List<Counted<?>> entered = new ArrayList<>();
    boolean isMade = false;
    try (dev.wkv.internal.GenerationOptions raw = new dev.wkv.internal.GenerationOptions()) {
      Cache cache = given.cache;
      if (cache == null && given.previous != null) cache = given.previous.cache;
      if (cache == null) own.add(cache = model.cache());
      Sampler sampler = given.sampler;
      if (given.sampling != null) own.add(sampler = Sampler.create(given.sampling));
      options.fill(raw);
      raw.set_prompt(given.previous == null ? prompt : given.previous.unreadAnd(prompt));
      raw.set_prompt_tokens(
          given.previous == null ? given.promptTokens : given.previous.pendingAnd(given.promptTokens));
      if (given.tokenizer != null) raw.set_tokenizer(given.tokenizer.handle.enter(entered));
      if (given.prefixStore != null) raw.set_prefix_store(given.prefixStore.handle.enter(entered));
      raw.set_watch(watch);
      long[] made = new long[1];
      dev.wkv.internal.Generation.create(
          cache.handle.enter(entered), sampler == null ? null : sampler.handle.enter(entered), raw, made);
      isMade = true;
      return around(made[0], watch, cache, sampler, own, false);
    } finally {
      entered.forEach(Counted::leave);
      if (!isMade) {
        watch.close();
        own.forEach(Handle::close);
      }
    }
  }

  private void checkEnded() {
    if (last.reason == Reason.NONE) throw new InvalidArgumentException("previous: that generation has not ended");
  }

  private byte[] unreadAnd(byte[] prompt) {
    checkEnded();
    byte[] all = new byte[last.unread.length + prompt.length];
    System.arraycopy(last.unread, 0, all, 0, last.unread.length);
    System.arraycopy(prompt, 0, all, last.unread.length, prompt.length);
    return all;
  }

  private int[] pendingAnd(int[] tokens) {
    checkEnded();
    if (last.reason != Reason.MAX_TOKENS || last.pendingToken < 0) return tokens;
    int[] all = new int[1 + tokens.length];
    all[0] = last.pendingToken;
    System.arraycopy(tokens, 0, all, 1, tokens.length);
    return all;
  }

  /** Also closes the cache and the sampler, where this generation made them. */
  @Override
  public void close() {
    super.close();
    own.forEach(Handle::close);
  }

  /**
   * The cache that the text goes on in.
   *
   * @return the one of the options, or one that is closed with this generation
   */
  public Cache cache() {
    return cache;
  }

  /**
   * What chooses tokens.
   *
   * @return the one of the options, or one that is closed with this generation; null: the likeliest token
   */
  public Sampler sampler() {
    return sampler;
  }

  /**
   * This generation: it iterates once.
   *
   * @return this
   */
  @Override
  public Iterator<Piece> iterator() {
    return this;
  }

  /**
   * Whether there is another piece. Computes nothing, but for the first question to a generation that was loaded, where
   * it takes the next piece to find out.
   *
   * @return false at the end
   */
  @Override
  public boolean hasNext() {
    if (ahead != null) return true;
    if (last.reason != Reason.NONE) return false;
    if (!mayHaveEnded) return true;
    ahead = pull();
    return ahead != null;
  }

  /**
   * {@c wkv_generation_next}
   *
   * @return the next piece
   * @throws CancelledException when the thread is, or was, interrupted; calling again goes on
   */
  @Override
  public Piece next() {
    Piece piece = ahead;
    ahead = null;
    if (piece == null && last.reason == Reason.NONE) piece = pull();
    if (piece == null) throw new NoSuchElementException("the generation has ended: " + last.reason);
    return piece;
  }

  // null at the end
  private Piece pull() {
    if (Thread.currentThread().isInterrupted()) throw new CancelledException("the thread was interrupted");
    // two threads would share the native piece
    if (!isInUse.compareAndSet(false, true)) throw new BusyException("this Generation is in use by another call");
    try {
      dev.wkv.internal.Generation generation = handle.enter();
      try {
        boolean isPiece = generation.next(raw);
        Reason reason = Reason.of(raw.getReason());
        last = new End(reason, raw.getPending_token(), reason == Reason.NONE ? last.unread : raw.get_unread(),
            raw.getTokens_generated(), raw.getPrompt_tokens(), raw.getReused_tokens());
        mayHaveEnded = false;
        return isPiece ? read(reason) : null;
      } finally {
        handle.leave();
      }
    } finally {
      isInUse.set(false);
    }
  }

  private Piece read(Reason reason) {
    TokenProbability[] alternatives = new TokenProbability[raw.getAlternatives_count()];
    for (int i = 0; i < alternatives.length; i++) {
      dev.wkv.internal.TokenProbability one = raw.get_alternative(i);
      alternatives[i] = new TokenProbability(one.getToken(), one.getLog_probability());
    }
    return new Piece(new String(raw.get_text(), StandardCharsets.UTF_8), raw.getToken(), reason,
        raw.getLog_probability(), List.of(alternatives));
  }

  /** A session does not hold what hasNext took. */
  void checkNothingAhead() {
    if (ahead != null)
      throw new InvalidArgumentException("the generation has computed a piece, by hasNext, that was not taken by next");
  }

  /**
   * All pieces that are still to come.
   *
   * @return a stream that computes each when it is taken
   */
  public Stream<Piece> pieces() {
    return StreamSupport.stream(
        Spliterators.spliteratorUnknownSize(this, Spliterator.ORDERED | Spliterator.NONNULL), false);
  }

  /**
   * The text of all pieces that are still to come.
   *
   * @return a stream that computes each when it is taken
   */
  public Stream<String> stream() {
    return pieces().map(Piece::text);
  }

  /**
   * All of the text that is still to come.
   *
   * @return text
   */
  public String text() {
    return stream().collect(Collectors.joining());
  }

  /**
   * Why it has ended.
   *
   * @return NONE: it has not, as far as the pieces taken say
   */
  public Reason reason() {
    return last.reason;
  }

  /**
   * At the end, the last token chosen, which the cache has not read.
   *
   * @return empty before the end, and after a stop text that was taken back
   */
  public OptionalInt pendingToken() {
    return last.reason == Reason.NONE || last.pendingToken < 0 ? OptionalInt.empty()
                                                               : OptionalInt.of(last.pendingToken);
  }

  /**
   * After a stop text, the end of the text given out that the cache has not read.
   *
   * @return bytes, usually none; they may begin inside a character
   */
  public byte[] unread() {
    return last.unread.clone();
  }

  /**
   * Tokens chosen so far.
   *
   * @return their number
   */
  public long tokensGenerated() {
    return last.generated;
  }

  /**
   * Tokens that were fed before the first choice.
   *
   * @return their number
   */
  public long promptTokens() {
    return last.prompt;
  }

  /**
   * Those of the prompt that came from a prefix store.
   *
   * @return their number
   */
  public long reusedTokens() {
    return last.reused;
  }
}
