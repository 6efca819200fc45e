// SPDX-License-Identifier: Apache-2.0
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.Method;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The examples as a user runs them: java -cp wkv.jar NAME.java. */
class ExamplesTest {
  private static final Path EXAMPLES = Support.ROOT.resolve("examples/java");
  @TempDir Path folder;

  private String example(Path where, String input, String name, String... arguments) throws Exception {
    List<String> command =
        new ArrayList<>(List.of(Support.java(), "-cp", Support.JAR, EXAMPLES.resolve(name + ".java").toString()));
    command.addAll(List.of(arguments));
    String[] printed = Support.run(0, where, input, command.toArray(String[] ::new));
    assertEquals("", printed[1]);
    return printed[0];
  }

  @Test
  void everyExampleIsTested() throws Exception {
    try (Stream<Path> files = Files.list(EXAMPLES)) {
      Set<String> names = files.map(path -> path.getFileName().toString())
                              .filter(name -> name.endsWith(".java"))
                              .map(name -> name.replace(".java", "").toLowerCase())
                              .collect(Collectors.toSet());
      Set<String> tested =
          new HashSet<>(Arrays.stream(ExamplesTest.class.getDeclaredMethods()).map(Method::getName).toList());
      assertTrue(tested.containsAll(names) && !names.isEmpty(), names.toString());
    }
  }

  @Test
  void generate() throws Exception {
    String text = example(Support.ROOT, "", "Generate", "There was a king");
    assertTrue(text.startsWith("There was a king") && text.length() > 100, text);
  }

  @Test
  void asAModule() throws Exception {
    String[] printed = Support.run(0, folder, "", Support.java(), "-p", Support.JAR, "--add-modules", "dev.wkv",
        EXAMPLES.resolve("Generate.java").toString(), "There was a king", Support.STORY_MODEL);
    assertTrue(printed[0].startsWith("There was a king") && printed[0].length() > 100, printed[0]);
    assertEquals("", printed[1]);
  }

  @Test
  void chat() throws Exception {
    Set<String> talks = new HashSet<>();
    for (int day = 0; day < 2; day++) talks.add(example(folder, "Hello\nTell me more\n", "Chat", Support.STORY_MODEL));
    assertEquals(2, talks.size(), "the second day begins like the first"); // it goes on, and does not begin anew
    assertTrue(Files.exists(folder.resolve("chat.wkv")));
  }

  @Test
  void branch() throws Exception {
    assertEquals(4, example(Support.ROOT, "", "Branch").lines().distinct().count());
  }

  @Test
  void batch() throws Exception {
    List<String> lines = example(Support.ROOT, "", "Batch").lines().toList();
    assertEquals(3, lines.size());
    assertTrue(lines.stream().allMatch(line -> line.length() > 40), lines.toString());
  }

  @Test
  void embed() throws Exception {
    String text = example(folder, "", "Embed", "Once upon a time", Support.STORY_MODEL);
    assertTrue(text.startsWith("Once upon a time ") && text.length() > 100, text);
  }
}
