// SPDX-License-Identifier: Apache-2.0
using Wkv.Interop;

namespace Wkv {

/// <summary>Number formats of weights and states.</summary>
public enum NumberType {
  /// <summary>What is usual: weights as they are stored, states in float32.</summary>
  Default = Native.TYPE_DEFAULT,
  /// <summary>float32.</summary>
  F32 = Native.TYPE_F32,
  /// <summary>float16.</summary>
  F16 = Native.TYPE_F16,
  /// <summary>bfloat16.</summary>
  BF16 = Native.TYPE_BF16,
  /// <summary>8 bits in groups of 32 with one half-precision scale.</summary>
  Q8 = Native.TYPE_Q8,
  /// <summary>4 bits in groups of 32 with one half-precision scale.</summary>
  Q4 = Native.TYPE_Q4
}

/// <summary>Parts of the state of one layer.</summary>
public enum StatePart {
  /// <summary>[width]: normalised input of the time mix at the last token.</summary>
  AttShift = Native.STATE_ATT_SHIFT,
  /// <summary>[width]: normalised input of the channel mix at the last token.</summary>
  FfnShift = Native.STATE_FFN_SHIFT,
  /// <summary>[heads][head size, value][head size, key].</summary>
  Wkv = Native.STATE_WKV
}

/// <summary>How engines lay a whole state out in float32.</summary>
public enum StateLayout {
  /// <summary>The list of the rwkv package, item after item.</summary>
  Official = Native.LAYOUT_OFFICIAL,
  /// <summary>flash-linear-attention.</summary>
  Fla = Native.LAYOUT_FLA,
  /// <summary>The buffer of rwkv.cpp.</summary>
  RwkvCpp = Native.LAYOUT_RWKV_CPP,
  /// <summary>llama.cpp's two tensors of all layers.</summary>
  LlamaCpp = Native.LAYOUT_LLAMA_CPP
}

/// <summary>Why a generation goes on or has ended.</summary>
public enum StopReason {
  /// <summary>It goes on.</summary>
  None = Native.REASON_NONE,
  /// <summary>As many tokens as allowed were chosen.</summary>
  MaxTokens = Native.REASON_MAX_TOKENS,
  /// <summary>A stop token, or id 0, the end of text, was chosen.</summary>
  StopToken = Native.REASON_STOP_TOKEN,
  /// <summary>The text contained a stop string; what was given out ends before it.</summary>
  StopString = Native.REASON_STOP_STRING
}

}
