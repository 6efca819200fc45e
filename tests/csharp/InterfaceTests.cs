// SPDX-License-Identifier: Apache-2.0
// The interface as a whole: every function of the library is there, every field, every status; documentation, project
// files and examples.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Reflection;
using System.Text.RegularExpressions;
using System.Xml;
using Wkv;

namespace WkvTests {

public static class InterfaceTests {
  private static readonly Assembly library = typeof(Model).Assembly;

  // functions whose method has another name
  private static readonly Dictionary<string, string> elsewhere = new Dictionary<string, string> {
    ["wkv_cache_save"] = "save_as", ["wkv_cache_serialize"] = "serialize_as", ["wkv_cache_export"] = "export_state",
    ["wkv_cache_import"] = "import_state", ["wkv_sampler_get_probabilities"] = "read_probabilities"
  };

  // bindings/swig/classes.i says why
  private static readonly string[] leftOut = { "wkv_model_load_memory", "wkv_cache_repeat", "wkv_cache_get_tensor",
                                               "wkv_model_get_stream" };

  private static string Pascal(string name) =>
      string.Concat(name.Split('_').Select(part => part.Substring(0, 1).ToUpperInvariant() + part.Substring(1)));

  private static string Source(params string[] path) =>
      File.ReadAllText(Path.Combine(new[] { Support.Root }.Concat(path).ToArray()));

  [Promise("interface/every_function_is_wrapped")]
  public static void EveryFunction() {
    string[] symbols = Regex.Matches(Source("lib", "api", "exports.txt"), @"^wkv_\w+", RegexOptions.Multiline)
        .Cast<Match>().Select(match => match.Value).ToArray();
    Check.True(symbols.Length > 60, $"{symbols.Length} functions");
    Dictionary<string, Type> nouns = library.GetTypes().Where(type => type.Namespace == "Wkv.Interop")
        .ToDictionary(type => Regex.Replace(type.Name, "(?<!^)([A-Z])", "_$1").ToLowerInvariant());
    const BindingFlags any = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Static | BindingFlags.Instance;
    foreach (string symbol in symbols.Where(name => !leftOut.Contains(name) && !name.EndsWith("_release"))) {
      string name = symbol.Substring(4);
      string noun = nouns.Keys.Where(key => name.StartsWith(key + "_")).OrderBy(key => key.Length).LastOrDefault();
      string verb = noun == null ? name : name.Substring(noun.Length + 1);
      if (elsewhere.ContainsKey(symbol)) verb = elsewhere[symbol];
      bool isThere = noun != null && nouns[noun].GetMethods(any).Any(method => method.Name == verb) ||
          nouns["native"].GetMethods(any).Any(method => method.Name == name);
      Check.True(isThere, symbol);
    }
  }

  [Promise("interface/nothing_generated_is_public")]
  public static void NothingGenerated() {
    Check.Same(new string[0],
               library.GetExportedTypes().Where(type => type.Namespace != "Wkv").Select(type => type.FullName));
    // the runtime counts a SafeHandle during a call; a bare pointer into the library would not be held
    foreach (MethodInfo method in library.GetType("Wkv.Interop.NativePINVOKE").GetMethods(
                 BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly))
      foreach (ParameterInfo parameter in method.GetParameters())
        Check.True(parameter.ParameterType != typeof(System.Runtime.InteropServices.HandleRef), method.Name);
  }

  [Promise("interface/infos_have_every_field")]
  public static void Infos() {
    int found = 0;
    foreach (string header in Directory.GetFiles(Path.Combine(Support.Root, "include", "wkv"), "*.h"))
      foreach (Match match in Regex.Matches(File.ReadAllText(header),
                                            @"typedef struct wkv_(\w+_info) \{(.*?)\n\} ", RegexOptions.Singleline)) {
        Type type = library.GetType("Wkv." + Pascal(match.Groups[1].Value));
        Check.True(type != null, match.Groups[1].Value);
        found++;
        string body = Regex.Replace(match.Groups[2].Value, @"/\*.*?\*/", "", RegexOptions.Singleline);
        foreach (Match field in Regex.Matches(body, @"(\w+)(?:\[\w+\])?\s*[,;]")) {
          string name = field.Groups[1].Value;
          if (name == "struct_size" || name == "reserved" || name == "last_tokens_count") continue;
          Check.True(type.GetProperty(Pascal(name)) != null, $"{type}.{Pascal(name)}");
        }
      }
    Check.Equal(8, found, "structs");
  }

