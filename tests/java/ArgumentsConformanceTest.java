// SPDX-License-Identifier: Apache-2.0
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.wkv.Cache;
import dev.wkv.CacheOptions;
import dev.wkv.Generation;
import dev.wkv.GenerationOptions;
import dev.wkv.InvalidArgumentException;
import dev.wkv.MismatchException;
import dev.wkv.Model;
import dev.wkv.ModelOptions;
import dev.wkv.PrefixStore;
import dev.wkv.PrefixStoreOptions;
import dev.wkv.Sampler;
import dev.wkv.SamplerOptions;
import dev.wkv.Session;
import dev.wkv.StateLayout;
import dev.wkv.StatePart;
import dev.wkv.StepItem;
import dev.wkv.Tokenizer;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.file.Path;
import java.util.Collections;
import java.util.List;
import javax.tools.DiagnosticCollector;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

/** Arguments that will not do, and buffers that will. */
class ArgumentsConformanceTest extends Conformance {
  // --- buffers

  private static void refusesStep(String text, IntBuffer tokens, FloatBuffer logits) {
    try (Cache cache = model().cache()) {
      Support.refused(InvalidArgumentException.class, text, () -> cache.step(tokens, logits));
      Support.refused(
          InvalidArgumentException.class, text, () -> model().step(List.of(StepItem.of(cache, tokens).logits(logits))));
      assertEquals(0, cache.position());
    }
  }

  private static ByteBuffer direct(int bytes) {
    return ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
  }

  private static ByteOrder otherOrder() {
    return ByteOrder.nativeOrder() == ByteOrder.BIG_ENDIAN ? ByteOrder.LITTLE_ENDIAN : ByteOrder.BIG_ENDIAN;
  }

  /** What the compiler says of a statement with a cache in it. */
  private boolean compiles(String statement) {
    JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
    assumeTrue(compiler != null, "this Java has no compiler");
    String code = "class Probe { void probe(dev.wkv.Cache cache) { " + statement + " } }";
    JavaFileObject source = new SimpleJavaFileObject(URI.create("string:///Probe.java"), JavaFileObject.Kind.SOURCE) {
      @Override
      public CharSequence getCharContent(boolean ignoreEncodingErrors) {
        return code;
      }
    };
    return compiler
        .getTask(null, null, new DiagnosticCollector<>(),
            List.of("-proc:none", "-cp", Support.JAR, "-d", folder.toString(), "-implicit:none"), null, List.of(source))
        .call();
  }

  @Test
  @Tag("buffer_type")
  void theCompilerRefusesOtherTypes() {
    assertTrue(compiles("cache.step(java.nio.IntBuffer.allocate(1), java.nio.FloatBuffer.allocate(1));"));
    for (String tokens : new String[] {"java.nio.FloatBuffer.allocate(1)", "java.nio.LongBuffer.allocate(1)",
             "java.nio.ByteBuffer.allocate(4)", "new long[1]", "\"text\""})
      assertFalse(compiles("cache.step(" + tokens + ", java.nio.FloatBuffer.allocate(1));"), tokens);
    for (String logits :
        new String[] {"java.nio.DoubleBuffer.allocate(1)", "java.nio.ByteBuffer.allocate(4)", "new double[1]"})
      assertFalse(compiles("cache.step(java.nio.IntBuffer.allocate(1), " + logits + ");"), logits);
  }

  @Test
  @Tag("buffer_type")
  void nativeCodeRefusesOtherTypes() {
    try (dev.wkv.internal.SamplerOptions options = new dev.wkv.internal.SamplerOptions()) {
      for (Object wrong : new Object[] {new float[1], new long[1], "text", FloatBuffer.allocate(1), direct(4),
               direct(4).asFloatBuffer(), IntBuffer.allocate(1)})
        Support.refused(InvalidArgumentException.class, "int[]", () -> options.set_banned_tokens(wrong));
    }
    try (dev.wkv.internal.Session session = new dev.wkv.internal.Session()) {
      for (Object wrong :
          new Object[] {new int[1], new double[1], direct(4), direct(4).asIntBuffer(), FloatBuffer.allocate(1)})
        Support.refused(InvalidArgumentException.class, "float[]", () -> session.set_logits(wrong));
    }
  }

