// SPDX-License-Identifier: Apache-2.0
using System;
using Wkv.Interop;

namespace Wkv {

/// <summary>A tuned initial state: where caches of a model start in place of zeros.</summary>
public sealed class InitialState : NativeObject {
  internal readonly Interop.InitialState Raw;

  /// <summary>Loads a .pth or .safetensors file with a tensor blocks.N.att.time_state for each layer.</summary>
  /// <param name="model">The model it is for; kept in memory.</param>
  /// <param name="path">The file.</param>
  /// <param name="valueFirst">Whether its matrices are [value][key]; trainers write [key][value].</param>
  /// <exception cref="System.IO.FileNotFoundException">No such file, or no time_state in it.</exception>
  /// <exception cref="ArgumentException">Its shapes are not the model's (<see cref="Status.Mismatch"/>).</exception>
  public InitialState(Model model, string path, bool valueFirst = false) : this(Load(model, path, valueFirst)) {
  }

  private InitialState(Interop.InitialState raw) : base(raw.swigCPtr) {
    Raw = raw;
  }

  private static Interop.InitialState Load(Model model, string path, bool valueFirst) {
    Argument.NotNull(path, nameof(path));
    Argument.NotNull(model, nameof(model)).Check();
    using (Interop.InitialStateOptions options = new Interop.InitialStateOptions()) {
      options.order = valueFirst ? Native.TIME_STATE_VALUE_FIRST : Native.TIME_STATE_KEY_FIRST;
      Interop.InitialState.load(model.Raw, path, options, out IntPtr state);
      return new Interop.InitialState(state, true);
    }
  }

  /// <summary>Its size, and a warning where the file may be for another architecture.</summary>
  public InitialStateInfo Info {
    get {
      Check();
      using (Interop.InitialStateInfo raw = new Interop.InitialStateInfo()) {
        Raw.get_info(raw);
        return new InitialStateInfo(raw);
      }
    }
  }
}

/// <summary>What a tuned initial state is.</summary>
public sealed class InitialStateInfo {
  internal InitialStateInfo(Interop.InitialStateInfo raw) {
    MayBeRwkv6 = raw.may_be_rwkv6 != 0;
    Bytes = (long)raw.bytes;
    Warning = raw.warning;
  }

  /// <summary>Whether it may have been made for RWKV-6: see <see cref="Warning"/>.</summary>
  public bool MayBeRwkv6 { get; }

  /// <summary>Memory of the state.</summary>
  public long Bytes { get; }

  /// <summary>Empty, or why the file may be for RWKV-6, whose states have the same shapes and mean something
  /// else.</summary>
  public string Warning { get; }
}

}
