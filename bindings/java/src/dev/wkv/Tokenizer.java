// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Objects;

/** A tokenizer: text to token ids by greedy longest match, and back; byte-exact. Shared by any number of threads. */
public final class Tokenizer extends Handle {
  final Counted<dev.wkv.internal.Tokenizer> handle;

  Tokenizer(long made) {
    this(new Counted<>(new dev.wkv.internal.Tokenizer(made, true), "Tokenizer"));
  }

  private Tokenizer(Counted<dev.wkv.internal.Tokenizer> handle) {
    super(handle);
    this.handle = handle;
  }

  /**
   * {@c wkv_tokenizer_load}
   *
   * @param path of a vocabulary, or of a model that carries one
   * @return yours to close
   */
  public static Tokenizer load(String path) {
    long[] made = new long[1];
    dev.wkv.internal.Tokenizer.load(Arguments.line(path, "path"), made);
    return new Tokenizer(made[0]);
  }

  /**
   * {@c wkv_tokenizer_load_memory}
   *
   * @param content of a vocabulary file
   * @return yours to close
   */
  public static Tokenizer fromBytes(byte[] content) {
    long[] made = new long[1];
    dev.wkv.internal.Tokenizer.load_memory(Objects.requireNonNull(content, "content"), made);
    return new Tokenizer(made[0]);
  }

  /**
   * Text to token ids.
   *
   * @param text any
   * @return ids
   */
  public int[] encode(String text) {
    return encode(Arguments.utf8(text, "text"));
  }

  /**
   * {@c wkv_tokenizer_encode}
   *
   * @param bytes any, UTF-8 or not
   * @return ids
   */
  public int[] encode(byte[] bytes) {
    int[] tokens = new int[Objects.requireNonNull(bytes, "bytes").length]; // a token has at least one byte
    long[] count = new long[1];
    handle.run(tokenizer -> tokenizer.encode(bytes, tokens, count));
    return Arrays.copyOf(tokens, (int) count[0]);
  }

  /**
   * The text of tokens; bytes that are not UTF-8 become U+FFFD.
   *
   * @param tokens ids
   * @return text
   */
  public String decode(int... tokens) {
    return new String(decodeBytes(tokens), StandardCharsets.UTF_8);
  }

  /**
   * {@c wkv_tokenizer_decode}
   *
   * @param tokens ids
   * @return bytes
   */
  public byte[] decodeBytes(int... tokens) {
    int[] copy = tokens.clone(); // another thread might change them between the two calls
    return handle.get(tokenizer -> {
      long[] count = new long[1];
      tokenizer.decode(copy, null, count);
      byte[] bytes = new byte[(int) count[0]];
      tokenizer.decode(copy, bytes, count);
      return bytes;
    });
  }

  /**
   * {@c wkv_decoder_create}
   *
   * @return yours to close
   */
  public Decoder decoder() {
    long[] made = new long[1];
    handle.run(tokenizer -> dev.wkv.internal.Decoder.create(tokenizer, made));
    return new Decoder(made[0]);
  }

  /**
   * {@c wkv_tokenizer_get_info}
   *
   * @return its sizes
   */
  public TokenizerInfo info() {
    try (dev.wkv.internal.TokenizerInfo raw = new dev.wkv.internal.TokenizerInfo()) {
      handle.run(tokenizer -> tokenizer.get_info(raw));
      return TokenizerInfo.of(raw);
    }
  }
}
