// SPDX-License-Identifier: Apache-2.0
// Runs tests by name, each in a process of its own where ctest asks for one. With a .NET SDK, DotnetTests.cs shows the
// same cases to `dotnet test`.
using System;
using System.Collections.Generic;
using System.Linq;
using System.Reflection;
using System.Runtime.ExceptionServices;

namespace WkvTests {

/// <summary>A static method that is a test, and the name it is known by.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class PromiseAttribute : Attribute {
  public PromiseAttribute(string name) {
    Name = name;
  }

  public string Name { get; }
}

/// <summary>Thrown by a test that cannot run here, with the reason.</summary>
public sealed class SkippedException : Exception {
  public SkippedException(string reason) : base(reason) {
  }
}

/// <summary>Thrown by a check that does not hold.</summary>
public sealed class FailedException : Exception {
  public FailedException(string text) : base(text) {
  }
}

public static class Check {
  public static void True(bool condition, string what) {
    if (!condition) throw new FailedException(what);
  }

  public static void Equal<T>(T expected, T actual, string what = "") {
    if (!EqualityComparer<T>.Default.Equals(expected, actual))
      throw new FailedException($"{what}: {actual} instead of {expected}");
  }

  public static void Same<T>(IEnumerable<T> expected, IEnumerable<T> actual, string what = "") {
    if (!expected.SequenceEqual(actual))
      throw new FailedException(
          $"{what}: [{string.Join(", ", actual.Take(20))}] instead of [{string.Join(", ", expected.Take(20))}]");
  }

  public static void Contains(string part, string text) => True(text.Contains(part), $"'{part}' is not in '{text}'");

  /// <summary>The call throws exactly such an exception, or a subtype.</summary>
  public static T Throws<T>(Action call, string what = "") where T : Exception {
    try {
      call();
    } catch (T expected) {
      return expected;
    } catch (Exception other) {
      throw new FailedException($"{what}: {other.GetType()} ({other.Message}) instead of {typeof(T)}");
    }
    throw new FailedException($"{what}: nothing was thrown instead of {typeof(T)}");
  }

  /// <summary>A failure of the library with this code.</summary>
  public static T Fails<T>(Wkv.Status code, Action call, string what = "") where T : Exception {
    T exception = Throws<T>(call, what);
    True(exception is Wkv.IWkvFailure, $"{what}: {exception.GetType()} is no failure of the library");
    Equal(code, ((Wkv.IWkvFailure)exception).Code, what);
    True(exception.Message.Length > 0 && !exception.Message.Contains("\n"), $"{what}: '{exception.Message}'");
    return exception;
  }
}

public static class Runner {
  public static IReadOnlyList<string> Names => cases.Keys.OrderBy(name => name, StringComparer.Ordinal).ToList();

  private static readonly Dictionary<string, MethodInfo> cases =
      (from type in typeof(Runner).Assembly.GetTypes()
       from method in type.GetMethods(BindingFlags.Static | BindingFlags.Public)
       let promise = method.GetCustomAttribute<PromiseAttribute>()
       where promise != null
       select (promise.Name, method)).ToDictionary(pair => pair.Item1, pair => pair.Item2);

  public static void Run(string name) {
    try {
      cases[name].Invoke(null, null);
    } catch (TargetInvocationException wrapped) {
      ExceptionDispatchInfo.Capture(wrapped.InnerException).Throw();
    }
  }

  private static int Main(string[] arguments) {
    if (arguments.Length == 3 && (arguments[0] == "begin" || arguments[0] == "go_on"))
      return SessionProgram.Run(arguments[0], arguments[1], arguments[2]);
    if (arguments.Length == 1 && arguments[0] == "--list") {
      foreach (string name in Names) Console.WriteLine(name);
      return 0;
    }
    int failed = 0, skipped = 0;
    List<string> wanted = arguments.Length > 0 ? arguments.ToList() : Names.ToList();
    foreach (string name in wanted) {
      if (!cases.ContainsKey(name)) {
        Console.WriteLine($"no test has the name {name}");
        return 2;
      }
      try {
        Run(name);
        Console.WriteLine($"passed: {name}");
      } catch (SkippedException reason) {
        skipped++;
        Console.WriteLine($"skipped: {reason.Message}");
      } catch (Exception exception) {
        failed++;
        Console.WriteLine($"FAILED: {name}: {exception}");
      }
    }
    if (failed > 0) return 1;
    return skipped == wanted.Count ? 77 : 0;
  }
}

}
