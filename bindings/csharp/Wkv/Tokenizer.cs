// SPDX-License-Identifier: Apache-2.0
using System;
using System.Runtime.InteropServices;
using System.Text;
using Wkv.Interop;

namespace Wkv {

/// <summary>Text to token ids by greedy longest match, and back; byte-exact. Shared by any number of threads.</summary>
public sealed class Tokenizer : NativeObject {
  internal readonly Interop.Tokenizer Raw;

  /// <summary>Loads a vocabulary file, or that of a model file or directory.</summary>
  /// <param name="path">The file.</param>
  /// <exception cref="System.IO.FileNotFoundException">No such file, or a model without a vocabulary.</exception>
  /// <exception cref="FormatException">The message has the line number.</exception>
  public Tokenizer(string path) : this(Load(path)) {
  }

  internal Tokenizer(Interop.Tokenizer raw) : base(raw.swigCPtr) {
    Raw = raw;
  }

  private static Interop.Tokenizer Load(string path) {
    Interop.Tokenizer.load(Argument.NotNull(path, nameof(path)), out IntPtr tokenizer);
    return new Interop.Tokenizer(tokenizer, true);
  }

  /// <summary>From the content of a vocabulary file.</summary>
  /// <param name="bytes">All of it.</param>
  public static unsafe Tokenizer FromBytes(ReadOnlySpan<byte> bytes) {
    fixed (byte* from = &MemoryMarshal.GetReference(bytes)) {
      Interop.Tokenizer.load_memory(new NativeBuffer(from, bytes.Length), out IntPtr tokenizer);
      return new Tokenizer(new Interop.Tokenizer(tokenizer, true));
    }
  }

  /// <summary>Ids of a text.</summary>
  /// <param name="text">Any text.</param>
  /// <exception cref="NotSupportedException">No token begins with a byte of it; the message says where.</exception>
  public int[] Encode(string text) => Encode(Utf8.Encode(Argument.NotNull(text, nameof(text))));

  /// <summary>Ids of bytes.</summary>
  /// <param name="text">Any bytes, UTF-8 or not.</param>
  public unsafe int[] Encode(ReadOnlySpan<byte> text) {
    Check();
    int[] tokens = new int[text.Length];  // a token has at least one byte
    ulong count;
    fixed (byte* from = &MemoryMarshal.GetReference(text))
    fixed (int* to = tokens)
      Raw.encode(new NativeBuffer(from, text.Length), new NativeBuffer(to, tokens.Length), out count);
    Array.Resize(ref tokens, (int)count);
    return tokens;
  }

  /// <summary>Bytes of ids.</summary>
  /// <param name="tokens">Ids; 0 and those without a token give no bytes.</param>
  public unsafe byte[] DecodeBytes(ReadOnlySpan<int> tokens) {
    Check();
    fixed (int* from = &MemoryMarshal.GetReference(tokens)) {
      NativeBuffer source = new NativeBuffer(from, tokens.Length);
      Raw.decode(source, default(NativeBuffer), out ulong count);
      byte[] bytes = new byte[checked((int)count)];
      fixed (byte* to = bytes)
        Raw.decode(source, new NativeBuffer(to, bytes.Length), out count);
      return bytes;
    }
  }

  /// <summary>Text of ids; bytes that are not UTF-8 become U+FFFD.</summary>
  /// <param name="tokens">Ids; 0 and those without a token give no text.</param>
  public string Decode(ReadOnlySpan<int> tokens) => Encoding.UTF8.GetString(DecodeBytes(tokens));

  /// <summary>For tokens that arrive one by one: never splits a character.</summary>
  public TextDecoder CreateDecoder() => new TextDecoder(this);

  /// <summary>Its size.</summary>
  public TokenizerInfo Info {
    get {
      Check();
      using (Interop.TokenizerInfo raw = new Interop.TokenizerInfo()) {
        Raw.get_info(raw);
        return new TokenizerInfo(raw);
      }
    }
  }
}

/// <summary>Text of tokens that arrive one by one, always whole characters.</summary>
public sealed class TextDecoder : NativeObject {
  private readonly Interop.Decoder raw;

  /// <summary>Makes a decoder.</summary>
  /// <param name="tokenizer">Kept in memory.</param>
  public TextDecoder(Tokenizer tokenizer) : this(Create(tokenizer)) {
  }

  private TextDecoder(Interop.Decoder raw) : base(raw.swigCPtr) {
    this.raw = raw;
  }

  private static Interop.Decoder Create(Tokenizer tokenizer) {
    Argument.NotNull(tokenizer, nameof(tokenizer)).Check();
    Interop.Decoder.create(tokenizer.Raw, out IntPtr decoder);
    return new Interop.Decoder(decoder, true);
  }

  /// <summary>Feeds one token and gives the text that is complete now; it may be empty.</summary>
  /// <param name="token">An id.</param>
  public string Push(int token) {
    Check();
    // the text lies in the decoder until its next call
    lock (raw)
      using (new Hold(Handle)) {
        raw.push(token, out NativeBuffer text);
        return text.ToString();
      }
  }

  /// <summary>Ends the text: what is still incomplete comes out as U+FFFD, and the decoder is as new.</summary>
  public string Finish() {
    Check();
    lock (raw)
      using (new Hold(Handle)) {
        raw.finish(out NativeBuffer text);
        return text.ToString();
      }
  }
}

/// <summary>What a vocabulary is.</summary>
public sealed class TokenizerInfo {
  internal TokenizerInfo(Interop.TokenizerInfo raw) {
    Tokens = raw.tokens;
    IdsEnd = raw.ids_end;
    LongestBytes = raw.longest_bytes;
  }

  /// <summary>Ids that have bytes.</summary>
  public int Tokens { get; }

  /// <summary>The largest such id and one.</summary>
  public int IdsEnd { get; }

  /// <summary>Bytes of the longest token.</summary>
  public int LongestBytes { get; }
}

}
