// SPDX-License-Identifier: Apache-2.0
using System;

namespace Wkv.Interop {

/// <summary>Statuses as exceptions; the generated code asks here.</summary>
internal static class Failure {
  internal static Exception From(int status, string message) {
    switch ((Status)status) {
      case Status.Invalid: return new WkvArgumentException(message, Status.Invalid);
      case Status.NotFound: return new WkvNotFoundException(message);
      case Status.IO: return new WkvIOException(message);
      case Status.Format: return new WkvFormatException(message);
      case Status.Unsupported: return new WkvNotSupportedException(message);
      case Status.OutOfMemory: return new WkvOutOfMemoryException(message);
      case Status.Busy: return new WkvBusyException(message);
      case Status.Cancelled: return new WkvCanceledException(message);
      case Status.Mismatch: return new WkvArgumentException(message, Status.Mismatch);
      default: return new WkvException(message, (Status)status);
    }
  }
}

/// <summary>Checks that are made before the library is called.</summary>
internal static class Argument {
  internal static T NotNull<T>(T argument, string name) where T : class =>
      argument ?? throw new ArgumentNullException(name);

  /// <summary>A count or a size of .NET as one of the library.</summary>
  internal static ulong Count(long number, string name) =>
      number >= 0 ? (ulong)number : throw new ArgumentOutOfRangeException(name, number, "must not be negative");

  internal static uint Count(int number, string name) => (uint)Count((long)number, name);
}

}
