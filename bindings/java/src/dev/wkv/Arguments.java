// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.CharBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Objects;
import java.util.function.BiConsumer;

/** Arguments, checked, and as native code takes them. */
final class Arguments {
  private Arguments() {}

  /** UTF-8; what no UTF-8 is, a lone half of a pair, is refused rather than replaced. */
  static byte[] utf8(String text, String name) {
    Objects.requireNonNull(text, name);
    try {
      ByteBuffer encoded = StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(text));
      byte[] bytes = new byte[encoded.remaining()];
      encoded.get(bytes);
      return bytes;
    } catch (CharacterCodingException error) {
      throw new InvalidArgumentException(name + ": half of a surrogate pair is no text");
    }
  }

  /** Text that C reads up to a NUL: none may be inside. */
  static byte[] line(String text, String name) {
    if (Objects.requireNonNull(text, name).indexOf('\0') >= 0)
      throw new InvalidArgumentException(name + ": a NUL is inside");
    return utf8(text, name);
  }

  static long notNegative(long value, String name) {
    if (value < 0) throw new InvalidArgumentException(name + ": " + value + " is negative");
    return value;
  }

  private static void check(ByteOrder order, String name) {
    if (order != ByteOrder.nativeOrder())
      throw new InvalidArgumentException(name + ": the numbers are in the byte order of another machine");
  }

  /** What a call reads: direct memory where it lies, an array, or a copy. */
  static Object in(IntBuffer buffer, String name) {
    check(Objects.requireNonNull(buffer, name).order(), name);
    if (buffer.isDirect()) return buffer.slice();
    if (buffer.hasArray() && buffer.remaining() == buffer.array().length) return buffer.array();
    int[] copy = new int[buffer.remaining()];
    buffer.duplicate().get(copy);
    return copy;
  }

  static Object in(FloatBuffer buffer, String name) {
    check(Objects.requireNonNull(buffer, name).order(), name);
    if (buffer.isDirect()) return buffer.slice();
    if (buffer.hasArray() && buffer.remaining() == buffer.array().length) return buffer.array();
    float[] copy = new float[buffer.remaining()];
    buffer.duplicate().get(copy);
    return copy;
  }

  /** What write(bytes, count) fills; write(null, count) gives the size, which another thread may change in between. */
  static byte[] blob(BiConsumer<byte[], long[]> write) {
    long[] count = new long[1];
    write.accept(null, count);
    while (true) {
      if (count[0] > Integer.MAX_VALUE - 8)
        throw new OutOfMemoryException(count[0] + " bytes are too many for an array");
      byte[] bytes = new byte[(int) count[0]];
      try {
        write.accept(bytes, count);
        return Arrays.copyOf(bytes, (int) count[0]);
      } catch (InvalidArgumentException error) {
        write.accept(null, count);
        if (count[0] <= bytes.length) throw error;
      }
    }
  }

  /** Where a call writes. */
  static final class Out {
    /** Direct memory, or an array. */
    final Object memory;
    private final FloatBuffer target;

    /** A buffer's memory from its position to its limit. */
    Out(FloatBuffer buffer, String name) {
      if (Objects.requireNonNull(buffer, name).isReadOnly())
        throw new InvalidArgumentException(name + ": the buffer is read-only");
      memory = in(buffer, name);
      target = memory instanceof float[] copy && !(buffer.hasArray() && buffer.array() == copy) ? buffer : null;
    }

    /** After a call that has not failed. */
    void done() {
      if (target != null) target.duplicate().put((float[]) memory);
    }
  }
}
