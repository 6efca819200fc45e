// SPDX-License-Identifier: Apache-2.0
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.wkv.Cache;
import dev.wkv.Generation;
import dev.wkv.GenerationOptions;
import dev.wkv.InvalidArgumentException;
import dev.wkv.Model;
import dev.wkv.Piece;
import dev.wkv.PrefixStore;
import dev.wkv.PrefixStoreOptions;
import dev.wkv.Reason;
import dev.wkv.Sampler;
import dev.wkv.SamplerOptions;
import dev.wkv.Session;
import dev.wkv.Tokenizer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.OptionalInt;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Tokenizers, samplers, generations, sessions, prefix stores. */
class TextTest {
  private final Model model = Support.storyModel();
  @TempDir Path folder;

  private static GenerationOptions.Builder tokens(int count) {
    return GenerationOptions.builder().maxTokens(count);
  }

  @Test
  void tokenizerHasTheGoldenIds() throws Exception {
    Matcher cases = Pattern.compile("\"bytes_hex\": \"([0-9a-f]*)\",\\s*\"ids\": \\[([^]]*)\\]")
                        .matcher(Files.readString(Support.GOLDEN.resolve("golden/tokenizer_cases.json")));
    int count = 0;
    try (Tokenizer tokenizer = Tokenizer.load(Support.GOLDEN.resolve("weights/rwkv_vocab.txt").toString())) {
      for (; cases.find(); count++) {
        byte[] bytes = HexFormat.of().parseHex(cases.group(1));
        int[] ids = Pattern.compile("\\d+")
                        .matcher(cases.group(2))
                        .results()
                        .mapToInt(id -> Integer.parseInt(id.group()))
                        .toArray();
        assertArrayEquals(ids, tokenizer.encode(bytes));
        assertArrayEquals(bytes, tokenizer.decodeBytes(ids));
      }
    }
    assertTrue(count > 4);
  }

  @Test
  void samplerOptionsReachTheSampler() {
    float[] logits = {0, 5, 1, 4};
    for (Map.Entry<SamplerOptions, Integer> one :
        Map.of(SamplerOptions.builder().greedy(true).build(), 1,
               SamplerOptions.builder().greedy(true).bannedTokens(1).build(), 3,
               SamplerOptions.builder().greedy(true).biases(Map.of(2, 100f)).build(), 2,
               SamplerOptions.builder().topK(1).build(), 1, SamplerOptions.builder().topP(0.01f).build(), 1,
               SamplerOptions.builder().minP(0.99f).build(), 1, SamplerOptions.builder().greedy(true).idsEnd(1).build(),
               0)
            .entrySet())
      try (Sampler sampler = Sampler.create(one.getKey())) {
        assertEquals(one.getValue(), sampler.sample(logits));
      }
    for (SamplerOptions.Builder penalty : List.of(SamplerOptions.builder().presence(10),
             SamplerOptions.builder().frequency(10), SamplerOptions.builder().repetition(100)))
      try (Sampler sampler = Sampler.create(penalty.greedy(true).build());
           Sampler exempt = Sampler.create(penalty.exemptTokens(1).build())) {
        sampler.accept(1);
        exempt.accept(1);
        assertEquals(3, sampler.sample(logits));
        assertEquals(1, exempt.sample(logits));
      }
    try (Sampler sampler = Sampler.create(SamplerOptions.builder().topK(2).build())) {
      float[] shares = sampler.probabilities(logits);
      assertEquals(0, shares[0] + shares[2]);
      assertEquals(1, shares[1] + shares[3], 1e-5);
    }
    try (Sampler sampler = Sampler.create(SamplerOptions.builder().seed(3).build())) {
      int[] first = new int[20];
      for (int i = 0; i < 20; i++) first[i] = sampler.sample(logits);
      sampler.reset(3);
      for (int token : first) assertEquals(token, sampler.sample(logits));
    }
    Support.refused(InvalidArgumentException.class, "temperature",
        () -> Sampler.create(SamplerOptions.builder().temperature(Float.NaN).build()));
  }

  @Test
  void greedyIsTheLikeliestTokenOfEachStep() {
    int[] prompt = model.tokenizer().encode("Once upon a time");
    List<Integer> expected = new ArrayList<>();
    try (Cache cache = model.cache(); Generation generation = model.generate("Once upon a time", tokens(12).build())) {
      float[] logits = cache.step(prompt);
      for (int i = 0; i < 12; i++) {
        expected.add(Support.likeliest(logits));
        logits = cache.step(expected.get(i));
      }
      List<Piece> pieces = new ArrayList<>();
      for (Piece piece : generation) pieces.add(piece);
      assertEquals(expected, pieces.stream().map(Piece::token).toList());
      StringBuilder text = new StringBuilder();
      pieces.forEach(text::append);
      assertEquals(model.tokenizer().decode(expected.stream().mapToInt(token -> token).toArray()), text.toString());
      assertEquals(Reason.MAX_TOKENS, generation.reason());
      assertEquals(OptionalInt.of(expected.get(11)), generation.pendingToken());
      assertEquals(12, generation.tokensGenerated());
      assertEquals(prompt.length, generation.promptTokens());
      assertFalse(generation.hasNext());
      Support.refused(NoSuchElementException.class, "MAX_TOKENS", generation::next);
      assertEquals("", generation.text());
    }
  }

