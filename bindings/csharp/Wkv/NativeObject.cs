// SPDX-License-Identifier: Apache-2.0
using System;
using Wkv.Interop;

namespace Wkv {

/// <summary>Owns one object of the library. Closing it while another thread is inside a call on it is fine: that call
/// finishes first. Objects may be closed in any order, or left to the garbage collector.</summary>
public abstract class NativeObject : IDisposable {
  internal readonly NativeHandle Handle;
  // a handle that is in use, by a call or by a cache of a model, counts as open until it is not
  private volatile bool isClosed;

  internal NativeObject(NativeHandle handle) {
    Handle = handle;
  }

  /// <summary>Whether <see cref="Dispose"/> was called. Every other use then throws
  /// <see cref="ObjectDisposedException"/>.</summary>
  public bool IsClosed => isClosed;

  /// <summary>Lets go of the object; twice is fine.</summary>
  public virtual void Dispose() {
    isClosed = true;
    Handle.Dispose();
  }

  internal void Check() {
    if (isClosed) throw new ObjectDisposedException(GetType().FullName);
  }
}

/// <summary>How far a long call has come.</summary>
public readonly struct ProgressReport {
  internal ProgressReport(long done, long total) {
    Done = done;
    Total = total;
  }

  /// <summary>Bytes of a load or a conversion, tokens of a step or a prompt. Never falls.</summary>
  public long Done { get; }

  /// <summary>What <see cref="Done"/> is at the end.</summary>
  public long Total { get; }

  /// <summary>From 0 to 1.</summary>
  public double Share => Total > 0 ? (double)Done / Total : 1;
}

}
