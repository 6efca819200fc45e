// SPDX-License-Identifier: Apache-2.0
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.wkv.BusyException;
import dev.wkv.Cache;
import dev.wkv.ClosedException;
import dev.wkv.Decoder;
import dev.wkv.FormatException;
import dev.wkv.Generation;
import dev.wkv.GenerationOptions;
import dev.wkv.Handle;
import dev.wkv.Model;
import dev.wkv.ModelOptions;
import dev.wkv.NotFoundException;
import dev.wkv.NumberType;
import dev.wkv.Piece;
import dev.wkv.PrefixStore;
import dev.wkv.Sampler;
import dev.wkv.SamplerOptions;
import dev.wkv.Session;
import dev.wkv.StateLayout;
import dev.wkv.StatePart;
import dev.wkv.StepItem;
import dev.wkv.Tokenizer;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

/** Copies, files, sessions, and the lives of objects. */
class StatesConformanceTest extends Conformance {
  // --- copy, save_restore

  @Test
  @Tag("copy")
  void copiesGoTheirOwnWays() {
    try (Cache cache = begun(); Cache target = model().cache()) {
      float[] expected;
      try (Cache fresh = begun()) {
        expected = fresh.step(7);
      }
      for (int i = 0; i < 2; i++) {
        try (Cache copy = cache.copy()) {
          copy.feed(1, 2, 3);
          assertEquals(5, cache.position());
        }
      }
      target.assign(cache);
      check(target, cache);
      assertArrayEquals(expected, cache.step(7));
      assertArrayEquals(expected, target.step(7));
    }
  }

  @Test
  @Tag("copy")
  void selectAndReorder() {
    try (Cache one = begun(); Cache two = model().cache()) {
      List<Cache> copies = Cache.select(List.of(one, two), 1, 0, 0);
      assertEquals(List.of(0L, 5L, 5L), copies.stream().map(Cache::position).toList());
      Cache.reorder(copies, 1, 0, 0);
      assertEquals(List.of(5L, 0L, 0L), copies.stream().map(Cache::position).toList());
      check(copies.get(0), one);
      refused(() -> Cache.reorder(copies, 0));
      refused(() -> Cache.select(copies, 3));
      refused(() -> Cache.select(List.of(), 0));
      copies.forEach(Cache::close);
    }
  }

  @Test
  @Tag("save_restore")
  void files() throws Exception {
    try (Cache cache = begun()) {
      Path path = folder.resolve("talk.wkv");
      cache.save(path);
      try (Cache again = model().loadCache(path); Cache same = model().loadCache(path.toString())) {
        check(again, cache);
        check(same, cache);
      }
      assertEquals(5, Cache.readHeader(path.toString()).position());
      assertEquals(model().info().fingerprint(), Cache.readHeader(path.toString()).fingerprint());
      assertEquals(List.of(1539, 326, 712, 259, 519), Cache.readHeader(path.toString()).lastTokens());
      long size = Files.size(path);
      cache.save(path.toString(), NumberType.F16);
      assertTrue(Files.size(path) < 0.6 * size);
      Files.write(path, Arrays.copyOf(Files.readAllBytes(path), (int) Files.size(path) - 5));
      Support.refused(FormatException.class, "", () -> model().loadCache(path));
      Support.refused(NotFoundException.class, "", () -> model().loadCache(folder + "/none.wkv"));
      Support.refused(NotFoundException.class, "", () -> cache.save(folder + "/no folder/x.wkv"));
    }
  }

  @Test
  @Tag("save_restore")
  void bytes() {
    try (Cache cache = begun()) {
      byte[] data = cache.toBytes();
      assertEquals(data.length, Cache.readHeader(data).bytes());
      try (Cache again = model().cacheFromBytes(data)) {
        check(again, cache);
      }
      byte[] damaged = data.clone();
      damaged[data.length / 2] ^= 1;
      Support.refused(FormatException.class, "", () -> model().cacheFromBytes(damaged));
      Support.refused(RuntimeException.class, "", () -> model().cacheFromBytes(new byte[0]));
      assertTrue(cache.toBytes(NumberType.F16).length < 0.6 * data.length);
    }
  }

