// SPDX-License-Identifier: Apache-2.0
using System;
using System.IO;
using System.Threading;
using Wkv.Interop;

namespace Wkv {

/// <summary>The outcome of a call of the library, in numbers that never change.</summary>
public enum Status {
  /// <summary>Success.</summary>
  Ok = Native.OK,
  /// <summary>A generation has nothing more.</summary>
  End = Native.END,
  /// <summary>An argument is wrong.</summary>
  Invalid = Native.INVALID,
  /// <summary>No such file, device, kernel or entry.</summary>
  NotFound = Native.NOT_FOUND,
  /// <summary>The operating system refused to read or write.</summary>
  IO = Native.IO,
  /// <summary>The bytes are damaged or not what they claim to be.</summary>
  Format = Native.FORMAT,
  /// <summary>Understood, but this library cannot do it.</summary>
  Unsupported = Native.UNSUPPORTED,
  /// <summary>Memory is gone, or a memory limit was reached.</summary>
  OutOfMemory = Native.OUT_OF_MEMORY,
  /// <summary>The object is in use by another call.</summary>
  Busy = Native.BUSY,
  /// <summary>A token was cancelled.</summary>
  Cancelled = Native.CANCELLED,
  /// <summary>Valid, but of another model.</summary>
  Mismatch = Native.MISMATCH,
  /// <summary>The device failed; what it held may be lost.</summary>
  Device = Native.DEVICE,
  /// <summary>A fault of the library: please report it.</summary>
  Internal = Native.INTERNAL
}

/// <summary>What every failure of the library is, whichever exception carries it:
/// <c>catch (Exception e) when (e is IWkvFailure)</c> catches all of them, <c>catch (ArgumentException)</c> and the
/// like those of one kind. After a failure objects are as before the call, unless the code is <see
/// cref="Status.Device"/>. </summary>
public interface IWkvFailure {
  /// <summary>The library's number for this failure.</summary>
  Status Code { get; }

  /// <summary>One line: the fact and the value.</summary>
  string Message { get; }
}

/// <summary>A failure without a kind of its own in .NET: the device failed, or a fault of the library.</summary>
public sealed class WkvException : Exception, IWkvFailure {
  internal WkvException(string message, Status code) : base(message) {
    Code = code;
  }

  /// <inheritdoc/>
  public Status Code { get; }
}

/// <summary>An argument is wrong, or something belongs to another model (<see cref="Status.Mismatch"/>).</summary>
public sealed class WkvArgumentException : ArgumentException, IWkvFailure {
  internal WkvArgumentException(string message, Status code) : base(message) {
    Code = code;
  }

  /// <inheritdoc/>
  public Status Code { get; }
}

/// <summary>No such file, device, kernel or entry.</summary>
public sealed class WkvNotFoundException : FileNotFoundException, IWkvFailure {
  internal WkvNotFoundException(string message) : base(message) {
  }

  /// <inheritdoc/>
  public Status Code => Status.NotFound;
}

/// <summary>The operating system refused to read or write.</summary>
public sealed class WkvIOException : IOException, IWkvFailure {
  internal WkvIOException(string message) : base(message) {
  }

  /// <inheritdoc/>
  public Status Code => Status.IO;
}

/// <summary>The bytes are damaged or not what they claim to be.</summary>
public sealed class WkvFormatException : FormatException, IWkvFailure {
  internal WkvFormatException(string message) : base(message) {
  }

  /// <inheritdoc/>
  public Status Code => Status.Format;
}

/// <summary>Understood, but this library cannot do it.</summary>
public sealed class WkvNotSupportedException : NotSupportedException, IWkvFailure {
  internal WkvNotSupportedException(string message) : base(message) {
  }

  /// <inheritdoc/>
  public Status Code => Status.Unsupported;
}

/// <summary>Memory is gone, or a memory limit was reached.</summary>
public sealed class WkvOutOfMemoryException : OutOfMemoryException, IWkvFailure {
  internal WkvOutOfMemoryException(string message) : base(message) {
  }

  /// <inheritdoc/>
  public Status Code => Status.OutOfMemory;
}

/// <summary>The object is in use by another call.</summary>
public sealed class WkvBusyException : InvalidOperationException, IWkvFailure {
  internal WkvBusyException(string message) : base(message) {
  }

  /// <inheritdoc/>
  public Status Code => Status.Busy;
}

/// <summary>A token was cancelled: everything is as before the call, and can go on.</summary>
public sealed class WkvCanceledException : OperationCanceledException, IWkvFailure {
  internal WkvCanceledException(string message, CancellationToken token = default(CancellationToken))
      : base(message, token) {
  }

  /// <inheritdoc/>
  public Status Code => Status.Cancelled;
}

}
