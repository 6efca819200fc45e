// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;

namespace Wkv {

/// <summary>What a cache is and what it has read.</summary>
public sealed class CacheInfo {
  internal CacheInfo(Interop.CacheInfo raw) {
    StateType = (NumberType)raw.state_type;
    Position = (long)raw.position;
    Bytes = (long)raw.bytes;
    LastToken = raw.last_token;
    IsShared = raw.is_shared != 0;
    Device = raw.device;
    KeptCount = (long)raw.kept_count;
    KeptBytes = (long)raw.kept_bytes;
    LastTokens = new ArraySegment<int>(raw.last_tokens, 0, raw.last_tokens_count);
  }

  /// <summary>Numbers of the state.</summary>
  public NumberType StateType { get; }

  /// <summary>Tokens read since creation or reset.</summary>
  public long Position { get; }

  /// <summary>Memory of a state of its own: what the next step needs if it is shared.</summary>
  public long Bytes { get; }

  /// <summary>The token read last; -1: none, or not known.</summary>
  public int LastToken { get; }

  /// <summary>Whether the state's memory is shared with other caches, checkpoints or a store.</summary>
  public bool IsShared { get; }

  /// <summary>Where the state is.</summary>
  public string Device { get; }

  /// <summary>Positions that <see cref="Cache.Rollback"/> can go to.</summary>
  public long KeptCount { get; }

  /// <summary>Memory of the kept states as if none was shared: an upper bound.</summary>
  public long KeptBytes { get; }

  /// <summary>The last tokens read, at most 16, the last one at the end.</summary>
  public IReadOnlyList<int> LastTokens { get; }
}

/// <summary>What a saved cache or session says of itself; see <see cref="Cache.ReadHeader(string)"/>.</summary>
public sealed class BlobInfo {
  internal BlobInfo(Interop.BlobInfo raw) {
    FormatVersion = raw.format_version;
    Fingerprint = raw.fingerprint;
    Position = (long)raw.position;
    Bytes = (long)raw.bytes;
    Layers = raw.layers;
    Width = raw.width;
    Heads = raw.heads;
    HeadSize = raw.head_size;
    VocabSize = raw.vocab_size;
    StateType = (NumberType)raw.state_type;
    LastTokens = new ArraySegment<int>(raw.last_tokens, 0, raw.last_tokens_count);
    HasSampler = raw.has_sampler != 0;
    HasGeneration = raw.has_generation != 0;
    HasLogits = raw.has_logits != 0;
    HasTokens = raw.has_tokens != 0;
  }

  /// <summary>Version of the format.</summary>
  public uint FormatVersion { get; }

  /// <summary>Of the model, as in <see cref="ModelInfo.Fingerprint"/>.</summary>
  public ulong Fingerprint { get; }

  /// <summary>Tokens that the state has read.</summary>
  public long Position { get; }

  /// <summary>Size of all of it.</summary>
  public long Bytes { get; }

  /// <summary>Layers of the model.</summary>
  public int Layers { get; }

  /// <summary>Width of the model.</summary>
  public int Width { get; }

  /// <summary>Heads of the model.</summary>
  public int Heads { get; }

  /// <summary>Head size of the model.</summary>
  public int HeadSize { get; }

  /// <summary>Token ids of the model.</summary>
  public int VocabSize { get; }

  /// <summary>Numbers of the saved state.</summary>
  public NumberType StateType { get; }

  /// <summary>The last tokens read, at most 16, the last one at the end.</summary>
  public IReadOnlyList<int> LastTokens { get; }

  /// <summary>It is a session with a sampler.</summary>
  public bool HasSampler { get; }

  /// <summary>It is a session with a generation.</summary>
  public bool HasGeneration { get; }

  /// <summary>It is a session with the last scores.</summary>
  public bool HasLogits { get; }

  /// <summary>The token ids of the whole sequence are in it: an entry of a prefix store.</summary>
  public bool HasTokens { get; }
}

}