  @Test
  void seedsDecide() {
    List<String> texts = new ArrayList<>();
    for (long seed : new long[] {1, 1, 2, -1})
      try (Generation generation =
               model.generate("Once", tokens(20).sampling(SamplerOptions.builder().seed(seed).build()).build())) {
        texts.add(generation.text());
      }
    assertEquals(texts.get(0), texts.get(1));
    assertNotEquals(texts.get(0), texts.get(2));
    assertNotEquals(texts.get(0), texts.get(3));
  }

  @Test
  void probabilitiesAreThereWhenAskedFor() {
    try (Generation generation = model.generate("Once", tokens(3).alternatives(4).build());
         Generation plain = model.generate("Once", tokens(1).build())) {
      generation.pieces().forEach(piece -> {
        assertTrue(piece.logProbability() < 0);
        assertEquals(4, piece.alternatives().size());
        assertEquals(piece.token(), piece.alternatives().get(0).token());
        assertEquals(piece.logProbability(), piece.alternatives().get(0).logProbability());
      });
      Piece piece = plain.next();
      assertEquals(0, piece.logProbability());
      assertTrue(piece.alternatives().isEmpty());
    }
  }

  @Test
  void streamsArePulled() {
    try (Generation generation = model.generate("Once", tokens(50).ignoreEnd(true).build())) {
      assertEquals(5, generation.stream().limit(5).count());
      assertEquals(5, generation.tokensGenerated());
    }
  }

  @Test
  void aCacheGoesOnAfterAGeneration() {
    try (Cache cache = model.cache(); Cache alone = model.cache();
         Generation first = model.generate("There was", tokens(5).cache(cache).ignoreEnd(true).build())) {
      Support.refused(
          InvalidArgumentException.class, "not ended", () -> model.generate("x", tokens(1).previous(first).build()));
      String text = first.text();
      assertSame(cache, first.cache());
      try (Generation second = model.generate(" and", tokens(5).previous(first).build())) {
        assertSame(cache, second.cache());
        second.text();
      }
      // the same as reading all of it
      int[] and = model.tokenizer().encode(" and");
      assertEquals(first.promptTokens() + 5 + and.length + 4, cache.position());
      assertFalse(text.isEmpty());
      assertEquals(0, alone.position());
    }
  }

  @Test
  void whatAGenerationMadeItClosesWithItself() {
    Generation generation = model.generate("Once", tokens(2).sampling(SamplerOptions.DEFAULTS).build());
    generation.close();
    assertTrue(generation.cache().isClosed() && generation.sampler().isClosed());
    try (Cache cache = model.cache(); Sampler sampler = Sampler.create(SamplerOptions.DEFAULTS)) {
      model.generate("Once", tokens(2).cache(cache).sampler(sampler).build()).close();
      assertFalse(cache.isClosed() || sampler.isClosed());
    }
    long before = model.memory().cachesBytes();
    Support.refused(InvalidArgumentException.class, "", () -> model.generate("", tokens(2).build()));
    assertEquals(before, model.memory().cachesBytes());
  }

  @Test
  void stopTextsLeaveNoTrace() {
    try (Generation generation = model.generate("Once upon a time", tokens(200).stop(".").build());
         Generation kept =
             model.generate("Once upon a time", tokens(200).stop(List.of(".", "xyz")).keepStop(true).build())) {
      String text = generation.text();
      assertFalse(text.contains("."));
      assertEquals(Reason.STOP_STRING, generation.reason());
      assertTrue(generation.pendingToken().isEmpty());
      assertEquals(text, kept.text());
      assertTrue(kept.cache().position() > generation.cache().position() - 1);
      byte[] unread = generation.unread();
      assertTrue(text.endsWith(new String(unread, StandardCharsets.UTF_8)));
      try (Generation next = model.generate(" And", tokens(3).previous(generation).build())) {
        assertEquals(3, next.pieces().count());
      }
    }
  }

