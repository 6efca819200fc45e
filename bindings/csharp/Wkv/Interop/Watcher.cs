// SPDX-License-Identifier: Apache-2.0
using System;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Threading;

namespace Wkv.Interop {

/// <summary>Watches long calls: reports progress, and ends them when a token is cancelled or a report throws. One
/// function is called for all of them, with a GC handle that leads to the watcher; nothing is ever thrown through the
/// library. The handle is weak: whoever makes a call keeps the watcher for as long.</summary>
internal sealed class Watcher : IDisposable {
  [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
  private delegate int Callback(IntPtr user, ulong done, ulong total);

  private static readonly Callback callback = Report;
  internal static readonly IntPtr Function = Marshal.GetFunctionPointerForDelegate(callback);

  private readonly IProgress<ProgressReport> progress;
  private readonly CancellationToken token;
  private CancellationToken callToken;
  private ExceptionDispatchInfo failure;
  private GCHandle self;

  internal Watcher(IProgress<ProgressReport> progress, CancellationToken token) {
    this.progress = progress;
    this.token = token;
    self = GCHandle.Alloc(this, GCHandleType.Weak);
  }

  public void Dispose() => self.Free();

  /// <summary>What <see cref="Function"/> is called with.</summary>
  internal IntPtr User => GCHandle.ToIntPtr(self);

  /// <summary>Whether there is anything to watch for: a step that is watched needs memory for a spare state.</summary>
  internal static bool IsNeeded(IProgress<ProgressReport> progress, CancellationToken token) =>
      progress != null || token.CanBeCanceled;

  /// <summary>Before each call; a token that is cancelled already ends it here.</summary>
  internal void Begin(CancellationToken ofThisCall = default(CancellationToken)) {
    failure = null;
    callToken = ofThisCall;
    if (IsCancelled) throw Ended("cancelled before the call");
  }

  /// <summary>What to throw for a call that ended as cancelled.</summary>
  internal Exception Ended(string message) {
    if (failure != null) failure.Throw();
    return new WkvCanceledException(message, token.IsCancellationRequested ? token : callToken);
  }

  private bool IsCancelled => token.IsCancellationRequested || callToken.IsCancellationRequested;

  private static int Report(IntPtr user, ulong done, ulong total) {
    Watcher watcher = (Watcher)GCHandle.FromIntPtr(user).Target;
    try {
      if (watcher.progress != null && !watcher.IsCancelled)
        watcher.progress.Report(new ProgressReport((long)done, (long)total));
      return watcher.IsCancelled ? 1 : 0;
    } catch (Exception exception) {
      watcher.failure = ExceptionDispatchInfo.Capture(exception);
      return 1;
    }
  }
}

}
