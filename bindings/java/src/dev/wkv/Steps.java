// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import dev.wkv.internal.Batch;
import dev.wkv.internal.StepOptions;
import dev.wkv.internal.Watch;
import dev.wkv.internal.WkvNative;
import java.util.ArrayList;
import java.util.List;

/** Batch steps, watched where it may take long. */
final class Steps {
  /**
   * Steps of more tokens than this end when their thread is interrupted. Such a step needs a spare state, and looking
   * for the interruption costs time in every layer: short ones go without.
   */
  static final int UNWATCHED_TOKENS = 64;

  private Steps() {}

  static int[] run(dev.wkv.internal.Model model, List<StepItem> items, Progress progress) {
    List<Counted<?>> entered = new ArrayList<>();
    try {
      Batch batch = new Batch(items.size());
      List<Arguments.Out> written = new ArrayList<>();
      long tokens = 0;
      for (int i = 0; i < items.size(); i++) {
        StepItem item = items.get(i);
        batch.caches[i] = dev.wkv.internal.Cache.getCPtr(item.cache.handle.enter(entered));
        if (item.sampler != null)
          batch.samplers[i] = dev.wkv.internal.Sampler.getCPtr(item.sampler.handle.enter(entered));
        batch.tokens[i] = Arguments.in(item.tokens, "tokens");
        tokens += item.tokens.remaining();
        if (item.logits != null) {
          Arguments.Out out = new Arguments.Out(item.logits, "logits");
          written.add(out);
          batch.logits[i] = out.memory;
        }
        batch.flags[i] =
            (item.wantsAllLogits ? WkvNative.STEP_ALL_LOGITS : 0) | (item.keepsStates ? WkvNative.STEP_ALL_STATES : 0);
      }
      step(model, batch, progress, tokens);
      written.forEach(Arguments.Out::done);
      return batch.chosen;
    } finally {
      entered.forEach(Counted::leave);
    }
  }

  private static void step(dev.wkv.internal.Model model, Batch batch, Progress progress, long tokens) {
    try {
      if (progress == null && tokens <= UNWATCHED_TOKENS) {
        model.step(batch);
      } else {
        try (Watch watch = new Watch(progress); StepOptions options = new StepOptions()) {
          options.set_watch(watch);
          model.step_watched(batch, options);
        }
      }
    } catch (RuntimeException failure) {
      for (int i = 0; i < batch.statuses.length; i++)
        if (batch.statuses[i] != 0) failure.addSuppressed(new ItemException(i, batch.statuses[i]));
      throw failure;
    }
  }
}
