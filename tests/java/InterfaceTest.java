// SPDX-License-Identifier: Apache-2.0
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import java.util.zip.ZipFile;
import org.junit.jupiter.api.Test;

/** The layer by hand has everything that the generated one has. */
class InterfaceTest {
  private static final Path SOURCES = Support.ROOT.resolve("bindings/java/src/dev/wkv");

  private static List<Class<?>> generated() throws Exception {
    List<Class<?>> classes = new ArrayList<>();
    try (ZipFile jar = new ZipFile(Support.JAR)) {
      for (String name : jar.stream()
                             .map(entry -> entry.getName())
                             .filter(name -> name.matches("dev/wkv/internal/\\w+\\.class"))
                             .toList())
        classes.add(Class.forName(name.replace(".class", "").replace('/', '.')));
    }
    return classes;
  }

  @Test
  void everyGeneratedMethodIsUsed() throws Exception {
    StringBuilder text = new StringBuilder();
    try (Stream<Path> files = Files.list(SOURCES)) {
      for (Path file : files.filter(path -> path.toString().endsWith(".java")).toList())
        text.append(Files.readString(file));
    }
    // by hand, or read by the records that are made from the headers
    Set<String> others = Set.of("WkvNativeJNI", "WkvNativeConstants", "Loader", "Batch", "MemoryPlan");
    // results, which only the library sets
    Set<String> results = Set.of("setToken", "setReason", "setPending_token", "setLog_probability",
        "setAlternatives_count", "setTokens_generated", "setPrompt_tokens", "setReused_tokens", "setHas_logits");
    Set<String> unused = new TreeSet<>();
    for (Class<?> kind : generated()) {
      if (others.contains(kind.getSimpleName()) || kind.getSimpleName().endsWith("Info")) continue;
      for (Method method : kind.getDeclaredMethods()) {
        String name = method.getName();
        if (kind.getSimpleName().endsWith("Options") && name.startsWith("get")) continue; // what was set before
        if (Modifier.isPublic(method.getModifiers()) && !results.contains(name)
            && !Pattern.compile("(\\.|::)" + name + "\\b").matcher(text).find())
          unused.add(kind.getSimpleName() + "." + name);
      }
    }
    assertEquals(Set.of(), unused);
  }

  @Test
  void everyOptionOfTheHeadersHasABuilderMethod() throws Exception {
    int found = 0;
    for (Class<?> kind : generated()) {
      if (!kind.getSimpleName().endsWith("Options") || kind.getSimpleName().matches("(Step|Save|InitialState)Options"))
        continue;
      String source = Files.readString(SOURCES.resolve(kind.getSimpleName() + ".java"))
          + Files.readString(SOURCES.resolve("Generation.java")) + Files.readString(SOURCES.resolve("Model.java"));
      for (Method method : kind.getDeclaredMethods()) {
        if (!method.getName().matches("(set|add)[A-Z_].*")) continue;
        assertTrue(source.contains("." + method.getName() + "(") || source.contains("::" + method.getName()),
            kind.getSimpleName() + "." + method.getName());
        found++;
      }
    }
    assertTrue(found > 40, "only " + found);
  }
}