  @Test
  @Tag("save_restore")
  void statesOfOtherEngines() {
    try (Cache cache = begun(); Cache other = model().cache(); Cache parts = begun()) {
      other.importState(StateLayout.FLA, FloatBuffer.wrap(cache.exportState(StateLayout.FLA)), 5);
      check(other, cache);
      float[] values = cache.readState(2, StatePart.ATT_SHIFT);
      values[3] += 1;
      parts.writeState(2, StatePart.ATT_SHIFT, FloatBuffer.wrap(values));
      assertArrayEquals(values, parts.readState(2, StatePart.ATT_SHIFT));
      assertFalse(cache.check().isPresent());
    }
  }

  // --- session_travels

  private String program(String... arguments) throws Exception {
    List<String> command = new ArrayList<>(List.of("SessionProgram"));
    command.addAll(List.of(arguments));
    return Support.run(0, folder, "", Support.program(command.toArray(String[] ::new)))[0];
  }

  @Test
  @Tag("session_travels")
  void anotherProcessGoesOnWithTheSameWords() throws Exception {
    String path = folder + "/\u0441\u0435\u0441\u0441\u0438\u044F.wkv";
    String first = program("begin", Support.STORY_MODEL, path);
    String rest = program("go_on", Support.STORY_MODEL, path);
    try (Model model = Model.load(Support.STORY_MODEL, ModelOptions.builder().device("cpu").build());
         Generation whole = SessionProgram.begun(model)) {
      assertTrue(first.length() > 20 && rest.length() > 20, first + "|" + rest);
      assertEquals(whole.text(), first + rest);
    }
  }

  // --- closing

  /** One object of each class, with a model of its own. */
  private static Map<String, Handle> everything() {
    Model model = Model.load(Support.STORY_MODEL, ModelOptions.builder().device("cpu").threads(1).build());
    Cache cache = model.cache();
    Sampler sampler = Sampler.create(SamplerOptions.DEFAULTS);
    return Map.of("model", model, "cache", cache, "sampler", sampler, "tokenizer", model.tokenizer(), "decoder",
        model.tokenizer().decoder(), "store", model.prefixStore(), "generation",
        model.generate(
            "Once", GenerationOptions.builder().cache(cache).sampler(sampler).maxTokens(5).ignoreEnd(true).build()));
  }

  @Test
  @Tag("close_twice")
  void twiceIsFine() {
    everything().forEach((name, thing) -> {
      thing.close();
      thing.close();
      assertTrue(thing.isClosed(), name);
      assertNotNull(thing.toString());
    });
  }

  @Test
  @Tag("close_twice")
  void fromManyThreadsAtOnceIsFine() throws Exception {
    for (int round = 0; round < 50; round++) {
      Cache cache = model().cache();
      List<Support.Running<Object>> closers = new ArrayList<>();
      for (int i = 0; i < 4; i++)
        closers.add(new Support.Running<>(() -> {
          cache.close();
          return null;
        }));
      for (Support.Running<Object> closer : closers) closer.result();
    }
  }

  @Test
  @Tag("use_after_close")
  void throwsAnIllegalState() {
    Map<String, Handle> things = everything();
    things.values().forEach(Handle::close);
    Model model = (Model) things.get("model");
    Cache cache = (Cache) things.get("cache");
    Sampler sampler = (Sampler) things.get("sampler");
    Tokenizer tokenizer = (Tokenizer) things.get("tokenizer");
    Decoder decoder = (Decoder) things.get("decoder");
    PrefixStore store = (PrefixStore) things.get("store");
    Generation generation = (Generation) things.get("generation");
    List<Executable> calls = List.of(model::cache, model::tokenizer, model::memory,
        ()
            -> model.step(List.of()),
        ()
            -> model.generate("x"),
        model::prefixStore,
        ()
            -> model.loadCache("x"),
        ()
            -> model.cacheFromBytes(new byte[1]),
        ()
            -> model.loadSession("x"),
        ()
            -> model.initialState("x", false),
        ()
            -> cache.step(1),
        ()
            -> cache.step(Support.many(5, 100)),
        cache::copy, cache::mark, cache::toBytes, cache::info, cache::position, cache::keptPositions,
        ()
            -> cache.readState(0, StatePart.WKV),
        ()
            -> cache.exportState(StateLayout.FLA),
        cache::check,
        ()
            -> model().step(List.of(StepItem.of(cache, 1))),
        ()
            -> model().generate("x", GenerationOptions.builder().cache(cache).build()),
        ()
            -> Session.of(cache).toBytes(),
        ()
            -> Cache.select(List.of(cache), 0),
        ()
            -> sampler.sample(new float[1]),
        ()
            -> sampler.probabilities(new float[1]),
        ()
            -> model().generate("x", GenerationOptions.builder().sampler(sampler).build()),
        ()
            -> tokenizer.encode("x"),
        tokenizer::decoder, tokenizer::info,
        ()
            -> tokenizer.decode(1),
        ()
            -> decoder.push(1),
        decoder::finish, store::info,
        () -> store.find(new int[] {1}, model().cache()), generation::next, generation::text);
    for (Executable call : calls) {
      ClosedException closed = Support.refused(ClosedException.class, "closed", call);
      assertInstanceOf(IllegalStateException.class, closed);
      assertEquals(-1, closed.code());
    }
    for (Executable call : List.<Executable>of(cache::reset, cache::park,
             ()
                 -> cache.feed(1),
             ()
                 -> cache.rollback(0),
             ()
                 -> cache.unmark(0),
             ()
                 -> cache.save("x"),
             () -> sampler.accept(1), () -> sampler.reset(1), store::clear, () -> model().cache().assign(cache)))
      Support.refused(ClosedException.class, "closed", call);
    assertEquals(8, model.info().layers()); // what is known stays known
  }

