// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;

namespace Wkv.Interop {

/// <summary>Arrays whose size the library knows.</summary>
internal static class Filled {
  /// <summary>Fills as much memory as there is room, and gives the count that there is.</summary>
  internal delegate ulong Write<T>(T[] memory, int capacity);

  /// <summary>What a function fills. Another thread may make it larger between the question and the answer.</summary>
  internal static T[] Array<T>(Write<T> write) {
    int size = checked((int)write(null, 0));
    while (true) {
      T[] memory = new T[size];
      try {
        System.Array.Resize(ref memory, checked((int)write(memory, size)));
        return memory;
      } catch (WkvArgumentException) {
        int larger = checked((int)write(null, 0));
        if (larger <= size) throw;
        size = larger;
      }
    }
  }
}

/// <summary>The native objects of several caches, held for a block.</summary>
internal sealed class HeldCaches : IDisposable {
  private readonly Hold[] holds;

  internal HeldCaches(IReadOnlyList<Wkv.Cache> caches) {
    holds = new Hold[Argument.NotNull(caches, nameof(caches)).Count];
    Pointers = new IntPtr[holds.Length];
    try {
      for (int i = 0; i < holds.Length; i++) {
        holds[i] = Hold.On(Argument.NotNull(caches[i], nameof(caches)));
        Pointers[i] = holds[i].Pointer;
      }
    } catch {
      Dispose();
      throw;
    }
  }

  internal IntPtr[] Pointers { get; }

  public void Dispose() {
    foreach (Hold hold in holds) hold.Dispose();
  }
}

}