  [Promise("interface/options_have_every_field")]
  public static void Options() {
    // what is said in another way here: the prompt beside the options, and arrays that know their count
    string[] elsewhereHere = { "storage", "progress_user", "prompt", "struct_size", "reserved" };
    foreach (string noun in new[] { "model", "cache", "sampler", "prefix_store", "generation" }) {
      Type type = library.GetType("Wkv." + Pascal(noun + "_options"));
      string text = Source("include", "wkv", noun + ".h");
      string body = Regex.Match(text, @"typedef struct wkv_" + noun + @"_options \{(.*?)\n\} ",
                                RegexOptions.Singleline).Groups[1].Value;
      body = Regex.Replace(body, @"/\*.*?\*/", "", RegexOptions.Singleline);
      int found = 0;
      foreach (Match field in Regex.Matches(body, @"(\w+)\s*;|\(\*(\w+)\)")) {
        string name = field.Groups[1].Success ? field.Groups[1].Value : field.Groups[2].Value;
        if (elsewhereHere.Contains(name) || Regex.IsMatch(name, "^(prompt_bytes|.*(biases|tokens|strings)_count)$"))
          continue;
        found++;
        Check.True(type.GetProperty(Pascal(name)) != null, $"{type}.{Pascal(name)}");
      }
      Check.True(found >= 4, $"{type}: {found} fields");
    }
  }

  [Promise("interface/statuses_are_natural_exceptions")]
  public static void Statuses() {
    MethodInfo from = library.GetType("Wkv.Interop.Failure")
        .GetMethod("From", BindingFlags.Static | BindingFlags.NonPublic);
    Dictionary<Status, Type> kinds = new Dictionary<Status, Type> {
      [Status.Invalid] = typeof(ArgumentException), [Status.NotFound] = typeof(FileNotFoundException),
      [Status.IO] = typeof(IOException), [Status.Format] = typeof(FormatException),
      [Status.Unsupported] = typeof(NotSupportedException), [Status.OutOfMemory] = typeof(OutOfMemoryException),
      [Status.Busy] = typeof(InvalidOperationException), [Status.Cancelled] = typeof(OperationCanceledException),
      [Status.Mismatch] = typeof(ArgumentException), [Status.Device] = typeof(WkvException),
      [Status.Internal] = typeof(WkvException), [(Status)(-99)] = typeof(WkvException)
    };
    foreach (KeyValuePair<Status, Type> kind in kinds) {
      Exception failure = (Exception)from.Invoke(null, new object[] { (int)kind.Key, "the text" });
      Check.True(kind.Value.IsInstanceOfType(failure), $"{kind.Key}: {failure.GetType()}");
      Check.Equal((kind.Key, "the text"), (((IWkvFailure)failure).Code, failure.Message));
      Check.Equal("the text", ((IWkvFailure)failure).Message);
    }
    // the numbers of the header, one for one
    string header = Source("include", "wkv", "status.h");
    foreach (Match match in Regex.Matches(header, @"WKV_(\w+) = (-?\d+)")) {
      Status status = (Status)int.Parse(match.Groups[2].Value);
      Check.Equal(match.Groups[1].Value.Replace("_", ""), status.ToString().ToUpperInvariant());
    }
  }

  [Promise("interface/versions")]
  public static void Versions() {
    Check.Contains($"\"{Library.Version}\"", Source("include", "wkv", "version.h"));
    Check.Contains($"WKV_ABI_VERSION {Library.AbiVersion}u", Source("include", "wkv", "version.h"));
    Check.Equal(Library.Version, library.GetName().Version.ToString(3), "the assembly's");
  }