  @Test
  @Tag("buffer_type")
  void everyBufferOfNumbersWill() {
    float[] expected;
    try (Cache cache = model().cache()) {
      expected = cache.step(TOKENS);
    }
    int width = model().vocabSize();
    IntBuffer directTokens = direct(20).asIntBuffer().put(TOKENS).flip();
    IntBuffer part = IntBuffer.wrap(new int[] {0, 1539, 326, 712, 259, 519, 0}, 1, 5);
    IntBuffer ofBytes = ByteBuffer.allocate(20).order(ByteOrder.nativeOrder()).asIntBuffer().put(TOKENS).flip();
    FloatBuffer between = FloatBuffer.allocate(width + 2).position(1).limit(width + 1);
    for (IntBuffer tokens : List.of(IntBuffer.wrap(TOKENS), directTokens, directTokens.asReadOnlyBuffer(), part,
             part.slice(), ofBytes, IntBuffer.wrap(TOKENS).asReadOnlyBuffer()))
      for (FloatBuffer logits : List.of(model().newLogits(), FloatBuffer.allocate(width), between,
               direct(4 * width + 8).asFloatBuffer().position(1),
               ByteBuffer.allocate(4 * width).order(ByteOrder.nativeOrder()).asFloatBuffer(),
               FloatBuffer.allocate(width + 5))) {
        int start = logits.position();
        try (Cache cache = model().cache()) {
          cache.step(tokens, logits);
        }
        float[] read = new float[width];
        logits.duplicate().get(read);
        assertArrayEquals(expected, read);
        assertEquals(start, logits.position());
        assertEquals(5, tokens.remaining());
      }
    assertEquals(0, between.get(0)); // nothing is written outside
    assertEquals(0, between.limit(width + 2).get(width + 1));
  }

  @Test
  @Tag("buffer_order")
  void ofAnotherMachineIsRefused() {
    int width = model().vocabSize();
    for (ByteBuffer memory : List.of(ByteBuffer.allocateDirect(4 * width), ByteBuffer.allocate(4 * width))) {
      memory.order(otherOrder());
      refusesStep("byte order", memory.asIntBuffer(), model().newLogits());
      refusesStep("byte order", IntBuffer.wrap(TOKENS), memory.asFloatBuffer());
      try (Cache cache = model().cache(); Sampler sampler = Sampler.create(SamplerOptions.DEFAULTS)) {
        refused(() -> sampler.sample(memory.asFloatBuffer()));
        refused(() -> cache.writeState(0, StatePart.WKV, memory.asFloatBuffer()));
      }
    }
  }

  @Test
  @Tag("buffer_order")
  void unalignedMemoryIsRefused() {
    ByteBuffer odd = direct(4 * model().vocabSize() + 1).position(1).slice().order(ByteOrder.nativeOrder());
    assumeTrue(odd.asFloatBuffer().isDirect(), "this machine gives unaligned views as a copy");
    refusesStep("aligned", IntBuffer.wrap(TOKENS), odd.asFloatBuffer());
  }

  @Test
  @Tag("buffer_size")
  void ofTokensAndLogits() {
    int width = model().vocabSize();
    refusesStep(String.valueOf(width - 1), IntBuffer.wrap(TOKENS), FloatBuffer.allocate(width - 1));
    refusesStep(String.valueOf(width - 1), IntBuffer.wrap(TOKENS), direct(4 * (width - 1)).asFloatBuffer());
    refusesStep("", IntBuffer.wrap(TOKENS), FloatBuffer.allocate(0));
    refusesStep("", IntBuffer.wrap(TOKENS), model().newLogits().position(1));
    try (Cache cache = model().cache()) {
      refused(() -> cache.step());
      refused(() -> cache.feed(IntBuffer.allocate(0)));
      assertEquals(0, cache.position());
    }
  }

  @Test
  @Tag("buffer_size")
  void ofAStateAndOfProbabilities() {
    try (Cache cache = model().cache(); Sampler sampler = Sampler.create(SamplerOptions.DEFAULTS)) {
      for (FloatBuffer wrong : List.of(FloatBuffer.allocate(1), direct(4).asFloatBuffer()))
        for (Executable call : List.<Executable>of(()
                                                       -> cache.readState(0, StatePart.WKV, wrong),
                 ()
                     -> cache.writeState(0, StatePart.WKV, wrong),
                 ()
                     -> cache.importState(StateLayout.FLA, wrong, 1),
                 () -> sampler.readProbabilities(FloatBuffer.allocate(4), wrong)))
          refused(call);
      refused(() -> Session.of(cache, null, new float[1]).toBytes());
    }
  }

