// SPDX-License-Identifier: Apache-2.0
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.wkv.BusyException;
import dev.wkv.Cache;
import dev.wkv.CancelledException;
import dev.wkv.Decoder;
import dev.wkv.FormatException;
import dev.wkv.Generation;
import dev.wkv.GenerationOptions;
import dev.wkv.ItemException;
import dev.wkv.MismatchException;
import dev.wkv.Model;
import dev.wkv.ModelOptions;
import dev.wkv.NotFoundException;
import dev.wkv.NumberType;
import dev.wkv.OutOfMemoryException;
import dev.wkv.Piece;
import dev.wkv.PrefixStore;
import dev.wkv.Sampler;
import dev.wkv.SamplerOptions;
import dev.wkv.Session;
import dev.wkv.StatePart;
import dev.wkv.StepItem;
import dev.wkv.Tokenizer;
import dev.wkv.WkvException;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

/** Models, steps, batches and generations: results, failures, cancellation. */
class CallsConformanceTest extends Conformance {
  // --- load_error

  @Test
  @Tag("load_error")
  void missingFileIsNotFound() {
    NotFoundException error =
        Support.refused(NotFoundException.class, "/no/such/file.pth", () -> Model.load("/no/such/file.pth"));
    assertInstanceOf(WkvException.class, error);
    assertEquals(-2, error.code());
    assertEquals("WKV_NOT_FOUND", error.codeName());
  }

  @Test
  @Tag("load_error")
  void damagedFileIsAFormatError() throws Exception {
    Path path = folder.resolve("short.gguf");
    Files.write(path, Arrays.copyOf(Files.readAllBytes(Path.of(Support.STORY_MODEL)), 100000));
    assertEquals(-4, Support.refused(FormatException.class, "", () -> Model.load(path)).code());
  }

  @Test
  @Tag("load_error")
  void limitIsOutOfMemory() {
    ModelOptions options = ModelOptions.builder().device("cpu").memoryLimitBytes(1000).build();
    assertEquals("WKV_OUT_OF_MEMORY",
        Support.refused(OutOfMemoryException.class, "", () -> Model.load(Support.STORY_MODEL, options)).codeName());
  }

  // --- golden_logits

  private static final String[] GOLDEN_CASES = {"len7", "len33"};

  @Test
  @Tag("golden_logits")
  void stepGivesTheGoldenLogits() {
    Model model = Support.goldenModel();
    for (String name : GOLDEN_CASES) {
      float[] golden = Support.goldenFloats(name, "logits_last");
      FloatBuffer direct = model.newLogits();
      try (Cache cache = model.cache(); Cache other = model.cache()) {
        assertTrue(
            Support.worst(cache.step(Support.goldenTokens(name)), golden) <= Support.allowedError(name, golden), name);
        other.step(IntBuffer.wrap(Support.goldenTokens(name)), direct);
      }
      float[] read = new float[golden.length];
      direct.get(read);
      assertTrue(Support.worst(read, golden) <= Support.allowedError(name, golden), name);
    }
  }

  @Test
  @Tag("golden_logits")
  void batchGivesTheGoldenLogits() {
    Model model = Support.goldenModel();
    List<float[]> rows = new ArrayList<>();
    List<StepItem> items = new ArrayList<>();
    for (String name : GOLDEN_CASES) {
      rows.add(new float[model.vocabSize()]);
      items.add(
          StepItem.of(model.cache(), Support.goldenTokens(name)).logits(FloatBuffer.wrap(rows.get(rows.size() - 1))));
    }
    model.step(items);
    for (int i = 0; i < rows.size(); i++) {
      float[] golden = Support.goldenFloats(GOLDEN_CASES[i], "logits_last");
      assertTrue(Support.worst(rows.get(i), golden) <= Support.allowedError(GOLDEN_CASES[i], golden), GOLDEN_CASES[i]);
    }
  }

