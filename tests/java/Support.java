// SPDX-License-Identifier: Apache-2.0
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.wkv.BusyException;
import dev.wkv.Cache;
import dev.wkv.Model;
import dev.wkv.ModelOptions;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.function.BooleanSupplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.function.Executable;

/** What the tests share: models, golden files, other threads, other processes. */
final class Support {
  static final Path ROOT = Path.of(System.getProperty("wkv.source"));
  static final String STORY_MODEL = ROOT.resolve("examples/models/tales-8m.gguf").toString();
  static final Path GOLDEN = ROOT.resolve("tests/data/rnd_a");
  static final String JAR = System.getProperty("wkv.jar");
  static final ModelOptions CPU = ModelOptions.builder().device("cpu").threads(2).build();
  /** A vocabulary with halves of characters and NUL. */
  static final byte[] VOCABULARY = ("1 'a' 1\n2 'b' 1\n3 'ab' 2\n4 '\uD83E\uDDA2' 4\n"
      + "5 b'\\xf0' 1\n6 b'\\x9f\\xa6' 2\n7 b'\\xa2' 1\n8 b'\\x00' 1\n9 '\u0436' 2\n")
                                       .getBytes(StandardCharsets.UTF_8);
  private static Model story;
  private static Model golden;

  private Support() {}

  /** The embedded model, loaded once a process. Tests that close a model load their own. */
  static synchronized Model storyModel() {
    if (story == null) story = Model.load(STORY_MODEL, CPU);
    return story;
  }

  static synchronized Model goldenModel() {
    if (golden == null) golden = Model.load(GOLDEN.resolve("weights/rnd_a.bf16.pth"), CPU);
    return golden;
  }

  /** Something that must throw: gives the exception, which is of the class and whose message has the text. */
  static <T extends Throwable> T refused(Class<T> kind, String text, Executable call) {
    try {
      call.execute();
    } catch (Throwable thrown) {
      if (!kind.isInstance(thrown)) throw new AssertionError("not " + kind + " but " + thrown, thrown);
      assertTrue(String.valueOf(thrown.getMessage()).contains(text), thrown.getMessage());
      return kind.cast(thrown);
    }
    return fail("nothing was thrown");
  }

