// SPDX-License-Identifier: Apache-2.0
using System;
using System.Text;

namespace Wkv.Interop {

/// <summary>Text as the library has it.</summary>
internal static class Utf8 {
  // half a character is refused, as it could not be read back
  private static readonly UTF8Encoding strict = new UTF8Encoding(false, true);

  /// <summary>Terminated; null stays null.</summary>
  /// <exception cref="ArgumentException">The text contains NUL, where C would end it.</exception>
  internal static byte[] Bytes(string text) {
    if (text == null) return null;
    if (text.IndexOf('\0') >= 0) throw new ArgumentException("the text contains NUL");
    byte[] bytes = new byte[strict.GetByteCount(text) + 1];
    strict.GetBytes(text, 0, text.Length, bytes, 0);
    return bytes;
  }

  /// <summary>Not terminated: for text that goes with its length.</summary>
  internal static byte[] Encode(string text) => strict.GetBytes(text);

  internal static unsafe string Text(IntPtr pointer) {
    if (pointer == IntPtr.Zero) return null;
    byte* bytes = (byte*)pointer;
    int count = 0;
    while (bytes[count] != 0) count++;
    return Text(pointer, count);
  }

  internal static unsafe string Text(IntPtr pointer, int count) =>
      count == 0 ? "" : Encoding.UTF8.GetString((byte*)pointer, count);
}

}