  @Test
  void wrongOptionsAreRefused() {
    try (Sampler sampler = Sampler.create(SamplerOptions.DEFAULTS)) {
      for (GenerationOptions.Builder wrong :
          List.of(tokens(1).stop(""), tokens(1).promptTokens(99999), tokens(1).alternatives(21),
              tokens(1).sampler(sampler).sampling(SamplerOptions.DEFAULTS), tokens(1).stopTokens(-5)))
        Support.refused(InvalidArgumentException.class, "", () -> model.generate("x", wrong.build()));
      Support.refused(InvalidArgumentException.class, "", () -> model.generate(""));
    }
  }

  // --- sessions

  private Generation begun() {
    Generation generation = model.generate("There was",
        tokens(30)
            .ignoreEnd(true)
            .sampling(SamplerOptions.builder().temperature(0.9f).seed(5).build())
            .stop("zzz")
            .build());
    for (int i = 0; i < 7; i++) generation.next();
    return generation;
  }

  @Test
  void sessionsGoOnWithTheSameWords() {
    try (Generation whole = begun(); Generation saved = begun()) {
      String rest = whole.text();
      Path path = folder.resolve("chat.wkv");
      Session.of(saved).save(path);
      byte[] bytes = Session.of(saved).toBytes();
      try (Session fromFile = model.loadSession(path.toString(), model.tokenizer());
           Session fromBytes = model.sessionFromBytes(bytes, model.tokenizer())) {
        assertEquals(rest, fromFile.generation().text());
        assertEquals(rest, fromBytes.generation().text());
        assertEquals(30, fromFile.generation().tokensGenerated());
      }
    }
  }

  @Test
  void aLoadedGenerationKnowsWhetherItHasEnded() {
    try (Generation generation = begun()) {
      generation.text();
      try (Session session = model.sessionFromBytes(Session.of(generation).toBytes())) {
        assertFalse(session.generation().hasNext());
        assertEquals(Reason.MAX_TOKENS, session.generation().reason());
        Support.refused(NoSuchElementException.class, "", session.generation()::next);
      }
    }
    try (Generation generation = begun(); Session session = model.sessionFromBytes(Session.of(generation).toBytes())) {
      Generation loaded = session.generation();
      assertTrue(loaded.hasNext());
      // it has looked ahead: a session saved now would lose that piece
      Support.refused(InvalidArgumentException.class, "hasNext", session::toBytes);
      assertEquals(generation.next(), loaded.next());
      assertTrue(session.toBytes().length > 0);
      assertEquals(generation.text(), loaded.text());
    }
  }

  @Test
  void sessionsHaveTheirParts() {
    try (Cache cache = model.cache(); Sampler sampler = Sampler.create(SamplerOptions.builder().seed(4).build());
         Sampler same = Sampler.create(SamplerOptions.builder().seed(4).build())) {
      float[] logits = cache.step(5);
      try (Session session = model.sessionFromBytes(Session.of(cache, sampler, logits).toBytes())) {
        assertNull(session.generation());
        assertArrayEquals(logits, session.logits());
        for (int i = 0; i < 9; i++) assertEquals(same.sample(logits), session.sampler().sample(logits));
        session.close();
        assertTrue(session.cache().isClosed() && session.sampler().isClosed());
      }
      try (Session plain = model.sessionFromBytes(cache.toBytes());
           Cache alone = model.cacheFromBytes(Session.of(cache, sampler).toBytes())) {
        assertNull(plain.sampler());
        assertNull(plain.logits());
        assertEquals(1, alone.position());
      }
      Session.of(cache).close();
      assertFalse(cache.isClosed()); // given, not made
    }
  }

  // --- prefix stores

  @Test
  void aPromptThatWasReadIsNotReadAgain() {
    PrefixStoreOptions options =
        PrefixStoreOptions.builder().directory(folder.resolve("store").toString()).minTokens(2).build();
    String prompt = "There was once a king who had three sons, and the youngest";
    for (int round = 0; round < 2; round++)
      try (PrefixStore store = model.prefixStore(options);
           Generation first = model.generate(prompt, tokens(3).prefixStore(store).build());
           Generation second = model.generate(prompt + " said", tokens(3).prefixStore(store).build())) {
        first.text();
        assertEquals(round == 0, first.reusedTokens() == 0); // from the folder in the second round
        second.text();
        assertTrue(second.reusedTokens() > 10);
        assertTrue(store.info().hits() > 0);
        int[] ids = model.tokenizer().encode(prompt);
        try (Cache cache = model.cache(); Cache other = model.cache()) {
          cache.feed(ids);
          store.put(ids, cache);
          int[] longer = model.tokenizer().encode(prompt + " and");
          assertEquals(ids.length, store.find(longer, other));
          assertEquals(ids.length, other.position());
        }
        if (round == 1) store.clear();
        assertEquals(round == 1, store.info().entries() == 0);
      }
  }
}
