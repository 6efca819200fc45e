// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.util.Objects;

/**
 * States of token sequences that were read before: a prompt that begins like one of them costs its new tokens only.
 * Give it to a generation ({@link GenerationOptions.Builder#prefixStore}), or use find and put yourself. Made by {@link
 * Model#prefixStore()}.
 */
public final class PrefixStore extends Handle {
  final Counted<dev.wkv.internal.PrefixStore> handle;

  PrefixStore(long made) {
    this(new Counted<>(new dev.wkv.internal.PrefixStore(made, true), "PrefixStore"));
  }

  private PrefixStore(Counted<dev.wkv.internal.PrefixStore> handle) {
    super(handle);
    this.handle = handle;
  }

  /**
   * {@c wkv_prefix_store_find}
   *
   * @param tokens the sequence from its very beginning
   * @param cache of the store's model; replaced when something is found
   * @return the number of tokens that the cache has read now; 0: nothing was found
   */
  public int find(int[] tokens, Cache cache) {
    Objects.requireNonNull(tokens, "tokens");
    long[] known = new long[1];
    handle.run(store -> cache.handle.run(raw -> store.find(tokens, raw, known)));
    return (int) known[0];
  }

  /**
   * {@c wkv_prefix_store_put}
   *
   * @param tokens every token that the cache has read
   * @param cache of the store's model
   */
  public void put(int[] tokens, Cache cache) {
    Objects.requireNonNull(tokens, "tokens");
    handle.run(store -> cache.handle.run(raw -> store.put(tokens, raw)));
  }

  /** {@c wkv_prefix_store_clear} */
  public void clear() {
    handle.run(dev.wkv.internal.PrefixStore::clear);
  }

  /**
   * {@c wkv_prefix_store_get_info}
   *
   * @return entries, hits and evictions
   */
  public PrefixStoreInfo info() {
    try (dev.wkv.internal.PrefixStoreInfo raw = new dev.wkv.internal.PrefixStoreInfo()) {
      handle.run(store -> store.get_info(raw));
      return PrefixStoreInfo.of(raw);
    }
  }
}
