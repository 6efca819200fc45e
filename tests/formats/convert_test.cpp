// SPDX-License-Identifier: Apache-2.0
// Writing GGUF: what comes out is what went in, whole or not at all.
#include <algorithm>
#include <cmath>
#include <csignal>

#include <sys/wait.h>

#include <wkv/convert.h>

#include "formats/checkpoint_files.h"
#include "formats/plain_decode.h"

namespace libwkv::tests {
namespace {

wkv_convert_options make_options(wkv_type type) {
  wkv_convert_options options{};
  options.struct_size = sizeof options;
  options.weight_type = type;
  return options;
}

wkv_status convert(const fs::path &source, const fs::path &target, const wkv_convert_options *options,
                   std::string *message = nullptr) {
  wkv_error error{};
  error.struct_size = sizeof error;
  wkv_status status = wkv_convert(source.c_str(), target.c_str(), options, &error);
  if (message) *message = error.message;
  return status;
}

size_t files_in(const fs::path &folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

void expect_rounded(const Checkpoint &found, const Checkpoint &source, StoredType large) {
  ASSERT_EQ(found.tensors.size(), source.tensors.size());
  for (const auto &[name, tensor] : source.tensors) {
    const Tensor &other = found.tensors.at(name);
    ASSERT_EQ(other.shape, tensor.shape) << name;
    std::vector<float> expected = values_of(tensor), values = values_of(other);
    for (size_t i = 0; i < values.size(); i++) {
      double exact = expected[i];
      if (other.type == StoredType::f16) exact = rounded_to(exact, 11, -24);
      if (other.type == StoredType::bf16) exact = rounded_to(exact, 8, -133);
      if (formats::block_values(other.type) == 1) {
        ASSERT_EQ(static_cast<double>(values[i]), exact) << name << " " << i;
      }
    }
    bool is_large = tensor.rank == 2 && !is_low_rank(name) && !name.ends_with("r_k");
    bool is_decay = name.ends_with("w1") || name.ends_with("w2");
    StoredType low_rank = large == StoredType::q8_0 ? StoredType::f16 : large;
    EXPECT_EQ(other.type, is_large ? large : is_low_rank(name) && !is_decay ? low_rank : StoredType::f32) << name;
  }
}

TEST(Convert, every_type_round_trips) {
  TemporaryFolder folder;
  fs::path source = data_folder() / "rnd_a.bf16.pth", target = folder / "out.gguf";
  Checkpoint original = formats::open_checkpoint(source.string());
  struct {
    wkv_type type;
    StoredType stored;
  } cases[] = {{WKV_TYPE_F32, StoredType::f32},
               {WKV_TYPE_F16, StoredType::f16},
               {WKV_TYPE_BF16, StoredType::bf16},
               {WKV_TYPE_Q8, StoredType::q8_0},
               {0, StoredType::f16}};
  for (const auto &[type, stored] : cases) {
    wkv_convert_options options = make_options(type);
    std::string message;
    ASSERT_EQ(convert(source, target, &options, &message), WKV_OK) << message;
    Checkpoint written = formats::open_checkpoint(target.string());
    EXPECT_EQ(written.format, "gguf");
    EXPECT_NO_THROW(derive_hyper_parameters(written));
    expect_rounded(written, original, stored);
    EXPECT_EQ(files_in(folder.path()), 1u) << "a temporary file is left";
  }
  EXPECT_EQ(convert(source, target, nullptr), WKV_OK);
}

TEST(Convert, q8_of_the_same_weights_is_the_committed_file) {
  TemporaryFolder folder;
  wkv_convert_options options = make_options(WKV_TYPE_Q8);
  ASSERT_EQ(convert(data_folder() / "rnd_a.bf16.pth", folder / "out.gguf", &options), WKV_OK);
  expect_same_model(formats::open_checkpoint((folder / "out.gguf").string()),
                    formats::open_checkpoint((data_folder() / "rnd_a.Q8_0.gguf").string()), "q8");
}

TEST(Convert, every_format_goes_in) {
  TemporaryFolder folder;
  Checkpoint reference = formats::open_checkpoint((data_folder() / "rnd_a.bf16.pth").string());
  write_file(folder / "a.bin", make_rwkvcpp(plain_tensors(reference), 2));
  write_file(folder / "a.st", make_safetensors(plain_tensors(reference)));
  wkv_convert_options options = make_options(WKV_TYPE_F32);
  for (fs::path source :
       {folder / "a.bin", folder / "a.st", data_folder() / "fla_bf16", data_folder() / "rnd_a.bf16.pth"}) {
    ASSERT_EQ(convert(source, folder / "out.gguf", &options), WKV_OK) << source;
    expect_same_model(formats::open_checkpoint((folder / "out.gguf").string()), reference, source.string());
  }
  // and its own output, onto itself
  ASSERT_EQ(convert(folder / "out.gguf", folder / "out.gguf", &options), WKV_OK);
  expect_same_model(formats::open_checkpoint((folder / "out.gguf").string()), reference, "twice");
}

TEST(Convert, all_golden_formats_go_in) {
  WKV_NEED_SHARED();
  TemporaryFolder folder;
  wkv_convert_options options = make_options(WKV_TYPE_F32);
  for (const char *name :
       {"rnd_a/weights/pth_variants/legacy_not_zip.pth", "rnd_a/weights/pth_variants/noncontiguous_strides.pth",
        "rnd_a/weights/rnd_a.Q5_1.gguf", "rnd_d/weights/rnd_d.Q4_K.gguf", "rnd_d/weights/rnd_d.Q6_K.gguf",
        "tiny/weights/tiny-rwkv-7v0-834K-Q5_0.bin"}) {
    fs::path source = shared_folder() / "golden" / name;
    ASSERT_EQ(convert(source, folder / "out.gguf", &options), WKV_OK) << name;
    expect_same_model(formats::open_checkpoint((folder / "out.gguf").string()),
                      formats::open_checkpoint(source.string()), name);
  }
}

TEST(Convert, vocabulary_goes_inside) {
  TemporaryFolder folder;
  wkv_convert_options options = make_options(WKV_TYPE_Q8);
  std::string vocabulary = (data_folder() / "rwkv_vocab.txt").string();
  options.vocabulary_path = vocabulary.c_str();
  options.name = "a name";
  ASSERT_EQ(convert(data_folder() / "rnd_a.bf16.pth", folder / "given.gguf", &options), WKV_OK);
  // the source's own one
  options.vocabulary_path = nullptr;
  ASSERT_EQ(convert(data_folder() / "fla_bf16", folder / "own.gguf", &options), WKV_OK);
  Checkpoint golden = formats::open_checkpoint((data_folder() / "rnd_a.Q8_0.gguf").string());
  for (const char *name : {"given.gguf", "own.gguf"}) {
    Checkpoint written = formats::open_checkpoint((folder / name).string());
    ASSERT_EQ(written.vocabulary.size(), golden.vocabulary.size());
    for (size_t i = 0; i < golden.vocabulary.size(); i++) {
      EXPECT_EQ(written.vocabulary[i].id, golden.vocabulary[i].id);
      EXPECT_EQ(written.vocabulary[i].bytes, golden.vocabulary[i].bytes);
    }
    // The texts are those of other converters, byte for byte.
    using namespace std::string_literals;
    std::string content = read_file(folder / name), other = read_file(data_folder() / "rnd_a.Q8_0.gguf");
    for (const std::string &part : {"[PAD324]"s, "[PAD330]"s, "<s>"s, "a name"s, "general.name"s})
      EXPECT_NE(content.find(part), std::string::npos) << part;
    auto tokens_of = [](const std::string &file) {
      size_t begin = file.find("tokenizer.ggml.tokens");
      return file.substr(begin, file.find("tokenizer.chat_template") - begin);
    };
    EXPECT_EQ(tokens_of(content), tokens_of(other));
  }
}

TEST(Convert, layer_0_has_the_dummies_that_llama_cpp_asks_for) {
  TemporaryFolder folder;
  wkv_convert_options options = make_options(WKV_TYPE_F32);
  ASSERT_EQ(convert(data_folder() / "rnd_a.bf16.pth", folder / "out.gguf", &options), WKV_OK);
  std::string content = read_file(folder / "out.gguf");
  for (const char *name : {"blk.0.time_mix_v0.weight", "blk.0.time_mix_v1.weight", "blk.0.time_mix_v2.weight",
                           "blk.1.time_mix_lerp_fused.weight", "rwkv7.wkv.head_size", "rwkv7.attention.head_count",
                           "tokenizer.ggml.model", "no_vocab"})
    EXPECT_NE(content.find(name), std::string::npos) << name;
  // 62 tensors: those of other converters
  uint64_t tensors;
  std::memcpy(&tensors, content.data() + 8, 8);
  EXPECT_EQ(tensors, 62u);
}

TEST(Convert, a_cancelled_conversion_leaves_the_old_file) {
  TemporaryFolder folder;
  write_file(folder / "out.gguf", "precious");
  wkv_convert_options options = make_options(WKV_TYPE_F16);
  struct State {
    int calls = 0, stop_at = 0;
    uint64_t last = 0, total = 0;
  } state;
  options.progress = [](void *user, uint64_t done, uint64_t total) -> int32_t {
    State &s = *static_cast<State *>(user);
    EXPECT_GE(done, s.last);
    EXPECT_LE(done, total);
    s.last = done;
    s.total = total;
    return ++s.calls == s.stop_at;
  };
  options.progress_user = &state;
  for (int stop_at : {1, 5, 40}) {
    state = {0, stop_at, 0, 0};
    EXPECT_EQ(convert(data_folder() / "rnd_a.bf16.pth", folder / "out.gguf", &options), WKV_CANCELLED);
    EXPECT_EQ(state.calls, stop_at);
    EXPECT_EQ(read_file(folder / "out.gguf"), "precious");
    EXPECT_EQ(files_in(folder.path()), 1u);
  }
  state = {};
  EXPECT_EQ(convert(data_folder() / "rnd_a.bf16.pth", folder / "out.gguf", &options), WKV_OK);
  EXPECT_EQ(state.last, state.total);
  EXPECT_GE(state.calls, 62);
}

TEST(Convert, a_killed_conversion_leaves_the_old_file) {
  TemporaryFolder folder;
  write_file(folder / "out.gguf", "precious");
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    wkv_convert_options options = make_options(WKV_TYPE_F16);
    options.progress = [](void *, uint64_t done, uint64_t total) -> int32_t {
      if (done > total / 2) kill(getpid(), SIGKILL);
      return 0;
    };
    convert(data_folder() / "rnd_a.bf16.pth", folder / "out.gguf", &options);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(read_file(folder / "out.gguf"), "precious");
  // What the dead one left does not disturb the next.
  EXPECT_EQ(convert(data_folder() / "rnd_a.bf16.pth", folder / "out.gguf", nullptr), WKV_OK);
  EXPECT_EQ(open_status(folder / "out.gguf"), WKV_OK);
}

TEST(Convert, bad_sources_and_arguments_leave_the_old_file) {
  TemporaryFolder folder;
  fs::path target = folder / "out.gguf", source = data_folder() / "rnd_a.bf16.pth";
  write_file(target, "precious");
  std::string content = read_file(source);
  write_file(folder / "cut.pth", content.substr(0, content.size() / 2));
  EXPECT_EQ(convert(folder / "cut.pth", target, nullptr), WKV_FORMAT);
  EXPECT_EQ(convert(folder / "none.pth", target, nullptr), WKV_NOT_FOUND);
  wkv_convert_options options = make_options(WKV_TYPE_Q4);
  EXPECT_EQ(convert(source, target, &options), WKV_INVALID);
  options = make_options(99);
  EXPECT_EQ(convert(source, target, &options), WKV_INVALID);
  options = make_options(WKV_TYPE_F16);
  options.vocabulary_path = "/nonexistent";
  EXPECT_EQ(convert(source, target, &options), WKV_NOT_FOUND);
  options.vocabulary_path = target.c_str();
  EXPECT_EQ(convert(source, target, &options), WKV_FORMAT);
  write_file(folder / "large.txt", "331 'a' 1\n");
  std::string large = (folder / "large.txt").string(), message;
  options.vocabulary_path = large.c_str();
  EXPECT_EQ(convert(source, target, &options, &message), WKV_INVALID);
  EXPECT_NE(message.find("331"), std::string::npos);
  options = make_options(WKV_TYPE_F16);
  options.name = "\xff";
  EXPECT_EQ(convert(source, target, &options), WKV_INVALID);
  options = make_options(WKV_TYPE_F16);
  options.struct_size = 4;
  EXPECT_EQ(convert(source, target, &options), WKV_INVALID);
  EXPECT_EQ(read_file(target), "precious");

  EXPECT_EQ(wkv_convert(nullptr, target.c_str(), nullptr, nullptr), WKV_INVALID);
  EXPECT_EQ(wkv_convert(source.c_str(), nullptr, nullptr, nullptr), WKV_INVALID);
  EXPECT_EQ(convert(source, "", nullptr), WKV_INVALID);
  EXPECT_EQ(convert(source, folder.path(), nullptr), WKV_IO);
  EXPECT_EQ(convert(source, folder / "missing/out.gguf", nullptr), WKV_NOT_FOUND);
  EXPECT_EQ(files_in(folder.path()), 3u);
}

TEST(Convert, a_value_that_half_precision_cannot_hold_is_refused) {
  TemporaryFolder folder;
  std::vector<PlainTensor> tensors =
      plain_tensors(formats::open_checkpoint((data_folder() / "rnd_a.bf16.pth").string()));
  for (PlainTensor &tensor : tensors)
    if (tensor.name == "blocks.1.ffn.key.weight") tensor.values[100] = 70000;
  write_file(folder / "a.st", make_safetensors(tensors));
  wkv_convert_options options = make_options(WKV_TYPE_F16);
  std::string message;
  EXPECT_EQ(convert(folder / "a.st", folder / "out.gguf", &options, &message), WKV_UNSUPPORTED);
  EXPECT_NE(message.find("blk.1.channel_mix_key.weight"), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(folder / "out.gguf"));
  options = make_options(WKV_TYPE_BF16);
  EXPECT_EQ(convert(folder / "a.st", folder / "out.gguf", &options), WKV_OK);
}

}  // namespace
}  // namespace libwkv::tests
