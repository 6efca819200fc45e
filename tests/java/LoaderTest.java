// SPDX-License-Identifier: Apache-2.0
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipOutputStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Where the native library is looked for. Each case is a process: a library is loaded once. */
class LoaderTest {
  @TempDir Path folder;

  static class Probe {
    public static void main(String[] arguments) {
      try {
        System.out.print(dev.wkv.Wkv.version());
      } catch (UnsatisfiedLinkError error) {
        System.out.print(error.getMessage());
        System.exit(3);
      }
    }
  }

  private String probe(int code, String jar, String... options) throws Exception {
    String classes = System.getProperty("wkv.test.classes");
    List<String> command = new ArrayList<>(List.of(Support.java(), "-cp", jar + java.io.File.pathSeparator + classes));
    command.addAll(List.of(options));
    command.add("LoaderTest$Probe");
    return Support.run(code, folder, "", command.toArray(String[] ::new))[0];
  }

  /** The jar without native libraries. */
  private String pureJar() throws Exception {
    Path pure = folder.resolve("pure.jar");
    try (ZipFile jar = new ZipFile(Support.JAR); OutputStream file = Files.newOutputStream(pure);
         ZipOutputStream out = new ZipOutputStream(file)) {
      for (ZipEntry entry : java.util.Collections.list(jar.entries())) {
        if (entry.getName().startsWith("dev/wkv/native/")) continue;
        out.putNextEntry(new ZipEntry(entry.getName()));
        try (InputStream in = jar.getInputStream(entry)) {
          in.transferTo(out);
        }
      }
    }
    return pure.toString();
  }

  private static final String LIBRARIES = System.getProperty("wkv.libraries");

  @Test
  void fromTheJarWhichLeavesNothingBehind() throws Exception {
    Path temporary = Files.createDirectory(folder.resolve("tmp"));
    assertEquals(dev.wkv.Wkv.version(), probe(0, Support.JAR, "-Djava.io.tmpdir=" + temporary));
    try (Stream<Path> left = Files.list(temporary)) {
      assertEquals(0, left.filter(path -> path.getFileName().toString().startsWith("wkv-")).count());
    }
  }

  @Test
  void fromThePropertyAFileOrAFolder() throws Exception {
    assertEquals(dev.wkv.Wkv.version(), probe(0, pureJar(), "-Ddev.wkv.library=" + LIBRARIES));
    assertEquals(dev.wkv.Wkv.version(),
        probe(0, pureJar(), "-Ddev.wkv.library=" + LIBRARIES + "/" + System.mapLibraryName("wkv_java")));
  }

  @Test
  void thePropertyIsNotPassedOver() throws Exception {
    String message = probe(3, Support.JAR, "-Ddev.wkv.library=/no/such/library");
    assertTrue(message.contains("dev.wkv.library: /no/such/library"), message);
  }

  @Test
  void fromTheLibraryPath() throws Exception {
    assertEquals(dev.wkv.Wkv.version(), probe(0, pureJar(), "-Djava.library.path=" + LIBRARIES));
  }

  @Test
  void theErrorNamesWhatWasLookedFor() throws Exception {
    String message = probe(3, pureJar(), "-Djava.library.path=" + folder);
    assertTrue(message.contains("/dev/wkv/native/linux-") && message.contains("java.library.path")
            && message.contains("wkv_java"),
        message);
  }
}
