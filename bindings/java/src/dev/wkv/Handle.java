// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.lang.ref.Cleaner;

/**
 * What owns a native object. {@link #close} lets go of it; forgotten objects are let go of some time after the
 * collector found them. Objects may be closed in any order: what was made from them keeps what it needs.
 */
public abstract class Handle implements AutoCloseable {
  private static final Cleaner CLEANER = Cleaner.create();
  private final Counted<?> counted;
  private final Cleaner.Cleanable cleanable;

  Handle(Counted<?> counted) {
    this.counted = counted;
    cleanable = CLEANER.register(this, counted::close);
  }

  /**
   * Let go of the native object. Calls that use it now finish first, in their threads; later ones throw
   * {@link ClosedException}. Twice is fine.
   */
  @Override
  public void close() {
    cleanable.clean();
  }

  /**
   * Whether it was closed.
   *
   * @return true after close
   */
  public boolean isClosed() {
    return counted.isClosed();
  }
}
