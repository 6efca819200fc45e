// SPDX-License-Identifier: Apache-2.0
namespace Wkv {

/// <summary>A device where models can run, or could.</summary>
public sealed class DeviceInfo {
  internal DeviceInfo(Interop.DeviceInfo raw) {
    IsUsable = raw.is_usable != 0;
    Name = raw.name;
    Description = raw.description;
    Kernels = raw.kernels;
    UnusableReason = raw.unusable_reason;
    MemoryBytes = (long)raw.memory_bytes;
    Cores = raw.cores;
  }

  /// <summary>Whether a model can be loaded there; if not, <see cref="UnusableReason"/> says why.</summary>
  public bool IsUsable { get; }

  /// <summary>What <see cref="ModelOptions.Device"/> takes: "cpu", "cuda:0".</summary>
  public string Name { get; }

  /// <summary>For people: processor model, cores.</summary>
  public string Description { get; }

  /// <summary>Kernel sets usable there, best first, separated by commas.</summary>
  public string Kernels { get; }

  /// <summary>Empty, or why it cannot be used.</summary>
  public string UnusableReason { get; }

  /// <summary>Total memory of the device.</summary>
  public long MemoryBytes { get; }

  /// <summary>Processor cores this process may use; multiprocessors of a GPU.</summary>
  public int Cores { get; }
}

}
