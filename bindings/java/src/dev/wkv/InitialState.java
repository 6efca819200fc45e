// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** A tuned initial state: where caches of a model start in place of zeros. Made by {@link Model#initialState}. */
public final class InitialState extends Handle {
  final Counted<dev.wkv.internal.InitialState> handle;

  InitialState(long made) {
    this(new Counted<>(new dev.wkv.internal.InitialState(made, true), "InitialState"));
  }

  private InitialState(Counted<dev.wkv.internal.InitialState> handle) {
    super(handle);
    this.handle = handle;
  }

  /**
   * {@c wkv_initial_state_get_info}
   *
   * @return its size, and a warning where there is one
   */
  public InitialStateInfo info() {
    try (dev.wkv.internal.InitialStateInfo raw = new dev.wkv.internal.InitialStateInfo()) {
      handle.run(state -> state.get_info(raw));
      return InitialStateInfo.of(raw);
    }
  }
}
