// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

import dev.wkv.internal.Watch;
import dev.wkv.internal.WkvNative;
import java.util.ArrayList;
import java.util.List;

/** What belongs to no object: versions, devices, plans, conversion. */
public final class Wkv {
  private Wkv() {}

  /**
   * {@c wkv_version}
   *
   * @return such as "0.3.0"
   */
  public static String version() {
    return WkvNative.version();
  }

  /**
   * {@c wkv_abi_version}
   *
   * @return the number
   */
  public static int abiVersion() {
    return WkvNative.abi_version();
  }

  /**
   * Every device known to this process, the CPU first.
   *
   * @return at least two
   */
  public static List<DeviceInfo> devices() {
    List<DeviceInfo> devices = new ArrayList<>();
    for (long i = 0; i < WkvNative.device_count(); i++) {
      try (dev.wkv.internal.DeviceInfo raw = new dev.wkv.internal.DeviceInfo()) {
        WkvNative.device_get_info(i, raw);
        devices.add(DeviceInfo.of(raw));
      }
    }
    return List.copyOf(devices);
  }

  /**
   * {@c wkv_model_plan_memory}
   *
   * @param path as in {@link Model#load(String)}
   * @param options that the model would be loaded with
   * @param plan what it will be used for
   * @return the memory it will need
   */
  public static MemoryPlan planMemory(String path, ModelOptions options, PlanOptions plan) {
    byte[] bytes = Arguments.line(path, "path");
    try (Watch watch = new Watch(options.progress());
         dev.wkv.internal.ModelOptions rawOptions = new dev.wkv.internal.ModelOptions();
         dev.wkv.internal.MemoryPlan raw = new dev.wkv.internal.MemoryPlan()) {
      options.fill(rawOptions, watch);
      plan.fill(raw);
      dev.wkv.internal.Model.plan_memory(bytes, rawOptions, raw);
      return MemoryPlan.of(raw);
    }
  }

  /**
   * {@c wkv_convert}
   *
   * @param source as the path of {@link Model#load(String)}
   * @param target file to write; an existing one is replaced
   * @param options how
   */
  public static void convert(String source, String target, ConvertOptions options) {
    byte[] from = Arguments.line(source, "source");
    byte[] to = Arguments.line(target, "target");
    try (Watch watch = new Watch(options.progress());
         dev.wkv.internal.ConvertOptions raw = new dev.wkv.internal.ConvertOptions()) {
      options.fill(raw, watch);
      WkvNative.convert(from, to, raw);
    }
  }
}
