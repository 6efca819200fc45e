// SPDX-License-Identifier: Apache-2.0
package dev.wkv.internal;

/** The items of a batch step as native code reads them: arrays of one length. */
public final class Batch {
  /** Handles. */
  public final long[] caches;
  /** Handles; 0 is none. */
  public final long[] samplers;
  /** int[] or direct IntBuffer. */
  public final Object[] tokens;
  /** float[] or direct FloatBuffer, or null. */
  public final Object[] logits;
  /** Flags of each item. */
  public final int[] flags;
  /** Where the chosen tokens come; -1 without a sampler. */
  public final int[] chosen;
  /** After a failure: the status of each item. */
  public final int[] statuses;

  /**
   * @param count of items
   */
  public Batch(int count) {
    caches = new long[count];
    samplers = new long[count];
    tokens = new Object[count];
    logits = new Object[count];
    flags = new int[count];
    chosen = new int[count];
    statuses = new int[count];
  }
}
