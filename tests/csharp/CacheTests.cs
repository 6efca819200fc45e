// SPDX-License-Identifier: Apache-2.0
// Caches beyond the list of all languages: marks, states, prefix stores, initial states, plans.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using Wkv;

namespace WkvTests {

public static class CacheTests {
  [Promise("cache/marks_and_rollback")]
  public static void Marks() {
    Cache cache = Support.Story.CreateCache();
    cache.Step(new[] { 1, 2, 3 });
    float[] next = cache.Copy().Step(500);
    long here = cache.Mark();
    Check.Equal(3L, here);
    cache.Step(new[] { 4, 5 });
    Check.Same(new[] { here }, cache.GetKeptPositions());
    cache.Rollback(here);
    Check.Same(next, cache.Copy().Step(500), "after a rollback");
    Check.Fails<FileNotFoundException>(Status.NotFound, () => cache.Rollback(1));
    Check.Equal(here, cache.Position);
    cache.Unmark(here);
    Check.Equal(0, cache.GetKeptPositions().Length);

    cache = Support.Story.CreateCache(new CacheOptions { CheckpointEveryTokens = 4, CheckpointsCountMax = 2 });
    for (int i = 0; i < 13; i++) cache.Step(5);
    Check.Same(new[] { 8L, 12L }, cache.GetKeptPositions(), "checkpoints by itself");

    cache = Support.Story.CreateCache();
    cache.StepAll(new[] { 1, 2, 3, 4 }, new float[4 * Support.Story.VocabSize], keepStates: true);
    cache.Rollback(2);
    Cache fresh = Support.Story.CreateCache();
    fresh.Feed(new[] { 1, 2 });
    Check.True(Support.Difference(fresh.Step(9), cache.Step(9)) < 1e-3, "a kept state in the middle of a step");
  }

  [Promise("cache/select_and_reorder")]
  public static void SelectAndReorder() {
    Cache cache = Support.Story.CreateCache(), empty = Support.Story.CreateCache();
    cache.Feed(new[] { 1, 2 });
    Cache[] caches = Cache.Select(new[] { cache, empty }, new[] { 1, 0, 0 });
    Check.Same(new[] { 0L, 2L, 2L }, caches.Select(one => one.Position), "selected");
    Cache.Reorder(caches, new[] { 1, 1, 0 });
    Check.Same(new[] { 2L, 2L, 0L }, caches.Select(one => one.Position), "reordered");
    Check.Same(cache.Step(7), caches[0].Step(7), "scores");
    Check.Equal(0, Cache.Select(new[] { cache }, new int[0]).Length, "nothing");
    Check.Fails<ArgumentException>(Status.Invalid, () => Cache.Select(new[] { cache }, new[] { 5 }));
    Check.Throws<ArgumentException>(() => Cache.Reorder(caches, new[] { 0 }));
    Check.Fails<ArgumentException>(Status.Invalid, () => Cache.Reorder(new[] { empty, empty }, new[] { 0, 1 }));
  }

  [Promise("cache/states_as_numbers")]
  public static void States() {
    Cache cache = Support.Story.CreateCache();
    cache.Feed(new[] { 1, 2, 3 });
    float[] values = cache.ReadState(2, StatePart.Wkv);
    Check.Equal(Support.Story.Info.Width * Support.Story.Info.HeadSize, values.Length);
    Check.True(values.Any(x => x != 0), "numbers");
    Cache fork = Support.Story.CreateCache();
    fork.WriteState(2, StatePart.Wkv, values);
    Check.Same(values, fork.ReadState(2, StatePart.Wkv), "what was written");
    foreach (StateLayout layout in Enum.GetValues(typeof(StateLayout))) {
      fork.ImportState(layout, cache.ExportState(layout), 3);
      Check.Same(cache.Copy().Step(7), fork.Copy().Step(7), layout.ToString());
    }
    Check.True(cache.IsFinite(out int layer, out StatePart _), "finite");
    Check.Equal(-1, layer);
    cache.Park();
    cache.Reset();
    Check.Equal(0L, cache.Position);
  }

  [Promise("cache/info")]
  public static void Info() {
    Cache cache = Support.Story.CreateCache();
    cache.Feed(Enumerable.Range(1, 20).ToArray());
    CacheInfo info = cache.Info;
    Check.Equal((20L, 20, "cpu", false), (info.Position, info.LastToken, info.Device, info.IsShared));
    Check.Same(Enumerable.Range(5, 16), info.LastTokens, "last tokens");
    Check.Equal(Support.Story.Info.StateBytes, info.Bytes);
    using (cache.Copy()) Check.True(cache.Info.IsShared, "shared with a copy");
    Check.Equal("Wkv.Cache at 20 on cpu", cache.ToString());
  }

