// SPDX-License-Identifier: Apache-2.0
// What the tests share: models, golden files, other threads, folders, programs.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Text;
using System.Text.RegularExpressions;
using System.Threading;
using System.Threading.Tasks;
using Wkv;

namespace WkvTests {

public static class Support {
  public static readonly string Root = FindRoot();
  public static readonly string StoryPath = Path.Combine(Root, "examples", "models", "tales-8m.gguf");

  private static readonly Lazy<Model> story = new Lazy<Model>(() => Load(StoryPath));

  /// <summary>The embedded model, loaded once a process. Tests that close a model load their own.</summary>
  public static Model Story => story.Value;

  public static Model Load(string path, int threads = 2) =>
      new Model(path, new ModelOptions { Device = "cpu", Threads = threads });

  private static string FindRoot() {
    string named = Environment.GetEnvironmentVariable("WKV_SOURCE_DIR");
    if (named != null) return named;
    DirectoryInfo folder = new DirectoryInfo(AppDomain.CurrentDomain.BaseDirectory);
    while (folder != null && !File.Exists(Path.Combine(folder.FullName, "include", "wkv", "wkv.h")))
      folder = folder.Parent;
    return folder?.FullName ?? throw new InvalidOperationException("WKV_SOURCE_DIR does not name the sources");
  }

  /// <summary>The most likely id; that past the vocabulary has no token.</summary>
  public static int Likeliest(IReadOnlyList<float> logits, int count) =>
      Enumerable.Range(0, count).OrderByDescending(i => logits[i]).ThenBy(i => i).First();

  public static float Difference(IReadOnlyList<float> a, IReadOnlyList<float> b) {
    Check.Equal(a.Count, b.Count, "sizes");
    return a.Zip(b, (x, y) => Math.Abs(x - y)).DefaultIfEmpty().Max();
  }

  public static int[] Repeated(int token, int count) => Enumerable.Repeat(token, count).ToArray();

  /// <summary>Waits for something that another thread does.</summary>
  public static void WaitUntil(Func<bool> condition) {
    Stopwatch watch = Stopwatch.StartNew();
    while (!condition()) {
      if (watch.Elapsed.TotalSeconds > 60) throw new FailedException("it did not happen");
      Thread.Sleep(0);
    }
  }

  public static bool IsBusy(Cache cache) {
    try {
      long position = cache.Position;
      return position < 0;
    } catch (WkvBusyException) {
      return true;
    }
  }

  /// <summary>While another thread steps this cache by 6000 tokens, long enough for anything that the block tries;
  /// gives its scores. Begins again when this thread did not get to run in time.</summary>
  public static float[] WhileStepping(Cache cache, Action block) {
    for (int attempt = 0; attempt < 10; attempt++) {
      Task<float[]> step = Task.Run(() => cache.Step(Repeated(5, 6000)));
      WaitUntil(() => step.IsCompleted || IsBusy(cache));
      if (step.IsCompleted) continue;
      block();
      return step.GetAwaiter().GetResult();
    }
    throw new SkippedException("the step was over at once");
  }

  public static long ResidentBytes() {
    if (!File.Exists("/proc/self/statm")) throw new SkippedException("memory is read from /proc");
    return long.Parse(File.ReadAllText("/proc/self/statm").Split(' ')[1], CultureInfo.InvariantCulture) *
        Environment.SystemPageSize;
  }

  /// <summary>Memory does not grow while a function runs many times. The runtime's own heap finds its size at first; a
  /// leak grows in every window.</summary>
  public static void IsFlat(Action function, int rounds, long allowedBytes) {
    long grown = long.MaxValue;
    for (int window = 0; window < 4 && grown >= allowedBytes; window++) {
      Collect();
      long before = ResidentBytes();
      for (int i = 0; i < rounds; i++) function();
      Collect();
      grown = ResidentBytes() - before;
      Console.WriteLine($"{rounds} rounds: {grown / 1024} KiB more");
    }
    Check.True(grown < allowedBytes, $"{grown} bytes more after {rounds} rounds");
  }

  public static void Collect() {
    for (int i = 0; i < 2; i++) {
      GC.Collect();
      GC.WaitForPendingFinalizers();
    }
  }