  @Test
  @Tag("golden_logits")
  void allLogitsAndStateHaveTheGoldenValues() {
    Model model = Support.goldenModel();
    float[] golden = Support.goldenFloats("len7", "logits_all");
    float[] state = Support.goldenFloats("len7", "state_wkv");
    try (Cache cache = model.cache()) {
      float[] rows = new float[golden.length];
      model.step(List.of(StepItem.of(cache, Support.goldenTokens("len7")).allLogits(FloatBuffer.wrap(rows))));
      assertTrue(Support.worst(rows, golden) <= 4 * Support.allowedError("len7", golden));
      int part = state.length / model.info().layers();
      for (int layer = 0; layer < model.info().layers(); layer++)
        assertTrue(Support.worst(cache.readState(layer, StatePart.WKV),
                       Arrays.copyOfRange(state, layer * part, (layer + 1) * part))
            <= 1e-4);
    }
  }

  // --- options_defaults

  @Test
  @Tag("options_defaults")
  void ofAModel() {
    try (Model model = Model.load(Support.STORY_MODEL, ModelOptions.builder().device("cpu").build())) {
      assertEquals(Math.min(Runtime.getRuntime().availableProcessors(), 256), model.info().threads());
      assertEquals(512, model.info().chunkTokens());
      assertFalse(model.info().isReproducible());
      assertEquals(NumberType.F32, model.info().stateType());
      assertEquals(0, model.memory().limitBytes());
    }
    ModelOptions chosen = ModelOptions.builder()
                              .device("cpu")
                              .threads(1)
                              .chunkTokens(16)
                              .reproducible(true)
                              .memoryLimitBytes(1_000_000_000)
                              .build();
    try (Model model = Model.load(Support.STORY_MODEL, chosen)) {
      assertEquals(1, model.info().threads());
      assertEquals(16, model.info().chunkTokens());
      assertTrue(model.info().isReproducible());
      assertEquals(1_000_000_000, model.memory().limitBytes());
    }
  }

  @Test
  @Tag("options_defaults")
  void ofASampler() {
    float[] logits = {0, 5, 1, 4};
    try (Sampler plain = Sampler.create(SamplerOptions.DEFAULTS);
         Sampler spelled = Sampler.create(SamplerOptions.builder().temperature(1).seed(0).topP(1).build())) {
      for (int i = 0; i < 50; i++) assertEquals(plain.sample(logits), spelled.sample(logits));
    }
  }

  @Test
  @Tag("options_defaults")
  void ofAGeneration() {
    try (Generation generation = model().generate("Once", GenerationOptions.builder().ignoreEnd(true).build())) {
      assertEquals(256, generation.pieces().count());
      assertNull(generation.sampler());
    }
  }

  @Test
  @Tag("options_defaults")
  void aBuilderCanGoOnAfterBuild() {
    GenerationOptions.Builder builder = GenerationOptions.builder().maxTokens(3);
    GenerationOptions three = builder.build();
    builder.maxTokens(5);
    try (Generation first = model().generate("Once", three);
         Generation second = model().generate("Once", builder.build())) {
      assertEquals(3, first.pieces().count());
      assertEquals(5, second.pieces().count());
    }
  }

  // --- unicode

  @Test
  @Tag("unicode")
  void paths() throws Exception {
    for (String name : new String[] {"\u043C\u043E\u0434\u0435\u043B\u044C \u30E2\u30C7\u30EB \uD83E\uDDA2", "a b"}) {
      Path path = folder.resolve(name + ".gguf");
      Files.copy(Path.of(Support.STORY_MODEL), path);
      try (Model model = Model.load(path, Support.CPU); Model same = Model.load(path.toString(), Support.CPU);
           Cache cache = model.cache()) {
        assertEquals(8, same.info().layers());
        cache.save(folder.resolve(name + ".wkv"));
        try (Cache again = model.loadCache(folder + "/" + name + ".wkv")) {
          assertEquals(0, again.position());
        }
      }
    }
    assertTrue(Support.refused(NotFoundException.class, "", () -> Model.load("/\uD83E\uDDA2"))
                   .getMessage()
                   .contains("/\uD83E\uDDA2"));
  }