  @Test
  @Tag("read_only_buffer")
  void isNotWritten() {
    int width = model().vocabSize();
    for (FloatBuffer frozen :
        List.of(model().newLogits().asReadOnlyBuffer(), FloatBuffer.allocate(width).asReadOnlyBuffer())) {
      refusesStep("read-only", IntBuffer.wrap(TOKENS), frozen);
      try (Cache cache = model().cache()) {
        Support.refused(InvalidArgumentException.class, "read-only", () -> cache.readState(0, StatePart.WKV, frozen));
      }
    }
  }

  // --- negative_count, null_arguments, foreign_cache

  @Test
  @Tag("negative_count")
  void isRefused() {
    try (Cache cache = model().cache()) {
      for (Executable call : List.<Executable>of(
               ()
                   -> Model.load(Support.STORY_MODEL, ModelOptions.builder().device("cpu").threads(-1).build()),
               ()
                   -> ModelOptions.builder().memoryLimitBytes(-1),
               ()
                   -> ModelOptions.builder().parkingLimitBytes(-1),
               ()
                   -> Model.load(Support.STORY_MODEL, ModelOptions.builder().device("cpu").chunkTokens(-1).build()),
               ()
                   -> CacheOptions.builder().checkpointEveryTokens(-1),
               ()
                   -> CacheOptions.builder().checkpointsBytesMax(-1),
               ()
                   -> CacheOptions.builder().checkpointsCountMax(-1),
               ()
                   -> PrefixStoreOptions.builder().memoryBytesMax(-1),
               ()
                   -> PrefixStoreOptions.builder().minTokens(-1),
               ()
                   -> model().generate("x", GenerationOptions.builder().maxTokens(-1).build()),
               ()
                   -> model().generate("x", GenerationOptions.builder().alternatives(-1).build()),
               ()
                   -> Sampler.create(SamplerOptions.builder().topK(-1).build()),
               ()
                   -> cache.step(-1),
               ()
                   -> cache.step(Integer.MIN_VALUE),
               ()
                   -> cache.step(model().vocabSize()),
               ()
                   -> cache.readState(-1, StatePart.WKV),
               ()
                   -> cache.readState(99, StatePart.WKV),
               ()
                   -> Cache.select(List.of(cache), -1),
               () -> model().tokenizer().decode(-1), () -> model().tokenizer().decoder().push(-1)))
        refused(call);
      for (Executable call : List.<Executable>of(()
                                                     -> cache.rollback(-1),
               ()
                   -> cache.unmark(-1),
               ()
                   -> Cache.reorder(List.of(cache), -1),
               () -> cache.importState(StateLayout.FLA, FloatBuffer.wrap(cache.exportState(StateLayout.FLA)), -1)))
        refused(call);
      assertEquals(0, cache.position());
    }
  }

