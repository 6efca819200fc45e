// SPDX-License-Identifier: Apache-2.0
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.wkv.Cache;
import dev.wkv.Decoder;
import dev.wkv.Generation;
import dev.wkv.GenerationOptions;
import dev.wkv.Model;
import dev.wkv.PrefixStore;
import dev.wkv.Sampler;
import dev.wkv.SamplerOptions;
import dev.wkv.Session;
import dev.wkv.StepItem;
import dev.wkv.WkvFailure;
import java.nio.IntBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

/** Memory stays flat, and the collector may come at any time. */
class MemoryConformanceTest extends Conformance {
  // --- memory

  private static long residentBytes() throws Exception {
    Path statm = Path.of("/proc/self/statm");
    assumeTrue(Files.exists(statm), "memory is read from /proc");
    return 4096 * Long.parseLong(Files.readString(statm).split(" ")[1]);
  }

  // What leaks grows in every part of the rounds; what the virtual machine's compiler takes, and holes between objects
  // of many sizes, come to an end. All rounds at least, five times as many at most.
  private static void isFlat(int rounds, Runnable once) throws Exception {
    long least = Long.MAX_VALUE;
    int part = 0;
    for (; part < 5 || least >= 64 << 10 && part < 25; part++) {
      System.gc();
      long before = residentBytes();
      for (int i = 0; i < rounds / 5; i++) once.run();
      System.gc();
      least = Math.min(least, residentBytes() - before);
    }
    System.out.println(part * (rounds / 5) + " rounds: " + least / 1024 + " KiB more in the best " + rounds / 5);
    assertTrue(least < 64 << 10, least + " bytes more in each " + rounds / 5 + " rounds");
  }

  @Test
  @Tag("flat_memory")
  void tenThousandCaches() throws Exception {
    long caches = model().memory().cachesBytes();
    isFlat(10000, () -> model().cache().close());
    assertEquals(caches, model().memory().cachesBytes());
  }

  @Test
  @Tag("flat_memory")
  void everyObject() throws Exception {
    try (Cache base = begun()) {
      GenerationOptions.Builder options = GenerationOptions.builder()
                                              .sampling(SamplerOptions.builder().biases(Map.of(3, 1f)).build())
                                              .maxTokens(1)
                                              .stop(List.of("x", "y"))
                                              .alternatives(2)
                                              .stopTokens(7)
                                              .progress((done, total) -> false);
      isFlat(5000, () -> {
        try (Cache copy = base.copy(); Cache fork = base.copy();
             Generation generation = model().generate("Once", options.cache(copy).build());
             Decoder decoder = model().tokenizer().decoder(); PrefixStore store = model().prefixStore()) {
          generation.next();
          model().sessionFromBytes(Session.of(generation).toBytes()).close();
          model().tokenizer().decode(model().tokenizer().encode("Once"));
          decoder.push(5);
          model().step(List.of(StepItem.of(fork, 1).sampler(generation.sampler())));
          Cache.select(List.of(base, base), 0, 1).forEach(Cache::close);
          base.info();
          base.keptPositions();
          store.info();
        }
      });
    }
  }

  @Test
  @Tag("flat_memory")
  void smallObjects() throws Exception {
    try (Cache cache = model().cache()) {
      SamplerOptions sampling = SamplerOptions.builder().bannedTokens(3, 4).build();
      GenerationOptions options = GenerationOptions.builder().cache(cache).maxTokens(1).stop("x").build();
      isFlat(50000, () -> {
        model().tokenizer().decoder().close();
        Sampler.create(sampling).close();
        model().generate("a", options).close();
      });
    }
  }

  @Test
  @Tag("flat_memory")
  void failures() throws Exception {
    try (Cache cache = model().cache()) {
      List<Executable> calls = List.of(()
                                           -> cache.step(99999),
          ()
              -> Model.load("/no/such/file"),
          ()
              -> model().generate("x", GenerationOptions.builder().stop("").build()),
          ()
              -> model().cacheFromBytes(new byte[3]),
          ()
              -> model().step(List.of(StepItem.of(cache, 1), StepItem.of(cache, 1))),
          () -> Sampler.create(SamplerOptions.builder().temperature(-1).build()));
      isFlat(3000, () -> {
        for (Executable call : calls)
          assertInstanceOf(WkvFailure.class, Support.refused(RuntimeException.class, "", call));
      });
    }
  }

  @Test
  @Tag("flat_memory")
  void models() throws Exception {
    isFlat(100, () -> {
      try (Model model = Model.load(Support.STORY_MODEL, Support.CPU); Cache cache = model.cache()) {
        cache.feed(model.tokenizer().encode("a"));
      }
    });
  }

  @Test
  @Tag("gc_stress")
  void threadsMakeAndForgetObjects() throws Exception {
    long before = model().memory().cachesBytes();
    List<Support.Running<Object>> threads = new ArrayList<>();
    for (int seed = 0; seed < 4; seed++) {
      Random chance = new Random(seed);
      threads.add(new Support.Running<>(() -> {
        List<Cache> caches = new ArrayList<>(List.of(model().cache()));
        for (int i = 0; i < 150; i++) {
          Cache cache = caches.get(chance.nextInt(caches.size()));
          switch (chance.nextInt(7)) {
            case 0 -> caches.add(cache.copy());
            case 1 -> assertEquals(model().vocabSize(), cache.step(chance.nextInt(2000), 1 + chance.nextInt(2000)).length);
            case 2 -> caches.add(model().cacheFromBytes(cache.toBytes()));
            case 3 -> caches.add(model().generate("a", GenerationOptions.builder().maxTokens(2).build()).cache());
            case 4 -> model().generate("a", GenerationOptions.builder().cache(cache).maxTokens(2).build()).next();
            case 5 -> caches = new ArrayList<>(caches.subList(Math.max(0, caches.size() - 6), caches.size()));
            default -> {
              cache.step(IntBuffer.wrap(TOKENS), model().newLogits());
              System.gc();
            }
          }
        }
        return null;
      }));
    }
    for (Support.Running<Object> thread : threads) thread.result();
              threads.clear();
              // everything forgotten goes
              Support.waitUntil(() -> {
                System.gc();
                return model().memory().cachesBytes() <= before;
              });
              assertEquals(before, model().memory().cachesBytes());
          }

          @Test
          @Tag("gc_stress")
          void anObjectThatNobodyHasIsNotFreedDuringItsCall() throws Exception {
            Support.Running<Object> collector = new Support.Running<>(() -> {
              for (int i = 0; i < 60; i++) {
                System.gc();
                Thread.sleep(2);
              }
              return null;
            });
            float[] expected = null;
            for (int i = 0; i < 30 || !collector.isDone(); i++) {
              float[] logits = model().cache().step(Support.many(5, 60)); // nobody has the cache during the step
              if (expected != null) assertArrayEquals(expected, logits);
              expected = logits;
            }
            collector.result();
          }
        }
