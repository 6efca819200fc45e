// SPDX-License-Identifier: Apache-2.0
package dev.wkv.internal;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * Finds the native library: where the property dev.wkv.library says, else inside the jar, else on java.library.path.
 */
final class Loader {
  private static final String NAME = "wkv_java";

  private Loader() {}

  static void load() {
    List<String> tried = new ArrayList<>();
    String chosen = System.getProperty("dev.wkv.library");
    if (chosen != null) {
      // what was asked for or nothing: another library under the same name would be a surprise
      Path file = Path.of(chosen);
      if (Files.isDirectory(file)) file = file.resolve(System.mapLibraryName(NAME));
      if (!load(file, "dev.wkv.library", tried)) throw failure(tried);
      return;
    }
    if (loadFromJar(tried)) return;
    try {
      System.loadLibrary(NAME);
    } catch (UnsatisfiedLinkError error) {
      tried.add(System.mapLibraryName(NAME) + " on java.library.path (" + error.getMessage() + ")");
      throw failure(tried);
    }
  }

  private static boolean load(Path file, String where, List<String> tried) {
    try {
      System.load(file.toAbsolutePath().toString());
      return true;
    } catch (UnsatisfiedLinkError error) {
      tried.add(where + ": " + file + " (" + error.getMessage() + ")");
      return false;
    }
  }

  private static UnsatisfiedLinkError failure(List<String> tried) {
    return new UnsatisfiedLinkError(
        "the native library of dev.wkv was not found or not loaded; looked for: " + String.join("; ", tried));
  }

  /** The folder of the jar for this machine, such as "linux-x86_64". */
  static String platform() {
    String system = System.getProperty("os.name").toLowerCase(Locale.ROOT);
    String os = system.startsWith("windows") ? "windows"
        : system.startsWith("mac")           ? "macos"
                                             : system.replace(' ', '_');
    String cpu = System.getProperty("os.arch").toLowerCase(Locale.ROOT);
    return os + "-" + (cpu.equals("amd64") || cpu.equals("x64") ? "x86_64" : cpu.equals("arm64") ? "aarch64" : cpu);
  }

  // The file "libraries" names all of them, the one to load first. The others are found beside it, and some of them
  // later (the CUDA plugin), so they stay until the virtual machine ends.
  private static boolean loadFromJar(List<String> tried) {
    String folder = "/dev/wkv/native/" + platform() + "/";
    try (InputStream index = Loader.class.getResourceAsStream(folder + "libraries")) {
      if (index == null) {
        tried.add("the jar's folder " + folder + " (it has none)");
        return false;
      }
      List<String> names = new BufferedReader(new InputStreamReader(index, StandardCharsets.UTF_8)).lines().toList();
      Path target = Files.createTempDirectory("wkv-");
      target.toFile().deleteOnExit(); // in reverse order: the folder last
      for (String name : names) {
        Path file = target.resolve(name);
        file.toFile().deleteOnExit();
        try (InputStream library = Loader.class.getResourceAsStream(folder + name)) {
          if (library == null) throw new IOException("the jar has no " + folder + name);
          Files.copy(library, file);
        }
      }
      return load(target.resolve(names.get(0)), "the jar's folder " + folder, tried);
    } catch (IOException error) {
      tried.add("the jar's folder " + folder + " (" + error.getMessage() + ")");
      return false;
    }
  }
}
