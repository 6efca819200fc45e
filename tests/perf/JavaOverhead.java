// SPDX-License-Identifier: Apache-2.0
import dev.wkv.Cache;
import dev.wkv.Generation;
import dev.wkv.GenerationOptions;
import dev.wkv.Model;
import dev.wkv.ModelOptions;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * What a step and a generated token cost through Java, beside the same through C. Reports, judges nothing.
 *
 * <pre>
 * ninja -C build step_overhead wkv_java_programs
 * java -cp build/java/wkv.jar:build/tests/java/programs JavaOverhead STEP_OVERHEAD MODEL [THREADS]
 * </pre>
 *
 * STEP_OVERHEAD is the program made from step_overhead.c. Rounds of C and Java take turns. A small model on one thread
 * shows the overhead best; on a machine that others use, look at the differences of the lowest.
 */
class JavaOverhead {
  private static final int ROUNDS = 31;

  private static double time(int count, Runnable step) {
    for (int i = 0; i < count / 10; i++) step.run();
    long start = System.nanoTime();
    for (int i = 0; i < count; i++) step.run();
    return (System.nanoTime() - start) / (double) count;
  }

  private static double timeGeneration(Model model, Cache cache, int count) {
    GenerationOptions options =
        GenerationOptions.builder().cache(cache).promptTokens(5).maxTokens(count).ignoreEnd(true).build();
    try (Generation generation = model.generate("", options)) {
      long start = System.nanoTime();
      while (generation.hasNext()) generation.next();
      return (System.nanoTime() - start) / (double) count;
    }
  }

  private static double[] timeC(String program, String path, int threads, int count) throws Exception {
    Process process = new ProcessBuilder(program, path, "" + threads, "" + count, "" + count)
                          .redirectError(ProcessBuilder.Redirect.INHERIT)
                          .start();
    String printed = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    if (process.waitFor() != 0) throw new IllegalStateException(program + " failed");
    return Arrays.stream(printed.strip().split(" ")).mapToDouble(Double::parseDouble).toArray();
  }

  public static void main(String[] arguments) throws Exception {
    int threads = arguments.length > 2 ? Integer.parseInt(arguments[2]) : 1;
    try (Model model = Model.load(arguments[1], ModelOptions.builder().device("cpu").threads(threads).build());
         Cache cache = model.cache()) {
      FloatBuffer logits = model.newLogits();
      IntBuffer token = ByteBuffer.allocateDirect(4).order(ByteOrder.nativeOrder()).asIntBuffer().put(0, 5);
      // the compiler has done its work; then short rounds, so that some of them are not disturbed
      double probe = time(2000, () -> cache.step(token, logits));
      int count = (int) Math.max(50, Math.min(20000, 5e7 / probe));
      Map<String, double[]> columns = new LinkedHashMap<>();
      for (String name : new String[] {"C, step", "Java, step(buffers)", "Java, step(token, buffer)",
               "Java, step(token...)", "C, generation", "Java, generation"})
        columns.put(name, new double[ROUNDS]);
      for (int round = -1; round < ROUNDS; round++) { // the first one warms up
        double[] c = timeC(arguments[0], arguments[1], threads, count);
        double[] row = {c[0], time(count, () -> cache.step(token, logits)), time(count, () -> cache.step(5, logits)),
            time(count, () -> cache.step(5)), c[1], timeGeneration(model, cache, count)};
        int column = 0;
        for (double[] values : columns.values()) {
          if (round >= 0) values[round] = row[column];
          column++;
        }
      }
      System.out.printf(
          "%s%n%d threads, %d tokens a round, %d rounds, microseconds a token: median (lowest to highest)%n", model,
          threads, count, ROUNDS);
      columns.values().forEach(Arrays::sort);
      columns.forEach((name, values) -> {
        double[] c = columns.get(name.contains("step") ? "C, step" : "C, generation");
        double median = values[ROUNDS / 2];
        System.out.printf(
            "%-26s %9.2f (%.2f to %.2f)", name, median / 1000, values[0] / 1000, values[ROUNDS - 1] / 1000);
        if (name.startsWith("Java"))
          System.out.printf("  %+.2f us (lowest %+.2f), %.1f %% of C's tokens/s", (median - c[ROUNDS / 2]) / 1000,
              (values[0] - c[0]) / 1000, 100 * c[ROUNDS / 2] / median);
        System.out.println();
      });
    }
  }
}