  @Test
  @Tag("null_arguments")
  void areRefused() {
    try (Cache cache = model().cache(); Sampler sampler = Sampler.create(SamplerOptions.DEFAULTS)) {
      for (Executable call : List.<Executable>of(()
                                                     -> Model.load((String) null),
               ()
                   -> Model.load((Path) null),
               ()
                   -> Model.load("x", (ModelOptions) null),
               ()
                   -> cache.step((int[]) null),
               ()
                   -> model().step(null),
               ()
                   -> StepItem.of(null, 1),
               ()
                   -> StepItem.of(cache, (int[]) null),
               ()
                   -> model().cacheFromBytes(null),
               ()
                   -> model().loadSession((String) null),
               ()
                   -> model().sessionFromBytes(null),
               ()
                   -> model().tokenizer().encode((String) null),
               ()
                   -> model().tokenizer().encode((byte[]) null),
               ()
                   -> model().tokenizer().decode((int[]) null),
               ()
                   -> sampler.sample((float[]) null),
               ()
                   -> sampler.sample((FloatBuffer) null),
               ()
                   -> Tokenizer.load(null),
               ()
                   -> Tokenizer.fromBytes(null),
               ()
                   -> model().generate(null),
               ()
                   -> model().generate("x", null),
               ()
                   -> model().cache(null),
               ()
                   -> model().prefixStore(null),
               ()
                   -> Session.of((Cache) null),
               ()
                   -> Session.of((Generation) null),
               ()
                   -> Cache.readHeader((String) null),
               ()
                   -> Cache.readHeader((byte[]) null),
               ()
                   -> Cache.select(null, 0),
               ()
                   -> Cache.select(Collections.singletonList(null), 0),
               ()
                   -> Sampler.create(null),
               ()
                   -> cache.readState(0, null),
               ()
                   -> cache.exportState(null),
               ()
                   -> model().prefixStore().find(null, cache),
               ()
                   -> model().prefixStore().find(new int[] {1}, null),
               ()
                   -> GenerationOptions.builder().stop((String) null),
               ()
                   -> SamplerOptions.builder().biases(null),
               () -> model().initialState(null, false), () -> ModelOptions.builder().weightType(null)))
        Support.refused(NullPointerException.class, "", call);
      for (Executable call : List.<Executable>of(()
                                                     -> cache.step((IntBuffer) null, model().newLogits()),
               ()
                   -> cache.step(IntBuffer.wrap(TOKENS), null),
               ()
                   -> cache.step(1, null),
               ()
                   -> cache.feed((int[]) null),
               ()
                   -> cache.assign(null),
               ()
                   -> cache.save((String) null),
               () -> cache.writeState(0, StatePart.WKV, null), () -> cache.importState(StateLayout.FLA, null, 1)))
        Support.refused(NullPointerException.class, "", call);
      assertEquals(0, cache.position());
    }
  }

  @Test
  @Tag("null_arguments")
  void nativeObjectsSurviveMisuse() {
    long[] room = new long[1];
    try (dev.wkv.internal.Session session = new dev.wkv.internal.Session();
         dev.wkv.internal.ModelOptions options = new dev.wkv.internal.ModelOptions();
         dev.wkv.internal.GenerationPiece piece = new dev.wkv.internal.GenerationPiece();
         dev.wkv.internal.Watch watch = new dev.wkv.internal.Watch(null)) {
      dev.wkv.internal.Model gone = new dev.wkv.internal.Model(0, false);
      dev.wkv.internal.Cache cache = new dev.wkv.internal.Cache(0, false);
      for (Executable call : List.<Executable>of(()
                                                     -> dev.wkv.internal.Cache.create(null, null, room),
               ()
                   -> gone.get_info(null),
               ()
                   -> gone.step(null),
               ()
                   -> gone.step(new dev.wkv.internal.Batch(0)),
               ()
                   -> gone.step(new dev.wkv.internal.Batch(3)),
               ()
                   -> cache.step(null, null),
               ()
                   -> cache.copy(room),
               ()
                   -> dev.wkv.internal.Generation.create(null, null, null, room),
               ()
                   -> dev.wkv.internal.Session.load(null, null, null),
               ()
                   -> session.save(null, null),
               ()
                   -> dev.wkv.internal.Cache.read_header(null, null),
               ()
                   -> dev.wkv.internal.Model.load(null, options, room),
               () -> dev.wkv.internal.Cache.select(null, new long[] {0})))
        refused(call);
      assertNull(piece.get_alternative(0));
      assertEquals(0, piece.get_text().length);
      assertFalse(session.get_logits(new float[2]));
      options.set_device(null);
      cache.close();
      gone.close();
      assertNotNull(watch);
    }
    assertEquals(0, room[0]);
  }

  @Test
  @Tag("foreign_cache")
  void ofAnotherModelIsRefused() {
    Model other = Support.goldenModel();
    try (Cache cache = model().cache(); Cache foreign = other.cache(); PrefixStore store = model().prefixStore()) {
      for (Executable call : List.<Executable>of(
               ()
                   -> model().step(List.of(StepItem.of(cache, 1), StepItem.of(foreign, 1))),
               ()
                   -> other.cacheFromBytes(cache.toBytes()),
               ()
                   -> store.find(new int[] {1, 2}, foreign),
               ()
                   -> other.sessionFromBytes(Session.of(cache).toBytes()),
               () -> cache.assign(foreign), () -> Cache.reorder(List.of(cache, foreign), 1, 0)))
        assertEquals(-9, Support.refused(MismatchException.class, "", call).code());
      assertEquals(0, cache.position() + foreign.position());
    }
  }
}