  [Promise("interface/everything_public_is_documented")]
  public static void Documentation() {
    string file = Path.ChangeExtension(library.Location, ".xml");
    Check.True(File.Exists(file), $"{file} is there");
    XmlDocument documentation = new XmlDocument();
    documentation.LoadXml(File.ReadAllText(file));
    HashSet<string> documented = new HashSet<string>(
        documentation.SelectNodes("//member[summary or inheritdoc]").Cast<XmlNode>()
            .Select(node => Regex.Replace(node.Attributes["name"].Value, @"\(.*$", "")));
    foreach (Type type in library.GetExportedTypes()) {
      Check.True(documented.Contains("T:" + type.FullName), type.FullName);
      foreach (MemberInfo member in type.GetMembers(BindingFlags.Public | BindingFlags.Instance | BindingFlags.Static |
                                                    BindingFlags.DeclaredOnly)) {
        if (member is MethodInfo method && method.IsSpecialName && !method.Name.StartsWith("op_")) continue;
        if (member.Name == "value__") continue;
        if (member is ConstructorInfo constructor && constructor.GetParameters().Length == 0) continue;
        string kind = member is PropertyInfo ? "P:" : member is FieldInfo ? "F:" : "M:";
        Check.True(documented.Contains(kind + type.FullName + "." + member.Name.Replace(".ctor", "#ctor")),
                   $"{type.FullName}.{member.Name}");
      }
    }
    Check.True(documented.Count > 150, $"{documented.Count} names");
  }

  /// <summary>Files that the paths of a project lead to.</summary>
  private static List<string> FilesOf(string project, out XmlDocument xml) {
    string path = Path.Combine(Support.Root, project), folder = Path.GetDirectoryName(path);
    string build = Environment.GetEnvironmentVariable("WKV_BUILD_DIR");
    if (build == null) throw new SkippedException("WKV_BUILD_DIR does not name the build folder");
    xml = new XmlDocument();
    xml.LoadXml(File.ReadAllText(path));
    string rid = Directory.GetDirectories(Path.Combine(build, "csharp", "runtimes")).Select(Path.GetFileName).Single();
    List<string> files = new List<string>();
    foreach (XmlNode node in xml.SelectNodes("//ItemGroup/*/@Include")) {
      if (node.SelectSingleNode("..").Name == "PackageReference") continue;
      string pattern = node.Value.Replace("$(WkvBuildDir)", build).Replace("$(Example)", "generate")
          .Replace("$(NETCoreSdkPortableRuntimeIdentifier)", rid);
      Check.True(!pattern.Contains("$("), pattern);
      string[] parts = Path.Combine(folder, pattern).Split(new[] { "/**" }, StringSplitOptions.None);
      string where = parts.Length > 1 ? parts[0] : Path.GetDirectoryName(parts[0]);
      string name = parts.Length > 1 && parts[1] == "" ? "*" : Path.GetFileName(pattern);
      string[] found = Directory.GetFiles(
          where, name, parts.Length > 1 ? SearchOption.AllDirectories : SearchOption.TopDirectoryOnly);
      Check.True(found.Length > 0, $"{node.Value} leads to no file");
      files.AddRange(found.Select(Path.GetFullPath));
    }
    return files;
  }

  [Promise("interface/project_files_lead_to_what_is_there")]
  public static void Projects() {
    List<string> files = FilesOf("bindings/csharp/Wkv.csproj", out XmlDocument project);
    Check.Equal("netstandard2.1;net8.0", project.SelectSingleNode("//TargetFrameworks").InnerText);
    Check.Equal(Directory.GetFiles(Path.Combine(Support.Root, "bindings/csharp/Wkv"), "*.cs",
                                   SearchOption.AllDirectories).Length,
                files.Count(file => file.Contains("/bindings/csharp/Wkv/")), "sources");
    Check.True(files.Any(file => file.EndsWith("/generated/NativePINVOKE.cs")), "generated sources");
    // the native part: the module, and the library under the name that the module looks for
    List<string> native = files.Where(file => file.Contains("/native/")).Distinct().ToList();
    Check.True(native.Any(file => Path.GetFileName(file).Contains("wkv_csharp")), "the module");
    Check.True(native.Select(Path.GetFileName)
                   .Any(name => Regex.IsMatch(name, @"^(libwkv\.so\.\d+|libwkv\.\d+\.dylib|wkv\.dll)$")),
               "the library: " + string.Join(" ", native));
    XmlNode packed = project.SelectSingleNode("//None[contains(@Include, 'runtimes')]");
    Check.Equal(("true", "runtimes/%(RecursiveDir)"),
                (packed.Attributes["Pack"].Value, packed.Attributes["PackagePath"].Value), "the package's layout");
    // the version is read from the header by this pattern
    string version = project.SelectSingleNode("//Version").InnerText;
    string pattern = Regex.Match(version, @"'(.*WKV_VERSION_STRING.*)'\)").Groups[1].Value;
    Match read = Regex.Match(Source("include", "wkv", "version.h"), pattern);
    Check.Equal(Library.Version, read.Value, "version");

    FilesOf("examples/csharp/Examples.csproj", out project);
    files = FilesOf("tests/csharp/WkvTests.csproj", out project);
    Check.True(files.Any(file => file.EndsWith("DotnetTests.cs")), "the bridge to dotnet test");
  }

