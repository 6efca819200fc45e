// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** Watches a long call, from the thread that made it. */
@FunctionalInterface
public interface Progress {
  /**
   * Called now and then. An exception cancels the call as well, and comes out of it. Must not use the objects of the
   * call.
   *
   * @param done bytes or tokens so far; never falls
   * @param total what done is at the end
   * @return true cancels the call, which then throws {@link CancelledException}
   */
  boolean report(long done, long total);
}
