// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.nio.charset.StandardCharsets;

/** Text of tokens that arrive one by one, always whole characters. For one thread at a time. */
public final class Decoder extends Handle {
  private final Counted<dev.wkv.internal.Decoder> handle;

  Decoder(long made) {
    this(new Counted<>(new dev.wkv.internal.Decoder(made, true), "Decoder"));
  }

  private Decoder(Counted<dev.wkv.internal.Decoder> handle) {
    super(handle);
    this.handle = handle;
  }

  /**
   * {@c wkv_decoder_push}
   *
   * @param token an id
   * @return what is complete now; may be empty
   */
  public synchronized String push(int token) {
    byte[][] text = new byte[1][];
    handle.run(decoder -> decoder.push(token, text));
    return new String(text[0], StandardCharsets.UTF_8);
  }

  /**
   * {@c wkv_decoder_finish}
   *
   * @return the rest
   */
  public synchronized String finish() {
    byte[][] text = new byte[1][];
    handle.run(decoder -> decoder.finish(text));
    return new String(text[0], StandardCharsets.UTF_8);
  }
}