  /// <summary>Runs a program in a folder; its output must not be looked for in vain.</summary>
  public static string Run(string folder, string input, string program, params string[] arguments) {
    ProcessStartInfo start = new ProcessStartInfo(program, string.Join(" ", arguments.Select(Quoted))) {
      WorkingDirectory = folder, UseShellExecute = false, RedirectStandardInput = true, RedirectStandardOutput = true,
      RedirectStandardError = true, StandardOutputEncoding = Encoding.UTF8
    };
    using (Process process = Process.Start(start)) {
      Task<string> error = process.StandardError.ReadToEndAsync();
      process.StandardInput.Write(input);
      process.StandardInput.Close();
      string output = process.StandardOutput.ReadToEnd();
      process.WaitForExit();
      Check.Equal(0, process.ExitCode, $"{program} {start.Arguments}: {output}{error.Result}");
      return output;
    }
  }

  private static string Quoted(string argument) => "\"" + argument.Replace("\"", "\\\"") + "\"";

  /// <summary>How this program, or one beside it, is started.</summary>
  public static string[] Command(string name) {
    string folder = AppDomain.CurrentDomain.BaseDirectory;
    string runtime = Environment.GetEnvironmentVariable("WKV_MONO");
    if (runtime != null) return new[] { runtime, Path.Combine(folder, name + ".exe") };
    return new[] { "dotnet", Path.Combine(folder, name + ".dll") };
  }
}

/// <summary>A folder that goes with the block.</summary>
public sealed class TemporaryFolder : IDisposable {
  public TemporaryFolder() {
    Path = System.IO.Path.Combine(System.IO.Path.GetTempPath(), "wkv-" + Guid.NewGuid().ToString("N"));
    Directory.CreateDirectory(Path);
  }

  public string Path { get; }

  public string File(string name) => System.IO.Path.Combine(Path, name);

  public void Dispose() => Directory.Delete(Path, true);
}

/// <summary>A recorded case of the reference: NAME.json, which says where its arrays lie in NAME.bin.</summary>
public sealed class Golden {
  private static readonly string folder = FindFolder();
  private readonly string description;
  private readonly byte[] data;

  public Golden(string name) {
    Name = name;
    description = File.ReadAllText(Path.Combine(folder, "golden", name + ".json"));
    data = File.ReadAllBytes(Path.Combine(folder, "golden", name + ".bin"));
  }

  public string Name { get; }

  private static string FindFolder() {
    string shared =
        Environment.GetEnvironmentVariable("WKV_SHARED_DIR") ?? Path.Combine(Support.Root, "..", "shared");
    return new[] { Path.Combine(shared, "golden", "rnd_a"), Path.Combine(Support.Root, "tests", "data", "rnd_a") }
        .First(Directory.Exists);
  }

  public static IEnumerable<Golden> Sequences =>
      new[] { "len1", "len7", "len16", "len33", "len200", "len1024" }
          .Where(name => File.Exists(Path.Combine(folder, "golden", name + ".json"))).Select(name => new Golden(name));

  public static string Weights(string name) => Path.Combine(folder, "weights", name);

  public static string Text(string name) => File.ReadAllText(Path.Combine(folder, "golden", name));

  public static Model LoadModel() => Support.Load(Weights("rnd_a.bf16.pth"));

  public int[] Integers(string array) => Array(array, BitConverter.ToInt32);

  public float[] Floats(string array) => Array(array, BitConverter.ToSingle);

  private T[] Array<T>(string array, Func<byte[], int, T> read) {
    Match entry = Regex.Match(description, "\"name\": \"" + array +
        "\",\\s*\"dtype\": \"\\w+\",\\s*\"shape\": \\[([^\\]]*)\\],\\s*\"offset\": (\\d+)");
    Check.True(entry.Success, $"{Name} has no array {array}");
    int count = entry.Groups[1].Value.Split(',').Aggregate(1, (product, size) => product * int.Parse(size.Trim()));
    int offset = int.Parse(entry.Groups[2].Value);
    return Enumerable.Range(0, count).Select(i => read(data, offset + 4 * i)).ToArray();
  }

  /// <summary>As tests/support/golden.h has it: four times what a plain float32 run was off, and two
  /// roundings.</summary>
  public double AllowedError(IEnumerable<float> golden) {
    string noise = File.ReadAllText(Path.Combine(Support.Root, "tests", "data", "fp32_noise.json"));
    string number = Regex.Match(noise, "\"rnd_a/" + Name + "\": \\{\\s*\"logits\": ([0-9.e+-]+)").Groups[1].Value;
    return 4 * double.Parse(number, CultureInfo.InvariantCulture) + Math.Pow(2, -22) * golden.Max(Math.Abs);
  }
}

}
