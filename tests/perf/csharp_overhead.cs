// SPDX-License-Identifier: Apache-2.0
// What a step and a generated token cost through C#, beside the same through C. Reports, judges nothing.
//
//   ninja -C build csharp_overhead step_overhead
//   mono build/csharp/csharp_overhead.exe build/tests/python/step_overhead MODEL [THREADS]
//
// Rounds of C and C# take turns. A small model on one thread shows the overhead best; on a machine that others use,
// look at the differences of the lowest.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;
using System.Linq;
using Wkv;

static class Overhead {
  private static double Median(List<double> values) => values.OrderBy(x => x).ElementAt(values.Count / 2);

  private static double[] RunC(string program, string path, int threads, int count) {
    ProcessStartInfo start = new ProcessStartInfo(program, $"\"{path}\" {threads} {count} {count}") {
      UseShellExecute = false, RedirectStandardOutput = true
    };
    using (Process process = Process.Start(start)) {
      string[] numbers = process.StandardOutput.ReadToEnd().Split(' ');
      process.WaitForExit();
      return numbers.Select(number => double.Parse(number, CultureInfo.InvariantCulture)).ToArray();
    }
  }

  private static double TimeSteps(int count, Action step) {
    for (int i = 0; i < count / 10; i++) step();
    Stopwatch watch = Stopwatch.StartNew();
    for (int i = 0; i < count; i++) step();
    return watch.Elapsed.TotalMilliseconds * 1e6 / count;
  }

  private static double TimeGeneration(Model model, Cache cache, int count) {
    using (Generation generation = model.Generate(null, new GenerationOptions {
      Cache = cache, PromptTokens = new[] { 5 }, MaxTokens = count, KeepsEndToken = true
    })) {
      Stopwatch watch = Stopwatch.StartNew();
      generation.Count();
      return watch.Elapsed.TotalMilliseconds * 1e6 / count;
    }
  }

  private static void Main(string[] arguments) {
    string program = arguments[0], path = arguments[1];
    int threads = arguments.Length > 2 ? int.Parse(arguments[2]) : 1;
    using (Model model = new Model(path, new ModelOptions { Device = "cpu", Threads = threads })) {
      Stopwatch probe = new Stopwatch();
      using (Cache cache = model.CreateCache()) {
        cache.Step(5);
        probe.Start();
        for (int i = 0; i < 10; i++) cache.Step(5);
        probe.Stop();
      }
      // about a third of a second a round
      int count = (int)Math.Max(50, Math.Min(20000, 3 / Math.Max(probe.Elapsed.TotalSeconds, 1e-6)));
      float[] logits = new float[model.VocabSize];
      int[] token = { 5 };

      string[] names = { "C, step", "C#, Step(tokens, logits)", "C#, Step(tokens)", "C, generation", "C#, generation" };
      List<double>[] columns = names.Select(_ => new List<double>()).ToArray();
      for (int round = 0; round < 9; round++) {
        double[] c = RunC(program, path, threads, count);
        columns[0].Add(c[0]);
        columns[3].Add(c[1]);
        // as the program in C: a cache that has read nothing, then a generation on it
        using (Cache cache = model.CreateCache()) columns[2].Add(TimeSteps(count, () => cache.Step(token)));
        using (Cache cache = model.CreateCache()) {
          columns[1].Add(TimeSteps(count, () => cache.Step(token, logits)));
          columns[4].Add(TimeGeneration(model, cache, count));
        }
      }
      Console.WriteLine(FormattableString.Invariant(
          $"{model}\n{threads} threads, {count} tokens a round, 9 rounds, ") +
          "microseconds a token: median (lowest to highest)");
      for (int i = 0; i < names.Length; i++) {
        List<double> values = columns[i], c = columns[i < 3 ? 0 : 3];
        string line = FormattableString.Invariant(
            $"{names[i],-26} {Median(values) / 1000,9:F2} ({values.Min() / 1000:F2} to {values.Max() / 1000:F2})");
        if (values != c)
          line += FormattableString.Invariant(
              $"  {(Median(values) - Median(c)) / 1000:+0.00;-0.00} us ") +
              FormattableString.Invariant($"(lowest {(values.Min() - c.Min()) / 1000:+0.00;-0.00}), ") +
              FormattableString.Invariant($"{100 * Median(c) / Median(values):F1} % of C's tokens/s");
        Console.WriteLine(line);
      }
    }
  }
}
