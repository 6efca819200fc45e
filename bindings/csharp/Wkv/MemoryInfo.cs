// SPDX-License-Identifier: Apache-2.0
namespace Wkv {

/// <summary>Live and peak bytes that the library holds for one model.</summary>
public sealed class MemoryInfo {
  internal MemoryInfo(Interop.MemoryInfo raw) {
    LimitBytes = (long)raw.limit_bytes;
    WeightsBytes = (long)raw.weights_bytes;
    WeightsPeakBytes = (long)raw.weights_peak_bytes;
    CachesBytes = (long)raw.caches_bytes;
    CachesPeakBytes = (long)raw.caches_peak_bytes;
    WorkspaceBytes = (long)raw.workspace_bytes;
    WorkspacePeakBytes = (long)raw.workspace_peak_bytes;
    TotalBytes = (long)raw.total_bytes;
    TotalPeakBytes = (long)raw.total_peak_bytes;
    CheckpointsBytes = (long)raw.checkpoints_bytes;
    CheckpointsPeakBytes = (long)raw.checkpoints_peak_bytes;
    StoreBytes = (long)raw.store_bytes;
    StorePeakBytes = (long)raw.store_peak_bytes;
    ParkedBytes = (long)raw.parked_bytes;
  }

  /// <summary>The limit of the options; 0: none.</summary>
  public long LimitBytes { get; }

  /// <summary>Weights, mapped parts included.</summary>
  public long WeightsBytes { get; }

  /// <summary>Their peak.</summary>
  public long WeightsPeakBytes { get; }

  /// <summary>Caches.</summary>
  public long CachesBytes { get; }

  /// <summary>Their peak.</summary>
  public long CachesPeakBytes { get; }

  /// <summary>Workspace of steps.</summary>
  public long WorkspaceBytes { get; }

  /// <summary>Its peak.</summary>
  public long WorkspacePeakBytes { get; }

  /// <summary>All together.</summary>
  public long TotalBytes { get; }

  /// <summary>Its peak.</summary>
  public long TotalPeakBytes { get; }

  /// <summary>States that only checkpoints, initial states and steps in progress hold.</summary>
  public long CheckpointsBytes { get; }

  /// <summary>Their peak.</summary>
  public long CheckpointsPeakBytes { get; }

  /// <summary>States that only prefix stores hold.</summary>
  public long StoreBytes { get; }

  /// <summary>Their peak.</summary>
  public long StorePeakBytes { get; }

  /// <summary>States of a GPU's model that wait in the host's memory: not part of the others.</summary>
  public long ParkedBytes { get; }
}

/// <summary>The memory that a model will need, before it is loaded.</summary>
public sealed class MemoryPlan {
  internal MemoryPlan(Interop.MemoryPlan raw) {
    WeightsBytes = (long)raw.weights_bytes;
    MappedBytes = (long)raw.mapped_bytes;
    StateBytes = (long)raw.state_bytes;
    CachesBytes = (long)raw.caches_bytes;
    WorkspaceBytes = (long)raw.workspace_bytes;
    TotalBytes = (long)raw.total_bytes;
  }

  /// <summary>Weights, mapped parts included.</summary>
  public long WeightsBytes { get; }

  /// <summary>The part of the weights that lies in the mapped file.</summary>
  public long MappedBytes { get; }

  /// <summary>One state.</summary>
  public long StateBytes { get; }

  /// <summary>All states that were asked for.</summary>
  public long CachesBytes { get; }

  /// <summary>Workspace of the largest step.</summary>
  public long WorkspaceBytes { get; }

  /// <summary>All together.</summary>
  public long TotalBytes { get; }
}

}
