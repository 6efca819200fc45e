// SPDX-License-Identifier: Apache-2.0
using System;
using System.Runtime.InteropServices;
using Wkv.Interop;

namespace Wkv {

/// <summary>Everything a conversation needs to go on, saved as one thing: a cache, and where there are any, a sampler,
/// a generation in the middle of its text, the last scores. After a load, in another process, language or machine, the
/// next tokens are those that would have come.</summary>
/// <example><code>
/// new Session(generation).Save("chat.wkv");
/// ...
/// using (Session again = model.LoadSession("chat.wkv"))
///   foreach (string piece in again.Generation) Console.Write(piece);
/// </code></example>
public sealed class Session : IDisposable {
  private readonly bool ownsParts;

  /// <summary>A session of parts that stay yours.</summary>
  /// <param name="cache">What has been read.</param>
  /// <param name="sampler">null: none.</param>
  public Session(Cache cache, Sampler sampler = null) {
    Cache = Argument.NotNull(cache, nameof(cache));
    Sampler = sampler;
  }

  /// <summary>A session of a generation, its cache and its sampler, which stay yours.</summary>
  /// <param name="generation">May be in the middle of a stop string or a character.</param>
  public Session(Generation generation) {
    Generation = Argument.NotNull(generation, nameof(generation));
    Cache = generation.Cache;
    Sampler = generation.Sampler;
  }

  private Session(Model model, Interop.Session raw) {
    ownsParts = true;
    // every part has an owner before anything can go wrong
    Interop.Cache cache = new Interop.Cache(raw.take_cache(), true);
    IntPtr sampler = raw.take_sampler(), generation = raw.take_generation();
    if (sampler != IntPtr.Zero) Sampler = new Sampler(new Interop.Sampler(sampler, true));
    Interop.Generation rest = generation == IntPtr.Zero ? null : new Interop.Generation(generation, true);
    Cache = new Cache(cache, model);
    if (rest != null) Generation = new Generation(rest, Cache, Sampler);
  }

  /// <summary>What has been read.</summary>
  public Cache Cache { get; }

  /// <summary>null: none.</summary>
  public Sampler Sampler { get; }

  /// <summary>null: none.</summary>
  public Generation Generation { get; }

  /// <summary>Scores after the last token; null: none.</summary>
  public float[] Logits { get; set; }

  /// <summary>Saves the session to a file, which appears whole or not at all.</summary>
  /// <param name="path">A file there is replaced.</param>
  /// <param name="stateType">F32, the default, or F16.</param>
  public void Save(string path, NumberType stateType = NumberType.Default) {
    Argument.NotNull(path, nameof(path));
    using (Lent lent = new Lent(this))
    using (Interop.SaveOptions options = new Interop.SaveOptions { state_type = (int)stateType })
      lent.Raw.save(path, options);
  }

  /// <summary>What <see cref="Save"/> writes; <see cref="FromBytes"/> reads it.</summary>
  /// <param name="stateType">F32, the default, or F16.</param>
  public unsafe byte[] ToBytes(NumberType stateType = NumberType.Default) {
    using (Lent lent = new Lent(this))
    using (Interop.SaveOptions options = new Interop.SaveOptions { state_type = (int)stateType })
      return Filled.Array<byte>((memory, capacity) => {
        fixed (byte* to = memory) {
          lent.Raw.serialize(options, new NativeBuffer(to, capacity), out ulong count);
          return count;
        }
      });
  }

  /// <summary>A session from a file that <see cref="Save"/> or <see cref="Cache.Save"/> wrote.</summary>
  /// <param name="model">The model it was saved from, or one with the same weights.</param>
  /// <param name="path">The file.</param>
  /// <param name="tokenizer">Of the generation; null: the model's own.</param>
  /// <exception cref="FormatException">Damaged, or no session.</exception>
  /// <exception cref="ArgumentException">Of another model (<see cref="Status.Mismatch"/>).</exception>
  public static Session Load(Model model, string path, Tokenizer tokenizer = null) {
    Argument.NotNull(path, nameof(path));
    return Make(model, tokenizer, raw => Interop.Session.load(model.Raw, path, raw));
  }

  /// <summary>A session from what <see cref="ToBytes"/> gave.</summary>
  /// <param name="model">The model it was saved from, or one with the same weights.</param>
  /// <param name="bytes">All of it.</param>
  /// <param name="tokenizer">Of the generation; null: the model's own.</param>
  public static unsafe Session FromBytes(Model model, ReadOnlySpan<byte> bytes, Tokenizer tokenizer = null) {
    fixed (byte* from = &MemoryMarshal.GetReference(bytes)) {
      NativeBuffer buffer = new NativeBuffer(from, bytes.Length);
      return Make(model, tokenizer, raw => Interop.Session.deserialize(model.Raw, buffer, raw));
    }
  }

  private static unsafe Session Make(Model model, Tokenizer tokenizer, Action<Interop.Session> load) {
    Argument.NotNull(model, nameof(model)).Check();
    using (Hold.On(tokenizer))
    using (Interop.Session raw = new Interop.Session()) {
      raw.set_tokenizer(tokenizer?.Raw);
      raw.reserve_logits((ulong)model.VocabSize);
      load(raw);
      Session session = new Session(model, raw);
      if (raw.has_logits != 0) {
        session.Logits = new float[model.VocabSize];
        fixed (float* to = session.Logits)
          raw.get_logits(new NativeBuffer(to, session.Logits.Length));
      }
      return session;
    }
  }

  /// <summary>Lets go of the parts of a session that was loaded. Those that a session was made of stay open.</summary>
  public void Dispose() {
    if (!ownsParts) return;
    Generation?.Dispose();
    Sampler?.Dispose();
    Cache.Dispose();
  }

  /// <summary>A native session, whose parts are held until it has been saved.</summary>
  private sealed class Lent : IDisposable {
    internal readonly Interop.Session Raw = new Interop.Session();
    private Hold cache, sampler, generation;

    internal unsafe Lent(Session session) {
      try {
        cache = Hold.On(session.Cache);
        sampler = Hold.On(session.Sampler);
        generation = Hold.On(session.Generation);
        if (session.Logits != null)
          fixed (float* from = session.Logits)
            Raw.set_logits(new NativeBuffer(from, session.Logits.Length));
        Raw.lend_parts(session.Cache.Raw, session.Sampler?.Raw, session.Generation?.Raw);
      } catch {
        Dispose();
        throw;
      }
    }

    public void Dispose() {
      if (!Raw.swigCPtr.IsClosed) Raw.forget_parts();
      Raw.Dispose();
      generation.Dispose();
      sampler.Dispose();
      cache.Dispose();
    }
  }
}

}