  /** The arrays of a golden case: "offset" and "shape" of each are in its JSON file. */
  static ByteBuffer golden(String name, String array) {
    try {
      String meta = Files.readString(GOLDEN.resolve("golden/" + name + ".json"));
      Matcher entry = Pattern
                          .compile("\"name\": \"" + array
                              + "\",\\s*\"dtype\": \"\\w+\",\\s*\"shape\": \\[([^]]*)\\],\\s*\"offset\": (\\d+)")
                          .matcher(meta);
      assertTrue(entry.find(), array);
      int count = Arrays.stream(entry.group(1).split(","))
                      .mapToInt(size -> Integer.parseInt(size.strip()))
                      .reduce(1, (a, b) -> a * b);
      byte[] bytes = Files.readAllBytes(GOLDEN.resolve("golden/" + name + ".bin"));
      int offset = Integer.parseInt(entry.group(2));
      return ByteBuffer.wrap(bytes, offset, 4 * count).slice().order(ByteOrder.LITTLE_ENDIAN);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  static float[] goldenFloats(String name, String array) {
    ByteBuffer bytes = golden(name, array);
    float[] values = new float[bytes.remaining() / 4];
    bytes.asFloatBuffer().get(values);
    return values;
  }

  static int[] goldenTokens(String name) {
    ByteBuffer bytes = golden(name, "tokens");
    int[] values = new int[bytes.remaining() / 4];
    bytes.asIntBuffer().get(values);
    return values;
  }

  /** As tests/support/golden.h has it: four times what a plain float32 run was off, and two roundings. */
  static double allowedError(String name, float[] golden) {
    try {
      Matcher noise = Pattern.compile("\"rnd_a/" + name + "\": \\{\\s*\"logits\": ([0-9.e+-]+)")
                          .matcher(Files.readString(ROOT.resolve("tests/data/fp32_noise.json")));
      assertTrue(noise.find(), name);
      double largest = 0;
      for (float value : golden) largest = Math.max(largest, Math.abs(value));
      return 4 * Double.parseDouble(noise.group(1)) + Math.pow(2, -22) * largest;
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  static double worst(float[] a, float[] b) {
    assertEquals(a.length, b.length);
    double worst = 0;
    for (int i = 0; i < a.length; i++) {
      double difference = Math.abs((double) a[i] - b[i]);
      if (!(difference <= worst)) worst = difference; // NaN is the worst
    }
    return worst;
  }

  static int likeliest(float[] logits) {
    int best = 0;
    for (int i = 1; i < logits.length; i++)
      if (logits[i] > logits[best]) best = i;
    return best;
  }

  static int[] many(int token, int count) {
    int[] tokens = new int[count];
    Arrays.fill(tokens, token);
    return tokens;
  }

  static void waitUntil(BooleanSupplier condition) throws InterruptedException {
    for (int i = 0; !condition.getAsBoolean(); i++) {
      if (i > 20000) fail("it did not happen");
      Thread.sleep(1);
    }
  }

  /** Until a call uses the cache, or is over. */
  static void waitUntilBusy(Cache cache, BooleanSupplier isOver) throws InterruptedException {
    Thread.sleep(30); // to ask makes the cache busy too: the call must have begun by then
    waitUntil(() -> {
      try {
        cache.info();
        return isOver.getAsBoolean();
      } catch (BusyException busy) {
        return true;
      }
    });
  }

  /** A call in a thread of its own. */
  static final class Running<T> {
    private final FutureTask<T> task;
    final Thread thread;

    Running(Callable<T> call) {
      task = new FutureTask<>(call);
      thread = new Thread(task);
      thread.start();
    }

    boolean isDone() {
      return task.isDone();
    }

    /** Its result, or what it threw. */
    T result() throws Exception {
      try {
        return task.get();
      } catch (ExecutionException thrown) {
        if (thrown.getCause() instanceof Exception cause) throw cause;
        throw new AssertionError(thrown.getCause());
      }
    }
  }

  /** A call in another thread that uses this cache, and is inside the library when this returns. */
  static <T> Running<T> inside(Cache cache, Callable<T> call) throws Exception {
    Running<T> running = new Running<>(call);
    waitUntilBusy(cache, running::isDone);
    if (running.isDone()) {
      running.result();
      assumeTrue(false, "the call was over at once");
    }
    return running;
  }

  /** What a process printed: output, then errors. It must have ended with this code. */
  static String[] run(int code, Path folder, String input, String... command) throws Exception {
    Path out = Files.createTempFile("out", null);
    Path err = Files.createTempFile("err", null);
    Path in = Files.createTempFile("in", null);
    try {
      Files.writeString(in, input);
      Process process = new ProcessBuilder(command)
                            .directory(folder.toFile())
                            .redirectInput(in.toFile())
                            .redirectOutput(out.toFile())
                            .redirectError(err.toFile())
                            .start();
      int ended = process.waitFor();
      String[] printed = {Files.readString(out), Files.readString(err)};
      assertEquals(code, ended, printed[0] + printed[1]);
      return printed;
    } finally {
      Files.delete(out);
      Files.delete(err);
      Files.delete(in);
    }
  }

  static String java() {
    return Path.of(System.getProperty("java.home"), "bin", "java").toString();
  }

  /** The command line of a class of the tests. */
  static String[] program(String... arguments) {
    List<String> command = new ArrayList<>(List.of(
        java(), "-Dfile.encoding=UTF-8", "-Dsun.jnu.encoding=UTF-8", "-cp", System.getProperty("java.class.path")));
    command.addAll(List.of(arguments));
    return command.toArray(String[] ::new);
  }
}
