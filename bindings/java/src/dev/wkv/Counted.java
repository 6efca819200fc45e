// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.function.Function;

/**
 * A native object and the number of its users: its owner, calls in progress, and what was made from it. Whoever leaves
 * last frees it, so closing while another thread is inside a call is fine, and so is the collector finding the owner
 * unused while its last call runs.
 */
final class Counted<T extends AutoCloseable> {
  private final T raw;
  private final String name;
  private final Runnable afterwards;
  private final AtomicInteger users = new AtomicInteger(1);
  private final AtomicBoolean isClosed = new AtomicBoolean();

  /** afterwards: what is let go of once the object is free. */
  Counted(T raw, String name, Runnable afterwards) {
    this.raw = raw;
    this.name = name;
    this.afterwards = afterwards;
  }

  Counted(T raw, String name) {
    this(raw, name, () -> {});
  }

  /** The object, until leave. */
  T enter() {
    int count;
    do {
      count = users.get();
      if (count == 0 || isClosed.get()) throw new ClosedException(name);
    } while (!users.compareAndSet(count, count + 1));
    return raw;
  }

  /** The object, until the caller leaves with all the others that it entered. */
  T enter(List<Counted<?>> entered) {
    T made = enter();
    entered.add(this);
    return made;
  }

  /** One user more, by someone who is one, closed or not. */
  void hold() {
    users.incrementAndGet();
  }

  /** The object, for someone who is a user. */
  T held() {
    return raw;
  }

  void leave() {
    if (users.decrementAndGet() != 0) return;
    try {
      raw.close();
    } catch (Exception impossible) {
      throw new AssertionError(impossible); // native objects throw nothing
    }
    afterwards.run();
  }

  /** The owner leaves, once. */
  void close() {
    if (isClosed.compareAndSet(false, true)) leave();
  }

  boolean isClosed() {
    return isClosed.get();
  }

  <R> R get(Function<? super T, R> body) {
    T entered = enter();
    try {
      return body.apply(entered);
    } finally {
      leave();
    }
  }

  void run(Consumer<? super T> body) {
    T entered = enter();
    try {
      body.accept(entered);
    } finally {
      leave();
    }
  }
}
