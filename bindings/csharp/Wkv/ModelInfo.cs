// SPDX-License-Identifier: Apache-2.0
namespace Wkv {

/// <summary>What a model is: shapes, types, device, kernels.</summary>
public sealed class ModelInfo {
  internal ModelInfo(Interop.ModelInfo raw) {
    Layers = raw.layers;
    Width = raw.width;
    Heads = raw.heads;
    HeadSize = raw.head_size;
    FfnWidth = raw.ffn_width;
    VocabSize = raw.vocab_size;
    RankW = raw.rank_w;
    RankA = raw.rank_a;
    RankV = raw.rank_v;
    RankG = raw.rank_g;
    Threads = raw.threads;
    StateType = (NumberType)raw.state_type;
    HasTokenizer = raw.has_tokenizer != 0;
    IsReproducible = raw.is_reproducible != 0;
    ChunkTokens = raw.chunk_tokens;
    Parameters = (long)raw.parameters;
    WeightBytes = (long)raw.weight_bytes;
    MappedBytes = (long)raw.mapped_bytes;
    StepBytes = (long)raw.step_bytes;
    StateBytes = (long)raw.state_bytes;
    Fingerprint = raw.fingerprint;
    Format = raw.format;
    StoredTypes = raw.stored_types;
    ComputeTypes = raw.compute_types;
    Device = raw.device;
    Kernels = raw.kernels;
  }

  /// <summary>Layers.</summary>
  public int Layers { get; }

  /// <summary>Numbers that a token is inside the model.</summary>
  public int Width { get; }

  /// <summary>Heads of a layer.</summary>
  public int Heads { get; }

  /// <summary>Numbers of a head; <see cref="Heads"/> times this is <see cref="Width"/>.</summary>
  public int HeadSize { get; }

  /// <summary>Numbers inside a channel mix.</summary>
  public int FfnWidth { get; }

  /// <summary>Logits of a step: one a token id.</summary>
  public int VocabSize { get; }

  /// <summary>Low rank of the decay.</summary>
  public int RankW { get; }

  /// <summary>Low rank of the in-context learning rate.</summary>
  public int RankA { get; }

  /// <summary>Low rank of the value residual; 0 in a model of one layer.</summary>
  public int RankV { get; }

  /// <summary>Low rank of the gate.</summary>
  public int RankG { get; }

  /// <summary>Worker threads in use.</summary>
  public int Threads { get; }

  /// <summary>Numbers of states.</summary>
  public NumberType StateType { get; }

  /// <summary>Whether the file has a vocabulary inside or beside it: see <see cref="Model.Tokenizer"/>.</summary>
  public bool HasTokenizer { get; }

  /// <summary>Whether batches, chunks and threads give the same bits.</summary>
  public bool IsReproducible { get; }

  /// <summary>Tokens that go through the layers together.</summary>
  public int ChunkTokens { get; }

  /// <summary>Numbers in the checkpoint that the model uses.</summary>
  public long Parameters { get; }

  /// <summary>Memory of the weights, mapped parts included.</summary>
  public long WeightBytes { get; }

  /// <summary>The part of <see cref="WeightBytes"/> that lies in the mapped file.</summary>
  public long MappedBytes { get; }

  /// <summary>Bytes of weights read for one token.</summary>
  public long StepBytes { get; }

  /// <summary>Memory of one cache's state.</summary>
  public long StateBytes { get; }

  /// <summary>Hash of shapes and weights; equal for the same model in the same file type.</summary>
  public ulong Fingerprint { get; }

  /// <summary>"pth", "pth legacy", "safetensors", "gguf" or "rwkv.cpp".</summary>
  public string Format { get; }

  /// <summary>Types of the large matrices in the file, commonest first.</summary>
  public string StoredTypes { get; }

  /// <summary>Types that the kernels read.</summary>
  public string ComputeTypes { get; }

  /// <summary>Where it runs: "cpu", "cuda:0".</summary>
  public string Device { get; }

  /// <summary>The kernel set in use: "avx2".</summary>
  public string Kernels { get; }
}

}