  [Promise("cache/prefix_store")]
  public static void Store() {
    Model model = Support.Story;
    int[] prompt = model.Tokenizer.Encode(
        string.Concat(Enumerable.Repeat("There was once a miller who had a daughter, and she was so clever that ", 2)));
    using (TemporaryFolder folder = new TemporaryFolder())
    using (PrefixStore store = new PrefixStore(model, new PrefixStoreOptions { Directory = folder.File("prefixes") })) {
      Cache cache = model.CreateCache(), fresh = model.CreateCache();
      Check.Equal(0, store.Find(prompt, cache), "nothing is known");
      cache.Feed(prompt);
      store.Put(prompt, cache);
      Check.Equal(prompt.Length, store.Find(prompt.Append(5).ToArray(), fresh), "known tokens");
      Check.Same(cache.Step(5), fresh.Step(5), "scores");
      using (Generation generation = model.Generate(null, new GenerationOptions {
        PromptTokens = prompt.Append(7).ToArray(), MaxTokens = 3, PrefixStore = store
      })) {
        generation.ReadToEnd();
        Check.Equal((long)prompt.Length, generation.ReusedTokens, "reused");
      }
      Check.True(store.Info.Hits >= 2 && store.Info.Entries > 0, "counted");
      Check.True(Directory.GetFiles(folder.File("prefixes")).Length > 0, "files");
      Check.Fails<ArgumentException>(Status.Invalid, () => store.Put(prompt, model.CreateCache()));
      store.Clear();
      Check.Equal(0L, store.Info.Entries);
    }
  }

  [Promise("cache/initial_states_are_refused_with_the_reason")]
  public static void InitialStates() {
    Check.Fails<FileNotFoundException>(Status.NotFound, () => new InitialState(Support.Story, "/no/such/state.pth"));
    Check.Throws<Exception>(() => new InitialState(Support.Story, Golden.Weights("rnd_a.bf16.pth")));
  }

  [Promise("model/plan_devices_convert")]
  public static void Rest() {
    MemoryPlan plan = Library.PlanMemory(Support.StoryPath, new MemoryNeeds { CachesCount = 10 },
                                         new ModelOptions { Device = "cpu" });
    Check.Equal(10 * plan.StateBytes, plan.CachesBytes);
    Check.Equal(Support.Story.Info.StateBytes, plan.StateBytes);
    DeviceInfo cpu = Library.Devices[0];
    Check.True(cpu.IsUsable && cpu.Name == "cpu" && cpu.Kernels.Contains("scalar"), cpu.Kernels);
    Check.True(Library.Devices.Count >= 2, "there is always a second one");
    using (TemporaryFolder folder = new TemporaryFolder()) {
      Library.Convert(Support.StoryPath, folder.File("out.gguf"), NumberType.F16, name: "история");
      using (Model model = Support.Load(folder.File("out.gguf"))) Check.Equal("F16", model.Info.StoredTypes);
      CancellationTokenSource source = new CancellationTokenSource();
      source.Cancel();
      Check.Throws<OperationCanceledException>(
          () => Library.Convert(Support.StoryPath, folder.File("not.gguf"), cancellationToken: source.Token));
      Check.True(!File.Exists(folder.File("not.gguf")), "a cancelled conversion leaves no file");
    }
    Check.Contains("8 layers of 256", Support.Story.ToString());
  }

  [Promise("model/many_threads")]
  public static void ManyThreads() {
    Model model = Support.Story;
    float[] expected = model.CreateCache().Step(new[] { 1, 2, 3 });
    float[][] rows = new float[8][];
    Parallel.For(0, rows.Length, i => rows[i] = model.CreateCache().Step(new[] { 1, 2, 3 }));
    foreach (float[] row in rows) Check.Same(expected, row, "a row");
  }

  [Promise("model/memory_goes_with_the_last_cache")]
  public static void MemoryGoes() {
    Model model = Support.Load(Support.StoryPath, 1);
    long before = model.Memory.CachesBytes;
    using (Cache cache = model.CreateCache()) {
      cache.Step(1);
      Check.True(model.Memory.CachesBytes > before, "counted");
    }
    Check.Equal(before, model.Memory.CachesBytes, "after closing");
  }
}

}
