// SPDX-License-Identifier: Apache-2.0
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.wkv.Cache;
import dev.wkv.InvalidArgumentException;
import dev.wkv.Model;
import java.nio.file.Path;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

/** What the cases that every language tests have in common, one tag each. tests/conformance has the list. */
abstract class Conformance {
  static final int[] TOKENS = {1539, 326, 712, 259, 519};
  @TempDir Path folder;

  static Model model() {
    return Support.storyModel();
  }

  static void refused(Executable call) {
    Support.refused(InvalidArgumentException.class, "", call);
  }

  /** A cache that has read something. */
  static Cache begun() {
    Cache cache = model().cache();
    cache.feed(TOKENS);
    return cache;
  }

  /** Two caches that go on alike. */
  static void check(Cache cache, Cache original) {
    assertEquals(original.position(), cache.position());
    try (Cache one = cache.copy(); Cache other = original.copy()) {
      assertArrayEquals(other.step(7), one.step(7));
    }
  }
}