  @Test
  @Tag("unicode")
  void text() {
    try (Tokenizer tokenizer = Tokenizer.fromBytes(Support.VOCABULARY)) {
      String text = "ab\uD83E\uDDA2\u0436\0b";
      assertArrayEquals(new int[] {3, 4, 9, 8, 2}, tokenizer.encode(text));
      assertEquals(text, tokenizer.decode(3, 4, 9, 8, 2));
      assertArrayEquals(new byte[] {(byte) 0xf0, 'a'}, tokenizer.decodeBytes(5, 1));
      assertEquals("\uFFFDa", tokenizer.decode(5, 1));
      refused(() -> tokenizer.encode("\uD83E"));
      refused(() -> tokenizer.encode("a\uDDA2b"));
    }
  }

  @Test
  @Tag("unicode")
  void charactersStayWhole() {
    try (Tokenizer tokenizer = Tokenizer.fromBytes(Support.VOCABULARY); Decoder decoder = tokenizer.decoder()) {
      StringBuilder pieces = new StringBuilder();
      for (int token : new int[] {5, 6, 7, 1, 8, 5}) pieces.append('[').append(decoder.push(token)).append(']');
      assertEquals("[][][\uD83E\uDDA2][a][\0][]", pieces.toString());
      assertEquals("\uFFFD", decoder.finish());
    }
  }

  @Test
  @Tag("unicode")
  void pathsAndStopTextsWithNulAreRefused() {
    refused(() -> Model.load("a\0b"));
    refused(() -> model().generate("x", GenerationOptions.builder().stop("a\0b").build()));
    refused(() -> model().loadCache("\uD800"));
  }

  // --- batch

  @Test
  @Tag("batch")
  void rowsAreThoseOfSingleSteps() {
    List<StepItem> items = new ArrayList<>();
    List<float[]> alone = new ArrayList<>();
    FloatBuffer rows = FloatBuffer.allocate(3 * model().vocabSize());
    for (String text : new String[] {"Once upon", "The", "There was a king who had three"}) {
      int[] tokens = model().tokenizer().encode(text);
      try (Cache cache = model().cache()) {
        alone.add(cache.step(tokens));
      }
      // parts of one array, which are copied back
      rows.position(items.size() * model().vocabSize());
      items.add(StepItem.of(model().cache(), tokens).logits(rows.slice()));
    }
    model().step(items);
    for (int i = 0; i < 3; i++) {
      float[] row = new float[model().vocabSize()];
      rows.position(i * row.length).get(row);
      assertTrue(Support.worst(row, alone.get(i)) < 1e-3);
    }
  }

  @Test
  @Tag("batch")
  void samplersChoose() {
    try (Cache one = model().cache(); Cache two = model().cache(); Cache alone = model().cache();
         Sampler greedy = Sampler.create(SamplerOptions.builder().greedy(true).build())) {
      int[] chosen = model().step(List.of(StepItem.of(one, 326).sampler(greedy), StepItem.of(two, 326)));
      assertArrayEquals(new int[] {Support.likeliest(alone.step(326)), -1}, chosen);
    }
  }

  @Test
  @Tag("batch")
  void wrongItemsChangeNothing() {
    try (Cache cache = model().cache(); Cache other = model().cache()) {
      refused(() -> model().step(List.of(StepItem.of(cache, 1), StepItem.of(cache, 2))));
      refused(() -> model().step(List.of(StepItem.of(cache, 1), StepItem.of(other, 9999))));
      refused(() -> model().step(List.of(StepItem.of(cache, 1).logits(FloatBuffer.allocate(3)))));
      assertEquals(0, cache.position());
      assertEquals(0, model().step(List.of()).length);
      assertArrayEquals(new int[] {-1}, model().step(List.of(StepItem.of(cache))));
      assertEquals(0, cache.position());
    }
  }