  @Test
  @Tag("close_parent_first")
  void whatCameFromItGoesOn() {
    for (String first : new String[] {"model", "cache", "sampler", "tokenizer"}) {
      Map<String, Handle> things = everything();
      things.get("model").close();
      things.get(first).close();
      if (!first.equals("cache")) {
        Cache cache = (Cache) things.get("cache");
        cache.feed(1, 2);
        cache.feed(Support.many(5, 100)); // watched, which goes through the model
        cache.copy().feed(Support.many(5, 100));
        Cache.select(List.of(cache), 0).get(0).feed(3);
      }
      assertEquals(model().tokenizer().decode(1539), ((Decoder) things.get("decoder")).push(1539));
      assertEquals(5, ((Generation) things.get("generation")).pieces().count());
      ((PrefixStore) things.get("store")).clear();
    }
  }

  @Test
  @Tag("close_parent_first")
  void theLastCacheTakesItsStateWithIt() {
    try (Model model = Model.load(Support.STORY_MODEL, Support.CPU)) {
      Cache cache = model.cache();
      long before = model.memory().cachesBytes();
      cache.close();
      assertTrue(model.memory().cachesBytes() < before);
    }
  }

  @Test
  @Tag("close_during_step")
  void theStepFinishesFirst() throws Exception {
    Model model = Model.load(Support.STORY_MODEL, Support.CPU);
    Cache cache = model.cache();
    Support.Running<float[]> running = Support.inside(cache, () -> cache.step(Support.many(5, 6000)));
    cache.close();
    model.close();
    System.gc();
    Support.refused(ClosedException.class, "closed", () -> cache.step(1));
    float[] logits = running.result();
    try (Cache other = model().cache()) {
      assertTrue(Support.worst(other.step(Support.many(5, 6000)), logits) < 1e-3);
    }
  }

  @Test
  @Tag("close_during_step")
  void theGenerationFinishesFirst() throws Exception {
    Model model = Model.load(Support.STORY_MODEL, Support.CPU);
    Generation generation =
        model.generate("", GenerationOptions.builder().promptTokens(Support.many(5, 6000)).maxTokens(2).build());
    Support.Running<Piece> running = Support.inside(generation.cache(), generation::next);
    generation.close();
    model.close();
    System.gc();
    assertTrue(running.result().token() >= 0);
    Support.refused(ClosedException.class, "closed", generation::next);
  }

  @Test
  @Tag("close_during_step")
  void closingRacesWithCalls() throws Exception {
    for (int round = 0; round < 300; round++) {
      Cache cache = model().cache();
      Callable<Object> use = () -> {
        try {
          for (int i = 0; i < 20; i++) cache.feed(1);
        } catch (ClosedException | BusyException expected) {
          return null;
        }
        return null;
      };
      Support.Running<Object> one = new Support.Running<>(use);
      Support.Running<Object> two = new Support.Running<>(use);
      cache.close();
      one.result();
      two.result();
    }
  }
}
