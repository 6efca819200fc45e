// SPDX-License-Identifier: Apache-2.0
// Shows the cases of Runner.cs to `dotnet test`. Not part of the build with Mono, which has no NUnit.
using System.Collections.Generic;
using NUnit.Framework;

namespace WkvTests {

[TestFixture]
public sealed class DotnetTests {
  public static IReadOnlyList<string> Names => Runner.Names;

  [TestCaseSource(nameof(Names))]
  public void Promise(string name) {
    try {
      Runner.Run(name);
    } catch (SkippedException reason) {
      Assert.Ignore(reason.Message);
    }
  }
}

}