  @Test
  @Tag("batch")
  void aFailureSaysWhichItemsWereAtFault() {
    try (Cache good = model().cache(); Cache twice = model().cache(); Cache wrong = model().cache();
         Cache foreign = Support.goldenModel().cache()) {
      List<StepItem> items = List.of(StepItem.of(good, 1), StepItem.of(foreign, 1), StepItem.of(wrong, 9999),
          StepItem.of(twice, 1), StepItem.of(twice, 2));
      for (boolean isWatched : new boolean[] {false, true}) {
        MismatchException thrown = Support.refused(
            MismatchException.class, "", () -> model().step(items, isWatched ? (done, total) -> false : null));
        List<String> faults = Arrays.stream(thrown.getSuppressed()).map(Throwable::getMessage).toList();
        assertEquals(List.of("item 1: WKV_MISMATCH", "item 2: WKV_INVALID", "item 4: WKV_INVALID"), faults);
        assertEquals(2, assertInstanceOf(ItemException.class, thrown.getSuppressed()[1]).index());
        assertEquals(0, good.position() + twice.position() + wrong.position());
      }
    }
  }

  @Test
  @Tag("batch")
  void keptStatesOfDraftedTokens() {
    try (Cache cache = model().cache(); Cache fresh = model().cache()) {
      model().step(List.of(StepItem.of(cache, 1, 2, 3, 4).keepStates()));
      cache.rollback(2);
      assertEquals(2, cache.position());
      fresh.feed(1, 2);
      assertTrue(Support.worst(cache.step(9), fresh.step(9)) < 1e-3);
    }
  }

  // --- busy

  @Test
  @Tag("busy")
  void aSecondCallOnACacheIsRefused() throws Exception {
    try (Cache cache = model().cache();
         Generation generation = model().generate("x", GenerationOptions.builder().cache(cache).build());
         PrefixStore store = model().prefixStore()) {
      Support.Running<?> running = Support.inside(cache, () -> cache.step(Support.many(5, 6000)));
      List<Executable> calls = List.of(()
                                           -> cache.step(1),
          cache::copy, cache::mark, cache::position, cache::toBytes, generation::next,
          ()
              -> model().step(List.of(StepItem.of(cache, 1))),
          () -> store.find(new int[] {1, 2}, cache), () -> Session.of(cache).toBytes());
      for (Executable call : calls) {
        BusyException busy = Support.refused(BusyException.class, "", call);
        assertInstanceOf(IllegalStateException.class, busy);
        assertEquals(-7, busy.code());
      }
      assertNotNull(cache.toString()); // never fails
      running.result();
      assertEquals(6000, cache.position());
    }
  }

  @Test
  @Tag("busy")
  void aSecondCallOnAGenerationIsRefused() throws Exception {
    try (Generation generation = model().generate(
             "", GenerationOptions.builder().promptTokens(Support.many(5, 6000)).maxTokens(2).build())) {
      Support.Running<Piece> running = Support.inside(generation.cache(), generation::next);
      Support.refused(BusyException.class, "Generation", generation::next);
      running.result();
      assertEquals(1, generation.pieces().count());
    }
  }

  // --- cancellation

  private static Thread interruptedOnceBusy(Cache cache) {
    Thread self = Thread.currentThread();
    Thread other = new Thread(() -> {
      try {
        Support.waitUntilBusy(cache, () -> false);
        self.interrupt();
      } catch (InterruptedException never) {
        throw new AssertionError(never);
      }
    });
    other.start();
    return other;
  }

  @Test
  @Tag("cancellation")
  void ofALoad() {
    ModelOptions.Builder options = ModelOptions.builder().device("cpu");
    List<Long> seen = new ArrayList<>();
    Model.load(Support.STORY_MODEL, options.progress((done, total) -> !seen.add(done) || done > total).build()).close();
    assertTrue(seen.size() > 1);
    assertEquals(seen.stream().sorted().toList(), seen);
    assertEquals(-8,
        Support
            .refused(CancelledException.class, "",
                () -> Model.load(Support.STORY_MODEL, options.progress((done, total) -> true).build()))
            .code());
    IllegalStateException mine = new IllegalStateException("mine");
    assertSame(mine,
        Support.refused(IllegalStateException.class, "mine",
            () -> Model.load(Support.STORY_MODEL, options.progress((done, total) -> { throw mine; }).build())));
    Thread.currentThread().interrupt();
    Support.refused(CancelledException.class, "", () -> Model.load(Support.STORY_MODEL, Support.CPU));
    assertTrue(Thread.interrupted());
  }

