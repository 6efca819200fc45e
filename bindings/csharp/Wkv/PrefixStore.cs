// SPDX-License-Identifier: Apache-2.0
using System;
using System.Runtime.InteropServices;
using Wkv.Interop;

namespace Wkv {

/// <summary>How a prefix store is made. What is left alone has the library's default.</summary>
public sealed class PrefixStoreOptions {
  /// <summary>Shorter sequences are not kept; 0: 16.</summary>
  public int MinTokens { get; set; }

  /// <summary>Budget of states in memory; 0: 256 MiB.</summary>
  public long MemoryBytesMax { get; set; }

  /// <summary>Where entries outlive the process; null: nowhere. Made when it is not there.</summary>
  public string Directory { get; set; }

  /// <summary>Budget of this model's entries in the directory; 0: no limit.</summary>
  public long DirectoryBytesMax { get; set; }

  /// <summary>Numbers of states in the directory: F32, the default, or F16.</summary>
  public NumberType SaveType { get; set; }
}

/// <summary>States of token sequences that were read before, so that a prompt that begins like one of them costs its
/// new tokens only. Give it to a generation, or use <see cref="Find"/> and <see cref="Put"/>. Calls of several threads
/// take turns.</summary>
public sealed class PrefixStore : NativeObject {
  internal readonly Interop.PrefixStore Raw;

  /// <summary>Makes a store for one model.</summary>
  /// <param name="model">Kept in memory.</param>
  /// <param name="options">null: all defaults.</param>
  /// <exception cref="System.IO.IOException">The directory cannot be made or read.</exception>
  public PrefixStore(Model model, PrefixStoreOptions options = null)
      : this(Create(model, options ?? new PrefixStoreOptions())) {
  }

  private PrefixStore(Interop.PrefixStore raw) : base(raw.swigCPtr) {
    Raw = raw;
  }

  private static Interop.PrefixStore Create(Model model, PrefixStoreOptions options) {
    Argument.NotNull(model, nameof(model)).Check();
    using (Interop.PrefixStoreOptions raw = new Interop.PrefixStoreOptions()) {
      raw.min_tokens = Argument.Count(options.MinTokens, nameof(options.MinTokens));
      raw.memory_bytes_max = Argument.Count(options.MemoryBytesMax, nameof(options.MemoryBytesMax));
      raw.directory_bytes_max = Argument.Count(options.DirectoryBytesMax, nameof(options.DirectoryBytesMax));
      raw.save_type = (int)options.SaveType;
      raw.set_directory(options.Directory);
      Interop.PrefixStore.create(model.Raw, raw, out IntPtr store);
      return new Interop.PrefixStore(store, true);
    }
  }

  /// <summary>Puts the longest beginning of a sequence that the store has into a cache. It is shorter than the
  /// sequence, so that there is a token left to feed for scores.</summary>
  /// <param name="tokens">The sequence from its very beginning.</param>
  /// <param name="cache">Replaced when something is found, else left alone.</param>
  /// <returns>Tokens that the cache has read now; 0: nothing was found.</returns>
  public unsafe int Find(ReadOnlySpan<int> tokens, Cache cache) {
    Argument.NotNull(cache, nameof(cache)).Check();
    Check();
    fixed (int* from = &MemoryMarshal.GetReference(tokens)) {
      Raw.find(new NativeBuffer(from, tokens.Length), cache.Raw, out ulong known);
      return (int)known;
    }
  }

  /// <summary>Keeps the state of a cache that has read exactly these tokens.</summary>
  /// <param name="tokens">Every token that the cache has read.</param>
  /// <param name="cache">Not changed.</param>
  public unsafe void Put(ReadOnlySpan<int> tokens, Cache cache) {
    Argument.NotNull(cache, nameof(cache)).Check();
    Check();
    fixed (int* from = &MemoryMarshal.GetReference(tokens))
      Raw.put(new NativeBuffer(from, tokens.Length), cache.Raw);
  }

  /// <summary>Forgets every entry, in the directory too.</summary>
  public void Clear() {
    Check();
    Raw.clear();
  }

  /// <summary>What it holds and how it was used.</summary>
  public PrefixStoreInfo Info {
    get {
      Check();
      using (Interop.PrefixStoreInfo raw = new Interop.PrefixStoreInfo()) {
        Raw.get_info(raw);
        return new PrefixStoreInfo(raw);
      }
    }
  }
}

/// <summary>What a prefix store holds and how it was used.</summary>
public sealed class PrefixStoreInfo {
  internal PrefixStoreInfo(Interop.PrefixStoreInfo raw) {
    Entries = (long)raw.entries;
    EntriesBytes = (long)raw.entries_bytes;
    StoredEntries = (long)raw.stored_entries;
    StoredBytes = (long)raw.stored_bytes;
    Finds = (long)raw.finds;
    Hits = (long)raw.hits;
    StoredHits = (long)raw.stored_hits;
    ReusedTokens = (long)raw.reused_tokens;
    Puts = (long)raw.puts;
    Evictions = (long)raw.evictions;
    StorageFailures = (long)raw.storage_failures;
  }

  /// <summary>Entries in memory.</summary>
  public long Entries { get; }

  /// <summary>What they count against the memory budget.</summary>
  public long EntriesBytes { get; }

  /// <summary>Entries in the directory.</summary>
  public long StoredEntries { get; }

  /// <summary>Their bytes.</summary>
  public long StoredBytes { get; }

  /// <summary>Calls of <see cref="PrefixStore.Find"/>.</summary>
  public long Finds { get; }

  /// <summary>Those that found something.</summary>
  public long Hits { get; }

  /// <summary>Those of the hits that came from the directory.</summary>
  public long StoredHits { get; }

  /// <summary>Tokens that need not be computed, over all hits.</summary>
  public long ReusedTokens { get; }

  /// <summary>Entries made.</summary>
  public long Puts { get; }

  /// <summary>Entries that left memory because it was short.</summary>
  public long Evictions { get; }

  /// <summary>Entries that the directory did not take, or gave back damaged.</summary>
  public long StorageFailures { get; }
}

}
