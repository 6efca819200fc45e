// SPDX-License-Identifier: Apache-2.0
using System;
using System.Runtime.InteropServices;

namespace Wkv.Interop {

/// <summary>Owns one native object, or borrows one. The runtime counts the calls that use it: closing waits for them.
/// </summary>
internal sealed class NativeHandle : SafeHandle {
  internal static readonly NativeHandle Null = new NativeHandle(IntPtr.Zero, null);

  private readonly Action<IntPtr> release;
  private IDisposable attachment;
  private long pressure;

  /// <param name="pointer">The object.</param>
  /// <param name="release">What ends it; null: it is somebody else's.</param>
  internal NativeHandle(IntPtr pointer, Action<IntPtr> release) : base(IntPtr.Zero, release != null) {
    this.release = release;
    SetHandle(pointer);
  }

  public override bool IsInvalid => handle == IntPtr.Zero;

  /// <summary>Another handle of the same object, which lives until both are closed.</summary>
  internal NativeHandle Share() {
    bool isHeld = false;
    DangerousAddRef(ref isHeld);
    return new NativeHandle(handle, _ => DangerousRelease());
  }

  /// <summary>What goes after the object, which may use it to its end.</summary>
  internal void Attach(IDisposable used) => attachment = used;

  /// <summary>Tells the garbage collector of memory that it does not see.</summary>
  internal void AddPressure(long bytes) {
    if (bytes <= 0) return;
    GC.AddMemoryPressure(bytes);
    pressure = bytes;
  }

  protected override bool ReleaseHandle() {
    release(handle);
    attachment?.Dispose();
    if (pressure > 0) GC.RemoveMemoryPressure(pressure);
    return true;
  }
}

/// <summary>Keeps an object for a block: for pointers that a call leaves in other memory.</summary>
internal readonly struct Hold : IDisposable {
  private readonly NativeHandle handle;

  internal Hold(NativeHandle handle) {
    bool isHeld = false;
    handle.DangerousAddRef(ref isHeld);
    this.handle = handle;
  }

  /// <summary>Holds the object of an argument that may be null.</summary>
  internal static Hold On(NativeObject thing) {
    if (thing == null) return default(Hold);
    thing.Check();
    return new Hold(thing.Handle);
  }

  internal IntPtr Pointer => handle == null ? IntPtr.Zero : handle.DangerousGetHandle();

  public void Dispose() {
    if (handle != null) handle.DangerousRelease();
  }
}

}
