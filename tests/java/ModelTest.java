// SPDX-License-Identifier: Apache-2.0
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.wkv.Cache;
import dev.wkv.CacheOptions;
import dev.wkv.CancelledException;
import dev.wkv.ConvertOptions;
import dev.wkv.DeviceInfo;
import dev.wkv.InitialState;
import dev.wkv.InvalidArgumentException;
import dev.wkv.MemoryPlan;
import dev.wkv.Model;
import dev.wkv.ModelOptions;
import dev.wkv.NotFoundException;
import dev.wkv.NumberType;
import dev.wkv.PlanOptions;
import dev.wkv.StatePart;
import dev.wkv.Wkv;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Models, devices, plans, conversion, initial states, checkpoints. */
class ModelTest {
  @TempDir Path folder;

  @Test
  void infoSaysWhatTheModelIs() {
    Model model = Support.storyModel();
    assertEquals(8, model.info().layers());
    assertEquals(256, model.info().width());
    assertEquals("gguf", model.info().format());
    assertEquals("cpu", model.info().device());
    assertTrue(model.info().hasTokenizer());
    assertEquals(2047, model.tokenizer().info().tokens());
    assertTrue(model.toString().contains("8 layers"), model.toString());
    assertTrue(model.memory().weightsBytes() > 1_000_000);
  }

  @Test
  void optionsReachTheModel() {
    for (NumberType type : new NumberType[] {NumberType.F32, NumberType.Q8})
      try (Model model = Model.load(
               Support.STORY_MODEL, ModelOptions.builder().device("cpu").kernels("scalar").weightType(type).build())) {
        assertTrue(model.info().computeTypes().contains(type.name()), model.info().computeTypes());
        assertEquals("scalar", model.info().kernels());
      }
    Support.refused(NotFoundException.class, "none",
        () -> Model.load(Support.STORY_MODEL, ModelOptions.builder().device("cpu").kernels("none").build()));
    Support.refused(InvalidArgumentException.class, "",
        ()
            -> Model.load(
                Support.STORY_MODEL, ModelOptions.builder().device("cpu").weightType(NumberType.UNKNOWN).build()));
  }

  @Test
  void versionsAndDevices() {
    assertTrue(Wkv.version().matches("\\d+\\.\\d+\\.\\d+"));
    assertTrue(Wkv.abiVersion() >= 0);
    List<DeviceInfo> devices = Wkv.devices();
    assertEquals("cpu", devices.get(0).name());
    assertTrue(devices.get(0).isUsable());
    assertTrue(devices.size() >= 2);
  }

  @Test
  void aPlanCountsStates() {
    MemoryPlan plan =
        Wkv.planMemory(Support.STORY_MODEL, Support.CPU, PlanOptions.builder().cachesCount(10).stepTokens(5).build());
    assertEquals(10 * plan.stateBytes(), plan.cachesBytes());
    assertEquals(5, plan.stepTokens());
    assertEquals(Support.storyModel().info().stateBytes(), plan.stateBytes());
  }

  @Test
  void convertRewritesACheckpoint() {
    String target = folder + "/\u0438\u0441\u0442\u043E\u0440\u0438\u044F.gguf";
    Wkv.convert(Support.STORY_MODEL, target,
        ConvertOptions.builder().weightType(NumberType.F16).name("\u0438\u043C\u044F").build());
    try (Model model = Model.load(target, Support.CPU)) {
      assertEquals("F16", model.info().storedTypes());
    }
    Support.refused(CancelledException.class, "",
        ()
            -> Wkv.convert(Support.STORY_MODEL, folder + "/no.gguf",
                ConvertOptions.builder().progress((done, total) -> true).build()));
    assertFalse(Files.exists(folder.resolve("no.gguf")));
  }

  /** A .safetensors file with time_state tensors whose first number is `first`. */
  private Path timeStates(float first) throws Exception {
    StringBuilder header = new StringBuilder("{");
    int bytes = 4 * 64 * 64 * 4;
    for (int layer = 0; layer < 8; layer++)
      header.append(layer > 0 ? "," : "")
          .append(String.format(
              "\"blocks.%d.att.time_state\":{\"dtype\":\"F32\",\"shape\":[4,64,64],\"data_offsets\":[%d,%d]}", layer,
              layer * bytes, (layer + 1) * bytes));
    byte[] json = header.append("}").toString().getBytes(StandardCharsets.UTF_8);
    ByteBuffer file = ByteBuffer.allocate(8 + json.length + 8 * bytes).order(ByteOrder.LITTLE_ENDIAN);
    file.putLong(json.length).put(json).putFloat(first);
    return Files.write(folder.resolve("poet.safetensors"), file.array());
  }

  @Test
  void aCacheStartsFromAnInitialState() throws Exception {
    Model model = Support.storyModel();
    InitialState state = model.initialState(timeStates(1.5f).toString(), false);
    assertTrue(state.info().bytes() > 0);
    try (Cache cache = model.cache(CacheOptions.builder().initialState(state).build()); Cache plain = model.cache()) {
      state.close();
      assertEquals(1.5f, cache.readState(0, StatePart.WKV)[0]);
      assertEquals(0, plain.readState(0, StatePart.WKV)[0]);
      cache.feed(1, 2);
      cache.reset();
      assertEquals(1.5f, cache.readState(0, StatePart.WKV)[0]);
    }
    assertThrows(IllegalStateException.class, () -> model.cache(CacheOptions.builder().initialState(state).build()));
    Support.refused(NotFoundException.class, "", () -> model.initialState(folder + "/none.pth", false));
  }

  @Test
  void checkpointsAndMarks() {
    try (Cache cache = Support.storyModel().cache(
             CacheOptions.builder().checkpointEveryTokens(4).checkpointsCountMax(2).build())) {
      for (int i = 0; i < 13; i++) cache.feed(i + 1);
      assertEquals(13, cache.mark());
      assertEquals(List.of(8L, 12L, 13L), java.util.Arrays.stream(cache.keptPositions()).boxed().toList());
      cache.unmark(12);
      cache.rollback(8);
      assertEquals(8, cache.position());
      Support.refused(NotFoundException.class, "", () -> cache.rollback(12));
      cache.park();
      assertEquals(List.of(1, 2, 3, 4, 5, 6, 7, 8), cache.info().lastTokens());
    }
  }
}