  [Promise("interface/native_part_of_the_package_stands_alone")]
  public static void StandsAlone() {
    string[] command = Support.Command("generate");
    string build = Environment.GetEnvironmentVariable("WKV_BUILD_DIR");
    if (build == null || !File.Exists(command[1]))
      throw new SkippedException("WKV_BUILD_DIR does not name the build folder");
    using (TemporaryFolder folder = new TemporaryFolder()) {
      // as an installation has them: nothing of the build folder is near
      string native = Directory.GetDirectories(Path.Combine(build, "csharp", "runtimes")).Single() + "/native";
      foreach (string file in Directory.GetFiles(native).Concat(new[] { library.Location, command[1] }))
        File.Copy(file, folder.File(Path.GetFileName(file)));
      string text = Support.Run(folder.Path, "", command[0], folder.File("generate.exe"), "Once", Support.StoryPath);
      Check.True(text.Length > 20, text);
      if (File.Exists("/usr/bin/readelf"))
        Check.Contains("[$ORIGIN]", Support.Run(folder.Path, "", "readelf", "-d", folder.File("libwkv_csharp.so")));
    }
  }
}

/// <summary>Examples, in an empty folder, as from a fresh shell.</summary>
public static class ExampleTests {
  private static string RunExample(TemporaryFolder folder, string name, string input, params string[] arguments) {
    string[] command = Support.Command(name);
    if (!File.Exists(command[1])) throw new SkippedException($"{command[1]} is not built");
    return Support.Run(folder.Path, input, command[0], new[] { command[1] }.Concat(arguments).ToArray());
  }

  private static string[] Lines(string text) => text.Trim().Split('\n');

  [Promise("examples/all_are_tested")]
  public static void All() {
    Check.Same(Directory.GetFiles(Path.Combine(Support.Root, "examples/csharp"), "*.cs")
                   .Select(Path.GetFileNameWithoutExtension).OrderBy(name => name, StringComparer.Ordinal),
               new[] { "batch", "branch", "chat", "embed", "generate" });
  }

  [Promise("examples/generate")]
  public static void Generate() {
    using (TemporaryFolder folder = new TemporaryFolder()) {
      string text = RunExample(folder, "generate", "", "There was a king", Support.StoryPath);
      Check.True(text.StartsWith("There was a king") && text.Length > 40, text);
    }
  }

  [Promise("examples/chat")]
  public static void Chat() {
    using (TemporaryFolder folder = new TemporaryFolder()) {
      string text = RunExample(folder, "chat", "Hello\nTell me more\n", Support.StoryPath);
      Check.True(text.Length > 10 && text.Count(c => c == '\n') >= 2, text);
      long position = Cache.ReadHeader(folder.File("chat.wkv")).Position;
      RunExample(folder, "chat", "And on\n", Support.StoryPath);
      Check.True(Cache.ReadHeader(folder.File("chat.wkv")).Position > position, "it goes on another day");
    }
  }

  [Promise("examples/branch")]
  public static void Branch() {
    using (TemporaryFolder folder = new TemporaryFolder()) {
      string text = RunExample(folder, "branch", "", Support.StoryPath);
      Check.Equal(4, Lines(text).Distinct().Count(), text);
    }
  }

  [Promise("examples/batch")]
  public static void Batch() {
    using (TemporaryFolder folder = new TemporaryFolder()) {
      string text = RunExample(folder, "batch", "", Support.StoryPath);
      Check.True(Lines(text).Length == 3 && Lines(text).All(line => line.Length > 40), text);
    }
  }

  [Promise("examples/embed")]
  public static void Embed() {
    using (TemporaryFolder folder = new TemporaryFolder()) {
      string text = RunExample(folder, "embed", "", "Once upon a time", Support.StoryPath);
      Check.True(text.StartsWith("Once upon a time") && text.Length > 60, text);
    }
  }
}

}
