// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;
using System.Threading;
using Wkv.Interop;

namespace Wkv {

/// <summary>For how much a model is planned: see <see cref="Library.PlanMemory"/>.</summary>
public sealed class MemoryNeeds {
  /// <summary>States that live at one time: caches that have stepped, forks, checkpoints.</summary>
  public int CachesCount { get; set; } = 1;

  /// <summary>Tokens of the largest step, all items together; 0: a whole chunk or more.</summary>
  public int StepTokens { get; set; }

  /// <summary>Rows of scores of the step that has most; 0: 1.</summary>
  public int StepLogits { get; set; }

  /// <summary>Items that sample without having their logits written out, of the step that has most.</summary>
  public int StepSampled { get; set; }

  /// <summary>Items of the largest step that has a sampler or is watched: each needs a spare state.</summary>
  public int StepSpares { get; set; }
}

/// <summary>What belongs to no object.</summary>
public static class Library {
  /// <summary>The version of the native library, such as "0.3.0".</summary>
  public static string Version => Native.version();

  /// <summary>Grows by one with every incompatible change of the native library.</summary>
  public static int AbiVersion => (int)Native.abi_version();

  /// <summary>Every device, the CPU first, usable or not.</summary>
  public static IReadOnlyList<DeviceInfo> Devices {
    get {
      List<DeviceInfo> devices = new List<DeviceInfo>();
      ulong count = Native.device_count();
      for (ulong i = 0; i < count; i++)
        using (Interop.DeviceInfo raw = new Interop.DeviceInfo()) {
          Native.device_get_info(i, raw);
          devices.Add(new DeviceInfo(raw));
        }
      return devices;
    }
  }

  /// <summary>The memory a model will need, from the shapes in its file alone.</summary>
  /// <param name="path">As for <see cref="Model"/>.</param>
  /// <param name="needs">null: one cache and one token at a time.</param>
  /// <param name="options">Those the model will be loaded with; null: all defaults.</param>
  public static MemoryPlan PlanMemory(string path, MemoryNeeds needs = null, ModelOptions options = null) {
    Argument.NotNull(path, nameof(path));
    needs = needs ?? new MemoryNeeds();
    using (Interop.ModelOptions raw = (options ?? new ModelOptions()).ToNative())
    using (Interop.MemoryPlan plan = new Interop.MemoryPlan()) {
      plan.caches_count = Argument.Count(needs.CachesCount, nameof(needs.CachesCount));
      plan.step_tokens = Argument.Count(needs.StepTokens, nameof(needs.StepTokens));
      plan.step_logits = Argument.Count(needs.StepLogits, nameof(needs.StepLogits));
      plan.step_sampled = Argument.Count(needs.StepSampled, nameof(needs.StepSampled));
      plan.step_spares = Argument.Count(needs.StepSpares, nameof(needs.StepSpares));
      Interop.Model.plan_memory(path, raw, plan);
      return new MemoryPlan(plan);
    }
  }

  /// <summary>Rewrites a checkpoint as one GGUF file, which appears whole or not at all.</summary>
  /// <param name="source">Any checkpoint.</param>
  /// <param name="target">A file there is replaced.</param>
  /// <param name="weightType">F32, F16, BF16 or Q8 for the large matrices; default: F16.</param>
  /// <param name="vocabulary">A vocabulary file to put inside; null: the source's own, if any.</param>
  /// <param name="name">The name in the file; null: none.</param>
  /// <param name="progress">Told of bytes.</param>
  /// <param name="cancellationToken">Ends the conversion; the target is then not written.</param>
  public static void Convert(string source, string target, NumberType weightType = NumberType.Default,
                             string vocabulary = null, string name = null, IProgress<ProgressReport> progress = null,
                             CancellationToken cancellationToken = default(CancellationToken)) {
    Argument.NotNull(source, nameof(source));
    Argument.NotNull(target, nameof(target));
    using (Interop.ConvertOptions options = new Interop.ConvertOptions { weight_type = (int)weightType })
    using (Watcher watcher = new Watcher(progress, cancellationToken)) {
      watcher.Begin();
      if (vocabulary != null) options.set_vocabulary_path(vocabulary);
      if (name != null) options.set_name(name);
      options.set_progress(Watcher.Function, watcher.User);
      try {
        Native.convert(source, target, options);
      } catch (WkvCanceledException cancelled) {
        throw watcher.Ended(cancelled.Message);
      }
    }
  }
}

}