  @Test
  @Tag("cancellation")
  void ofAStepByProgress() {
    try (Cache cache = model().cache(); Cache fork = model().cache()) {
      List<Long> seen = new ArrayList<>();
      model().step(
          List.of(StepItem.of(cache, Support.many(5, 1200))), (done, total) -> !seen.add(done) || total != 1200);
      assertEquals(1200, seen.get(seen.size() - 1));
      fork.assign(cache);
      List<StepItem> more = List.of(StepItem.of(cache, Support.many(5, 1200)));
      Support.refused(CancelledException.class, "", () -> model().step(more, (done, total) -> true));
      Support.refused(ArithmeticException.class, "mine",
          () -> model().step(more, (done, total) -> { throw new ArithmeticException("mine"); }));
      assertEquals(1200, cache.position());
      assertArrayEquals(fork.step(3), cache.step(3));
    }
  }

  @Test
  @Tag("cancellation")
  void interruptingEndsALongStep() throws Exception {
    try (Cache cache = begun()) {
      IntBuffer tokens = IntBuffer.wrap(Support.many(5, 200000));
      for (int way = 0; way < 2; way++) {
        int chosen = way;
        Thread other = interruptedOnceBusy(cache);
        Support.refused(CancelledException.class, "", () -> {
          if (chosen == 0)
            cache.feed(tokens);
          else
            model().step(List.of(StepItem.of(cache, tokens)));
        });
        assertTrue(Thread.interrupted()); // it stays interrupted
        other.join();
        assertEquals(5, cache.position());
      }
      try (Cache same = begun()) {
        check(cache, same);
      }
      Thread.currentThread().interrupt(); // short steps do not look
      cache.feed(1);
      assertTrue(Thread.interrupted());
    }
  }

  @Test
  @Tag("cancellation")
  void interruptingEndsAGenerationInALongPrompt() throws Exception {
    GenerationOptions options = GenerationOptions.builder().promptTokens(Support.many(5, 200000)).maxTokens(1).build();
    try (Generation generation = model().generate("", options)) {
      Thread other = interruptedOnceBusy(generation.cache());
      Support.refused(CancelledException.class, "", generation::text);
      assertTrue(Thread.interrupted());
      other.join();
      assertEquals(0, generation.cache().position());
    }
  }

  @Test
  @Tag("cancellation")
  void interruptingEndsAGenerationBetweenPiecesAndItGoesOn() {
    GenerationOptions options = GenerationOptions.builder().maxTokens(10).ignoreEnd(true).build();
    String whole;
    try (Generation generation = model().generate("Once", options)) {
      whole = generation.text();
    }
    try (Generation generation = model().generate("Once", options)) {
      StringBuilder text = new StringBuilder();
      Support.refused(CancelledException.class, "interrupted", () -> {
        for (Piece piece : generation) {
          text.append(piece);
          if (generation.tokensGenerated() == 4) Thread.currentThread().interrupt();
        }
      });
      assertTrue(Thread.interrupted());
      assertEquals(4, generation.tokensGenerated());
      assertEquals(whole, text + generation.text());
    }
  }

  @Test
  @Tag("cancellation")
  void ofAGenerationByProgressWhichThenGoesOn() {
    AtomicInteger calls = new AtomicInteger();
    GenerationOptions options = GenerationOptions.builder()
                                    .promptTokens(Support.many(5, 1200))
                                    .maxTokens(2)
                                    .progress((done, total) -> calls.incrementAndGet() == 3)
                                    .build();
    try (Generation generation = model().generate("", options)) {
      Support.refused(CancelledException.class, "", generation::next);
      assertEquals(0, generation.cache().position());
      assertEquals(2, generation.pieces().count());
    }
  }
}
