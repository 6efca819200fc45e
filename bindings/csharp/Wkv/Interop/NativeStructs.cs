// SPDX-License-Identifier: Apache-2.0
// The structs of typemaps/arguments.h, field by field.
using System;
using System.Runtime.InteropServices;

namespace Wkv.Interop {

/// <summary>Memory that is pinned until the call has returned.</summary>
[StructLayout(LayoutKind.Sequential)]
internal readonly unsafe struct NativeBuffer {
  internal readonly IntPtr Data;
  internal readonly ulong Count;

  internal NativeBuffer(void* data, int count) {
    Data = (IntPtr)data;
    Count = (ulong)count;
  }

  /// <summary>A copy as bytes.</summary>
  internal byte[] ToArray() {
    byte[] bytes = new byte[checked((int)Count)];
    if (bytes.Length > 0) Marshal.Copy(Data, bytes, 0, bytes.Length);
    return bytes;
  }

  /// <summary>A copy as text.</summary>
  public override string ToString() => Utf8.Text(Data, checked((int)Count));
}

/// <summary>An item of a batch step.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NativeItem {
  internal NativeBuffer Tokens, Logits;
  internal IntPtr Cache, Sampler;
  internal uint Flags;
  internal int NextToken, Status;
}

/// <summary>An index, and the cache that it belongs to or leads to.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NativeChoice {
  internal ulong Index;
  internal IntPtr Cache;
}

/// <summary>What a piece of a generation holds.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NativePiece {
  internal NativeBuffer Text, Unread;
  internal long TokensGenerated, PromptTokens, ReusedTokens;
  internal int Token, Reason, PendingToken, AlternativesCount;
  internal float LogProbability;
}

/// <summary>wkv_token_probability.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NativeProbability {
  internal int Token;
  internal float LogProbability;
}

}
